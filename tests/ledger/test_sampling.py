"""Samples of a cohort's members, the removals that a ledger keeps, and observed memberships."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from target_moengage_cohort.cli.verify.sampled_cohort import draw
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.ledger.samples import ObservedCounts, Sample
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    REMOVE,
    STREAM,
    accept,
    cohort,
    flat,
    ledgers,
    members,
    send,
    uids,
)
from tests.support.strategies import histories

pytestmark = pytest.mark.contract(more=["looked up"])
NUMBERS = [str(number) for number in range(100, 120)]
SOME = st.sets(st.sampled_from(NUMBERS[:9]), min_size=1)
LOT, LATER = {*NUMBERS[:6]}, {*NUMBERS[6:9]}
numbers = itertools.count()


@pytest.fixture
def store(tmp_path):
    with ledgers(tmp_path) as opened:
        yield opened


@pytest.fixture
def ledger(store):
    return store.open(COHORT, STREAM)


def kept(ledger):
    return uids(ledger.kept_removals())


def seen(*whom, action=ADD):
    return [(action, each) for each in members(*whom)]


def differences(ledger, *chunks):
    """Return the numbers of an observation, and who is in each difference."""
    observation = ledger.observe(chunks)
    kinds = ("missing", "removed", "stranger")
    return observation.counts, {kind: sorted(flat(observation.uids(kind))) for kind in kinds}


def test_samples_have_accepted_and_removed_members(ledger):
    """A sample of members and one of removed members have those with a uid, and how many."""
    accept(ledger, ADD, [*members(*NUMBERS), Member(None, "anonymous"), Member("both", "a2")])
    accept(ledger, REMOVE, members(*NUMBERS[:4]))
    accept(ledger, REMOVE, [Member(None, "gone")])
    found = ledger.samples(100, "seed")
    assert sorted([*NUMBERS[4:], "both"]) == sorted(found.accepted.uids)
    assert NUMBERS[:4] == sorted(found.removed.uids)
    assert (17, 4) == (found.accepted.population, found.removed.population)


def test_a_sample_depends_on_its_seed_alone(ledger):
    """A seed draws the same members each time, and another one draws others, as many."""
    accept(ledger, ADD, members(*NUMBERS))
    drawn = [ledger.samples(5, seed).accepted for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1]
    assert {*drawn[0].uids} != {*drawn[2].uids}
    assert {5} == {len({*each.uids}) for each in drawn}
    many = [ledger.samples(5, f"{seed}").accepted.uids for seed in range(60)]
    assert {*NUMBERS} == {*flat(many)}


def test_members_in_doubt_are_in_no_sample(ledger):
    """A member whose last request got no answer is neither in a sample nor among the removals."""
    accept(ledger, ADD, members(1, 2, 3))
    accept(ledger, REMOVE, members(3, 4))
    for action, uid in ((REMOVE, 1), (ADD, 4)):
        ledger.answered(send(ledger, action, members(uid)), RequestState.UNANSWERED)
    found = ledger.samples(10, "")
    assert (Sample(("2",), 1), Sample(("3",), 1)) == (found.accepted, found.removed)
    assert ["3"] == kept(ledger)


def test_a_member_who_is_back_is_no_removal(ledger):
    """A member who was added or adopted again is no longer among the removals."""
    accept(ledger, ADD, members(1, 2, 3))
    accept(ledger, REMOVE, members(1, 2, 3))
    accept(ledger, ADD, members(1))
    assert ["2", "3"] == kept(ledger)
    ledger.adopt([members(2)])
    assert ["3"] == kept(ledger)


@pytest.fixture
def three_are_kept(monkeypatch):
    for name in ("NEWLY_DROPPED", "KEEP_REMOVALS", "TRIM_REMOVALS"):
        changed = getattr(schema, name).replace(str(schema.MOST_KEPT), "3")
        monkeypatch.setattr(schema, name, changed)


@pytest.mark.usefixtures("three_are_kept")
def test_the_latest_removals_are_kept(ledger):
    """Of each cohort a bounded number of removals is kept, the latest ones, in one fold or more."""
    accept(ledger, REMOVE, members(1, 2))
    accept(ledger, REMOVE, members(3, 4))
    assert {"3", "4"} <= {*kept(ledger)}
    assert 3 == len(kept(ledger))
    accept(ledger, REMOVE, members(5))
    accept(ledger, REMOVE, members(3))
    assert 3 == len(kept(ledger))
    assert {"3", "5"} <= {*kept(ledger)}
    found = ledger.samples(100, "")
    assert (3, 2) == (found.removed.population, found.dropped)


@given(
    steps=histories(
        st.tuples(st.sampled_from(["add", "remove", "forget", "settle"]), SOME, SOME | st.just(())),
        8,
    ),
    strangers=st.integers(0, 9),
)
@example(steps=[("add", LOT, ()), ("remove", LOT, LOT), ("remove", LATER, ())], strangers=0)
@example(steps=[("add", LOT, ()), ("forget", LOT, LOT)], strangers=0)
@example(steps=[("add", LOT, ()), ("remove", LOT - LATER, ()), ("settle", LOT, ())], strangers=4)
@settings(max_examples=10)
@pytest.mark.usefixtures("three_are_kept")
def test_no_stranger_is_invented(store, steps, strangers):
    """Whatever additions and removals MoEngage has lost, and however many removals are no longer
    kept, `verify` says that a segment has strangers only if it has, and that it is fine only if
    everyone in it is accepted; strangers beyond the removals that are not kept are found."""
    ledger, there = store.open(cohort(f"c{next(numbers)}"), STREAM), set()
    for kind, whom, lost in steps:
        applied = whom - {*lost}
        if kind in {"add", "remove"}:
            accept(ledger, ADD if kind == "add" else REMOVE, members(*sorted(whom)))
            there = there | applied if kind == "add" else there - applied
        elif kind == "forget":
            accept(ledger, REMOVE, members(*sorted(whom)))
            ledger.stream.fold()
            ledger.stream.forget(members(*sorted(whom)))
            there -= applied
        else:  # the end of a mirror's run, after which the ledger knows no other removals
            with ledger.stream.table.change("clear removed"):
                ledger.stream.table.run("DELETE FROM {s}.removed WHERE TRUE")
    accepted = {*uids(ledger.accepted())}
    found = draw(ledger, 100, "seed")
    counts = [len(there) + strangers]
    for uid_set, _ in (found.members, found.removed):
        if uid_set:
            counts += [len(uid_set), len(there & {*uid_set})]
    result = found.result(iter(counts))
    codes = {each.code for each in result.findings}
    assert strangers or "strangers" not in codes
    assert result.status != "fine" or (not strangers and there <= accepted)
    if strangers > found.dropped and not codes & {"removed_still_in"} and accepted:
        assert "strangers" in codes


def test_removals_outlive_a_run_and_are_each_cohorts_own(tmp_path):
    """The next run knows the removals of each cohort, also after the cohort has changed streams."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), REMOVE, [Member("1", "a1"), Member(None, "a2")])
        accept(store.open(cohort("other"), STREAM), REMOVE, members(7))
    with ledgers(tmp_path, run_id="run-2") as store:
        assert ["(a2)", "1"] == kept(store.open_known("vips"))
        store.reassign("other", OTHER_STREAM)
        assert ["7"] == kept(store.open_known("other"))
    with ledgers(tmp_path, run_id="run-3") as store:
        assert ["7"] == kept(store.open_known("other"))
        assert ["(a2)", "1"] == kept(store.open_known("vips"))


@pytest.mark.usefixtures("three_are_kept")
def test_the_number_of_other_removals_outlives_a_run(tmp_path):
    """How many removals are no longer kept is known to later runs, and to another stream."""
    with ledgers(tmp_path) as store:
        accept(store.open(cohort("other"), STREAM), REMOVE, members(*range(5)))
    with ledgers(tmp_path, run_id="run-2") as store:
        accept(store.open(cohort("other"), STREAM), REMOVE, members(5))
        store.reassign("other", OTHER_STREAM)
    with ledgers(tmp_path, run_id="run-3") as store:
        assert 3 == store.open_known("other").samples(10, "").dropped


def test_a_forgotten_member_is_no_removal(tmp_path):
    """`forget` erases a member who was removed, and says that the cohort had one."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, REMOVE, [Member("forget-uid", "forget-anonymous"), *members(1)])
        ledger.stream.fold()
        assert {ledger.number} == ledger.stream.cohorts_with([Member("forget-uid")])
        assert {ledger.number} == ledger.stream.forget([Member("forget-uid")])
        assert ["1"] == kept(ledger)
    if not databases.is_in_use():
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"forget" not in path.read_bytes(), path.name


def test_an_observed_membership_is_compared_exactly(ledger):
    """Who is missing, removed or a stranger is told from an observed membership; who is in doubt
    or has no uid is not."""
    accept(ledger, ADD, [*members(1, 2, 3, 4), Member(None, "anonymous")])
    accept(ledger, REMOVE, members(4, 5))
    for action, uid in ((ADD, 6), (REMOVE, 3)):
        ledger.answered(send(ledger, action, members(uid)), RequestState.UNANSWERED)
    counts, who = differences(ledger, seen(1, 4, 6, 7), seen(8, 1))
    assert {"missing": ["2"], "removed": ["4"], "stranger": ["7", "8"]} == who
    assert ObservedCounts(5, 2, 1, 2, 1, 2) == counts
    counts, who = differences(ledger, seen(1, 2, 3))
    assert {"missing": [], "removed": [], "stranger": []} == who


def test_the_last_observation_of_a_member_counts(ledger):
    """A member who was observed to leave is not in, unless observed to be back later."""
    accept(ledger, ADD, members(1, 2))
    rows = [*seen(1, 2, 3), *seen(1, 3, action=REMOVE)]
    _, who = differences(ledger, rows, seen(3), seen(2, action=REMOVE), seen(2))
    assert {"missing": ["1"], "removed": [], "stranger": ["3"]} == who
