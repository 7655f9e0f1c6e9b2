"""Singer messages that we write: rejected rows, which can be replayed, and STATE."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import shlex
import stat
import sys
import termios
import time
import typing as t
from decimal import Decimal
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import BusyError, SettingsError, TryAgainError
from target_moengage_cohort.core.text import utc_now

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.singer.messages import Schema

logger = logging.getLogger(__name__)

REASON = "_reject_reason"
MAPPED = "_reject_mapped"
"""In the SCHEMA of rows to which stream maps have been applied already."""

_REJECT_PROPERTIES: dict[str, t.Any] = {
    REASON: {"type": ["string", "null"]},
    "_reject_run_id": {"type": ["string", "null"]},
    "_reject_at": {"type": ["string", "null"], "format": "date-time"},
}
_SILENT_SECONDS = 1.0
_POLL_SECONDS = 0.02
_LINE_START = b'{"type":"'
_encode = msgspec.json.Encoder(decimal_format="number").encode


class NoRejects:
    """Keeps no rows: without a `rejects_path`, and in a dry run."""

    def is_file(self, descriptor: int) -> bool:
        """Return ``False``."""
        del descriptor
        return False

    def append(self, stream: Schema, record: dict[str, t.Any], reason: str) -> None:
        """Keep nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class RejectsFile:
    """Appends rejected rows to a file that only its owner can read, each stream's SCHEMA first."""

    def __init__(self, path: str, run_id: str, patience: Patience) -> None:
        self._path = Path(path)
        self._patience = patience
        self._run_id = run_id
        self._announced: dict[str, Schema] = {}
        self._dirty = False
        self._sync_error: TryAgainError | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with self._locked():
                pass
        except OSError as error:
            raise _unusable(path, error.strerror) from None

    def is_file(self, descriptor: int) -> bool:
        """Return whether a descriptor is open on this very file."""
        return os.path.sameopenfile(self._file, descriptor)

    def append(self, stream: Schema, record: dict[str, t.Any], reason: str) -> None:
        """Append one row; it is durable after `sync`."""
        messages: list[dict[str, t.Any]] = []
        if self._announced.get(stream.stream) != stream:
            properties = stream.schema["properties"] | _REJECT_PROPERTIES
            schema = stream.schema | {"properties": properties}
            announced = msgspec.structs.replace(stream, schema=schema)
            messages.append({"type": "SCHEMA"} | msgspec.structs.asdict(announced))
        added = {REASON: reason, "_reject_run_id": self._run_id, "_reject_at": utc_now()}
        row = {name: _as_read(value) for name, value in record.items()} | added
        messages.append({"type": "RECORD", "stream": stream.stream, "record": row})
        data = b"".join(_encode(message) + b"\n" for message in messages)
        try:
            with self._locked():
                while data:
                    data = data[os.write(self._file, data) :]
        except OSError as error:
            raise self._write_error(error) from None
        self._announced[stream.stream] = stream
        self._dirty = True

    def sync(self) -> None:
        """Make all appended rows durable."""
        if self._sync_error is not None:
            raise self._sync_error
        if not self._dirty:
            return
        self._dirty = False  # first: rows that another thread appends meanwhile need a sync, too
        try:
            os.fsync(self._file)
        except OSError as error:
            self._sync_error = self._write_error(error)  # a later fsync would report success
            raise self._sync_error from None

    def close(self) -> None:
        """Make all appended rows durable, and close the file."""
        self.sync()
        os.close(self._file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs from writing, and the end of the file at the end of a line."""
        if not self._wait_for_lock():
            msg = (
                f"rejects_path: {self._path} is locked by another process, which may have been "
                "stopped; end it, then run again. To find it, run: fuser -v "
                f"{shlex.quote(str(self._path))}"
            )
            raise BusyError("rejects_file_busy", msg)
        try:
            if (start := _torn_line(self._file, str(self._path))) is not None:
                os.ftruncate(self._file, start)  # of a run that died; no STATE has passed that row
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _wait_for_lock(self) -> bool:
        """Wait for the file; say so if that takes longer than another run's row."""
        first = min(_SILENT_SECONDS, self._patience.seconds)
        if self._patience._replace(seconds=first).until(self._lock, _POLL_SECONDS):
            return True
        rest = self._patience.seconds - first
        if rest > 0:
            logger.info(
                "rejects_path: %s is locked by another process; waiting for it for up to %g s",
                self._path,
                rest,
                extra={"code": "waiting_for_rejects_file"},
            )
        return self._patience._replace(seconds=rest).until(self._lock, _POLL_SECONDS)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write_error(self, error: OSError) -> TryAgainError:
        return TryAgainError(
            "rejects_file_not_written",
            f"rejects_path: {self._path} cannot be written ({error.strerror}). Check its "
            "directory and the free space on its disk, then run again; the next run resumes "
            "from the last STATE",
        )


def _as_read(value: t.Any) -> t.Any:
    """Return a value that is written as one of the same meaning for the row rules.

    A number that was read with an exponent keeps one: without it, it would be taken for exact.
    """
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0:
        return msgspec.Raw(f"{value:E}".encode())
    return value


def check_rejects_path(path: str) -> None:
    """Check that rejected rows can be appended to a file, without creating it."""
    directory = Path(path).resolve().parent
    try:
        if os.path.lexists(path):
            with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND)) as file:
                _torn_line(file.fileno(), path)
        elif not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
            raise _unusable(path, "its directory does not exist, or is not writable")
    except OSError as error:
        raise _unusable(path, error.strerror) from None


def write_state(value: bytes, sleep: t.Callable[[float], object] = time.sleep) -> None:
    """Write one STATE to standard output as a whole line, and flush it.

    A pipe takes a short line with one call, or nothing of it. A longer one waits until it fits, so
    that a process which ends while its output is not read leaves no part of a line.
    """
    line = value + b"\n"
    try:
        if len(line) > select.PIPE_BUF:
            _wait_for_room(sys.stdout, len(line), sleep)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except OSError as error:
        why = "was closed" if isinstance(error, BrokenPipeError) else f"fails ({error.strerror})"
        msg = f"standard output {why}, so STATE cannot be saved; run again"
        raise TryAgainError("state_not_written", msg) from None


def _wait_for_room(stream: t.TextIO, size: int, sleep: t.Callable[[float], object]) -> None:
    """Wait until a pipe is empty, if that is enough for so many bytes; Linux only.

    Its capacity is raised, up to the system's limit, 1 MB by default.
    """
    try:
        descriptor = stream.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):  # in memory
        return
    if not (is_pipe and hasattr(fcntl, "F_SETPIPE_SZ")):
        return
    if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < size:
        with contextlib.suppress(OSError):  # beyond the limit
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)
    if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) >= size:
        unread = bytearray(4)
        while fcntl.ioctl(descriptor, termios.FIONREAD, unread) == 0 and any(unread):
            if _has_no_reader(descriptor):
                return  # the write says so
            sleep(_POLL_SECONDS)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _torn_line(descriptor: int, path: str) -> int | None:
    """Return the start of the unfinished line of a run that died, if there is one."""
    size, length = os.fstat(descriptor).st_size, 1
    tail = b""
    while b"\n" not in tail and length <= 2 * size:
        tail = os.pread(descriptor, length, max(0, size - length))
        length *= 2
    line = tail[tail.rfind(b"\n") + 1 :]
    if not line:
        return None
    if not line.startswith(_LINE_START[: len(line)]):  # it is not ours, so it must not be cut
        msg = f"rejects_path: {path} is not a file of rejected rows; choose another file"
        raise SettingsError("not_a_rejects_file", msg)
    return size - len(line)


RejectsWriter: t.TypeAlias = RejectsFile | NoRejects


def _unusable(path: str, why: str | None) -> SettingsError:
    return SettingsError(
        "rejects_file_unusable",
        f"rejects_path: {path} cannot be opened ({why}); create its directory, make both writable, "
        "or choose another file",
    )
