"""One request, from its first attempt to its acceptance or final failure.

A retry keeps its lane and its bytes. This is the only place that retries. A request that is refused
for its content is split here until every refused member is alone.
"""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.moengage.answers import Answer, Outcome, final_error, rejection_reason

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.delivery.lanes import Lane, Request
    from target_moengage_cohort.delivery.ports import Link, Reject, Timing
    from target_moengage_cohort.delivery.shared_state import SharedState
    from target_moengage_cohort.ledger.interface import RequestLedger
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60
_MOST_REFUSED = 40  # requests of a run, or of a new cohort, while none of it was accepted
_REFUSED_BEFORE_SINGLES = 7
_ISOLATED = (Outcome.REFUSED, Outcome.TOO_LARGE)
_PERHAPS_APPLIED = (Outcome.ACCEPTED, Outcome.RETRY, Outcome.UNEXPECTED)


def _exponential() -> t.Iterator[float]:
    """Yield ever longer waits, in seconds."""
    import backoff  # noqa: PLC0415 - brings asyncio with it, and few requests are repeated

    waits = backoff.expo(max_value=_LONGEST_BACKOFF_SECONDS)
    next(waits)  # the first one only primes it
    yield from waits


class Attempts:
    """Sends requests; records the results in the shared state."""

    def __init__(
        self, settings: Settings, link: Link, reject: Reject, state: SharedState, timing: Timing
    ) -> None:
        self._max_retry_seconds = settings.max_retry_seconds
        self._link = link
        self._reject = reject
        self._state = state
        self._clock = timing.clock
        self._jitter = timing.jitter

    def permitted(self) -> bool:
        """Wait for a permit to start a request; return ``False`` if the run is to end instead."""
        with self._state.throttled():
            return self._link.pace.acquire()

    def deliver(self, request: Request, ledger: RequestLedger | None) -> None:
        """Attempt a request until it is accepted or has failed for good.

        The ledger records the request before it leaves, and the result.
        """
        if ledger is None:
            self._deliver(request, lambda: None)
            return
        body, is_accepted = request.body, False
        timestamp = request.lane.last_timestamp
        number = ledger.sent(body.action, b"[%b]" % body.members, body.count, timestamp)

        def accepted() -> None:
            nonlocal is_accepted
            ledger.accepted(number)
            is_accepted = True

        if self._deliver(request, accepted):
            ledger.refused(number)
        elif not (is_accepted or self._state.ended):  # afterwards the ledger may be closed
            ledger.unanswered(number)

    def _deliver(self, request: Request, accepted: t.Callable[[], None]) -> bool:
        """Attempt a request; return whether it is certain that it was not applied.

        ``accepted`` is called when it is accepted, before anything relies on that.
        """
        state = self._state
        may_be_applied = is_retry = False
        waits = _exponential()
        began = self._clock()
        while True:
            state.start_attempt(request, is_retry=is_retry)
            answer = self._link.send(request.data)
            may_be_applied |= answer.sent and answer.outcome in _PERHAPS_APPLIED
            if answer.outcome is Outcome.ACCEPTED:
                accepted()
            error = self._reject_single(request, answer)
            with state.changed:
                if state.ended:
                    return False
                state.end_attempt(request)
                if not self._is_to_retry(request, answer, error):
                    # Bytes that are refused for their content were not applied earlier, either.
                    return not may_be_applied or answer.outcome is Outcome.REFUSED
            if not (self._wait_before_retry(request, answer, waits, began) and self.permitted()):
                return not may_be_applied
            is_retry = True

    def _is_to_retry(self, request: Request, answer: Answer, error: TargetError | None) -> bool:
        """Act on an answer, with the lock held; return whether to try the same bytes again.

        The run ends with ``error`` if the answer rejects a single member.
        """
        state, outcome = self._state, answer.outcome
        if outcome is Outcome.RETRY and answer.sent:
            state.doubt(request)
        if outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
            return True
        if outcome is Outcome.ACCEPTED:
            state.accept(request)
        elif outcome is Outcome.TOO_LARGE and request.body.count > 1:
            self._shrink(request)
        elif outcome in _ISOLATED:
            self._isolate(request, answer, error)
        else:
            self._give_up(request, answer)
        return False

    def _shrink(self, request: Request) -> None:
        if self._state.shrink(request):
            logger.warning(
                "MoEngage refused %d bytes as too large; requests have at most %d bytes from now "
                "on. Set max_payload_bytes to avoid the refused ones",
                len(request.data),
                self._state.lanes.limit,
                extra={"code": "payload_too_large", "cohort_id": request.lane.cohort.cohort_id},
            )

    def _isolate(self, request: Request, answer: Answer, error: TargetError | None) -> None:
        """Narrow down which member a request was refused for, with the lock held.

        If nothing at all is accepted, the cause is the settings or the API rather than a member.
        """
        state, lane = self._state, request.lane
        state.refuse(request)
        if self._is_hopeless(lane):
            self._give_up(request, answer)
        elif request.body.count > 1:
            # Single members take no more requests than halves if most members are refused.
            singly = lane.refused >= _REFUSED_BEFORE_SINGLES and not lane.has_accepted
            state.lanes.divide(request, singly=singly)
        elif error is not None:
            state.fail(error)
        else:
            state.reject(request)

    def _is_hopeless(self, lane: Lane) -> bool:
        """Return whether to stop sending after so many refused requests, with the lock held."""
        state = self._state
        if state.totals.refused >= _MOST_REFUSED and not state.totals.accepted:
            return True
        is_new = not (lane.has_accepted or lane.has_history)
        since = state.refused_since
        return (is_new and lane.refused >= _MOST_REFUSED) or (
            since is not None and self._clock() - since >= self._max_retry_seconds > 0
        )

    def _reject_single(self, request: Request, answer: Answer) -> TargetError | None:
        """Reject a member that was refused alone; without the lock, because it writes a file."""
        if answer.outcome not in _ISOLATED or request.body.count > 1:
            return None
        (member,) = request.body.decode()
        cohort, action = request.lane.cohort, request.body.action
        return self._reject(cohort, action, member, rejection_reason(answer))

    def _give_up(self, request: Request, answer: Answer) -> None:
        cohort_id = request.lane.cohort.cohort_id
        self._state.fail(final_error(answer, cohort_id, self._max_retry_seconds))

    def _wait_before_retry(
        self, request: Request, answer: Answer, waits: Iterator[float], began: float
    ) -> bool:
        """Wait before the next attempt; return ``False`` if no attempt should follow."""
        asked = answer.wait_seconds
        is_limited = answer.outcome is Outcome.RATE_LIMITED
        if is_limited:
            seconds = next(waits) if asked is None else asked
            self._link.pace.hold(seconds)  # for all requests; this one needs a permit, too
        else:
            seconds = max(self._jitter(next(waits)), asked or 0.0)
        with self._state.changed:
            waited = self._clock() + seconds - max(began, self._state.last_accepted)
            if waited >= self._max_retry_seconds:
                self._give_up(request, answer)
                return False
        logger.info("cohort %r: %s; trying again", request.lane.cohort.cohort_id, answer.summary)
        return not self._state.interrupt.wait(0.0 if is_limited else seconds)
