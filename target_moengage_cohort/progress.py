"""How far a run is: a line on a terminal, or a log line now and then."""

from __future__ import annotations

import logging
import sys
import threading
import time
import typing as t

if t.TYPE_CHECKING:
    from target_moengage_cohort.delivery.dispatcher import Totals

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
_TERMINAL_SECONDS = 0.5


class Progress:
    """Shows how far a run is, from a thread of its own, until stopped.

    Args:
        totals: The run's numbers so far.
        lines: Gives the number of lines read.
        backlog: Gives about how many requests what was read still takes.
        requests_per_minute: The rate limit.
    """

    def __init__(
        self,
        totals: Totals,
        lines: t.Callable[[], int],
        backlog: t.Callable[[], int],
        requests_per_minute: int,
    ) -> None:
        self._totals = totals
        self._lines = lines
        self._backlog = backlog
        self._requests_per_minute = requests_per_minute
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
            while not self._stopped.wait(_LOG_SECONDS):
                logger.info("%s", self.line())

    def _show_on_terminal(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where a person watches
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(stderr=True)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(_TERMINAL_SECONDS):
                live.update(Text(self.line(), overflow="ellipsis", no_wrap=True), refresh=True)
