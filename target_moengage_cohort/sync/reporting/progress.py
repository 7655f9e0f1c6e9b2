"""How far a run is: a line on a terminal or in the log, and an entry that `status` shows."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
import typing as t

from target_moengage_cohort.core.errors import BusyError, LedgerError
from target_moengage_cohort.core.status_line import can_show_on, status_line
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from target_moengage_cohort.delivery.ports import Outlook
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import RunProgress

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_PUBLISH_SECONDS = 2.0
_TERMINAL_SECONDS = 0.5
_COLUMNS = 79  # so that a terminal of 80 columns does not wrap the line


class Progress:
    """Shows how far a run is, from a thread of its own, from `start` to `stop`.

    `outlook` returns what is left to send, and `is_reading` whether the input has not ended yet.
    """

    def __init__(
        self,
        measure: t.Callable[[], RunProgress],
        outlook: t.Callable[[], Outlook],
        is_reading: t.Callable[[], bool],
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure
        self._outlook = outlook
        self._is_reading = is_reading
        self._clock = clock
        self._store: LedgerStore | None = None
        self._lock = threading.Lock()
        self._started = clock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Start showing it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop showing it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def publish(self, store: LedgerStore) -> None:
        """Also publish the progress next to the ledgers from now on."""
        with self._lock:  # its thread would write the first entry at the same time
            if self._store is None:
                self._store = store
                self._write()

    def withdraw(self) -> None:
        """Stop publishing the progress next to the ledgers, before they are closed."""
        with self._lock:
            self._store = None

    def line(self) -> str:
        """Return how far the run is, on one line of less than 80 columns."""
        progress, outlook = self._measure(), self._outlook()
        counts = [
            f"{format_count(progress.records, 'line')} read",
            f"{progress.accepted:,} sent",
            format_count(progress.requests, "request"),
        ]
        ends = list(self._ends(progress, outlook))
        if outlook.seconds_to_permit >= 1:
            seconds = math.ceil(outlook.seconds_to_permit)
            ends.insert(0, f"waiting for the rate limit, {seconds} s")
        while len(line := " · ".join([*counts, *ends])) > _COLUMNS and len(counts) > 1:
            counts.pop()
        return line[:_COLUMNS]

    def _ends(self, progress: RunProgress, outlook: Outlook) -> t.Iterator[str]:
        """Yield the rate while input arrives; then the share that is done, and the time left.

        What is left is not known before the input has ended, and neither is it while more waits
        than delivery takes at a time.
        """
        if self._is_reading():
            if (seconds := self._clock() - self._started) >= 1:
                yield f"{progress.records / seconds:,.0f} lines/s"
            return
        left = outlook.requests_left
        if not left:
            return
        seconds = outlook.seconds_left
        duration = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{math.ceil(seconds)} s"  # noqa: PLR2004
        if outlook.is_lower_bound:
            yield f"at least {duration} left"
            return
        yield f"{100 * progress.requests // (progress.requests + left)} %"
        yield f"about {duration} left"

    def _write(self) -> None:
        if (store := self._store) is not None:
            store.write_progress(self._measure())

    def _run(self) -> None:
        if can_show_on(sys.stderr):
            self._show_on_terminal()
        else:
            logged_at = self._started
            while not self._stopped.wait(_PUBLISH_SECONDS):
                self._try_to_write()
                if (now := time.monotonic()) - logged_at >= _LOG_SECONDS:
                    logger.info("%s", self.line())
                    logged_at = now

    def _try_to_write(self) -> None:
        """Write the entry next to the ledgers; ignore an error there."""
        with contextlib.suppress(LedgerError, BusyError), self._lock:
            self._write()

    def _show_on_terminal(self) -> None:
        with status_line(sys.stderr) as shown:
            while not self._stopped.wait(_TERMINAL_SECONDS):
                self._try_to_write()
                shown.show(self.line())
