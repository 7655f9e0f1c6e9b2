"""The wait for a lease that another run has, which may be dead."""

from __future__ import annotations

import logging
import typing as t

import msgspec

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.core.interrupts import Patience

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.ledger.records import Holder

logger = logging.getLogger(__name__)

_MARGIN_SECONDS = 5.0
_POLL_SECONDS = 1.0


class Watched(msgspec.Struct, frozen=True):
    """The row of a lease that another run has."""

    holder: str
    fence: int
    counter: int
    seconds: float  # that it lasts
    run: Holder


class LeaseWatch:
    """The attempts at a stream's lease, until it is taken.

    `acquire` takes it if it is free, or if it is as it was watched for as long as it lasts. `look`
    returns it as it is.
    """

    def __init__(
        self,
        acquire: Callable[[Watched | None], bool],
        look: Callable[[], Watched | None],
        clock: Callable[[], float],
    ) -> None:
        self._acquire, self._look, self._clock = acquire, look, clock
        self.watched: Watched | None = None
        self._since = 0.0  # when it was first seen as it is

    def take(self) -> bool:
        """Take the lease, or watch it; return whether it is taken."""
        watched = self.watched
        is_still = watched is not None and self._clock() - self._since > watched.seconds
        if self._acquire(watched if is_still else None):
            return True
        if (seen := self._look()) != watched:
            self.watched, self._since = seen, self._clock()
        return False

    def wait(self, stream: str, seconds: float, patience: Patience) -> None:
        """Take the lease; raise a `BusyError` that names its holder if that takes long.

        If the run is patient at all, wait for a whole lease and a little more; by default it lasts
        some seconds.
        """
        if self.take():
            return
        who: object = "another run"
        if self.watched is not None:
            who, seconds = self.watched.run, max(seconds, self.watched.seconds)
        longest = max(patience.seconds, seconds + _MARGIN_SECONDS) if patience.seconds else 0.0
        if longest:
            logger.warning(
                "the ledger of stream %r is held by %s; waiting for it for up to %g s",
                stream,
                who,
                longest,
                extra={"code": "waiting_for_stream", "stream": stream},
            )
        if not Patience(patience.wait, longest).until(self.take, _POLL_SECONDS):
            msg = f"the ledger of stream {stream!r} is held by {who}; run again when it ends"
            raise BusyError("ledger_busy", msg)
