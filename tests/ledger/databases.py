"""Ledgers on a PostgreSQL server, a database for each folder that a test names."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import errors, sql

SERVER = "LEDGER_SERVER"
"""The variable with the URI of a server, without a database; unset for ledgers in folders."""

_known: set[str] = set()


def is_in_use() -> bool:
    """Return whether ledgers are on a server."""
    return SERVER in os.environ


def uri_of(folder: Path) -> str:
    """Return the URI of a folder's database, which is created if it is missing."""
    name = _name(folder)
    uri = f"{os.environ[SERVER]}/{name}"
    if uri not in _known:
        if not administer("SELECT 1 FROM pg_database WHERE datname = %s", [name]):
            # Another process of the test may do the same now.
            with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                administer(f"CREATE DATABASE {name}")
        _known.add(uri)
    return uri


def _name(folder: Path) -> str:
    return f"l_{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"


def administer(statement: str, values: list | None = None) -> list[tuple]:
    """Execute a statement in the database `postgres`."""
    with psycopg.connect(f"{os.environ[SERVER]}/postgres", autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def execute(folder: Path, statement: str) -> list[tuple]:
    """Execute a statement in the only schema of a folder's database."""
    with psycopg.connect(uri_of(folder), autocommit=True) as connection:
        (schema,) = _schemas(connection)
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def locked(folder: Path, table: str) -> Iterator[None]:
    """Keep the rows of a table locked, as another process does."""
    with psycopg.connect(uri_of(folder)) as connection:
        (schema,) = _schemas(connection)
        rows = sql.Identifier(schema, table)
        connection.execute(sql.SQL("SELECT 1 FROM {} FOR UPDATE").format(rows))
        yield


def waiting(folder: Path) -> int:
    """Return how many sessions of a database wait for a lock."""
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    return len(administer(query, [_name(folder)]))


def terminate(folder: Path) -> None:
    """End all sessions of a database, as a server does that restarts."""
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
    pids = administer(f"SELECT pg_terminate_backend(pid), pid FROM ({sessions}) s", [_name(folder)])
    while {(pid,) for _, pid in pids} & {*administer(sessions, [_name(folder)])}:
        time.sleep(0.01)


def close_to_connections(folder: Path) -> None:
    """End all sessions of a database, and let no other begin."""
    administer(f"ALTER DATABASE {_name(folder)} WITH ALLOW_CONNECTIONS false")
    terminate(folder)


def free_leases(folder: Path) -> None:
    """Free all leases, if any, as if their time had passed since their holders were killed."""
    if is_in_use():
        with contextlib.suppress(ValueError):  # killed before there was a schema
            execute(folder, "UPDATE leases SET holder = ''")


def copy_database(folder: Path, to: Path) -> None:
    """Copy all that is committed, but no lease, as if its holder had died long ago."""
    with (
        psycopg.connect(uri_of(folder)) as source,
        psycopg.connect(uri_of(to)) as target,
    ):
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for schema in _schemas(source):
            target.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            for connection in (source, target):
                connection.execute(
                    sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema))
                )
            _make_tables(target)
            for table in _tables(source, schema):
                with (
                    source.cursor().copy(f"COPY {table} TO STDOUT") as rows,
                    target.cursor().copy(f"COPY {table} FROM STDIN") as copy,
                ):
                    for row in rows:
                        copy.write(row)
            target.execute("UPDATE leases SET holder = ''")


def _make_tables(connection: psycopg.Connection) -> None:
    from target_moengage_cohort.ledger.control import tables  # noqa: PLC0415
    from target_moengage_cohort.ledger.postgres import server_tables  # noqa: PLC0415

    for statement in (*tables.TABLES, *server_tables.TABLES):
        connection.execute(statement)


def _schemas(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%' ORDER BY 1"
    )
    return [name for (name,) in rows]


def _tables(connection: psycopg.Connection, schema: str) -> list[str]:
    rows = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema]
    )
    return [name for (name,) in rows]
