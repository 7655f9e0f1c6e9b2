"""A ledger in use: its records and its failures."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import msgspec
import pytest

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.membership import Cohort, Member
from target_moengage_cohort.ledger.duckdb import journal
from target_moengage_cohort.ledger.records import Expected, PlanKind, RunEntry
from tests.ledger.story import PLAN
from tests.ledger.support import (
    ADD,
    COHORT,
    REMOVE,
    STREAM,
    Changes,
    flat,
    ledgers,
    members,
    state_of,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def room(tmp_path):
    with ledgers(tmp_path) as room:
        yield room


@pytest.fixture
def ledger(room):
    return room.open(COHORT, STREAM)


def accept(ledger, action, whom, timestamp=1):
    ledger.accepted(ledger.sent(action, whom, timestamp))


def uids(chunks):
    return sorted(member.uid or f"({member.anonymous_id})" for member in flat(chunks))


def test_timestamps_and_revisions_last(tmp_path):
    """The next run has the latest timestamp and the revision, whatever the responses were."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        assert ledger.created
        accept(ledger, ADD, members(1), 50)
        ledger.refused(ledger.sent(ADD, members(2), 70))
        ledger.sent(ADD, members(3), 60)
        revision = ledger.revision
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        assert (False, 70, revision) == (ledger.created, ledger.last_timestamp, ledger.revision)
        assert room.open(COHORT, STREAM) is ledger


def test_queued_changes_win(ledger):
    """A member's last queued change is what is expected, whatever was accepted before."""
    accept(ledger, ADD, [*members(1, 2), Member("3", "a")])
    ledger.fold()
    ledger.queued([(REMOVE, Member("1")), (ADD, Member("9")), (REMOVE, Member("9", "x"))])
    ledger.queued([(ADD, Member("1", "new")), (ADD, Member(None, "1"))])
    assert {
        "1": Expected(ADD, Member("1", "new")),
        "2": Expected(ADD, Member("2")),
        "3": Expected(ADD, Member("3", "a")),
        "9": Expected(REMOVE, Member("9", "x")),
        ("1",): Expected(ADD, Member(None, "1")),
    } == ledger.known([*members(1, 2, 3, 4, 9), Member(None, "1")])
    assert {} == ledger.known([])


def test_doubts_of_earlier_runs_are_those_not_queued_since(tmp_path):
    """Unconfirmed changes of earlier runs are listed unless this run has queued a newer one."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        accept(ledger, ADD, members(0, 2))
        ledger.sent(ADD, members(1, 3), 1)
        ledger.sent(REMOVE, members(2), 1)
        assert [] == flat(ledger.doubts())
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        ledger.queued([(ADD, Member("3")), (ADD, Member("5"))])
        ledger.sent(ADD, members(5), 2)
        chunks = ledger.doubts()
        accept(ledger, ADD, members(1))
        ledger.fold()
        expected = {("1", ADD), ("2", REMOVE)}
        assert expected == {(member.uid, action) for action, member in flat(chunks)}


def test_plans_are_kept_with_their_members(tmp_path):
    """The next run has the plans of both kinds; they can be renewed, withheld and dropped."""
    other = msgspec.structs.replace(PLAN, plan_id="plan-0", kind=PlanKind.WITHHELD, made_at=0.5)
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        ledger.keep(PLAN, Changes(members(1), members(2, 3)), additions=False, removals=True)
        ledger.keep(PLAN, Changes(members(1), members(4, 3)), additions=False, removals=True)
        ledger.keep(other, Changes(members(5), members(6)), additions=True, removals=False)
        accept(ledger, ADD, members(9))
        ledger.renew_plan(PLAN.plan_id)
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        renewed = msgspec.structs.replace(PLAN, revision=ledger.revision)
        assert [other, renewed] == ledger.plans()
        assert ["4", "3"] == [m.uid for m in flat(ledger.plan_members(PLAN.plan_id, REMOVE))]
        assert [] == flat(ledger.plan_members(PLAN.plan_id, ADD))
        assert members(5) == flat(ledger.plan_members("plan-0", ADD))
        ledger.drop_plans(PlanKind.WITHHELD)
        ledger.withhold_plan(PLAN.plan_id)
        assert [PlanKind.WITHHELD] == [plan.kind for plan in ledger.plans()]
        assert [] == flat(ledger.plan_members("plan-0", ADD))
        ledger.drop_plans(plan_id=PLAN.plan_id)
        assert [] == ledger.plans()


def test_members_are_those_accepted_or_in_doubt(ledger):
    """Each member is listed once, and found by either identifier."""
    accept(ledger, ADD, [Member("1", "a"), *members(2, 3), Member(None, "b")])
    accept(ledger, REMOVE, members(3))
    ledger.sent(ADD, [Member("4", "d"), Member("2")], 1)
    assert ["(b)", "1", "2", "4"] == uids(ledger.members())
    asked = [Member("9", "a"), Member("4"), Member("3"), Member(None, "b"), Member("d", "2")]
    assert {Member("1", "a"), Member("4", "d"), Member(None, "b")} == set(ledger.find(asked))


def test_a_resync_makes_every_member_unconfirmed(ledger):
    """A resync marks all accepted members as unconfirmed, and keeps newer unconfirmed changes."""
    accept(ledger, ADD, members(1, 2))
    ledger.sent(REMOVE, members(2), 1)
    revision = ledger.revision
    assert 2 == ledger.doubt_all()
    assert ledger.revision > revision
    assert not ledger.entry.is_settled
    state = state_of(ledger)
    assert {"1", "2"} == state.accepted.keys()
    assert {"1": ADD, "2": REMOVE} == {key: action for key, (action, _) in state.doubts.items()}


def test_adopted_members_are_accepted(ledger):
    """Adopted members are accepted and confirmed without a request; new ones are counted."""
    accept(ledger, ADD, members(1, 2))
    accept(ledger, REMOVE, members(2))
    ledger.sent(ADD, members(3), 1)
    revision = ledger.revision
    chunks = [[Member("1", "a"), *members(2)], [Member("3", "x"), Member("3", "y"), Member("4")]]
    assert 3 == ledger.adopt(iter(chunks))
    state = state_of(ledger)
    assert {"1": "a", "2": None, "3": "y", "4": None} == {
        key: member.anonymous_id for key, member in state.accepted.items()
    }
    assert ({}, set()) == (state.doubts, state.removed)
    assert ledger.entry.is_settled
    assert ledger.revision > revision


def test_linked_members_are_dropped_without_a_removal(tmp_path):
    """Members that a difference drops are deleted, accepted or not, and plans stay valid."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        accept(ledger, ADD, [Member(None, "a"), Member("a"), Member(None, "b")])
        ledger.sent(ADD, [Member(None, "a"), Member(None, "c")], 1)
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        revision = ledger.revision
        ledger.drop_linked(Changes(to_drop=[Member(None, "a"), Member(None, "c")]))
        assert ["(b)", "a"] == uids(ledger.members())
        assert ledger.entry.is_settled
        assert revision == ledger.revision


def test_removals_do_not_pile_up_in_a_mirror(ledger):
    """Accepted removals can be deleted; members stay as they are."""
    accept(ledger, ADD, members(1, 2))
    accept(ledger, REMOVE, members(2))
    ledger.fold()
    ledger.clear_removed()
    assert {"1"} == ledger.known(members(1, 2)).keys()


def test_a_seal_lasts(tmp_path):
    """A sealed cohort is still sealed in the next run."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        assert not ledger.is_sealed
        ledger.seal()
        assert ledger.is_sealed
    with ledgers(tmp_path, read_only=True) as room:
        assert room.open(COHORT, STREAM).is_sealed


def test_the_newest_runs_are_kept(tmp_path):
    """The history has the last hundred runs, the newest first."""

    def entry(number):
        return RunEntry(
            run_id=f"run-{number}",
            started_at="",
            finished_at="",
            status="succeeded",
            sync_mode="mirror",
            complete="count",
            records=number,
            added=1,
            removed=0,
        )

    with ledgers(tmp_path) as room:
        for number in range(103):
            room.open(COHORT, STREAM).note_run(entry(number))
    with ledgers(tmp_path, read_only=True) as room:
        assert [entry(number) for number in range(102, 2, -1)] == room.open(COHORT, STREAM).runs()


def test_a_renamed_and_reassigned_ledger_opens_by_its_new_names(tmp_path):
    """After a rename and a reassignment the ledger is the other stream's, with its members."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        revision = ledger.revision
        ledger.rename("Gold")
        ledger.reassign("gold_users")
        assert ledger.revision > revision
        assert ["Gold"] == [entry.name for entry in room.entries()]
    with ledgers(tmp_path) as room:
        ledger = room.open(Cohort(COHORT.cohort_id, "Gold"), "gold_users")
        assert 1 == ledger.numbers().accepted.count


def test_forgetting_leaves_no_byte(tmp_path):
    """After `forget` no file of the directory has either identifier of the member."""
    person = Member("forget-uid", "forget-anonymous")
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        accept(ledger, ADD, [*members(*range(500)), person, Member(None, "forget-anonymous")])
        accept(ledger, REMOVE, [Member("forget-uid-2")])
        ledger.fold()
        ledger.sent(ADD, [Member("forget-uid-3", "forget-anonymous"), Member("501")], 1)
        ledger.keep(PLAN, Changes([], [*members(2), person]), additions=False, removals=True)
        ledger.forget([person, Member("forget-uid-2")])
        assert (500, 1) == (ledger.numbers().accepted.count, ledger.numbers().in_doubt)
        assert {} == ledger.known([person, Member("forget-uid-2"), Member("forget-uid-3")])
        assert members(2) == flat(ledger.plan_members(PLAN.plan_id, REMOVE))
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"forget" not in path.read_bytes(), path.name
        accept(ledger, ADD, members(600))
    with ledgers(tmp_path) as room:
        assert 501 == room.open(COHORT, STREAM).numbers().accepted.count


def test_threads_use_ledgers_at_the_same_time(room):
    """Threads that deliver to several cohorts while another one reads lose nothing."""
    opened = [room.open(Cohort(f"c{i}", f"C{i}"), STREAM) for i in range(3)]
    failures = []

    def deliver(ledger, first):
        try:
            for turn in range(8):
                accept(ledger, ADD, members(*range(first + turn * 10, first + turn * 10 + 10)))
        except Exception as error:  # noqa: BLE001 - for the test to see
            failures.append(error)

    threads = [
        threading.Thread(target=deliver, args=(ledger, first))
        for ledger in opened
        for first in (0, 1000)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for ledger in opened:
            ledger.known(members(1, 1001))
            ledger.numbers()
    for thread in threads:
        thread.join()
    assert [] == failures
    assert [160] * 3 == [ledger.numbers().accepted.count for ledger in opened]


def test_after_an_error_a_ledger_does_nothing_more(room, ledger):
    """An error of the engine makes the ledger unusable, and its message has no identifier."""
    accept(ledger, ADD, members(1))
    ledger.fold()
    with ledger.tables() as (cursor, schema):
        cursor.execute(f"ALTER TABLE {schema}.journal ADD COLUMN secret_uid VARCHAR")
    with pytest.raises(LedgerError) as raised:
        ledger.sent(ADD, [Member("secret-uid")], 1)
    assert "ledger_unusable" == raised.value.code
    assert "secret" not in str(raised.value)
    assert str(room.folder) in str(raised.value)
    for call in (ledger.fold, ledger.numbers, ledger.plans, lambda: ledger.accepted(1)):
        with pytest.raises(LedgerError) as again:
            call()
        assert str(raised.value) == str(again.value)
    ledger.close()
    with pytest.raises(LedgerError):
        ledger.fold()


def test_an_answer_to_an_unknown_request_is_an_error(ledger):
    """A request that is not pending cannot be answered."""
    number = ledger.sent(ADD, members(1), 1)
    ledger.accepted(number)
    with pytest.raises(LedgerError) as raised:
        ledger.refused(number)
    assert "unknown_request" == raised.value.code


FULL = """
import json, os, resource, sys
from pathlib import Path
from target_moengage_cohort.core.errors import LedgerError
from tests.ledger.support import ADD, COHORT, STREAM, ledgers, members
room = ledgers(Path(sys.argv[1]))
ledger = room.open(COHORT, STREAM)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
told = {"sent": 0, "accepted": 0, "error": None, "code": None}
try:
    while True:
        whom = members(*range(told["sent"] * 500, told["sent"] * 500 + 500))
        number = ledger.sent(ADD, whom, 1)
        told["sent"] += 1
        ledger.accepted(number)
        told["accepted"] += 1
        if told["accepted"] % 20 == 0:
            ledger.fold()
except LedgerError as error:
    told["error"], told["code"] = str(error), error.code
try:
    ledger.sent(ADD, members("x"), 1)
except LedgerError as error:
    told["after"] = str(error)
print(json.dumps(told), flush=True)
if sys.argv[3] == "closes":
    try:
        room.close()
    except LedgerError:
        pass
os._exit(0)
"""


@pytest.mark.parametrize("limit", [20_000, 100_000, 400_000, 900_000])
@pytest.mark.parametrize("end", ["closes", "dies"])
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
    assert result["error"] == result["after"]
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        numbers = ledger.numbers()
        assert numbers.accepted.count in {500 * result["accepted"], 500 * result["sent"]}
        assert 500 * result["sent"] <= numbers.base <= 500 * (result["sent"] + 1)
        accept(ledger, ADD, members("later"))
        assert ADD is ledger.known(members("later"))["later"].action


def test_reading_is_refused_while_another_engine_writes(tmp_path):
    """Another process that has the database file open causes an error, not a crash."""
    with ledgers(tmp_path) as room:
        room.open(COHORT, STREAM)
        (database,) = room.folder.glob("*.duckdb")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); "
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{hold}sys.stdin.read()", str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "1\n" == holder.stdout.readline()
        with ledgers(tmp_path) as room, pytest.raises(LedgerError) as raised:
            room.open(COHORT, STREAM)
        assert "ledger_unusable" == raised.value.code
    finally:
        holder.kill()
        holder.communicate()
    assert duckdb.connect(str(database)).execute("SELECT 1 FROM meta").fetchall()


def test_a_fold_in_steps_is_exact(room, ledger, monkeypatch):
    """If a fold takes several steps, between which checkpoints move the rows of the file, no member
    is lost, doubled or mistaken for another."""
    monkeypatch.setattr(journal, "FOLDED_ROWS", 200_000)  # groups of DuckDB's rows go whole
    monkeypatch.setattr(journal, "DELETED_ROWS", 130_000)
    before, new = members(*range(1_100_000)), members(*range(1_100_000, 1_400_000))
    ledger.adopt([before])
    gone, left = before[:600_000:2], [*before[1:600_000:2], *before[600_000:]]
    for start in range(0, 300_000, 10_000):
        accept(ledger, REMOVE, gone[start : start + 10_000])
        accept(ledger, ADD, new[start : start + 10_000])
    ledger.fold()
    expected = room.open(Cohort("expected", "Expected"), "another")
    expected.adopt([left, new])
    assert expected.numbers().accepted == ledger.numbers().accepted
    with expected.tables() as (cursor, wanted), ledger.tables() as (_, found):
        rows = f"FROM {wanted}.accepted EXCEPT FROM {found}.accepted"
        assert [] == cursor.execute(rows).fetchall()
