"""BATCH messages and their files, in the form of real taps."""

import gzip
import itertools
import json
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from target_moengage_cohort.emulator import Emulator

Row: t.TypeAlias = dict[str, t.Any]
ROWS_IN_A_CHUNK = 2  # so that even a small file has several row groups or record batches

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Kind:
    """A kind of file: its suffix, and its label in a message."""

    suffix: str
    format: str
    compression: str | None = None
    says_compression: bool = True

    @property
    def encoding(self) -> dict[str, str | None]:
        said = {"compression": self.compression} if self.says_compression else {}
        return {"format": self.format, **said}

    @property
    def is_columnar(self) -> bool:
        return self.format != "jsonl"

    def write(
        self, path: Path, rows: Sequence[Row], types: Mapping[str, pa.DataType] | None = None
    ) -> None:
        """Write rows.

        Args:
            path: The file.
            rows: Column → value; in a columnar file a column that a row lacks is null.
            types: Of a columnar file; by default as the values are.
        """
        if self.format == "jsonl":
            data = b"".join(json_line(row) for row in rows)
            path.write_bytes(gzip.compress(data) if self.suffix.endswith("gz") else data)
            return
        table = as_table(rows, types)
        if self.format == "parquet":
            compression = self.compression or "snappy"
            parquet.write_table(
                table, path, row_group_size=ROWS_IN_A_CHUNK, compression=compression
            )
            return
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS_IN_A_CHUNK)


JSONL = Kind("json", "jsonl", says_compression=False)
GZIP = Kind("json.gz", "jsonl", "gzip")
PARQUET = Kind("parquet", "parquet", says_compression=False)
ARROW = Kind("arrow", "arrow")
KINDS = {
    "jsonl": JSONL,
    "jsonl none": Kind("json", "jsonl", "none"),
    "jsonl null": Kind("json", "jsonl"),
    "jsonl that says gzip": Kind("json", "jsonl", "gzip"),
    "gzip": GZIP,
    "gzip that says nothing": Kind("json.gz", "jsonl", says_compression=False),
    "parquet": PARQUET,
    "parquet gzip": Kind("parquet.gz", "parquet", "gzip"),
    "arrow": ARROW,
}
MAIN_KINDS = {"jsonl": JSONL, "gzip": GZIP, "parquet": PARQUET, "arrow": ARROW}


def json_line(row: Row) -> bytes:
    """Return a row as JSON, with every digit of its numbers."""
    return _encode(row) + b"\n"


def record_line(row: Row, stream: str = "users") -> bytes:
    """Return a row as a RECORD message, without the line break."""
    return _encode({"type": "RECORD", "stream": stream, "record": row})


def as_table(rows: Sequence[Row], types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    columns = dict.fromkeys(types or {}) | dict.fromkeys(name for row in rows for name in row)
    return pa.table(
        {
            name: pa.array([row.get(name) for row in rows], (types or {}).get(name))
            for name in columns
        }
    )


def batch(
    encoding: Kind | Mapping[str, t.Any], *files: Path | str, stream: str = "users", **more: t.Any
) -> dict[str, t.Any]:
    """Return a BATCH message that names files, by their paths or verbatim."""
    return {
        "type": "BATCH",
        "stream": stream,
        "encoding": encoding.encoding if isinstance(encoding, Kind) else encoding,
        "manifest": [file.as_uri() if isinstance(file, Path) else file for file in files],
        **more,
    }


every_kind = pytest.mark.parametrize("kind", MAIN_KINDS.values(), ids=MAIN_KINDS)


@dataclass
class Folder:
    """A directory for ledger, rejects and batch files, each with a unique name."""

    path: Path
    numbers: t.Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def new(self, suffix: str) -> Path:
        return self.path / f"users-{next(self.numbers)}.{suffix}"

    def file(
        self, kind: Kind, rows: t.Sequence[Row], types: dict[str, pa.DataType] | None = None
    ) -> Path:
        path = self.new(kind.suffix)
        kind.write(path, rows, types)
        return path

    def batch(
        self, kind: Kind, rows: t.Sequence[Row], types: dict[str, pa.DataType] | None = None
    ) -> dict[str, t.Any]:
        return batch(kind, self.file(kind, rows, types))


def rejected(path: Path) -> list[tuple[str, Row]]:
    """Return the rows of a rejects file with their reasons, in a fixed order, without nulls, which
    columnar files have for missing values."""
    if not path.exists():
        return []
    messages = [
        json.loads(line, parse_float=Fraction, parse_int=Fraction)
        for line in path.read_bytes().splitlines()
    ]
    rows = [message["record"] for message in messages if message["type"] == "RECORD"]
    found = [
        (
            row["_reject_reason"],
            {n: v for n, v in row.items() if v is not None and not n.startswith("_reject_")},
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (one[0], repr(sorted(one[1].items()))))


def uids(emulator: Emulator, cohort: str = "users") -> set[str | None]:
    return {one.uid for one in emulator.members(cohort)}
