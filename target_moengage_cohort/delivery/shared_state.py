"""The state that the threads of a delivery share, and the one lock that guards it.

Methods of `SharedState` take the lock themselves; all other code does its work inside of ``with
state.changed:``. The lock is reentrant. It is never held during I/O: not while a request is under
way, and not while STATE, a ledger or a rejected row is written.
"""

from __future__ import annotations

import threading
import typing as t
from collections import Counter
from contextlib import contextmanager

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.delivery.checkpoints import Checkpoints
from target_moengage_cohort.delivery.lanes import Lanes
from target_moengage_cohort.delivery.ports import Totals

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.lanes import Request
    from target_moengage_cohort.settings import Settings


class SharedState:
    """Waiting changes, requests under way, and their results.

    Attributes:
        changed: The lock; notified when there is news.
        interrupt: Ends every wait; set here when something fails for good.
        lanes: The waiting changes.
        checkpoints: The STATE that waits for them.
        totals: The run's numbers.
        failure: Why nothing more is sent, if something has failed for good.
        ended: Whether answers have stopped counting.
        is_emitting: Whether a STATE is being written, or could not be written.
        last_accepted: When a request was last accepted; at first, when the delivery was made.
        refused_since: When the first request was refused since one was last accepted, if any was.
    """

    def __init__(
        self, settings: Settings, interrupt: Interrupt, clock: t.Callable[[], float]
    ) -> None:
        self.changed = threading.Condition()
        self.interrupt = interrupt
        self.lanes = Lanes(settings)
        self.checkpoints = Checkpoints()
        self.totals = Totals()
        self.failure: TargetError | None = None
        self.ended = False
        self.is_emitting = False
        self.last_accepted = clock()
        self.refused_since: float | None = None
        self._clock = clock
        self._in_flight: set[Request] = set()  # no answer yet
        self._doubted: set[Request] = set()  # perhaps applied, though not accepted
        self._permit_lock = threading.Lock()
        self._waiting_for_permit = 0
        self._waiting_since = 0.0
        interrupt.call_when_set(self.notify)

    @property
    def is_done(self) -> bool:
        """Whether all changes are accepted, and all STATE is written."""
        checkpoints = self.checkpoints
        return not (checkpoints.has_open or checkpoints.has_covered or self.is_emitting)

    def notify(self) -> None:
        """Wake every thread that waits for news."""
        with self.changed:
            self.changed.notify_all()

    def wait_while(self, condition: t.Callable[[], bool]) -> None:
        """Wait until a condition ends or the run is to end; raise what has failed for good."""
        with self.changed:
            while condition() and not self.interrupt.is_set():
                self.changed.wait()
            if self.failure is not None:
                raise self.failure

    def fail(self, error: TargetError) -> None:
        """End the run with an error, unless another one has ended it already."""
        with self.changed:
            self.failure = self.failure or error
        self.interrupt.set()

    def end(self) -> None:
        """Ignore every later answer; the members of requests without an answer are in doubt."""
        with self.changed:
            self.ended = True
            for request in self._in_flight | self._doubted:
                request.lane.counts.in_doubt += request.body.count
            self.changed.notify_all()

    def start_attempt(self, request: Request, *, is_retry: bool) -> None:
        """Count a request that is about to leave."""
        counts = request.lane.counts
        with self.changed:
            self._in_flight.add(request)
            counts.requests += 1
            counts.bytes += len(request.data)
            self.totals.requests += 1
            self.totals.retries += is_retry

    def end_attempt(self, request: Request) -> None:
        """Record that a request has got its answer, or will get none."""
        with self.changed:
            self._in_flight.discard(request)

    def doubt(self, request: Request) -> None:
        """Record that a request may have been applied, though it was not accepted."""
        with self.changed:
            self._doubted.add(request)

    def accept(self, request: Request) -> None:
        """Record that a request was accepted."""
        counts, body = request.lane.counts, request.body
        with self.changed:
            self._doubted.discard(request)
            if body.action is Action.ADD:
                counts.added += body.count
            else:
                counts.removed += body.count
            self.totals.accepted += body.count
            self.last_accepted = self._clock()
            self.refused_since = None
            self._settle(request)

    def refuse(self, request: Request) -> None:
        """Record that a request was refused for its content, which leaves no doubt."""
        with self.changed:
            self._doubted.discard(request)
            if self.refused_since is None:
                self.refused_since = self._clock()
            request.lane.refused += 1
            self.totals.refused += 1

    def reject(self, request: Request) -> None:
        """Record that a refused request's only member was rejected."""
        with self.changed:
            request.lane.counts.rejected += 1
            self._settle(request)

    def shrink(self, request: Request) -> bool:
        """Take back a request that was too large; return whether later ones will be smaller."""
        with self.changed:
            self._doubted.discard(request)  # the parts of it get answers of their own
            return self.lanes.lower_limit(request)

    def _settle(self, request: Request) -> None:
        self.checkpoints.settle(Counter(request.body.epochs))
        self.changed.notify_all()

    @contextmanager
    def throttled(self) -> Iterator[None]:
        """Count the time during which any request waits for its permit.

        This has a lock of its own, because a wait for `changed` must not count.
        """
        with self._permit_lock:
            self._waiting_for_permit += 1
            if self._waiting_for_permit == 1:
                self._waiting_since = self._clock()
        try:
            yield
        finally:
            with self._permit_lock:
                self._waiting_for_permit -= 1
                if self._waiting_for_permit == 0:
                    self.totals.throttled_seconds += self._clock() - self._waiting_since
