"""A ledger in use: its records and its failures."""

import contextlib
import json
import subprocess
import sys
import threading
import traceback

import duckdb
import msgspec
import pytest

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb import folding
from target_moengage_cohort.ledger.duckdb import members as members_module
from target_moengage_cohort.ledger.records import Expected, PlanKind, RequestState, RunEntry
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PLAN,
    REMOVE,
    ROOT,
    STREAM,
    accept,
    cohort,
    desired,
    flat,
    keep,
    ledgers,
    members,
    place_of,
    process,
    send,
    stage,
    uids,
)
from tests.support.reports import past_run

pytestmark = pytest.mark.contract(more=["looked up"])


@pytest.fixture
def store(tmp_path):
    with ledgers(tmp_path) as opened:
        yield opened


@pytest.fixture
def ledger(store):
    return store.open(COHORT, STREAM)


def known(ledger, whom):
    """Return what is expected of members of one cohort, by key."""
    found = ledger.stream.known([ledger.number] * len(whom), whom)
    assert {ledger.number} >= {number for number, _ in found}
    return {key: expected for (_, key), expected in found.items()}


def queue(ledger, *changes):
    ledger.stream.queued([(ledger.number, action, member) for action, member in changes])


def doubted(ledger):
    return {member.key: action for action, member in flat(ledger.doubts())}


def identifiers(ledger):
    return {member.key: member.anonymous_id for member in flat(ledger.members())}


def test_timestamps_and_revisions_last(tmp_path):
    """The next run has the latest timestamp and the revision, whatever the answers were."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        assert ledger.created
        accept(ledger, ADD, members(1), 50)
        ledger.answered(send(ledger, ADD, members(2), 70), RequestState.REFUSED)
        send(ledger, ADD, members(3), 60)
        assert 70 == ledger.last_timestamp
        revision = ledger.revision
    databases.free_leases(tmp_path)
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        assert (False, 70, revision) == (ledger.created, ledger.last_timestamp, ledger.revision)
        assert store.open(COHORT, STREAM) is ledger


def test_request_numbers_rise_in_a_store_and_are_never_reused(tmp_path):
    """Each request of a destination has a higher number than all before, over cohorts, streams,
    runs and partners."""
    numbers = []
    for partner in ("acme", "acme", "other"):
        with ledgers(tmp_path, setting={"partner": partner}) as store:
            for name, stream in (("a", STREAM), ("b", STREAM), ("c", OTHER_STREAM)):
                ledger = store.open(cohort(f"{partner}-{name}"), stream)
                numbers.append(send(ledger, ADD, members(1)))
                ledger.answered(numbers[-1], RequestState.REFUSED)
    assert numbers == sorted(set(numbers))


def test_queued_changes_win(ledger, store):
    """A member's last queued change is what is expected, whatever was accepted before, in its own
    cohort only."""
    other = store.open(cohort("other"), STREAM)
    accept(other, ADD, members(4))
    accept(ledger, ADD, [*members(1, 2), Member("3", "a")])
    ledger.stream.fold()
    queue(ledger, (REMOVE, Member("1")), (ADD, Member("9")), (REMOVE, Member("9", "x")))
    queue(ledger, (ADD, Member("1", "new")), (ADD, Member(None, "1")))
    queue(other, (REMOVE, Member("2")))
    assert {
        "1": Expected(ADD, Member("1", "new")),
        "2": Expected(ADD, Member("2")),
        "3": Expected(ADD, Member("3", "a")),
        "9": Expected(REMOVE, Member("9", "x")),
        ("1",): Expected(ADD, Member(None, "1")),
    } == known(ledger, [*members(1, 2, 3, 4, 9), Member(None, "1")])
    both = ledger.stream.known([ledger.number, other.number, other.number], members(2, 2, 4))
    assert {
        (ledger.number, "2"): ADD,
        (other.number, "2"): REMOVE,
        (other.number, "4"): ADD,
    } == {key: expected.action for key, expected in both.items()}


def test_an_accepted_removal_is_known_later(tmp_path):
    """The next run knows a removal that was accepted."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), REMOVE, members(1))
    with ledgers(tmp_path) as store:
        found = known(store.open(COHORT, STREAM), members(1, 2))
    assert {"1": REMOVE} == {key: expected.action for key, expected in found.items()}


def test_doubts_of_earlier_runs_are_those_not_queued_since(tmp_path):
    """Unconfirmed changes of earlier runs are listed unless this run has queued a newer one."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(0, 2))
        ledger.answered(send(ledger, ADD, members(1, 3)), RequestState.UNANSWERED)
        send(ledger, REMOVE, members(2))
        assert [] == flat(ledger.doubts())
    databases.free_leases(tmp_path)
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        queue(ledger, (ADD, Member("3")), (ADD, Member("5")))
        ledger.answered(send(ledger, ADD, members(5), 2), RequestState.UNANSWERED)
        chunks = ledger.doubts()
        accept(ledger, ADD, members(1))
        ledger.stream.fold()
        expected = {("1", ADD), ("2", REMOVE)}
        assert expected == {(member.uid, action) for action, member in flat(chunks)}


def test_the_end_of_requests_makes_them_unanswered(ledger):
    """Once the answers no longer matter, requests in flight count as unanswered, and an answer that
    still comes is an error."""
    number = send(ledger, ADD, members(1))
    assert 0 == ledger.numbers().in_doubt
    ledger.stream.requests.end()
    assert 1 == ledger.numbers().in_doubt
    with pytest.raises(LedgerError) as raised:
        ledger.answered(number, RequestState.ACCEPTED)
    assert "unknown_request" == raised.value.code


def test_an_answer_to_an_unknown_request_is_an_error(ledger):
    """A request that is not pending cannot be answered."""
    number = send(ledger, ADD, members(1))
    ledger.answered(number, RequestState.ACCEPTED)
    with pytest.raises(LedgerError) as raised:
        ledger.answered(number, RequestState.REFUSED)
    assert "unknown_request" == raised.value.code


def test_plans_are_kept_with_their_members(tmp_path):
    """The next run has the plans of both kinds; they can be replaced, renewed, withheld and dropped
    one by one, each cohort's apart."""
    both = msgspec.structs.replace(
        PLAN, plan_id="plan-0", kind=PlanKind.WITHHELD, made_at=0.5, additions=1, removals=4
    )
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        other = store.open(cohort("other"), STREAM)
        accept(ledger, ADD, members(1, 2, 3, 4))
        accept(other, ADD, members(1, 7))
        keep(store, ledger, PLAN, [*members(1, 2), "x"])
        keep(store, ledger, PLAN, [*members(1, 3), "x"])
        staging = stage(store, [*desired(ledger, members(5)), *desired(other, members(1))])
        difference = ledger.stream.difference(staging, [ledger, other])
        ledger.stream.keep([(ledger, both), (other, PLAN)], difference)
        accept(ledger, ADD, members(9))
        ledger.renew_plan(PLAN.plan_id)
        renewed = msgspec.structs.replace(PLAN, revision=ledger.revision)
    with ledgers(tmp_path) as store:
        ledger, other = store.open(COHORT, STREAM), store.open(cohort("other"), STREAM)
        plans = {ledger.number: [both, renewed], other.number: [PLAN]}
        assert plans == store.plans()
        assert [both, renewed] == ledger.plans()
        assert ["2", "4"] == uids(ledger.plan_members(PLAN.plan_id, REMOVE))
        assert [] == flat(ledger.plan_members(PLAN.plan_id, ADD))
        assert members(5) == flat(ledger.plan_members("plan-0", ADD))
        assert ["1", "2", "3", "4"] == uids(ledger.plan_members("plan-0", REMOVE))
        assert members(7) == flat(other.plan_members(PLAN.plan_id, REMOVE))
        ledger.drop_plans("plan-0")
        assert [] == flat(ledger.plan_members("plan-0", ADD))
        ledger.withhold_plan(PLAN.plan_id)
        assert [PlanKind.WITHHELD] == [plan.kind for plan in ledger.plans()]
        ledger.drop_plans(PLAN.plan_id)
        assert ([], [PLAN]) == (ledger.plans(), other.plans())
        assert [] == flat(ledger.plan_members(PLAN.plan_id, REMOVE))
        assert members(7) == flat(other.plan_members(PLAN.plan_id, REMOVE))


def test_newer_rows_leave_only_removals_that_can_be_approved(tmp_path):
    """Newer rows of a cohort delete its waiting plans and those without removals. Of withheld ones
    the latest 24 stay for a day, and an approved one as long as its approval."""
    withheld = msgspec.structs.replace(PLAN, kind=PlanKind.WITHHELD)
    growth = msgspec.structs.replace(withheld, plan_id="growth", removals=0, additions=1)
    plans = [
        msgspec.structs.replace(withheld, plan_id=f"plan-{number:02}", made_at=float(number))
        for number in range(26)
    ]

    def left(hour: float, approved: int | None = None) -> list[str]:
        """Return the plans after newer rows at an hour."""
        with ledgers(tmp_path, clock=lambda: hour * 3_600) as store:
            ledger = store.open(COHORT, STREAM)
            if approved is not None:
                assert store.approve(ledger.entry, plans[approved]) == (hour + 24) * 3_600
            ledger.stream.replace_plans([ledger.number])
            kept = [plan.plan_id for plan in ledger.plans()]
            query = (
                f"SELECT DISTINCT plan_id FROM {{s}}.plan_members WHERE cohort = {ledger.number}"
            )
            assert {*kept} == {plan_id for (plan_id,) in ledger.stream.table.rows(query)}
            return kept

    with ledgers(tmp_path) as store:
        ledger, other = store.open(COHORT, STREAM), store.open(cohort("other"), STREAM)
        for each in (ledger, other):
            accept(each, ADD, members(1, 2, 3))
            keep(store, each, PLAN, members(1))
        for plan in [*plans, growth]:
            keep(store, ledger, plan, members(1))
    latest = [plan.plan_id for plan in plans[2:]]
    assert ["plan-01", *latest] == left(1, approved=1)
    assert ["plan-01", *latest] == left(24.5)
    assert [] == left(25.5)
    with ledgers(tmp_path) as store:
        other = store.open(cohort("other"), STREAM)
        assert ([PLAN], members(2, 3)) == (
            other.plans(),
            flat(other.plan_members("plan-1", REMOVE)),
        )


@pytest.mark.parametrize("defers", [False, True])
def test_the_guard_sees_no_approved_removal(ledger, store, defers):
    """Approved removals are apart from the others, or with them if they are deferred. Of the others
    are counted the members that leave, and those that stay but lose an alias."""
    former, present = (
        [Member(f"u{number}", f"{name}{number}") for number in range(4)] for name in "ab"
    )
    accept(ledger, ADD, [*former, *members("gone", "late")])
    accept(ledger, ADD, present)
    withheld = msgspec.structs.replace(PLAN, kind=PlanKind.WITHHELD, removals=4)
    keep(store, ledger, withheld, [*present, *members("late"), Member(None, "a3")])
    assert store.approve(ledger.entry, withheld) is not None
    staging = stage(store, desired(ledger, present))
    difference = ledger.stream.difference(staging, [ledger], defers=defers)
    counts = difference.counts[ledger.number]
    assert (6, 0 if defers else 4, 2) == (counts.removals, counts.approved, counts.leaving)
    parts = [
        {member.key for _, chunk in each for member in chunk}
        for each in (
            [] if defers else difference.changes("approved"),
            difference.changes("removals"),
        )
    ]
    approved, others = {"gone", ("a0",), ("a1",), ("a2",)}, {"late", ("a3",)}
    expected = [set(), approved | others] if defers else [approved, others]
    assert expected == parts
    assert 4 == len(flat(chunk for _, chunk in difference.changes("resent")))
    ledger.stream.settle(difference, complete=[ledger])
    assert defers == bool(ledger.plans())


def test_members_are_those_accepted_or_in_doubt(ledger, store):
    """Each member is listed once, and found by either identifier, in its own cohort."""
    accept(store.open(cohort("other"), STREAM), ADD, [Member("8", "a")])
    accept(ledger, ADD, [Member("1", "a"), *members(2, 3), Member(None, "b")])
    accept(ledger, REMOVE, members(3))
    ledger.answered(send(ledger, ADD, [Member("4", "d"), Member("2")]), RequestState.UNANSWERED)
    assert ["(b)", "1", "2", "4"] == uids(ledger.members())
    asked = [Member("9", "a"), Member("4"), Member("3"), Member(None, "b"), Member("d", "2")]
    assert {Member("1", "a"), Member("4", "d"), Member(None, "b")} == set(ledger.find(asked))


def test_accepted_members_have_no_unconfirmed_removal(ledger, store):
    """The accepted members are those of a cohort of whom no removal may have been applied."""
    accept(store.open(cohort("other"), STREAM), ADD, [Member("8", "a")])
    accept(ledger, ADD, [Member("1", "a"), *members(2, 3, 5), Member(None, "b")])
    accept(ledger, REMOVE, members(3))
    ledger.answered(send(ledger, ADD, [Member("4", "d"), Member("2")]), RequestState.UNANSWERED)
    ledger.answered(send(ledger, REMOVE, members(5)), RequestState.UNANSWERED)
    assert ["(b)", "1", "2"] == uids(ledger.accepted())


def test_a_resync_makes_every_member_unconfirmed(ledger, store):
    """A resync marks all accepted members of a cohort as unconfirmed, keeps newer unconfirmed
    changes and ends a seal; other cohorts stay as they are."""
    other = store.open(cohort("other"), STREAM)
    for each in (ledger, other):
        accept(each, ADD, members(1, 2))
        each.seal()
    ledger.answered(send(ledger, REMOVE, members(2)), RequestState.UNANSWERED)
    revision = ledger.revision
    assert 2 == ledger.doubt_all()
    assert ledger.revision > revision
    assert not ledger.entry.is_settled
    assert not ledger.is_sealed
    assert (2, 2, 2) == (
        ledger.numbers().accepted.count,
        ledger.numbers().in_doubt,
        ledger.numbers().base,
    )
    assert {"1": ADD, "2": REMOVE} == doubted(ledger)
    assert ({}, True) == (doubted(other), other.is_sealed)


def test_adopted_members_are_accepted(ledger, store):
    """Adopted members are accepted and confirmed without a request; new ones are counted."""
    other = store.open(cohort("other"), STREAM)
    other.answered(send(other, REMOVE, members(3)), RequestState.UNANSWERED)
    accept(ledger, ADD, members(1, 2))
    accept(ledger, REMOVE, members(2))
    ledger.answered(send(ledger, ADD, members(3)), RequestState.UNANSWERED)
    revision = ledger.revision
    chunks = [[Member("1", "a"), *members(2)], [Member("3", "x"), Member("3", "y"), Member("4")]]
    assert 3 == ledger.adopt(iter(chunks))
    assert {"1": "a", "2": None, "3": "y", "4": None} == identifiers(ledger)
    assert {ADD} == {each.action for each in known(ledger, members(1, 2, 3, 4)).values()}
    assert ledger.entry.is_settled
    assert ledger.revision > revision
    assert {"3": REMOVE} == doubted(other)


def test_linked_members_become_aliases_of_accepted_uids(tmp_path):
    """Members whose anonymous id now goes with a uid become aliases once that uid is accepted with
    it, whether they were accepted or not; they stay members of other cohorts."""
    with ledgers(tmp_path) as store:
        both = [store.open(each, STREAM) for each in (COHORT, cohort("other"))]
        for ledger in both:
            accept(ledger, ADD, [Member(None, "a"), Member("a"), Member(None, "b")])
            ledger.answered(
                send(ledger, ADD, [Member(None, "a"), Member(None, "c")]), RequestState.UNANSWERED
            )
    with ledgers(tmp_path) as store:
        both = [store.open(each, STREAM) for each in (COHORT, cohort("other"))]
        whom = [Member("a"), Member(None, "b"), Member("n", "a"), Member("m", "c")]
        rows = [row for ledger in both for row in desired(ledger, whom)]
        difference = both[0].stream.difference(stage(store, rows), both)
        assert {2} == {counts.linked for counts in difference.counts.values()}
        accept(both[0], ADD, [Member("n", "a"), Member("m", "c")])
        both[0].stream.settle(difference, complete=[])
        assert ["(b)", "a", "m", "n"] == uids(both[0].members())
        assert ["(a)", "(c)"] == uids(both[0].aliases())
        assert both[0].entry.is_settled
        assert ["(a)", "(b)", "(c)", "a"] == uids(both[1].members())
        assert [] == uids(both[1].aliases())


def test_removals_do_not_pile_up_in_a_mirror(ledger, store):
    """Settling deletes the record of accepted removals of complete cohorts; members stay."""
    other = store.open(cohort("other"), STREAM)
    for each in (ledger, other):
        accept(each, ADD, members(1, 2))
        accept(each, REMOVE, members(2))
    rows = [*desired(ledger, "1"), *desired(other, "1")]
    difference = ledger.stream.difference(stage(store, rows), [ledger, other])
    ledger.stream.settle(difference, complete=[ledger])
    assert {"1"} == known(ledger, members(1, 2)).keys()
    assert {"1", "2"} == known(other, members(1, 2)).keys()


def test_a_seal_lasts(tmp_path):
    """A sealed cohort is still sealed in the next run."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        assert not ledger.is_sealed
        ledger.seal()
        assert ledger.is_sealed
    with ledgers(tmp_path, read_only=True) as store:
        assert store.open(COHORT, STREAM).is_sealed


def run_entry(run, **changes):
    values = {
        "run_id": run,
        "started_at": "",
        "finished_at": "",
        "status": "succeeded",
        "sync_mode": "mirror",
        "complete": "count",
        "records": 3,
        "added": 1,
        "removed": 0,
    }
    return RunEntry(**values | changes)


def test_the_history_has_the_runs_that_changed_a_cohort(tmp_path):
    """The history of a cohort has the runs that changed it, the newest first; its entry has the
    newest run, whatever that did."""
    entries, changes = [], []
    for number in range(5):
        run, at = f"run-{number}", f"2026-11-30T0{number}:00:00.000Z"
        with ledgers(tmp_path, run_id=run) as store:
            opened = [store.open(cohort(name), STREAM) for name in ("a", "b")]
            entry = run_entry(run, added=number % 2)
            entries.append(entry)
            changes.append([past_run(run, at, cohort_id="a", added=1)] * (number % 2))
            of_cohorts = {each.number: entry for each in opened[: 1 + (number < 4)]}
            store.note_run(past_run(run, at), changes[-1], of_cohorts)
    with ledgers(tmp_path, read_only=True) as store:
        runs = store.history(cohort_id="a")
        assert [("run-3", "a", 1), ("run-1", "a", 1)] == [
            (each.run_id, each.cohort_id, each.added) for each in runs
        ]
        assert [runs[0]] == store.history_reader().cohorts_of(runs[0])
        assert {"a": entries[4], "b": entries[3]} == {
            entry.cohort_id: entry.last_run for entry in store.entries()
        }


def test_a_renamed_and_reassigned_ledger_opens_by_its_new_names(tmp_path):
    """After a rename and a reassignment the ledger is the other stream's, with members, doubts,
    plans, removals, timestamp and seal; the other cohorts of both streams are untouched."""
    with ledgers(tmp_path) as store:
        ledger, stays = store.open(COHORT, STREAM), store.open(cohort("stays"), STREAM)
        there = store.open(cohort("there"), OTHER_STREAM)
        for each in (stays, there):
            accept(each, ADD, members(1))
        accept(ledger, ADD, members(1, 2), 77)
        accept(ledger, REMOVE, members(2))
        ledger.answered(send(ledger, ADD, members(3)), RequestState.UNANSWERED)
        keep(store, ledger, PLAN, members(3))
        ledger.seal()
        before, revision = ledger.numbers(), ledger.revision
        ledger.rename("Gold")
        store.reassign(COHORT.cohort_id, OTHER_STREAM)
        moved = store.open_known(COHORT.cohort_id)
        assert moved.stream is there.stream
        assert moved.revision > revision
        assert (before, 77) == (moved.numbers(), moved.last_timestamp)
        accept(moved, ADD, members(4))
    with ledgers(tmp_path) as store:
        assert ["stays", "there", "vips"] == [entry.cohort_id for entry in store.entries()]
        moved = store.open(msgspec.structs.replace(COHORT, name="Gold"), OTHER_STREAM)
        assert ["1", "3", "4"] == uids(moved.members())
        assert {"3": ADD} == doubted(moved)
        assert REMOVE is known(moved, members(2))["2"].action
        assert [PLAN] == moved.plans()
        assert members(1) == flat(moved.plan_members(PLAN.plan_id, REMOVE))
        assert (True, 77) == (moved.is_sealed, moved.last_timestamp)
        for name, stream in (("stays", STREAM), ("there", OTHER_STREAM)):
            assert members(1) == flat(store.open(cohort(name), stream).members())
        with pytest.raises(SettingsError) as raised:
            store.open(msgspec.structs.replace(COHORT, name="Gold"), STREAM)
        assert "cohort_of_other_stream" == raised.value.code


def test_forgetting_leaves_no_byte(tmp_path):
    """After `forget` and the end of the run no file of the directory has an identifier of the
    members, whichever cohorts had them; others stay."""
    person = Member("forget-uid", "forget-anonymous")
    with ledgers(tmp_path) as store:
        ledger, other = store.open(COHORT, STREAM), store.open(cohort("other"), STREAM)
        without = store.open(cohort("without"), STREAM)
        accept(without, ADD, members(1))
        accept(other, ADD, [*members(1), Member("forget-uid-2")])
        accept(ledger, ADD, [*members(*range(500)), person, Member(None, "forget-anonymous")])
        accept(ledger, REMOVE, [Member("forget-uid-2")])
        unsure = [Member("forget-uid-3", "forget-anonymous"), Member("501")]
        ledger.answered(send(ledger, ADD, unsure), RequestState.UNANSWERED)
        keep(store, ledger, PLAN, members(*range(499)))
        had = ledger.stream.forget([person, Member("forget-uid-2")])
        assert {ledger.number, other.number} == had
        assert (500, 1) == (ledger.numbers().accepted.count, ledger.numbers().in_doubt)
        assert {} == known(ledger, [person, Member("forget-uid-2"), Member("forget-uid-3")])
        assert ["499", "501"] == uids(ledger.plan_members(PLAN.plan_id, REMOVE))
        accept(ledger, ADD, members(600))
        store.close()
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"forget" not in path.read_bytes(), path.name
    with ledgers(tmp_path) as store:
        assert 501 == store.open(COHORT, STREAM).numbers().accepted.count
        assert members(1) == flat(store.open(cohort("other"), STREAM).members())
        assert set() == store.open(COHORT, STREAM).stream.forget([person])


def test_threads_use_ledgers_at_the_same_time(store):
    """Threads that deliver to a cohort each, while another one creates cohorts, looks up and folds,
    lose nothing."""
    opened = [store.open(cohort(f"c{i}"), (STREAM, OTHER_STREAM)[i % 2]) for i in range(6)]
    failures = []

    def deliver(ledger):
        try:
            for turn in range(30):
                accept(ledger, ADD, members(*range(turn * 5, turn * 5 + 5)))
        except Exception as error:  # noqa: BLE001 - for the test to see
            failures.append(error)

    threads = [threading.Thread(target=deliver, args=(each,), daemon=True) for each in opened]
    for thread in threads:
        thread.start()
    created = 0
    while any(thread.is_alive() for thread in threads):
        for ledger in opened:
            known(ledger, members(1, 1001))
            ledger.stream.fold()
            for _ in range(20):
                store.open(cohort(f"new-{created}"), STREAM)
                created += 1
    for thread in threads:
        thread.join(timeout=60)
    assert [] == failures
    assert [150] * 6 == [ledger.numbers().accepted.count for ledger in opened]
    assert {0} == {ledger.numbers().in_doubt for ledger in opened}


def test_after_an_error_of_control_nothing_more_is_recorded(store, ledger):
    """An error of control makes all ledgers unusable, and its message has no identifier."""
    accept(ledger, ADD, members(1))
    control = store._control.database  # noqa: SLF001 - to break it
    with control.change("test") as transaction:
        transaction.run("ALTER TABLE requests RENAME COLUMN members TO secret_uid")
    with pytest.raises(LedgerError) as raised:
        send(ledger, ADD, [Member("secret-uid")])
    assert "ledger_unusable" == raised.value.code
    assert "secret" not in str(raised.value)
    assert store.place in str(raised.value)
    for call in (
        lambda: send(ledger, ADD, members(2)),
        lambda: ledger.answered(1, RequestState.ACCEPTED),
        store.entries,
    ):
        with pytest.raises(LedgerError) as again:
            call()
        assert again.value.code in {"ledger_unusable", "unknown_request"}
    with pytest.raises(LedgerError):
        store.close()


def test_after_an_error_of_the_members_nothing_more_is_folded(ledger):
    """An error of the members' engine makes the stream unusable, and its message has no identifier;
    until it is closed."""
    accept(ledger, ADD, members("secret-1"))
    ledger.stream.fold()
    accept(ledger, ADD, members("secret-2"))
    table = ledger.stream.table
    with table.using() as cursor:
        cursor.execute(f"ALTER TABLE {table.schema}.removed RENAME COLUMN h TO secret_h")
    with pytest.raises(LedgerError) as raised:
        ledger.numbers()
    assert "ledger_unusable" == raised.value.code
    assert "secret-" not in str(raised.value)
    for call in (ledger.numbers, ledger.members, lambda: known(ledger, members(1))):
        with pytest.raises(LedgerError) as again:
            call()
        assert str(raised.value) == str(again.value)


FULL = """
import json, os, resource, sys
from pathlib import Path
from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.records import RequestState
from tests.ledger.support import ADD, COHORT, STREAM, ledgers, members, send
store = ledgers(Path(sys.argv[1]))
ledger = store.open(COHORT, STREAM)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
told = {"sent": 0, "accepted": 0, "error": None, "code": None}
try:
    while True:
        whom = members(*range(told["sent"] * 500, told["sent"] * 500 + 500))
        number = send(ledger, ADD, whom)
        told["sent"] += 1
        ledger.answered(number, RequestState.ACCEPTED)
        told["accepted"] += 1
        if told["accepted"] % 20 == 0:
            ledger.stream.fold()
except LedgerError as error:
    told["error"], told["code"] = str(error), error.code
try:
    send(ledger, ADD, members("x"))
except LedgerError as error:
    told["after"] = str(error)
print(json.dumps(told), flush=True)
if sys.argv[3] == "closes":
    try:
        store.close()
    except LedgerError:
        pass
os._exit(0)
"""


@pytest.mark.parametrize("limit", [20_000, 100_000, 400_000, 900_000])
@pytest.mark.parametrize("end", ["closes", "dies"])
@pytest.mark.files
def test_a_full_disk_loses_nothing_acknowledged(tmp_path, limit, end):
    """On a full disk the ledger fails permanently; with free space again it opens and has all that
    was accepted, and at most one request more, the one that failed to be recorded."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit), end],
        check=True,
        timeout=120,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    assert "ledger_unusable" == result["code"]
    assert result["after"]
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        numbers = ledger.numbers()
        assert numbers.accepted.count in {500 * result["accepted"], 500 * result["sent"]}
        assert 500 * result["sent"] <= numbers.base <= 500 * (result["sent"] + 1)
        accept(ledger, ADD, members("later"))
        ledger.stream.fold()
        assert ADD is known(ledger, members("later"))["later"].action


@pytest.mark.files
def test_reading_is_refused_while_another_engine_writes(tmp_path):
    """Another process that has the members' file open causes an error, not a crash."""
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
    (database,) = place_of(tmp_path).glob("*.duckdb")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); "
    holder = process(f"{hold}sys.stdin.read()", database)
    try:
        assert "1\n" == holder.stdout.readline()
        with ledgers(tmp_path) as store, pytest.raises(LedgerError) as raised:
            store.open(COHORT, STREAM)
        assert "ledger_unusable" == raised.value.code
    finally:
        holder.kill()
        holder.communicate()
    assert duckdb.connect(str(database)).execute("SELECT 1 FROM meta").fetchall()


def test_a_fold_in_steps_is_exact(store, ledger, monkeypatch):
    """If a fold takes several steps, between which checkpoints move the rows of the file, no member
    is lost, doubled or mistaken for another, of any cohort."""
    monkeypatch.setattr(folding, "FOLDED_ROWS", 60_000)  # groups of DuckDB's rows go whole
    monkeypatch.setattr(members_module, "DELETED_ROWS", 130_000)
    before, new = members(*range(500_000)), members(*range(500_000, 600_000))
    other = store.open(cohort("other"), STREAM)
    other.adopt([before[:1_000]])
    ledger.adopt([before])
    gone, left = before[:200_000:2], [*before[1:200_000:2], *before[200_000:]]
    for start in range(0, 100_000, 10_000):
        accept(ledger, REMOVE, gone[start : start + 10_000])
        accept(ledger, ADD, new[start : start + 10_000])
    ledger.stream.fold()
    expected = store.open(cohort("expected"), "another")
    expected.adopt([left, new])
    assert expected.numbers().accepted == ledger.numbers().accepted
    assert 1_000 == other.numbers().accepted.count
    assert {*left, *new} == {*flat(ledger.members())}


def test_a_fold_that_deletes_in_advance_counts_all(tmp_path, monkeypatch):
    """If more rows are replaced than one deletion may have, and a fold ends between that and its
    own change, the numbers of the cohort are right, then and later."""
    monkeypatch.setattr(folding, "FOLDED_ROWS", 2)
    monkeypatch.setattr(members_module, "DELETED_ROWS", 2)
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1, 2, 3, 4))

    def step(name):
        if name == "fold: before commit":
            raise LedgerError("planted", "planted")

    store = ledgers(tmp_path, step=step)
    ledger = store.open(COHORT, STREAM)
    paired = [Member(str(number), "a") for number in range(1, 4)]
    accept(ledger, ADD, paired)
    with pytest.raises(LedgerError):
        ledger.stream.fold()
    with contextlib.suppress(LedgerError):
        store.close()
    for _ in range(2):
        with ledgers(tmp_path) as store:
            ledger = store.open(COHORT, STREAM)
            assert 4 == ledger.numbers().accepted.count
            assert {*paired, Member("4")} == {*flat(ledger.members())}
            accept(ledger, ADD, paired)


@pytest.mark.parametrize("place", ["sent: before commit", "fold: before commit"])
def test_a_ledger_that_has_failed_raises_a_new_error_each_time(tmp_path, place):
    """After an error every use fails with the same code, and no error grows by the traceback or the
    context of another one; the store can be closed."""

    def step(name):
        if name == place:
            raise LedgerError("planted", "planted")

    store = ledgers(tmp_path, step=step)
    ledger = store.open(COHORT, STREAM)

    def use():
        accept(ledger, ADD, members(1))
        ledger.stream.fold()

    errors = []
    for _ in range(4):
        with pytest.raises(LedgerError) as raised:
            use()
        errors.append(raised.value)
    with contextlib.suppress(LedgerError):  # the same again
        store.close()
    assert ["planted"] * 4 == [error.code for error in errors]
    assert 4 == len({*map(id, errors)})
    assert [None] * 3 == [error.__context__ for error in errors[1:]]
    assert 1 == len({len(traceback.extract_tb(error.__traceback__)) for error in errors[1:]})
