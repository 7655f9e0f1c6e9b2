"""Directories for temporary data, which disappear with their process."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import Lock, make_folder

_PREFIX = "moengage-cohort-"
_YOUNG_SECONDS = 60.0


class Scratch:
    """A directory for what does not fit into memory, locked for as long as its process lives.

    Args:
        path: Where to make it.

    Attributes:
        path: As given.

    Raises:
        LedgerError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)
        self._lock = Lock(path / "lock")
        self._lock.acquire(blocking=True)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def temporary_scratch() -> Scratch:
    """Make a directory among the machine's temporary files, and remove those of dead processes.

    Raises:
        LedgerError: It cannot be made.
    """
    remove_dead_temporary()
    return Scratch(Path(tempfile.mkdtemp(prefix=_PREFIX)))


def remove_dead_temporary() -> None:
    """Remove temporary directories whose process has died."""
    parent = Path(tempfile.gettempdir())
    remove_dead(parent.glob(f"{_PREFIX}*"), older_than=_YOUNG_SECONDS)


def remove_dead(folders: t.Iterable[Path], older_than: float = -math.inf) -> None:
    """Remove directories whose process has died: they contain members' identifiers.

    Args:
        folders: The directories; one may disappear meanwhile.
        older_than: Minimum age in seconds; a younger one may not have its lock yet.
    """
    for path in folders:
        with contextlib.suppress(OSError, LedgerError):
            facts = path.lstat()
            if facts.st_uid != os.getuid() or time.time() - facts.st_mtime < older_than:
                continue
            lock = Lock(path / "lock")
            if lock.acquire():
                shutil.rmtree(path, ignore_errors=True)
                lock.release()
