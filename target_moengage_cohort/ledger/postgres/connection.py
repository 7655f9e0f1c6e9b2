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
from psycopg import errors, pq

from target_moengage_cohort.ledger.postgres import server_errors, server_rights
from target_moengage_cohort.ledger.postgres.bounded import STATEMENT_SECONDS
from target_moengage_cohort.ledger.postgres.ledger_server import POLL_SECONDS, RECONNECT_SECONDS

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.ledger.control.database import Rows
    from target_moengage_cohort.ledger.postgres.bounded import BoundedConnection
    from target_moengage_cohort.ledger.postgres.ledger_server import Server

_SHORT_SECONDS = 5
_AT_ONCE = 5.0
"""The seconds within which no timeout of a transaction's own ends a statement."""
_MOST_CANCELED = 20
"""How many times in a row the begin of a transaction may be canceled."""
_WITHIN = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class Channel:
    """One connection, made when it is needed, and made again when it was lost.

    Attributes:
        lock: Locked while the connection is in use.
        wait: Waits for some seconds, and returns whether to give up instead.
        reconnected: Called with this when a connection was lost and there is a new one.
    """

    def __init__(self, server: Server, *, writes: bool, seconds: float = STATEMENT_SECONDS) -> None:
        self.server = server
        self.lock = threading.RLock()
        self._busy = threading.Lock()  # locked while a statement is under way
        self.wait = server.wait
        self.reconnected: Callable[[Channel], None] = lambda _channel: None
        self._writes = writes
        self._seconds = seconds  # the longest statement
        self._connection: BoundedConnection | None = None
        self._was_connected = False
        self._is_within = False  # whether a transaction is under way

    @property
    def connection(self) -> BoundedConnection:
        """The connection, which is open unless it has been lost since it was used last.

        Within a transaction there is no other one: it would execute the rest without the begin.
        """
        if self.is_lost:
            if self._is_within:
                raise psycopg.OperationalError
            self._connection = None
        if self._connection is None:
            again = self._was_connected
            self._connection = self.server.connect(writes=self._writes, again=again, wait=self.wait)
            self._was_connected = True
            if again:
                try:
                    self.reconnected(self)
                except BaseException:
                    self._connection.close()  # so that it is called again
                    self._is_within = False
                    raise
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that was not lost."""
        return self._connection is not None and not self._connection.closed

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost."""
        return self._connection is not None and self._connection.closed

    def run(self, text: str, seconds: float = 0.0) -> Rows:
        """Execute statements; return the rows of the last one that has any."""
        rows: Rows = []
        with self.using(seconds) as connection, connection.cursor() as cursor:
            cursor.execute(text.encode())
            while True:
                if cursor.description is not None:
                    rows = [tuple(map(_decoded, row)) for row in cursor.fetchall()]
                if not cursor.nextset():
                    return rows

    def run_apart(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement for each row of values, which its text does not have.

        A server logs the text of statements that fail.
        """
        with self.using() as connection, psycopg.Cursor(connection) as cursor:
            values = [[*map(_encoded, row)] for row in rows]
            cursor.executemany(statement.replace("?", "%s").encode(), values)

    @contextlib.contextmanager
    def using(self, seconds: float = 0.0) -> Iterator[BoundedConnection]:
        """Use the connection for statements of some seconds."""
        connection = self.connection
        with self._busy:
            connection.seconds = seconds or self._seconds
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._is_within = connection.info.transaction_status in _WITHIN

    @contextlib.contextmanager
    def kept_alive(self, seconds: float) -> Iterator[None]:
        """Let the server see every some seconds that this process is at work in a transaction."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(seconds):
                with self._busy, server_errors.undisturbed():
                    if self._connection is not None:
                        self._connection.seconds = _SHORT_SECONDS
                        self._connection.execute("SELECT 1")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def begin(self, text: str, seconds: float = 0.0) -> Rows:
        """Execute likewise what may be executed again: reading, or the begin of a transaction."""
        spent, pause, cancels_left = 0.0, 0.0, 0 if self._is_within else _MOST_CANCELED
        while True:
            began = time.monotonic()
            try:
                return self.run(text, seconds)
            except psycopg.Error as error:
                elapsed = time.monotonic() - began
                if isinstance(error, errors.QueryCanceled) and cancels_left and elapsed < _AT_ONCE:
                    # By a timeout of the role, before the text has set its own.
                    self.roll_back()
                    cancels_left -= 1
                    continue
                spent += elapsed
                if not self.is_lost or self._is_within or spent > RECONNECT_SECONDS:
                    raise
                if self.wait(pause):
                    raise
            spent += pause
            pause = POLL_SECONDS

    def transact(self, statements: str, begin: str = "BEGIN") -> Rows:
        """Execute statements in one transaction, which may be executed again; see `run`."""
        try:
            return self.begin(f"{begin}; {self.server.settings()} {statements}; COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def commit(self) -> None:
        """Commit a transaction, which takes no longer than others if it has changed more."""
        self.run("COMMIT", STATEMENT_SECONDS)

    def roll_back(self) -> None:
        """End a transaction that has failed; otherwise the connection is of no more use."""
        if self._connection is not None and self.is_open:
            try:
                self._connection.seconds = _SHORT_SECONDS
                self._connection.execute("ROLLBACK")
            except (psycopg.Error, OSError):
                with server_errors.undisturbed():
                    self._connection.close()
        self._is_within = False

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
            is_lost, server = self.is_lost, self.server
            may_ask = isinstance(error, server_errors.NO_ACCESS) and not self._is_within
            grants = self._missing_grants() if may_ask and not is_lost else []
            raise server_errors.explained(error, server.target, grants, is_lost=is_lost) from None

    def missing_grants(self) -> list[str]:
        """Return the statements that grant the role what it lacks."""
        schema = self.server.schema
        rows = self.transact(server_rights.lacked(schema), "BEGIN READ ONLY")
        return server_rights.grants(rows, schema)

    def _missing_grants(self) -> list[str]:
        with contextlib.suppress(psycopg.Error):
            return self.missing_grants()
        return []

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._is_within = False
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
