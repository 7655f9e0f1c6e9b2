"""The dispatcher: attempts, retries and what ends a run, against the emulator."""

import json
import threading

import pytest

from target_moengage_cohort.core.errors import InputError, SettingsError, TryAgainError
from target_moengage_cohort.delivery import dispatcher as dispatcher_module
from target_moengage_cohort.delivery.attempts import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED, lines, record, run, schema, state


def users(count: int, start: int = 0) -> list[dict]:
    return [record(uid=f"user-{number:06}") for number in range(start, start + count)]


def uids(emulator: Emulator, cohort: str = "users") -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


def test_a_server_error_is_retried_with_the_same_bytes(emulator):
    """A 5xx is retried with the same bytes until it is accepted."""
    emulator.fail_next(503, 3)
    seen = run(emulator, lines(schema(), *users(2)))
    assert seen.error is None
    assert [503, 503, 503, 200] == [request.status for request in emulator.requests()]
    assert 1 == len({request.digest for request in emulator.requests()})


def test_a_503_with_retry_after_waits_at_least_so_long(emulator):
    """Retry-After is a minimum for the wait before a retry."""
    emulator.fail_next(503, headers={"Retry-After": "1"})
    run(emulator, lines(schema(), *users(1)))
    first, second = emulator.requests()
    assert second.arrived - first.answered >= 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_is_retried(emulator, when):
    """A connection that breaks before or after the change was applied is no failure."""
    emulator.drop_next(2, when)
    assert run(emulator, lines(schema(), *users(3))).error is None
    assert 3 == len(uids(emulator))


def test_without_any_acceptance_the_run_gives_up(emulator):
    """After max_retry_seconds without an acceptance the run fails, and says what to do."""
    emulator.fail_next(500, 1_000)
    now = iter(range(0, 100_000, 10))
    timing = Timing(clock=lambda: float(next(now)), jitter=lambda _seconds: 0.0)
    seen = run(emulator, lines(schema(), *users(1), state({"a": 1})), timing, max_retry_seconds=300)
    assert isinstance(seen.error, TryAgainError)
    assert "300 s (max_retry_seconds)" in str(seen.error)
    assert "HTTP 500" in str(seen.error)
    assert [] == seen.states


def test_a_429_uses_up_no_attempt(emulator):
    """However many 429 come, the run goes on as long as max_retry_seconds allows."""
    emulator.fail_next(429, 40, headers={"Retry-After": "0", "x-ratelimit-reset": "0"})
    seen = run(emulator, lines(schema(), *users(1)))
    assert seen.error is None
    assert 41 == len(emulator.requests())


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "check workspace_id, data_api_key and data_center"),
        (403, "check workspace_id, data_api_key and data_center"),
        (302, "check api_url and data_center"),
        (404, "check api_url and data_center"),
    ],
)
def test_an_answer_for_people_stops_the_run_at_once(emulator, status, text):
    """Refused credentials, redirects and unknown addresses stop the run, name the settings, and
    cost at most max_concurrency requests."""
    emulator.fail_next(status, 1_000)
    emulator.hold()  # so that as many as can are under way at once
    rows = [record(f"stream-{number % 20}", uid=f"u{number}") for number in range(200)]
    schemas = [schema(f"stream-{number}") for number in range(20)]

    def release(seen, _interrupt) -> None:
        if len(seen.attempts) >= 3:
            emulator.release()

    seen = run(emulator, lines(*schemas, *rows), before=release, max_concurrency=3)
    assert isinstance(seen.error, SettingsError)
    assert text in str(seen.error)
    assert 3 >= len(emulator.requests()) >= 1


def test_a_400_fails_the_run_with_the_apis_words_but_no_id(emulator):
    """A request refused for its content ends the run with MoEngage's message, scrubbed."""
    emulator.poison(["user-000007"], message="No profile has {id}")
    seen = run(emulator, lines(schema(), *users(20), state({"a": 1})))
    assert isinstance(seen.error, InputError)
    assert "MissingAttributeError: No profile has [redacted]" in str(seen.error)
    assert "'users'" in str(seen.error)
    assert [] == seen.states


def test_413_splits_the_body_and_lowers_the_budget():
    """A body that is too large is sent in pieces, and later ones are small from the start."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=30_000) as emulator:
        seen = run(emulator, lines(schema(), *users(2_000), state({"a": 1})))
        assert seen.error is None
        assert [{"a": 1}] == seen.states
        assert 2_000 == len(uids(emulator))
        refused = [request for request in emulator.requests() if request.status == 413]
        assert 2 == len(refused)


def test_a_single_member_that_is_too_large_for_moengage_fails_the_run():
    """Where nothing is left to split, the run fails, and nothing is passed by STATE."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=500) as emulator:
        seen = run(emulator, lines(schema(), record(uid="x" * 600), state({"a": 1})))
        assert isinstance(seen.error, InputError)
        assert "a member of the cohort 'users' cannot be delivered" in str(seen.error)
        assert "finds it too large" in str(seen.error)
        assert [] == seen.states


def test_covered_state_is_emitted_though_the_run_fails(emulator):
    """What was accepted before a failure is covered by the STATE that comes out."""
    emulator.poison(["user-000150"])
    rows = users(300)
    data = lines(schema(), *rows[:10], state({"rows": 10}), *rows[10:], state({"rows": 300}))
    seen = run(emulator, data, max_payload_bytes=1_000, max_concurrency=1)
    assert isinstance(seen.error, InputError)
    assert [{"rows": 10}] == seen.states


def test_reading_goes_on_while_requests_are_under_way(emulator):
    """The input is read to its end though no answer has come yet."""
    emulator.hold()
    asked = []

    def release(_seen, _interrupt) -> None:
        asked.append(1)
        if len(asked) == 2:  # the second cohort's first row is the input's last
            emulator.release()

    rows = users(5_000)
    data = lines(schema(), schema("last"), *rows, record("last", uid="u"))
    seen = run(emulator, data, before=release)
    assert seen.error is None
    assert 5_000 == len(uids(emulator))


def test_memory_for_closed_bodies_is_bounded(emulator, monkeypatch):
    """Promise 8: where requests are slower than the input, reading waits."""
    monkeypatch.setattr(dispatcher_module, "CLOSED_WEIGHT_LIMIT", 30_000)
    waiting = []
    real = dispatcher_module.Dispatcher.submit

    def submit(self, changes):
        real(self, changes)
        waiting.append(self._lanes.closed_weight)

    monkeypatch.setattr(dispatcher_module.Dispatcher, "submit", submit)
    emulator.latency(0.002)
    seen = run(emulator, lines(schema(), *users(20_000)), max_payload_bytes=5_000)
    assert seen.error is None
    assert 20_000 == len(uids(emulator))
    assert max(waiting) <= 30_000


def test_a_reader_of_state_that_is_slow_holds_up_no_request(emulator):
    """Requests go on while whoever reads STATE does not."""
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


def test_a_run_that_is_interrupted_in_a_retry_is_not_complete(emulator, tmp_path):
    """A request that was given up when the run was interrupted leaves the report failed."""
    report = tmp_path / "report.json"
    for _ in range(20):
        emulator.reset()
        emulator.fail_next(503, 10, headers={"Retry-After": "100"})

        def interrupt_soon(_seen, interrupt) -> None:
            threading.Timer(0.01, interrupt.set).start()

        seen = run(
            emulator,
            lines(schema(), *users(1), state({"a": 1})),
            before=interrupt_soon,
            report_path=str(report),
        )
        assert [] == seen.states
        written = json.loads(report.read_text())
        (cohort,) = written["cohorts"]
        assert ("failed", "no", 1) == (written["status"], cohort["complete"], cohort["in_doubt"])


def test_a_state_that_cannot_be_written_fails_the_run(emulator):
    """A run whose last STATE is lost does not pass for a good one."""

    def write_state(_value: bytes) -> None:
        msg = "nobody reads it"
        raise TryAgainError(msg)

    data = lines(schema(), *users(1), state({"a": 1}))
    errors = [run(emulator, data, write_state=write_state).error for _ in range(20)]
    assert [True] * 20 == [isinstance(error, TryAgainError) for error in errors]


def test_an_accepted_part_of_a_split_body_frees_its_state():
    """After a 413, STATE is covered by the part that was accepted, though a later one fails."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=3_000) as emulator:
        emulator.poison(["user-000199"])
        rows = users(200)
        data = lines(schema(), rows[0], state({"rows": 1}), *rows[1:], state({"rows": 200}))
        seen = run(emulator, data, max_payload_bytes=5_000)
        assert isinstance(seen.error, InputError)
        assert [{"rows": 1}] == seen.states
