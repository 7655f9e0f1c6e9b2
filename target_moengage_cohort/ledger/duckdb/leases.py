"""Leases of streams: locks that the system drops with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import typing as t

import msgspec

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.core.files import (
    Lock,
    as_ledger_error,
    is_forbidden,
    raise_descriptor_limit,
    write_private,
)
from target_moengage_cohort.ledger.records import Holder

if t.TYPE_CHECKING:
    from pathlib import Path

    from target_moengage_cohort.core.interrupts import Patience

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SET_LOCK = getattr(fcntl, "F_OFD_SETLK", 0)


class Leases:
    """The leases of a store's streams, by the stems of their files.

    Each is a lock on one byte of a file that all share, so that any number of them takes one
    descriptor. macOS has no such locks: there, each is a lock on a file of its own. An optional
    lease counts as taken if its directory is not writable.
    """

    def __init__(self, directory: Path, *, is_optional: bool) -> None:
        self._directory = directory
        self._is_optional = is_optional
        self._shared = -1  # a descriptor
        self._locks: dict[str, Lock] = {}
        raise_descriptor_limit()

    def take(self, stream: str, base: str, me: Holder, patience: Patience) -> None:
        """Wait for a stream's lease; raise a `BusyError` that names its holder if it takes long."""
        if self.acquire(base, me):
            return
        if patience.seconds:
            logger.warning(
                "the ledger of stream %r is held by %s; waiting for it for up to %g s",
                stream,
                self.holder(base) or "another run",
                patience.seconds,
                extra={"code": "waiting_for_stream", "stream": stream},
            )
        if not patience.until(lambda: self.acquire(base, me), _POLL_SECONDS):
            who = self.holder(base) or "another run"
            msg = f"the ledger of stream {stream!r} is held by {who}; run again when it ends"
            raise BusyError("ledger_busy", msg)

    def acquire(self, base: str, me: Holder | None = None) -> bool:
        """Take a lease, and name its holder in its file; return whether that succeeded."""
        path = self._path(base)
        with as_ledger_error(path, "locked"):
            try:
                is_taken = self._lock(base)
                if is_taken and me is not None:
                    write_private(path, msgspec.json.encode(me))
            except OSError as error:
                if not (self._is_optional and is_forbidden(error)):
                    raise
                is_taken = True
        return is_taken

    def is_free(self, base: str) -> bool:
        """Return whether a lease could be taken."""
        if is_free := self.acquire(base):
            self.release(base)
        return is_free

    def holder(self, base: str) -> Holder | None:
        """Return the holder that a lease's file names, if any."""
        try:
            return msgspec.json.decode(self._path(base).read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return None

    def release(self, base: str) -> None:
        """Release a lease."""
        with contextlib.suppress(OSError):
            os.truncate(self._path(base), 0)
        if self._shared >= 0:
            self._set(fcntl.F_UNLCK, base)
        if lock := self._locks.pop(base, None):
            lock.release()

    def close(self) -> None:
        """Close the file that all share."""
        descriptor, self._shared = self._shared, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _lock(self, base: str) -> bool:
        if not _SET_LOCK:
            lock = self._locks[base] = Lock(self._path(base), is_optional=self._is_optional)
            return lock.acquire()
        if self._shared < 0:
            path = self._directory / "leases.lock"
            self._shared = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            self._set(fcntl.F_WRLCK, base)
        except BlockingIOError:
            return False
        return True

    def _set(self, kind: int, base: str) -> None:
        byte = int(base[:15], 16)
        flock = struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(self._shared, _SET_LOCK, flock)

    def _path(self, base: str) -> Path:
        return self._directory / f"stream-{base}.lock"
