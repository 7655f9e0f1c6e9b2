"""Connections to a PostgreSQL server, which may be behind a pooler that gives one per transaction.

So no state of a session is relied on, and nothing is prepared. Statements go with their values in
their text, because then several of them take one round trip.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.postgres import server_errors, server_uri

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.control.database import Rows

OLDEST = 13
"""The oldest version of PostgreSQL that is supported."""

_RECONNECT_SECONDS = 60.0
_LOCK_SECONDS = 30
_POLL_SECONDS = 1.0
_SETTINGS = (
    "SET LOCAL search_path TO {schema}; SET LOCAL TimeZone TO 'UTC';"
    " SET LOCAL synchronous_commit TO on; SET LOCAL statement_timeout TO '{statement}s';"
    " SET LOCAL lock_timeout TO '{lock}s';"
    # A process that was stopped must not keep its locks for longer than others wait for them.
    " SET LOCAL idle_in_transaction_session_timeout TO '{idle}s';"
)


class Server:
    """The server and the schema of a store."""

    def __init__(self, uri: str, schema: str, patience: Patience) -> None:
        self.schema = schema
        self._parameters = server_uri.parameters(uri)
        self.place = server_uri.place(self._parameters, schema)
        self.wait = patience.wait
        self.role = self.database = ""  # known once there was a connection

    @property
    def target(self) -> server_errors.Target:
        """What errors name."""
        return server_errors.Target(self.place, self.schema, self.role, self.database)

    def settings(self, *, statement_seconds: int = 60, idle_seconds: int = 20) -> str:
        """Return the statements that each transaction begins with."""
        seconds = {"statement": statement_seconds, "lock": _LOCK_SECONDS, "idle": idle_seconds}
        return _SETTINGS.format(schema=self.quoted_schema, **seconds)

    @property
    def quoted_schema(self) -> str:
        """The schema's name in SQL."""
        return sql.Identifier(self.schema).as_string()

    def connect(
        self, *, writes: bool, again: bool, wait: Callable[[float], bool]
    ) -> psycopg.Connection:
        """Return a new connection; if there was one before, try for a while."""
        waited = 0.0
        session = {"target_session_attrs": "read-write"} if writes else {}
        while True:
            try:
                connection = psycopg.connect(
                    make_conninfo(**(session | self._parameters)),
                    autocommit=True,
                    prepare_threshold=None,
                    cursor_factory=psycopg.ClientCursor,
                )
            except psycopg.OperationalError as error:
                if not again or waited >= _RECONNECT_SECONDS or wait(_POLL_SECONDS):
                    raise server_errors.not_connected(self.place, error) from None
                waited += _POLL_SECONDS
                continue
            self.role, self.database = connection.info.user, connection.info.dbname
            if connection.info.server_version < OLDEST * 10_000:
                connection.close()
                msg = (
                    f"ledger_uri: the server of {self.place} is older than PostgreSQL {OLDEST}; "
                    "upgrade it, or use another one"
                )
                raise SettingsError("ledger_server_old", msg)
            return connection


class Channel:
    """One connection, made when it is needed, and made again when it was lost.

    Attributes:
        lock: Locked while the connection is in use.
        wait: Waits for some seconds, and returns whether to give up instead.
        reconnected: Called with this when a connection was lost and there is a new one.
    """

    def __init__(self, server: Server, *, writes: bool) -> None:
        self.server = server
        self.lock = threading.RLock()
        self.wait = server.wait
        self.reconnected: Callable[[Channel], None] = lambda _channel: None
        self._writes = writes
        self._connection: psycopg.Connection | None = None
        self._was_connected = False

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, which is open unless it has been lost since it was used last."""
        if self._connection is not None and self._connection.closed:
            self._connection = None
        if self._connection is None:
            again = self._was_connected
            self._connection = self.server.connect(writes=self._writes, again=again, wait=self.wait)
            self._was_connected = True
            if again:
                self.reconnected(self)
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that was not lost."""
        return self._connection is not None and not self._connection.closed

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost."""
        return self._connection is not None and self._connection.closed

    def run(self, text: str) -> Rows:
        """Execute statements; return the rows of the last one that has any."""
        rows: Rows = []
        with self.connection.cursor() as cursor:
            cursor.execute(text.encode())
            while True:
                if cursor.description is not None:
                    rows = [tuple(map(_decoded, row)) for row in cursor.fetchall()]
                if not cursor.nextset():
                    return rows

    def begin(self, text: str) -> Rows:
        """Execute likewise what may be executed again: reading, or the begin of a transaction."""
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                return self.run(text)
            except psycopg.Error:
                if not self.is_lost or time.monotonic() > deadline:
                    raise

    def roll_back(self) -> None:
        """End a transaction that has failed."""
        with server_errors.undisturbed():
            if self._connection is not None and self.is_open:
                self._connection.execute("ROLLBACK")

    def bound(self, statement: str, values: Sequence[object]) -> str:
        """Return a statement with its values, which it marks by ``?``."""
        if not values:
            return statement
        cursor = psycopg.ClientCursor(self.connection)
        return cursor.mogrify(statement.replace("?", "%s"), [*map(_encoded, values)])

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of the server as those of the ledger."""
        try:
            yield
        except psycopg.Error as error:
            target = self.server.target
            raise server_errors.explained(error, target, is_lost=self.is_lost) from None

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with server_errors.undisturbed():
                connection.close()


# PostgreSQL's text has no character 0, which names may have; `copying` does the same in DuckDB.


def _encoded(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and ("\0" in value or "\1" in value):
        return value.replace("\1", "\0011").replace("\0", "\0010")
    return value


def _decoded(value: t.Any) -> t.Any:
    if isinstance(value, str) and "\1" in value:
        return value.replace("\0010", "\0").replace("\0011", "\1")
    return value
