"""The progress of a run under way, in a file that others may read while the ledgers are locked."""

from __future__ import annotations

import contextlib
import typing as t

import msgspec

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import Lock, read_whole, write_whole

if t.TYPE_CHECKING:
    from pathlib import Path


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run has come.

    Attributes:
        run_id: Which run.
        pid: Its process.
        host: Its machine.
        started_at: When it started, in UTC.
        streams: Those it has seen.
        records: How many it has read.
        accepted: How many changes were accepted.
        requests: How many requests were accepted.
    """

    run_id: str
    pid: int
    host: str
    started_at: str
    streams: list[str]
    records: int
    accepted: int
    requests: int


class SideFile:
    """The file of one run.

    Args:
        folder: The destination's, `Ledgers.folder`.
        run_id: Which run.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self._path = folder / f"run-{run_id}.json"
        self._lock = Lock(folder / f"run-{run_id}.lock")
        self._lock.acquire(blocking=True)

    def write(self, progress: RunProgress) -> None:
        """Say how far the run has come.

        Raises:
            LedgerError: The file cannot be written.
        """
        write_whole(self._path, progress, lambda _name: None)

    def close(self) -> None:
        """Remove the file: the run has ended."""
        self._path.unlink(missing_ok=True)
        self._lock.path.unlink(missing_ok=True)
        self._lock.release()


def runs_under_way(folder: Path) -> list[RunProgress]:
    """The runs whose process is there, as of their latest word, the oldest first."""
    found: list[RunProgress] = []
    for path in folder.glob("run-*.lock"):
        with contextlib.suppress(LedgerError):
            lock = Lock(path)
            if lock.acquire():
                lock.release()
            elif progress := read_whole(path.with_suffix(".json"), RunProgress):
                found.append(progress)
    return sorted(found, key=lambda progress: (progress.started_at, progress.run_id))


def remove_stale(folder: Path) -> None:
    """Remove the files of runs that were killed."""
    for path in folder.glob("run-*.lock"):
        lock = Lock(path)
        if lock.acquire():
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            lock.release()
