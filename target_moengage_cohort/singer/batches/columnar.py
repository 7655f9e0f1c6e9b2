"""The rows of a columnar file, read by DuckDB: mapped columns only."""

# ruff: noqa: S608 - names from outside are quoted, and there are no values

from __future__ import annotations

import contextlib
import functools
import re
import typing as t
from types import SimpleNamespace

import duckdb
import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.batches.storage import INCOMPLETE
from target_moengage_cohort.singer.columns import Columns, NotPlainError, RowLayout, assemble
from target_moengage_cohort.singer.decoding import UNDECODABLE, attributes, decode_record
from target_moengage_cohort.singer.messages import Chunk

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Cursor: t.TypeAlias = duckdb.DuckDBPyConnection

_CHUNK_ROWS = 20_000
_TEXT = re.compile(r"VARCHAR|UUID|ENUM\(.*")
_WHOLE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")
_OTHER_SCALAR = re.compile(r"DECIMAL\(.*|DOUBLE|FLOAT|BOOLEAN")
_IDENTIFIERS = ("uid", "anonymous_id")
_TEXT_OR_WHOLE = (*_IDENTIFIERS, "cohort_id", "cohort_name")


class Facts(msgspec.Struct, frozen=True):
    """The facts that decide whether all rows can be taken in one step."""

    count: int  # rows
    nameless: int  # rows without an identifier
    longest: int  # characters of the longest identifier
    undecided: int  # rows that do not state whether they are a member
    absent: int  # rows that are not a member
    pairs: int  # rows with both identifiers
    counted: int  # rows with a row count
    least: int | None  # the smallest row count
    most: int | None  # the largest row count


class Relation:
    """Rows of one stream that DuckDB can select from.

    Args:
        connect: Makes a cursor that can read their mapped columns, at least.
        source: The SQL after FROM.
        where: Names the file in messages.
        whole: Makes a cursor that can read all of their columns.
        layout: The columns to read of a row.
        first: The number of the first row in its file, from 0.

    Attributes:
        cursor: Reads the rows.
    """

    def __init__(
        self,
        connect: Callable[[], Cursor],
        source: str,
        where: str,
        *,
        whole: Callable[[], Cursor],
        layout: RowLayout,
        first: int = 0,
    ) -> None:
        self._whole = whole
        self._source = source
        self._where = where
        with self.translated():
            self.cursor = connect()
        self._number = first  # of the latest row
        self._first = first
        self._page = (0, 0)  # offset and size of the latest chunk that is taken row by row
        self._records: list[str] = []  # of that chunk, once one is needed
        described = self._fetch(f"DESCRIBE SELECT * FROM {source}")
        self._types: dict[str, str] = {row[0]: row[1] for row in described}
        columns, keys = layout.columns, layout.keys
        self._columns = {role: name for role, name in columns.items() if name in self._types}
        self._constant = {  # attributes whose value is the same in all rows
            attribute: True if column in self._types else UNSET
            for attribute, column in attributes(columns, keys).items()
            if attribute not in self._columns
        }
        has_keys = all(key in self._types for key in keys)
        self._is_uniform = has_keys and self._has_plain_types(columns)

    def _has_plain_types(self, columns: Mapping[str, str]) -> bool:
        wanted = {
            **dict.fromkeys(_TEXT_OR_WHOLE, f"{_TEXT.pattern}|{_WHOLE.pattern}"),
            "membership": "BOOLEAN",
            "expected_count": _WHOLE.pattern,
        }
        return columns.keys() - self._columns.keys() <= {"deleted_at"} and all(
            re.fullmatch(wanted[role], self._types[column])
            for role, column in columns.items()
            if role in wanted
        )

    def facts(self) -> Facts:
        """Query the facts of all rows.

        Raises:
            NotPlainError: A column has a type that no plain row has, or is missing.
        """
        if not self._is_uniform:
            raise NotPlainError
        names = [self._text(role) for role in _IDENTIFIERS]
        longest = ", ".join(f"coalesce(max(length({name})), 0)" for name in names)
        deleted, member = self._deleted(), self._member()
        expected = self._quoted("expected_count")
        (row,) = self._fetch(
            f"SELECT count(*), count(*) FILTER ({names[0]} IS NULL AND {names[1]} IS NULL),"
            f" greatest({longest}), count(*) FILTER (NOT {deleted} AND {member} IS NULL),"
            f" count(*) FILTER ({deleted} OR NOT {member}),"
            f" count(*) FILTER ({names[0]} IS NOT NULL AND {names[1]} IS NOT NULL),"
            f" count({expected}), min({expected}), max({expected}) FROM {self._source}"
        )
        *numbers, least, most = row
        bounds = (None if bound is None else int(bound) for bound in (least, most))
        return Facts(*numbers, *bounds)

    def select(self) -> str:
        """Return the SQL that selects uid, anonymous_id and present of all rows, in order."""
        names = ", ".join(f"{self._text(role)} AS {role}" for role in _IDENTIFIERS)
        present = f"NOT {self._deleted()} AND coalesce({self._member()}, FALSE)"
        return f"SELECT {names}, {present} AS present FROM {self._source}"

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, some of them at a time."""
        values = ", ".join(self._value(role) for role in self._columns) or "NULL"
        with self.translated():
            self.cursor.execute(f"SELECT {values} FROM {self._source}")
            while batch := self.cursor.fetchmany(_CHUNK_ROWS):
                before, self._number = self._number, self._number + len(batch)
                yield Chunk(
                    functools.partial(self._plain_columns, batch),
                    functools.partial(self._rows, batch, before),
                )

    def record(self) -> dict[str, t.Any]:
        """Return the whole of the latest row."""
        offset, size = self._page
        if not self._records:  # of the whole chunk: a single row would take as long
            rows = f"SELECT * FROM {self._source} LIMIT {size} OFFSET {offset}"
            with self.translated(), self._whole() as other:  # ours is still yielding rows
                texts = other.execute(f"SELECT to_json(r)::VARCHAR FROM ({rows}) AS r").fetchall()
            self._records = [text for (text,) in texts]
        try:
            return decode_record(self._records[self._number - self._first - offset - 1].encode())
        except UNDECODABLE:
            what = "a value in it cannot be written as JSON; deselect its column in the tap"
            raise InputError("batch_file_unreadable", self.where(what)) from None

    def where(self, what: str) -> str:
        """Return a message that names the latest row."""
        return f"row {self._number} of {self._where}: {what}"

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn a fault of the file into an `InputError` without any of its values."""
        try:
            yield
        except (duckdb.Error, OSError, ValueError) as error:  # the last two: pyarrow's
            msg = f"{self._where} cannot be read ({type(error).__name__}), {INCOMPLETE}"
            raise InputError("batch_file_unreadable", msg) from None

    def _rows(self, values: list[tuple[t.Any, ...]], before: int) -> Iterator[t.Any]:
        self._number, self._page = before, (before - self._first, len(values))
        self._records = []
        for row in values:
            self._number += 1
            yield SimpleNamespace(**dict(zip(self._columns, row, strict=False)), **self._constant)

    def _plain_columns(self, values: list[tuple[t.Any, ...]]) -> Columns:
        if not self._is_uniform:
            raise NotPlainError
        columns = dict(zip(self._columns, zip(*values, strict=True), strict=True))
        if any(columns.get("deleted_at", ())):
            raise NotPlainError
        present, expected = columns.get("membership"), columns.get("expected_count")
        cohorts = self._cohorts(columns)
        if any(each is not None and None in each for each in (present, expected, cohorts)):
            raise NotPlainError
        nobody: tuple[None, ...] = (None,) * len(values)
        return assemble(
            _texts(columns.get("uid", nobody)),
            _texts(columns["anonymous_id"]) if "anonymous_id" in columns else None,
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
        column, kind = self._quoted(role), self._types[self._columns[role]]
        if _TEXT.fullmatch(kind):
            return f"{column}::VARCHAR"
        if role == "deleted_at":
            return f"CASE WHEN {column} IS NOT NULL THEN 'deleted' END"
        if _WHOLE.fullmatch(kind) or _OTHER_SCALAR.fullmatch(kind):
            return column
        return f"CASE WHEN {column} IS NOT NULL THEN [TRUE] END"  # never an identifier

    def _text(self, role: str) -> str:
        return f"nullif({self._quoted(role)}::VARCHAR, '')"

    def _deleted(self) -> str:
        return f"({self._text('deleted_at')} IS NOT NULL)"

    def _member(self) -> str:
        return self._quoted("membership", absent="TRUE")

    def _quoted(self, role: str, absent: str = "NULL") -> str:
        column = self._columns.get(role)
        return absent if column is None else '"' + column.replace('"', '""') + '"'

    def _fetch(self, sql: str) -> list[tuple[t.Any, ...]]:
        with self.translated():
            return self.cursor.execute(sql).fetchall()


def _texts(values: Sequence[t.Any]) -> list[str | None]:
    """Return identifiers as text; ``None`` for null and empty."""
    return [str(value) if value is not None and value != "" else None for value in values]


def quote_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
