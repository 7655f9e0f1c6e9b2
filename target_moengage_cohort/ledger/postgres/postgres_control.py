"""Control's database on a server: the tables of one schema."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger import repairs
from target_moengage_cohort.ledger.postgres import server_errors, server_tables
from target_moengage_cohort.ledger.postgres.connection import Channel

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.control.database import Rows, Transaction
    from target_moengage_cohort.ledger.postgres.lease_rows import LeaseRows
    from target_moengage_cohort.ledger.postgres.ledger_server import Server

_AT_A_TIME = 500
"""Statements to send in one text."""
_PRIVATE = "INSERT INTO requests "
"""The begin of statements whose values have identifiers, which a server's log must not have."""


class PostgresTransaction:
    """A `Transaction`; see there."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """See `Transaction.run`."""
        if statement.startswith(_PRIVATE):
            self._channel.run_apart(statement, [values])
            return []
        return self._channel.run(self._channel.bound(statement, values))

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """See `Transaction.run_many`."""
        if statement.startswith(_PRIVATE):
            self._channel.run_apart(statement, rows)
            return
        for start in range(0, len(rows), _AT_A_TIME):
            some = rows[start : start + _AT_A_TIME]
            self._channel.run("; ".join(self._channel.bound(statement, each) for each in some))


class PostgresDatabase:
    """A `Database`; see there.

    Every change locks the row of `store` first, so that all processes make theirs one after the
    other, and proves that the leases of this process are still its own.
    """

    def __init__(self, server: Server, leases: LeaseRows, *, read_only: bool, step: Step) -> None:
        self.place = server.place
        self.read_only = read_only
        self._server = server
        self._leases = leases
        self._step = step
        self._channel = Channel(server, writes=not read_only)
        self._channel.reconnected = leases.compare
        self.first_change: Callable[[], None] = lambda: None
        self.guard: Callable[[Transaction], None] = lambda _: None
        self._lock = threading.RLock()
        self._is_known = False  # whether the store is known to exist
        self._is_missing = False  # whether a read-only store does not exist
        self._is_changing = False  # whether a transaction is under way, in the thread with the lock
        self._is_marked = False  # whether `last_run` counts this process
        self._is_open = False
        self._failure: LedgerError | None = None

    @property
    def exists(self) -> bool:
        """See `Database.exists`."""
        if not self._is_known:
            with self._lock, self._translated():
                self._is_known = self._has_store()
        return self._is_known

    @property
    def has_changed(self) -> bool:
        """See `Database.has_changed`."""
        return self._is_marked and self._is_open and self._failure is None

    def open(self, create: Callable[[PostgresTransaction], None]) -> None:
        """See `Database.open`."""
        with self._lock, self._translated():
            if not self.exists:
                if self.read_only:
                    self._is_missing = True
                    return
                self._create(create)
            self._is_open = True
            ((number,),) = self._read("SELECT format FROM store")
            if (error := repairs.other_format(number, self.place, self._move_away)) is not None:
                raise error

    @property
    def _move_away(self) -> str:
        schema, accept = self._server.schema, suggest("ledger", "accept-older")
        return f"in psql, ALTER SCHEMA {schema} RENAME TO {schema}_unused; and then {accept}"

    def _has_store(self) -> bool:
        """Return whether the schema has the table `store`, whatever rights the role has."""
        return bool(self._read(server_tables.STORES, [self._server.schema]))

    def _create(self, create: Callable[[PostgresTransaction], None]) -> None:
        """Create the schema and its tables, unless another process has just done so."""
        key = server_tables.lock_number(self._server.schema)
        self._channel.begin(f"BEGIN; {self._server.settings()} SELECT pg_advisory_xact_lock({key})")
        with self._ending("create"):
            if not self._has_store():
                schema = self._server.schema
                query = "SELECT 1 FROM pg_namespace WHERE nspname = ?"
                if not self._channel.run(self._channel.bound(query, [schema])):
                    # Else it was prepared for this role.
                    self._channel.run(f"CREATE SCHEMA {self._server.quoted_schema}")
                for table in server_tables.TABLES:
                    self._channel.run(table)
                create(PostgresTransaction(self._channel))
        self._is_known = True

    def rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        """See `Database.rows`."""
        with self._lock, self._translated():
            return [] if self._is_missing else self._read(query, values)

    def _read(self, query: str, values: Sequence[object] = ()) -> Rows:
        text = self._channel.bound(query, values)
        if self._is_changing:
            return self._channel.run(text)
        return self._channel.transact(text, "BEGIN READ ONLY")

    @contextlib.contextmanager
    def change(self, name: str) -> Iterator[PostgresTransaction]:
        """See `Database.change`."""
        with self._lock, self._translated():
            if not self._is_marked:
                with self._transaction("mark open") as transaction:
                    transaction.run("UPDATE store SET last_run = last_run + 1")
                self._is_marked = True
                self.first_change()
            with self._transaction(name) as transaction:
                self.guard(transaction)
                yield transaction

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[PostgresTransaction]:
        begin = f"BEGIN; {self._server.settings()} SELECT 1 FROM store FOR UPDATE;"
        with self._leases.proven() as proof:
            try:
                proof.check(self._channel.begin(f"{begin} {proof.statement}"), self._channel)
            except BaseException:
                self._channel.roll_back()
                raise
            with self._ending(name):
                yield PostgresTransaction(self._channel)

    @contextlib.contextmanager
    def _ending(self, name: str) -> Iterator[None]:
        """Commit the transaction that has begun, or roll it back after an error."""
        self._is_changing = True
        try:
            yield
            self._step(f"{name}: before commit")
            self._channel.commit()
        except BaseException:
            self._channel.roll_back()
            raise
        finally:
            self._is_changing = False
        self._step(f"{name}: committed")

    def check_lease(self) -> None:
        """See `Database.check_lease`."""
        self._leases.check()

    def check_rights(self) -> None:
        """Raise the error for a server that takes no changes, or a role that may not make them.

        Nor may a database have an encoding without some characters of identifiers.
        """
        with self._lock, self._translated():
            ((encoding, is_read_only),) = self._read(server_tables.FACTS)
            if encoding != "UTF8":
                raise server_errors.other_encoding(self.place, encoding)
            if is_read_only:
                raise server_errors.read_only(self._server.target)
            if grants := self._channel.missing_grants():
                raise server_errors.forbidden(self._server.target, grants)

    def close(self) -> None:
        """See `Database.close`."""
        with self._lock:
            self._is_open = False
            self._channel.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise errors of the server as a `LedgerError`; afterwards, nothing more is changed."""
        if self._failure is not None:
            raise self._failure.again()
        try:
            with self._channel.translated():
                yield
        except LedgerError as error:
            self._failure = error
            raise
