"""Leases of streams: locks that the system drops with the process that holds them."""

from __future__ import annotations

import logging
import os
import socket
import typing as t
from datetime import UTC, datetime

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.core.files import Holder, Lock

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.control.sqlite import Patience

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


def new_holder(run_id: str, now: float) -> Holder:
    """Return this process as the holder of a lease since now, in seconds since 1970."""
    since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    return Holder(pid=os.getpid(), host=socket.gethostname(), run_id=run_id, since=since)


def take_lease(stream: str, lock: Lock, me: Holder, patience: Patience) -> None:
    """Wait for a stream's lease; raise a `BusyError` that names its holder if that is too long."""
    waited = 0.0
    while not lock.acquire(me):
        holder = lock.holder()
        who = "another run"
        if holder is not None:
            who = f"run {holder.run_id} (process {holder.pid} on {holder.host}, "
            who += f"since {holder.since})"
        if not waited and patience.seconds:
            logger.warning(
                "the ledger of stream %r is held by %s; waiting for it for up to %g s",
                stream,
                who,
                patience.seconds,
                extra={"code": "waiting_for_stream", "stream": stream},
            )
        if waited >= patience.seconds or patience.wait(_POLL_SECONDS):
            msg = f"the ledger of stream {stream!r} is held by {who}; run again when it ends"
            raise BusyError("ledger_busy", msg)
        waited += _POLL_SECONDS
