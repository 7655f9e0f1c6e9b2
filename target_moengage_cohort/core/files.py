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

from target_moengage_cohort.core.errors import LedgerError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Step: t.TypeAlias = "Callable[[str], None]"
"""Called with the name of each step at which a crash matters; tests kill the process there."""

_FREE_DESCRIPTORS = 256
"""Descriptors to keep free for databases, connections and files."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process and run that took a lock, and when in UTC, as the lock's file names them."""

    pid: int
    host: str
    run_id: str
    since: str


@contextlib.contextmanager
def as_ledger_error(path: Path, done: str) -> Iterator[None]:
    """Turn an `OSError` into a `LedgerError`; `done` is what cannot be done with the path."""
    try:
        yield
    except OSError as error:
        msg = (
            f"the ledger path {path} cannot be {done} ({type(error).__name__}: {error.strerror}); "
            "fix the directory or the disk, then run again"
        )
        raise LedgerError("ledger_unusable", msg) from None


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
        descriptor = _open(Path(directory) / "file")
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
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - made with its mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        step(f"write {path.suffix}")
        os.replace(part, path)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    step(f"replace {path.suffix}")


_T = t.TypeVar("_T")


def read_json(path: Path, kind: type[_T]) -> _T | None:
    """Read what `write_json` wrote; return ``None`` if there is no such file."""
    try:
        with as_ledger_error(path, "read"):
            return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else None
    except msgspec.MsgspecError:
        msg = (
            f"{path} is corrupt; to replace it, run: moengage-cohort ledger accept-older --config …"
        )
        raise LedgerError("ledger_corrupt", msg) from None


class Lock:
    """A lock that ends with its process, however that ends; releasing it leaves its file.

    An optional lock counts as taken if its file is not writable.
    """

    def __init__(self, path: Path, *, is_optional: bool = False) -> None:
        self.path = path
        self._is_optional = is_optional
        self._descriptor: int | None = None

    def acquire(
        self, holder: Holder | None = None, *, blocking: bool = False, shared: bool = False
    ) -> bool:
        """Take the lock, for this use alone or shared; return whether that succeeded."""
        with as_ledger_error(self.path, "locked"):
            try:
                descriptor = _open(self.path)
            except OSError as error:
                if self._is_optional and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                    return True
                raise
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
                if holder is not None:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, msgspec.json.encode(holder), 0)
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

    def holder(self) -> Holder | None:
        """Return the holder that the lock's file names, if any."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return None

    def release(self) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock's file; each cohort keeps one open, so raise the process's limit in time."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and descriptor > soft - _FREE_DESCRIPTORS:
        more = soft * 2 if hard == resource.RLIM_INFINITY else min(soft * 2, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return descriptor
