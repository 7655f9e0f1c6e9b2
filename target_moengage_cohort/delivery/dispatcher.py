"""Takes changes, and has senders bring them to MoEngage, in the order of each cohort.

A sender claims a lane, waits for a permit, and only then takes the body that goes next, so that
changes can still join it while the rate limit holds it. `attempts` does the rest.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import Counter

from target_moengage_cohort.core.errors import InternalError, TargetError, anonymous_traceback
from target_moengage_cohort.delivery.attempts import Attempts, Callbacks, Timing, Totals
from target_moengage_cohort.delivery.lanes import Lanes

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Change
    from target_moengage_cohort.delivery.checkpoints import Checkpoints
    from target_moengage_cohort.delivery.lanes import Lane
    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.settings import Settings

GRACE_SECONDS = 8.0
CLOSED_WEIGHT_LIMIT = 16 << 20


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
        self._concurrency = settings.max_concurrency
        self._emit = callbacks.emit
        self._checkpoints = checkpoints
        self._interrupt = interrupt
        self._ledgers = ledgers
        self._clock = timing.clock
        self._wall_clock = timing.wall_clock
        self._lanes = Lanes(settings)
        self._failure: TargetError | None = None
        self._attempts = Attempts(
            settings,
            callbacks=callbacks,
            pace=pace,
            interrupt=interrupt,
            timing=timing,
            lanes=self._lanes,
            checkpoints=checkpoints,
            fail=self._fail,
        )
        self._changed = self._attempts.changed
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

    @property
    def totals(self) -> Totals:
        """The run's numbers so far."""
        return self._attempts.totals

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
        for number in range(self._concurrency):
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
            Whether all of it was. Not if interrupted: an idle lane may have given up a request.

        Raises:
            TargetError: A request has failed for good.
        """
        with self._changed:
            lane = self.lanes.get(cohort_id)
            self._wait_while(lambda: lane is not None and not lane.is_idle)
            return not self._interrupt.is_set()

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
            self._attempts.end()
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
            self._emit(value)
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
        permitted = self._attempts.permitted()
        ledger = self._ledgers.get(lane.cohort.cohort_id)
        with self._changed:
            request = None
            if permitted and not self._interrupt.is_set():
                if ledger is not None:
                    lane.known = not ledger.created
                    lane.last_timestamp = max(lane.last_timestamp, ledger.last_timestamp)
                request = self._lanes.take(lane, self._clock(), int(self._wall_clock() * 1000))
            self._changed.notify_all()
        if request is not None:
            self._attempts.deliver(request, ledger)
        with self._changed:
            self._lanes.release(lane)
            self._changed.notify_all()
