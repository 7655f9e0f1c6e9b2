"""The rate limit: a sliding window in the state directory that all processes of a workspace share.

MoEngage counts requests per minute. The window counts starts per 62 seconds, because requests that
start within more than 60 s may arrive within 60 s. Times are those of the machine's monotonic
clock, which is comparable only within one boot, so each row names its boot.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shlex
import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.core import sqlite_files
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.mounts import is_on_network
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.interface import SharedWindow
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 62.0
_LONGEST_POLL_SECONDS = 1.0  # meanwhile another process may have got a 429, or ended
_SHORTEST_HOLD_SECONDS = 1.0
_SHORTEST_LOCK_POLL_SECONDS = 0.001  # a transaction takes a fraction of it
_LONGEST_LOCK_POLL_SECONDS = 0.1  # another process is stopped, or the disk is slow
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}  # the latter after long contention

_SET_UP = (
    # Commits are not synced to disk. A power loss can take away the last of them but does not
    # damage the file, and it reboots the machine, which takes about as long as the window.
    "PRAGMA synchronous=NORMAL",
    # A start or a hold has a row for each boot that knows of it. It counts for so many seconds,
    # `until` a time of that boot's clock.
    """CREATE TABLE IF NOT EXISTS entries (
        number INTEGER, boot TEXT, kind TEXT, seconds REAL, until REAL, PRIMARY KEY (number, boot)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS by_time ON entries (boot, kind, until, seconds)",
)
_ADD = """INSERT INTO entries
    SELECT coalesce(max(number), 0) + 1, :boot, :kind, :seconds, :now + :seconds FROM entries"""
_GIVE_BACK = "DELETE FROM entries WHERE number = :number AND boot = :boot"
_SWEEP = (
    # Another boot's times say nothing here, so its rows count from when they are first seen. They
    # keep their own times, because that boot may be alive: where its id is a guess, processes of
    # one boot may differ, and rows that both rewrote in turn would never expire.
    """INSERT OR IGNORE INTO entries
    SELECT number, :boot, kind, seconds, :now + min(seconds, :window) FROM entries
    WHERE boot < :boot OR boot > :boot""",  # uses the index, which <> does not
    # A row of the future would otherwise count for longer than it should. Two statements, because
    # only the first can use the index, and there are few holds.
    """UPDATE entries SET until = :now + seconds
    WHERE boot = :boot AND kind = 'start' AND until > :now + :window""",
    """UPDATE entries SET until = :now + seconds
    WHERE boot = :boot AND kind = 'hold' AND until > :now + seconds""",
    """DELETE FROM entries WHERE number IN (SELECT number FROM entries
    WHERE boot = :boot AND kind IN ('start', 'hold') AND until <= :now)""",
)
_BLOCKED_UNTIL = """SELECT max(until) FROM (
    SELECT max(until) AS until FROM entries WHERE boot = :boot AND kind = 'hold' UNION ALL
    SELECT * FROM (SELECT until FROM entries WHERE boot = :boot AND kind = 'start'
    ORDER BY until DESC LIMIT 1 OFFSET :limit - 1))"""

_HELD_UNTIL = "SELECT max(until) FROM entries WHERE boot = :boot AND kind = 'hold'"


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


def seconds_left(requests: int, started: int, limit: int, wait: float) -> float:
    """Return about how many seconds some requests take at a limit per window.

    Args:
        requests: How many are left.
        started: How many the run has started.
        limit: How many a window has.
        wait: Seconds until the next permit; 0 if nothing waits.
    """
    free = 0 if wait else limit - started % limit  # of this window
    windows = max(0, -(-(requests - free) // limit))  # to wait for
    if wait:
        windows -= 1  # the first one begins when the wait ends
    rest = min(requests, limit) * 60 / limit
    return max(wait + max(0, windows) * WINDOW_SECONDS, rest)


class Pace:
    """Permits to start a request, shared by all processes of a workspace.

    ``wait`` waits for so many seconds, and returns whether the run is to end instead. The clock is
    monotonic, in seconds, and the same for all processes of a boot. ``boot`` is that boot's id,
    by default the one that the system gives. With a `window` of several hosts a permit is one of
    this machine and one of theirs; an error of the window ends the run.
    """

    def __init__(
        self,
        settings: Settings,
        wait: t.Callable[[float], bool],
        directory: Path | None = None,
        clock: t.Callable[[], float] = time.monotonic,
        boot: str | None = None,
        window: SharedWindow | None = None,
    ) -> None:
        self._wait = wait
        self._window = window
        self._clock = clock
        self._boot = boot or _boot_id()
        self._limit = settings.requests_per_minute
        self._blocked_until = 0.0  # while a request waits for its permit
        self._known_hold = 0.0  # until when the latest hold lasts of which the log says why
        self._lock = threading.Lock()  # the lock between processes polls, which is coarser
        destination = f"{settings.base_url}\n{settings.workspace_id}"
        name = hashlib.sha256(destination.encode()).hexdigest()[:32]
        self._path = (directory or _state_directory()) / f"pace-{name}.sqlite3"
        with self._translated(), contextlib.ExitStack() as unless_ready:
            sqlite_files.create_private(self._path)
            # SQLite's own wait for a lock cannot be interrupted, so it has none.
            self._connection: sqlite3.Connection | None = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
            unless_ready.callback(self.close)
            # A write-ahead log needs memory that all processes share.
            mode = "TRUNCATE" if is_on_network(self._path.parent) else "WAL"
            set_up = (f"PRAGMA journal_mode={mode}", *_SET_UP)
            if all(self._execute_when_free(self._connection, each) for each in set_up):
                unless_ready.pop_all()

    @property
    def seconds_to_permit(self) -> float:
        """How long a request still waits for its permit; 0 if none waits."""
        return max(0.0, self._blocked_until - self._clock())

    def acquire(self) -> bool:
        """Wait for a permit; return ``False`` if the run is to end instead."""
        while (number := self._acquire_here()) is not None:
            if self._window is None or not (seconds := self._window.acquire()):
                self._blocked_until = 0.0
                return True
            self._give_back(number)
            self._blocked_until = self._clock() + seconds
            if self._wait(min(seconds, _LONGEST_POLL_SECONDS)):
                break
        return False

    def _acquire_here(self) -> int | None:
        """Wait for this machine's permit; return its number, or ``None`` if the run is to end."""
        values = {"boot": self._boot, "limit": self._limit, "window": WINDOW_SECONDS}
        values |= {"kind": "start", "seconds": WINDOW_SECONDS}
        while True:
            with self._transaction() as connection:
                if connection is None:
                    return None
                # With the lock held, so that permits have their times' order.
                values["now"] = now = self._clock()
                for statement in _SWEEP:
                    connection.execute(statement, values)
                ((until,),) = connection.execute(_BLOCKED_UNTIL, values)
                if until is None or until <= now:
                    ((number,),) = connection.execute(f"{_ADD} RETURNING number", values)
                    return int(number)
                ((held,),) = connection.execute(_HELD_UNTIL, values)
            self._blocked_until = until
            self._explain_hold(held or 0.0, now)
            if self._wait(min(until - now, _LONGEST_POLL_SECONDS)):
                return None

    def _give_back(self, number: int) -> None:
        """Give back a permit of this machine that was not used."""
        with self._transaction() as connection:
            if connection is not None:
                connection.execute(_GIVE_BACK, {"number": number, "boot": self._boot})

    def hold(self, seconds: float) -> None:
        """Let no process start a request for so long, as a 429 asks."""
        seconds = max(seconds, _SHORTEST_HOLD_SECONDS)
        with self._transaction() as connection:
            if connection is not None:
                now = self._clock()
                values = {"boot": self._boot, "kind": "hold", "now": now, "seconds": seconds}
                connection.execute(_ADD, values)
                self._known_hold = max(self._known_hold, now + seconds)
        if self._window is not None:
            self._window.hold(seconds)

    def _explain_hold(self, held_until: float, now: float) -> None:
        """Log once why requests wait, if that is for a 429 that another run was answered."""
        if held_until > max(now, self._known_hold):
            self._known_hold = held_until
            logger.info(
                "waiting for %.0f s before the next request, because MoEngage answered 429 to "
                "another run of this workspace",
                held_until - now,
                extra={"code": "waiting_for_rate_limit"},
            )

    def close(self) -> None:
        """Close the file; there are no permits from then on."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        if self._window is not None:
            self._window.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection | None]:
        """Keep out other threads and processes; yield ``None`` if the run is to end instead."""
        with self._lock, self._translated():
            connection = self._connection
            if connection is None or not self._execute_when_free(connection, "BEGIN EXCLUSIVE"):
                yield None
            else:
                with connection:  # commits, or rolls back at an error
                    yield connection

    def _execute_when_free(self, connection: sqlite3.Connection, statement: str) -> bool:
        """Execute a statement once no other process is in its way, which may be a stopped one.

        Return ``False`` if the run is to end instead.
        """
        seconds = _SHORTEST_LOCK_POLL_SECONDS
        while True:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                if sqlite_files.primary_code(error) not in _BUSY:
                    raise
            else:
                return True
            if self._wait(seconds):
                return False
            seconds = min(2 * seconds, _LONGEST_LOCK_POLL_SECONDS)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            what, remedy = str(error), "its directory must be writable and its disk have free space"
            if isinstance(error, sqlite3.Error):
                what = sqlite_files.cause(error, self._path)
                if sqlite_files.is_damage(error):
                    path = shlex.quote(str(self._path))
                    remedy = f"it is damaged; delete it: rm -f {path} {path}-wal {path}-shm"
            msg = f"cannot use the rate limit's file {self._path} ({what}); {remedy}"
            raise SettingsError("rate_limit_file", msg) from None
