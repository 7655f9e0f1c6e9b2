"""The threads of a delivery: senders, and the writer of STATE."""

import threading

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.emulator import Emulator
from tests.support.singer import lines, record, run, schema, state


def users(count: int, start: int = 0) -> list[dict]:
    return [record(uid=f"user-{number:06}") for number in range(start, start + count)]


def uids(emulator: Emulator, cohort: str = "users") -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


def test_a_reader_of_state_that_is_slow_holds_up_no_request(emulator):
    """Requests continue while the reader of STATE does not read."""
    events = []
    for number in range(50):
        events += [*users(20, number * 20), state({"position": number})]
    reading = threading.Event()

    def write_state(_value: bytes) -> None:
        if not reading.is_set():
            emulator.wait_until(lambda totals: totals.requests >= 20)
            reading.set()

    seen = run(emulator, lines(schema(), *events), write_state=write_state, max_payload_bytes=1_000)
    assert seen.error is None
    assert reading.is_set()
    assert 1_000 == len(uids(emulator))
    assert 49 == seen.states[-1]["position"]


def test_a_state_that_cannot_be_written_fails_the_run(emulator):
    """A run whose last STATE is lost fails."""

    def write_state(_value: bytes) -> None:
        raise TryAgainError("state_not_written", "no reader")

    data = lines(schema(), *users(1), state({"a": 1}))
    errors = [run(emulator, data, write_state=write_state).error for _ in range(20)]
    assert [True] * 20 == [isinstance(error, TryAgainError) for error in errors]
