"""`moengage-cohort run`, which runs the tap itself so that its exit code is proof."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from target_moengage_cohort.core.membership import Member
from tests.cli.conftest import PLANTED, people
from tests.support.singer import environment, lines, record, schema, state

RUN = "from target_moengage_cohort.cli import main; main()"
PYTHON = (sys.executable, "-I", "-S", "-c")
STAYING = people(*range(100, 130))
GONE = people(*range(20))
STATE = b'{"at":"the end"}\n'

TELL = """
import os, pathlib, signal, sys
output, how = sys.argv[1:]
os.write(1, pathlib.Path(output).read_bytes())
"""
END = TELL + "sys.exit(int(how)) if int(how) >= 0 else os.kill(os.getpid(), -int(how))"
END_LATER = TELL + "os.close(1); import time; time.sleep(0.3); sys.exit(int(how))"
STAY = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)" + TELL
STAY += "pathlib.Path(how).write_text(str(os.getpid())); signal.pause()"
FLOOD = TELL + "pathlib.Path(how).write_text(str(os.getpid()))\nwhile True: os.write(1, b'x\\n')"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAY


def messages(members, *more, stream="vip"):
    """Return the output of a tap for some members, with a STATE."""
    rows = [record(stream, uid=member.uid) for member in members]
    return lines(schema(stream), *rows, *more) + b'{"type":"STATE","value":' + STATE[:-1] + b"}\n"


class Taps:
    """Runs the command with prepared taps, at a desk with a mirror."""

    def __init__(self, desk):
        self.desk = desk
        self.folder = desk.folder
        desk.raw |= {"sync_mode": "mirror", "report_path": str(desk.folder / "report.json")}

    def arguments(self, script, output, how):
        """Return the command's arguments, for a tap that runs a script."""
        (self.folder / "output").write_bytes(output)
        (self.folder / "config.json").write_text(json.dumps(self.desk.raw))
        tap = (*PYTHON, script, str(self.folder / "output"), str(how))
        return ("run", "--config", str(self.folder / "config.json"), "--", *tap)

    def run(self, output, how=0, script=END):
        """Run the command in this process, with a tap that ends."""
        return self.desk.run(*self.arguments(script, output, how), config_files=[])

    def start(self, script, output, how=0):
        """Start the command as a process in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *self.arguments(script, output, how)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.folder),
            start_new_session=True,
        )

    def fifo(self):
        """Make a FIFO to which a tap writes its process ID once it has written its output."""
        os.mkfifo(self.folder / "fifo")
        return self.folder / "fifo"

    def end(self, process):
        """Wait for a process to exit; return its exit code, output and errors."""
        out, err = process.communicate(timeout=30)
        self.desk.output += out.decode() + err.decode()
        return process.returncode, out, err.decode()

    @property
    def report(self):
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture
def taps(desk):
    desk.fill("vip", [*STAYING, *GONE])
    return Taps(desk)


def is_there(pid):
    """Return whether a process exists."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_tap_that_succeeds_is_proof(taps):
    """Exit code 0 proves that the input is complete, so that 20 removals are allowed."""
    new = people(50)
    result = taps.run(messages([*STAYING, *new]))
    assert (0, STATE) == (result.exit_code, result.stdout_bytes)
    assert {*STAYING, *new} == taps.desk.there("vip") == taps.desk.accepted("vip")
    (cohort,) = taps.report["cohorts"]
    assert ("tap_exit", 1, 20) == (cohort["complete"], cohort["added"], cohort["removed"])


def test_only_a_run_has_metrics(taps):
    """`run` writes metrics as the target does, also if it fails; other commands leave them."""
    path = taps.folder / "cohorts.prom"
    taps.desk.raw["metrics_path"] = str(path)
    assert 0 == taps.run(messages(STAYING)).exit_code
    partner = taps.desk.raw["partner"]
    success = f'moengage_cohort_last_run_success{{partner="{partner}"}} '
    assert f"{success}1\n" in path.read_text()
    assert 0 != taps.desk.run("confirm", "vip").exit_code
    assert f"{success}1\n" in path.read_text()
    assert 1 == taps.run(messages(STAYING), 3).exit_code
    assert f"{success}0\n" in path.read_text()


def test_the_same_input_without_proof_is_withheld(taps):
    """The exit code makes the difference: the same input from a pipe is withheld."""
    path = taps.folder / "input"
    path.write_bytes(messages(STAYING))
    raw = json.dumps(taps.desk.raw | {"report_path": None})
    (taps.folder / "config.json").write_text(raw)
    with path.open("rb") as source:
        done = subprocess.run(
            [sys.executable, "-m", "target_moengage_cohort", "--config", "config.json"],
            stdin=source,
            capture_output=True,
            check=False,
            timeout=30,
            cwd=taps.folder,
            env=environment(taps.folder, PYTHONPATH=str(Path(__file__).parents[2])),
        )
    assert (3, STATE) == (done.returncode, done.stdout)
    assert {*STAYING, *GONE} == taps.desk.there("vip")


@pytest.mark.parametrize(
    ("how", "ending"),
    [
        (1, "exit code 1"),
        (3, "exit code 3"),
        (-signal.SIGTERM, "signal 15"),
        (-signal.SIGKILL, "signal 9"),
    ],
)
def test_a_tap_that_fails_removes_no_members(taps, how, ending):
    """If the tap fails, the run fails and writes no STATE; new members are added, none removed."""
    taps.desk.raw["max_removal_percent"] = 100
    new = people(50)
    result = taps.run(messages([*STAYING, *new]), how)
    assert (1, b"") == (result.exit_code, result.stdout_bytes)
    assert ending in result.stderr
    assert {*STAYING, *GONE, *new} == taps.desk.there("vip")
    assert [] == taps.desk.removals()
    assert "failed" == taps.report["status"]
    assert "no" == taps.report["cohorts"][0]["complete"]


def test_a_busy_stream_is_exit_code_4(taps):
    """While another process holds the stream, the tap's success does not matter: the exit code is
    4, for schedulers that skip such a run, and nothing is sent."""
    requests = taps.desk.emulator.totals().requests
    with taps.desk.ledger("vip"):
        result = taps.run(messages([*STAYING, *people(50)]))
    assert (4, b"") == (result.exit_code, result.stdout_bytes)
    assert "run again when it ends" in result.stderr
    assert requests == taps.desk.emulator.totals().requests


@pytest.mark.parametrize("output", [b"", lines(schema("vip"))])
def test_a_tap_that_fails_before_its_first_row_removes_no_members(taps, output):
    """A tap that fails before its first row differs from an empty table by its exit code."""
    taps.desk.raw["max_removal_percent"] = 100
    result = taps.run(output, 1)
    assert (1, b"") == (result.exit_code, result.stdout_bytes)
    assert {*STAYING, *GONE} == taps.desk.there("vip")


def test_a_tap_that_succeeds_without_rows_may_empty_a_cohort(taps):
    """Exit code 0 proves that a table is empty; with 100 % the cohort is emptied."""
    taps.desk.raw["max_removal_percent"] = 100
    assert 0 == taps.run(lines(schema("vip"))).exit_code
    assert set() == taps.desk.there("vip")


@pytest.mark.parametrize(("how", "code"), [(0, 0), (1, 1)])
def test_the_exit_code_is_waited_for(taps, how, code):
    """If a tap has closed its output, its exit code is still waited for."""
    result = taps.run(messages(STAYING), how, END_LATER)
    assert (code, b"" if code else STATE) == (result.exit_code, result.stdout_bytes)
    assert ({*STAYING, *GONE} if code else {*STAYING}) == taps.desk.there("vip")


def test_the_guard_also_applies_with_proof(taps):
    """More than 20 removals above the percentage are withheld with exit code 3."""
    result = taps.run(messages([*STAYING[1:], *people(50)]))
    assert (3, STATE) == (result.exit_code, result.stdout_bytes)
    assert {*STAYING, *GONE, *people(50)} == taps.desk.there("vip")
    (cohort,) = taps.report["cohorts"]
    assert ("withheld", 21) == (taps.report["status"], cohort["removals_withheld"])
    assert f"confirm --withheld {cohort['plan_id']}" in result.stderr


def test_an_incremental_state_is_written_though_the_tap_fails(taps):
    """An incremental stream's STATE covers what was accepted, even if its tap fails."""
    taps.desk.raw["sync_mode"] = "incremental"
    result = taps.run(messages(people(50)), 1)
    assert (1, STATE) == (result.exit_code, result.stdout_bytes)
    assert {*STAYING, *GONE, *people(50)} == taps.desk.there("vip")


def test_a_one_time_stream_is_sealed_by_the_exit_code(taps):
    """A one_time cohort is sealed by the first run whose tap succeeds."""
    taps.desk.raw["sync_mode"] = "one_time"
    for how, sealed in ((1, False), (0, True)):
        taps.run(messages(people(50)), how)
        with taps.desk.ledger("vip") as ledger:
            assert sealed is ledger.is_sealed
    assert {*STAYING, *GONE, *people(50)} == taps.desk.there("vip")


@pytest.mark.parametrize("kind", ["missing", "folder", "no program"])
def test_a_tap_that_cannot_be_started_is_named(taps, kind):
    """A tap that cannot be started is named in an error; the exit code is 1."""
    tap = taps.folder / "tap-nothing"
    if kind == "folder":
        tap.mkdir()
    elif kind == "no program":
        tap.write_text("#!/bin/sh\n")
    arguments = (*taps.arguments(END, b"", 0)[:4], str(tap), "--config", "tap.json")
    result = taps.desk.run(*arguments, config_files=[])
    assert (1, b"") == (result.exit_code, result.stdout_bytes)
    why = "No such file or directory" if kind == "missing" else "Permission denied"
    assert f"Error: cannot start {tap} ({why}); " in result.stderr
    assert {*STAYING, *GONE} == taps.desk.there("vip")


def test_a_run_without_a_tap_is_wrong_usage(taps):
    """Without a tap, the command exits with 2."""
    result = taps.desk.run(*taps.arguments(END, b"", 0)[:4], config_files=[])
    assert 2 == result.exit_code
    assert "TAP" in result.stderr


def test_a_tap_has_its_arguments_and_no_standard_input(taps):
    """The arguments after the dashes are the tap's, and its standard input is empty."""
    script = "import json, sys; json.dump([sys.argv[1:], sys.stdin.read()], open(sys.argv[1], 'w'))"
    path = str(taps.folder / "arguments")
    given = (path, "--config", "tap.json", "--help", "--", "-x")
    command = (*taps.arguments(END, b"", 0)[:4], *PYTHON, script, *given)
    assert 0 == taps.desk.run(*command, config_files=[], text="for nobody").exit_code
    assert [[*given], ""] == json.loads(Path(path).read_text())


def test_state_alone_is_on_standard_output(taps):
    """Standard output has STATE only; the tap's and our own messages are on standard error."""
    script = "import sys; sys.stderr.write('the tap speaks\\n')" + END
    code, out, err = taps.end(taps.start(script, messages(STAYING)))
    assert (0, STATE) == (code, out)
    assert "the tap speaks\n" in err
    assert "1 request, " in err


def test_a_signal_also_stops_the_tap(taps):
    """SIGTERM stops the tap and exits with 143; no members are removed, and no STATE is written."""
    fifo = taps.fifo()
    taps.desk.raw["max_removal_percent"] = 100
    process = taps.start(STAY, messages([*STAYING, *people(50)]), fifo)
    pid = fifo.read_text()
    process.send_signal(signal.SIGTERM)
    code, out, err = taps.end(process)
    assert (143, b"") == (code, out)
    assert "stopped by SIGTERM" in err
    assert not is_there(pid)
    assert {*STAYING, *GONE} <= taps.desk.there("vip")


def test_ctrl_c_reaches_the_tap_and_us(taps):
    """Ctrl-C at a terminal, which the tap also receives, exits with 130 and removes no members."""
    fifo = taps.fifo()
    taps.desk.raw["max_removal_percent"] = 100
    process = taps.start(STAY, messages(STAYING), fifo)
    pid = fifo.read_text()
    os.killpg(process.pid, signal.SIGINT)
    code, out, _ = taps.end(process)
    assert (130, b"") == (code, out)
    assert not is_there(pid)
    assert {*STAYING, *GONE} == taps.desk.there("vip")


@pytest.mark.parametrize("script", [STAY, FLOOD, STUBBORN])
def test_a_tap_does_not_outlive_our_failure(taps, monkeypatch, script):
    """After a failure, a tap that waits, keeps writing or ignores SIGTERM is stopped."""
    monkeypatch.setattr("target_moengage_cohort.cli.run_command._GRACE_SECONDS", 0.3)
    pid = taps.folder / "pid"
    pid.touch()
    broken = messages([*STAYING[:5], *people(50)], b"{broken" + PLANTED.encode())
    result = taps.run(broken, pid, script)
    assert (1, b"") == (result.exit_code, result.stdout_bytes)
    assert "line 8" in result.stderr
    assert not (pid.read_text() and is_there(pid.read_text()))
    assert {*STAYING, *GONE, *people(50)} == taps.desk.there("vip")


def test_a_refused_request_stops_the_tap(taps):
    """If the changes cannot be delivered, the tap, which would wait for ever, is stopped."""
    taps.desk.raw |= {"sync_mode": "incremental", "flush_seconds": 1, "max_payload_bytes": 1_000}
    taps.desk.emulator.fail_next(403)
    pid = taps.folder / "pid"
    pid.touch()
    result = taps.run(messages(people(*range(200, 260))), pid, STAY)
    assert (1, b"") == (result.exit_code, result.stdout_bytes)
    assert not (pid.read_text() and is_there(pid.read_text()))


def test_a_dry_run_with_a_tap_changes_nothing(taps):
    """With dry_run the tap runs, but no request is sent and no STATE is written."""
    taps.desk.raw["dry_run"] = True
    before = taps.desk.emulator.totals().requests
    result = taps.run(messages(STAYING))
    assert (0, b"") == (result.exit_code, result.stdout_bytes)
    assert before == taps.desk.emulator.totals().requests
    (cohort,) = taps.report["cohorts"]
    assert ("dry_run", 20) == (taps.report["status"], cohort["removed"])


def test_a_vanished_cohort_of_a_fan_out_needs_the_exit_code(taps):
    """A cohort that has vanished from a fan-out is emptied only if the tap succeeds."""
    for cohort in ("a", "b"):
        taps.desk.fill(cohort, people(1, 2), stream="fan")
    mapping = {"cohort_id_column": "c", "max_removal_percent": 100}
    taps.desk.raw["cohorts"] = {"fan": mapping}
    rows = [record("fan", uid=member.uid, c="a") for member in people(1, 3)]
    output = lines(schema("fan", ("uid", "c")), *rows, state({"a": 1}))
    for how, a, b in ((1, people(1, 2, 3), people(1, 2)), (0, people(1, 3), [])):
        assert how == taps.run(output, how).exit_code
        assert ({*a}, {*b}) == (taps.desk.there("a"), taps.desk.there("b"))
    assert Member(f"{PLANTED}0002") not in taps.desk.accepted("a")
