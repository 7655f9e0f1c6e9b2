"""Files that survive a crash, locks between processes, and directories that end with theirs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import resource
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import LedgerError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Step: t.TypeAlias = "Callable[[str], None]"
"""Called with the name of each step at which a crash matters; tests kill the process there."""

_PREFIX = "moengage-cohort-"
_YOUNG_SECONDS = 60.0
_MOST_DESCRIPTORS = 10_240
"""The highest limit of open files that macOS accepts."""

_LOCK_FLAGS = os.O_CREAT | os.O_RDWR
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def stem(*parts: str) -> str:
    """Return a file name for some names."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def unusable(path: Path | str, done: str, cause: str) -> LedgerError:
    """Return the error for a path that cannot be `done` something with; names the remedy.

    `cause` is an error's name, with the system's text if that is known.
    """
    code = "ledger_unusable"
    remedy = "check that its directory is usable and its disk has free space"
    if any(os.strerror(number) in cause for number in (errno.EMFILE, errno.ENFILE)):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        code = "too_many_open_files"
        remedy = (
            f"a process can open at most {soft} files here (hard limit: {hard}); raise the "
            "limit, for example with ulimit -n 4096"
        )
    elif any(os.strerror(number) in cause for number in _FORBIDDEN):
        remedy = (
            f"check that the user with the ID {os.geteuid()} can write to it and to its directory"
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
    """Raise the limit of open files as far as allowed: many systems start with a low one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_MOST_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def exists(path: Path) -> bool:
    """Return whether there is such a path; raise a `LedgerError` if access is denied."""
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
    with tempfile.NamedTemporaryFile(prefix=f".{_PREFIX}", dir=existing, buffering=0) as file:
        file.write(b"\n")
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync(path: Path) -> None:
    """Make a written file, or a rename in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(
    path: Path, data: bytes, part: Path, step: Step = lambda _name: None, *, mode: int = 0o600
) -> None:
    """Replace a file's content in full or, after an `OSError`, not at all.

    `part` is the file to write first, in the same directory and for this use only.
    """
    try:
        write_private(part, data)
        part.chmod(mode)
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
        with as_ledger_error(self.path, "locked"), contextlib.ExitStack() as undo:
            try:
                descriptor = os.open(self.path, _LOCK_FLAGS, 0o600)
            except OSError as error:
                if self._is_optional and is_forbidden(error):
                    return True
                raise
            undo.callback(os.close, descriptor)
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            undo.pop_all()
        self._descriptor = descriptor
        return True

    def upgrade(self) -> bool:
        """Make a shared lock one for this use alone; return ``False`` if others share it."""
        with contextlib.suppress(BlockingIOError):
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def release(self) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Scratch:
    """A directory for data that does not fit into memory, locked while its process lives.

    By default it is among the machine's temporary files; those of dead processes are removed.
    """

    def __init__(self, path: Path | None = None) -> None:
        remove_dead()
        self.path = path or Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = Lock(self.path / "lock")
        while not self._lock.path.exists():
            # Until it is locked, another process may take it for a dead one's and remove it.
            self._lock.release()
            make_directory(self.path)
            try:
                self._lock.acquire(blocking=True)
            except LedgerError:
                if self.path.is_dir():
                    raise

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def remove_dead(directories: Iterable[Path] | None = None) -> None:
    """Remove directories whose process has died, because they contain members' identifiers.

    By default those among the machine's temporary files, of which young ones may not have their
    lock yet.
    """
    youngest = math.inf
    if directories is None:
        directories = Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")
        youngest = time.time() - _YOUNG_SECONDS
    for path in directories:
        with contextlib.suppress(OSError, LedgerError):  # it may disappear meanwhile
            facts = path.lstat()
            if facts.st_uid != os.getuid() or facts.st_mtime > youngest:
                continue
            lock = Lock(path / "lock")
            if lock.acquire():
                shutil.rmtree(path, ignore_errors=True)
                lock.release()
