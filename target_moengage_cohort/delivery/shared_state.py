"""The state that the threads of a delivery share, and the one lock that guards it.

All other code uses it inside of ``with state.changed:``. The lock is reentrant. It is never held
during I/O: not while a request is under way, and not while STATE, a ledger or a rejected row is
written.
"""

from __future__ import annotations

import threading
import typing as t

from target_moengage_cohort.delivery.checkpoints import Checkpoints
from target_moengage_cohort.delivery.lanes import Lanes
from target_moengage_cohort.delivery.ports import Totals

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.lanes import Request
    from target_moengage_cohort.settings import Settings


class SharedState:
    """Waiting changes, requests under way, and their results."""

    def __init__(self, settings: Settings, interrupt: Interrupt, now: float) -> None:
        self.changed = threading.Condition()  # the lock; notified when there is news
        self.interrupt = interrupt  # ends every wait; set here when something fails for good
        self.lanes = Lanes(settings)  # the waiting changes
        self.checkpoints = Checkpoints()  # the STATE that waits for them
        self.totals = Totals()
        self.failure: TargetError | None = None  # why nothing more is sent
        self.ended = False  # whether answers have stopped counting
        self.is_emitting = False  # whether a STATE is being written, or could not be written
        self.last_accepted = now  # when a request was last accepted; at first, when this was made
        self.refused_since: float | None = None  # the first refusal after the last acceptance
        self.in_flight: set[Request] = set()  # no answer yet
        self.doubted: set[Request] = set()  # perhaps applied, though not accepted
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
        while condition() and not self.interrupt.is_set():
            self.changed.wait()
        if self.failure is not None:
            raise self.failure

    def fail(self, error: TargetError) -> None:
        """End the run with an error, unless another one has ended it already."""
        with self.changed:
            self.failure = self.failure or error
        self.interrupt.set()
