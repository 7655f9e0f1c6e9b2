"""The server and the schema of a store: how it is connected to, and how transactions begin."""

from __future__ import annotations

import logging
import time
import typing as t

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.postgres import server_errors, server_uri
from target_moengage_cohort.ledger.postgres.bounded import STATEMENT_SECONDS, BoundedConnection

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.interrupts import Patience

logger = logging.getLogger(__name__)

OLDEST = 13
"""The oldest version of PostgreSQL that is supported."""

RECONNECT_SECONDS = 60.0
"""The longest time in which a connection is tried again, and what may be executed again."""
POLL_SECONDS = 1.0

_LOCK_SECONDS = 30
_SETTINGS = (
    # First, because one of the role may end the statements before it: see `Channel.begin`.
    "SET LOCAL statement_timeout TO '{statement}s'; SET LOCAL lock_timeout TO '{lock}s';"
    # Not the default of the server, which the lock on the rows of `store` and of `pace` needs.
    " SET TRANSACTION ISOLATION LEVEL {isolation};"
    " SET LOCAL search_path TO {schema}; SET LOCAL TimeZone TO 'UTC';"
    " SET LOCAL synchronous_commit TO on;"
    # PostgreSQL 17 and newer may limit whole transactions, too.
    " DO $$BEGIN IF current_setting('server_version_num')::int >= 170000 THEN"
    " PERFORM set_config('transaction_timeout', '0', TRUE); END IF; END$$;"
    # A process that was stopped must not keep its locks for longer than others wait for them.
    " SET LOCAL idle_in_transaction_session_timeout TO '{idle}s';"
    # Nor a host that has died while the server reads from it, which counts as no idle time.
    " SET LOCAL tcp_keepalives_idle TO 15; SET LOCAL tcp_keepalives_interval TO 5;"
    " SET LOCAL tcp_keepalives_count TO 3;"
)


class Server:
    """The server and the schema of a store."""

    def __init__(self, uri: str, schema: str, patience: Patience) -> None:
        self.schema = schema
        self._parameters = server_uri.parameters(uri)
        self.place = server_uri.place(self._parameters, schema)
        self.uri = server_uri.without_secrets(uri)
        self.wait = patience.wait
        self._is_patient = patience.seconds > 0
        self.role = ""  # known once there was a connection

    @property
    def target(self) -> server_errors.Target:
        """What errors name."""
        return server_errors.Target(self.place, self.role)

    def settings(
        self,
        *,
        statement_seconds: int = STATEMENT_SECONDS,
        idle_seconds: int = 20,
        isolation: str = "READ COMMITTED",
    ) -> str:
        """Return the statements that each transaction begins with."""
        seconds = {"statement": statement_seconds, "lock": _LOCK_SECONDS, "idle": idle_seconds}
        return _SETTINGS.format(schema=self.quoted_schema, isolation=isolation, **seconds)

    @property
    def quoted_schema(self) -> str:
        """The schema's name in SQL."""
        return sql.Identifier(self.schema).as_string()

    def connect(
        self, *, writes: bool, again: bool, wait: Callable[[float], bool]
    ) -> BoundedConnection:
        """Return a new connection.

        Try for a while if there was one before; if the run is patient, also if that may help.
        """
        spent = 0.0
        while True:
            began = time.monotonic()
            try:
                connection = self._attempt(writes=writes, is_ending=lambda: wait(0.0))
            except psycopg.OperationalError as error:
                if wait(0.0):
                    raise server_errors.stopped(self.place) from None
                tries_again = again or (self._is_patient and server_errors.may_pass(error))
                if tries_again and not spent:
                    logger.warning(
                        "the ledger %s cannot be reached (%s); trying again for up to %g s",
                        self.place,
                        server_errors.reason(error),
                        RECONNECT_SECONDS,
                        extra={"code": "waiting_for_server"},
                    )
                spent += time.monotonic() - began
                if not tries_again or spent >= RECONNECT_SECONDS:
                    raise server_errors.not_connected(self.place, error) from None
                if wait(POLL_SECONDS):
                    raise server_errors.stopped(self.place) from None
                spent += POLL_SECONDS
                continue
            self.role = connection.info.user
            if connection.info.server_version < OLDEST * 10_000:
                connection.close()
                msg = (
                    f"ledger_uri: the server of {self.place} is older than PostgreSQL {OLDEST}; "
                    "upgrade it, or use another one"
                )
                raise SettingsError("ledger_server_old", msg)
            return connection

    def _attempt(self, *, writes: bool, is_ending: Callable[[], bool]) -> BoundedConnection:
        session = {"target_session_attrs": "read-write"} if writes else {}
        return BoundedConnection.ended_by(is_ending).connect(
            make_conninfo(**(session | self._parameters)),
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        )
