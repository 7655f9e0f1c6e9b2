"""The rows of a columnar file, read by DuckDB: mapped columns only."""

# ruff: noqa: S608 - names from outside are quoted, and there are no values

from __future__ import annotations

import contextlib
import functools
import re
import typing as t
from types import SimpleNamespace

import duckdb
from msgspec import UNSET

from target_moengage_cohort.core.column_files import TEXT, WHOLE
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.columns import Columns, NotPlainError, assemble, refuse_long
from target_moengage_cohort.singer.decoding import UNDECODABLE, attributes, decode_record
from target_moengage_cohort.singer.messages import Chunk

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.column_files import ColumnarRows

Cursor: t.TypeAlias = duckdb.DuckDBPyConnection

_CHUNK_ROWS = 20_000
_OTHER_SCALAR = re.compile(r"DECIMAL\(.*|DOUBLE|FLOAT|BOOLEAN")


class Relation:
    """Rows of one stream in columns, taken in one pass or in chunks.

    Args:
        connect: Makes a cursor of DuckDB to take some at a time.
        source: The rows with their mapped columns, at least.
        whole: Returns the rows with all of their columns.
        first: The number of the first row in its file, from 0.
    """

    def __init__(
        self,
        connect: Callable[[], Cursor],
        source: ColumnarRows,
        *,
        whole: Callable[[], ColumnarRows],
        first: int = 0,
    ) -> None:
        self.source = source
        self._connect = connect
        self._whole = whole
        self._number = first  # of the latest row
        self._first = first
        self._page = (0, 0)  # offset and size of the latest chunk that is taken row by row
        self._records: list[str] = []  # of that chunk, once one is needed
        self._types: dict[str, str] = {}
        self._columns: dict[str, str] = {}
        self._marks: dict[str, str] = {}  # role → SQL of a mark of deletions
        self._constant: dict[str, t.Any] = {}  # attributes whose value is the same in all rows
        self._is_plain = False

    def _open(self, cursor: Cursor) -> str:
        """Return the SQL after FROM, with which the cursor reads the rows."""
        source = self.source
        table, self._types = source.open(cursor)
        columns = source.columns
        self._marks = source.marks(self._types)
        self._columns = {
            role: name
            for role, name in columns.items()
            if name in self._types or role in self._marks
        }
        self._constant = {
            attribute: True if column in self._types else UNSET
            for attribute, column in attributes(columns, source.keys).items()
            if attribute not in self._columns
        }
        self._is_plain = source.is_plain(self._types)
        return table

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, some of them at a time."""
        with self._translated(), contextlib.closing(self._connect()) as cursor:
            table = self._open(cursor)
            values = ", ".join(self._value(role) for role in self._columns) or "NULL"
            cursor.execute(f"SELECT {values} FROM {table}")
            while batch := cursor.fetchmany(_CHUNK_ROWS):
                before, self._number = self._number, self._number + len(batch)
                yield Chunk(
                    functools.partial(self._plain_columns, batch),
                    functools.partial(self._rows, batch, before),
                )

    def record(self) -> dict[str, t.Any]:
        """Return the whole of the latest row."""
        offset, size = self._page
        if not self._records:  # of the whole chunk: a single row would take as long
            # The other cursor is still yielding rows.
            with self._translated(), contextlib.closing(self._connect()) as cursor:
                table, _ = self._whole().open(cursor)
                rows = f"SELECT * FROM {table} LIMIT {size} OFFSET {offset}"
                texts = cursor.execute(f"SELECT to_json(r)::VARCHAR FROM ({rows}) AS r").fetchall()
            self._records = [text for (text,) in texts]
        try:
            return decode_record(self._records[self._number - self._first - offset - 1].encode())
        except UNDECODABLE:
            what = "a value in it cannot be written as JSON; deselect its column in the tap"
            raise InputError("batch_file_unreadable", self.where(what)) from None

    def where(self, what: str) -> str:
        """Return a message that names the latest row."""
        return f"row {self._number} of {self.source.name}: {what}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn a fault of the file into an `InputError` without any of its values."""
        try:
            yield
        except (duckdb.Error, OSError, ValueError) as error:
            raise self.source.unreadable(type(error).__name__) from None

    def _rows(self, values: list[tuple[t.Any, ...]], before: int) -> Iterator[t.Any]:
        self._number, self._page = before, (before - self._first, len(values))
        self._records = []
        for row in values:
            self._number += 1
            yield SimpleNamespace(**dict(zip(self._columns, row, strict=False)), **self._constant)

    def _plain_columns(self, values: list[tuple[t.Any, ...]]) -> Columns:
        if not self._is_plain:
            raise NotPlainError
        columns = dict(zip(self._columns, zip(*values, strict=True), strict=True))
        if any(any(columns[role]) for role in self._marks):
            raise NotPlainError
        present, expected = columns.get("membership"), columns.get("expected_count")
        cohorts = self._cohorts(columns)
        if any(each is not None and None in each for each in (present, expected, cohorts)):
            raise NotPlainError
        nobody: tuple[None, ...] = (None,) * len(values)
        uids = _texts(columns.get("uid", nobody))
        anonymous_ids = _texts(columns["anonymous_id"]) if "anonymous_id" in columns else None
        refuse_long([*uids, *(anonymous_ids or ())])
        return assemble(
            uids,
            anonymous_ids,
            present=None if present is None else list(present),
            cohorts=cohorts,
            expected_counts=None if expected is None else set(map(int, expected)),
        )

    def _cohorts(self, columns: Mapping[str, Sequence[t.Any]]) -> list[t.Any] | None:
        """Return the cohort of each row, or ``None`` for a row that is not plain."""
        if "cohort_id" not in columns:
            return None
        ids = _texts(columns["cohort_id"])
        if "cohort_name" not in columns:
            return [None if each is None else (each, None) for each in ids]
        pairs = zip(ids, _texts(columns["cohort_name"]), strict=True)
        return [None if None in pair else pair for pair in pairs]

    def _value(self, role: str) -> str:
        """Return the SQL expression of a role's value, of a type that the row rules accept."""
        if role in self._marks:
            return self._marks[role]
        column, kind = self.source.column(role, self._types), self._types[self._columns[role]]
        if TEXT.fullmatch(kind):
            return f"{column}::VARCHAR"
        if WHOLE.fullmatch(kind):  # a decimal without a scale would look like a float's
            return f"{column}::HUGEINT" if kind.startswith("DECIMAL") else column
        if _OTHER_SCALAR.fullmatch(kind):
            return column
        return f"CASE WHEN {column} IS NOT NULL THEN [TRUE] END"  # never an identifier


def _texts(values: Sequence[t.Any]) -> list[str | None]:
    """Return identifiers as text; ``None`` for null and empty."""
    return [str(value) if value is not None and value != "" else None for value in values]
