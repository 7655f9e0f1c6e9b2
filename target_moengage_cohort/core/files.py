"""Files that survive a crash, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import tempfile
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Step: t.TypeAlias = "Callable[[str], None]"
"""Called with the name of each step at which a crash matters; tests kill the process there."""

_MOST_DESCRIPTORS = 10_240
"""The highest limit of open files that macOS accepts."""

_LOCK_FLAGS = os.O_CREAT | os.O_RDWR
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def unusable(path: Path | str, done: str, cause: str) -> LedgerError:
    """Return the error for a path that cannot be `done` something with; names the remedy.

    `cause` is an error's name, with the system's text if that is known.
    """
    code = "ledger_unusable"
    remedy = "its directory must be usable and its disk must have free space"
    if any(os.strerror(number) in cause for number in (errno.EMFILE, errno.ENFILE)):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        code = "too_many_open_files"
        remedy = (
            f"a process may open {soft} files here (hard limit: {hard}), so raise the limit, for "
            "example with ulimit -n 4096"
        )
    elif any(os.strerror(number) in cause for number in _FORBIDDEN):
        remedy = (
            f"the user with the ID {os.geteuid()} must be able to write to it and to its directory"
        )
    msg = (
        f"the ledger {path} cannot be {done} ({cause}); {remedy}. Nothing more is sent. Fix the "
        "problem, then run again"
    )
    return LedgerError(code, msg)


@contextlib.contextmanager
def as_ledger_error(path: Path, done: str) -> Iterator[None]:
    """Turn an `OSError` into a `LedgerError`; `done` is what cannot be done with the path."""
    try:
        yield
    except OSError as error:
        cause = f"{type(error).__name__}: {error.strerror}"
        raise unusable(path, done, cause) from None


def raise_descriptor_limit() -> None:
    """Let the process open as many files as it may: many systems allow few unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_MOST_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def exists(path: Path) -> bool:
    """Return whether there is such a path; raise a `LedgerError` if it must not be looked at."""
    with as_ledger_error(path, "read"):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_forbidden(error: OSError) -> bool:
    """Return whether the system allows no change there, rather than that it fails."""
    return error.errno in _FORBIDDEN


def make_directory(path: Path) -> None:
    """Create a directory and its parents, for the user alone."""
    with as_ledger_error(path, "created"):
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            sync(directory.parent)


def try_out(path: Path) -> None:
    """Raise an `OSError` unless a directory exists or can be created, and takes files and locks."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    with tempfile.TemporaryDirectory(prefix=".moengage-cohort-", dir=existing) as directory:
        descriptor = os.open(Path(directory) / "file", _LOCK_FLAGS, 0o600)
        try:
            os.write(descriptor, b"\n")
            os.fsync(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Make a written file, or a rename in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: msgspec.Struct, step: Step) -> None:
    """Write a value as JSON; a reader finds the old or the new one, never a part."""
    with as_ledger_error(path, "written"):
        replace(path, msgspec.json.encode(value), path.with_name(f"{path.name}.part"), step)
        sync(path.parent)


def replace(path: Path, data: bytes, part: Path, step: Step = lambda _name: None) -> None:
    """Replace a file's content in full or, after an `OSError`, not at all; for its owner alone.

    `part` is the file to write first, in the same directory and for this use only.
    """
    try:
        write_private(part, data)
        sync(part)
        step(f"write {path.suffix}")
        os.replace(part, path)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    step(f"replace {path.suffix}")


def write_private(path: Path, data: bytes) -> None:
    """Write a file that is its owner's alone from its first byte."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - made with its mode
        file.write(data)


_T = t.TypeVar("_T")


def read_json(path: Path, kind: type[_T]) -> _T | None:
    """Read what `write_json` wrote; return ``None`` if there is no such file."""
    try:
        with as_ledger_error(path, "read"):
            return msgspec.json.decode(path.read_bytes(), type=kind) if exists(path) else None
    except msgspec.MsgspecError:
        msg = f"{path} is damaged; to replace it, run: {suggest('ledger', 'accept-older')}"
        raise LedgerError("ledger_corrupt", msg) from None


class Lock:
    """A lock that ends with its process, however that ends; releasing it leaves its file.

    An optional lock counts as taken if its file is not writable.
    """

    def __init__(self, path: Path, *, is_optional: bool = False) -> None:
        self.path = path
        self._is_optional = is_optional
        self._descriptor: int | None = None

    def acquire(self, *, blocking: bool = False, shared: bool = False) -> bool:
        """Take the lock, for this use alone or shared; return whether that succeeded."""
        with as_ledger_error(self.path, "locked"):
            try:
                descriptor = os.open(self.path, _LOCK_FLAGS, 0o600)
            except OSError as error:
                if self._is_optional and is_forbidden(error):
                    return True
                raise
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
            except BaseException as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    return False
                raise
        self._descriptor = descriptor
        return True

    def upgrade(self) -> bool:
        """Make a shared lock one for this use alone; return ``False`` if others share it."""
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
