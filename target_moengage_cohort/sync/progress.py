"""How far a run is: a line on a terminal or in the log now and then, and a file for others."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.duckdb.run_files import RunProgress, SideFile

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.delivery.attempts import Totals
    from target_moengage_cohort.ledger import Ledgers

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_FILE_SECONDS = 2.0
_TERMINAL_SECONDS = 0.5


class Progress:
    """Shows how far a run is, from a thread of its own, until stopped.

    Args:
        totals: The run's numbers so far.
        lines: Gives the number of lines read.
        backlog: Gives about how many requests what was read still takes.
        streams: The streams that were met.
        requests_per_minute: The rate limit.
    """

    def __init__(
        self,
        totals: Totals,
        lines: t.Callable[[], int],
        backlog: t.Callable[[], int],
        streams: Iterable[str],
        requests_per_minute: int,
    ) -> None:
        self._totals = totals
        self._lines = lines
        self._backlog = backlog
        self._streams = streams
        self._requests_per_minute = requests_per_minute
        self._file: SideFile | None = None
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Start to show it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to show it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def keep(self, ledgers: Ledgers, started_at: str) -> None:
        """From now on, tell in the ledgers' folder how far the run is, too.

        Raises:
            LedgerError: The folder cannot be written.
        """
        if self._file is None and not ledgers.read_only:
            self._run_id, self._started_at = ledgers.run_id, started_at
            self._file = SideFile(ledgers.folder, ledgers.run_id)
            self._write()

    def forget(self) -> None:
        """Remove the file: the run is over."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _write(self) -> None:
        if (file := self._file) is not None:
            file.write(
                RunProgress(
                    run_id=self._run_id,
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    started_at=self._started_at,
                    streams=list(self._streams),
                    records=self._lines(),
                    accepted=self._totals.accepted,
                    requests=self._totals.requests,
                )
            )

    def line(self) -> str:
        """How far the run is, on one line."""
        totals = self._totals
        minutes = max((time.monotonic() - self._began) / 60, 1 / 60)
        left = self._backlog() / self._requests_per_minute
        return (
            f"{self._lines():,} lines read, {totals.accepted:,} members accepted in "
            f"{totals.requests:,} requests ({totals.requests / minutes:.0f}/min), "
            f"about {left:.1f} min left for what was read"
        )

    def _run(self) -> None:
        if sys.stderr.isatty():
            self._show_on_terminal()
        else:
            logged_at = self._began
            while not self._stopped.wait(min(_FILE_SECONDS, _LOG_SECONDS)):
                self._tell()
                if (now := time.monotonic()) - logged_at >= _LOG_SECONDS:
                    logger.info("%s", self.line())
                    logged_at = now

    def _tell(self) -> None:
        """Write the file; that it cannot be written is no reason to stop."""
        with contextlib.suppress(LedgerError), self._lock:
            self._write()

    def _show_on_terminal(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where a person watches
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(stderr=True)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(_TERMINAL_SECONDS):
                self._tell()
                live.update(Text(self.line()), refresh=True)
