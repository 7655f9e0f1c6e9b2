"""The door of delivery: takes changes in the order of their stream and has them accepted.

Its threads are senders and the writer of STATE. A sender claims a lane, waits for a permit, and
only then takes the next body, so that changes can still join the body while the rate limit holds
it back.
"""

from __future__ import annotations

import functools
import threading
import time
import typing as t

import msgspec

from target_moengage_cohort.core.errors import TargetError, known_error
from target_moengage_cohort.delivery.api_calls import ApiCalls
from target_moengage_cohort.delivery.attempts import Attempts
from target_moengage_cohort.delivery.pace import Pace, api_permits, cohort_sync_limit, seconds_left
from target_moengage_cohort.delivery.ports import CohortCounts, Link, NoPace, Outlook, Timing
from target_moengage_cohort.delivery.shared_state import SharedState
from target_moengage_cohort.moengage.answers import Answer, Outcome

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Change
    from target_moengage_cohort.delivery.lanes import Lane
    from target_moengage_cohort.delivery.ports import Callbacks
    from target_moengage_cohort.ledger.cohort_ledger import CohortRecord
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.moengage.transport import Transport
    from target_moengage_cohort.settings import Settings

CLOSED_WEIGHT_LIMIT = 16 << 20
GRACE_SECONDS = 8.0


class Delivery:
    """Takes changes and STATE, sends the former, and emits the latter once it is covered.

    `start` comes first, `stop` last. Every method that waits raises the `TargetError` that a
    request, a ledger or the writing of STATE has failed with for good.

    The interrupt ends every wait; it is set here when a request fails for good. A cohort's
    ledger, by its id, records the requests before they leave, and their results; it may have none.
    """

    def __init__(
        self,
        settings: Settings,
        link: Link,
        callbacks: Callbacks,
        *,
        interrupt: Interrupt,
        timing: Timing,
        ledgers: Mapping[str, CohortRecord],
    ) -> None:
        self._pace, self._limit = link.pace, settings.requests_per_minute
        self.prepare = link.prepare  # to be called when it is known that changes follow
        self._emit = callbacks.emit
        self._ledgers = ledgers
        self._timing = timing
        self._state = SharedState(settings, interrupt, timing.clock())
        self.totals = self._state.totals  # they change while it runs
        self._attempts = Attempts(settings, link, callbacks, self._state, timing)
        self._writer = self._thread(self._write_states, "state")
        numbers = range(1, settings.max_concurrency + 1)
        self._senders = [self._thread(self._send, f"sender-{number}") for number in numbers]

    @property
    def failure(self) -> TargetError | None:
        """Why nothing more is sent, if something has failed for good."""
        return self._state.failure

    @property
    def backlog(self) -> int:
        """Approximate number of requests that the waiting changes take."""
        return self._state.lanes.backlog

    @property
    def outlook(self) -> Outlook:
        """What is left to send."""
        left, wait = self.backlog, self._pace.seconds_to_permit
        seconds = seconds_left(left, self.totals.requests, self._limit, wait)
        return Outlook(left, not self.has_room, wait, seconds)

    @property
    def has_room(self) -> bool:
        """Whether `submit` will take many more changes without waiting."""
        return self._state.lanes.budget.closed_weight <= CLOSED_WEIGHT_LIMIT // 2

    def counts(self, cohort_id: str) -> CohortCounts:
        """Return the counts of one cohort so far."""
        with self._state.changed:
            lane = self._state.lanes.by_id.get(cohort_id)
            return CohortCounts() if lane is None else msgspec.structs.replace(lane.counts)

    def start(self) -> None:
        """Start to send."""
        for thread in (self._writer, *self._senders):
            thread.start()

    def submit(self, changes: Sequence[Change]) -> bool:
        """Take changes of the current epoch; wait while too many are queued.

        Return whether to submit more; ``False`` once the run is to end.
        """
        state = self._state
        with state.changed:
            lanes, now, epoch = state.lanes, self._timing.clock(), state.checkpoints.epoch
            put = lanes.put
            opened = sum([put(change, epoch, now) for change in changes])
            if opened:
                state.checkpoints.open(opened)
            lanes.relieve()
            state.notify()
            state.wait_while(lambda: lanes.budget.closed_weight > CLOSED_WEIGHT_LIMIT)
            return not state.interrupt.is_set()

    def state(self, value: bytes) -> None:
        """Take a STATE, to emit it as soon as it is covered."""
        with self._state.changed:
            self._state.checkpoints.state(value)
            if self._state.checkpoints.has_covered:  # else waking the threads is for nothing
                self._state.notify()
            if self._state.failure is not None:
                raise self._state.failure

    def hold(self, stream: str) -> None:
        """Hold back every STATE from now on until the stream is released."""
        with self._state.changed:
            self._state.checkpoints.hold(stream)

    def release(self, stream: str) -> None:
        """Stop holding back STATE for a stream."""
        with self._state.changed:
            self._state.checkpoints.release(stream)
            self._state.notify()

    def drain(self) -> bool:
        """Wait until all is accepted and covered, or until interrupted; return whether it is."""
        state = self._state
        with state.changed:
            state.lanes.close_all()
            state.notify()
            state.wait_while(lambda: not state.is_done)
            return state.is_done

    def close(self, cohort_id: str) -> None:
        """Send the waiting changes of one cohort as soon as possible."""
        with self._state.changed:
            self._state.lanes.close(cohort_id)
            self._state.notify()

    def finish(self, cohort_id: str) -> bool:
        """Wait until the closed changes of one cohort are accepted; ``False`` if interrupted."""
        state = self._state
        with state.changed:
            lane = state.lanes.by_id.get(cohort_id)
            state.wait_while(lambda: lane is not None and lane.buffer is not None)
            return not state.interrupt.is_set()  # an idle lane may have given up a request

    def stop(self) -> bool:
        """Start no more requests; return whether all threads have ended within some seconds.

        One may still wait for an answer, or for the reader of STATE; the pace stays open for it.
        """
        state = self._state
        state.interrupt.set()
        deadline = time.monotonic() + GRACE_SECONDS
        for sender in self._senders:
            if sender.is_alive():
                sender.join(max(0.0, deadline - time.monotonic()))
        with state.changed:
            state.ended = True  # the members of requests without an answer are in doubt
            for request in state.in_flight | state.doubted:
                request.lane.counts.in_doubt += request.body.count
            for lane in state.lanes.by_id.values():
                lane.counts.in_doubt += lane.doubted
            state.notify()
        if self._writer.is_alive():
            self._writer.join(max(1.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in (*self._senders, self._writer)):
            return False
        self._pace.close()
        return True

    def _thread(self, work: t.Callable[[], None], name: str) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)

    def _guarded(self, work: t.Callable[[], None]) -> None:
        """Do a thread's work; if it fails, the run ends."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - otherwise the run would wait for it forever
            self._state.fail(known_error(error))

    def _write_states(self) -> None:
        """Write STATE when it gets covered; in a thread, so that nothing waits for its reader."""
        state = self._state
        while True:
            with state.changed:
                while (value := state.checkpoints.take()) is None:
                    if state.ended:
                        return
                    state.changed.wait()
                state.is_emitting = True
            self._emit(value)
            with state.changed:
                state.is_emitting = False  # not if it failed: the run must not count as done then
                state.notify()

    def _send(self) -> None:
        while (lane := self._claim()) is not None:
            self._serve(lane)

    def _claim(self) -> Lane | None:
        """Wait for a lane to serve; return ``None`` if the run is to end."""
        state = self._state
        with state.changed:
            while not state.interrupt.is_set():
                now = self._timing.clock()
                if (lane := state.lanes.claim(now)) is not None:
                    return lane
                due = state.lanes.due_at()
                state.changed.wait(None if due is None else max(0.0, due - now))
        return None

    def _serve(self, lane: Lane) -> None:
        state = self._state
        permitted = self._attempts.may_begin(lane)
        ledger = self._ledgers.get(lane.cohort.cohort_id)
        with state.changed:
            request = None
            if permitted and not state.interrupt.is_set():
                if ledger is not None:
                    lane.last_timestamp = max(lane.last_timestamp, ledger.last_timestamp)
                milliseconds = int(self._timing.wall_clock() * 1000)
                request = state.lanes.take(lane, self._timing.clock(), milliseconds)
            state.notify()
        if request is not None:
            self._attempts.deliver(request, ledger)
        with state.changed:
            state.lanes.release(lane)
            state.notify()


def live_link(settings: Settings, interrupt: Interrupt, store: LedgerStore | None = None) -> Link:
    """Return a link to MoEngage, at the pace that all processes of the workspace share.

    With a store also at the pace of all hosts that share it.
    """
    transport = _transport(settings)
    window = None if store is None else store.shared_window(cohort_sync_limit(settings))
    pace = Pace(settings, interrupt.wait, window=window)
    # The first request reports faults in the settings, not this thread.
    importing = functools.partial(threading.Thread, target=_import_transport, daemon=True)
    return Link(lambda body: transport().send(body), pace, lambda: importing().start())


def live_calls(
    settings: Settings,
    wait: Callable[[float], bool],
    store: LedgerStore | None = None,
    timing: Timing | None = None,
) -> ApiCalls:
    """Return a sender of calls to the Segments and the Analytics API; to be closed.

    Their limits are those that all processes of the workspace share, and with a store all hosts
    that share it. ``wait`` waits for so many seconds, and returns whether to end instead.
    """
    transport, timing = _transport(settings), timing or Timing()
    permits = functools.partial(api_permits, settings, wait, store, timing.wall_clock)
    seconds = settings.max_retry_seconds
    return ApiCalls(lambda call: transport().call(call), permits, wait, timing, seconds)


def _transport(settings: Settings) -> Callable[[], Transport]:
    @functools.cache  # two threads may each make one, which does no harm
    def transport() -> Transport:
        return _import_transport()(settings)

    return transport


def _import_transport() -> type[Transport]:
    # Imported for the first request: `requests` is slow to import, and many runs send none.
    from target_moengage_cohort.moengage.transport import Transport  # noqa: PLC0415

    return Transport


def dry_link(interrupt: Interrupt) -> Link:
    """Return the link of a dry run: it accepts every body and sends nothing."""
    return Link(lambda _body: Answer(Outcome.ACCEPTED, "not sent"), NoPace(interrupt))
