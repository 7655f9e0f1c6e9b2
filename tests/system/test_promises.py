"""The promises of the design, as properties of runs against the emulator under faults."""

import json
import os
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator, Order
from tests.support.singer import UNLIMITED, lines, record, run, schema, state
from tests.support.strategies import histories

COHORTS = ("a", "b", "c")
USERS = [f"user-{number}-{'x' * 150}" for number in range(12)]  # about four to a body

changes = st.tuples(st.sampled_from(COHORTS), st.sampled_from(USERS), st.booleans())
inputs = histories(st.one_of(changes, changes, changes, st.just("state")), 120)
faults = st.lists(
    st.sampled_from(["500", "503 applied", "429", "drop before", "drop after"]), max_size=6
)


def messages(events) -> bytes:
    """Return the events as one stream that populates three cohorts, with a number in each row."""
    columns = ("cohort", "uid", "row", "member")
    rows = [
        state({"position": number})
        if event == "state"
        else record(cohort=event[0], uid=event[1], row=f"row-{number}", member=event[2])
        for number, event in enumerate(events)
    ]
    return lines(schema(columns=columns), *rows)


MAPPING = {
    "cohorts": {
        "users": {
            "cohort_id_column": "cohort",
            "anonymous_id_column": "row",
            "membership_column": "member",
        }
    },
    "max_payload_bytes": 1_000,
}


def inject(emulator: Emulator, kinds) -> None:
    for kind in kinds:
        if kind.startswith("drop"):
            emulator.drop_next(when=kind.split()[1])
        elif kind == "429":
            emulator.fail_next(429, headers={"Retry-After": "0", "x-ratelimit-reset": "0"})
        else:
            emulator.fail_next(int(kind[:3]), applied="applied" in kind)


def model(events) -> dict[str, set[str]]:
    """Return the members of each cohort after all events, by the last change of each member."""
    members = {cohort: set() for cohort in COHORTS}
    for event in events:
        if event != "state":
            cohort, uid, joins = event
            (members[cohort].add if joins else members[cohort].discard)(uid)
    return members


def uids(emulator: Emulator, cohort: str) -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


@pytest.fixture(scope="module")
def module_emulator():
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@given(events=inputs, kinds=faults, flush=st.sampled_from([1, 60]))
@settings(max_examples=60)
def test_state_covers_only_what_was_accepted(module_emulator, events, kinds, flush):
    """Promise 1: before an emitted STATE, each record's change, or a later one of the same member,
    was accepted. STATE is in order, and the last one is emitted."""
    module_emulator.reset()
    inject(module_emulator, kinds)
    seen = run(module_emulator, messages(events), flush_seconds=flush, **MAPPING)
    assert seen.error is None
    positions = [value["position"] for value in seen.states]
    assert positions == sorted(set(positions))
    expected_last = [number for number, event in enumerate(events) if event == "state"][-1:]
    assert expected_last == positions[-1:]
    for position, count in zip(positions, seen.accepted_before, strict=True):
        newest: dict[tuple[str, str], int] = {}
        for attempt in seen.accepted[:count]:
            cohort = attempt.body["parameters"]["cohort_id"]
            for member in attempt.body["parameters"]["members"]:
                row = int(member["anonymous_id"].removeprefix("row-"))
                newest[cohort, member["uid"]] = max(row, newest.get((cohort, member["uid"]), -1))
        for number, event in enumerate(events[:position]):
            if event != "state":
                assert newest.get(event[:2], -1) >= number


@given(events=inputs, kinds=faults)
@settings(max_examples=60)
@pytest.mark.parametrize("order", list(Order), ids=lambda order: order.value)
def test_last_change_wins_whatever_order_the_server_keeps(order, events, kinds):
    """Promise 2: despite retries, lost answers, a changing clock and any order of the server, the
    cohorts equal the stream's last changes."""
    wall = iter(range(10_000))
    timing = Timing(
        jitter=lambda _seconds: 0.0,
        wall_clock=lambda: 1_800_000_000 + 50 * (-1) ** next(wall),
    )
    with Emulator(requests_per_minute=UNLIMITED, order=order) as emulator:
        inject(emulator, kinds)
        seen = run(emulator, messages(events), timing, **MAPPING)
        emulator.apply_late()
        assert seen.error is None
        assert model(events) == {cohort: uids(emulator, cohort) for cohort in COHORTS}


@given(events=inputs, kinds=faults)
@settings(max_examples=40)
def test_requests_of_a_cohort_go_one_after_the_other(module_emulator, events, kinds):
    """Promise 2: a cohort's requests never overlap. A retry has the bytes of the first attempt, and
    timestamps of different requests rise strictly."""
    module_emulator.reset()
    inject(module_emulator, kinds)
    wall = iter(range(10_000))
    timing = Timing(
        jitter=lambda _seconds: 0.0,
        wall_clock=lambda: 1_800_000_000 - next(wall),
    )
    seen = run(module_emulator, messages(events), timing, **MAPPING)
    assert seen.error is None
    assert 0 == seen.overlaps == module_emulator.totals().overlapped
    bodies = defaultdict(list)
    for request in module_emulator.requests():
        digests = bodies[request.cohort_id]
        if not digests or digests[-1] != (request.digest, request.timestamp):
            digests.append((request.digest, request.timestamp))
    for digests in bodies.values():
        timestamps = [timestamp for _, timestamp in digests]
        assert timestamps == sorted(set(timestamps))


@given(events=inputs, kinds=faults)
@settings(max_examples=40)
def test_no_body_is_over_the_limit(module_emulator, events, kinds):
    """Promise 3: no request has more bytes than the settings allow, retries included."""
    module_emulator.reset()
    inject(module_emulator, kinds)
    seen = run(module_emulator, messages(events), **MAPPING)
    assert seen.error is None
    assert all(len(attempt.data) <= 1_000 for attempt in seen.attempts)


rows = histories(
    st.one_of(
        st.sampled_from(USERS),
        st.none(),
        st.just(""),
        st.booleans(),
        st.just([1]),
        st.just(1.5),
        st.integers(0, 20),
    ),
    40,
)


@given(values=rows)
@settings(max_examples=60)
def test_every_row_is_accepted_or_among_the_rejects(module_emulator, tmp_path, values):
    """Promise 6: with on_reject skip, each row is in the cohort or in the rejects file."""
    module_emulator.reset()
    rejects = tmp_path / "rejects.singer"
    rejects.unlink(missing_ok=True)
    data = lines(schema(), *[record(uid=value) for value in values], state({"done": 1.5}))
    seen = run(module_emulator, data, on_reject="skip", rejects_path=str(rejects))
    good = {
        str(value)
        for value in values
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    }
    bad = [
        value
        for value in values
        if isinstance(value, bool) or not isinstance(value, str | int) or value == ""
    ]
    assert seen.error is None
    assert [{"done": 1.5}] == seen.states
    assert good == uids(module_emulator, "users")
    kept = [json.loads(line) for line in rejects.read_bytes().splitlines()]
    assert bad == [message["record"]["uid"] for message in kept if message["type"] == "RECORD"]
    assert (["SCHEMA"] if bad else []) == [kept[0]["type"]] if kept else not bad


@given(values=rows, states=st.sets(st.integers(0, 40)))
@settings(max_examples=40)
def test_a_row_that_fails_the_run_is_not_passed_by_state(module_emulator, values, states):
    """Promise 6: with on_reject fail, no STATE passes the first bad row, and the rows before it are
    delivered."""
    module_emulator.reset()
    events = []
    for number, value in enumerate(values):
        events.append(record(uid=value))
        if number in states:
            events.append(state({"after": number}))
    first_bad = next(
        (
            number
            for number, value in enumerate(values)
            if isinstance(value, bool) or not isinstance(value, str | int) or value == ""
        ),
        len(values),
    )
    seen = run(module_emulator, lines(schema(), *events))
    assert (first_bad < len(values)) == (seen.error is not None)
    assert {str(value) for value in values[:first_bad]} == uids(module_emulator, "users")
    covered = [number for number in sorted(states) if number < first_bad]
    assert covered[-1:] == [value["after"] for value in seen.states][-1:]


def test_rejects_are_durable_before_state_passes_them(module_emulator, tmp_path, monkeypatch):
    """Promise 6: the rejects file is fsynced after its last row before a later STATE is emitted."""
    module_emulator.reset()
    rejects = tmp_path / "rejects.singer"
    durable = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        durable.append(rejects.stat().st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    sizes = []
    data = lines(schema(), record(uid="u"), record(uid=None), state({"a": 1}))
    seen = run(
        module_emulator,
        data,
        write_state=lambda _value: sizes.append((rejects.stat().st_size, durable[-1:])),
        on_reject="skip",
        rejects_path=str(rejects),
    )
    assert [{"a": 1}] == seen.states
    assert [(rejects.stat().st_size, [rejects.stat().st_size])] == sizes
