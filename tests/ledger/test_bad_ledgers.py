"""Ledgers that cannot be used: a clear error, nothing is sent and nothing is lost."""

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.cli.session import SessionTiming
from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import FORMAT
from target_moengage_cohort.settings import load
from tests.support.look import held, members
from tests.support.singer import (
    config,
    environment,
    finish,
    lines,
    record,
    run,
    schema,
    start,
    state,
)

MODES = ("mirror", "incremental")
LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from target_moengage_cohort.__main__ import main
main()
"""


def users(*uids, stream="users", **row):
    return [record(stream, uid=uid, **row) for uid in uids]


def said(*uids):
    return lines(schema(), *users(*uids), state({"at": "the end"}))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger"


@pytest.fixture
def go(emulator, folder):
    """Runs the stream `users` with the directory's ledger."""

    def sync(data, **settings):
        return run(emulator, data, **{"ledger_uri": str(folder), **settings})

    return sync


def assert_refused(seen, code, *words):
    """Check the error of a run that has sent nothing and written no STATE."""
    assert (code, 1) == (seen.error.code, seen.error.exit_code)
    assert [word for word in words if word not in str(seen.error)] == []
    assert ([], [], "failed") == (seen.attempts, seen.states, seen.report.status)


@pytest.mark.parametrize("mode", MODES)
def test_a_directory_that_cannot_be_created_fails_the_run(emulator, go, tmp_path, mode):
    """A ledger below a regular file is an error with its path, before anything is sent."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "ledger"
    seen = go(said("a"), sync_mode=mode, ledger_uri=str(path))
    assert_refused(seen, "ledger_unusable", str(path))
    assert 0 == emulator.totals().requests


@pytest.mark.parametrize("mode", MODES)
def test_a_corrupt_ledger_fails_the_run(go, folder, mode):
    """A file that is not a database is an error with its path, and stays as it is."""
    go(said("a"), sync_mode=mode)
    (path,) = folder.rglob("*.duckdb")
    path.write_bytes(b"broken" * 10_000)
    assert_refused(go(said("b"), sync_mode=mode), "ledger_corrupt", str(path))
    assert b"broken" * 10_000 == path.read_bytes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_ledger_of_a_newer_format_is_refused(go, folder, mode, dry_run):
    """A ledger of a newer version is left alone, and the error names it."""
    go(said("a"), sync_mode=mode)
    (path,) = folder.rglob("*.duckdb")
    with duckdb.connect(path) as database:
        database.execute("UPDATE meta SET format = ?", [FORMAT + 1])
    before = path.read_bytes()
    seen = go(said("b"), sync_mode=mode, dry_run=dry_run)
    assert_refused(seen, "ledger_newer", str(path))
    assert before == path.read_bytes()


def test_a_store_of_a_newer_format_is_refused(go, folder):
    """A store whose layout a newer version has changed is refused as well."""
    go(said("a"))
    (path,) = folder.rglob("control.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE store SET format = ?", [FORMAT + 1])
    assert_refused(go(said("b")), "ledger_newer", str(path.parent))


def test_a_store_of_the_old_format_is_refused(go, folder):
    """A directory with a file for each cohort is refused, with what to do."""
    go(said("a"))
    (path,) = folder.iterdir()
    (path / "destination.json").write_text("{}")
    assert_refused(go(said("b")), "ledger_old_format", str(path))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_ledger_of_another_destination_is_refused(emulator, go, folder, mode, what):
    """A copy of another workspace's ledger is refused, because it says nothing of this one."""
    go(said("a"), sync_mode=mode)
    other = config(emulator, ledger_uri=str(folder), workspace_id="another")
    (mine,) = folder.iterdir()
    with open_store(load(other).settings, run_id="x", wait=lambda _: False) as ledgers:
        theirs = Path(ledgers.place)
        if what == "file":
            ledgers.begin("users")  # creates the store
    ignored = ["control.sqlite"] if what == "file" else []
    shutil.copytree(mine, theirs, dirs_exist_ok=True, ignore=lambda *_: ignored)
    seen = go(said("b"), sync_mode=mode, workspace_id="another")
    assert_refused(seen, "ledger_mismatch", str(theirs))
    assert {"a"} == members(emulator, "users")


@pytest.mark.parametrize("mode", [*MODES, "add", "remove", "one_time"])
def test_a_cohort_of_another_stream_or_name_is_refused_in_every_mode(emulator, go, mode):
    """A second stream or another name of a cohort is refused."""
    vip = {"cohort_id": "vip", "cohort_name": "VIP"}
    go(said("a"), cohorts={"users": vip})
    others = lines(schema("others"), *users("b", stream="others"), state({"at": 1}))
    seen = go(others, cohorts={"others": vip}, sync_mode=mode)
    assert_refused(seen, "cohort_of_other_stream")
    seen = go(said("b"), cohorts={"users": vip | {"cohort_name": "VIPs"}}, sync_mode=mode)
    assert_refused(seen, "cohort_renamed")
    assert {"a"} == members(emulator, "vip")


LONG = [f"user-{number:04d}-{'x' * 180}" for number in range(3_000)]  # 600 kB


@pytest.fixture
def limited(emulator, folder, tmp_path):
    """Runs the target as a process that cannot write files of more than some bytes."""

    def start_and_end(limit, mode):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config(emulator, ledger_uri=str(folder), sync_mode=mode)))
        return subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), "--config", str(path)],
            input=said(*LONG),
            capture_output=True,
            check=False,
            timeout=60,
            env=environment(tmp_path),
        )

    return start_and_end


@pytest.mark.parametrize(
    ("mode", "limit"), [("mirror", 100_000), ("mirror", 400_000), ("incremental", 400_000)]
)
def test_a_full_disk_stops_the_run(emulator, go, folder, limited, mode, limit):
    """If the ledger's disk is full, the run ends with 1 and without STATE, everything that MoEngage
    has is known as accepted or unconfirmed, and the next run converges."""
    done = limited(limit, mode)
    err = done.stderr.decode()
    assert (1, b"") == (done.returncode, done.stdout)
    assert f"the ledger {folder}" in err
    assert not any(word in err for word in ("user-", "Traceback"))
    there = members(emulator, "users")
    assert len(there) < len(LONG)
    assert bool(there) == (limit > 200_000)
    if there:
        assert there <= held(emulator, str(folder))["users"].base
    for requests in (None, 0):
        seen = go(said(*LONG), sync_mode=mode)
        assert (None, [{"at": "the end"}]) == (seen.error, seen.states)
        assert requests in {None, len(seen.attempts)}
    assert {*LONG} == members(emulator, "users")


@pytest.mark.parametrize("mode", MODES)
def test_the_error_of_a_full_disk_names_cause_and_remedy(limited, mode):
    """The last error is that of the disk, with advice, and not a consequence of it."""
    *_, last = limited(300_000, mode).stderr.decode().strip().splitlines()
    assert "its disk has free space. Nothing more is sent." in last


class Full:
    """A disk that is full at the nth step of a name, and has free space again afterwards."""

    def __init__(self, name, number):
        self.name = f"{name}: before commit"
        self.left = number

    def __call__(self, name):
        self.left -= name == self.name
        if not self.left and name == self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "after"), [("sent", 5), ("accepted", 6)])
def test_an_error_of_one_ledger_stops_the_sending_to_all_cohorts(emulator, go, mode, name, after):
    """After an error of a ledger no other request of any cohort starts. The next run converges, and
    knows every member that MoEngage may have."""
    rows = [record(uid=uid, cohort=cohort) for uid in LONG[:40] for cohort in ("one", "two")]
    data = lines(schema(columns=("uid", "cohort")), *rows, state({"at": "the end"}))
    settings = {
        "sync_mode": mode,
        "max_payload_bytes": 1_000,
        "max_concurrency": 1,
        "cohorts": {"users": {"cohort_id_column": "cohort"}},
    }
    seen = go(data, step=Full(name, 6), **settings)
    assert isinstance(seen.error, LedgerError)
    assert "No space left on device" in str(seen.error)
    assert (after, []) == (len(seen.attempts), seen.states)
    again = go(data, **settings)
    assert (None, [{"at": "the end"}]) == (again.error, again.states)
    assert all({*LONG[:40]} == members(emulator, cohort) for cohort in ("one", "two"))
    assert [] == go(data, **settings).attempts


@pytest.fixture
def holder(emulator, folder, tmp_path):
    """A process whose run has the ledger of the cohort `users` until its input ends."""
    settings = config(emulator, ledger_uri=str(folder), max_payload_bytes=1_000)
    process = start(tmp_path / "holder", settings)
    process.stdin.write(lines(schema(), *users(*LONG[:8])))
    process.stdin.flush()
    emulator.wait_until(lambda totals: totals.requests >= 1, timeout=30)
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_of_a_cohort_names_the_first(emulator, go, holder, folder, tmp_path):
    """A run of a cohort that another run has ends with 4 and names the other process; runs of other
    cohorts and the first run continue."""
    (tmp_path / "input").write_bytes(said("x"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(emulator, ledger_uri=str(folder), sync_mode="mirror")))
    script = "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text(), end='')"
    tap = [sys.executable, "-I", "-S", "-c", script, str(tmp_path / "input")]
    result = CliRunner().invoke(
        cli, ["run", "--config", str(path), "--", *tap], obj=SessionTiming(busy_seconds=0.3)
    )
    assert (4, "") == (result.exit_code, result.stdout)
    assert f"(process {holder.pid} on " in result.stderr
    data = lines(schema("others"), *users("y", stream="others"))
    assert go(data).error is None
    assert {"y"} == members(emulator, "others")
    done = finish(holder, lines(state({"at": 1})))
    assert (0, [{"at": 1}]) == (done.code, done.states)
    assert {*LONG[:8]} == members(emulator, "users")
    assert go(said("x")).error is None


def test_a_run_that_waits_for_another_one_ends_at_a_signal(emulator, holder, folder, tmp_path):
    """A run waits half a minute for another run of its cohort, but not after a signal."""
    before = emulator.totals().requests
    settings = config(emulator, ledger_uri=str(folder), sync_mode="mirror")
    second = start(tmp_path / "second", settings)
    second.stdin.write(said("x"))
    second.stdin.flush()
    while b"waiting for it" not in second.stderr.readline():
        assert second.poll() is None
    second.terminate()
    done = finish(second)
    assert (143, []) == (done.code, done.states)
    assert before == emulator.totals().requests
    assert holder.poll() is None
