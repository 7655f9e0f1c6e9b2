"""Calls of the Segments and the Analytics API, each within its limit, until a final answer."""

from __future__ import annotations

import logging
import threading
import typing as t
from concurrent.futures import Future

import msgspec

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.delivery.ports import NoAnswerError
from target_moengage_cohort.delivery.retries import RETRIED, Waits
from target_moengage_cohort.moengage.answers import Answer, Outcome

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.rate_limits import RateLimit
    from target_moengage_cohort.delivery.pace import Permits
    from target_moengage_cohort.delivery.ports import Timing
    from target_moengage_cohort.moengage.calls import Call, Send

logger = logging.getLogger(__name__)

_SILENT_SECONDS = 5.0  # a wait that needs no line in the log
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0  # for an answer that is still to come when the command is to end
_LONG_SECONDS = 600.0  # a limit without a shorter span has few permits
_LONGEST_HOLD_SECONDS = 86_400.0


class ApiCalls:
    """Sends calls; safe to share between threads.

    `attempt` sends a call once; `permits` opens those of a limit. ``wait`` waits for so many
    seconds, and returns whether the run is to end instead.
    """

    def __init__(
        self,
        attempt: Send,
        permits: Callable[[RateLimit], Permits],
        wait: Callable[[float], bool],
        timing: Timing,
        max_retry_seconds: int,
    ) -> None:
        self._attempt = attempt
        self._open = permits
        self._wait = wait
        self._timing = timing
        self._max_retry_seconds = max_retry_seconds
        self._permits: dict[str, Permits] = {}
        self._lock = threading.Lock()

    def send(self, call: Call) -> Answer:
        """Send a call until it has a final answer; see `Send`.

        It waits for permits and before retries, up to `max_retry_seconds` at a time. Any error is a
        `NoAnswerError`.
        """
        permits, waits, is_doubted = self._of(call.limit), Waits(self._timing.jitter), False
        began = self._timing.clock()
        while True:
            self._take(call, permits, self._max_retry_seconds, is_doubted=is_doubted)
            answer = self._attempted(call)
            if answer.outcome not in RETRIED:
                return msgspec.structs.replace(answer, is_doubted=is_doubted)
            is_doubted |= answer.sent and answer.outcome is Outcome.RETRY
            seconds, attempt = self._wait_after(call, permits, answer, waits, is_doubted=is_doubted)
            if self._timing.clock() + seconds - began >= self._max_retry_seconds:
                raise _exhausted(call, answer, attempt, is_doubted=is_doubted)
            logger.info(
                "could not %s: %s%s; trying again in %.0f s",
                call.what,
                answer.summary,
                attempt,
                seconds,
            )
            if answer.outcome is Outcome.RETRY and self._wait(seconds):
                raise _interrupted(call, is_doubted=is_doubted)

    def send_at_once(self, call: Call) -> Answer:
        """Send a call once if there is a permit now; never wait, and never retry."""
        permits = self._of(call.limit)
        self._take(call, permits, 0)
        answer = self._attempted(call)
        if answer.outcome in RETRIED:
            waits = Waits(self._timing.jitter)
            seconds, _ = self._wait_after(call, permits, answer, waits)
            if answer.outcome is Outcome.RATE_LIMITED:
                raise _limited(call, seconds)
            raise _exhausted(call, answer, "", is_doubted=answer.sent)
        return answer

    def reserve(self, limit: RateLimit, count: int) -> float:
        """Take so many permits that no call takes, or return the seconds until there may be."""
        if (seconds := self._of(limit).take(count)) is None:
            msg = (
                f"interrupted: no requests were reserved within the rate limit {limit.name}. "
                "Run the command again"
            )
            raise TryAgainError("interrupted", msg)
        return seconds

    def release(self, limit: RateLimit, count: int) -> None:
        """Give back so many of the permits that `reserve` has taken."""
        self._of(limit).give_back(count)

    def close(self) -> None:
        """Close the windows of the limits; there are no permits from then on."""
        with self._lock:
            for permits in self._permits.values():
                permits.close()

    def _of(self, limit: RateLimit) -> Permits:
        with self._lock:
            if limit.name not in self._permits:
                self._permits[limit.name] = self._open(limit)
            return self._permits[limit.name]

    def _attempted(self, call: Call) -> Answer:
        """Attempt a call, whose answer a command that is to end does not wait for.

        So a thread of its own waits for the answer.
        """
        future: Future[Answer] = Future()

        def attempt() -> None:
            try:
                future.set_result(self._attempt(call))
            except BaseException as error:  # noqa: BLE001 - raised where the result is taken
                future.set_exception(error)

        thread = threading.Thread(target=attempt, name="call", daemon=True)
        thread.start()
        thread.join(_POLL_SECONDS)
        while thread.is_alive() and not self._wait(0.0):
            thread.join(_POLL_SECONDS)
        thread.join(_GRACE_SECONDS)
        if not future.done():
            return Answer(Outcome.RETRY, "stopped before the answer came")
        return future.result()

    def _take(
        self, call: Call, permits: Permits, longest_seconds: float, *, is_doubted: bool = False
    ) -> None:
        """Take a permit, or raise the error that says why there is none."""
        seconds = permits.take()
        if seconds and seconds > longest_seconds:
            raise _limited(call, seconds, is_doubted=is_doubted)
        if seconds:
            level = logging.INFO if seconds > _SILENT_SECONDS else logging.DEBUG
            logger.log(
                level,
                "waiting for %.0f s to %s, because MoEngage limits the rate of such requests",
                seconds,
                call.what,
                extra={"code": "waiting_for_rate_limit"},
            )
        if seconds is None or (seconds and not permits.acquire()):
            raise _interrupted(call, is_doubted=is_doubted)

    def _wait_after(
        self,
        call: Call,
        permits: Permits,
        answer: Answer,
        waits: Waits,
        *,
        is_doubted: bool = False,
    ) -> tuple[float, str]:
        """Return how long to wait, and the attempt; a 429 holds all calls of its limit."""
        seconds, attempt = waits.after(answer)
        if answer.outcome is Outcome.RATE_LIMITED:
            shortest = min(call.limit.spans, key=lambda span: span.seconds)
            is_sparse = answer.asked_seconds is None and shortest.seconds > _LONG_SECONDS
            if is_sparse:  # retries would use up its permits: on average it has one so often
                seconds = shortest.seconds / shortest.requests
            seconds = answer.asked_seconds or seconds
            permits.hold(min(seconds, _LONGEST_HOLD_SECONDS))
            if is_sparse or seconds > self._max_retry_seconds:
                raise _limited(call, seconds, is_doubted=is_doubted)
        return seconds, attempt


def _exhausted(call: Call, answer: Answer, attempt: str, *, is_doubted: bool) -> NoAnswerError:
    msg = (
        f"cannot {call.what}: {answer.summary}{attempt}. Try again later; if it fails again, check "
        "the network, data_center and api_url"
    )
    return NoAnswerError("retries_exhausted", msg, call, is_doubted=is_doubted)


def _limited(call: Call, seconds: float, *, is_doubted: bool = False) -> NoAnswerError:
    msg = (
        f"cannot {call.what} now: MoEngage's rate limit for such requests is used up. Try again "
        f"in {seconds:,.0f} s"
    )
    return NoAnswerError("rate_limited", msg, call, is_doubted=is_doubted)


def _interrupted(call: Call, *, is_doubted: bool) -> NoAnswerError:
    what = "no answer was received to the request to" if is_doubted else "did not"
    msg = f"interrupted: {what} {call.what}. Run the command again"
    return NoAnswerError("interrupted", msg, call, is_doubted=is_doubted)
