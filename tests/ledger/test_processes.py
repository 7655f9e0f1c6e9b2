"""Several processes and one store: leases of streams, and control for all of them."""

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import BusyError, SettingsError
from target_moengage_cohort.core.membership import Cohort
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PROGRESS,
    STREAM,
    accept,
    cohort,
    finished,
    flat,
    ledgers,
    members,
    place_of,
    process,
    send,
)

HOLD = """
import sys
from pathlib import Path
from tests.ledger.support import *
store = ledgers(Path(sys.argv[1]), run_id=PROGRESS.run_id, clock=lambda: 0)
ledger = store.open(COHORT, STREAM)
accept(ledger, ADD, members(1, 2))
ledger.stream.fold()
send(ledger, ADD, members(3))
store.write_progress(PROGRESS)
print("held", flush=True)
sys.stdin.readline()
store.close()
"""
STOP = """
import os, signal, sys, time
from pathlib import Path
from tests.ledger.support import *
def step(name):
    if name == sys.argv[2]:
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
store = ledgers(Path(sys.argv[1]), run_id=PROGRESS.run_id, step=step, wait=time.sleep)
accept(store.open(COHORT, STREAM), ADD, members(1))
store.close()
"""
RACE = """
import json, sys, time
from pathlib import Path
from tests.ledger.support import *
name = sys.argv[2]
sys.stdin.readline()
for turn in range(5):
    with ledgers(Path(sys.argv[1]), run_id=f"{name}-{turn}", wait=time.sleep) as store:
        ledger = store.open(cohort(name), name)
        for i in range(4):
            accept(ledger, ADD, members(4 * turn + i))
        store.entries()
print(json.dumps([]))
"""


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time of change and the content of each file but locks."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith("-shm")
    }


@pytest.fixture
def other(tmp_path):
    """Another process at work on a stream, with a request in flight."""
    holder = process(HOLD, tmp_path)
    assert "held\n" == holder.stdout.readline()
    yield holder
    holder.kill()
    holder.communicate()


def test_a_busy_stream_names_its_holder(tmp_path, other):
    """A run waits for a stream that another process has, for as long as it may, and the error names
    that run; another stream of the store is free meanwhile."""
    waits = []
    with ledgers(tmp_path, busy_seconds=1, wait=waits.append) as store:
        with pytest.raises(BusyError) as raised:
            store.open(COHORT, STREAM)
        assert "ledger_busy" == raised.value.code
        for part in (STREAM, "run-of-another", f"process {other.pid} on", "1970-01-01T00:00:00"):
            assert part in str(raised.value)
        assert 1 <= sum(waits) < 1.5
        ledger = store.open(cohort("another"), OTHER_STREAM)
        accept(ledger, ADD, members(1))
        assert members(1) == flat(ledger.members())
    other.stdin.write("\n")
    other.stdin.flush()
    other.wait(timeout=30)
    with ledgers(tmp_path) as store:
        assert 3 == store.open(COHORT, STREAM).numbers().base


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.contract
def test_an_interrupted_run_does_not_wait_for_a_stream(tmp_path, read_only):
    """A run that must end stops waiting for a busy stream, a dry run, too."""
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return True

    with ledgers(tmp_path, wait=wait, read_only=read_only) as store, pytest.raises(BusyError):
        store.open(COHORT, STREAM)
    assert 1 == len(waits)


@pytest.mark.usefixtures("other")
@pytest.mark.contract
def test_control_is_read_without_waiting(tmp_path):
    """Entries, plans and the runs under way are read while a run is at work, without waiting."""
    with ledgers(tmp_path, read_only=True, wait=pytest.fail) as store:
        (entry,) = store.entries()
        assert (2, 1) == (entry.counts.accepted.count, entry.unfolded)
        assert not entry.is_settled
        assert {} == store.plans()
        assert [PROGRESS] == store.runs_under_way()


def test_a_stream_is_free_once_it_is_closed(tmp_path):
    """Closing a store lets the next run open its streams, and empties the files of its locks."""
    with ledgers(tmp_path) as first, ledgers(tmp_path, busy_seconds=0, run_id="run-2") as second:
        accept(first.open(COHORT, STREAM), ADD, members(1))
        with pytest.raises(BusyError):
            second.open(COHORT, STREAM)
        first.close()
        assert not second.open(COHORT, STREAM).created
        second.close()
        assert {b""} == {path.read_bytes() for path in place_of(tmp_path).glob("*.lock")}


def test_what_a_killed_run_leaves_is_removed(tmp_path, other):
    """The spill directory of a killed run is removed when its store is next opened, but not while
    it is alive; nor is a dead run under way."""
    with ledgers(tmp_path) as store:
        store.open(cohort("another"), OTHER_STREAM)
        spills = place_of(tmp_path)
        assert 2 == len(list(spills.glob("spill-*")))
        (spills / "spill-run-of-another" / "block").write_bytes(b"ids")
    other.kill()
    other.wait()
    with ledgers(tmp_path) as store:
        assert [] == store.runs_under_way()
        store.open(COHORT, STREAM)
        assert ["spill-run-1"] == [path.name for path in spills.glob("spill-*")]
    assert [] == [*spills.glob("spill-*")]


def test_reading_changes_nothing_on_disk(tmp_path, other):
    """A read-only store includes the requests and the logs of a killed run, and leaves every byte
    and time as it was."""
    other.kill()
    other.wait()
    before = contents(tmp_path)
    assert {".duckdb", ".sqlite-wal"} <= {Path(name).suffix for name in before}
    with ledgers(tmp_path, read_only=True) as store:
        ledger = store.open(COHORT, STREAM)
        numbers = ledger.numbers()
        assert (2, 1, 3) == (numbers.accepted.count, numbers.in_doubt, numbers.base)
        assert [(ADD, members(3)[0])] == flat(ledger.doubts())
        assert members(1, 2, 3) == sorted(flat(ledger.members()), key=lambda m: m.uid)
        new = store.open(cohort("new"), STREAM)
        assert (0, False) == (new.numbers().base, new.created)
        assert {} == new.stream.known([new.number], members(1))
        assert not any(entry.cohort_id == "new" for entry in store.entries())
    assert before == contents(tmp_path)
    with ledgers(tmp_path) as store:
        assert numbers == store.open(COHORT, STREAM).numbers()
    still = contents(tmp_path)
    with ledgers(tmp_path, read_only=True) as store:
        assert numbers == store.open(COHORT, STREAM).numbers()
    assert still == contents(tmp_path)


@pytest.mark.parametrize("step", ["sent: before commit", "accepted: before commit"])
def test_a_process_that_stops_within_control_delays_others_for_a_bounded_time(tmp_path, step):
    """If a process was stopped while it holds control's write lock, others can still read, and fail
    to write as busy, within their patience; once it goes on, so do they."""
    with ledgers(tmp_path) as store:
        accept(store.open(cohort("another"), OTHER_STREAM), ADD, members(0))
    stopped = process(STOP, tmp_path, step)
    try:
        assert "stopped\n" == stopped.stdout.readline()
        os.waitpid(stopped.pid, os.WUNTRACED)
        waits = []

        def wait(seconds):
            waits.append(seconds)
            time.sleep(seconds)

        with ledgers(tmp_path, busy_seconds=0.5, wait=wait) as store:
            assert "another" in {entry.cohort_id for entry in store.entries()}
            ledger = store.open(cohort("another"), OTHER_STREAM)
            with pytest.raises(BusyError) as raised:
                send(ledger, ADD, members(1))
            assert "ledger_busy" == raised.value.code
            assert 0.5 <= sum(waits) < 1
            os.kill(stopped.pid, signal.SIGCONT)
            stopped.communicate(timeout=30)
            assert 0 == stopped.returncode
            accept(ledger, ADD, members(1))
            assert 2 == ledger.numbers().accepted.count
    finally:
        stopped.kill()
        stopped.communicate()
    with ledgers(tmp_path) as store:
        assert 1 == store.open(COHORT, STREAM).numbers().accepted.count


@pytest.mark.contract
def test_processes_create_and_close_a_store_at_the_same_time(tmp_path):
    """Processes of several streams that create, use and close one store at the same time lose
    nothing and get no error."""
    names = ["a", "b", "c"]
    racers = [process(RACE, tmp_path, name) for name in names]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        finished(racer)
    with ledgers(tmp_path) as store:
        assert names == [entry.cohort_id for entry in store.entries()]
        for name in names:
            assert 20 == store.open(cohort(name), name).numbers().accepted.count


@pytest.mark.contract
def test_a_cohort_that_moves_while_its_lease_is_waited_for_is_found(tmp_path):
    """If the holder of a lease gives a cohort to another stream, whoever waits finds it there."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    other = ledgers(tmp_path, run_id="other")
    other.open_known(COHORT.cohort_id)

    def move(_seconds):
        other.reassign(COHORT.cohort_id, OTHER_STREAM)
        other.close()

    with ledgers(tmp_path, busy_seconds=5.0, wait=move) as store:
        ledger = store.open_known(COHORT.cohort_id)
        assert (OTHER_STREAM, 1) == (ledger.entry.stream, ledger.numbers().accepted.count)


@pytest.mark.parametrize("partner", ["acme", "another"])
@pytest.mark.contract
def test_a_cohort_that_two_runs_meet_at_once_belongs_to_the_first(tmp_path, partner):
    """Of two runs that meet one new cohort, for two streams or partners, the second is refused."""
    with (
        ledgers(tmp_path) as first,
        ledgers(tmp_path, run_id="run-2", setting={"partner": partner}) as second,
    ):
        ledger = first.open(COHORT, STREAM)
        late = second.open(Cohort(COHORT.cohort_id, "Another name"), OTHER_STREAM)
        accept(ledger, ADD, members(1))
        with pytest.raises(SettingsError) as raised:
            send(late, ADD, members(2))
        assert "cohort_of_other_stream" == raised.value.code


def test_a_run_that_ends_still_notes_its_outcome(tmp_path):
    """What another process holds for a moment does not fail a run whose waits have been ended."""
    with ledgers(tmp_path) as store:
        place = Path(store.open(COHORT, STREAM) and store.place)
    holder = sqlite3.connect(place / "control.sqlite", check_same_thread=False)
    letting_go = threading.Timer(0.1, holder.rollback)

    def wait(_seconds):
        letting_go.start()  # only once: a thread cannot be started again
        return True  # the run is to end

    with ledgers(tmp_path, wait=wait, run_id="run-2") as store:
        ledger = store.open(COHORT, STREAM)
        holder.execute("BEGIN IMMEDIATE")
        ledger.rename("Another")
        letting_go.join()
        assert ["Another"] == [entry.name for entry in store.entries()]
    holder.close()
