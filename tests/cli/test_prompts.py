"""Questions at a terminal, as under `meltano invoke`, which passes on output by the line."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import PLANTED, people, person
from tests.support.singer import environment
from tests.support.terminals import CODE, OUTPUT_ONLY, STDIN_ONLY, Terminal


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
