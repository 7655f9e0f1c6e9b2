"""Runs on several hosts whose ledger is on a PostgreSQL server."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.support.ledger_places import ServerPlace
from tests.support.look import held, members
from tests.support.singer import config, environment, finish, lines, record, schema, state

HURRIED = """
import sys
from target_moengage_cohort.__main__ import main
from target_moengage_cohort.ledger.postgres import lease_rows

lease_rows.MARGIN_SECONDS = 2.0
sys.argv[0] = "target-moengage-cohort"
main()
"""
"""The target, with leases of three seconds if its request_timeout_seconds is 1."""

WAIT_SECONDS = 30.0


@pytest.fixture
def place(server):
    opened = ServerPlace(server)
    yield opened
    opened.close()


def begin(home, settings, script=HURRIED):
    """Start a target on a host of its own."""
    home.mkdir(exist_ok=True)
    path = home / "config.json"
    path.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, "-c", script, "--config", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
    )


def write(process, *messages):
    process.stdin.write(lines(*messages))
    process.stdin.flush()


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_was_stopped_sends_and_writes_nothing_once_its_lease_is_lost(
    emulator, place, tmp_path
):
    """A run that is stopped between two requests loses its lease to another one. When it goes on,
    it sends nothing more and writes no STATE, and it says why."""
    setting = {"request_timeout_seconds": 1, "flush_seconds": 1, "report_path": "report.json"}
    settings = config(emulator, ledger_uri=place.uri, max_payload_bytes=1_000, **setting)
    first = begin(tmp_path / "one", {**settings, "report_path": str(tmp_path / "report.json")})
    columns = ("uid", "_sdc_deleted_at")
    write(first, schema(columns=columns), record(uid="a"))
    wait_until(lambda: members(emulator, "users") == {"a"})
    first.send_signal(signal.SIGSTOP)
    second = begin(tmp_path / "two", settings)
    gone = record(uid="a", _sdc_deleted_at="2026-11-30")
    data = lines(schema(columns=columns), gone, record(uid="b"), state({"two": 1}))
    done = finish(second, data)
    assert 0 == done.code, done.stderr
    assert members(emulator, "users") == {"b"}
    sent = len(emulator.requests())
    first.send_signal(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
        write(first, record(uid="late"), state({"one": 1}))
    ended = finish(first)
    assert (1, []) == (ended.code, ended.states)
    assert sent == len(emulator.requests())
    report = json.loads((tmp_path / "report.json").read_text())
    assert "lease_lost" == report["error"]["code"]
    place.bury()
    assert {"b"} == held(emulator, place.uri)["users"].accepted
