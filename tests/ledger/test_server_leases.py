"""Leases on a PostgreSQL server, with clocks that the tests turn."""

import contextlib
import threading
import time
from functools import partial

import msgspec
import pytest

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.postgres import connection, lease_rows, ledger_server
from target_moengage_cohort.ledger.postgres.postgres_store import PostgresStore
from target_moengage_cohort.ledger.records import RequestState
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PROGRESS,
    STREAM,
    accept,
    cohort,
    flat,
    ledgers,
    members,
    send,
)

pytestmark = pytest.mark.server
LEASE_SECONDS = 90.0  # the default request_timeout_seconds and half a minute


class Clock:
    """A clock that only the test turns, and the wait of a run that turns it."""

    def __init__(self, now=1000.0):
        self.now = now
        self.waited = 0.0
        self.ends = False  # whether the run is to end
        self.meanwhile = lambda: None

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds
        self.waited += seconds
        self.meanwhile()
        return self.ends


def closed(store):
    with contextlib.suppress(LedgerError):  # the first error again
        store.close()


@pytest.fixture
def opened(tmp_path, monkeypatch, request):
    """Open a store for a run with a clock of its own; close it in the end."""

    def opened(run_id, clock, **options):
        monkeypatch.setattr(PostgresStore, "lease_clock", staticmethod(clock))
        store = ledgers(tmp_path, run_id=run_id, wait=clock.wait, **options)
        request.addfinalizer(partial(closed, store))
        return store

    return opened


def accepted(store):
    return flat(store.open(COHORT, STREAM).members())


def test_a_lease_that_stands_still_for_its_whole_time_is_taken_over(opened):
    """A run takes over the lease of one that renews nothing, after it has watched for the time that
    the lease lasts, whatever the clocks of both show; the first then sends and writes nothing."""
    first, second = Clock(5.0), Clock(900_000.0)
    dead = opened("run-1", first)
    ledger = dead.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    number = send(ledger, ADD, members(2))
    alive = opened("run-2", second)
    assert members(1, 2) == accepted(alive)
    assert LEASE_SECONDS < second.waited <= LEASE_SECONDS + 3.0
    with pytest.raises(LedgerError) as raised:
        ledger.answered(number, RequestState.ACCEPTED)
    assert "lease_lost" == raised.value.code
    assert "run-2" in str(raised.value)
    with pytest.raises(LedgerError) as raised:
        ledger.check_lease()
    assert "lease_lost" == raised.value.code
    assert [ADD] == [action for action, _ in flat(alive.open(COHORT, STREAM).doubts())]
    accept(alive.open(COHORT, STREAM), ADD, members(3))


def test_the_leases_of_a_dead_run_are_watched_together(opened):
    """A run that has waited for one stream of a dead run takes its other streams without waiting,
    but never takes the lease of a live run."""
    dead, living, second = opened("run-1", Clock()), opened("run-0", Clock()), Clock()
    streams = [f"stream {number}" for number in range(5)]
    for number, stream in enumerate(streams):
        dead.open(cohort(f"c{number}"), stream)
    living.open(COHORT, OTHER_STREAM)
    second.meanwhile = living.leases.renew
    alive = opened("run-2", second)
    for number, stream in enumerate(streams):
        accept(alive.open(cohort(f"c{number}"), stream), ADD, members(1))
    assert LEASE_SECONDS < second.waited <= LEASE_SECONDS + 3.0
    with pytest.raises(BusyError):
        alive.open(COHORT, OTHER_STREAM)
    accept(living.open(COHORT, OTHER_STREAM), ADD, members(1))


def test_members_are_not_written_with_an_old_fence(opened):
    """A run whose lease was taken over meanwhile changes no members."""
    dead, second = opened("run-1", Clock()), Clock()
    ledger = dead.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    assert members(1) == accepted(opened("run-2", second))
    with pytest.raises(LedgerError) as raised, ledger.stream.table.change("test"):
        pass
    assert "lease_lost" == raised.value.code


def test_a_lease_that_is_renewed_is_not_taken_over(opened):
    """A run that waits for one that renews its lease gives up after the time that a lease lasts and
    five seconds, and names it; one that is not patient gives up immediately."""
    first, second = Clock(), Clock()
    holding = opened("run-1", first)
    holding.open(COHORT, STREAM)
    second.meanwhile = holding.leases.renew
    with pytest.raises(BusyError) as raised:
        opened("run-2", second).open(COHORT, STREAM)
    assert "ledger_busy" == raised.value.code
    assert "run-1" in str(raised.value)
    assert LEASE_SECONDS + 5.0 == second.waited
    third = Clock()
    with pytest.raises(BusyError):
        opened("run-3", third, busy_seconds=0.0).open(COHORT, STREAM)
    assert 0.0 == third.waited


def test_a_wait_for_a_lease_ends_with_the_run(opened):
    """A run that is to end does not wait for a lease."""
    opened("run-1", Clock()).open(COHORT, STREAM)
    clock = Clock()
    clock.ends = True
    with pytest.raises(BusyError):
        opened("run-2", clock).open(COHORT, STREAM)
    assert clock.waited < 2.0


def test_a_closed_run_leaves_its_lease(opened):
    """The next run gets the lease without waiting, with a higher fence."""
    for run_id in ("run-1", "run-2"):
        clock = Clock()
        with opened(run_id, clock) as store:
            store.open(COHORT, STREAM)
            assert 0.0 == clock.waited
            fences = [lease.fence for lease in store.leases.held.values()]
    assert [2] == fences


@pytest.mark.parametrize("kind", ["open", "open_without_members"])
def test_a_lease_expires_if_a_request_was_in_flight_at_the_end(opened, kind):
    """A request that was not answered before the end may still reach MoEngage, so the next run gets
    its stream only after the time of the lease, and another stream without waiting."""
    with opened("run-1", Clock()) as store:
        ledger, other = store.open(cohort("other"), OTHER_STREAM), getattr(store, kind)
        accept(ledger, ADD, members(1))
        send(other(COHORT, STREAM), ADD, members(1))
    clock = Clock()
    store = opened("run-2", clock)
    store.open(cohort("other"), OTHER_STREAM)
    assert 0.0 == clock.waited
    getattr(store, kind)(COHORT, STREAM)
    assert LEASE_SECONDS < clock.waited <= LEASE_SECONDS + 3.0


@pytest.mark.parametrize("kind", ["open", "open_without_members"])
def test_no_attempt_begins_after_the_end(opened, kind):
    """A thread that outlasts its run sends nothing once the leases are released."""
    store = opened("run-1", Clock())
    ledger = getattr(store, kind)(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    ledger.check_lease()
    store.close()
    with pytest.raises(LedgerError) as raised:
        ledger.check_lease()
    assert "lease_lost" == raised.value.code


def test_streams_do_not_wait_for_each_other(opened):
    """The lease of one stream does not keep another stream's run waiting."""
    opened("run-1", Clock()).open(COHORT, STREAM)
    clock = Clock()
    opened("run-2", clock).open(cohort("other"), OTHER_STREAM)
    assert 0.0 == clock.waited


def test_an_attempt_starts_only_if_the_lease_outlives_it(opened, tmp_path):
    """Before an attempt that would outlive the lease, the lease is renewed; without the server no
    attempt starts."""
    clock = Clock()
    store = opened("run-1", clock)
    ledger = store.open(COHORT, STREAM)
    (before,) = store.leases.held.values()
    ledger.check_lease()
    assert [before] == [*store.leases.held.values()]
    clock.now += LEASE_SECONDS
    ledger.check_lease()
    (after,) = store.leases.held.values()
    assert (before.fence, before.counter + 1) == (after.fence, after.counter)
    databases.close_to_connections(tmp_path)
    clock.now += 30.0
    ledger.check_lease()
    clock.now += 1.0
    with pytest.raises(LedgerError) as raised:
        ledger.check_lease()
    assert "ledger_unreachable" == raised.value.code


def test_a_memberless_run_needs_its_lease_as_well(opened):
    """A run that keeps no members starts no attempt once its lease is lost."""
    clock = Clock()
    ledger = opened("run-1", clock).open_without_members(COHORT, STREAM)
    ledger.check_lease()
    opened("run-2", Clock()).take(STREAM)
    clock.now += LEASE_SECONDS
    with pytest.raises(LedgerError) as raised:
        ledger.check_lease()
    assert "lease_lost" == raised.value.code


def test_a_lost_connection_is_made_again(opened, tmp_path):
    """Reads, changes and members go on after the server has ended all sessions."""
    store = opened("run-1", Clock())
    ledger = store.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    databases.terminate(tmp_path)
    accept(ledger, ADD, members(2))
    databases.terminate(tmp_path)
    assert 2 == ledger.numbers().accepted.count
    databases.terminate(tmp_path)
    store.leases.renew()
    assert store.entries()


@pytest.mark.parametrize(
    ("code", "loss"),
    [
        ("ledger_lost_commits", "UPDATE leases SET counter = counter - 1"),
        ("ledger_lost_commits", "UPDATE leases SET holder = 'an earlier one', fence = fence - 1"),
        ("ledger_lost_commits", "DELETE FROM leases"),
        ("lease_lost", "UPDATE leases SET holder = 'a later one', fence = fence + 1"),
    ],
)
def test_a_server_that_has_lost_changes_is_noticed(opened, tmp_path, code, loss):
    """After each new connection the leases are compared with what was committed last."""
    store = opened("run-1", Clock())
    ledger = store.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    databases.execute(tmp_path, loss)
    databases.terminate(tmp_path)
    with pytest.raises(LedgerError) as raised:
        send(ledger, ADD, members(2))
    assert code == raised.value.code
    with pytest.raises(LedgerError) as raised:
        ledger.check_lease()
    assert code == raised.value.code


def test_a_lease_that_is_released_meanwhile_is_not_taken_as_lost(opened):
    """The comparison after a new connection skips a stream that was released meanwhile."""
    store = opened("run-1", Clock())
    store.open(COHORT, STREAM)
    leases = store.leases

    class Interleaved(connection.Channel):
        def run(self, text):
            leases.release(STREAM, expires=False)
            return super().run(text)

    server = leases._server  # noqa: SLF001 - for another connection to it
    with contextlib.closing(Interleaved(server, writes=True)) as channel:
        leases.compare(channel)
    ledger = store.open(cohort("other"), OTHER_STREAM)
    accept(ledger, ADD, members(1))
    ledger.check_lease()


def test_a_renewal_that_hangs_does_not_hold_the_process(opened, tmp_path, monkeypatch):
    """A run ends although the server does not answer its latest renewal; its lease expires."""
    monkeypatch.setattr(lease_rows, "_END_SECONDS", 0.1)
    store = opened("run-1", Clock())
    store.leases.seconds = 0.05  # so that it is renewed all the time
    accept(store.open(COHORT, STREAM), ADD, members(1))
    store.open(COHORT, STREAM).stream.fold()
    with databases.locked(tmp_path, "leases"):
        began = time.monotonic()
        while not databases.waiting(tmp_path):
            assert time.monotonic() - began < 10.0
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 10.0  # locks are waited for for longer
    holders = databases.execute(tmp_path, "SELECT holder FROM leases")
    assert [("",)] != holders


@pytest.mark.parametrize("column", ["last_run", "last_request"])
def test_a_server_that_has_lost_changes_is_refused_by_the_next_run(opened, tmp_path, column):
    """What a run has committed stays known, although it could not read control in the end: the next
    run is refused until a person accepts the older ledger."""
    store = opened("run-1", Clock())
    ledger = store.open(COHORT, STREAM)
    store.write_progress(msgspec.structs.replace(PROGRESS, run_id="run-1"))
    accept(ledger, ADD, members(1))
    loss = f"UPDATE store SET {column} = {column} - 1; UPDATE leases SET counter = counter - 1"
    databases.execute(tmp_path, loss)
    databases.terminate(tmp_path)
    with pytest.raises(LedgerError):
        send(ledger, ADD, members(2))
    closed(store)
    after = opened("run-2", Clock())
    with pytest.raises(SettingsError) as raised:
        after.open(COHORT, STREAM)
    assert "ledger_older" == raised.value.code


def test_a_run_that_is_done_ends_well_while_control_is_locked(opened, tmp_path, monkeypatch):
    """Another process that keeps control locked at the end of a run does not fail it, and the
    witness has the run's requests nevertheless."""
    monkeypatch.setattr(ledger_server, "_LOCK_SECONDS", 1)
    store = opened("run-1", Clock())
    ledger = store.open(COHORT, STREAM)
    store.write_progress(msgspec.structs.replace(PROGRESS, run_id="run-1"))
    accept(ledger, ADD, members(1))
    ledger.stream.fold()
    with databases.locked(tmp_path, "store"):
        store.close()
    databases.execute(tmp_path, "UPDATE store SET last_request = last_request - 1")
    with pytest.raises(SettingsError) as raised:
        opened("run-2", Clock()).entries()
    assert "ledger_older" == raised.value.code


def test_runs_under_way_are_those_with_a_lease(opened, tmp_path):
    """A run is shown while it has a lease that it may still renew."""
    store = opened("run-1", Clock())
    store.open(COHORT, STREAM)
    progress = msgspec.structs.replace(PROGRESS, run_id="run-1")
    store.write_progress(progress)
    looking = opened("run-2", Clock(), read_only=True)
    assert [progress] == looking.runs_under_way()
    databases.execute(tmp_path, "UPDATE leases SET renewed_at = renewed_at - 91")
    assert [] == looking.runs_under_way()


def test_an_identifier_in_an_error_of_the_server_is_not_shown(opened, tmp_path):
    """An error of a copy to the server names no member."""
    ledger = opened("run-1", Clock()).open(COHORT, STREAM)
    databases.execute(tmp_path, "ALTER TABLE accepted ADD CHECK (uid <> 'PLANTED')")
    accept(ledger, ADD, [Member("PLANTED")])
    with pytest.raises(LedgerError) as raised:
        ledger.stream.fold()
    assert "PLANTED" not in str(raised.value)
    assert "ledger_unusable" == raised.value.code


def test_a_run_that_waits_for_a_stream_renews_its_other_leases(opened):
    """The wait for one stream's lease does not keep the renewals of others from their work."""
    clock = Clock()
    opened("run-1", Clock()).open(cohort("other"), OTHER_STREAM)
    waiting = opened("run-2", clock)
    waiting.open(COHORT, STREAM)
    (before,) = waiting.leases.held.values()

    def renew():
        if clock.waited == 1.0:
            thread = threading.Thread(target=waiting.leases.renew)
            thread.start()
            thread.join(5.0)
            clock.ends = True

    clock.meanwhile = renew
    with pytest.raises(BusyError):
        waiting.open(cohort("other"), OTHER_STREAM)
    (after,) = waiting.leases.held.values()
    assert before.counter + 1 == after.counter


def test_a_lease_is_not_taken_over_within_a_change_of_members(opened):
    """Another run takes the lease only after the change that proved it has ended, and then has its
    rows; the lease can be renewed meanwhile."""
    dying = opened("run-1", Clock())
    ledger = dying.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    with ledger.stream.table.change("test"):
        dying.leases.renew()
        with pytest.raises(BusyError) as raised:
            opened("run-2", Clock()).open(COHORT, STREAM)
        assert "run-1" in str(raised.value)
    assert members(1) == accepted(opened("run-3", Clock()))
