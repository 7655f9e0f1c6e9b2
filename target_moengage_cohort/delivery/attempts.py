"""One request, from its first attempt until it is accepted or that is out of the question.

A retry keeps its lane and its bytes. This is the only place that retries; and a request that is
refused for what it says is narrowed down here, until those who are refused stand alone.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from collections import Counter

import backoff
import msgspec

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.moengage.answers import Answer, Outcome, offence, verdict

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Cohort, Member
    from target_moengage_cohort.delivery.checkpoints import Checkpoints
    from target_moengage_cohort.delivery.lanes import Lane, Lanes, Request
    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60
_MOST_REFUSED = 40  # of a run, and of a new cohort, of which nothing was accepted yet
_WORTH_SINGLING = 7
_ISOLATED = (Outcome.REFUSED, Outcome.TOO_LARGE)
_PERHAPS_APPLIED = (Outcome.ACCEPTED, Outcome.RETRY, Outcome.UNEXPECTED)


class Totals(msgspec.Struct):
    """The run's numbers so far: of all lanes together."""

    accepted: int = 0
    requests: int = 0
    refused: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0


class Timing(msgspec.Struct, frozen=True):
    """Where time and chance come from; tests bring their own.

    Attributes:
        clock: A monotonic clock in seconds.
        wall_clock: Seconds since 1970, for timestamps.
        jitter: From the longest wait before a retry to the one taken, in seconds.
    """

    clock: t.Callable[[], float] = time.monotonic
    wall_clock: t.Callable[[], float] = time.time
    jitter: t.Callable[[float], float] = backoff.full_jitter


class Callbacks(msgspec.Struct, frozen=True):
    """What delivery calls.

    Attributes:
        attempt: Sends one body once, as `Client.attempt` does.
        emit: Writes a covered STATE; called in order, by one thread at a time.
        reject: Takes a member whom MoEngage refuses, and why; returns the error that this is, if
            the run is to end with it.
    """

    attempt: t.Callable[[bytes], Answer]
    emit: t.Callable[[bytes], None]
    reject: t.Callable[[Cohort, Action, Member, str], TargetError | None]


class Attempts:
    """Sends requests that the lanes gave out, and settles what is accepted.

    Args:
        settings: Limits.
        callbacks: Sends bodies and rejects members.
        pace: Permits to start a request; ``None`` needs none.
        interrupt: Ends every wait.
        timing: Clocks and jitter.
        lanes: What a request is split into goes back to them.
        checkpoints: What acceptances settle.
        fail: Takes what the run is to end with; called with the lock held.

    Attributes:
        changed: The lock of all this; notified when there is news.
        totals: The run's numbers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        callbacks: Callbacks,
        pace: Pace | None,
        interrupt: Interrupt,
        timing: Timing,
        lanes: Lanes,
        checkpoints: Checkpoints,
        fail: t.Callable[[TargetError], None],
    ) -> None:
        self._settings = settings
        self._attempt = callbacks.attempt
        self._reject = callbacks.reject
        self._pace = pace
        self._interrupt = interrupt
        self._clock = timing.clock
        self._jitter = timing.jitter
        self._lanes = lanes
        self._checkpoints = checkpoints
        self.changed = threading.Condition()
        self._fail = fail
        self.totals = Totals()
        self._ended = False
        self._under_way: set[Request] = set()  # no answer yet
        self._doubted: set[Request] = set()  # perhaps applied, though not accepted
        self._last_accepted = timing.clock()
        self._refused_since: float | None = None  # while nothing is accepted
        self._throttled = 0
        self._throttled_since = 0.0

    def end(self) -> None:
        """Count what has no answer as in doubt, and no answer from now on; with the lock held."""
        self._ended = True
        for request in self._under_way | self._doubted:
            request.lane.in_doubt += request.body.count

    def deliver(self, request: Request, ledger: Ledger | None) -> None:
        """Attempt a request until it is accepted, or until that is out of the question.

        Args:
            request: The request.
            ledger: Knows of it before it leaves, and what came of it.

        Raises:
            LedgerError: The ledger cannot be written.
            TargetError: The callback that rejects a member has failed.
        """
        if ledger is None:
            self._attempted(request, lambda: None)
            return
        body = request.body
        number = ledger.sent(body.action, body.decode(), request.lane.last_timestamp)
        if self._attempted(request, lambda: ledger.accepted(number)):
            ledger.refused(number)

    def _attempted(self, request: Request, accepted: t.Callable[[], None]) -> bool:
        """Attempt one request until it is accepted, or until that is out of the question.

        Args:
            request: The request.
            accepted: Called when it is accepted, before anything counts on that.

        Returns:
            Whether it is sure that it was not applied.
        """
        may_be_applied = False
        waits = backoff.expo(max_value=_LONGEST_BACKOFF_SECONDS)
        next(waits)  # the first one only primes it
        began = self._clock()
        while True:
            with self.changed:
                self._under_way.add(request)
                request.lane.requests += 1
                request.lane.bytes += len(request.data)
                self.totals.requests += 1
            answer = self._attempt(request.data)
            may_be_applied |= answer.sent and answer.outcome in _PERHAPS_APPLIED
            if answer.outcome is Outcome.ACCEPTED:
                accepted()
            error = self._rejected(request, answer)
            with self.changed:
                if self._ended:
                    return False
                self._under_way.discard(request)
                if self._judged(request, answer, error):
                    # Bytes that are refused for what they say were not applied earlier, either.
                    return not may_be_applied or answer.outcome is Outcome.REFUSED
            if not (self._waited(request, answer, waits, began) and self.permitted()):
                return not may_be_applied
            self.totals.retries += 1

    def _judged(self, request: Request, answer: Answer, error: TargetError | None) -> bool:
        """Act on an answer, with the lock held; return whether it was the last attempt.

        Args:
            request: What was answered.
            answer: The answer.
            error: What the run is to end with, if the answer rejects a single member.
        """
        if answer.outcome is Outcome.RETRY:
            if answer.sent:
                self._doubted.add(request)
            return False
        if answer.outcome is Outcome.RATE_LIMITED:
            return False
        if answer.outcome is Outcome.ACCEPTED:
            self._settle(request)
        elif answer.outcome is Outcome.TOO_LARGE and request.body.count > 1:
            self._doubted.discard(request)  # what it is split into gets answers of its own
            if self._lanes.lower_limit(request):
                logger.warning(
                    "MoEngage finds %d bytes too large; requests have at most %d bytes from now "
                    "on. Set max_payload_bytes to spare the refused ones",
                    len(request.data),
                    self._lanes.limit,
                )
        elif answer.outcome in _ISOLATED:
            self._isolate(request, answer, error)
        else:
            self._give_up(request, answer)
        return True

    def _isolate(self, request: Request, answer: Answer, error: TargetError | None) -> None:
        """Narrow down whom a request was refused for, with the lock held.

        Where nothing is accepted at all it is the settings or the API, and no row.
        """
        lane, body = request.lane, request.body
        self._doubted.discard(request)
        if self._refused_since is None:
            self._refused_since = self._clock()
        lane.refused += 1
        self.totals.refused += 1
        if self._is_hopeless(lane):
            self._give_up(request, answer)
        elif body.count > 1:
            # One by one costs no more than to halve on, if most of them are refused.
            singly = lane.refused >= _WORTH_SINGLING and not (lane.added or lane.removed)
            self._lanes.divide(request, singly=singly)
        elif error is not None:
            self._fail(error)
        else:
            lane.rejected += 1
            self._checkpoints.settle(Counter(body.epochs))
            self.changed.notify_all()

    def _is_hopeless(self, lane: Lane) -> bool:
        """Whether it is of no use to send more after so many requests that were refused."""
        if self.totals.refused >= _MOST_REFUSED and not self.totals.accepted:
            return True
        is_new = not (lane.added or lane.removed or lane.known)
        since = self._refused_since
        return (is_new and lane.refused >= _MOST_REFUSED) or (
            since is not None and self._clock() - since >= self._settings.max_retry_seconds > 0
        )

    def _rejected(self, request: Request, answer: Answer) -> TargetError | None:
        """Reject a member who was refused alone; not under the lock, since it writes a file."""
        if answer.outcome not in _ISOLATED or request.body.count > 1:
            return None
        (member,) = request.body.decode()
        lane = request.lane
        return self._reject(lane.cohort, request.body.action, member, offence(answer))

    def _give_up(self, request: Request, answer: Answer) -> None:
        cohort_id = request.lane.cohort.cohort_id
        self._fail(verdict(answer, cohort_id, self._settings.max_retry_seconds))

    def _settle(self, request: Request) -> None:
        lane, body = request.lane, request.body
        self._doubted.discard(request)
        if body.action is Action.ADD:
            lane.added += body.count
        else:
            lane.removed += body.count
        self.totals.accepted += body.count
        self._last_accepted = self._clock()
        self._refused_since = None
        self._checkpoints.settle(Counter(body.epochs))
        self.changed.notify_all()

    def _waited(
        self, request: Request, answer: Answer, waits: Iterator[float], since: float
    ) -> bool:
        """Wait before the next attempt; return ``False`` if there is to be none."""
        asked = answer.wait_seconds
        limited = answer.outcome is Outcome.RATE_LIMITED
        shared = self._pace if limited else None  # where all that want to start a request wait
        if limited:
            seconds = next(waits) if asked is None else max(asked, 1.0 if shared else 0.0)
        else:
            seconds = max(self._jitter(next(waits)), asked or 0.0)
        if shared is not None:
            shared.hold(seconds)
        with self.changed:
            waited = self._clock() + seconds - max(since, self._last_accepted)
            if waited >= self._settings.max_retry_seconds:
                self._give_up(request, answer)
                return False
        cohort_id = request.lane.cohort.cohort_id
        logger.info("cohort %r: %s; trying again", cohort_id, answer.summary)
        return not self._interrupt.wait(0.0 if shared is not None else seconds)

    def permitted(self) -> bool:
        """Wait for a permit to start a request; ``False`` if the run is to end instead."""
        if self._pace is None:
            return not self._interrupt.is_set()
        with self.changed:
            self._throttled += 1
            if self._throttled == 1:
                self._throttled_since = self._clock()
        try:
            return self._pace.acquire()
        finally:
            with self.changed:
                self._throttled -= 1
                if self._throttled == 0:
                    self.totals.throttled_seconds += self._clock() - self._throttled_since
