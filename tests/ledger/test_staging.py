from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.duckdb import comparison, staging
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import MemberSet
from target_moengage_cohort.settings import load

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}
ADD, REMOVE = Action.ADD, Action.REMOVE
EMPTY = MemberSet(0, "0" * 32)

_numbers = itertools.count(1)


@pytest.fixture
def ledgers(tmp_path):
    loaded = load(BASE | {"ledger_uri": str(tmp_path / "ledger")})
    with open_store(loaded.settings, run_id="r1", wait=lambda _seconds: False) as opened:
        yield opened


@pytest.fixture
def ledger(ledgers):
    return new_ledger(ledgers)


def new_ledger(ledgers):
    cohort_id = f"c{next(_numbers)}"
    return ledgers.open(Cohort(cohort_id, cohort_id), "s")


def uids(*names):
    return [Member(name) for name in names]


def deliver(ledger, action, members):
    if members:
        ledger.accepted(ledger.sent(action, members, 1))


def stage(ledgers, *rows):
    """Stage rows of cohort 0, each a uid, a `Member`, or a list for an absent member."""
    staged = ledgers.staging()
    members = [row[0] if isinstance(row, list) else row for row in rows]
    members = [Member(member) if isinstance(member, str) else member for member in members]
    staged.append(
        None,
        [member.uid for member in members],
        [member.anonymous_id for member in members],
        [not isinstance(row, list) for row in rows],
    )
    return staged


def contents(difference):
    """Return everything that a difference yields."""
    return SimpleNamespace(
        additions=[member for chunk in difference.additions() for member in chunk],
        removals={member for chunk in difference.removals() for member in chunk},
        dropped={member for chunk in difference.dropped() for member in chunk},
    )


# Differences against a plain model

IDENTIFIERS = st.sampled_from(["a", "b", "ä", "\x1f", "'", '"', "a\n\x00", "😀", "None"])
MEMBERS = st.one_of(
    st.builds(Member, uid=IDENTIFIERS),
    st.builds(Member, anonymous_id=IDENTIFIERS),
    st.builds(Member, uid=IDENTIFIERS, anonymous_id=IDENTIFIERS),
)
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["adopt", "accepted", "refused", "unanswered", "fold", "doubt_all"]),
        st.sampled_from(Action),
        st.lists(MEMBERS, max_size=6),
    ),
    max_size=5,
)
ROWS = st.lists(
    st.tuples(st.integers(0, 1), MEMBERS, st.sampled_from([True, True, True, False])), max_size=14
)


class Model:
    """A cohort's ledger and its differences in plain Python."""

    def __init__(self):
        self.accepted, self.doubts = {}, {}

    def do(self, ledger, deed, action, members):
        members = list({member.key: member for member in members}.values())
        if deed == "fold":
            ledger.fold()
        elif deed == "doubt_all":
            ledger.doubt_all()
            self.doubts = self.accepted | self.doubts
        elif deed == "adopt":
            ledger.adopt([members])
            self.settle(ADD, members)
        elif members:
            number = ledger.sent(action, members, 1)
            if deed == "refused":
                ledger.refused(number)
            elif deed == "accepted":
                ledger.accepted(number)
                self.settle(action, members)
            else:
                self.doubts |= {member.key: member for member in members}

    def settle(self, action, members):
        for member in members:
            self.doubts.pop(member.key, None)
            self.accepted.pop(member.key, None)
            if action is ADD:
                self.accepted[member.key] = member

    def expected(self, rows, *, keeps):
        last = {}
        for member, present in rows:
            last.pop(member.key, None)
            last[member.key] = (member, present)
        desired = {key: member for key, (member, present) in last.items() if present}
        additions = [
            member
            for key, member in desired.items()
            if key in self.doubts
            or key not in self.accepted
            or self.accepted[key].anonymous_id != member.anonymous_id
        ]
        linked = {(member.anonymous_id,) for member in desired.values() if member.uid is not None}
        held = {member.anonymous_id for member, there in rows if there and member.key in desired}
        base = self.doubts | self.accepted
        gone = {} if keeps else {key: base[key] for key in base if key not in desired}
        return SimpleNamespace(
            desired=desired,
            additions=additions,
            removals={
                Member(member.uid) if member.uid and member.anonymous_id in held else member
                for key, member in gone.items()
                if key not in linked
            },
            dropped={member for key, member in gone.items() if key in linked},
            base=base,
        )


def fill(ledgers, cuts, rows, *, plain):
    """Stage rows in chunks that end at the cuts; plain: leave out columns without information."""
    staged = ledgers.staging()
    for first, end in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        chunk = rows[first:end]
        cohorts = [number for number, _, _ in chunk]
        members = [member for _, member, _ in chunk]
        present = [is_present for _, _, is_present in chunk]
        anonymous_ids = [member.anonymous_id for member in members]
        staged.append(
            None if plain and not any(cohorts) else cohorts,
            [member.uid for member in members],
            None if plain and anonymous_ids.count(None) == len(members) else anonymous_ids,
            None if plain and all(present) else present,
        )
    return staged


@settings(max_examples=40)
@given(
    histories=st.tuples(DEEDS, DEEDS),
    rows=ROWS,
    cuts=st.lists(st.integers(0, 14), max_size=2),
    plain=st.booleans(),
    keeps=st.booleans(),
    clusters=st.booleans(),
)
@example(
    histories=([("unanswered", ADD, [Member(anonymous_id="a")])], []),
    rows=[(0, Member("b", "a"), True)],
    cuts=[],
    plain=False,
    keeps=False,
    clusters=False,
)
@example(
    histories=([("adopt", ADD, [Member(anonymous_id="a")])], []),
    rows=[(0, Member("b", "a"), True), (0, Member("b"), True)],
    cuts=[],
    plain=False,
    keeps=False,
    clusters=False,
)
def test_a_difference_is_that_of_a_plain_model(
    ledgers, monkeypatch, histories, rows, cuts, plain, keeps, clusters
):
    """Additions, removals, dropped members, numbers and digests are those of a plain model, and
    once they are applied nothing differs.
    """
    monkeypatch.setattr(staging, "_WORTH_CLUSTERING", 0 if clusters else 10**9)
    monkeypatch.setattr(comparison, "_SLICE", 3)
    monkeypatch.setattr(comparison, "_JOINED", 2)
    staged = fill(ledgers, [min(cut, len(rows)) for cut in cuts], rows, plain=plain)
    assert len(rows) == staged.rows
    for cohort, history in enumerate(histories):
        ledger, model = new_ledger(ledgers), Model()
        for deed, action, members in history:
            model.do(ledger, deed, action, members)
        own = [(member, present) for number, member, present in rows if number == cohort]
        expected = model.expected(own, keeps=keeps)

        difference = staged.difference(ledger, cohort, keeps=keeps)

        found, differs = contents(difference), difference.differs
        assert expected.additions == found.additions
        assert expected.removals == found.removals
        assert expected.dropped == found.dropped
        assert differs.desired.count == len(expected.desired)
        assert differs.accepted.count == len(model.accepted)
        assert differs.in_doubt == len(model.doubts)
        assert differs.base == len(expected.base)
        assert differs.additions == len(expected.additions)
        assert differs.removals == len(expected.removals)
        assert differs.dropped == len(expected.dropped)
        assert differs.unchanged == len(expected.desired) - len(expected.additions)
        assert (expected.desired.keys() == model.accepted.keys()) is (
            differs.desired.digest == differs.accepted.digest
        )
        # As the next run finds it: unanswered requests are no longer pending.
        ledger.close()
        ledger = ledgers.open(Cohort(ledger.entry.cohort_id, ledger.entry.name), "s")
        check_applied(staged, ledger, cohort, difference, keeps=keeps)
        ledger.close()
    staged.close()


def check_applied(staged, ledger, cohort, difference, *, keeps):
    for chunk in difference.additions():
        deliver(ledger, ADD, chunk)
    for chunk in difference.removals():
        deliver(ledger, REMOVE, chunk)
    ledger.drop_linked(difference)
    after = staged.difference(ledger, cohort, keeps=keeps).differs
    assert (0, 0, 0) == (after.additions, after.removals, after.dropped)
    assert difference.differs.desired == after.desired
    assert keeps or difference.differs.desired == after.accepted == ledger.numbers().accepted


# What is staged


def test_an_empty_snapshot_removes_every_member(ledgers, ledger):
    """A snapshot without rows empties its cohort."""
    ledger.adopt([uids("a", "b")])
    difference = ledgers.staging().difference(ledger, 0)
    assert set(uids("a", "b")) == contents(difference).removals
    assert EMPTY == difference.differs.desired


def test_a_cohort_that_vanished_from_the_rows_is_emptied(ledgers, ledger):
    """A cohort without rows is emptied, although another cohort has rows."""
    ledger.adopt([uids("a")])
    difference = stage(ledgers, "a").difference(ledger, 7)
    assert set(uids("a")) == contents(difference).removals


def test_an_empty_ledger_adds_every_member_once_in_stream_order(ledgers, ledger):
    """Without accepted members every key is added, in the order of its last row."""
    found = contents(stage(ledgers, "b", "a", "b", "c").difference(ledger, 0))
    assert uids("a", "b", "c") == found.additions


def test_keeping_removes_no_members(ledgers, ledger):
    """A one_time stream removes and drops no members, but its numbers are of the snapshot."""
    ledger.adopt([[*uids("gone"), Member(anonymous_id="x")]])
    differs = stage(ledgers, Member("a", "x")).difference(ledger, 0, keeps=True).differs
    assert (1, 0, 0) == (differs.additions, differs.removals, differs.dropped)
    assert 1 == differs.desired.count


def test_any_text_is_an_identifier(ledgers, ledger):
    """Identifiers with any characters come back unchanged."""
    texts = ["\x1f", "\x00", "a\x00b", "'", '"', "\\", "\\u0041", "\n\r", " x ", "null", "[]", "😀"]
    found = contents(stage(ledgers, *texts).difference(ledger, 0))
    assert uids(*texts) == found.additions


def test_the_two_name_spaces_are_apart(ledgers, ledger):
    """A uid and an anonymous id with the same text are two members."""
    ledger.adopt([uids("a")])
    difference = stage(ledgers, "a", Member(anonymous_id="a")).difference(ledger, 0)
    assert [Member(anonymous_id="a")] == contents(difference).additions


def test_a_snapshot_without_anonymous_ids_takes_them_back(ledgers, ledger):
    """A member that was accepted with an anonymous id and has none now is added again."""
    ledger.adopt([[Member("a", "x"), Member("b")]])
    assert uids("a") == contents(stage(ledgers, "a", "b").difference(ledger, 0)).additions


def test_an_absence_counts_whatever_follows_it(ledgers, ledger):
    """An absent row counts, although later chunks have none."""
    staged = ledgers.staging()
    staged.append(None, ["a", "a", "b"], None, [True, False, True])
    staged.append(None, ["c"], None, [True])
    staged.append(None, ["d"], None, None)
    assert uids("b", "c", "d") == contents(staged.difference(ledger, 0)).additions


def test_columns_of_different_lengths_are_refused(ledgers):
    """A chunk whose columns differ in length is refused."""
    with pytest.raises(ValueError, match="differ in length"):
        ledgers.staging().append(None, ["a", "b"], [None], None)


def test_an_error_of_the_engine_names_no_member(ledgers):
    """DuckDB's error for a row without identifiers becomes an error with the directory alone, which
    the next `append` raises."""
    staged = ledgers.staging()
    staged.append([1, 2], ["secret", None], None, None)
    with pytest.raises(LedgerError) as raised:
        staged.append([1], ["other"], None, None)
    assert "secret" not in str(raised.value)
    assert str(ledgers.folder) in str(raised.value)


def test_rows_stay_in_stream_order_beyond_the_memory_limit(ledgers, ledger):
    """The last row of a member wins even if rows were spilled to disk."""
    staged, long = ledgers.staging(), "x" * 20_000
    names = [f"u{number}" for number in range(8_000)]
    for version in "12":
        for chunk in range(0, len(names), 1_000):
            some = names[chunk : chunk + 1_000]
            staged.append(None, some, [f"{version}{name}{long}" for name in some], None)
    spilled = "SELECT count(*) FROM duckdb_temporary_files()"
    assert staged.cursor().execute(spilled).fetchone() > (0,)
    position = 0
    for chunk in staged.difference(ledger, 0).additions():
        found = [(member.uid, member.anonymous_id[: -len(long)]) for member in chunk]
        expected = names[position : position + len(chunk)]
        assert [(name, f"2{name}") for name in expected] == found
        position += len(chunk)
    assert len(names) == position


# What a difference yields


def test_members_come_in_chunks(ledgers, ledger):
    """Additions and removals come in chunks of at most 10,000, each member once."""
    before = [f"o{number}" for number in range(10_001)]
    after = [f"n{number}" for number in range(20_001)]
    ledger.adopt([uids(*before)])
    difference = stage(ledgers, *after).difference(ledger, 0)
    assert [10_000, 10_000, 1] == [len(chunk) for chunk in difference.additions()]
    assert [10_000, 1] == [len(chunk) for chunk in difference.removals()]
    found = contents(difference)
    assert uids(*after) == found.additions
    assert set(uids(*before)) == found.removals


def test_a_plan_can_be_read_while_it_is_delivered(ledgers, ledger):
    """A difference stays complete while another thread records and folds requests, and while other
    differences are computed.
    """
    before = [f"o{number}" for number in range(25_000)]
    ledger.adopt([uids(*before)])
    staged = stage(ledgers, *[f"n{number}" for number in range(25_000)])
    difference = staged.difference(ledger, 0)
    seen = []

    def send(action, members):
        deliver(ledger, action, members)
        ledger.fold()

    for action, chunks in ((ADD, difference.additions()), (REMOVE, difference.removals())):
        for chunk in chunks:
            thread = threading.Thread(target=send, args=(action, chunk))
            thread.start()
            staged.difference(new_ledger(ledgers), 0).close()
            seen += chunk
            thread.join()
    assert 50_000 == len(seen) == len(set(seen))
    assert difference.differs.desired == ledger.numbers().accepted


def test_plans_of_the_same_changes_have_the_same_digest(ledgers, ledger):
    """A digest depends on the members, their identifiers and actions, but not on their order."""
    ledger.adopt([uids("o", "p")])

    def digest(*rows, additions=True, removals=True):
        difference = stage(ledgers, *rows).difference(ledger, 0)
        return difference.digest(additions=additions, removals=removals)

    plain = digest("a", "b")
    assert plain == digest("b", "a", "b", ["c"])
    others = [
        digest("a"),
        digest("a", "b", "o"),
        digest("a", Member("b", "x")),
        digest("a", Member("b", "y")),
        digest("a", "b", additions=False),
        digest("a", "b", removals=False),
        digest("o", "p"),
    ]
    assert len({plain, *others}) == 1 + len(others)


def test_an_addition_and_a_removal_of_one_member_differ(ledgers, ledger):
    """The addition of a member has another digest than its removal."""
    added = stage(ledgers, "a").difference(ledger, 0).digest(additions=True, removals=True)
    ledger.adopt([uids("a")])
    removed = ledgers.staging().difference(ledger, 0).digest(additions=True, removals=True)
    assert added != removed
    assert EMPTY.digest not in {added, removed}


def test_closing_gives_the_memory_back(ledgers, ledger):
    """A closed difference and a closed staging leave no tables."""
    staged = stage(ledgers, "a", ["a"], Member("b", "x"))
    ledger.adopt([[Member(anonymous_id="x")]])
    tables = "SELECT table_name FROM duckdb_tables() WHERE database_name LIKE 'staging%'"
    difference = staged.difference(ledger, 0)
    difference.close()
    assert [("staged",)] == staged.cursor().execute(tables).fetchall()
    staged.close()
    assert [] == staged.cursor().execute(tables).fetchall()


def test_rows_on_their_way_do_not_keep_the_ledgers_from_closing(tmp_path):
    """A store that closes while rows are being inserted waits for them, and leaves no spill."""
    for attempt in range(5):
        loaded = load(BASE | {"ledger_uri": str(tmp_path / str(attempt))})
        with open_store(loaded.settings, run_id="r1", wait=lambda _seconds: False) as opened:
            staged = opened.staging()
            staged.append(None, [f"u{number}" for number in range(50_000)], None, None)
            folder = opened.folder
        assert [] == list(folder.glob("spill-*"))
