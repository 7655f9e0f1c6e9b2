"""One request, from its first attempt to its acceptance or final failure.

A retry keeps its lane and its bytes; `retries` says when it follows. A request that is refused for
its content is split here until every refused member is alone.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from collections import Counter

import msgspec

from target_moengage_cohort.core.errors import CohortError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.delivery.retries import RETRIED, Waits
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.moengage.answers import Answer, Outcome, final_error, rejection_reason

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.delivery.lanes import Lane, Request
    from target_moengage_cohort.delivery.packing import CohortBuffer
    from target_moengage_cohort.delivery.ports import Callbacks, Link, Timing
    from target_moengage_cohort.delivery.shared_state import SharedState
    from target_moengage_cohort.ledger.cohort_ledger import CohortRecord
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

_MOST_REFUSED = 40  # requests of a run, or of a cohort, while none of it was accepted
_FEWEST_COHORTS = 3  # to say that MoEngage refuses everything; one or two may be bad
_REFUSED_BEFORE_SINGLES = 7
_FAILED_COHORT = "cohort\n"  # before its id, so that no stream has this name
_ISOLATED = (Outcome.REFUSED, Outcome.TOO_LARGE)
_SETTLED = (Outcome.ACCEPTED, *_ISOLATED)
_PERHAPS_APPLIED = (Outcome.RETRY, Outcome.UNEXPECTED)
_NOT_SENT = Answer(Outcome.RETRY, "not sent")
_PERMIT_SECONDS = 1.0  # the window is longer than a minute by two


def _result(request: Request, answer: Answer) -> RequestState:
    """Return what an answer, or that none came, says of all attempts at a request.

    A refusal says nothing of an earlier attempt without an answer: it may have been applied.
    """
    if answer.outcome is Outcome.ACCEPTED:
        return RequestState.ACCEPTED
    return RequestState.UNANSWERED if request.is_doubted else RequestState.REFUSED


class Attempts:
    """Sends requests, one at a time in each thread; records the results in the shared state."""

    def __init__(
        self,
        settings: Settings,
        link: Link,
        callbacks: Callbacks,
        state: SharedState,
        timing: Timing,
    ) -> None:
        self._max_retry_seconds = settings.max_retry_seconds
        self._link = link
        self._callbacks = callbacks
        self._state = state
        self._clock = timing.clock
        self._jitter = timing.jitter
        self._permit_lock = threading.Lock()  # not the state's: a wait for that must not count
        self._waiting_for_permit = 0
        self._counted_until = 0.0

    def may_begin(self, lane: Lane, epochs: Iterable[int] = ()) -> bool:
        """Wait for a permit to send a lane's next body; return ``False`` if it must not be sent.

        `epochs` are those of a request that is to be tried again.
        """
        if self._is_refused(lane, epochs) or not self._permitted():
            return False
        return not self._is_refused(lane, epochs)  # the wait may have been long

    def _is_refused(self, lane: Lane, epochs: Iterable[int]) -> bool:
        """Return whether nothing more may be sent for a lane; drop its changes then."""
        if (error := self._callbacks.refusal(lane.cohort)) is None:
            return False
        with self._state.changed:
            self._fail_cohort(lane, epochs, error)
        return True

    def _permitted(self) -> bool:
        """Wait for a permit to start a request; return ``False`` if the run is to end instead."""
        self._count_waiting(1)
        try:
            return self._link.pace.acquire()
        finally:
            self._count_waiting(-1)

    def _count_waiting(self, change: int) -> None:
        """Count the time during which any request waits for its permit, until this change."""
        with self._permit_lock:
            now = self._clock()
            if self._waiting_for_permit:
                self._state.totals.throttled_seconds += now - self._counted_until
            self._counted_until = now
            self._waiting_for_permit += change

    def deliver(self, request: Request, ledger: CohortRecord | None) -> None:
        """Attempt a request, which has a permit, until it is accepted or has failed for good.

        The ledger records the request before it leaves, and the result.
        """
        state, lane, body, number = self._state, request.lane, request.body, 0
        permitted_at, answer = self._clock(), _NOT_SENT
        if ledger is not None:
            members = b"[%b]" % body.members
            number = ledger.sent(body.action, members, body.count, lane.last_timestamp)
        is_retry = False
        waits = Waits(self._jitter)
        began = self._clock()
        while self._may_start(ledger, permitted_at):
            with state.changed:
                state.in_flight.add(request)
                lane.counts.requests += 1
                lane.counts.bytes += len(request.data)
                state.totals.requests += 1
                state.totals.retries += is_retry
            answer = self._link.send(request.data)
            request.is_doubted |= answer.sent and answer.outcome in _PERHAPS_APPLIED
            if answer.outcome in _SETTLED and ledger is not None:
                ledger.answered(number, _result(request, answer))  # before anything relies on that
            error = self._reject_single(request, answer)
            with state.changed:
                if state.ended:
                    return  # the ledger may be closed
                state.in_flight.discard(request)
                if not self._is_to_retry(request, answer, error):
                    break
            if not self._wait_before_retry(request, answer, waits, began):
                break
            if not self.may_begin(lane, body.epochs):
                break
            is_retry, permitted_at = True, self._clock()
        if not (ledger is None or answer.outcome in _SETTLED or state.ended):
            ledger.answered(number, _result(request, answer))

    def _may_start(self, ledger: CohortRecord | None, permitted_at: float) -> bool:
        """Check the lease right before an attempt; return ``False`` if the run is to end instead.

        The ledger may have waited for its server, so a permit that is old by now is replaced.
        """
        if ledger is not None:
            ledger.check_lease()
        if self._clock() - permitted_at <= _PERMIT_SECONDS:
            return True
        if not self._permitted():
            return False
        if ledger is not None:
            ledger.check_lease()
        return True

    def _is_to_retry(self, request: Request, answer: Answer, error: TargetError | None) -> bool:
        """Act on an answer, with the lock held; return whether to try the same bytes again.

        The run ends with ``error`` if the answer rejects a single member.
        """
        state, outcome = self._state, answer.outcome
        if outcome is Outcome.RETRY and answer.sent:
            state.doubted.add(request)
        if outcome in RETRIED:
            return True
        if outcome in _SETTLED:
            state.doubted.discard(request)  # the parts of a body get answers of their own
        if outcome is Outcome.ACCEPTED:
            self._accept(request)
        elif outcome is Outcome.TOO_LARGE and request.body.count > 1:
            self._shrink(request)
        elif outcome in _ISOLATED:
            self._isolate(request, answer, error)
        else:
            self._give_up(request, answer)
        return False

    def _accept(self, request: Request) -> None:
        state, counts, body = self._state, request.lane.counts, request.body
        if body.action is Action.ADD:
            counts.added += body.count
        else:
            counts.removed += body.count
        state.totals.accepted += body.count
        state.last_accepted, state.refused_since = self._clock(), None
        state.checkpoints.settle(Counter(body.epochs))

    def _shrink(self, request: Request) -> None:
        lanes = self._state.lanes
        if lanes.lower_limit(request):
            logger.warning(
                "MoEngage refused %d bytes as too large; requests have at most %d bytes from "
                "now on. Set max_payload_bytes to avoid refused requests",
                len(request.data),
                lanes.budget.limit,
                extra={"code": "payload_too_large", "cohort_id": request.lane.cohort.cohort_id},
            )

    def _isolate(self, request: Request, answer: Answer, error: TargetError | None) -> None:
        """Narrow down which member a request was refused for, with the lock held.

        If nothing at all is accepted, the cause is the settings or the API rather than a member.
        """
        state, lane, body = self._state, request.lane, request.body
        if state.refused_since is None:
            state.refused_since = self._clock()
        lane.refused += 1
        state.totals.refused += 1
        if self._is_hopeless(self._clock() - state.refused_since):
            self._give_up(request, answer)
        elif answer.is_about_cohort or (lane.refused >= _MOST_REFUSED and not lane.has_accepted):
            error = final_error(answer, lane.cohort.cohort_id, self._max_retry_seconds)
            self._fail_cohort(lane, body.epochs, CohortError(error.code, str(error)))
        elif body.count > 1:
            # Single members take no more requests than halves if most members are refused.
            singly = lane.refused >= _REFUSED_BEFORE_SINGLES and not lane.has_accepted
            body = request.doubted_body()
            parts = body.singles() if singly else body.split(len(body.members) // 2)
            t.cast("CohortBuffer", lane.buffer).put_parts(parts)
        elif error is not None:
            state.fail(error)
        else:
            lane.counts.rejected += 1
            lane.counts.in_doubt += request.is_doubted
            state.checkpoints.settle(Counter(body.epochs))

    def _is_hopeless(self, seconds: float) -> bool:
        """Return whether to stop sending: all cohorts are refused, or so for many seconds."""
        if seconds >= self._max_retry_seconds > 0:
            return True
        totals = self._state.totals
        if totals.accepted or totals.refused < _MOST_REFUSED:
            return False
        # Those that have an answer: nothing is accepted, and lanes take turns.
        lanes = [lane for lane in self._state.lanes.by_id.values() if lane.refused]
        refused = sum(lane.refused for lane in lanes if not lane.has_failed)
        return len(lanes) >= _FEWEST_COHORTS and refused >= _MOST_REFUSED

    def _fail_cohort(self, lane: Lane, epochs: Iterable[int], error: CohortError) -> None:
        """Send nothing more for a cohort, with the lock held; no STATE covers its rows."""
        state, dropped = self._state, [*epochs, *self._state.lanes.fail(lane)]
        state.checkpoints.hold(f"{_FAILED_COHORT}{lane.cohort.cohort_id}", min(dropped))
        state.checkpoints.settle(Counter(dropped))
        if ends_with := self._callbacks.fail(lane.cohort, error):
            state.fail(ends_with)

    def _reject_single(self, request: Request, answer: Answer) -> TargetError | None:
        """Reject a member that was refused alone; without the lock, because it writes a file."""
        if answer.outcome not in _ISOLATED or answer.is_about_cohort or request.body.count > 1:
            return None
        (member,) = request.body.decode()
        reason = rejection_reason(answer)
        return self._callbacks.reject(request.lane.cohort, request.body.action, member, reason)

    def _give_up(self, request: Request, answer: Answer) -> None:
        cohort_id = request.lane.cohort.cohort_id
        self._state.fail(final_error(answer, cohort_id, self._max_retry_seconds))

    def _wait_before_retry(
        self, request: Request, answer: Answer, waits: Waits, began: float
    ) -> bool:
        """Wait before the next attempt; return ``False`` if no attempt should follow."""
        is_limited = answer.outcome is Outcome.RATE_LIMITED
        seconds, attempt = waits.after(answer)
        if is_limited:
            # For all requests, also those of the next run; this one needs a permit, too.
            self._link.pace.hold(min(seconds, self._max_retry_seconds))
        with self._state.changed:
            waited = self._clock() + seconds - max(began, self._state.last_accepted)
            if waited >= self._max_retry_seconds:
                summary = answer.summary + attempt
                self._give_up(request, msgspec.structs.replace(answer, summary=summary))
                return False
        logger.info(
            "cohort %r: %s%s; trying again in %.0f s%s",
            request.lane.cohort.cohort_id,
            answer.summary,
            attempt,
            seconds,
            self._too_long(answer),
        )
        return not self._state.interrupt.wait(0.0 if is_limited else seconds)

    def _too_long(self, answer: Answer) -> str:
        """Return what to add to a log line about a 429 that asks for more than we wait."""
        asked, most = answer.asked_seconds or 0.0, self._max_retry_seconds
        if answer.outcome is not Outcome.RATE_LIMITED or asked <= most:
            return ""
        return f", although it asks for {asked:,.0f} s, longer than max_retry_seconds ({most} s)"
