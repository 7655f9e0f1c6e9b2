"""Snapshots of a stream's cohorts, compared with their ledgers."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings

from target_moengage_cohort.core.column_files import ColumnarRows
from target_moengage_cohort.core.errors import InputError, LedgerError
from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.duckdb import (
    comparison,
    difference,
    differing_parts,
    result_tables,
    staging,
)
from target_moengage_cohort.ledger.records import EMPTY_SET, RequestState
from tests.ledger.support import (
    ADD,
    REMOVE,
    STREAM,
    State,
    accept,
    by_cohort,
    cohort,
    desired,
    ledgers,
    members,
    send,
    stage,
    total,
)

pytestmark = pytest.mark.contract


@pytest.fixture
def store(tmp_path):
    with ledgers(tmp_path) as opened:
        yield opened


@pytest.fixture
def ledger(store):
    return store.open(cohort("c"), STREAM)


def compare(store, ledger, *whom, keeps=False):
    """Return the difference of a snapshot of one cohort."""
    staging = stage(store, desired(ledger, whom))
    return ledger.stream.difference(staging, [ledger], keeps=keeps)


def contents(found):
    """Return everything that a difference yields."""
    return SimpleNamespace(
        additions=by_cohort(found.changes("additions")),
        removals=by_cohort(found.changes("removals")),
        resent=by_cohort(found.changes("resent")),
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
COHORTS = 4  # the last one is never compared
ROWS = st.lists(
    st.tuples(st.integers(0, COHORTS - 2), MEMBERS, st.sampled_from([True, True, True, False])),
    max_size=18,
)


class Model(State):
    """A cohort's ledger and its differences in plain Python."""

    def do(self, ledger, deed, action, whom):
        whom = list({member.key: member for member in whom}.values())
        if deed == "fold":
            ledger.stream.fold()
        elif deed == "doubt_all":
            ledger.doubt_all()
            new = {k: (ADD, m) for k, m in self.accepted.items() if k not in self.doubts}
            self.doubts |= new
        elif deed == "adopt":
            ledger.adopt([whom])
            self.adopt(whom)
        elif whom:
            ledger.answered(send(ledger, action, whom), RequestState[deed.upper()])
            self.apply(action, whom, deed)

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
        base = {key: member for key, (_, member) in self.doubts.items()} | self.accepted
        gone = {} if keeps else {key: base[key] for key in base if key not in desired}
        leaving = {key: member for key, member in gone.items() if key not in linked}
        removals = {
            Member(member.uid) if member.uid and member.anonymous_id in held else member
            for member in leaving.values()
        }
        stale = {key for key, _ in self.aliases if key not in linked and key not in desired}
        removals |= {Member(None, *key) for key in ({} if keeps else stale)}
        cut_off = {uid for key, uid in self.aliases if Member(None, *key) in removals}
        cut_off &= self.accepted.keys() & desired.keys()
        shared = {(each.anonymous_id,) for each in leaving.values() if each.uid is not None}
        return SimpleNamespace(
            desired=desired,
            additions=additions,
            removals=removals,
            resent={desired[key] for key in cut_off | (shared & desired.keys())},
            leaving=len(leaving) + len(cut_off),
            linked={member.key for key, member in gone.items() if key in linked},
            base=base,
        )


def fill(store, cuts, rows, *, plain):
    """Stage rows in chunks that end at the cuts; plain: leave out columns without information."""
    staged = store.staging()
    for first, end in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        chunk = rows[first:end]
        numbers = [number for number, _, _ in chunk]
        whom = [member for _, member, _ in chunk]
        present = [is_present for _, _, is_present in chunk]
        anonymous_ids = [member.anonymous_id for member in whom]
        staged.append(
            numbers[0] if plain and len({*numbers}) == 1 else numbers,
            [member.uid for member in whom],
            None if plain and anonymous_ids.count(None) == len(whom) else anonymous_ids,
            None if plain and all(present) else present,
        )
    return staged


def check(expected, model, found, number):
    """Check the difference of one cohort."""
    counts = found.counts[number]
    everything = contents(found)
    assert expected.additions == everything.additions.get(number, [])
    removals = everything.removals.get(number, [])
    assert len(expected.removals) == len(removals)
    assert expected.removals == {*removals}
    assert counts.desired.count == len(expected.desired)
    assert counts.accepted.count == len(model.accepted)
    assert counts.in_doubt == len(model.doubts)
    assert counts.base == len(expected.base)
    assert counts.joining == len(expected.desired.keys() - expected.base.keys())
    assert counts.additions == len(expected.additions)
    assert counts.removals == len(expected.removals)
    assert counts.leaving == expected.leaving <= counts.base
    assert counts.linked == len(expected.linked)
    resent = everything.resent.get(number, [])
    assert len(expected.resent) == len(resent)
    assert expected.resent == {*resent}
    assert counts.unchanged == len(expected.desired) - len(expected.additions)
    assert (expected.desired.keys() == model.accepted.keys()) is (counts.desired == counts.accepted)


@settings(max_examples=40)
@given(
    histories=st.tuples(*[DEEDS] * COHORTS),
    rows=ROWS,
    cuts=st.lists(st.integers(0, 18), max_size=2),
    plain=st.booleans(),
    keeps=st.booleans(),
    few=st.booleans(),
)
@example(
    histories=([("unanswered", ADD, [Member(anonymous_id="a")])], [], [], []),
    rows=[(0, Member("b", "a"), True)],
    cuts=[],
    plain=False,
    keeps=False,
    few=False,
)
@example(
    histories=([], [("adopt", ADD, [Member(anonymous_id="a")])], [], []),
    rows=[(1, Member("b", "a"), True), (1, Member("b"), True), (0, Member("c", "a"), True)],
    cuts=[],
    plain=False,
    keeps=False,
    few=True,
)
@example(
    histories=([("adopt", ADD, [Member("a", "x")])], [("adopt", ADD, [Member("a", "x")])], [], []),
    rows=[(1, Member("b", "x"), True)],
    cuts=[],
    plain=True,
    keeps=False,
    few=False,
)
def test_a_difference_is_that_of_a_plain_model(
    tmp_path_factory, monkeypatch, histories, rows, cuts, plain, keeps, few
):
    """Additions, removals, numbers and digests of each cohort are those of a plain model, whether
    it is compared alone or with others; once they are applied nothing differs, and cohorts of the
    stream that are not compared stay as they are."""
    monkeypatch.setattr(result_tables, "_SLICE", 3)
    monkeypatch.setattr(comparison, "_JOINED", 2)
    monkeypatch.setattr(differing_parts, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(differing_parts, "_PART_ROWS", 1)
    monkeypatch.setattr(difference, "CHUNK", 2 if few else 10_000)
    with ledgers(tmp_path_factory.mktemp("ledger")) as store:
        opened = [store.open(cohort(f"c{i}"), STREAM) for i in range(COHORTS)]
        models = [Model() for _ in opened]
        longest = max(len(history) for history in histories)
        for turn in range(longest):  # the cohorts' requests alternate
            for ledger, model, history in zip(opened, models, histories, strict=True):
                if turn < len(history):
                    model.do(ledger, *history[turn])
        rows = [(opened[i].number, member, present) for i, member, present in rows]
        compared = opened[:-1]
        staged = fill(store, [min(cut, len(rows)) for cut in cuts], rows, plain=plain)
        assert len(rows) == staged.rows
        stream, others = opened[0].stream, opened[-1].numbers()
        found = stream.difference(staged, compared, keeps=keeps)
        assert {each.number for each in compared} == found.counts.keys()
        expected = {}
        for ledger, model in zip(compared, models, strict=False):
            own = [(member, present) for number, member, present in rows if number == ledger.number]
            expected[ledger.number] = model.expected(own, keeps=keeps)
            check(expected[ledger.number], model, found, ledger.number)
        check_alone(store, stream, compared, rows, found, keeps=keeps)
        check_applied(staged, compared, found, keeps=keeps)
        assert others == opened[-1].numbers()


def check_alone(store, stream, compared, rows, together, *, keeps):
    """Check that each cohort by itself, with nothing but its own rows, has the same difference."""
    for ledger in compared:
        staged = stage(store, [row for row in rows if row[0] == ledger.number])
        alone = stream.difference(staged, [ledger], keeps=keeps)
        assert {ledger.number: together.counts[ledger.number]} == alone.counts
        for kinds in ((True, True), (True, False), (False, True)):
            which = dict(zip(("additions", "removals"), kinds, strict=True))
            assert together.digest(ledger.number, **which) == alone.digest(ledger.number, **which)
        staged.close()


def check_applied(staged, compared, found, *, keeps):
    stream = compared[0].stream
    apply(found, compared)
    former = stream.difference(staged, compared, keeps=keeps)
    assert 0 == total(former, "additions")
    assert all(one.uid is None for some in contents(former).removals.values() for one in some)
    apply(former, compared)  # of the anonymous ids that others have replaced
    after = stream.difference(staged, compared, keeps=keeps)
    assert (0, 0, 0) == tuple(total(after, name) for name in ("additions", "removals", "linked"))
    for ledger in compared:
        same = found.counts[ledger.number].desired
        assert same == after.counts[ledger.number].desired
        assert keeps or same == ledger.numbers().accepted
        asked = members("a", "b", "None")
        known = stream.known([ledger.number] * len(asked), asked)
        assert keeps or REMOVE not in {each.action for each in known.values()}


def apply(found, compared):
    """Have a difference accepted, in the order in which it is sent."""
    ledgers = {each.number: each for each in compared}
    for changes, action in (
        (found.changes("removals"), REMOVE),
        (found.changes("resent"), ADD),
        (found.changes("additions"), ADD),
    ):
        for number, whom in changes:
            accept(ledgers[number], action, whom)
    compared[0].stream.settle(found, complete=compared)


# What is staged


def test_an_empty_snapshot_removes_every_member(store, ledger):
    """A snapshot without rows empties its cohort."""
    ledger.adopt([members("a", "b")])
    found = compare(store, ledger)
    assert {ledger.number: members("a", "b")} == contents(found).removals
    assert EMPTY_SET == found.counts[ledger.number].desired


def test_a_cohort_that_vanished_from_the_rows_is_emptied(store, ledger):
    """A cohort without rows is emptied, although another cohort has rows."""
    other = store.open(cohort("other"), STREAM)
    ledger.adopt([members("a")])
    found = ledger.stream.difference(stage(store, desired(other, "a")), [ledger, other])
    assert {ledger.number: members("a")} == contents(found).removals
    assert {other.number: members("a")} == contents(found).additions


@pytest.mark.parametrize("fewest", [1, 1_000])
@pytest.mark.parametrize("joining", [["u4"], ["u4", "u5"]])
def test_what_differs_is_found_in_whatever_part_of_the_hashes(
    store, ledger, monkeypatch, fewest, joining
):
    """Members who leave, join, move to another cohort or have a row twice are found whether the
    parts of the hashes that are the same are left out or not, also where as many rows are left."""
    monkeypatch.setattr(differing_parts, "_FEWEST_ROWS", fewest)
    monkeypatch.setattr(differing_parts, "_PART_ROWS", 2)
    other = store.open(cohort("other"), STREAM)
    names = [f"u{n}" for n in range(100)]
    ledger.adopt([members(*names)])
    other.adopt([members(*names[50:])])
    here = [name for name in names if name not in {"u3", "u4"}] + ["new", "u9"]
    rows = desired(ledger, here) + desired(other, [*names[51:], *joining])
    found = contents(ledger.stream.difference(stage(store, rows), [ledger, other]))
    added = {ledger.number: members("new"), other.number: members(*joining)}
    assert added == found.additions
    assert members("u50") == found.removals.pop(other.number)
    assert {*members("u3", "u4")} == {*found.removals.pop(ledger.number)}


@pytest.mark.parametrize("whom", ["ab", "a", "abc", "ac"])
def test_a_difference_is_announced_before_its_members_are_found(store, ledger, whom):
    """The caller is told once that members differ, and not at all if none does."""
    ledger.adopt([members("a", "b")])
    told = []
    staging = stage(store, desired(ledger, whom))
    ledger.stream.difference(staging, [ledger], on_difference=lambda: told.append("differs"))
    assert told == ([] if whom == "ab" else ["differs"])


def test_cohorts_that_are_not_compared_stay_out(store, ledger):
    """Members of a stream's cohorts that are not compared are no part of a difference."""
    other = store.open(cohort("other"), STREAM)
    ledger.adopt([members("a")])
    other.adopt([members("a", "b")])
    staging = stage(store, desired(ledger, "ac"))
    found = ledger.stream.difference(staging, [ledger])
    assert ({ledger.number: members("c")}, {}) == (
        contents(found).additions,
        contents(found).removals,
    )
    assert {ledger.number} == found.counts.keys()


def test_an_empty_ledger_adds_every_member_once_in_stream_order(store, ledger):
    """Without accepted members every key is added, in the order of its last row."""
    found = contents(compare(store, ledger, "b", "a", "b", "c"))
    assert {ledger.number: members("a", "b", "c")} == found.additions


def test_keeping_removes_no_members(store, ledger):
    """A one_time stream removes and drops no members, but its numbers are of the snapshot."""
    ledger.adopt([[*members("gone"), Member(anonymous_id="x")]])
    counts = compare(store, ledger, Member("a", "x"), keeps=True).counts[ledger.number]
    assert (1, 0, 0) == (counts.additions, counts.removals, counts.linked)
    assert 1 == counts.desired.count


def test_any_text_is_an_identifier(store, ledger):
    """Identifiers with any characters come back unchanged."""
    texts = ["\x1f", "\x00", "a\x00b", "'", '"', "\\", "\\u0041", "\n\r", " x ", "null", "[]", "😀"]
    found = contents(compare(store, ledger, *texts))
    assert {ledger.number: members(*texts)} == found.additions


def test_the_two_name_spaces_are_apart(store, ledger):
    """A uid and an anonymous id with the same text are two members."""
    ledger.adopt([members("a")])
    found = compare(store, ledger, "a", Member(anonymous_id="a"))
    assert {ledger.number: [Member(anonymous_id="a")]} == contents(found).additions


def test_a_snapshot_without_anonymous_ids_takes_them_back(store, ledger):
    """A member that was accepted with an anonymous id and has none now is added again."""
    ledger.adopt([[Member("a", "x"), Member("b")]])
    found = compare(store, ledger, "a", "b")
    assert {ledger.number: members("a")} == contents(found).additions


def test_an_absence_counts_whatever_follows_it(store, ledger):
    """An absent row counts, although later chunks have none."""
    staged = store.staging()
    number = ledger.number
    staged.append(number, ["a", "a", "b"], None, [True, False, True])
    staged.append(number, ["c"], None, [True])
    staged.append(number, ["d"], None, None)
    found = ledger.stream.difference(staged, [ledger])
    assert {number: members("b", "c", "d")} == contents(found).additions


def test_columns_of_different_lengths_are_refused(store):
    """A chunk whose columns differ in length is refused."""
    with pytest.raises(ValueError, match="differ in length"):
        store.staging().append(1, ["a", "b"], [None], None)


def test_an_error_of_the_engine_names_no_member(engine, store):
    """DuckDB's error for a row without identifiers becomes an error with the directory alone, which
    the next `append` raises."""
    staged = store.staging()
    staged.append([1, 2], ["secret", None], None, None)
    with pytest.raises(LedgerError) as raised:
        staged.append([1], ["other"], None, None)
    assert "secret" not in str(raised.value)
    assert (store.place if engine == "files" else tempfile.gettempdir()) in str(raised.value)


def test_rows_stay_in_stream_order_beyond_the_memory_limit(store, ledger):
    """The last row of a member wins even if rows were spilled to disk."""
    staged, long = store.staging(), "x" * 20_000
    names = [f"u{number}" for number in range(8_000)]
    for version in "12":
        for chunk in range(0, len(names), 1_000):
            some = names[chunk : chunk + 1_000]
            staged.append(ledger.number, some, [f"{version}{name}{long}" for name in some], None)
    spilled = "SELECT count(*) FROM duckdb_temporary_files()"
    assert staged.fetch(spilled)[0] > (0,)
    position = 0
    for _, chunk in ledger.stream.difference(staged, [ledger]).changes("additions"):
        found = [(member.uid, member.anonymous_id[: -len(long)]) for member in chunk]
        expected = names[position : position + len(chunk)]
        assert [(name, f"2{name}") for name in expected] == found
        position += len(chunk)
    assert len(names) == position


# What a difference yields


def test_members_come_in_chunks(store, ledger):
    """Additions and removals come in chunks of at most 10,000, each member once, by rising numbers
    of cohorts."""
    both = [ledger, store.open(cohort("other"), STREAM)]
    before = [f"o{number}" for number in range(10_001)]
    after = [f"n{number}" for number in range(20_001)]
    for each in both:
        each.adopt([members(*before)])
    staging = stage(store, [*desired(both[1], after), *desired(both[0], after)])
    found = ledger.stream.difference(staging, both)
    assert max(len(chunk) for _, chunk in found.changes("additions")) <= 10_000
    assert max(len(chunk) for _, chunk in found.changes("removals")) <= 10_000
    everything = contents(found)
    assert {each.number: members(*after) for each in both} == everything.additions
    assert {each.number for each in both} == everything.removals.keys()
    for whom in everything.removals.values():
        assert 10_001 == len(whom)
        assert {*members(*before)} == {*whom}


def test_a_plan_can_be_read_while_it_is_delivered(store, ledger):
    """A difference stays complete while another thread records and folds requests, and while other
    differences are computed."""
    before = [f"o{number}" for number in range(25_000)]
    ledger.adopt([members(*before)])
    other = store.open(cohort("other"), STREAM)
    rows = desired(ledger, [f"n{number}" for number in range(25_000)])
    staged = stage(store, rows)
    found = ledger.stream.difference(staged, [ledger])
    seen = []

    def deliver(action, whom):
        accept(ledger, action, whom)
        ledger.stream.fold()

    for action, chunks in ((ADD, found.changes("additions")), (REMOVE, found.changes("removals"))):
        for _, chunk in chunks:
            thread = threading.Thread(target=deliver, args=(action, chunk))
            thread.start()
            other.stream.difference(stage(store, rows), [other]).close()
            seen += chunk
            thread.join()
    assert 50_000 == len(seen) == len(set(seen))
    assert found.counts[ledger.number].desired == ledger.numbers().accepted


def test_plans_of_the_same_changes_have_the_same_digest(store, ledger):
    """A digest depends on the members, their identifiers and actions, but not on their order."""
    ledger.adopt([members("o", "p")])

    def digest(*whom, additions=True, removals=True):
        found = compare(store, ledger, *whom)
        return found.digest(ledger.number, additions=additions, removals=removals)

    plain = digest("a", "b")
    assert plain == digest("b", "a", "b")
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


def test_an_addition_and_a_removal_of_one_member_differ(store, ledger):
    """The addition of a member has another digest than its removal."""

    def digest(*whom):
        found = compare(store, ledger, *whom)
        return found.digest(ledger.number, additions=True, removals=True)

    added = digest("a")
    ledger.adopt([members("a")])
    removed = digest()
    assert added != removed
    assert EMPTY_SET.digest not in {added, removed}


def test_closing_gives_the_memory_back(store, ledger):
    """A closed difference and a closed staging leave no tables."""
    number = ledger.number
    rows = [(number, "a", True), (number, "a", False), (number, Member("b", "x"), True)]
    staged = stage(store, rows)
    ledger.adopt([[Member(anonymous_id="x")]])
    tables = "SELECT table_name FROM duckdb_tables() WHERE database_name LIKE 'staging%'"
    found = ledger.stream.difference(staged, [ledger])
    found.close()
    assert [("staged",)] == staged.fetch(tables)
    staged.close()
    with contextlib.closing(store.staging()) as another:
        another.wait()
        assert [] == another.fetch(tables)


def test_rows_on_their_way_do_not_keep_the_ledgers_from_closing(tmp_path):
    """A store that closes while rows are being inserted waits for them, and leaves no spill."""
    for attempt in range(5):
        with ledgers(tmp_path / str(attempt)) as opened:
            staged = opened.staging()
            staged.append(1, [f"u{number}" for number in range(50_000)], None, None)
            folder = Path(opened.place)
        assert [] == list(folder.glob("spill-*"))


def test_rows_in_columns_are_read_by_the_engine(store, ledger, tmp_path):
    """A Parquet file and a record batch with the same rows have the same facts and members; neither
    needs more than its columns' names."""
    path = tmp_path / "it's [a] *.parquet"
    batch = pa.record_batch({"who": ["a", "b", ""], "is it": [True, False, True]})
    pq.write_table(pa.Table.from_batches([batch.slice(0, 2)]), path)
    roles = {"uid": "who", "membership": "is it", "deleted_at": "absent"}
    for rows in ((path,), batch.slice(0, 2)):
        with contextlib.closing(store.staging()) as staged:
            source = ColumnarRows(rows, roles, ["who"], "rows")
            facts = staged.facts(source)
            assert (2, 0, 1, 1) == (facts.count, facts.nameless, facts.longest, facts.absent)
            staged.append_columnar(source, facts, ledger.number)
            assert (2, True) == (staged.rows, staged.has_absent)
            assert 1 == total(ledger.stream.difference(staged, [ledger]), "additions")
    assert 1 == staging_facts(store, ColumnarRows(batch, roles, [], "rows")).nameless
    assert staging_facts(store, ColumnarRows(batch, {"membership": "who"}, [], "rows")) is None


PARTS = st.lists(
    st.tuples(
        st.sampled_from(["list", "batch", "file", "file that stays", "file that stays"]),
        st.sampled_from(["uid", "both", "number"]),
        st.lists(st.tuples(MEMBERS, st.booleans()), min_size=1, max_size=4),
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@example(
    before=[],
    parts=[
        (form, "uid", [(Member(uid), True)])
        for form, uid in [("file that stays", "a"), ("list", "b"), ("file that stays", "c")]
    ],
    pending=1000,
)
@given(before=st.lists(MEMBERS, max_size=4), parts=PARTS, pending=st.sampled_from([1, 4, 1000]))
def test_the_form_of_rows_changes_nothing(tmp_path_factory, before, parts, pending):
    """Lists, record batches, and files that stay or not, in any order: the difference is that of
    lists."""
    folder = tmp_path_factory.mktemp("forms")
    with ledgers(folder) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "_PENDING_ROWS", pending)
        ledger = store.open(cohort("c"), STREAM)
        ledger.adopt([list({member.key: member for member in before}.values())])
        found = []
        for plain in (True, False):
            with contextlib.closing(store.staging()) as staged:
                for number, (form, shape, rows) in enumerate(parts):
                    columns = as_columns(shape, rows)
                    if plain or form == "list":
                        texts = [None if uid is None else str(uid) for uid in columns["uid"]]
                        others = columns.get("other", [None] * len(texts))
                        staged.append(ledger.number, texts, others, columns["is"])
                    else:
                        source = in_columns(folder / f"{number}.parquet", form, columns)
                        staged.append_columnar(source, staged.facts(source), ledger.number)
                        if form == "file":
                            source.rows[0].unlink()
                compared = ledger.stream.difference(staged, [ledger])
                found.append((compared.counts, contents(compared), digests(compared, ledger)))
        assert found[0] == found[1]


def as_columns(shape, rows):
    """Return rows as columns, without anonymous ids or with numbers as uids if it is to be so."""
    uids = [member.uid or f"no {member.anonymous_id}" for member, _ in rows]
    columns = {"uid": uids, "is": [present for _, present in rows]}
    if shape == "both":
        columns["uid"] = [member.uid for member, _ in rows]
        columns["other"] = [member.anonymous_id for member, _ in rows]
    elif shape == "number":
        columns["uid"] = [len(uid) for uid in uids]
    return columns


def in_columns(path, form, columns):
    """Return columns as a record batch, or as a file of one."""
    roles = {"uid": "uid", "anonymous_id": "other", "membership": "is"}
    roles = {role: name for role, name in roles.items() if name in columns}
    types = {"uid": pa.int64() if type(columns["uid"][0]) is int else pa.string()}
    types |= {"is": pa.bool_(), "other": pa.string()}
    batch = pa.record_batch({name: pa.array(v, types[name]) for name, v in columns.items()})
    if form == "batch":
        return ColumnarRows(batch, roles, ["uid"], "rows")
    pq.write_table(pa.Table.from_batches([batch]), path)
    return ColumnarRows((path,), roles, ["uid"], "rows", stays=form == "file that stays")


def digests(compared, ledger):
    return compared.digest(ledger.number, additions=True, removals=True)


@pytest.mark.parametrize("change", ["another", "fewer", "none"])
def test_a_file_that_changes_after_it_was_staged_is_unreadable(store, ledger, tmp_path, change):
    """No identifier is taken from a file whose rows are not those that were compared."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"uid": ["a", "b"]}), path)
    source = ColumnarRows((path,), {"uid": "uid"}, ["uid"], "rows", stays=True)
    with contextlib.closing(store.staging()) as staged:
        staged.append_columnar(source, staged.facts(source), ledger.number)
        staged.wait()
        if change == "none":
            path.unlink()
        else:
            pq.write_table(pa.table({"uid": {"another": ["a", "c"], "fewer": ["a"]}[change]}), path)
        with pytest.raises(InputError) as raised:
            ledger.stream.difference(staged, [ledger])
    assert "batch_file_unreadable" == raised.value.code


@pytest.mark.parametrize("now", [["a", "b", "c"], ["aaa", "bbb"], [1.5, 2.5]])
def test_a_file_that_changes_before_it_is_staged_is_unreadable(store, ledger, tmp_path, now):
    """The facts of a file hold for the rows that are staged, or none of them is compared."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"uid": ["a", "b"]}), path)
    source = ColumnarRows((path,), {"uid": "uid"}, ["uid"], "rows", stays=True)
    with contextlib.closing(store.staging()) as staged:
        facts = staged.facts(source)
        pq.write_table(pa.table({"uid": now}), path)
        staged.append_columnar(source, facts, ledger.number)
        with pytest.raises(InputError) as raised:
            staged.wait()
        assert 0 == ledger.stream.difference(staged, [ledger]).counts[ledger.number].additions
    assert "batch_file_unreadable" == raised.value.code


def test_rows_in_columns_that_cannot_be_read_are_no_fault_of_the_ledger(store, tmp_path):
    """An unreadable file is an error of its own, which says nothing but its kind."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"secret")
    with pytest.raises(InputError) as raised:
        staging_facts(store, ColumnarRows((path,), {"uid": "uid"}, [], "rows"))
    assert "batch_file_unreadable" == raised.value.code
    assert "secret" not in str(raised.value)


def staging_facts(store, rows):
    """Return the facts of rows in columns."""
    with contextlib.closing(store.staging()) as staged:
        return staged.facts(rows)
