"""Questions at a terminal, as under `meltano invoke`, which passes on output by the line."""

import json
import os
import pty
import select
import subprocess
import sys

import pytest

from tests.cli.conftest import PLANTED, people, person
from tests.support.singer import environment

# Opening a terminal in a new session makes it the one that controls the process.
AT = 'exec 3<>"$TERMINAL"; exec "$@" {streams} 3>&-'
STDIN_ONLY = "<&3"  # Meltano's: the person's terminal in, pipes out
OUTPUT_ONLY = "</dev/null"


class Terminal:
    """A command that a terminal controls, with pipes for its standard output and error."""

    def __init__(self, home, words, streams):
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["sh", "-c", AT.format(streams=streams), "sh", sys.executable, "-c", CODE, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(home, TERMINAL=os.ttyname(theirs)),
            start_new_session=True,
        )
        self._theirs = theirs
        self.seen = b""

    def wait_for(self, text):
        while text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], 60)
            assert ready, self.seen
            self.seen += os.read(self._ours, 65_536)

    def type(self, text):
        os.write(self._ours, text)

    def end(self):
        """Return exit code, output and errors."""
        output, errors = self.process.communicate(timeout=60)
        while select.select([self._ours], [], [], 0)[0]:
            self.seen += os.read(self._ours, 65_536)
        os.close(self._ours)
        os.close(self._theirs)
        return self.process.returncode, output.decode(), errors.decode()


CODE = "from target_moengage_cohort.cli import main; main()"


@pytest.fixture
def config_file(desk):
    """The configuration of a cohort with three members."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(1, 2, 3))
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw))
    return str(path)


@pytest.mark.parametrize("streams", [STDIN_ONLY, OUTPUT_ONLY])
@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 3), (b"\n", 1, 3)]
)
def test_a_question_is_asked_at_the_terminal(desk, config_file, streams, answer, code, left):
    """Whether the terminal is standard input or none of the streams, it shows the question."""
    there = Terminal(desk.folder, ["empty", "vip", "--config", config_file], streams)
    there.wait_for(b"[y/N]")
    there.type(answer)
    exit_code, _, errors = there.end()
    assert code == exit_code, errors
    assert left == len(desk.there("vip"))


def test_an_interrupt_ends_a_question_at_the_terminal(desk, config_file):
    """Ctrl-C ends the command with 130, and nothing is sent."""
    there = Terminal(desk.folder, ["empty", "vip", "--config", config_file], STDIN_ONLY)
    there.wait_for(b"[y/N]")
    there.type(b"\x03")
    assert 130 == there.end()[0]
    assert 3 == len(desk.there("vip"))


@pytest.mark.parametrize("streams", [STDIN_ONLY, OUTPUT_ONLY])
def test_forget_asks_at_the_terminal_and_shows_nothing(desk, config_file, streams):
    """The identifiers that are typed appear neither at the terminal nor in the output."""
    there = Terminal(desk.folder, ["forget", "--config", config_file], streams)
    there.wait_for(b"User ID")
    there.type(f"{PLANTED}0001\n".encode())
    there.wait_for(b"Anonymous ID")
    there.type(b"\n")
    code, output, errors = there.end()
    desk.output += output + errors + there.seen.decode()
    assert (0, "") == (code, errors)
    assert person(1) not in desk.there("vip")


def test_forget_without_a_terminal_is_wrong_usage(desk, config_file):
    """It reads nothing that could be shown, and leaks no warning of Python's."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, "forget", "--config", config_file],
        input=f"{PLANTED}0001\n\n",
        capture_output=True,
        text=True,
        env=environment(desk.folder),
        start_new_session=True,
        timeout=60,
        check=False,
    )
    desk.output += done.stdout + done.stderr
    assert 2 == done.returncode
    assert "GetPassWarning" not in done.stderr
    assert 3 == len(desk.there("vip"))


def test_a_question_without_a_terminal_is_wrong_usage(desk, config_file):
    """The message names --yes."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, "empty", "vip", "--config", config_file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(desk.folder),
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert 2 == done.returncode
    assert "--yes" in done.stderr
    assert 3 == len(desk.there("vip"))
