from __future__ import annotations

import json
from base64 import b64encode
from operator import itemgetter

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.emulator import ManualClock, Options, Order
from target_moengage_cohort.emulator.model import Fault, Incoming
from target_moengage_cohort.emulator.state import State

IDS = ("u1", "u2", "u3")
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add_members", "remove_members"]),
        st.sets(st.sampled_from(IDS), min_size=1),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=12,
)


def at(second):
    return f"2026-11-22T04:00:{second:02}.000Z"


@pytest.fixture(scope="session")
def play(payload):
    """Return a function that sends changes to a state with an order, and returns it."""

    def run(order, changes, *, cut_off=False):
        state = State(Options(order=order, clock=ManualClock()))
        basic = "Basic " + b64encode(b"demo-workspace:demo-key").decode()
        for action, ids, second, lost in changes:
            change = payload(*sorted(ids), action=action, timestamp=at(second))
            body = json.dumps(change).encode()
            if cut_off and lost:
                fault = Fault("drop_after", applied=True)
                state.change_faults(lambda faults, fault=fault: faults.schedule(fault, 1))
            incoming = Incoming(body, len(body), basic, "demo-workspace", "application/json")
            state.answered(state.receive(incoming).record)
        return state

    return run


def uids(state):
    return {member.uid for member in state.members("vip") or ()}


def applied(changes):
    """Return the members after changes that are applied one after the other."""
    members = set()
    for action, ids, *_ in changes:
        members = members | ids if action == "add_members" else members - ids
    return members


@given(CHANGES)
def test_arrival(play, changes):
    """With arrival the last change to arrive wins, whatever its timestamp."""
    assert applied(changes) == uids(play(Order.ARRIVAL, changes))


@given(CHANGES)
def test_last_writer_wins(play, changes):
    """With last-writer-wins the result equals that of the changes sorted by timestamp."""
    by_time = sorted(changes, key=itemgetter(2))

    assert applied(by_time) == uids(play(Order.LAST_WRITER_WINS, changes))


@given(CHANGES)
def test_drop_older(play, changes):
    """With drop-older a change counts only if no earlier one has a newer timestamp."""
    kept = [c for i, c in enumerate(changes) if all(c[2] >= e[2] for e in changes[:i])]
    state = play(Order.DROP_OLDER, changes)
    dropped = state.requests(lambda r: r.dropped == "older")

    assert applied(kept) == uids(state)
    assert len(changes) - len(kept) == len(dropped)


@given(CHANGES)
def test_late(play, changes):
    """With late a cut-off change is applied right after the next request."""
    effective, held = [], []
    for change in changes:
        due, held = held, [change] if change[3] else []
        effective += due if change[3] else [change, *due]
    state = play(Order.LATE, changes, cut_off=True)

    assert applied(effective) == uids(state)
    assert len(held) == state.totals().late == state.apply_late()
    assert applied(effective + held) == uids(state)


@pytest.mark.parametrize("order", list(Order))
def test_the_right_client(start, payload, order):
    """A client that repeats each request until it is answered is correct in all orders."""
    client = start(order=order.value)
    first = payload("u1", "u2", timestamp=at(1))
    client.emulator.drop_next(when="after")
    with pytest.raises(requests.ConnectionError):
        client.post(first)
    client.emulator.fail_next(503)
    statuses = [client.post(first).status_code, client.post(first).status_code]
    client.remove("u1", timestamp=at(2))

    assert [503, 200] == statuses
    assert {("u2", None)} == client.emulator.members("vip")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"order": "arrival"}, {"u1", "u2"}),
        ({"order": "last-writer-wins"}, {"u2"}),
        ({"order": "drop-older"}, set()),
        ({"order": "late"}, {"u1", "u2"}),
        ({"order": "last-writer-wins", "late_after": 2}, {"u2"}),
    ],
)
def test_the_overtaking_client(start, payload, options, expected):
    """A client that sends a change before the previous one is answered is wrong in most orders."""
    client = start(**options)
    client.emulator.fail_next(503)
    first = payload("u1", "u2", timestamp=at(1))
    statuses = [client.post(first).status_code]
    statuses.append(client.remove("u1", timestamp=at(2)).status_code)
    statuses.append(client.post(first).status_code)

    assert [503, 200, 200] == statuses
    assert expected == {member.uid for member in client.emulator.members("vip")}


def test_late_after(start):
    """A cut-off change waits for `late_after` requests of its own cohort."""
    client = start(late_after=2)
    client.emulator.drop_next(when="after")
    with pytest.raises(requests.ConnectionError):
        client.add("u1")
    outcomes = []
    for cohort in ("other", "vip", "vip"):
        client.add("u2", cohort_id=cohort)
        outcomes.append(client.emulator.requests()[0].outcome)

    assert ["late", "late", "applied_late"] == outcomes
    assert {("u1", None), ("u2", None)} == client.emulator.members("vip")


def test_late_on_demand(start):
    """A cut-off change can be applied on demand."""
    client = start(order="late")
    client.emulator.fail_next(500)
    client.add("u1")
    before = client.emulator.members("vip")
    counts = [client.emulator.apply_late("other"), client.emulator.apply_late("vip")]

    assert set() == before
    assert [0, 1] == counts
    assert {("u1", None)} == client.emulator.members("vip")


def test_without_timestamp(start):
    """A request without a timestamp has the moment of its arrival."""
    clock = ManualClock(wall=1_763_784_000.0)  # 2025-11-22T04:00:00Z
    client = start(order="last-writer-wins", clock=clock)
    client.add("u1", "u2")
    client.remove("u1", timestamp="2025-11-22T03:59:59Z")
    client.remove("u2", timestamp="2025-11-22T05:00:01+01:00")

    assert {("u1", None)} == client.emulator.members("vip")
