"""Files that hold after a crash, and locks between processes."""

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
"""Is told of each step between which a crash matters; the tests kill the process there."""

_FREE_DESCRIPTORS = 256
"""What is left for databases, connections and files beside the locks."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock, as the lock's file says.

    Attributes:
        pid: The process.
        host: Its machine.
        run_id: Its run.
        since: Since when, in UTC.
    """

    pid: int
    host: str
    run_id: str
    since: str


@contextlib.contextmanager
def mended(path: Path, doing: str) -> Iterator[None]:
    """Turn what the disk says into a `LedgerError` that says what to do."""
    try:
        yield
    except OSError as error:
        msg = (
            f"the ledger's {path} cannot be {doing} ({type(error).__name__}: {error.strerror}); "
            "mend its folder or its disk, then run again"
        )
        raise LedgerError(msg) from None


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, for us alone.

    Raises:
        LedgerError: The disk refuses it.
    """
    with mended(path, "made"):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync(folder.parent)


def try_out(path: Path) -> None:
    """See that a folder is there, or can be made, and takes files and locks; leave no trace.

    Raises:
        OSError: It does not.
    """
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    with tempfile.TemporaryDirectory(prefix=".moengage-cohort-", dir=place) as made:
        descriptor = _open(Path(made) / "file")
        try:
            os.write(descriptor, b"\n")
            os.fsync(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, value: msgspec.Struct, step: Step) -> None:
    """Write a value as JSON, so that a reader finds the old or the new one, never a part.

    Raises:
        LedgerError: The disk refuses it.
    """
    with mended(path, "written"):
        part = path.with_name(f"{path.name}.part")
        replace(path, msgspec.json.encode(value), part, step)
        sync(path.parent)


def replace(path: Path, data: bytes, part: Path, step: Step = lambda _name: None) -> None:
    """Write a file anew, all of it or nothing, for its owner alone.

    Args:
        path: The file.
        data: What it is to hold.
        part: Where to write first; in the same folder, and nobody else's.
        step: See `Step`.

    Raises:
        OSError: The disk refuses it.
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


def read_whole(path: Path, kind: type[_T]) -> _T | None:
    """Read what `write_whole` wrote; ``None`` if there is no such file.

    Raises:
        LedgerError: The file cannot be read, or is not as we write it.
    """
    try:
        with mended(path, "read"):
            if not path.exists():
                return None
            return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError:
        msg = f"the ledger's {path} is broken; restore it from a backup"
        raise LedgerError(msg) from None


class Lock:
    """A lock that ends with its process, however that ends.

    Args:
        path: Its file, which stays.
        is_optional: Whether to go on without it where its file cannot be made or opened.
    """

    def __init__(self, path: Path, *, is_optional: bool = False) -> None:
        self.path = path
        self._is_optional = is_optional
        self._descriptor: int | None = None

    def acquire(self, holder: Holder | None = None, *, blocking: bool = False) -> bool:
        """Take the lock; return whether we have it.

        Raises:
            LedgerError: The file cannot be made, opened or locked.
        """
        with mended(self.path, "locked"):
            try:
                descriptor = _open(self.path)
            except OSError as error:
                if self._is_optional and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                    return True
                raise
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
                if holder is not None:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, msgspec.json.encode(holder), 0)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        return True

    def holder(self) -> Holder | None:
        """Who has the lock, as far as its file says."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return None

    def release(self) -> None:
        """Give the lock back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock's file; each cohort holds one open, so raise our limit before it is reached."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and descriptor > soft - _FREE_DESCRIPTORS:
        more = soft * 2 if hard == resource.RLIM_INFINITY else min(soft * 2, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return descriptor
