"""The schema of a store that is not whole yet, until it gets the name of the store's own."""

from __future__ import annotations

import contextlib
import typing as t

import msgspec

from target_moengage_cohort.core.errors import BusyError, SettingsError
from target_moengage_cohort.ledger.postgres import server_tables
from target_moengage_cohort.ledger.postgres.connection import Channel

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.postgres.connection import Server
    from target_moengage_cohort.settings import Settings

MARK = "\0part"
"""The end of the URI of such a store, with a character that no URI has."""
SUFFIX = "_part"
_HAS_TABLE = "SELECT to_regclass({schema} || '.{table}') IS NOT NULL"


def settings(of: Settings) -> Settings:
    """Return the settings of the store that is not whole yet."""
    return msgspec.structs.replace(of, ledger_uri=f"{of.ledger_uri}{MARK}", ledger_create=True)


def occupied(place: str) -> SettingsError:
    """Return the error for a place that has a store already."""
    msg = (
        f"there is a ledger in {place} already. Choose another database; or export that one, then "
        "drop its schema"
    )
    return SettingsError("ledger_exists", msg)


@contextlib.contextmanager
def empty(server: Server, step: Step) -> Iterator[Callable[[], None]]:
    """Yield what renames the schema to that of a server; drop it at the end if it was not."""
    channel = Channel(server, writes=True)
    part = f'"{server.schema}{SUFFIX}"'

    def run(*statements: str) -> list[tuple[t.Any, ...]]:
        with channel.lock, channel.translated():
            key = server_tables.lock_number(server.schema)
            lock = f"SELECT pg_advisory_xact_lock({key})"
            try:
                return channel.begin("; ".join(["BEGIN", lock, *statements, "COMMIT"]))
            except BaseException:
                channel.roll_back()
                raise

    def has(schema: str, table: str) -> bool:
        return run(_HAS_TABLE.format(schema=f"'{schema}'", table=table)) == [(True,)]

    def put_in_place() -> None:
        step("part: whole")
        if has(server.quoted_schema, "store"):
            raise occupied(server.place)
        run(
            f"DROP SCHEMA IF EXISTS {server.quoted_schema}",
            f"ALTER SCHEMA {part} RENAME TO {server.quoted_schema}",
        )
        step("part: in place")

    held = server_tables.HELD.replace("FROM leases", f"FROM {part}.leases")
    if has(part, "leases") and run(held):
        msg = f"another process puts a ledger into {server.place}; run again when it has ended"
        raise BusyError("ledger_busy", msg)
    run(f"DROP SCHEMA IF EXISTS {part} CASCADE")  # of a process that has died
    try:
        yield put_in_place
    finally:
        run(f"DROP SCHEMA IF EXISTS {part} CASCADE")
        channel.close()
