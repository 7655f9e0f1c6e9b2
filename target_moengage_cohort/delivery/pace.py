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

import platformdirs
from pyrate_limiter import Rate, RateItem, SQLiteBucket

from target_moengage_cohort.errors import SettingsError

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings import Settings

WINDOW_SECONDS = 62
_LONGEST_POLL_SECONDS = 1.0  # another process may have been told to wait, or may have ended
_CLEAN_UP_EVERY = 100


def state_directory() -> Path:
    """The folder for what outlives a run, as the platform has it; made if it is not there.

    Raises:
        SettingsError: It cannot be made.
    """
    path = Path(platformdirs.user_state_path("target-moengage-cohort"))
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
        path = directory / f"pace-{name}.sqlite"
        try:
            for file in (path, Path(f"{path}.lock")):
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            rates = [Rate(settings.requests_per_minute, WINDOW_SECONDS * 1000)]
            self._bucket = SQLiteBucket.init_from_file(rates, db_path=str(path), use_file_lock=True)
            with self._bucket.lock:
                self._bucket.conn.execute("CREATE TABLE IF NOT EXISTS hold (until INTEGER)")
                self._bucket.conn.commit()
        except (OSError, sqlite3.Error) as error:
            msg = f"the rate limit's file in {directory} cannot be used ({error}); make it writable"
            raise SettingsError(msg) from None

    def acquire(self) -> bool:
        """Wait for a permit; return ``False`` if the run is to end instead."""
        while (seconds := self._try()) > 0:
            if self._wait(min(seconds, _LONGEST_POLL_SECONDS)):
                return False
        return True

    def hold(self, seconds: float) -> None:
        """Let no process start a request for so long, as a 429 asks."""
        with self._lock, self._bucket.lock:
            until = max(self._held_until(), self._now() + round(seconds * 1000))
            self._bucket.conn.execute("DELETE FROM hold")
            self._bucket.conn.execute("INSERT INTO hold VALUES (?)", (until,))
            self._bucket.conn.commit()

    def close(self) -> None:
        """Close the bucket's file."""
        with self._lock:
            self._bucket.close()  # type: ignore[no-untyped-call]

    def _try(self) -> float:
        """Take a permit and return 0, or return how many seconds to wait before trying again."""
        with self._lock, self._bucket.lock:
            now = self._now()  # under the lock, so that the order of permits is that of their times
            if (until := self._held_until()) > now:
                return (until - now) / 1000
            item = RateItem("request", now)
            if self._bucket.put(item):
                self._granted += 1
                if self._granted % _CLEAN_UP_EVERY == 0:
                    self._bucket.leak(now)
                return 0
            return max(t.cast("int", self._bucket.waiting(item)), 1) / 1000

    def _held_until(self) -> int:
        row = self._bucket.conn.execute("SELECT max(until) FROM hold").fetchone()
        return row[0] or 0

    def _now(self) -> int:
        return int(self._clock() * 1000)
