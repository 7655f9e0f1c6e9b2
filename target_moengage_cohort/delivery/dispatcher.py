"""Sends what the lanes hold: permits, attempts, retries, and what an acceptance settles.

A sender claims a lane, waits for a permit, and only then takes the body that goes next, so that
changes can still join it while the rate limit holds it. A retry keeps its lane and its bytes.
This is the only place that retries.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from collections import Counter

import backoff
import msgspec

from target_moengage_cohort.delivery.answers import Answer, Outcome, offence, verdict
from target_moengage_cohort.delivery.lanes import Lanes
from target_moengage_cohort.errors import InternalError, TargetError, anonymous_traceback
from target_moengage_cohort.membership import Action

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.checkpoints import Checkpoints
    from target_moengage_cohort.delivery.lanes import Lane, Request
    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.interrupts import Interrupt
    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.membership import Change, Cohort, Member
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

GRACE_SECONDS = 8.0
CLOSED_WEIGHT_LIMIT = 16 << 20
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
    """What a dispatcher calls.

    Attributes:
        attempt: Sends one body once, as `Client.attempt` does.
        emit: Writes a covered STATE; called in order, by one thread at a time.
        reject: Takes a member whom MoEngage refuses, and why; returns the error that this is, if
            the run is to end with it.
    """

    attempt: t.Callable[[bytes], Answer]
    emit: t.Callable[[bytes], None]
    reject: t.Callable[[Cohort, Action, Member, str], TargetError | None]


class Dispatcher:
    """Takes changes in stream order and has them accepted.

    Args:
        settings: Limits, and what goes into every body.
        callbacks: Sends bodies, writes STATE and rejects members.
        pace: Permits to start a request; ``None`` needs none.
        checkpoints: What acceptances settle.
        interrupt: Ends every wait; set here when a request fails for good.
        timing: Clocks and jitter.
        ledgers: By the cohort's id, where its requests are put down before they leave, and what
            came of them; a cohort may have none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        callbacks: Callbacks,
        pace: Pace | None,
        checkpoints: Checkpoints,
        interrupt: Interrupt,
        timing: Timing,
        ledgers: Mapping[str, Ledger],
    ) -> None:
        self._settings = settings
        self._callbacks = callbacks
        self._pace = pace
        self._checkpoints = checkpoints
        self._interrupt = interrupt
        self._ledgers = ledgers
        self._clock = timing.clock
        self._wall_clock = timing.wall_clock
        self._jitter = timing.jitter
        self._lanes = Lanes(settings)
        self.totals = Totals()
        self._failure: TargetError | None = None
        self._changed = threading.Condition()
        self._under_way: set[Request] = set()  # no answer yet
        self._doubted: set[Request] = set()  # perhaps applied, though not accepted
        self._last_accepted = timing.clock()
        self._refused_since: float | None = None  # while nothing is accepted
        self._throttled = 0
        self._throttled_since = 0.0
        self._ended = False
        self._writing = False
        self._senders: list[threading.Thread] = []
        self._writer = threading.Thread(
            target=self._guarded, args=(self._write_states,), name="state", daemon=True
        )
        interrupt.call_when_set(self._wake)

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """What went to each cohort, by its id."""
        return self._lanes.by_id

    def backlog(self) -> int:
        """About how many requests it takes to send what waits."""
        return self._lanes.backlog

    @property
    def has_room(self) -> bool:
        """Whether `submit` will take many more changes without waiting."""
        return self._lanes.closed_weight <= CLOSED_WEIGHT_LIMIT // 2

    def start(self) -> None:
        """Start the senders, and the writer of STATE."""
        self._writer.start()
        for number in range(self._settings.max_concurrency):
            sender = threading.Thread(
                target=self._guarded, args=(self._send,), name=f"sender-{number + 1}", daemon=True
            )
            self._senders.append(sender)
            sender.start()

    @property
    def failure(self) -> TargetError | None:
        """Why nothing more is sent, if a request, a ledger or the writing of STATE has failed."""
        return self._failure

    def submit(self, changes: Sequence[Change]) -> bool:
        """Take changes of the current epoch; waits while too much is queued.

        Returns:
            Whether there is any use in more of them; not once the run is to end.

        Raises:
            TargetError: A request has failed for good.
        """
        with self._changed:
            put, now, epoch = self._lanes.put, self._clock(), self._checkpoints.epoch
            opened = sum([put(change, epoch, now) for change in changes])
            if opened:
                self._checkpoints.open(opened)
            self._lanes.relieve()
            self._changed.notify_all()
            self._wait_while(lambda: self._lanes.closed_weight > CLOSED_WEIGHT_LIMIT)
            return not self._interrupt.is_set()

    def state(self, value: bytes) -> None:
        """Take a STATE, to emit it as soon as it is covered.

        Raises:
            TargetError: A request has failed for good.
        """
        with self._changed:
            self._checkpoints.state(value)
            self._changed.notify_all()
            if self._failure is not None:
                raise self._failure

    def hold(self, stream: str) -> None:
        """Let no STATE from now on be covered before the stream is released."""
        with self._changed:
            self._checkpoints.hold(stream)

    def release(self, stream: str) -> None:
        """Let a stream hold back no STATE any more."""
        with self._changed:
            self._checkpoints.release(stream)
            self._changed.notify_all()

    def drain(self) -> bool:
        """Have all that was submitted accepted and covered, or wait until interrupted.

        Returns:
            Whether all of it was.

        Raises:
            TargetError: A request has failed for good.
        """
        with self._changed:
            self._lanes.close_all()
            self._changed.notify_all()
            self._wait_while(lambda: not self._is_done)
            return self._is_done

    def close(self, cohort_id: str) -> None:
        """Let what waits for one cohort leave as soon as it can."""
        with self._changed:
            self._lanes.close(cohort_id)
            self._changed.notify_all()

    def take_back(self, cohort_id: str) -> None:
        """Drop what was submitted for one cohort, as far as it is in no closed request yet.

        It is for changes that are known elsewhere and will be submitted again.
        """
        with self._changed:
            self._checkpoints.settle(Counter(self._lanes.take_back(cohort_id)))
            self._changed.notify_all()

    def finish(self, cohort_id: str) -> bool:
        """Wait until what was submitted for one cohort and closed is accepted, or interrupted.

        Returns:
            Whether all of it was.

        Raises:
            TargetError: A request has failed for good.
        """
        with self._changed:
            lane = self.lanes.get(cohort_id)
            self._wait_while(lambda: lane is not None and not lane.is_idle)
            return lane is None or lane.is_idle

    def stop(self) -> bool:
        """Start no more requests, and give those under way some seconds to end.

        Returns:
            Whether all threads have ended; one may still wait for an answer, or for whoever
            reads STATE.
        """
        self._interrupt.set()
        deadline = time.monotonic() + GRACE_SECONDS
        for sender in self._senders:
            sender.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._ended = True
            for request in self._under_way | self._doubted:
                request.lane.in_doubt += request.body.count
            self._changed.notify_all()
        if self._writer.is_alive():
            self._writer.join(max(1.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in (*self._senders, self._writer))

    @property
    def _is_done(self) -> bool:
        checkpoints = self._checkpoints
        return not (checkpoints.has_open or checkpoints.has_covered or self._writing)

    def _wait_while(self, condition: t.Callable[[], bool]) -> None:
        """Wait, with the lock held, until a condition ends or the run is to end."""
        while condition() and not self._interrupt.is_set():
            self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fail(self, error: TargetError) -> None:
        self._failure = self._failure or error
        self._interrupt.set()

    def _guarded(self, work: t.Callable[[], None]) -> None:
        """Do a thread's work; if it fails, the run ends."""
        try:
            work()
        except TargetError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - else the run would wait for it for ever
            self._fail(InternalError(anonymous_traceback(error)))

    def _send(self) -> None:
        while (lane := self._claim()) is not None:
            self._serve(lane)

    def _write_states(self) -> None:
        """Write STATE as it gets covered; in a thread, so that nothing waits for its reader."""
        while True:
            with self._changed:
                while (value := self._checkpoints.take()) is None:
                    if self._ended:
                        return
                    self._changed.wait()
                self._writing = True
            self._callbacks.emit(value)
            with self._changed:
                self._writing = False  # not if it failed: the run must not pass for done then
                self._changed.notify_all()

    def _claim(self) -> Lane | None:
        """Wait for a lane to serve; ``None`` if the run is to end."""
        with self._changed:
            while not self._interrupt.is_set():
                now = self._clock()
                if (lane := self._lanes.claim(now)) is not None:
                    return lane
                due = self._lanes.due_at()
                self._changed.wait(None if due is None else max(0.0, due - now))
        return None

    def _serve(self, lane: Lane) -> None:
        """Send one body of a claimed lane."""
        permitted = self._permitted()
        ledger = self._ledgers.get(lane.cohort.cohort_id)
        with self._changed:
            request = None
            if permitted and not self._interrupt.is_set():
                if ledger is not None:
                    lane.last_timestamp = max(lane.last_timestamp, ledger.last_timestamp)
                request = self._lanes.take(lane, self._clock(), int(self._wall_clock() * 1000))
            self._changed.notify_all()
        if request is not None:
            self._record(request, ledger)
        with self._changed:
            self._lanes.release(lane)
            self._changed.notify_all()

    def _record(self, request: Request, ledger: Ledger | None) -> None:
        """Deliver a request, with the ledger, if there is one, knowing before and after."""
        if ledger is None:
            self._deliver(request, lambda: None)
            return
        body = request.body
        number = ledger.sent(body.action, body.decode(), request.lane.last_timestamp)
        if self._deliver(request, lambda: ledger.accepted(number)):
            ledger.refused(number)

    def _deliver(self, request: Request, accepted: t.Callable[[], None]) -> bool:
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
            with self._changed:
                self._under_way.add(request)
                request.lane.requests += 1
                request.lane.bytes += len(request.data)
                self.totals.requests += 1
            answer = self._callbacks.attempt(request.data)
            may_be_applied |= answer.sent and answer.outcome in _PERHAPS_APPLIED
            if answer.outcome is Outcome.ACCEPTED:
                accepted()
            error = self._rejected(request, answer)
            with self._changed:
                if self._ended:
                    return False
                self._under_way.discard(request)
                if self._judged(request, answer, error):
                    # Bytes that are refused for what they say were not applied earlier, either.
                    return not may_be_applied or answer.outcome is Outcome.REFUSED
            if not (self._waited(request, answer, waits, began) and self._permitted()):
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
            self._changed.notify_all()

    def _is_hopeless(self, lane: Lane) -> bool:
        """Whether it is of no use to send more after so many requests that were refused."""
        if self.totals.refused >= _MOST_REFUSED and not self.totals.accepted:
            return True
        ledger = self._ledgers.get(lane.cohort.cohort_id)
        is_new = not (lane.added or lane.removed) and (ledger is None or ledger.created)
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
        return self._callbacks.reject(lane.cohort, request.body.action, member, offence(answer))

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
        self._changed.notify_all()

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
        with self._changed:
            waited = self._clock() + seconds - max(since, self._last_accepted)
            if waited >= self._settings.max_retry_seconds:
                self._give_up(request, answer)
                return False
        cohort_id = request.lane.cohort.cohort_id
        logger.info("cohort %r: %s; trying again", cohort_id, answer.summary)
        return not self._interrupt.wait(0.0 if shared is not None else seconds)

    def _permitted(self) -> bool:
        """Wait for a permit to start a request; ``False`` if the run is to end instead."""
        if self._pace is None:
            return not self._interrupt.is_set()
        with self._changed:
            self._throttled += 1
            if self._throttled == 1:
                self._throttled_since = self._clock()
        try:
            return self._pace.acquire()
        finally:
            with self._changed:
                self._throttled -= 1
                if self._throttled == 0:
                    self.totals.throttled_seconds += self._clock() - self._throttled_since
