"""The paused streams: a run reads their rows, and sends nothing."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import WithheldError
from target_moengage_cohort.core.text import iso_utc

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import LedgerStore

logger = logging.getLogger(__name__)


class PausedStreams:
    """Asks the store whether streams are paused.

    Args:
        store: The run's store.
        are_dropped: Whether the rows of a paused stream are dropped; a dry run plans them.
    """

    def __init__(self, store: LedgerStore, *, are_dropped: bool) -> None:
        self._store, self._are_dropped = store, are_dropped
        self._warned: set[str] = set()

    def check(self, stream: str) -> None:
        """Raise an error if a stream is paused; a dry run only warns of that."""
        if (error := paused_error(self._store, stream)) is None:
            return
        if self._are_dropped:
            raise error
        self._warn(stream, f"this dry run shows what a run would do without the pause: {error}")

    def refusal(self, stream: str) -> WithheldError | None:
        """Return why no further request may be sent for a stream, if it is paused by now.

        To be called from any thread.
        """
        error = paused_error(self._store, stream) if self._are_dropped else None
        if error is not None and stream not in self._warned:
            what = "nothing more is sent, and no STATE that covers the rest is written"
            self._warn(stream, f"{what}: {error}")
        return error

    def _warn(self, stream: str, message: str) -> None:
        self._warned.add(stream)
        logger.warning("%s", message, extra={"code": "stream_paused", "stream": stream})


def paused_error(store: LedgerStore, stream: str) -> WithheldError | None:
    """Return the error for which nothing is sent for a stream, if it is paused."""
    if (pause := store.pause_of(stream)) is None:
        return None
    what = f"stream {stream!r} is" if pause.stream else f"all streams, including {stream!r}, are"
    msg = (
        f"{what} paused (since {iso_utc(pause.paused_at, 'seconds')}, by {pause.paused_by} on "
        f"{pause.host}). To end the pause, run: {suggest('resume', pause.stream or '')}"
    )
    return WithheldError("stream_paused", msg)
