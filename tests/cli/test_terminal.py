"""Terminal output: help, its examples, completion and colours."""

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
import time
from pathlib import Path

import click
import pytest

from target_moengage_cohort.cli import cli
from target_moengage_cohort.emulator import Emulator, ManualClock
from tests.cli.conftest import PLANTED, people
from tests.support.apis import filters_on
from tests.support.project import program
from tests.support.singer import UNLIMITED, config, environment, lines, record, schema, state

BIN = Path(program("moengage-cohort")).parent
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")


def commands(group=cli, words=("moengage-cohort",)):
    """Yield every command and group, as the words that call it."""
    yield words
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


ALL = [*commands(), ("target-moengage-cohort",)]


def terminal_environment(home, **variables):
    """Return the environment of a terminal of 80 columns, with our programs on the PATH."""
    inherited = {name: value for name, value in environment(home).items() if name not in VARIABLES}
    path = f"{home / 'bin'}{os.pathsep}{BIN}{os.pathsep}{inherited['PATH']}"
    return inherited | {"PATH": path, "COLUMNS": "80", "TERM": "xterm"} | variables


def help_text(words, home):
    """Return the output of --help, from a process of its own."""
    done = subprocess.run(
        [BIN / words[0], *words[1:], "--help"],
        capture_output=True,
        text=True,
        env=terminal_environment(home),
        check=True,
        timeout=60,
    )
    return done.stdout


def example(text):
    """Return the example at the end of a help text."""
    _, found, text = text.rpartition("\n  Example:\n")
    assert found, text
    return "\n".join(line.strip() for line in text.rstrip().splitlines())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(words, tmp_path):
    """Each help text fits 80 columns, has no shortened summary, and ends with an example."""
    text = help_text(words, tmp_path)
    assert [] == [line for line in text.splitlines() if len(line) > 80]
    assert not re.search(r"\.\.\.$", text.partition("Commands:")[2], re.MULTILINE)
    assert " ".join(words) in example(text.partition("\nOptions:")[2])


def test_a_misspelled_command_gets_the_nearest_one(tmp_path):
    """A command that is similar is suggested; the exit code is that of wrong usage."""
    for words, nearest in ((["stauts"], b"'status'"), (["chekc"], b"'check'"), (["zzz"], None)):
        done = subprocess.run(
            [BIN / "moengage-cohort", *words],
            capture_output=True,
            env=terminal_environment(tmp_path),
            check=False,
            timeout=60,
        )
        assert 2 == done.returncode
        assert (nearest is not None) == (b"Did you mean" in done.stderr)
        assert (nearest or b"") in done.stderr


@pytest.fixture
def clock():
    """The clock of the emulator."""
    return ManualClock()


@pytest.fixture
def emulator(clock):
    """An emulator that fetches no file, because the examples' addresses are not on loopback."""
    with Emulator(requests_per_minute=UNLIMITED, processing_seconds=3_600, clock=clock) as running:
        yield running


@pytest.fixture
def office(desk, clock):
    """A directory with all files and segments that the examples name, and an executable tap."""
    desk.raw["id_attribute"] = "uid"
    desk.fill("vip", people(1, 2), stream="users", name="VIP")
    clock.advance(3_600)  # so that MoEngage has them
    desk.plan("vip", people(1))
    with desk.ledgers() as ledgers:
        ledgers.begin("users")  # the plan's run was another one, before
    desk.plan("vip", people(1))
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    for name in ("members.csv", "people.csv"):
        (desk.folder / name).write_text(f"uid\n{PLANTED}0001\n")
    export = "".join(f"{each.uid}\n" for each in people(1, 2))
    (desk.folder / "export.csv").write_text(f"uid\n{export}")
    (desk.folder / "new").mkdir()
    (desk.folder / "files").mkdir()
    (desk.folder / "files" / f"moengage-segment-{'0' * 32}.csv").write_text("")
    (desk.folder / "staff.csv").write_text(f"{PLANTED}0001\n")
    for name, city in (("berlin", "Berlin"), ("filters", "Paris"), ("other", "Potsdam")):
        (desk.folder / f"{name}.json").write_text(json.dumps(filters_on("city", city)))
    desk.run("segments", "create", "Berlin", str(desk.folder / "berlin.json"))
    words = ("segments", "file", "create", "Staff", "--expiry-days", "9", "--url")
    desk.run(*words, "https://files.example.com/staff.csv")
    tap = desk.folder / "bin" / "tap-postgres"
    tap.parent.mkdir()
    (desk.folder / "messages").write_bytes(
        lines(schema("other"), record("other", uid=f"{PLANTED}0009"), state({"a": 1}))
    )
    tap.write_text(f'#!/bin/sh\n[ "$1" = --config ] && cat {desk.folder}/messages\n')
    tap.chmod(0o700)
    return desk


@pytest.mark.parametrize(
    "words",
    [words for words in ALL if words[-1] not in {"emulator", "confirm", "init"}],
    ids=" ".join,
)
def test_the_example_works(words, office):
    """The example of each help text succeeds as it stands."""
    command = example(help_text(words, office.folder))
    if words[-1] == "import":
        assert 0 == office.run("ledger", "export", str(office.folder / "ledger.zip")).exit_code
        shutil.rmtree(office.raw["ledger_uri"])
    done = subprocess.run(
        ["sh", "-c", command],
        input="y\n",
        capture_output=True,
        text=True,
        cwd=office.folder,
        env=terminal_environment(office.folder),
        check=False,
        timeout=60,
    )
    office.output += done.stdout + done.stderr
    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")


def test_the_examples_of_init_work(tmp_path):
    """The first one asks, or says what it lacks without a terminal; the other adds a cohort."""
    first, other = example(help_text(("moengage-cohort", "init"), tmp_path)).splitlines()
    loader = "- name: target-moengage-cohort\n"
    for text, command, code in (("", first, 2), (f"plugins:\n  loaders:\n  {loader}", other, 0)):
        (tmp_path / "meltano.yml").write_text(text)
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=terminal_environment(tmp_path),
            start_new_session=True,
            check=False,
            timeout=60,
        )
        assert code == done.returncode, done.stderr
    assert "cohort_id: vip" in (tmp_path / "meltano.yml").read_text()


def test_the_example_of_the_emulator_works(tmp_path):
    """The emulator's example starts it, here on a free port."""
    command = example(help_text(("moengage-cohort", "emulator"), tmp_path))
    assert "--port 8025" in command
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command.replace('8025', '0')}"],
        stdout=subprocess.PIPE,
        env=terminal_environment(tmp_path),
    )
    try:
        assert b" http://127.0.0.1:" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert 0 == process.returncode


def completed(shell_code, home):
    """Return what bash prints after some code, set up as the help says."""
    text = help_text(("moengage-cohort",), home)
    (turned_on,) = re.findall(r'^ +(eval "\$\(.*=bash_source .*\)")$', text, re.MULTILINE)
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{turned_on}\n{shell_code}"],
        capture_output=True,
        text=True,
        cwd=home,
        env=terminal_environment(home),
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ch", {"check"}),
        ("re", {"resume", "resync"}),
        ("segments file re", {"remove", "replace"}),
        ("segments list --na", {"--name"}),
        ("ledger re", {"reassign", "rename", "reopen", "retire"}),
        ("check --con", {"--config"}),
        ("plan --d", {"--detailed-exitcode"}),
        ("check --config conf", {"config.json"}),
    ],
)
def test_completion_in_bash(words, found, tmp_path):
    """Set up as the help says, bash completes commands, options and files."""
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
    """For other shells, the variable that the help names prints a script."""
    (name,) = set(re.findall(rf"(\w+)={shell}_source", help_text(("moengage-cohort",), tmp_path)))
    done = subprocess.run(
        [BIN / "moengage-cohort"],
        capture_output=True,
        text=True,
        env=terminal_environment(tmp_path, **{name: f"{shell}_source"}),
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
        env=terminal_environment(home, **variables),
    )
    os.close(theirs)
    return process, ours


def shown(terminal, until=None):
    """Return the output of a terminal to its end, or up to a text; fail after one minute."""
    seen = b""
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # Linux's end of file here
        while until is None or until not in seen:
            assert time.monotonic() < deadline, seen[-200:]
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
    """Output is coloured at a terminal, unless NO_COLOR is set or the terminal is dumb."""
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
    assert dict.fromkeys((b"ok", b"FAIL", b"Error:"), coloured) == marks
    assert coloured == bool(COLOUR.search(seen))


def before_marks(seen):
    """Return what is right before each mark."""
    return {
        mark: re.search(rb"(\S*)" + mark + rb"(\x1b|\s)", seen).group(1)
        for mark in (b"ok", b"FAIL", b"Error:")
    }


def test_no_colours_in_a_pipe(desk):
    """Output to a file or a pipe is plain text."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw | {"report_path": str(desk.folder / "no" / "report")}))
    done = subprocess.run(
        [BIN / "moengage-cohort", "check", "--config", str(path)],
        capture_output=True,
        env=terminal_environment(desk.folder),
        check=False,
        timeout=60,
    )
    assert 1 == done.returncode
    assert b"Error:" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


def screens(seen, columns=80):
    """Yield the rows of a terminal of 80 columns after each drawing, from all that was written."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[2K|\r|\n|[^\x1b\r\n]+|\x1b\[[\d;?]*\w", seen.decode()):
        match part:
            case "\x1b[2K":
                rows[row] = ""
            case "\r":
                column = 0
            case "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            case _ if not part.startswith("\x1b"):
                for character in part:
                    if column == columns:
                        row, column = row + 1, 0
                        rows += [""] * (row + 1 - len(rows))
                    rows[row] = (
                        rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
                    )
                    column += 1
                yield list(rows)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=str)
def test_progress_at_a_terminal(tmp_path, emulator, variables):
    """Progress is the last row of the terminal and never shares one with the log, however long its
    lines are; it is removed at the end."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(emulator)))
    command = [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)]
    environment = terminal_environment(tmp_path)  # the first run warns of its new ledger
    subprocess.run(command, input=lines(schema()), env=environment, check=True, timeout=60)
    process, terminal = at_terminal(command, tmp_path, subprocess.DEVNULL, **variables)
    process.stdin.write(lines(schema()))
    process.stdin.flush()
    seen = shown(terminal, until=b"lines/s")
    emulator.fail_next(503, 2, message="long " * 60)
    process.stdin.write(lines(record(uid="u"), state({"a": 1})))
    process.stdin.close()
    seen += shown(terminal, until=b"trying again")
    seen += shown(terminal)
    assert 0 == process.wait(timeout=30)
    os.close(terminal)
    assert None is COLOUR.search(seen)
    drawn = [*screens(seen)]
    progress = [rows for rows in drawn if any(is_progress(row) for row in rows)]
    assert progress
    for rows in drawn:
        *log, last = [row for row in rows if row]
        assert [] == [row for row in log if is_progress(row)]
        assert not is_progress(last) or re.match(r"\d+ lines? read", last)
    assert "long long" in "".join(drawn[-1])
    assert not is_progress(seen[seen.rindex(b"\r\x1b[2K") :].decode())


def is_progress(row):
    """Whether a row of a terminal has progress on it."""
    return " sent · " in row


def test_a_dumb_terminal_has_no_progress_line(tmp_path, emulator):
    """A terminal that cannot erase a row gets log lines only."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(emulator)))
    command = [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)]
    process, terminal = at_terminal(command, tmp_path, subprocess.DEVNULL, TERM="dumb")
    process.stdin.write(lines(schema(), record(uid="u")))
    process.stdin.flush()
    time.sleep(2)
    process.stdin.close()
    seen = shown(terminal)
    assert 0 == process.wait(timeout=30)
    os.close(terminal)
    assert b"\x1b" not in seen
    assert not is_progress(seen.decode())
