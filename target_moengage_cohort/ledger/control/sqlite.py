"""Control's database on one machine: an SQLite file that several processes use at the same time."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import typing as t

from target_moengage_cohort.core import sqlite_files
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.files import Lock, as_ledger_error, exists, unusable
from target_moengage_cohort.core.mounts import is_on_network
from target_moengage_cohort.ledger import repairs

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.control.database import Rows, Transaction

FILE_NAME = "control.sqlite"
_POLL_SECONDS, _LAST_SECONDS = 0.05, 3.0


class SQLiteTransaction:
    """A `Transaction`; see there."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """See `Transaction.run`."""
        return self._connection.execute(statement, values).fetchall()

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """See `Transaction.run_many`."""
        self._connection.executemany(statement, rows)


class SQLiteDatabase:
    """A `Database`: the file `control.sqlite` in write-ahead mode.

    The flag `store.is_open` is in the file itself, not only in its log, from before a process
    changes anything until the log is empty again. So a copy without its log is noticed.
    """

    def __init__(self, directory: Path, *, read_only: bool, step: Step, patience: Patience) -> None:
        self.path = directory / FILE_NAME
        self.place = str(self.path)
        # The second is the one on a network file system, where SQLite cannot use the first.
        self._logs = directory / f"{FILE_NAME}-wal", directory / f"{FILE_NAME}-journal"
        self._host: str | None = None  # this one, if it is a network file system
        self.trusts_host = False  # whether no other host uses the file, whatever it says
        self.read_only = read_only
        self._step = step
        self._patience = patience
        self._lock = threading.RLock()
        self._use = Lock(directory / "control.lock", is_optional=read_only)
        self._connection: sqlite3.Connection | None = None
        self._still: object = None  # the facts of a file that was taken as one that does not change
        self.first_change: Callable[[], None] = lambda: None  # called before it, once
        self.guard: Callable[[Transaction], None] = lambda _: None  # refuses changes by an error
        self._is_marked = False  # whether `is_open` is in the file
        self._is_missing = False  # whether a read-only store has no file
        self._failure: LedgerError | None = None

    @property
    def exists(self) -> bool:
        """See `Database.exists`."""
        return exists(self.path)

    @property
    def has_changed(self) -> bool:
        """Whether this process has changed the file, which is open and without an error."""
        return self._is_marked and self._connection is not None and self._failure is None

    def open(self, create: Callable[[SQLiteTransaction], None]) -> None:
        """Open the file, unless a part of it is missing; `create` makes the tables of a new one."""
        with self._lock, self._translated():
            self._is_missing = self.read_only and not self.exists
            if self._is_missing:
                return
            self._host = socket.gethostname() if is_on_network(self.path.parent) else None
            self._take_turn()
            had_log = self._has_log()
            if not self.read_only:
                sqlite_files.create_private(self.path)
            self._connection = self._connect()
            is_new = not self._rows("SELECT name FROM sqlite_master WHERE name = 'store'")
            self._is_missing = is_new and self.read_only  # a process died, or is, at making it
            if not self.read_only:
                self._patiently(f"PRAGMA journal_mode = {'TRUNCATE' if self._host else 'WAL'}")
            if is_new and not self.read_only:
                with self._transaction("create") as transaction:
                    if not transaction.run("SELECT 1 FROM sqlite_master WHERE name = 'store'"):
                        create(transaction)
            elif not is_new and (refusal := self._refusal(had_log=had_log)) is not None:
                self._used().close()  # leaves the flag as it is
                self._connection = None
                self._use.release()
                raise refusal

    def _refusal(self, *, had_log: bool) -> SettingsError | None:
        """Return why the file must not be used: its format, its missing log, or another host."""
        ((number,),) = self._rows("SELECT format FROM store")
        move = repairs.move_store_away(self.path.parent)
        if (error := repairs.other_format(number, self.path, move)) is not None:
            return error  # another format may lack columns
        ((is_open, host),) = self._rows("SELECT is_open, host FROM store")
        # Another process may have made the log since: then it exists now.
        if is_open and not (had_log or self._has_log()):
            fault = f"was copied or restored without its log {self._logs[self._host is not None]}"
            return repairs.inconsistent(self.path, fault, repairs.restore_store(self.path.parent))
        if not (is_open and self._host) or self.read_only or self.trusts_host:
            return None
        return repairs.used_elsewhere(self.path, host) if host not in {None, self._host} else None

    def rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query, as of the latest change; none if there is no file to read."""
        with self._lock, self._translated():
            return [] if self._is_missing else self._rows(query, values)

    @contextlib.contextmanager
    def change(self, name: str) -> Iterator[SQLiteTransaction]:
        """Make changes in one transaction; they are durable when this ends."""
        with self._lock, self._translated():
            if not self._is_marked:
                self._mark_open()
            with self._transaction(name) as transaction:
                self.guard(transaction)
                yield transaction

    def check_lease(self) -> None:
        """Do nothing: a lease lasts as long as its process."""

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
                change = "UPDATE store SET is_open = 0 WHERE is_open = 1 AND coalesce(host, ?) = ?"
                self._patiently(change, [self._host or ""] * 2, connection=connection)
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
        if not self._patience.until(lambda: self._use.acquire(shared=True), _POLL_SECONDS):
            raise self._busy()

    def _connect(self) -> sqlite3.Connection:
        # What a dead process has left in a journal is undone before the file can be read.
        mode = "ro" if self.read_only and not self._host else "rw"
        # Without a log nothing else uses the file, and its directory may not be writable. If that
        # changes, it is opened again; a lock would keep the last writer from closing it.
        is_still = self.read_only and not self._has_content()
        self._still = self._facts() if is_still else None
        uri = f"{self.path.absolute().as_uri()}?mode={mode}{'&immutable=1' if is_still else ''}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        self._patiently("PRAGMA synchronous = FULL", connection=connection)
        self._patiently("PRAGMA secure_delete = ON", connection=connection)
        if is_still:
            self._use.release()
        return connection

    def _mark_open(self) -> None:
        with self._transaction("mark open") as transaction:
            if (refusal := self._refusal(had_log=True)) is not None:
                raise refusal
            change = "UPDATE store SET is_open = 1, last_run = last_run + 1, host = ?"
            transaction.run(change, [self._host])
        self._used().execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._is_marked = True
        self.first_change()

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[SQLiteTransaction]:
        connection = self._used()
        self._patiently("BEGIN EXCLUSIVE")  # with a log that is the same as IMMEDIATE
        try:
            yield SQLiteTransaction(connection)
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
        rows: Rows = []

        def execute() -> bool:
            try:
                rows[:] = (connection or self._used()).execute(statement, values)
            except sqlite3.OperationalError as error:
                if sqlite_files.primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                return False
            return True

        # A run that ends still notes its outcome, and others hold the file for moments only.
        if not self._patience.until(execute, _POLL_SECONDS, last_seconds=_LAST_SECONDS):
            raise self._busy()
        return rows

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
            self._connection = self._connect()
        return self._patiently(query, values)

    def _facts(self) -> object:
        facts = self.path.stat()
        return facts.st_mtime_ns, facts.st_size, facts.st_ino, self._has_content()

    def _has_content(self) -> bool:
        return max(map(sqlite_files.size, self._logs)) > 0

    def _has_log(self) -> bool:
        # An empty one on a network file system is one between two transactions.
        return self._has_content() or bool(self._host and sqlite_files.size(self._logs[1]) == 0)

    def _used(self) -> sqlite3.Connection:
        if self._failure is not None:
            raise self._failure.again()
        if self._connection is None:
            raise LedgerError("ledger_unusable", f"the ledger {self.path} was closed; run again")
        return self._connection

    def _busy(self) -> BusyError:
        msg = (
            f"the ledger {self.path} is locked by another process, which may have been stopped; "
            f"end that process, then run again. To list the active runs, run: {suggest('status')}"
        )
        return BusyError("ledger_busy", msg)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise errors of SQLite as a `LedgerError`; afterwards, nothing more is changed."""
        try:
            with as_ledger_error(self.path, "used"):
                yield
        except sqlite3.Error as error:
            self._failure = unusable(self.path, "used", sqlite_files.cause(error, self.path))
            if sqlite_files.is_damage(error):
                self._failure = repairs.damaged(self.path, repairs.restore_store(self.path.parent))
            raise self._failure from None
        except LedgerError as error:
            self._failure = error
            raise
