"""What a person sees at a terminal: help, its examples, completion and colours."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from target_moengage_cohort.cli import cli
from tests.cli.conftest import PLANTED, people
from tests.support.project import program
from tests.support.singer import config, environment, lines, record, schema, state

BIN = Path(program("moengage-cohort")).parent
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")


def commands(group=cli, words=("moengage-cohort",)):
    """Every command and group, as the words that call it."""
    yield words
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


ALL = [*commands(), ("target-moengage-cohort",)]


def surroundings(home, **variables):
    """An environment as at a terminal of 80 columns, with our programs on the PATH."""
    inherited = {name: value for name, value in environment(home).items() if name not in VARIABLES}
    path = f"{home / 'bin'}{os.pathsep}{BIN}{os.pathsep}{inherited['PATH']}"
    return inherited | {"PATH": path, "COLUMNS": "80", "TERM": "xterm"} | variables


def helped(words, home):
    """What a command says when it is asked for help, in a process of its own."""
    done = subprocess.run(
        [BIN / words[0], *words[1:], "--help"],
        capture_output=True,
        text=True,
        env=surroundings(home),
        check=True,
        timeout=60,
    )
    return done.stdout


def example(told):
    """The example at the end of a help, as it is to be typed."""
    _, found, text = told.rpartition("\n  Example:\n")
    assert found, told
    return "\n".join(line.strip() for line in text.rstrip().splitlines())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(words, tmp_path):
    """Each command's help fits 80 columns, cuts nothing short, and ends with an example of it."""
    told = helped(words, tmp_path)
    assert [] == [line for line in told.splitlines() if len(line) > 80]
    assert not re.search(r"\.\.\.$", told.partition("Commands:")[2], re.MULTILINE)
    assert " ".join(words) in example(told.partition("\nOptions:")[2])


@pytest.fixture
def office(desk):
    """A folder with all that the examples name, and a tap of the name that they use."""
    desk.fill("vip", people(1, 2), stream="users", name="VIP")
    desk.plan("vip", people(1))
    with desk.ledgers() as ledgers:
        ledgers.begin("users")  # the plan's run was another one, before
    desk.plan("vip", people(1))
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    for name in ("members.csv", "people.csv"):
        (desk.folder / name).write_text(f"uid\n{PLANTED}0001\n")
    tap = desk.folder / "bin" / "tap-postgres"
    tap.parent.mkdir()
    (desk.folder / "messages").write_bytes(
        lines(schema("other"), record("other", uid=f"{PLANTED}0009"), state({"a": 1}))
    )
    tap.write_text(f'#!/bin/sh\n[ "$1" = --config ] && cat {desk.folder}/messages\n')
    tap.chmod(0o700)
    return desk


@pytest.mark.parametrize(
    "words", [words for words in ALL if words[-1] not in {"emulator", "confirm"}], ids=" ".join
)
def test_the_example_works(words, office):
    """What a command's help ends with can be typed as it stands, and succeeds."""
    typed = example(helped(words, office.folder))
    done = subprocess.run(
        ["sh", "-c", typed],
        input="y\n",
        capture_output=True,
        text=True,
        cwd=office.folder,
        env=surroundings(office.folder),
        check=False,
        timeout=60,
    )
    office.said += done.stdout + done.stderr
    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")


def test_the_example_of_the_emulator_works(tmp_path):
    """The emulator's example starts it; here at a port that is free for sure."""
    typed = example(helped(("moengage-cohort", "emulator"), tmp_path))
    assert "--port 8025" in typed
    process = subprocess.Popen(
        ["sh", "-c", f"exec {typed.replace('8025', '0')}"],
        stdout=subprocess.PIPE,
        env=surroundings(tmp_path),
    )
    try:
        assert b" http://127.0.0.1:" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert 0 == process.returncode


def completed(shell_code, home):
    """What bash has set up and printed after some code, in the words of the help before it."""
    told = helped(("moengage-cohort",), home)
    (turned_on,) = re.findall(r'^ +(eval "\$\(.*=bash_source .*\)")$', told, re.MULTILINE)
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{turned_on}\n{shell_code}"],
        capture_output=True,
        text=True,
        cwd=home,
        env=surroundings(home),
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ch", {"check"}),
        ("re", {"resync"}),
        ("ledger re", {"reassign", "rename"}),
        ("check --con", {"--config"}),
        ("plan --d", {"--detailed-exitcode"}),
        ("check --config conf", {"config.json"}),
    ],
)
def test_completion_in_bash(words, found, tmp_path):
    """As the help says to turn it on, bash completes commands, options and files."""
    (tmp_path / "config.json").write_text("{}")
    count = len(words.split())
    code = (
        f"COMP_WORDS=(moengage-cohort {words}); COMP_CWORD={count}; "
        'compopt() { COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); }; '
        "complete -p moengage-cohort >&2; _moengage_cohort_completion moengage-cohort; "
        'echo "${COMPREPLY[@]}"'
    )
    assert found == set(completed(code, tmp_path))


@pytest.mark.parametrize(
    ("shell", "text"), [("zsh", "compdef _moengage_cohort"), ("fish", "complete --no-files")]
)
def test_completion_elsewhere(shell, text, tmp_path):
    """The variable that the help names for another shell has a script made for it."""
    (name,) = set(re.findall(rf"(\w+)={shell}_source", helped(("moengage-cohort",), tmp_path)))
    done = subprocess.run(
        [BIN / "moengage-cohort"],
        capture_output=True,
        text=True,
        env=surroundings(tmp_path, **{name: f"{shell}_source"}),
        check=True,
        timeout=60,
    )
    assert text in done.stdout


def at_terminal(command, home, stdout=None, **variables):
    """Start a command whose standard error, and output if not elsewhere, are a terminal; return it
    and our end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        cwd=home,
        env=surroundings(home, **variables),
    )
    os.close(theirs)
    return process, ours


def shown(terminal, until=None):
    """What comes to a terminal, to its end, or up to a text."""
    seen = b""
    with contextlib.suppress(OSError):  # Linux's end of file here
        while until is None or until not in seen:
            ready, _, _ = select.select([terminal], [], [], 60)
            if not ready or not (more := os.read(terminal, 65_536)):
                break
            seen += more
    return seen


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_colours_are_for_a_terminal_that_wants_them(desk, variables, coloured):
    """check and errors have colours at a terminal, unless NO_COLOR or a dumb terminal is set."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw | {"report_path": str(desk.folder / "no" / "report")}))
    process, terminal = at_terminal(
        [BIN / "moengage-cohort", "check", "--config", str(path)], desk.folder, **variables
    )
    seen = shown(terminal)
    process.communicate(timeout=30)
    os.close(terminal)
    assert 1 == process.returncode
    assert b"Error:" in seen
    marks = {mark: b"\x1b[" in before for mark, before in before_marks(seen).items()}
    assert dict.fromkeys((b"ok", b"mend", b"Error:"), coloured) == marks
    assert coloured == bool(COLOUR.search(seen))


def before_marks(seen):
    """What stands right before each mark."""
    return {
        mark: re.search(rb"(\S*)" + mark + rb"(\x1b|\s)", seen).group(1)
        for mark in (b"ok", b"mend", b"Error:")
    }


def test_no_colours_in_a_pipe(desk):
    """What goes to a file or a pipe is plain text."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw | {"report_path": str(desk.folder / "no" / "report")}))
    done = subprocess.run(
        [BIN / "moengage-cohort", "check", "--config", str(path)],
        capture_output=True,
        env=surroundings(desk.folder),
        check=False,
        timeout=60,
    )
    assert 1 == done.returncode
    assert b"Error:" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=str)
def test_progress_at_a_terminal(tmp_path, emulator, variables):
    """A run's progress is wrapped to the terminal's width, gone at the end, and has no colour."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(emulator)))
    emulator.hold()
    process, terminal = at_terminal(
        [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)],
        tmp_path,
        subprocess.DEVNULL,
        **variables,
    )
    process.stdin.write(lines(schema(), record(uid="u"), state({"a": 1})))
    process.stdin.close()
    seen = shown(terminal, until=b"what was read")
    emulator.release()
    seen += shown(terminal)
    assert 0 == process.wait(timeout=30)
    os.close(terminal)
    assert None is COLOUR.search(seen)
    before, _, drawn = seen.partition(b"\x1b[?25l")  # the cursor is hidden from there
    drawn, _, after = drawn.partition(b"\x1b[?25h")
    assert b"lines read" not in before
    assert b"lines read" in drawn
    assert after.startswith(b"\r\x1b[1A\x1b[2K")
    parts = re.split(r"[\r\n]|\x1b\[\w+", drawn.decode())
    assert 80 >= max(len(part) for part in parts)
