"""The rate limit: a bucket in the state directory that all processes of a workspace share.

MoEngage counts requests in a minute; the bucket counts starts in 62 seconds, since requests
that start within 60 s may arrive within fewer. It runs on the machine's monotonic clock, so the
boot's id is part of its name.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from filelock import FileLock, Timeout
from pyrate_limiter import Rate, RateItem, SQLiteBucket

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings import Settings

WINDOW_SECONDS = 62
_LONGEST_POLL_SECONDS = 1.0  # another process may have been told to wait, or may have ended
_LOCK_POLL_SECONDS = 0.2
_CLEAN_UP_EVERY = 100
_T = t.TypeVar("_T")


def state_directory() -> Path:
    """The folder for what outlives a run, as the platform has it; made if it is not there.

    Raises:
        SettingsError: It cannot be made.
    """
    path = state_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"the state directory {path} cannot be made ({error.strerror}); make it writable, or "
            "set XDG_STATE_HOME to another one"
        )
        raise SettingsError(msg) from None
    return path


def boot_id() -> str:
    """What tells this boot of the machine from the one before it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: when the monotonic clock started, to ten minutes
        return str(round((time.time() - time.monotonic()) / 600))


class Pace:
    """Permits to start a request.

    Args:
        settings: Which workspace, and how many requests a minute.
        wait: Waits for so many seconds, and returns whether the run is to end instead.
        directory: Where the bucket is.
        clock: A monotonic clock in seconds that is the same for all processes.
    """

    def __init__(
        self,
        settings: Settings,
        wait: t.Callable[[float], bool],
        directory: Path | None = None,
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()  # waits less coarsely than the lock between processes
        self._granted = 0
        directory = directory or state_directory()
        destination = f"{settings.base_url}\n{settings.workspace_id}\n{boot_id()}"
        name = hashlib.sha256(destination.encode()).hexdigest()[:32]
        self._path = directory / f"pace-{name}.sqlite"
        self._is_open = False  # it stays so if the run is to end before the lock is free
        self._file_lock = FileLock(f"{self._path}.lock", mode=0o600)
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            if self._locked():
                self._open(settings.requests_per_minute)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from None
        finally:
            self._file_lock.release()

    def acquire(self) -> bool:
        """Wait for a permit; return ``False`` if the run is to end instead.

        Raises:
            SettingsError: The bucket's file cannot be used.
        """
        while (seconds := self._try()) > 0:
            if self._wait(min(seconds, _LONGEST_POLL_SECONDS)):
                return False
        return True

    def hold(self, seconds: float) -> None:
        """Let no process start a request for so long, as a 429 asks.

        Raises:
            SettingsError: The bucket's file cannot be used.
        """

        def note() -> None:
            until = max(self._held_until(), self._now() + round(seconds * 1000))
            self._bucket.conn.execute("DELETE FROM hold")
            self._bucket.conn.execute("INSERT INTO hold VALUES (?)", (until,))
            self._bucket.conn.commit()

        self._with_lock(note)

    def close(self) -> None:
        """Close the bucket's file."""
        with self._lock:
            if self._is_open:
                self._bucket.close()  # type: ignore[no-untyped-call]

    def _open(self, requests_per_minute: int) -> None:
        rates = [Rate(requests_per_minute, WINDOW_SECONDS * 1000)]
        self._bucket = SQLiteBucket.init_from_file(rates, db_path=str(self._path))
        self._bucket.conn.execute("PRAGMA journal_mode=WAL")
        self._bucket.conn.execute("PRAGMA synchronous=NORMAL")
        self._bucket.conn.execute("CREATE TABLE IF NOT EXISTS hold (until INTEGER)")
        self._bucket.conn.commit()
        self._is_open = True

    def _try(self) -> float:
        """Take a permit and return 0, or return how many seconds to wait before trying again."""

        def take() -> float:
            now = self._now()  # under the lock, so that the order of permits is that of their times
            if (until := self._held_until()) > now:
                return (until - now) / 1000
            item = RateItem("request", now)
            if self._bucket.put(item):
                self._granted += 1
                if self._granted % _CLEAN_UP_EVERY == 0:
                    self._bucket.leak(now)
                return 0.0
            return max(t.cast("int", self._bucket.waiting(item)), 1) / 1000

        seconds = self._with_lock(take)
        return _LONGEST_POLL_SECONDS if seconds is None else seconds

    def _with_lock(self, work: t.Callable[[], _T]) -> _T | None:
        """Do something while no other thread or process does; not at all if the run is to end."""
        with self._lock:
            try:
                return work() if self._is_open and self._locked() else None
            except (OSError, sqlite3.Error) as error:
                raise self._failed(error) from None
            finally:
                self._file_lock.release()

    def _locked(self) -> bool:
        """Wait for the lock between processes; return ``False`` if the run is to end instead."""
        while True:
            try:
                self._file_lock.acquire(timeout=_LOCK_POLL_SECONDS)
            except Timeout:
                if self._wait(0):
                    return False
            else:
                return True

    def _held_until(self) -> int:
        row = self._bucket.conn.execute("SELECT max(until) FROM hold").fetchone()
        return row[0] or 0

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _failed(self, error: OSError | sqlite3.Error) -> SettingsError:
        return SettingsError(
            f"the rate limit's file {self._path} cannot be used ({error}); its folder must be "
            "writable and its disk have room, and if the file is broken, delete it"
        )
