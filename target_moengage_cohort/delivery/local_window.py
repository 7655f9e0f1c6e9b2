"""A rolling window of starts in a file of this machine, which several processes share.

Times are those of a clock that is comparable within one boot only, so each row names its boot.
"""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import threading
import typing as t

from target_moengage_cohort.core import sqlite_files
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.mounts import is_on_network

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_moengage_cohort.core.rate_limits import RateLimit

_SHORTEST_LOCK_POLL_SECONDS = 0.001  # a transaction takes a fraction of it
_LONGEST_LOCK_POLL_SECONDS = 0.1  # another process is stopped, or the disk is slow
_LONG_SECONDS = 600.0  # a window that is longer must survive a power loss
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}  # the latter after long contention

_SET_UP = (
    # Commits are not synced to disk. A power loss can take away the last of them but does not
    # damage the file, and it reboots the machine, which takes about as long as a short window.
    "PRAGMA synchronous={synchronous}",
    # A start or a hold has a row for each boot that knows of it. It counts for so many seconds,
    # `until` a time of that boot's clock.
    """CREATE TABLE IF NOT EXISTS entries (
        number INTEGER, boot TEXT, kind TEXT, seconds REAL, until REAL, PRIMARY KEY (number, boot)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS by_time ON entries (boot, kind, until, seconds)",
)
_ADD = """INSERT INTO entries
    SELECT coalesce(max(number), 0) + 1, :boot, :kind, :seconds, :now + :seconds FROM entries"""
# Once permits have expired, others may have their numbers.
_GIVE_BACK = """DELETE FROM entries
    WHERE number > :number - :count AND number <= :number AND boot = :boot AND until <= :until"""
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
_HELD_UNTIL = "SELECT max(until) FROM entries WHERE boot = :boot AND kind = 'hold'"
# Until a start leaves a span, which has no room for another one before; a start is kept for as long
# as the longest span.
_FULL_UNTIL = """SELECT until - seconds + :span FROM entries WHERE boot = :boot AND kind = 'start'
    ORDER BY until DESC LIMIT 1 OFFSET :requests - :count"""


class BootClock(t.NamedTuple):
    """A clock, in seconds, and the boot within which its times are comparable."""

    now: Callable[[], float]
    boot: str


class Taken(t.NamedTuple):
    """What came of the attempt to take permits.

    Attributes:
        number: The last permit's number, which those before it precede; 0 if there is none.
        seconds: Until there may be one.
        held_seconds: Until what a 429 asked for has passed.
        until: When the permits expire.
    """

    number: int = 0
    seconds: float = 0.0
    held_seconds: float = 0.0
    until: float = 0.0


class LocalWindow:
    """The starts of requests in the rolling windows of a limit.

    ``wait`` waits for so many seconds, and returns whether the run is to end instead.
    """

    def __init__(
        self, path: Path, limit: RateLimit, clock: BootClock, wait: Callable[[float], bool]
    ) -> None:
        self._path = path
        self._clock = clock
        self._wait = wait
        self._values: dict[str, t.Any] = {"boot": clock.boot, "window": limit.longest}
        self._spans = [{"span": each.seconds, "requests": each.requests} for each in limit.spans]
        self._lock = threading.Lock()  # the lock between processes polls, which is coarser
        with self._translated(), contextlib.ExitStack() as unless_ready:
            sqlite_files.create_private(self._path)
            # SQLite's own wait for a lock cannot be interrupted, so it has none.
            self._connection: sqlite3.Connection | None = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
            unless_ready.callback(self.close)
            # A write-ahead log needs memory that all processes share.
            mode = "TRUNCATE" if is_on_network(self._path.parent) else "WAL"
            synchronous = "FULL" if limit.longest > _LONG_SECONDS else "NORMAL"
            set_up = (f"PRAGMA journal_mode={mode}", *_SET_UP)
            statements = (each.format(synchronous=synchronous) for each in set_up)
            if all(self._execute_when_free(self._connection, each) for each in statements):
                unless_ready.pop_all()

    def take(self, count: int = 1) -> Taken | None:
        """Take so many permits if there are any; return ``None`` if the run is to end instead."""
        with self._transaction() as connection:
            if connection is None:
                return None
            # With the lock held, so that permits have their times' order.
            now = self._clock.now()
            values = self._values | {"now": now, "count": count}
            for statement in _SWEEP:
                connection.execute(statement, values)
            ((held,),) = connection.execute(_HELD_UNTIL, values)
            until = held or now
            for span in self._spans:
                for (full_until,) in connection.execute(_FULL_UNTIL, values | span):
                    until = max(until, full_until)
            if until <= now:
                values |= {"kind": "start", "seconds": values["window"]}
                for _ in range(count):
                    ((number,),) = connection.execute(f"{_ADD} RETURNING number", values)
                return Taken(number, until=now + values["window"])
            return Taken(0, until - now, max(0.0, (held or now) - now))

    def give_back(self, taken: Taken, count: int) -> None:
        """Give back so many of the permits that were taken, the last ones, which were not used."""
        with self._transaction() as connection:
            if connection is not None:
                values = {"number": taken.number, "until": taken.until, "count": count}
                connection.execute(_GIVE_BACK, self._values | values)

    def hold(self, seconds: float) -> None:
        """Give no permit for so long."""
        with self._transaction() as connection:
            if connection is not None:
                values = {"kind": "hold", "now": self._clock.now(), "seconds": seconds}
                connection.execute(_ADD, self._values | values)

    def close(self) -> None:
        """Close the file; there are no permits from then on."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

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
            what = str(error)
            remedy = "check that its directory is writable and its disk has free space"
            if isinstance(error, sqlite3.Error):
                what = sqlite_files.cause(error, self._path)
                if sqlite_files.is_damage(error):
                    path = shlex.quote(str(self._path))
                    remedy = f"it is damaged; delete it: rm -f {path} {path}-wal {path}-shm"
            msg = f"cannot use the rate limit's file {self._path} ({what}); {remedy}"
            raise SettingsError("rate_limit_file", msg) from None
