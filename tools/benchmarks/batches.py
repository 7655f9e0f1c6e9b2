"""Typical rows as batch files of an SDK tap, and the messages that refer to them."""

import enum
import gzip
import json
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet

from tools.benchmarks.data import RECORD, STREAM, Shape, changed, people, schema


class Format(enum.StrEnum):
    """The formats of batch files."""

    PARQUET = "Parquet"
    ARROW = "Arrow IPC"
    JSONL = "JSONL"
    JSONL_GZIP = "gzip JSONL"


SUFFIXES = {
    Format.PARQUET: ".parquet",
    Format.ARROW: ".arrow",
    Format.JSONL: ".json",
    Format.JSONL_GZIP: ".json.gz",
}
ENCODINGS = {
    Format.PARQUET: {"format": "parquet"},
    Format.ARROW: {"format": "arrow"},
    Format.JSONL: {"format": "jsonl", "compression": "none"},
    Format.JSONL_GZIP: {"format": "jsonl", "compression": "gzip"},
}


def write_batches(size: int, version: int, format_: Format, rows: int, folder: Path) -> Path:
    """Write a version of the cohort as batch files.

    Args:
        size: The number of members of the cohort.
        version: 0 or 1.
        format_: The files' format.
        rows: The largest number of rows per file.
        folder: The folder of the files; it is created.

    Returns:
        The file of messages: a SCHEMA, and a BATCH per file.
    """
    folder.mkdir()
    messages = [schema(Shape.TYPICAL)]
    connection = duckdb.connect()
    for begin in range(0, size + changed(size), rows):
        query = f"select * exclude (n) from ({people(size, version, begin, begin + rows)})"
        if format_ in {Format.JSONL, Format.JSONL_GZIP}:
            query = f"select {RECORD} || chr(10) as line from ({query})"
        table = connection.sql(query).to_arrow_table()
        if not len(table):
            continue  # version 0 has no new members
        path = folder / f"{begin:012}{SUFFIXES[format_]}"
        write(table, format_, path)
        messages.append(
            json.dumps(
                {
                    "type": "BATCH",
                    "stream": STREAM,
                    "encoding": ENCODINGS[format_],
                    "manifest": [path.as_uri()],
                }
            )
        )
    path = folder / "messages.singer"
    path.write_text("".join(f"{line}\n" for line in messages))
    return path


def write(table: pa.Table, format_: Format, path: Path) -> None:
    """Write one batch file."""
    if format_ is Format.PARQUET:
        parquet.write_table(table, path)
    elif format_ is Format.ARROW:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    else:
        data = "".join(table["line"].to_pylist()).encode()
        path.write_bytes(gzip.compress(data, 6) if format_ is Format.JSONL_GZIP else data)
