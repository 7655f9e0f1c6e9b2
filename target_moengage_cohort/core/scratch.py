"""Directories for temporary data, removed when their process has ended."""

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
from target_moengage_cohort.core.files import Lock, make_directory

_PREFIX = "moengage-cohort-"
_YOUNG_SECONDS = 60.0


class Scratch:
    """A directory for data that does not fit into memory, locked while its process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock(path / "lock")
        while not self._lock.path.exists():
            # Until it is locked, another process may take it for a dead one's and remove it.
            self._lock.release()
            make_directory(path)
            try:
                self._lock.acquire(blocking=True)
            except LedgerError:
                if path.is_dir():
                    raise

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def temporary_scratch() -> Scratch:
    """Create a directory among the machine's temporary files; remove those of dead processes."""
    remove_dead_temporary()
    return Scratch(Path(tempfile.mkdtemp(prefix=_PREFIX)))


def remove_dead_temporary() -> None:
    """Remove temporary directories whose process has died."""
    remove_dead(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"), older_than=_YOUNG_SECONDS)


def remove_dead(directories: t.Iterable[Path], older_than: float = -math.inf) -> None:
    """Remove directories whose process has died, because they contain members' identifiers.

    Those younger than `older_than` seconds may not have their lock yet.
    """
    for path in directories:
        with contextlib.suppress(OSError, LedgerError):  # it may disappear meanwhile
            facts = path.lstat()
            if facts.st_uid != os.getuid() or time.time() - facts.st_mtime < older_than:
                continue
            lock = Lock(path / "lock")
            if lock.acquire():
                shutil.rmtree(path, ignore_errors=True)
                lock.release()
