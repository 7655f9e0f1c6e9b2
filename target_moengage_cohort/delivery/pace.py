"""The rate limit: a bucket in the state directory that all processes of a workspace share.

MoEngage counts requests per minute. The bucket counts starts per 62 seconds, because requests that
start within more than 60 s may arrive within 60 s. It uses the machine's monotonic clock, so the
boot's id is part of its name.
"""

from __future__ import annotations

import contextlib
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
    from collections.abc import Iterator

    from target_moengage_cohort.settings import Settings

WINDOW_SECONDS = 62
_LONGEST_POLL_SECONDS = 1.0  # meanwhile another process may have got a 429, or ended
_SHORTEST_HOLD_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.2
_CLEAN_UP_EVERY = 100


def _state_directory() -> Path:
    path = state_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"cannot create the state directory {path} ({error.strerror}); make it writable, or "
            "set XDG_STATE_HOME to another directory"
        )
        raise SettingsError("state_directory_unusable", msg) from None
    return path


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: when the monotonic clock started, to ten minutes
        return str(round((time.time() - time.monotonic()) / 600))


class Pace:
    """Permits to start a request, shared by all processes of a workspace.

    ``wait`` waits for so many seconds, and returns whether the run is to end instead. The clock is
    monotonic, in seconds, and the same for all processes.
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
        self._lock = threading.Lock()  # the lock between processes polls, which is coarser
        self._granted = 0
        destination = f"{settings.base_url}\n{settings.workspace_id}\n{_boot_id()}"
        name = hashlib.sha256(destination.encode()).hexdigest()[:32]
        self._path = (directory or _state_directory()) / f"pace-{name}.sqlite"
        self._is_open = False  # stays so if the run is to end before the lock is free
        self._file_lock = FileLock(f"{self._path}.lock", mode=0o600)
        with self._translated():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            if self._locked():
                self._open(settings.requests_per_minute)

    def acquire(self) -> bool:
        """Wait for a permit; return ``False`` if the run is to end instead."""
        while (seconds := self._try()) > 0:
            if self._wait(min(seconds, _LONGEST_POLL_SECONDS)):
                return False
        return True

    def hold(self, seconds: float) -> None:
        """Let no process start a request for so long, as a 429 asks."""
        milliseconds = round(max(seconds, _SHORTEST_HOLD_SECONDS) * 1000)
        with self._exclusive() as is_exclusive:
            if is_exclusive:
                until = max(self._held_until(), self._now() + milliseconds)
                self._bucket.conn.execute("DELETE FROM hold")
                self._bucket.conn.execute("INSERT INTO hold VALUES (?)", (until,))
                self._bucket.conn.commit()

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
        """Take a permit and return 0, or return the seconds to wait before trying again."""
        with self._exclusive() as is_exclusive:
            if not is_exclusive:
                return _LONGEST_POLL_SECONDS
            now = self._now()  # with the lock held, so that permits have their times' order
            if (until := self._held_until()) > now:
                return (until - now) / 1000
            item = RateItem("request", now)
            if self._bucket.put(item):
                self._granted += 1
                if self._granted % _CLEAN_UP_EVERY == 0:
                    self._bucket.leak(now)
                return 0.0
            return max(t.cast("int", self._bucket.waiting(item)), 1) / 1000

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Keep out other threads and processes; yield ``False`` if the run is to end instead."""
        with self._lock, self._translated():
            yield self._is_open and self._locked()

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

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors, and release the lock between processes."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            msg = (
                f"cannot use the rate limit's file {self._path} ({error}). Its directory must be "
                "writable and its disk must have free space; if the file is damaged, delete it"
            )
            raise SettingsError("rate_limit_file", msg) from None
        finally:
            self._file_lock.release()
