"""The wait for a lease that another run has, which may be dead."""

from __future__ import annotations

import logging
import typing as t
from functools import partial

import msgspec

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.core.interrupts import Patience

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


class Sightings:
    """When each lease that another run has was first seen as it is; pure.

    While a run waits for one stream, it watches all others: a run that died held several, and they
    expire together.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Watched, float]] = {}  # by stream

    def note(self, leases: Mapping[str, Watched], now: float) -> None:
        """Take in all leases as they are now."""
        former = self._seen
        self._seen = {
            stream: former[stream] if former.get(stream, (None,))[0] == lease else (lease, now)
            for stream, lease in leases.items()
        }

    def latest(self, stream: str) -> Watched | None:
        """Return a stream's lease as it was seen last; none if it was free."""
        return self._seen[stream][0] if stream in self._seen else None

    def expired(self, stream: str, now: float) -> Watched | None:
        """Return a stream's lease if it stood still for as long as it lasts."""
        lease, since = self._seen.get(stream, (None, now))
        return lease if lease is not None and now - since > lease.seconds else None


class LeaseWatch:
    """The attempts at a stream's lease, until it is taken.

    `acquire` takes it if it is free, or as it is when it has expired. `look` watches all leases.
    """

    def __init__(
        self,
        acquire: Callable[[Watched | None], bool],
        look: Callable[[], None],
        sightings: Sightings,
        clock: Callable[[], float],
    ) -> None:
        self._acquire, self._look = acquire, look
        self._sightings, self._clock = sightings, clock

    def take(self, stream: str) -> bool:
        """Take the lease, or watch it; return whether it is taken."""
        if self._acquire(None):
            return True
        self._look()
        expired = self._sightings.expired(stream, self._clock())
        return expired is not None and self._acquire(expired)

    def wait(self, stream: str, seconds: float, patience: Patience) -> None:
        """Take the lease; raise a `BusyError` that names its holder if that takes long.

        If the run is patient at all, wait for a whole lease and a little more; by default it lasts
        some seconds.
        """
        if self.take(stream):
            return
        who: object = "another run"
        if (watched := self._sightings.latest(stream)) is not None:
            who, seconds = watched.run, max(seconds, watched.seconds)
        longest = max(patience.seconds, seconds + _MARGIN_SECONDS) if patience.seconds else 0.0
        if longest:
            logger.warning(
                "the ledger of stream %r is held by %s; waiting for it for up to %g s",
                stream,
                who,
                longest,
                extra={"code": "waiting_for_stream", "stream": stream},
            )
        if not Patience(patience.wait, longest).until(partial(self.take, stream), _POLL_SECONDS):
            msg = f"the ledger of stream {stream!r} is held by {who}; run again when it ends"
            raise BusyError("ledger_busy", msg)
