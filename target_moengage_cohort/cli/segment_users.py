"""The users of files of the last day, which all processes of a machine count together."""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t

from target_moengage_cohort.core import sqlite_files
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import stem
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_moengage_cohort.settings import Settings

_DAY_SECONDS = 86_402.0
_BUSY_SECONDS = 30.0


class FileUsers:
    """Counts users in a file, in the time of a wall clock."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._row: int | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float]) -> FileUsers:
        """Return the count of a workspace."""
        name = stem(settings.base_url, settings.workspace_id)
        return cls(state_path() / f"file-users-{name}.sqlite3", clock)

    def take(self, users: int, most: int) -> float:
        """Count users, or return the seconds until a day's `most` has room for them."""
        now = self._clock()
        with self._transaction() as connection:
            connection.execute("DELETE FROM sent WHERE at <= ?", (now - _DAY_SECONDS,))
            connection.execute("UPDATE sent SET at = ? WHERE at > ?", (now, now))  # it was set back
            rows = connection.execute("SELECT at, users FROM sent ORDER BY at").fetchall()
            over = sum(each for _, each in rows) + users - most
            for at, each in rows if over > 0 else ():
                over -= each
                if over <= 0:
                    return float(at + _DAY_SECONDS - now)
            added = connection.execute("INSERT INTO sent VALUES (?, ?)", (now, users))
            self._row = added.lastrowid
        return 0.0

    def give_back(self, users: int) -> None:
        """Count fewer users than `take` has: these were not sent."""
        with self._transaction() as connection:
            values = (users, self._row)
            connection.execute("UPDATE sent SET users = users - ? WHERE rowid = ?", values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sqlite_files.create_private(self._path)
            made = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            with contextlib.closing(made) as connection, connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("CREATE TABLE IF NOT EXISTS sent (at REAL, users INTEGER)")
                yield connection
        except (OSError, sqlite3.Error) as error:
            msg = (
                f"cannot use the rate limit's file {self._path} ({type(error).__name__}); its "
                "directory must be writable and its disk have free space"
            )
            raise SettingsError("rate_limit_file", msg) from None
