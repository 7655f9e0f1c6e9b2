"""Packing: the assignment of changes to bodies."""

import json
import uuid
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.delivery.packing import Budget, CohortBuffer
from target_moengage_cohort.moengage.cohort_sync import Envelope
from tests.support.strategies import histories

COHORT = Cohort("vip", "VIP “users”", "d")
ENVELOPE = Envelope(COHORT, "acme", send_timestamp=True)
TIMESTAMP = iso_utc(1_800_000_000.123)


def change(uid: str, action: Action = Action.ADD) -> Change:
    member = Member(uid)
    return Change(COHORT, action, member)


def taken(buffer: CohortBuffer) -> list:
    bodies = []
    while (body := buffer.take(-1.0)) is not None:
        bodies.append(body)
    return bodies


def encoded(body) -> bytes:
    return ENVELOPE.body(body.action, TIMESTAMP, body.members)


def members(body) -> list[str]:
    return [member["uid"] for member in json.loads(encoded(body))["parameters"]["members"]]


uids = st.one_of(st.text(min_size=1, max_size=30), st.sampled_from("abcdefgh"))
events = histories(st.tuples(uids, st.sampled_from(list(Action))), 120)


@given(events=events, limit=st.integers(400, 1_200))
def test_no_body_could_have_taken_its_next_member(events, limit):
    """Promise 3: no body exceeds the limit, and a body is closed only if the next member does not
    fit."""
    buffer = CohortBuffer(ENVELOPE, Budget(limit))
    for uid, action in events:
        one = change(uid, action)
        buffer.put(one, 0, 0.0)
        while buffer.closed:
            body = buffer.take(-1.0)
            assert action is body.action
            assert len(encoded(body)) <= limit
            assert (
                ENVELOPE.overhead(action) + len(body.members) + 1 + len(one.member.encode()) > limit
            )
    assert all(len(encoded(body)) <= limit for body in taken(buffer))


@given(events=events, limit=st.integers(400, 1_200))
def test_bodies_in_order_give_each_member_its_last_change(events, limit):
    """Promise 2: the bodies, applied in order, have the same result as the events."""
    buffer = CohortBuffer(ENVELOPE, Budget(limit))
    for uid, action in events:
        buffer.put(change(uid, action), 0, 0.0)
    last = {uid: body.action for body in taken(buffer) for uid in members(body)}
    assert dict(events) == last


@given(events=events, limit=st.integers(400, 1_200), states=st.sets(st.integers(0, 80)))
def test_every_record_is_settled_by_a_body_that_is_not_older(events, limit, states):
    """Promise 1: a body settles exactly the changes of its own records. A replacement settles the
    epoch of the change that it replaced."""
    buffer = CohortBuffer(ENVELOPE, Budget(limit))
    epoch, opened = 0, {}
    for number, (uid, action) in enumerate(events):
        if buffer.put(change(uid, action), epoch, 0.0):
            opened[epoch] = opened.get(epoch, 0) + 1
        epoch += number in states
    settled = {}
    for body in taken(buffer):
        for body_epoch in body.epochs:
            settled[body_epoch] = settled.get(body_epoch, 0) + 1
    assert opened == settled


people = st.integers(0, 3)
linked = st.tuples(
    st.one_of(st.none(), people), st.one_of(st.none(), people), st.sampled_from(list(Action))
).filter(lambda drawn: drawn[:2] != (None, None))


@given(events=histories(linked, 60), limit=st.integers(300, 600))
def test_opposite_changes_of_perhaps_one_person_keep_their_order(events, limit):
    """Of two opposite changes with one anonymous ID under different keys, the later one is in the
    same body or a later one. The weights are right throughout."""
    budget = Budget(limit)
    buffer = CohortBuffer(ENVELOPE, budget)
    last: dict[tuple, int] = {}
    for number, (uid, anonymous, action) in enumerate(events):
        member = Member(
            None if uid is None else f"u{uid}", None if anonymous is None else f"a{anonymous}"
        )
        one = Change(COHORT, action, member)
        buffer.put(one, number, 0.0)
        last[member.key] = number
        assert budget.open_weight == buffer.open_weight
    position = {}
    for place, body in enumerate(taken(buffer)):
        for item in json.loads(encoded(body))["parameters"]["members"]:
            member = Member(item.get("uid"), item.get("anonymous_id"))
            position[member.key] = (place, member.anonymous_id, body.action)
    for key, (place, anonymous, action) in position.items():
        for other, (other_place, other_anonymous, other_action) in position.items():
            if (
                anonymous is not None
                and anonymous == other_anonymous
                and action is not other_action
            ):
                assert (last[key] < last[other]) == (place < other_place)
    assert (0, 0) == (budget.open_weight, budget.closed_weight)


def test_a_rare_change_does_not_wait_for_ever():
    """A removal that has waited long enough queues behind the additions closed by then."""
    buffer = CohortBuffer(ENVELOPE, Budget(1_000))
    buffer.put(change("leaves", Action.REMOVE), 0, 0.0)
    for number in range(300):
        buffer.put(change(f"user-{number:05}"), 0, 1.0)
    waiting = sum(1 for _ in range(2) if buffer.take(-1.0).action is Action.ADD)
    taken_before = 0
    while buffer.take(0.5).action is Action.ADD and taken_before < 50:
        taken_before += 1
        for number in range(100):
            buffer.put(change(f"more-{taken_before}-{number:05}"), 0, 2.0)
    assert (2, True) == (waiting, taken_before < 12)


def test_the_weights_return_to_zero():
    """A buffer has no weight once all changes are taken."""
    budget = Budget(600)
    buffer = CohortBuffer(ENVELOPE, budget)
    random = Random(7)
    for _ in range(500):
        buffer.put(change(f"u{random.randrange(100)}", random.choice(list(Action))), 0, 0.0)
    assert budget.open_weight > 0 < budget.closed_weight
    taken(buffer)
    assert (0, 0, True) == (budget.open_weight, budget.closed_weight, buffer.is_empty)


def test_a_lowered_limit_splits_what_waits():
    """After the limit is lowered, closed bodies are taken in pieces within it, in order, with every
    member once."""
    budget = Budget(1_200)
    buffer = CohortBuffer(ENVELOPE, budget)
    uids = [f"user-{number:04}" for number in range(200)]
    for uid in uids:
        buffer.put(change(uid), 3, 0.0)
    budget.limit = 450
    bodies = taken(buffer)
    assert uids == [uid for body in bodies for uid in members(body)]
    assert all(len(encoded(body)) <= 450 for body in bodies)
    assert 200 == sum(len(body.epochs) for body in bodies)


def test_a_million_uuids_take_no_more_requests_than_the_bytes_force():
    """1,000,000 UUIDs leave in at most 1 % more bodies than their bytes need."""
    buffer = CohortBuffer(
        Envelope(Cohort("vip", "VIP"), "acme", send_timestamp=True), Budget(128_000)
    )
    random = Random(11)
    size = requests = 0
    for _ in range(1_000_000):
        one = change(str(uuid.UUID(int=random.getrandbits(128))))
        size += len(one.member.encode()) + 1
        buffer.put(one, 0, 0.0)
        if buffer.closed:
            requests += 1
            buffer.take(-1.0)
    requests += len(taken(buffer))
    assert requests <= 1.01 * -(-size // (128_000 - buffer.envelope.overhead(Action.ADD)))
