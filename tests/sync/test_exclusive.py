"""Exclusive fan-outs: a member belongs to one cohort of the stream."""

import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import SettingsError, TryAgainError
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.settings import load
from tests.support.logs import codes
from tests.support.look import held
from tests.support.mortal import Mortals
from tests.support.singer import UNLIMITED, config, lines, record, run, schema, state

ADD, REMOVE = "add_members", "remove_members"
COLUMNS = ("uid", "device", "segment", "member", "sname")
MAPPING = {
    "cohort_id_column": "segment",
    "membership_column": "member",
    "anonymous_id_column": "device",
}


def mapping(**keys):
    return {"users": {**MAPPING, "exclusive": True, **keys}}


def rows(*moves, **columns):
    """Return a row for each pair of a cohort and a uid."""
    return [record(uid=uid, segment=segment, member=True, **columns) for segment, uid in moves]


def gone(segment, uid):
    return record(uid=uid, segment=segment, member=False)


@pytest.fixture
def go(emulator, tmp_path):
    """Runs the exclusive stream `users`."""

    def sync(*messages, keys=None, **options):
        options = {"cohorts": mapping(**(keys or {})), "ledger_uri": str(tmp_path / "l"), **options}
        return run(emulator, lines(schema(columns=COLUMNS), *messages), **options)

    return sync


def places(emulator, *uids):
    """Return the cohorts of each member."""
    cohorts = {each: emulator.members(each) for each in ("a", "b", "c")}
    return [
        {each for each, found in cohorts.items() if uid in {member.uid for member in found}}
        for uid in uids
    ]


def test_a_row_that_moves_leaves_the_former_cohort(emulator, go):
    """An addition elsewhere removes the member from its former cohort, with the accepted ids."""
    go(*rows(("a", "1"), ("a", "2"), device="d"), state({"at": 1}))
    seen = go(*rows(("b", "1")), state({"at": 2}))
    assert [{"b"}, {"a"}] == places(emulator, "1", "2")
    assert [{"at": 2}] == seen.states
    (removal,) = (each.body for each in seen.attempts if each.body["action"] == REMOVE)
    assert [{"uid": "1", "anonymous_id": "d"}] == removal["parameters"]["members"]
    assert {"a": 1, "b": 0} == {each.cohort_id: each.removed for each in seen.report.cohorts}
    assert [] == go(*rows(("b", "1"))).attempts


def test_a_dry_run_counts_moves(emulator, go):
    """A dry run has the removals in its numbers, and moves nobody."""
    go(*rows(("a", "1"), ("b", "2")))
    seen = go(*rows(("b", "1")), dry_run=True)
    assert {("a", 0, 1), ("b", 1, 0)} == {
        (each.cohort_id, each.added, each.removed) for each in seen.report.cohorts
    }
    assert [{"a"}, {"b"}] == places(emulator, "1", "2")


def test_only_an_addition_moves_a_member(emulator, go):
    """A row that is no member leaves its own cohort alone, and no other one."""
    go(*rows(("a", "1"), ("b", "2")))
    go(gone("b", "1"), gone("b", "2"))
    assert [{"a"}, set()] == places(emulator, "1", "2")


def test_moves_in_one_run_are_taken_in_order(emulator, go):
    """To another cohort, back, and on: the last row wins, with new cohorts among them."""
    go(*rows(("a", "1"), ("b", "2"), ("a", "3")))
    moves = [("b", "1"), ("c", "2"), ("a", "1"), ("c", "3"), ("c", "1"), ("b", "2"), ("a", "3")]
    seen = go(*rows(*moves), state({"at": 1}))
    assert [{"c"}, {"b"}, {"a"}] == places(emulator, "1", "2", "3")
    assert [{"at": 1}] == seen.states


def test_new_cohorts_that_are_too_many_move_nobody(emulator, go):
    """Rows of cohorts that are not created take no member out of its cohort."""
    go(*rows(("a", "1"), ("b", "2")))
    seen = go(*rows(("c", "1"), ("a", "2")), state({"at": 1}), max_new_cohorts=2)
    assert [{"a"}, {"a"}] == places(emulator, "1", "2")
    assert ([], 1) == (seen.states, seen.report.exit_code)


def test_state_waits_for_a_former_cohort_that_is_withheld(emulator, go):
    """Where nothing can be sent for the former cohort, no STATE passes the row."""
    keys = {"cohort_name_column": "sname"}
    first = [
        record(uid=uid, segment=each, member=True, sname=f"N{each}")
        for each, uid in (("a", "1"), ("b", "2"))
    ]
    renamed = record(uid="3", segment="a", member=True, sname="other")
    move = record(uid="1", segment="b", member=True, sname="Nb")
    go(*first, keys=keys)
    seen = go(move, state({"at": 1}), renamed, state({"at": 2}), keys=keys)
    assert ([], 3) == (seen.states, seen.report.exit_code)
    assert "b" in places(emulator, "1")[0]
    seen = go(move, state({"at": 1}), keys=keys)
    assert [{"b"}] == places(emulator, "1")
    assert [{"at": 1}] == seen.states


def test_an_anonymous_member_moves_with_its_uid(emulator, go):
    """A row with a uid removes the anonymous member that it was before."""
    go(record(device="d", segment="a", member=True))
    go(record(uid="1", device="d", segment="b", member=True))
    assert [] == [*emulator.members("a")]
    assert [{"b"}] == places(emulator, "1")


@pytest.mark.parametrize("applied", [False, True])
def test_a_move_with_a_lost_answer_is_completed(emulator, go, applied):
    """A member in doubt counts as in the cohort, so the row that is read again removes it."""
    go(*rows(("a", "1")))
    emulator.fail_next(503, 1_000, applied=applied)
    lost = go(*rows(("b", "1")), state({"at": 1}), max_retry_seconds=0)
    assert isinstance(lost.error, TryAgainError)
    assert [] == lost.states
    emulator.clear_faults()
    seen = go(*rows(("c", "1")), state({"at": 2}))
    assert [{"c"}] == places(emulator, "1")
    assert [{"at": 2}] == seen.states


def test_the_last_row_wins_in_a_mirror(emulator, go, caplog):
    """Two rows of one member in two cohorts of one input: the member belongs to the later one, and
    a warning has the number of rows that did not count."""
    options = {"sync_mode": "mirror", "max_removal_percent": 100}
    first = rows(("a", "1"), ("b", "2"), ("a", "3"), ("b", "1"), ("a", "2"), ("b", "4"))
    assert go(*first, **options).error is None
    assert "outvoted" in codes(caplog)
    assert "2 rows each name" in caplog.text
    caplog.clear()
    assert [{"b"}, {"a"}, {"a"}, {"b"}] == places(emulator, "1", "2", "3", "4")
    go(*rows(("a", "1"), ("a", "3"), ("b", "4"), ("b", "2")), **options)
    assert [{"a"}, {"b"}, {"a"}, {"b"}] == places(emulator, "1", "2", "3", "4")
    assert "outvoted" not in codes(caplog)
    go(*rows(("b", "1"), ("a", "1"), ("a", "3"), ("b", "4"), ("b", "2")), gone("a", "1"), **options)
    assert [set(), {"b"}, {"a"}, {"b"}] == places(emulator, "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("exclusive", "warned"), [(None, ["also_in_others"]), (False, []), (True, [])]
)
def test_a_member_of_two_cohorts_is_said_unless_a_person_has_decided(
    emulator, go, caplog, exclusive, warned
):
    """Without a word on it, a row that adds a member who is in another cohort is warned about."""
    keys = {"exclusive": exclusive}
    go(*rows(("a", "1"), ("b", "2")), keys=keys)
    caplog.clear()
    go(*rows(("b", "1"), ("b", "2")), gone("a", "2"), keys=keys)
    assert warned == codes(caplog)
    assert [{"b"} if exclusive else {"a", "b"}, {"b"}] == places(emulator, "1", "2")
    caplog.clear()
    go(*rows(("b", "1")), keys=keys)
    assert [] == codes(caplog)


@pytest.mark.parametrize(
    "keys",
    [
        {"cohort_id_column": "segment"},  # the ledger has no members
        {"sync_mode": "mirror"},  # one cohort
        {"cohort_id_column": "segment", "sync_mode": "remove"},
        {"cohort_id_column": "segment", "sync_mode": "one_time"},
    ],
)
def test_what_exclusive_needs(emulator, keys):
    """It needs a fan-out, members in the ledger, and a mode that adds and removes."""
    with pytest.raises(SettingsError) as raised:
        load(config(emulator, cohorts={"users": {**keys, "exclusive": True}}))
    assert "conflicting_settings" == raised.value.code


NAMES = [f"user-{number}-{'x' * 250}" for number in range(5)]  # few to a body
event = st.one_of(
    st.tuples(st.sampled_from("abc"), st.sampled_from(NAMES), st.integers(0, 5)),
    st.just("state"),
)
trouble = st.one_of(
    st.none(),
    st.tuples(st.just("dies"), st.integers(1, 14)),
    st.tuples(st.sampled_from(["lost", "failed", "interrupt"]), st.integers(0, 4)),
)
histories = st.lists(st.tuples(st.lists(event, max_size=12), trouble), min_size=2, max_size=5)


class History:
    """Rows that several runs read from the last STATE on; the last one wins."""

    def __init__(self, emulator: Emulator, mortals: Mortals, folder: str) -> None:
        self.emulator = emulator
        self.mortals = mortals
        self.options = {
            "cohorts": mapping(),
            "ledger_uri": folder,
            "max_payload_bytes": 1_000,
            "requests_per_minute": UNLIMITED,
        }
        self.events = []
        self.position = 0

    def sync(self, trouble=None):
        """Run on the rows that no STATE covers yet."""
        said = [
            state({"position": at})
            if each == "state"
            else record(segment=each[0], uid=each[1], member=each[2] > 0)
            for at, each in enumerate(self.events[self.position :], self.position + 1)
        ]
        data, (kind, when) = lines(schema(columns=COLUMNS), *said), trouble or ("", 0)
        if kind == "dies":
            states = self.mortals.run(self.emulator, data, dies_at=when, **self.options).states
        else:
            before = self._before(kind, when)
            retry = {"max_retry_seconds": 0} if kind else {}
            seen = run(self.emulator, data, before=before, **self.options, **retry)
            assert kind or seen.error is None
            states = [{"type": "STATE", "value": value} for value in seen.states]
        self.emulator.clear_faults()
        for each in states:
            self.position = each["value"]["position"] if "value" in each else each["position"]
            self._check_covered()

    def _before(self, kind, when):
        def before(seen, interrupt):
            if kind and len(seen.attempts) == when + 1:
                if kind == "interrupt":
                    interrupt.set()
                else:
                    self.emulator.fail_next(503, 1_000, applied=kind == "lost")

        return before

    def _wanted(self, count):
        wanted = {}
        for each in self.events[:count]:
            if each != "state":
                segment, uid, member = each
                if member:
                    wanted[uid] = segment
                elif wanted.get(uid) == segment:
                    del wanted[uid]
        return wanted

    def _check_covered(self):
        """Promise 1: members without a row after STATE are in their cohort, and no other."""
        later = {each[1] for each in self.events[self.position :] if each != "state"}
        self.check({*NAMES} - later, self._wanted(self.position))

    def check(self, uids=frozenset(NAMES), wanted=None):
        wanted = self._wanted(len(self.events)) if wanted is None else wanted
        for cohort in "abc":
            found = {member.uid for member in self.emulator.members(cohort)} & uids
            assert {uid for uid in uids if wanted.get(uid) == cohort} == found


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


@given(histories)
@example([([("a", NAMES[0], 1)], None), ([("b", NAMES[0], 1), "state"], ("dies", 5))])
@settings(max_examples=25)
def test_any_history_of_moves_ends_right(emulator, mortals, history):
    """Promises 1, 2 and 5: after lost answers, failures, interrupts and kills, each member is in
    the cohort of its last row and no other; and members that STATE has passed are so already."""
    emulator.reset()
    with tempfile.TemporaryDirectory() as folder:
        story = History(emulator, mortals, f"{folder}/ledger")
        for events, trouble in history:
            story.events += events
            story.sync(trouble)
        story.sync()
        story.check()
        found = held(emulator, f"{folder}/ledger")
        assert not any(each.doubts for each in found.values())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.integers(0, 5)),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
@settings(max_examples=25)
def test_a_mirror_and_single_changes_agree(emulator, rows_, piecemeal):
    """The rows of one input have the same result in both modes, however they are cut."""
    data = lines(
        schema(columns=COLUMNS),
        *[record(segment=segment, uid=uid, member=is_in > 0) for segment, uid, is_in in rows_],
    )
    results = []
    for mode in ("incremental", "mirror"):
        emulator.reset()
        with tempfile.TemporaryDirectory() as folder:
            seen = run(
                emulator,
                data,
                piecemeal=piecemeal,
                cohorts=mapping(sync_mode=mode),
                ledger_uri=f"{folder}/ledger",
            )
            assert seen.error is None
        results.append(places(emulator, *"12345"))
    assert results[0] == results[1]
