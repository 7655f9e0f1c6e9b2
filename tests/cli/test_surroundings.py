"""Commands and runs whose files must not be read or written, or are held by a stopped process."""

import ctypes
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import people, person
from tests.support.singer import environment, lines, record, schema, state

_DROP = 24  # prctl's PR_CAPBSET_DROP
_CAPABILITIES = (1, 2, 3)  # with which root reads and writes what it likes


def obey_modes() -> None:
    """Make modes count for the program that starts next, also if the user is root."""
    for capability in _CAPABILITIES:
        ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0)


def execute(desk, program, *arguments, text=None, **settings):
    """Run a program as a process for which modes count; return its result."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw | settings))
    return subprocess.run(
        [sys.executable, "-c", program, *arguments, "--config", str(path)],
        input=text or b"",
        capture_output=True,
        check=False,
        cwd=desk.folder,
        env=environment(desk.folder),
        preexec_fn=obey_modes,
        timeout=120,
    )


CLI = "from target_moengage_cohort.cli import main; main()"
TARGET = "from target_moengage_cohort.__main__ import main; main()"
DATA = lines(
    schema(), *(record(uid=each.uid) for each in people(1, 2, 3)), state({"at": "the end"})
)


@pytest.fixture
def modes(desk):
    """Changes modes below the ledger's folder; they are restored at the end."""
    desk.fill("users", people(1, 2))
    root = desk.folder / "ledger"

    def change(folder, file):
        for path in [*root.rglob("*"), root]:
            path.chmod(folder if path.is_dir() else file)

    yield change
    subprocess.run(["chmod", "-R", "u+rwX", str(root)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="root obeys modes on Linux only")
@pytest.mark.parametrize(("folder", "file"), [(0o555, 0o444), (0o755, 0o444), (0o555, 0o644)])
def test_a_read_only_ledger_can_be_looked_at(desk, modes, folder, file):
    """With a ledger that must not be written, status, plan and the ledger's check show what is in
    it; runs and changes are refused before anything is sent, with 1 and without a traceback."""
    modes(folder, file)
    requests = desk.emulator.totals().requests
    shown = execute(desk, CLI, "status", "--json")
    (cohort,) = json.loads(shown.stdout)["cohorts"]
    assert (0, 2) == (shown.returncode, cohort["accepted"])
    assert 0 == execute(desk, CLI, "ledger", "check").returncode
    planned = execute(desk, CLI, "plan", text=DATA, sync_mode="mirror")
    assert (0, True) == (planned.returncode, b"1 request" in planned.stdout)
    for refused in (
        execute(desk, TARGET, text=DATA, sync_mode="mirror"),
        execute(desk, CLI, "resync", "users"),
    ):
        error = refused.stderr.decode()
        assert 1 == refused.returncode
        assert str(desk.folder / "ledger") in error
        assert "Traceback" not in error
        assert "is a bug" not in error
        assert b"" == refused.stdout
    assert requests == desk.emulator.totals().requests


@pytest.mark.skipif(sys.platform != "linux", reason="root obeys modes on Linux only")
def test_a_ledger_that_cannot_be_read_is_an_error(desk, modes):
    """A ledger that must not be read, as another user's, is an error of every command and run, and
    never counts as none."""
    for witness in (desk.folder / "state").rglob("ledger-*.json"):
        witness.unlink()  # else the ledger would be missed anyway
    modes(0o000, 0o600)
    requests = desk.emulator.totals().requests
    for refused in (
        execute(desk, CLI, "status"),
        execute(desk, CLI, "check"),
        execute(desk, CLI, "ledger", "check"),
        execute(desk, CLI, "resync", "users"),
        execute(desk, CLI, "plan", text=DATA, sync_mode="mirror"),
        execute(desk, TARGET, text=DATA, sync_mode="mirror"),
        execute(desk, TARGET, text=DATA, sync_mode="mirror", dry_run=True),
    ):
        error = refused.stderr.decode()
        assert 1 == refused.returncode, refused.args
        assert re.search(r"the ledger \S+ cannot be \w+ \(PermissionError", error)
        assert "is a bug" not in error
    assert requests == desk.emulator.totals().requests


def test_a_dry_run_without_a_ledger_creates_nothing(desk):
    """Neither a dry run nor plan creates a ledger, a state directory or any other file."""
    before = {*desk.folder.rglob("*"), desk.folder / "config.json"}
    for done in (
        execute(desk, TARGET, text=DATA, sync_mode="mirror", dry_run=True),
        execute(desk, CLI, "plan", text=DATA, sync_mode="mirror"),
        execute(desk, CLI, "status"),
    ):
        assert 0 == done.returncode
    assert before == {*desk.folder.rglob("*")}


def test_an_unknown_scheme_is_refused_before_anything_is_opened(desk):
    """An unknown scheme, or a URL without a path, is a fault of the settings for runs and commands
    alike: exit code 1, nothing created or sent, and the URL, which may have a password, not
    shown."""
    for uri in ("redis://user:planted-secret@host/x", "file:planted-secret"):
        before = {*desk.folder.rglob("*"), desk.folder / "config.json"}
        for refused in (
            execute(desk, TARGET, text=DATA, ledger_uri=uri),
            execute(desk, CLI, "status", ledger_uri=uri),
            execute(desk, CLI, "resync", "users", ledger_uri=uri),
        ):
            assert 1 == refused.returncode
            assert b"ledger_uri: " in refused.stderr
            assert b"secret" not in refused.stderr + refused.stdout
            assert b"is a bug" not in refused.stderr
        assert before == {*desk.folder.rglob("*")}
    assert 0 == desk.emulator.totals().requests


def test_a_stopped_process_keeps_a_stream_busy_for_a_bounded_time(desk):
    """If a run was stopped while it has a stream, a command waits within its patience, names the
    process, and ends with 4; one SIGTERM ends the wait."""
    desk.fill("users", people(1))
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", TARGET, "--config", str(path)]
    kwargs = {"cwd": desk.folder, "env": environment(desk.folder)}
    with subprocess.Popen(command, **pipes, **kwargs) as holder:
        try:
            holder.stdin.write(lines(schema(), record(uid=person(1).uid)))
            holder.stdin.flush()
            locks = desk.folder / "ledger"
            while not any(file.stat().st_size for file in locks.glob("*/stream-*.lock")):
                assert holder.poll() is None
                time.sleep(0.01)
            holder.send_signal(signal.SIGSTOP)
            busy = desk.run("resync", "users", busy_seconds=0.5)
            assert (4, "") == (busy.exit_code, busy.stdout)
            assert f"(process {holder.pid} on " in busy.stderr
            waiting = [sys.executable, "-c", CLI, "resync", "users", "--config", str(path)]
            with subprocess.Popen(waiting, **pipes, **kwargs) as second:
                assert b"waiting for it" in second.stderr.readline()
                second.terminate()
                second.communicate(timeout=15)
                assert 143 == second.returncode
        finally:
            holder.kill()


@pytest.mark.parametrize(
    ("command", "redirection"),
    [
        ("status", ">/dev/full"),
        ("segments create x -", "<&-"),
        ("segments file add x --attribute uid --url -", "<&-"),
        ("empty users", "<&-"),
        ("check --columns -", "<&-"),
    ],
)
def test_a_closed_input_or_a_full_output_is_no_bug(desk, command, redirection):
    """A command that cannot read or print ends with an error in a line, not with a traceback."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw))
    desk.fill("users", people(1))
    words = [sys.executable, "-c", CLI, *command.split(), "--config", str(path)]
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *words]
    done = subprocess.run(
        shell, capture_output=True, check=False, env=environment(desk.folder), timeout=60
    )
    assert done.returncode in {1, 2}
    assert b"Traceback" not in done.stderr
    assert b"bug" not in done.stderr
    assert done.stderr.strip()
