"""The threads of a delivery: senders, and the writer of STATE.

A sender claims a lane, waits for a permit, and only then takes the next body, so that changes can
still join the body while the rate limit holds it back.
"""

from __future__ import annotations

import threading
import time
import typing as t

from target_moengage_cohort.core.errors import InternalError, TargetError, anonymous_traceback

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.delivery.attempts import Attempts
    from target_moengage_cohort.delivery.lanes import Lane
    from target_moengage_cohort.delivery.ports import History, Timing
    from target_moengage_cohort.delivery.shared_state import SharedState

GRACE_SECONDS = 8.0


class Dispatcher:
    """Senders that serve lanes, and the writer of STATE."""

    def __init__(
        self,
        state: SharedState,
        attempts: Attempts,
        emit: t.Callable[[bytes], None],
        histories: Mapping[str, History],
        timing: Timing,
        concurrency: int,
    ) -> None:
        self._state = state
        self._attempts = attempts
        self._emit = emit
        self._histories = histories
        self._timing = timing
        self._writer = self._thread(self._write_states, "state")
        self._senders = [
            self._thread(self._send, f"sender-{number + 1}") for number in range(concurrency)
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in (self._writer, *self._senders):
            thread.start()

    def stop(self) -> bool:
        """Stop the threads; see `Delivery.stop`."""
        self._state.interrupt.set()
        deadline = time.monotonic() + GRACE_SECONDS
        for sender in self._senders:
            if sender.is_alive():
                sender.join(max(0.0, deadline - time.monotonic()))
        self._state.end()
        if self._writer.is_alive():
            self._writer.join(max(1.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in (*self._senders, self._writer))

    def _thread(self, work: t.Callable[[], None], name: str) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)

    def _guarded(self, work: t.Callable[[], None]) -> None:
        """Do a thread's work; if it fails, the run ends."""
        try:
            work()
        except TargetError as error:
            self._state.fail(error)
        except Exception as error:  # noqa: BLE001 - otherwise the run would wait for it forever
            self._state.fail(InternalError("internal_error", anonymous_traceback(error)))

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
                state.changed.notify_all()

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
        permitted = self._attempts.permitted()
        history = self._histories.get(lane.cohort.cohort_id)
        with state.changed:
            request = None
            if permitted and not state.interrupt.is_set():
                if history is not None:
                    lane.has_history = not history.is_new
                    lane.last_timestamp = max(lane.last_timestamp, history.last_timestamp)
                milliseconds = int(self._timing.wall_clock() * 1000)
                request = state.lanes.take(lane, self._timing.clock(), milliseconds)
            state.changed.notify_all()
        if request is not None:
            self._attempts.deliver(request, history.ledger if history is not None else None)
        with state.changed:
            state.lanes.release(lane)
            state.changed.notify_all()
