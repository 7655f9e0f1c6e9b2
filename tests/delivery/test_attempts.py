"""One request until its acceptance or final failure, against the emulator."""

import pytest

from target_moengage_cohort.core.errors import InputError, SettingsError, TryAgainError
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED, lines, record, run, schema, state


def users(count: int, start: int = 0) -> list[dict]:
    return [record(uid=f"user-{number:06}") for number in range(start, start + count)]


def uids(emulator: Emulator, cohort: str = "users") -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


def test_a_server_error_is_retried_with_the_same_bytes(emulator):
    """A 5xx is retried with the same bytes until it is accepted, which settles its doubt."""
    emulator.fail_next(503, 3)
    seen = run(emulator, lines(schema(), *users(2)))
    assert seen.error is None
    assert [503, 503, 503, 200] == [request.status for request in emulator.requests()]
    assert 1 == len({request.digest for request in emulator.requests()})
    assert (2, 0) == (seen.report.cohorts[0].added, seen.report.cohorts[0].in_doubt)


def test_a_503_with_retry_after_waits_at_least_so_long(emulator):
    """Retry-After is a minimum for the wait before a retry."""
    emulator.fail_next(503, headers={"Retry-After": "1"})
    run(emulator, lines(schema(), *users(1)))
    first, second = emulator.requests()
    assert second.arrived - first.answered >= 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_is_retried(emulator, when):
    """A connection that breaks before or after the change was applied does not fail the run."""
    emulator.drop_next(2, when)
    assert run(emulator, lines(schema(), *users(3))).error is None
    assert 3 == len(uids(emulator))


def test_without_any_acceptance_the_run_gives_up(emulator):
    """After max_retry_seconds without an acceptance the run fails."""
    emulator.fail_next(500, 1_000)
    now = iter(range(0, 100_000, 10))
    timing = Timing(clock=lambda: float(next(now)), jitter=lambda _seconds: 0.0)
    seen = run(emulator, lines(schema(), *users(1), state({"a": 1})), timing, max_retry_seconds=300)
    assert isinstance(seen.error, TryAgainError)
    assert "retries_exhausted" == seen.error.code
    assert [] == seen.states


def test_a_network_error_names_its_host_and_attempt(emulator):
    """The final error after broken connections names the host and how many attempts there were."""
    emulator.drop_next(1_000)
    now = iter(range(0, 100_000, 10))
    timing = Timing(clock=lambda: float(next(now)), jitter=lambda _seconds: 0.0)
    seen = run(emulator, lines(schema(), *users(1)), timing, max_retry_seconds=300)
    assert "retries_exhausted" == seen.error.code
    attempts = len(seen.attempts)
    assert attempts > 1
    for part in (emulator.url.removeprefix("http://"), f"(attempt {attempts})"):
        assert part in str(seen.error)


def test_a_429_that_asks_for_too_long_ends_the_run(emulator):
    """A 429 that asks for longer than max_retry_seconds ends the run with a code of its own."""
    emulator.fail_next(429, headers={"Retry-After": "3600"})
    seen = run(emulator, lines(schema(), *users(1)), max_retry_seconds=5)
    assert (TryAgainError, "rate_limited") == (type(seen.error), seen.error.code)
    assert 1 == len(seen.attempts)


def test_a_429_uses_up_no_attempt(emulator):
    """However many 429s come, the run continues for as long as max_retry_seconds allows."""
    emulator.fail_next(429, 40, headers={"Retry-After": "0", "x-ratelimit-reset": "0"})
    seen = run(emulator, lines(schema(), *users(1)))
    assert seen.error is None
    assert 41 == len(emulator.requests())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "credentials_refused"),
        (403, "credentials_refused"),
        (302, "unexpected_answer"),
        (404, "unexpected_answer"),
    ],
)
def test_an_answer_for_people_stops_the_run(emulator, status, code):
    """Refused credentials, redirects and unknown addresses stop the run, and take at most
    max_concurrency requests."""
    emulator.fail_next(status, 1_000)
    emulator.hold()  # so that as many as possible are under way concurrently
    rows = [record(f"stream-{number % 20}", uid=f"u{number}") for number in range(200)]
    schemas = [schema(f"stream-{number}") for number in range(20)]

    def release(seen, _interrupt) -> None:
        if len(seen.attempts) >= 3:
            emulator.release()

    seen = run(emulator, lines(*schemas, *rows), before=release, max_concurrency=3)
    assert isinstance(seen.error, SettingsError)
    assert code == seen.error.code
    assert 3 >= len(emulator.requests()) >= 1


def test_a_400_fails_the_run_with_the_apis_words_but_no_id(emulator):
    """A request refused for its content ends the run with MoEngage's message, scrubbed."""
    emulator.poison(["user-000007"], message="No profile has {id}")
    seen = run(emulator, lines(schema(), *users(20), state({"a": 1})))
    assert isinstance(seen.error, InputError)
    assert "MissingAttributeError: No profile has [redacted]" in str(seen.error)
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
    """If a body cannot be split further, the run fails and no STATE is emitted."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=500) as emulator:
        seen = run(emulator, lines(schema(), record(uid="x" * 600), state({"a": 1})))
        assert isinstance(seen.error, InputError)
        assert [] == seen.states


def test_an_accepted_part_of_a_split_body_frees_its_state():
    """After a 413 an accepted part covers its STATE, even if a later part fails."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=3_000) as emulator:
        emulator.poison(["user-000199"])
        rows = users(200)
        data = lines(schema(), rows[0], state({"rows": 1}), *rows[1:], state({"rows": 200}))
        seen = run(emulator, data, max_payload_bytes=5_000)
        assert isinstance(seen.error, InputError)
        assert [{"rows": 1}] == seen.states
