"""The door of delivery: takes changes in the order of their stream and has them accepted."""

from __future__ import annotations

import functools
import typing as t
from collections import Counter

import msgspec

from target_moengage_cohort.delivery.attempts import Attempts
from target_moengage_cohort.delivery.dispatcher import Dispatcher
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.delivery.ports import CohortCounts, Link, NoPace
from target_moengage_cohort.delivery.shared_state import SharedState
from target_moengage_cohort.moengage.answers import Answer, Outcome

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Change
    from target_moengage_cohort.delivery.ports import Callbacks, History, Timing, Totals
    from target_moengage_cohort.moengage.transport import Transport
    from target_moengage_cohort.settings import Settings

CLOSED_WEIGHT_LIMIT = 16 << 20


class Delivery:
    """Takes changes and STATE, sends the former, and emits the latter once it is covered.

    `start` comes first, `stop` last. Every method that waits raises the `TargetError` that a
    request, a ledger or the writing of STATE has failed with for good.

    The interrupt ends every wait; it is set here when a request fails for good. A cohort's
    history, by its id, records the requests before they leave, and their results; it may have none.
    """

    def __init__(
        self,
        settings: Settings,
        link: Link,
        callbacks: Callbacks,
        *,
        interrupt: Interrupt,
        timing: Timing,
        histories: Mapping[str, History],
    ) -> None:
        self._pace = link.pace
        self._clock = timing.clock
        self._state = state = SharedState(settings, interrupt, timing.clock)
        attempts = Attempts(settings, link, callbacks.reject, state, timing)
        self._dispatcher = Dispatcher(
            state, attempts, callbacks.emit, histories, timing, settings.max_concurrency
        )

    @property
    def totals(self) -> Totals:
        """The run's numbers so far; they change while it runs."""
        return self._state.totals

    @property
    def failure(self) -> TargetError | None:
        """Why nothing more is sent, if something has failed for good."""
        return self._state.failure

    @property
    def backlog(self) -> int:
        """Approximate number of requests that the waiting changes take."""
        return self._state.lanes.backlog

    @property
    def has_room(self) -> bool:
        """Whether `submit` will take many more changes without waiting."""
        return self._state.lanes.closed_weight <= CLOSED_WEIGHT_LIMIT // 2

    def counts(self, cohort_id: str) -> CohortCounts:
        """Return the counts of one cohort so far."""
        with self._state.changed:
            lane = self._state.lanes.by_id.get(cohort_id)
            return CohortCounts() if lane is None else msgspec.structs.replace(lane.counts)

    def start(self) -> None:
        """Start to send."""
        self._dispatcher.start()

    def submit(self, changes: Sequence[Change]) -> bool:
        """Take changes of the current epoch; wait while too many are queued.

        Return whether to submit more; ``False`` once the run is to end.
        """
        state = self._state
        with state.changed:
            put, now, epoch = state.lanes.put, self._clock(), state.checkpoints.epoch
            opened = sum([put(change, epoch, now) for change in changes])
            if opened:
                state.checkpoints.open(opened)
            state.lanes.relieve()
            state.changed.notify_all()
            state.wait_while(lambda: state.lanes.closed_weight > CLOSED_WEIGHT_LIMIT)
            return not state.interrupt.is_set()

    def state(self, value: bytes) -> None:
        """Take a STATE, to emit it as soon as it is covered."""
        state = self._state
        with state.changed:
            state.checkpoints.state(value)
            state.changed.notify_all()
            if state.failure is not None:
                raise state.failure

    def hold(self, stream: str) -> None:
        """Hold back every STATE from now on until the stream is released."""
        with self._state.changed:
            self._state.checkpoints.hold(stream)

    def release(self, stream: str) -> None:
        """Stop holding back STATE for a stream."""
        with self._state.changed:
            self._state.checkpoints.release(stream)
            self._state.changed.notify_all()

    def drain(self) -> bool:
        """Wait until all is accepted and covered, or until interrupted; return whether it is."""
        state = self._state
        with state.changed:
            state.lanes.close_all()
            state.changed.notify_all()
            state.wait_while(lambda: not state.is_done)
            return state.is_done

    def close(self, cohort_id: str) -> None:
        """Send the waiting changes of one cohort as soon as possible."""
        with self._state.changed:
            self._state.lanes.close(cohort_id)
            self._state.changed.notify_all()

    def take_back(self, cohort_id: str) -> None:
        """Drop the submitted changes of one cohort that are in no closed request yet.

        It is for changes that are recorded elsewhere and will be submitted again.
        """
        state = self._state
        with state.changed:
            state.checkpoints.settle(Counter(state.lanes.take_back(cohort_id)))
            state.changed.notify_all()

    def finish(self, cohort_id: str) -> bool:
        """Wait until the closed changes of one cohort are accepted; ``False`` if interrupted."""
        state = self._state
        with state.changed:
            lane = state.lanes.by_id.get(cohort_id)
            state.wait_while(lambda: lane is not None and not lane.is_idle)
            return not state.interrupt.is_set()  # an idle lane may have given up a request

    def stop(self) -> bool:
        """Start no more requests; return whether all threads have ended within some seconds.

        One may still wait for an answer, or for the reader of STATE; the pace stays open for it.
        """
        has_ended = self._dispatcher.stop()
        if has_ended:
            self._pace.close()
        return has_ended


def live_link(settings: Settings, interrupt: Interrupt) -> Link:
    """Return a link to MoEngage, at the pace that all processes of the workspace share."""

    @functools.cache  # two threads may each make one, which does no harm
    def transport() -> Transport:
        # Imported for the first request: `requests` is slow to import, and many runs send none.
        from target_moengage_cohort.moengage.transport import Transport  # noqa: PLC0415

        return Transport(settings)

    return Link(lambda body: transport().send(body), Pace(settings, interrupt.wait))


def dry_link(interrupt: Interrupt) -> Link:
    """Return the link of a dry run: it accepts every body and sends nothing."""
    return Link(lambda _body: Answer(Outcome.ACCEPTED, "not sent"), NoPace(interrupt))
