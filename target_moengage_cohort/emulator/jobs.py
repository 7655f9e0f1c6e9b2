"""Work that is done after a delay, by the emulator's clock."""

from __future__ import annotations

import heapq
import itertools
import threading
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from .options import Clock

_POLL_SECONDS = 0.02  # a clock may be advanced by hand


class Jobs:
    """Jobs, each done in a thread once it is due; the thread lives while there are any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._is_running = False
        self._ended = threading.Event()

    def add(self, seconds: float, job: Callable[[], None]) -> None:
        """Do a job after some seconds."""
        with self._lock:
            due = self._clock.monotonic() + seconds
            heapq.heappush(self._waiting, (due, next(self._numbers), job))
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="emulator-jobs", daemon=True).start()

    def clear(self) -> None:
        """Drop all jobs that are not due yet."""
        with self._lock:
            self._waiting.clear()

    def close(self) -> None:
        """Drop all jobs, and start no more."""
        self._ended.set()
        self.clear()

    def _run(self) -> None:
        while not self._ended.is_set():
            job = None
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                if self._waiting[0][0] <= self._clock.monotonic():
                    job = heapq.heappop(self._waiting)[2]
            if job is None:
                self._ended.wait(_POLL_SECONDS)
            else:
                job()
