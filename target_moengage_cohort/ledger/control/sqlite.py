"""Control's database on one machine: an SQLite file that several processes use at the same time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import typing as t

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.files import Lock, as_ledger_error

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.files import Step

    Rows = list[tuple[t.Any, ...]]

FILE_NAME = "control.sqlite"
_POLL_SECONDS = 0.05


class Patience(t.NamedTuple):
    """The wait for what other processes hold.

    Attributes:
        wait: Waits for some seconds, and returns whether the run is to end instead.
        seconds: The longest wait.
    """

    wait: Callable[[float], bool]
    seconds: float


class Transaction:
    """One transaction; its changes become durable together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Execute a statement and return its rows."""
        return self._connection.execute(statement, values).fetchall()

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement once for each row of values."""
        self._connection.executemany(statement, rows)


class SQLiteDatabase:
    """The file `control.sqlite` in write-ahead mode, for all threads of one process.

    The flag `store.is_open` is in the file itself, not only in its log, from before a process
    changes anything until the log is empty again. So a copy of the file without its log is noticed.
    """

    def __init__(self, folder: Path, *, read_only: bool, step: Step, patience: Patience) -> None:
        self.path = folder / FILE_NAME
        self._log = folder / f"{FILE_NAME}-wal"
        self.read_only = read_only
        self._step = step
        self._patience = patience
        self._lock = threading.RLock()
        self._use = Lock(folder / "control.lock", is_optional=read_only)
        self._connection: sqlite3.Connection | None = None
        self._still: object = None  # the facts of a file that was taken as one that does not change
        self.first_change: Callable[[], None] = lambda: None  # called before it, once
        self._is_marked = False  # whether `is_open` is in the file
        self._is_missing = False  # whether a read-only store has no file
        self._failure: LedgerError | None = None

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return os.path.exists(self.path)  # noqa: PTH110 - an unreadable parent is no error yet

    @property
    def has_changed(self) -> bool:
        """Whether this process has changed the file, which is open and without an error."""
        return self._is_marked and self._connection is not None and self._failure is None

    def open(self, create: Callable[[Transaction], None]) -> None:
        """Open the file; `create` makes the tables of a new one.

        A file of which a part is missing is not opened.
        """
        with self._lock, self._translated():
            if self.read_only and not self.exists:
                self._is_missing = True
                return
            self._take_turn()
            log = self._log
            had_log = _has_content(log)
            if not self.read_only:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = self._connect(has_log=had_log)
            if self._still is not None:
                self._use.release()
            is_new = not self._rows("SELECT name FROM sqlite_master WHERE name = 'store'")
            self._is_missing = is_new and self.read_only  # a process died, or is, at making it
            if is_new and not self.read_only:
                self._patiently("PRAGMA journal_mode = WAL")
                with self._transaction("create") as transaction:
                    if not transaction.run("SELECT 1 FROM sqlite_master WHERE name = 'store'"):
                        create(transaction)
            elif not is_new and not had_log and self._rows("SELECT is_open FROM store")[0][0]:
                # Another process may have made the log since: then it exists now.
                if _has_content(log):
                    return
                self._connection.close()  # leaves the flag as it is
                self._connection = None
                self._use.release()
                msg = (
                    f"the ledger {self.path} was copied or restored without its log {log.name}, so "
                    "its newest requests are missing; restore both files from one backup"
                )
                raise SettingsError("ledger_mismatch", msg)

    def rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query, as of the latest change; none if there is no file to read."""
        with self._lock, self._translated():
            return [] if self._is_missing else self._rows(query, values)

    @contextlib.contextmanager
    def change(self, name: str) -> Iterator[Transaction]:
        """Make changes in one transaction; they are durable when this ends."""
        with self._lock, self._translated():
            self._mark_open()
            with self._transaction(name) as transaction:
                yield transaction

    def close(self) -> None:
        """Close the file; the last process moves the log into it."""
        with self._lock:
            connection, self._connection = self._connection, None
            try:
                if connection is not None:
                    with self._translated():
                        self._close(connection)
            finally:
                self._use.release()

    def _close(self, connection: sqlite3.Connection) -> None:
        is_marked = False
        try:
            if not self.read_only and self._use.upgrade():
                connection.execute("UPDATE store SET is_open = 0 WHERE is_open = 1")
                is_marked = True
                self._step("control: marked as closed")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._step("control: log truncated")
        except sqlite3.Error:
            if self._failure is None:  # else the caller has had the first error
                raise
        finally:
            if self.read_only or is_marked:
                connection.close()
            else:
                self._close_with_log(connection)

    def _close_with_log(self, connection: sqlite3.Connection) -> None:
        """Close a connection; as one that can only read is the last, the log stays."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as last:
            with contextlib.suppress(sqlite3.Error):
                last.execute("SELECT is_open FROM store").fetchall()
            connection.close()

    def _take_turn(self) -> None:
        """Wait while another process closes the file."""
        waited = 0.0
        while not self._use.acquire(shared=True):
            if waited >= self._patience.seconds or self._patience.wait(_POLL_SECONDS):
                raise self._busy()
            waited += _POLL_SECONDS

    def _connect(self, *, has_log: bool) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rw"
        # Without a log nothing else uses the file, and its directory may not be writable. If that
        # changes, it is opened again; a lock would keep the last writer from closing it.
        is_still = self.read_only and not has_log
        self._still = self._facts() if is_still else None
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}{'&immutable=1' if is_still else ''}",
            uri=True,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
        )
        self._patiently("PRAGMA synchronous = FULL", connection=connection)
        self._patiently("PRAGMA secure_delete = ON", connection=connection)
        return connection

    def _mark_open(self) -> None:
        if self._is_marked:
            return
        with self._transaction("mark open") as transaction:
            transaction.run("UPDATE store SET is_open = 1, last_run = last_run + 1")
        self._used().execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._is_marked = True
        self.first_change()

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[Transaction]:
        connection = self._used()
        self._patiently("BEGIN IMMEDIATE")
        try:
            yield Transaction(connection)
            self._step(f"{name}: before commit")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self._step(f"{name}: committed")

    def _patiently(
        self,
        statement: str,
        values: Sequence[object] = (),
        *,
        connection: sqlite3.Connection | None = None,
    ) -> Rows:
        """Execute a statement, as soon as other processes allow it."""
        waited = 0.0
        while True:
            try:
                return (connection or self._used()).execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            if waited >= self._patience.seconds or self._patience.wait(_POLL_SECONDS):
                raise self._busy()
            waited += _POLL_SECONDS

    def _rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        while (before := self._still) is not None:
            with contextlib.suppress(sqlite3.DatabaseError):
                rows = self._used().execute(query, values).fetchall()
                if before == self._facts():
                    return rows
            if before == self._facts():
                break  # the error is its own
            self._used().close()
            self._take_turn()
            self._connection = self._connect(has_log=_has_content(self._log))
            if self._still is not None:
                self._use.release()
        return self._patiently(query, values)

    def _facts(self) -> object:
        facts = self.path.stat()
        return facts.st_mtime_ns, facts.st_size, facts.st_ino, _has_content(self._log)

    def _used(self) -> sqlite3.Connection:
        if self._failure is not None:
            raise self._failure
        if self._connection is None:
            raise LedgerError("ledger_unusable", f"the ledger {self.path} was closed; run again")
        return self._connection

    def _busy(self) -> BusyError:
        msg = (
            f"the ledger {self.path} is locked by another process, which may have been stopped "
            "(moengage-cohort status lists the runs); end that process, then run again"
        )
        return BusyError("ledger_busy", msg)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise errors of SQLite as a `LedgerError`; afterwards, nothing more is changed."""
        try:
            with as_ledger_error(self.path, "used"):
                yield
        except sqlite3.Error as error:
            msg = (
                f"the ledger {self.path} cannot be used ({_cause(error)}); its directory must be "
                "writable and its disk must have free space. Nothing more is sent. Fix the "
                "problem, then run again"
            )
            self._failure = LedgerError("ledger_unusable", msg)
            raise self._failure from None
        except LedgerError as error:
            self._failure = error
            raise


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _cause(error: sqlite3.Error) -> str:
    """Describe an error by its names: its text may quote a value."""
    return f"{type(error).__name__}: {getattr(error, 'sqlite_errorname', 'unknown')}"
