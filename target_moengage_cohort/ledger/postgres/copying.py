"""Rows of members on their way between a server and DuckDB, as text."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import typing as t

import psycopg
from psycopg import pq

from target_moengage_cohort.ledger.duckdb.instance import quoted
from target_moengage_cohort.ledger.postgres.bounded import Silence

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from target_moengage_cohort.ledger.postgres.bounded import BoundedConnection
    from target_moengage_cohort.ledger.postgres.connection import Channel

_BATCH = 262_144
"""Bytes to write at a time."""
_PIECE = 8
"""Chunks to copy to the server in one statement."""
SILENT_SECONDS = 300
"""The longest time in which a server that looks for rows sends none."""
_JOIN_SECONDS = 0.01
_POLL_MILLISECONDS = 100

# PostgreSQL's text has no character 0, which identifiers may have.
_ENCODED = "replace(replace({0}, chr(1), chr(1) || '1'), chr(0), chr(1) || '0')"
_DECODED = (
    "CASE WHEN contains({0}, chr(1)) THEN replace(replace({0}, chr(1) || '0', chr(0)),"
    " chr(1) || '1', chr(1)) ELSE {0} END"
)
_SPECIAL = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
TEXTS = ("uid", "anonymous_id")
"""The columns that may have any text."""


def line_sql(columns: Iterable[str]) -> str:
    """Return DuckDB's SQL for a row as a line of COPY's text format."""
    fields = []
    for column in columns:
        field = column
        if column == "h":
            field = "h::UUID::VARCHAR"
        elif column in TEXTS:
            field = _ENCODED.format(column)
            for character, escape in _SPECIAL.items():
                field = f"replace({field}, chr({ord(character)}), '{escape}')"
        fields.append(f"coalesce({field}::VARCHAR, '\\N')")
    return f"concat_ws(chr(9), {', '.join(fields)})"


def decoded_sql(column: str) -> str:
    """Return DuckDB's SQL for a text column as it was before `line_sql`."""
    return _DECODED.format(column)


@contextlib.contextmanager
def copied_out(channel: Channel, query: str, columns: dict[str, str], pipe: Path) -> Iterator[str]:
    """Copy the rows of a query out of the server; yield DuckDB's SQL that reads them, once.

    They go through a named pipe, so that both work at the same time.
    """
    os.mkfifo(pipe, 0o600)
    failures: list[BaseException] = []
    writer = threading.Thread(target=_write, args=(channel, query, pipe, failures), daemon=True)
    writer.start()
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    try:
        yield (
            f"read_csv({quoted(str(pipe))}, auto_detect = FALSE, header = FALSE, delim = ',',"
            f" quote = '\"', escape = '\"', nullstr = '', buffer_size = 4194304,"
            f" columns = {{{types}}})"
        )
    finally:
        while writer.is_alive():  # if there is no reader, it ends by that
            os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            writer.join(_JOIN_SECONDS)
        pipe.unlink()
    for failure in failures:
        raise failure


def _write(channel: Channel, query: str, pipe: Path, failures: list[BaseException]) -> None:
    """Write the rows of a query into a pipe."""
    try:
        with (
            open(pipe, "wb", buffering=0) as file,  # noqa: PTH123 - nothing of it is buffered
            channel.using(SILENT_SECONDS) as connection,
        ):
            file.writelines(_rows(connection, f"COPY ({query}) TO STDOUT (FORMAT csv)"))
    except BaseException as error:  # noqa: BLE001 - else the end of the file looks like that of all
        failures.append(error)


def _rows(connection: BoundedConnection, statement: str) -> Iterator[bytes]:
    """Yield the data of a COPY in batches, in half of the time that `psycopg.Copy` takes."""
    pgconn = connection.pgconn
    pgconn.send_query(statement.encode())
    pgconn.flush()
    if (begun := _result(connection)) is None or begun.status != pq.ExecStatus.COPY_OUT:
        raise _error(begun)
    parts: list[t.Any] = []
    size = 0
    while True:
        length, data = pgconn.get_copy_data(1)
        if length < 0:
            break
        if length == 0:
            _receive(connection)
            continue
        parts.append(data)
        size += length
        if size >= _BATCH:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)
    while (end := _result(connection)) is not None:
        if end.status != pq.ExecStatus.COMMAND_OK:
            raise _error(end)


def _result(connection: BoundedConnection) -> pq.abc.PGresult | None:
    while connection.pgconn.is_busy():
        _receive(connection)
    return connection.pgconn.get_result()


def _receive(connection: BoundedConnection) -> None:
    """Wait for data of the server."""
    ready, silence = select.poll(), Silence(connection)
    ready.register(connection.pgconn.socket, select.POLLIN)
    while not ready.poll(_POLL_MILLISECONDS):
        silence.check()
    connection.pgconn.consume_input()


def _error(result: pq.abc.PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError()
    return psycopg.errors.error_from_result(result)


def copy_in(channel: Channel, table: str, columns: Iterable[str], chunks: Iterator[str]) -> int:
    """Copy lines of COPY's text format into a table; return the number of its new rows.

    Each statement copies a piece of them, so that the server does not wait for long for a process
    that was stopped meanwhile.
    """
    statement, count = f"COPY {table} ({', '.join(columns)}) FROM STDIN", 0
    while piece := list(itertools.islice(chunks, _PIECE)):
        with channel.using() as connection, connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for chunk in piece:
                    copy.write(chunk)
            count += cursor.rowcount
    return count
