"""How far a run is: a line on a terminal or in the log, and an entry that `status` shows."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import RunProgress

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_PUBLISH_SECONDS = 2.0
_TERMINAL_SECONDS = 0.5


class Progress:
    """Shows how far a run is, from a thread of its own, from `start` to `stop`.

    `minutes_left` returns how long the requests for the rows read still take.
    """

    def __init__(
        self, measure: t.Callable[[], RunProgress], minutes_left: t.Callable[[], float]
    ) -> None:
        self._measure = measure
        self._minutes_left = minutes_left
        self._store: LedgerStore | None = None
        self._lock = threading.Lock()
        self._started = time.monotonic()
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
        """Show the progress next to the ledgers, too, from now on."""
        with self._lock:  # its thread would write the first entry at the same time
            if self._store is None:
                self._store = store
                self._write()

    def withdraw(self) -> None:
        """Show the progress next to the ledgers no longer, before these are closed."""
        with self._lock:
            self._store = None

    def line(self) -> str:
        """Return how far the run is, on one line."""
        progress, left = self._measure(), self._minutes_left()
        duration = f"{left:.1f} min" if left >= 1 else f"{left * 60:.0f} s"
        return (
            f"{progress.records:,} lines read · {progress.accepted:,} sent · "
            f"{format_count(progress.requests, 'request')} · about {duration} left"
        )

    def _write(self) -> None:
        if (store := self._store) is not None:
            store.write_progress(self._measure())

    def _run(self) -> None:
        if sys.stderr.isatty():
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
        with contextlib.suppress(LedgerError), self._lock:
            self._write()

    def _show_on_terminal(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only for a terminal
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(stderr=True)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(_TERMINAL_SECONDS):
                self._try_to_write()
                live.update(Text(self.line()), refresh=True)
