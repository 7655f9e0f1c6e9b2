"""Calls of the Segments and the Analytics API: permits, waits and retries."""

import contextlib
import functools
import itertools
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import TargetError, TryAgainError
from target_moengage_cohort.core.rate_limits import RateLimit, Span
from target_moengage_cohort.delivery.api_calls import ApiCalls
from target_moengage_cohort.delivery.local_window import BootClock, LocalWindow
from target_moengage_cohort.delivery.pace import Permits, api_permits
from target_moengage_cohort.delivery.ports import NoAnswerError, Timing
from target_moengage_cohort.emulator import Emulator, ManualClock
from target_moengage_cohort.emulator.quotas import LIMITS
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage import calls as limits
from target_moengage_cohort.moengage.answers import Answer, Outcome
from target_moengage_cohort.moengage.calls import Api, Call
from target_moengage_cohort.moengage.filters import all_of, attribute_in
from target_moengage_cohort.moengage.segments import FileSource
from target_moengage_cohort.settings import load
from tests.delivery.test_pace import Clock, no_wait
from tests.support.apis import Callers, all_users
from tests.support.permits import workspace
from tests.support.strategies import histories

_numbers = itertools.count()
DAY = 86_400
CALL = Call(Api.SEGMENTS, limits.LIST, "GET", "/x", "list the segments", "/x")
OURS = {
    each.name: each
    for each in (limits.ARCHIVE, limits.FILE, limits.LIST, limits.GET, limits.CREATE)
} | {"analytics": limits.ANALYTICS}


@pytest.fixture
def callers():
    with Emulator(clock=ManualClock()) as emulator:
        callers = Callers(emulator)
        with contextlib.closing(callers.calls):
            yield callers


def test_each_limit_is_the_documented_one():
    """Each limit has the documented windows, two seconds longer than MoEngage's."""
    for name, limit in OURS.items():
        assert LIMITS[name] == {span.seconds - 2: span.requests for span in limit.spans}


FILE = FileSource(attribute_name="uid", file_url="http://127.0.0.1:1/x")
METHODS = {
    "list": lambda c: c.list(),
    "get": lambda c: c.get("a" * 24),
    "create": lambda c: c.create("x", all_of(attribute_in("uid", ["u"]))),
    "update": lambda c: c.update("a" * 24, all_of(attribute_in("uid", ["u"]))),
    "archive": lambda c: c.archive("x"),
    "unarchive": lambda c: c.unarchive("x"),
    "create_file": lambda c: c.create_file("file", FILE, 1),
    "add_users": lambda c: c.add_users("file", FILE),
    "remove_users": lambda c: c.remove_users("file", FILE),
    "replace_users": lambda c: c.replace_users("file", FILE),
}
QUERIES = {
    "query": lambda c: c.count([all_of(all_users())]),
    "status": lambda c: c.status("x"),
    "results": lambda c: c.results("x", 1),
}
# The pauses are long, so that windows of an hour and of a day fill up, too.
pauses = st.one_of(st.floats(0, 70), st.floats(0, 4_000), st.floats(0, 90_000))
steps = histories(
    st.one_of(
        st.tuples(st.sampled_from([*METHODS]), st.integers(1, 120)),
        st.tuples(st.sampled_from([*QUERIES]), st.integers(1, 40)),
        st.tuples(st.just("pause"), pauses),
        st.tuples(st.just("fail"), st.sampled_from([429, 500])),
    ),
    12,
)


@given(steps=steps)
@settings(max_examples=15)
def test_no_sequence_of_calls_passes_a_limit(tmp_path_factory, steps):
    """Promise 3: however calls of two processes follow each other, some of them waiting for their
    permits and some not, MoEngage never answers 429, in any of its windows."""
    with pytest.MonkeyPatch.context() as patch, Emulator(clock=ManualClock()) as emulator:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        both = [Callers(emulator), Callers(emulator)]
        ours, injected = itertools.cycle(both), 0
        for name, value in steps:
            if name == "pause":
                emulator.clock.advance(value)
            elif name == "fail":
                emulator.apis.fail_next(value, headers={"Retry-After": "5"})
                injected += value == 429
            else:
                for number in range(value):
                    _call(next(ours), name, hasty=bool(number % 2))
        for each in both:
            each.calls.close()
        refused = [each for each in emulator.apis.calls() if each.status == 429]
        assert len(refused) <= injected
        assert not [each for each in refused if each.error is not None]


def _call(callers, name, *, hasty):
    with contextlib.suppress(TargetError):
        if name in QUERIES:
            QUERIES[name](callers.analytics)
        else:
            METHODS[name](callers.hasty if hasty else callers.segments)


class Windows:
    """The windows of some processes, with several spans, and what was started."""

    def __init__(self, limit, windows, let_pass):
        self.limit, self.windows, self.let_pass = limit, windows, let_pass
        self.now, self.starts = 0.0, []
        self.most = min(span.requests for span in limit.spans)
        self.unused = None  # a window that took permits in this moment, and how many

    def step(self, name, value):
        if name == "pass":
            self.let_pass(value)
            self.now += value
            self.unused = None
            return
        window, count = self.windows[value % len(self.windows)], min(1 + value // 3, self.most)
        if name == "give back":
            if self.unused is not None and self.unused[0] is window:
                count = min(count, self.unused[1])
                window.give_back(count)
                self.starts = self.starts[: len(self.starts) - count]
                self.unused = (window, self.unused[1] - count)
            return
        self.take(window, count)

    def take(self, window, count):
        blocked = window.take(count)
        for requests, seconds in self.limit.spans:
            recent = [start for start in self.starts if self.now - start < seconds - 0.5]
            assert blocked or len(recent) + count <= requests
        if not blocked:
            self.starts += count * [self.now]
            self.unused = (window, count)
            return
        # Refused with reason, and for no longer than a span.
        assert 0 < blocked <= self.limit.longest + 0.5
        assert any(
            len([each for each in self.starts if self.now - each < seconds + 0.5]) + count
            > requests
            for requests, seconds in self.limit.spans
        )


span_steps = histories(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("take"), st.integers(0, 11)),
        st.tuples(st.just("give back"), st.integers(0, 11)),
        st.tuples(st.just("pass"), st.integers(0, 40)),
        st.tuples(st.just("pass"), st.integers(0, 250)),
    ),
    40,
)
several = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([3.0, 30.0, 200.0])),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each[1],
)


@given(steps=span_steps, spans=several)
@settings(max_examples=60)
def test_no_window_of_several_has_more_starts_than_allowed(tmp_path_factory, steps, spans):
    """Promise 3: with any interleaving of three processes, which take one or several permits and
    give some back, an attempt is granted exactly if every span has room."""
    limit = RateLimit("some", tuple(Span(*each) for each in spans))
    clock, path = Clock(), tmp_path_factory.mktemp("pace") / "some.sqlite3"
    made = [LocalWindow(path, limit, BootClock(clock, "wall"), no_wait) for _ in range(3)]
    windows = [Permits(each, no_wait, clock) for each in made]
    with contextlib.ExitStack() as stack:
        for each in windows:
            stack.enter_context(contextlib.closing(each))
        world = Windows(limit, windows, clock.wait)
        for step in steps:
            world.step(*step)


def test_permits_that_have_expired_are_nobody_s_to_give_back(tmp_path):
    """A process that gives back permits after their time gives back none of another process."""
    clock, limit = Clock(), RateLimit("some", (Span(5, 60.0),))
    made = [LocalWindow(tmp_path / "some", limit, BootClock(clock, "wall"), no_wait) for _ in "ab"]
    slow, other = (Permits(each, no_wait, clock) for each in made)
    assert 0 == slow.take(3)
    clock.wait(61)
    assert 0 == other.take(5)
    slow.give_back(3)
    assert other.take()
    other.give_back(2)
    assert 0 == slow.take(2)
    for each in (slow, other):
        each.close()


@given(steps=span_steps, spans=several)
@settings(max_examples=10)
def test_hosts_share_windows_of_several_spans(server, tmp_path_factory, steps, spans):
    """Promise 3: hosts whose own clocks and directories differ share the windows of a server."""
    limit = RateLimit("some", tuple(Span(*each) for each in spans))
    database = server.new_database(f"calls_{next(_numbers)}")
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/{database.database}"
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "p"}
    loaded = load({**raw, "ledger_uri": uri}).settings
    clocks = [Clock(1_000 * (number + 1)) for number in range(2)]
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        windows = []
        for clock in clocks:
            patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
            store = stack.enter_context(
                open_store(loaded, run_id=f"run-{next(_numbers)}", wait=no_wait)
            )
            permits = api_permits(loaded, no_wait, store, clock, limit)
            windows.append(stack.enter_context(contextlib.closing(permits)))
        ((schema,),) = database.query(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
        )

        def let_pass(seconds):
            for clock in clocks:
                clock.now += seconds
            database.execute(f"UPDATE {schema}.pace SET until = until - {seconds}")

        world = Windows(limit, windows, let_pass)
        for step in steps:
            world.step(*step)


def test_a_short_span_of_a_server_has_room_before_a_long_one(server):
    """A start of another host leaves the short span after its seconds, while it counts for the
    long one."""
    database = server.new_database(f"calls_{next(_numbers)}")
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/{database.database}"
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "p"}
    loaded = load({**raw, "ledger_uri": uri}).settings
    with open_store(loaded, run_id="r", wait=no_wait) as store:
        window = store.shared_window(RateLimit("some", (Span(1, 3), Span(2, 200))))
        ((schema,),) = database.query(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
        )

        def let_pass(seconds):
            database.execute(f"UPDATE {schema}.pace SET until = until - {seconds}")

        assert 0 == window.acquire()
        assert 0 < window.acquire() <= 3
        let_pass(3)
        assert 0 == window.acquire()
        let_pass(3)
        assert 190 < window.acquire() <= 197
        let_pass(194)
        assert 0 == window.acquire()
        window.close()


def test_limits_of_another_name_share_nothing(server):
    """A limit that is used up, or held after a 429, leaves the others and Cohort Sync alone."""
    database = server.new_database(f"calls_{next(_numbers)}")
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/{database.database}"
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "p"}
    loaded = load({**raw, "ledger_uri": uri}).settings
    with open_store(loaded, run_id="r", wait=no_wait) as store:
        opened = functools.partial(api_permits, loaded, no_wait, store, Clock())
        one, two = opened(limits.ARCHIVE), opened(limits.LIST)
        for _ in range(50):
            assert 0 == one.take()
        one.hold(600)
        assert one.take() > 62
        assert 0 == two.take()
        assert 0 == store.shared_window(RateLimit("cohort_sync", (Span(1, 62),))).acquire()


def test_a_day_outlives_a_boot(monkeypatch):
    """The starts of a day count for a day, whatever the boot's id; a clock that was set back does
    not stop all calls for longer than that."""
    clock = Clock(1_800_000_000)
    opened = functools.partial(api_permits, workspace(), no_wait, None, clock)
    with contextlib.closing(opened(limits.FILE)) as permits:
        for _ in range(10):
            assert 0 == permits.take()
    monkeypatch.setattr("target_moengage_cohort.delivery.pace._boot_id", lambda: "another")
    clock.now += 1_800
    with contextlib.closing(opened(limits.FILE)) as permits:
        assert 1_802 == permits.take()
        clock.now -= 1_800
        for _ in range(9):
            clock.now += 3_602
            for _ in range(10):
                assert 0 == permits.take()
        clock.now += 3_602
        assert permits.take() == pytest.approx(DAY + 2 - 10 * 3_602)
        clock.now -= 365 * DAY
        assert permits.take() <= DAY + 2


@pytest.mark.parametrize("status", [500, 503, 408])
def test_an_outage_is_retried_with_growing_waits(callers, status):
    """Errors of the server are retried after longer and longer waits, until there is an answer."""
    callers.emulator.apis.fail_next(status, 4)
    assert () == callers.segments.list()
    assert [1, 2, 4, 8] == callers.waits


def test_a_429_waits_as_long_as_it_asks(callers):
    """A 429 holds all calls of its limit for `Retry-After`, and no others; then it is retried."""
    callers.emulator.apis.fail_next(429, headers={"Retry-After": "90"})
    began = callers.emulator.clock.monotonic()
    assert () == callers.segments.list()
    assert 90 <= callers.emulator.clock.monotonic() - began <= 91
    callers.emulator.apis.fail_next(429, headers={"Retry-After": "90"})
    with pytest.raises(TryAgainError) as error:
        callers.hasty.list()
    assert "rate_limited" == error.value.code
    sent = len(callers.emulator.apis.calls())
    with pytest.raises(TryAgainError):
        callers.hasty.list()
    assert sent == len(callers.emulator.apis.calls())
    callers.analytics.count([all_of(all_users())])


def test_a_429_that_asks_for_too_long_is_an_error(callers):
    """A wait beyond max_retry_seconds is an error with the time, and nobody waits for it."""
    callers.emulator.apis.fail_next(429, headers={"Retry-After": "7200"})
    with pytest.raises(TryAgainError, match="7,200 s") as error:
        callers.segments.list()
    assert ("rate_limited", []) == (error.value.code, callers.waits)


@pytest.mark.parametrize("asked", [7_200, 80_000])
def test_a_429_holds_all_commands_for_as_long_as_it_asks(callers, asked):
    """However long a 429 asks to wait, the next command sends nothing before; then one does."""
    callers.emulator.apis.fail_next(429, headers={"Retry-After": str(asked)})
    for seconds in (0, asked - 100):
        callers.emulator.clock.advance(seconds)
        with pytest.raises(TryAgainError) as error:
            callers.hasty.list()
        assert ("rate_limited", 1) == (error.value.code, len(callers.emulator.apis.calls()))
    callers.emulator.clock.advance(101)
    assert () == callers.hasty.list()


def test_a_429_that_asks_for_too_much_holds_for_a_day(callers):
    """No answer stops a limit's calls for longer than its longest window."""
    callers.emulator.apis.fail_next(429, headers={"Retry-After": str(30 * DAY)})
    with pytest.raises(TryAgainError):
        callers.segments.list()
    callers.emulator.clock.advance(DAY + 1)
    assert () == callers.segments.list()


def test_a_429_that_asks_for_nothing_uses_up_no_file_operations(callers):
    """Where a limit has few permits, a 429 that does not say for how long is no reason to try
    again: it is an error, and the next call waits for as long as one permit takes on average."""
    silent = {"Retry-After": "", "x-ratelimit-reset": ""}
    callers.emulator.apis.fail_next(429, 100, headers=silent)
    with pytest.raises(TryAgainError) as error:
        callers.segments.add_users("x", FILE)
    assert ("rate_limited", [], 1) == (
        error.value.code,
        callers.waits,
        len(callers.emulator.apis.calls()),
    )
    with pytest.raises(TryAgainError) as error:
        callers.hasty.add_users("x", FILE)
    assert ("rate_limited", 1) == (error.value.code, len(callers.emulator.apis.calls()))
    callers.emulator.clock.advance(361)
    with pytest.raises(TryAgainError):
        callers.hasty.add_users("x", FILE)
    assert 2 == len(callers.emulator.apis.calls())


def test_a_429_that_asks_for_nothing_is_retried_where_permits_come_soon(callers):
    """A limit per minute has room again soon, so that such a 429 is retried."""
    silent = {"Retry-After": "", "x-ratelimit-reset": ""}
    callers.emulator.apis.fail_next(429, 2, headers=silent)
    assert () == callers.segments.list()


def test_an_outage_that_lasts_is_an_error(callers):
    """After max_retry_seconds of errors there is an error, and no call is sent any more."""
    callers.emulator.apis.fail_next(500, 1_000)
    with pytest.raises(TryAgainError) as error:
        callers.segments.list()
    assert "retries_exhausted" == error.value.code
    assert 800 < sum(callers.waits) < 900


def test_a_refusal_is_not_retried(callers):
    """What a retry cannot change is final at once."""
    for status in (400, 401, 403, 404, 409, 412, 413, 415, 424, 428):
        callers.emulator.apis.fail_next(status)
        with pytest.raises(TargetError):
            callers.segments.list()
    assert (10, []) == (len(callers.emulator.apis.calls()), callers.waits)


def test_a_caller_in_haste_neither_waits_nor_retries(callers):
    """An outage is an error at once."""
    callers.emulator.apis.drop_next()
    with pytest.raises(TryAgainError) as error:
        callers.hasty.list()
    assert ("retries_exhausted", []) == (error.value.code, callers.waits)


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.RATE_LIMITED])
def test_a_wait_ends_when_the_command_is_to_end(outcome):
    """An interrupt ends the wait for a permit and before a retry, with an error of its own."""
    permits = functools.partial(api_permits, workspace(), no_wait, None, Clock())
    calls = ApiCalls(
        lambda _call: Answer(outcome, "x"), permits, no_wait, Timing(jitter=float), 900
    )
    with contextlib.closing(calls), pytest.raises(TryAgainError) as error:
        calls.send(CALL)
    assert "interrupted" == error.value.code


LOST = Answer(Outcome.RETRY, "x")
HELD = Answer(Outcome.RATE_LIMITED, "x", asked_seconds=7_200)
CHANGE = msgspec.structs.replace(CALL, method="PATCH")


@pytest.mark.parametrize(
    ("answers", "call", "is_doubted", "is_said"),
    [
        ([LOST], CHANGE, True, True),
        ([LOST, HELD], CHANGE, True, True),
        ([LOST], CALL, True, False),
        ([HELD], CHANGE, False, False),
        ([msgspec.structs.replace(LOST, sent=False), HELD], CHANGE, False, False),
    ],
)
@pytest.mark.parametrize("ends", [False, True])
def test_an_error_says_whether_the_call_may_have_been_applied(
    answers, call, is_doubted, is_said, ends
):
    """After an attempt without an answer, each error says that a change may have been applied."""
    clock = Clock()
    permits = functools.partial(api_permits, workspace(), no_wait, None, clock)
    left = iter(answers)

    def wait(seconds):
        clock.now += seconds
        return ends

    timing = Timing(clock, jitter=float)
    calls = ApiCalls(lambda _call: next(left, answers[-1]), permits, wait, timing, 900)
    with contextlib.closing(calls), pytest.raises(NoAnswerError) as error:
        calls.send(call)
    assert (is_doubted, is_said) == (
        error.value.is_doubted,
        "may have been applied" in str(error.value),
    )


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch):
    """When a command is to end, it waits for an answer for some seconds only; the error says that
    the call may have been applied."""
    monkeypatch.setattr("target_moengage_cohort.delivery.api_calls._GRACE_SECONDS", 0.1)
    permits = functools.partial(api_permits, workspace(), no_wait, None, Clock())
    answered = threading.Event()

    def attempt(_call):
        answered.wait(60)
        return Answer(Outcome.ACCEPTED, "x")

    calls = ApiCalls(attempt, permits, no_wait, Timing(jitter=float), 900)
    with contextlib.closing(calls), pytest.raises(NoAnswerError) as error:
        calls.send(CHANGE)
    answered.set()
    assert ("interrupted", True) == (error.value.code, error.value.is_doubted)


def test_an_error_of_an_attempt_is_raised():
    """A bug in an attempt ends the call with its own error."""

    def attempt(_call):
        raise ZeroDivisionError

    permits = functools.partial(api_permits, workspace(), no_wait, None, Clock())
    calls = ApiCalls(attempt, permits, no_wait, Timing(jitter=float), 900)
    with contextlib.closing(calls), pytest.raises(ZeroDivisionError):
        calls.send(CALL)


def test_live_calls_use_the_windows_of_a_store(server):
    """With a store, a host's permits are those of all hosts."""
    database = server.new_database(f"calls_{next(_numbers)}")
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/{database.database}"
    with Emulator(clock=ManualClock()) as emulator:
        loaded = Callers(emulator, ledger_uri=uri).settings
        with open_store(loaded, run_id="r", wait=no_wait) as store:
            callers = Callers(emulator, store, ledger_uri=uri)
            assert () == callers.segments.list()
            callers.calls.close()
        ((schema,),) = database.query(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
        )
        assert [("list start",)] == database.query(f"SELECT kind FROM {schema}.pace")
