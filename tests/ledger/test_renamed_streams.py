"""`reassign_all`: a stream has another name, and loses nothing by that, whenever it is killed."""

import msgspec
import pytest

from target_moengage_cohort.ledger.records import PlanKind
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    OTHER_STREAM,
    PLAN,
    REMOVE,
    STREAM,
    RequestState,
    accept,
    cohort,
    copied,
    flat,
    keep,
    ledgers,
    members,
    send,
    uids,
)

pytestmark = pytest.mark.contract
WITHHELD = msgspec.structs.replace(PLAN, kind=PlanKind.WITHHELD)


def fill(folder):
    """Let a stream have two cohorts and whatever is known of streams, and another one a cohort."""
    with ledgers(folder) as store:
        store.begin(STREAM)
        first, second = store.open(cohort("first"), STREAM), store.open(cohort("second"), STREAM)
        accept(store.open(cohort("there"), OTHER_STREAM), ADD, members(9))
        accept(first, ADD, members(1, 2), 77)
        accept(second, ADD, members(1, 4))
        accept(second, REMOVE, members(4))
        keep(store, first, WITHHELD, members(1))
        assert store.approve(first.entry, WITHHELD)
        second.answered(send(second, ADD, members(3)), RequestState.UNANSWERED)
        assert store.use_version(STREAM, 5)
        store.note_read_whole(STREAM, whole=False)
        store.note_read_whole(OTHER_STREAM, whole=True)
        store.alerts.advance([STREAM], lambda _states: ({STREAM: "failed"}, {}))
        store._ready().note_stream(STREAM, last_timestamp=99)  # noqa: SLF001 - without members
        store.pause(STREAM)


def assert_moved(folder):
    """Check that the other stream has all, that it is as strict, and that it was recorded once."""
    with ledgers(folder, run_id="run-2") as store:
        assert [] == store.entries(STREAM)
        entries = store.entries(OTHER_STREAM)
        assert ["first", "second", "there"] == [entry.cohort_id for entry in entries]
        assert all(entry.last_timestamp >= 99 for entry in entries)
        first, second = store.open_known("first"), store.open_known("second")
        assert ["1", "2"] == uids(first.members())
        assert ["1", "3"] == uids(second.members())
        assert 1 == second.numbers().in_doubt
        assert ["4"] == uids(second.kept_removals())
        assert ["9"] == uids(store.open_known("there").members())
        assert [msgspec.structs.replace(WITHHELD, stream=OTHER_STREAM)] == first.plans()
        assert ["2"] == uids(first.plan_members(PLAN.plan_id, REMOVE))
        assert {first.number: PLAN.plan_id} == {
            number: approval.plan_id for number, approval in store.approvals().items()
        }
        assert not store.use_version(OTHER_STREAM, 5)
        assert store.was_read_whole(OTHER_STREAM) is False
        assert [OTHER_STREAM] == [pause.stream for pause in store.pauses()]
        assert OTHER_STREAM in store.companions(OTHER_STREAM)
        states = {}
        store.alerts.advance([STREAM, OTHER_STREAM], lambda seen: (states.update(seen) or {}, {}))
        assert {STREAM: None, OTHER_STREAM: "failed"} == states
        (action,) = (entry for entry in store.history() if entry.kind == "reassign")
        assert ({"cohorts": 2, "members": 4}, OTHER_STREAM) == (action.counts, action.stream)
        assert [] == flat(store.stream(STREAM).table.rows("FROM {s}.accepted"))
    with ledgers(folder, read_only=True) as store:
        assert [] == store.inspect(STREAM) + store.inspect(OTHER_STREAM)


def test_another_stream_takes_over_all(tmp_path):
    """Killed at any step and repeated, it leaves the other stream with cohorts, members, doubts,
    plans, approvals, versions, pauses and facts; a third time it finds nothing to move."""
    folder = tmp_path / "ledger"
    fill(folder)
    copies = []

    def step(_name):
        copies.append(copied(folder, str(len(copies))))

    with ledgers(folder, run_id="move", step=step) as store:
        assert 2 == len(store.reassign_all(STREAM, OTHER_STREAM))
        assert ["1", "2"] == uids(store.open_known("first").members())
    assert 6 <= len(copies)
    for place in [folder, *copies]:
        databases.free_leases(place)
        for _ in range(2):
            with ledgers(place, run_id="again") as store:
                left = store.reassign_all(STREAM, OTHER_STREAM)
        assert [] == left
        assert_moved(place)


def test_a_stream_without_members(tmp_path):
    """The cohorts of a stream without members move, too, also to a stream with members."""
    with ledgers(tmp_path) as store:
        bare = store.open_without_members(cohort("bare"), STREAM)
        bare.answered(bare.sent(ADD, b"[]", 0, 50), RequestState.ACCEPTED)
        accept(store.open(cohort("there"), OTHER_STREAM), ADD, members(9))
    for former, stream in ((STREAM, "third"), ("third", OTHER_STREAM)):
        with ledgers(tmp_path) as store:
            assert 1 == len(store.reassign_all(former, stream))
            assert not store.has_members(former)
            assert 50 <= store.entry("bare").last_timestamp
    with ledgers(tmp_path) as store:
        assert 0 == store.open_known("bare").numbers().base
