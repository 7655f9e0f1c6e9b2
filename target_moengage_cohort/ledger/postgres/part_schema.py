"""The schema of a store that is not whole yet, until it gets the name of the store's own."""

from __future__ import annotations

import contextlib
import secrets
import typing as t

import msgspec

from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.ledger.movable import UnconfirmedError
from target_moengage_cohort.ledger.postgres import server_tables
from target_moengage_cohort.ledger.postgres.connection import Channel

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.control.database import Rows
    from target_moengage_cohort.ledger.postgres.ledger_server import Server
    from target_moengage_cohort.settings import Settings

MARK = "\0"
"""What separates the URI from the end of the schema's name; no URI has this character."""
_INFIX = "_part_"

# The comment has the time of the server's clock, and still has the name after the rename.
_CREATE = """
    CREATE SCHEMA IF NOT EXISTS {part};
    DO $do$ BEGIN EXECUTE format('COMMENT ON SCHEMA {part} IS %L',
    extract(epoch FROM clock_timestamp())::bigint
    || ' (seconds since 1970; as {part}, by moengage-cohort)'); END $do$
"""
_COMMENT = (
    "SELECT obj_description(oid, 'pg_namespace') FROM pg_catalog.pg_namespace WHERE nspname = ?"
)
_PARTS = """
    SELECT nspname::text, substring(obj_description(oid, 'pg_namespace') FROM '^[0-9]+'),
    EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relname = 'leases')
    FROM pg_catalog.pg_namespace AS n WHERE starts_with(nspname::text, ?)
"""
_DROP = "DROP SCHEMA IF EXISTS {part} CASCADE"
# While a process fills it, one lease or another is renewed all the time, except for moments.
_IS_OLD = """
    SELECT greatest({created}, {renewed}) + 3600 < extract(epoch FROM clock_timestamp())
"""


def occupied(place: str) -> SettingsError:
    """Return the error for a place that has a store already."""
    msg = (
        f"{place} already contains a ledger. Choose another database; or export that ledger, "
        "then drop its schema"
    )
    return SettingsError("ledger_exists", msg)


class PartSchema:
    """A schema of its own for a store that is not whole yet, near that of a server.

    As a context, it exists from the beginning to the end, unless it was put in place.
    """

    def __init__(self, server: Server, step: Step) -> None:
        self._server, self._step = server, step
        self._channel = Channel(server, writes=True)
        self._suffix = _INFIX + secrets.token_hex(4)
        self._name = server.schema + self._suffix
        self._is_in_place = False

    def settings(self, of: Settings) -> Settings:
        """Return the settings of the store in it, given those of the place."""
        uri = f"{of.ledger_uri}{MARK}{self._suffix}"
        return msgspec.structs.replace(of, ledger_uri=uri, ledger_create=True)

    def __enter__(self) -> t.Self:
        try:
            self._drop_old()
            self._run(_CREATE.format(part=self._name))
        except BaseException:
            self._channel.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.closing(self._channel), contextlib.suppress(TargetError):
            if not self._is_in_place:  # without the server, a later one drops it
                self._run(_DROP.format(part=self._name))

    def put_in_place(self) -> None:
        """See `Part.put_in_place`."""
        self._step("part: whole")
        if self._run(self._channel.bound(server_tables.STORES, [self._server.schema])):
            raise occupied(self._server.place)
        try:
            self._run(
                f"DROP SCHEMA IF EXISTS {self._server.quoted_schema}",
                f"ALTER SCHEMA {self._name} RENAME TO {self._server.quoted_schema}",
                repeats=False,
            )
        except TargetError as error:
            if not self._was_put(error):
                raise
        self._is_in_place = True
        self._step("part: in place")

    def _was_put(self, error: TargetError) -> bool:
        """Return whether it is in place in spite of an error; if not, it never will be."""
        try:
            # A transaction that the server still has, of a lost connection, fails without it.
            self._run(_DROP.format(part=self._name))
            rows = self._run(self._channel.bound(_COMMENT, [self._server.schema]))
        except TargetError:
            raise UnconfirmedError(self._server.uri, error) from None
        return any(self._name in (comment or "") for (comment,) in rows)

    def _drop_old(self) -> None:
        """Drop the schemas that processes that died have left."""
        for name, created, has_leases in self._run(
            self._channel.bound(_PARTS, [self._server.schema + _INFIX])
        ):
            renewed = f"(SELECT max(renewed_at) FROM {name}.leases)" if has_leases else "NULL"
            # It may be another role's, or have been dropped since.
            with contextlib.suppress(TargetError):
                is_old = _IS_OLD.format(created=created or "NULL", renewed=renewed)
                if created and self._run(is_old) == [(True,)]:
                    self._run(_DROP.format(part=name))

    def _run(self, *statements: str, repeats: bool = True) -> Rows:
        """Execute statements in a transaction, and again if the connection was lost.

        One process at a time does so.
        """
        key = server_tables.lock_number(self._server.schema)
        begin = f"BEGIN; {self._server.settings()} SELECT pg_advisory_xact_lock({key})"
        channel = self._channel
        with channel.lock, channel.translated():
            try:
                execute = channel.begin if repeats else channel.run
                return execute("; ".join([begin, *statements, "COMMIT"]))
            except BaseException:
                channel.roll_back()
                raise
