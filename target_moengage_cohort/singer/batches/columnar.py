"""The rows of a columnar file, as DuckDB sees them: read by column, and only the mapped ones."""

# ruff: noqa: S608 - names that come from outside are quoted, and there are no values

from __future__ import annotations

import contextlib
import re
import typing as t
from types import SimpleNamespace

import duckdb
import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.batches.storage import INCOMPLETE
from target_moengage_cohort.singer.columns import Columns, assemble
from target_moengage_cohort.singer.decoding import UNDECODABLE, decode_record

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from target_moengage_cohort.ledger.duckdb.engine import Cursor

_ROWS_AT_ONCE = 20_000
_TEXT = re.compile(r"VARCHAR|UUID|ENUM\(.*")
_WHOLE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")
_OTHER_SCALAR = re.compile(r"DECIMAL\(.*|DOUBLE|FLOAT|BOOLEAN")
_IDENTIFIERS = ("uid", "anonymous_id")
_TEXT_OR_WHOLE = (*_IDENTIFIERS, "cohort_id", "cohort_name")


class Facts(msgspec.Struct, frozen=True):
    """What must be known of all rows before they are taken at once.

    Attributes:
        count: How many.
        nameless: How many of them have no identifier.
        longest: Characters of the longest identifier.
        undecided: How many do not say whether they are a member.
        absent: How many are not.
        pairs: How many have both identifiers.
        counted: How many have a row count.
        least: The least of the row counts.
        most: The largest of them.
    """

    count: int
    nameless: int
    longest: int
    undecided: int
    absent: int
    pairs: int
    counted: int
    least: int | None
    most: int | None


class Relation:
    """Rows that DuckDB can select from, all of one stream.

    Args:
        connect: Makes a cursor that can read them, or at least their mapped columns.
        whole: Makes one that can read all of their columns.
        source: The SQL that stands after FROM.
        where: Names the file in messages.
        columns: Role → column.
        keys: Columns that must be there.
        first: The number of the first row in its file, from 0.

    Attributes:
        cursor: Reads them.
        is_uniform: Whether all rows are of types that a plain row may have, so that `facts` and
            `select` say all of them.

    Raises:
        InputError: They cannot be read.
    """

    def __init__(
        self,
        connect: Callable[[], Cursor],
        source: str,
        where: str,
        *,
        whole: Callable[[], Cursor],
        columns: Mapping[str, str],
        keys: Sequence[str],
        first: int = 0,
    ) -> None:
        self._whole = whole
        self._source = source
        self._where = where
        with self.translated():
            self.cursor = connect()
        self._before = self._number = first
        self._first = first
        self._batch: list[tuple[t.Any, ...]] = []
        self._records: list[str] = []  # of the latest chunk, once one is asked for
        described = self._fetch(f"DESCRIBE SELECT * FROM {source}")
        self._types: dict[str, str] = {row[0]: row[1] for row in described}
        self._columns = {role: name for role, name in columns.items() if name in self._types}
        self._absent = {role: UNSET for role in columns if role not in self._columns}
        mapped = set(columns.values())
        others = [key for key in keys if key not in mapped]
        has_keys = all(key in self._types for key in keys)
        self._keys = {
            f"key_{number}": True if key in self._types else UNSET
            for number, key in enumerate(others)
        }
        self.is_uniform = has_keys and self._has_plain_types(columns)

    def _has_plain_types(self, columns: Mapping[str, str]) -> bool:
        wanted = {
            **dict.fromkeys(_TEXT_OR_WHOLE, f"{_TEXT.pattern}|{_WHOLE.pattern}"),
            "membership": "BOOLEAN",
            "expected_count": _WHOLE.pattern,
        }
        return not (self._absent.keys() - {"deleted_at"}) and all(
            re.fullmatch(wanted[role], self._types[column])
            for role, column in columns.items()
            if role in wanted
        )

    def facts(self) -> Facts:
        """Look at all rows.

        Raises:
            InputError: They cannot be read.
        """
        names = [self._identifier(role) for role in _IDENTIFIERS]
        longest = ", ".join(f"coalesce(max(length({name})), 0)" for name in names)
        deleted, member = self._deleted(), self._member()
        expected = "NULL"
        if "expected_count" in self._columns:
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
        """The SQL that selects uid, anonymous_id and present of all rows, in their order."""
        names = ", ".join(f"{self._identifier(role)} AS {role}" for role in _IDENTIFIERS)
        present = f"NOT {self._deleted()} AND coalesce({self._member()}, FALSE)"
        return f"SELECT {names}, {present} AS present FROM {self._source}"

    def chunks(self) -> Iterator[Columns | None]:
        """Yield plain rows as columns; ``None`` for a chunk whose rows `rows` gives one by one.

        Raises:
            InputError: The file cannot be read to its end.
        """
        values = ", ".join(self._value(role) for role in self._columns) or "NULL"
        with self.translated():
            self.cursor.execute(f"SELECT {values} FROM {self._source}")
            while batch := self.cursor.fetchmany(_ROWS_AT_ONCE):
                self._batch, self._before, self._records = batch, self._number, []
                columns = self._plain() if self.is_uniform else None
                self._number += len(batch)
                yield columns

    def close(self) -> None:
        """Give the cursor back."""
        self.cursor.close()

    def rows(self) -> Iterator[t.Any]:
        """Yield the rows of the latest chunk, each with one attribute for each role."""
        self._number = self._before
        constant = {**self._absent, **self._keys}
        for values in self._batch:
            self._number += 1
            yield SimpleNamespace(**dict(zip(self._columns, values, strict=False)), **constant)

    def record(self) -> dict[str, t.Any]:
        """The whole of the latest row.

        Raises:
            InputError: It cannot be read.
        """
        if not self._records:  # of all the chunk: to find one row costs as much
            page = f"LIMIT {len(self._batch)} OFFSET {self._before - self._first}"
            rows = f"SELECT * FROM {self._source} {page}"
            with self.translated(), self._whole() as other:  # ours is in the middle of the rows
                found = _fetched(other, f"SELECT to_json(r)::VARCHAR FROM ({rows}) AS r")
            self._records = [text for (text,) in found]
        try:
            return decode_record(self._records[self._number - self._before - 1].encode())
        except UNDECODABLE:
            what = "a value in it has no JSON; leave its column out in the tap"
            raise InputError(self.where(what)) from None

    def where(self, what: str) -> str:
        """A message that names the latest row."""
        return f"row {self._number} of {self._where}: {what}"

    def _plain(self) -> Columns | None:
        columns = dict(zip(self._columns, zip(*self._batch, strict=True), strict=True))
        if any(columns.get("deleted_at", ())):
            return None
        present, expected = columns.get("membership"), columns.get("expected_count")
        cohorts = self._cohorts(columns)
        for required in (present, expected, cohorts):
            if required is not None and None in required:
                return None
        nobody: tuple[None, ...] = (None,) * len(self._batch)
        return assemble(
            _texts(columns.get("uid", nobody)),
            _texts(columns["anonymous_id"]) if "anonymous_id" in columns else None,
            present=None if present is None else list(present),
            cohorts=cohorts,
            expected_counts=None if expected is None else set(map(int, expected)),
        )

    def _cohorts(self, columns: Mapping[str, Sequence[t.Any]]) -> list[t.Any] | None:
        """The cohort of each row, or ``None`` for one that must be looked at by itself."""
        if "cohort_id" not in columns:
            return None
        ids = _texts(columns["cohort_id"])
        if "cohort_name" not in columns:
            return [None if each is None else (each, None) for each in ids]
        pairs = zip(ids, _texts(columns["cohort_name"]), strict=True)
        return [None if None in pair else pair for pair in pairs]

    def _value(self, role: str) -> str:
        """The SQL expression of a role's value, of a type that the rules for rows know."""
        column, kind = self._quoted(role), self._types[self._columns[role]]
        if _TEXT.fullmatch(kind):
            return f"{column}::VARCHAR"
        if role == "deleted_at":
            return f"CASE WHEN {column} IS NOT NULL THEN 'deleted' END"
        if _WHOLE.fullmatch(kind) or _OTHER_SCALAR.fullmatch(kind):
            return column
        return f"CASE WHEN {column} IS NOT NULL THEN [TRUE] END"  # which is no identifier

    def _identifier(self, role: str) -> str:
        if role not in self._columns:
            return "NULL::VARCHAR"
        return f"nullif({self._quoted(role)}::VARCHAR, '')"

    def _deleted(self) -> str:
        if "deleted_at" not in self._columns:
            return "FALSE"
        return f"(nullif({self._quoted('deleted_at')}::VARCHAR, '') IS NOT NULL)"

    def _member(self) -> str:
        return self._quoted("membership") if "membership" in self._columns else "TRUE"

    def _quoted(self, role: str) -> str:
        return '"' + self._columns[role].replace('"', '""') + '"'

    def _fetch(self, sql: str) -> list[tuple[t.Any, ...]]:
        with self.translated():
            return _fetched(self.cursor, sql)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what is wrong with the file into an `InputError` without any of its values."""
        try:
            yield
        except (duckdb.Error, OSError, ValueError) as error:  # the last two: pyarrow's
            why = type(error).__name__
            msg = f"{self._where} cannot be read ({why}), {INCOMPLETE}"
            raise InputError(msg) from None


def _fetched(cursor: Cursor, sql: str) -> list[tuple[t.Any, ...]]:
    return cursor.execute(sql).fetchall()


def _texts(values: Sequence[t.Any]) -> list[str | None]:
    """Identifiers as text; ``None`` for null and empty."""
    return [str(value) if value is not None and value != "" else None for value in values]
