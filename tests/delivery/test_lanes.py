"""Lanes, which decide the next cohort."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.delivery import lanes as lanes_module
from target_moengage_cohort.delivery.lanes import Lanes
from target_moengage_cohort.settings import load
from tests.support.strategies import histories

SETTINGS = load(
    {
        "workspace_id": "w",
        "data_api_key": "k",
        "data_center": "01",
        "partner": "acme",
        "max_payload_bytes": 1_000,
        "flush_seconds": 60,
    }
).settings


def change(cohort: str, uid: str, action: Action = Action.ADD) -> Change:
    member = Member(uid)
    return Change(Cohort(cohort, cohort), action, member)


def fill(lanes: Lanes, cohort: str, start: int = 0, count: int = 100) -> None:
    for number in range(start, start + count):
        lanes.put(change(cohort, f"user-{number:05}"), 0, 0.0)


def test_nothing_leaves_before_it_is_full_or_old_enough():
    """An open body waits exactly flush_seconds after its first change."""
    lanes = Lanes(SETTINGS)
    lanes.put(change("a", "u1"), 0, 100.0)
    lanes.put(change("a", "u2"), 0, 130.0)
    assert 160.0 == lanes.due_at()
    assert lanes.claim(159.9) is None
    assert lanes.by_id["a"] is lanes.claim(160.0)


def test_changes_join_a_body_until_it_is_taken():
    """A change still joins the body of a claimed lane until there is a permit."""
    lanes = Lanes(SETTINGS)
    lanes.put(change("a", "u1"), 0, 0.0)
    lane = lanes.claim(60.0)
    lanes.put(change("a", "u2"), 0, 61.0)
    assert 2 == lanes.take(lane, 0.0, 0).body.count


def test_a_claimed_lane_is_nobody_elses():
    """A lane is claimed once, however many changes it has, until it is released."""
    lanes = Lanes(SETTINGS)
    fill(lanes, "a")
    lane = lanes.claim(0.0)
    fill(lanes, "a", 100)
    lanes.close_all()
    assert lanes.claim(1_000.0) is None
    lanes.take(lane, 0.0, 0)
    lanes.release(lane)
    assert lane is lanes.claim(0.0)


def test_a_lane_that_is_queued_and_due_is_claimed_once():
    """A lane that is ready for two reasons is still given to one sender only."""
    lanes = Lanes(SETTINGS)
    lanes.put(change("a", "u"), 0, 0.0)
    lane = lanes.claim(60.0)
    fill(lanes, "a")
    lanes.release(lane)
    assert lane is lanes.claim(1_000.0)
    assert lanes.claim(1_000.0) is None


def test_timestamps_rise_even_if_the_clock_stands_still_or_goes_back():
    """Promise 2: each request of a cohort has a later timestamp than the one before it."""
    lanes = Lanes(SETTINGS)
    fill(lanes, "a", count=200)
    stamps = []
    for milliseconds in (5_000, 5_000, 1_000, 9_000):
        lane = lanes.claim(0.0)
        lanes.take(lane, 0.0, milliseconds)
        stamps.append(lane.last_timestamp)
        lanes.release(lane)
    assert [5_000, 5_001, 5_002, 9_000] == stamps


def test_open_bodies_are_closed_before_they_take_too_much_memory(monkeypatch):
    """Promise 8: with very many cohorts open, the fullest bodies are closed early."""
    monkeypatch.setattr(lanes_module, "OPEN_WEIGHT_LIMIT", 50_000)
    lanes = Lanes(SETTINGS)
    lanes.put(change("large", "u0"), 0, 0.0)
    lanes.put(change("large", "u1"), 0, 0.0)
    for number in range(2_000):
        lanes.put(change(f"cohort-{number}", "u"), 0, 0.0)
        lanes.relieve()
        weight = sum(lane.buffer.open_weight for lane in lanes.by_id.values() if lane.buffer)
        assert weight == lanes.budget.open_weight <= 50_000
    assert lanes.by_id["large"].buffer.closed


steps = histories(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("claim"), st.floats(0, 200)),
        st.tuples(st.just("answer"), st.sampled_from("abc")),
        st.tuples(st.just("too large"), st.sampled_from("abc")),
        st.tuples(st.just("close")),
    ),
    200,
)


class History:
    """Lanes, their changes, the claimed ones, and the changes that have left."""

    def __init__(self) -> None:
        self.lanes = Lanes(SETTINGS)
        self.now = 0.0
        self.claimed, self.sent, self.expected = {}, {}, {}

    def put(self, cohort: str, number: int, action: Action) -> None:
        uid = f"user-{number}-{'x' * 150}"
        self.lanes.put(change(cohort, uid, action), 0, self.now)
        self.expected[cohort, uid] = action

    def claim(self, seconds: float) -> None:
        self.now += seconds
        if (lane := self.lanes.claim(self.now)) is not None:
            assert lane.cohort.cohort_id not in self.claimed
            self.claimed[lane.cohort.cohort_id] = lane

    def answer(self, cohort: str, *, too_large: bool = False) -> None:
        if (lane := self.claimed.pop(cohort, None)) is None:
            return
        request = self.lanes.take(lane, 0.0, 0)
        if too_large and request.body.count > 1:
            self.lanes.lower_limit(request)
        else:
            for uid in request.body.members.decode().split('"uid":"')[1:]:
                self.sent[cohort, uid.partition('"')[0]] = request.body.action
        self.lanes.release(lane)

    def drain(self) -> None:
        self.lanes.close_all()
        for cohort in [*self.claimed]:
            self.answer(cohort)
        while self.lanes.backlog:
            self.claim(0.0)
            assert self.claimed
            self.answer(*self.claimed)


@given(steps=steps)
def test_whatever_happens_all_of_it_leaves_in_order(steps):
    """After any history of claims, splits and flushes, draining sends every change and leaves no
    lane and no weight behind."""
    history = History()
    do = {
        "put": lambda cohort, number: history.put(cohort, number, Action.ADD),
        "remove": lambda cohort, number: history.put(cohort, number, Action.REMOVE),
        "claim": history.claim,
        "answer": history.answer,
        "too large": lambda cohort: history.answer(cohort, too_large=True),
        "close": history.lanes.close_all,
    }
    for name, *arguments in steps:
        do[name](*arguments)
    history.drain()
    assert history.expected == history.sent
    assert 0 == history.lanes.budget.closed_weight == history.lanes.backlog


@pytest.mark.parametrize("count", [1, 5])
def test_a_cohort_that_holds_nothing_takes_no_buffer(count):
    """Promise 8: once its changes have left, a cohort keeps only its counts."""
    lanes = Lanes(SETTINGS)
    fill(lanes, "a", count=count)
    lanes.close_all()
    lane = lanes.claim(0.0)
    lanes.take(lane, 0.0, 0)
    lanes.release(lane)
    assert lane.buffer is None
