"""Rows in columns that the engine reads itself: their facts, and their identifiers."""

from __future__ import annotations

import contextlib
import typing as t

import duckdb

from target_moengage_cohort.core.column_files import TEXT
from target_moengage_cohort.core.deletions import BLANK, TIMESTAMP
from target_moengage_cohort.ledger.snapshot import ColumnarFacts

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.column_files import ColumnarRows
    from target_moengage_cohort.ledger.duckdb.instance import Cursor

_IDENTIFIERS = ("uid", "anonymous_id")
_WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
_NUMBERS = ("file_index", "file_row_number")


class OpenRows:
    """Rows in columns that a cursor can read."""

    def __init__(self, cursor: Cursor, rows: ColumnarRows, types: Mapping[str, str] | None) -> None:
        self._cursor = cursor
        self._rows = rows
        self._version = rows.version()  # before anything is read
        self._table, self._types = (
            rows.open(cursor) if types is None else (rows.table(cursor), types)
        )
        self._names = [self._text(role) for role in _IDENTIFIERS]
        marks = sorted({*rows.marks(self._types).values()})
        self._deleted = _any(f"regexp_full_match({text}, '{TIMESTAMP}')" for text in marks)
        self._is_unclear = _any(
            f"NOT regexp_full_match({text}, '{BLANK}|{TIMESTAMP}')" for text in marks
        )
        self._varchars = [
            f"({rows.column(role, self._types)}::VARCHAR)"
            for role in _IDENTIFIERS
            if TEXT.fullmatch(self._types.get(rows.columns.get(role, ""), ""))
        ]
        self._member = rows.column("membership", self._types, absent="TRUE")

    def facts(self) -> ColumnarFacts | None:
        """See `Staging.facts`."""
        if not self._rows.is_plain(self._types):
            return None
        # A size of 0 is that of a missing, null or empty identifier; all are computed in one pass.
        columns = [self._rows.column(role, self._types) for role in _IDENTIFIERS]
        sizes = [f"coalesce(strlen({each}::VARCHAR), 0)" for each in columns if each != "NULL"]
        longest, shortest = "0", "0"
        if sizes:
            longest = f"greatest({', '.join(sizes)})"
            shortest = f"least({', '.join(sizes)})" if len(sizes) > 1 else "0"
        expected = self._rows.column("expected_count", self._types)
        (row,) = self._cursor.execute(
            f"SELECT count(*), count(*) FILTER ({longest} = 0), coalesce(max({longest}), 0),"
            f" count(*) FILTER ({self._is_unclear}"
            f" OR NOT {self._deleted} AND {self._member} IS NULL),"
            f" count(*) FILTER ({self._deleted} OR NOT {self._member}),"
            f" count(*) FILTER ({shortest} > 0),"
            f" count(*) FILTER ({self._is_unusual}),"
            f" count({expected}), min({expected}), max({expected}) FROM {self._table}"
        ).fetchall()
        *numbers, unusual, counted, least, most = row
        padded = 0
        if unusual:
            is_padded = _any(f"{each} <> trim({each}, '{_WHITE_SPACE}')" for each in self._varchars)
            query = f"SELECT count(*) FILTER ({is_padded}) FROM {self._table}"
            ((padded,),) = self._cursor.execute(query).fetchall()
        bounds = (None if bound is None else int(bound) for bound in (least, most))
        has_numbers = {name.lower() for name in self._types}.isdisjoint(_NUMBERS)
        has_pairs = self._rows.columns.get("anonymous_id") in self._types
        again = self._rows.stays and has_numbers and not has_pairs
        facts = (*numbers, padded, counted, *bounds)
        return ColumnarFacts(self._types, again, self._version, *facts)

    def select(self) -> str:
        """Return the SQL that selects uid, anonymous_id and present of all rows, in order."""
        present = f"NOT {self._deleted} AND coalesce({self._member}, FALSE)"
        return f"SELECT {self._identifiers}, {present} AS present FROM {self._table}"

    def identifiers(self, starts: Sequence[int]) -> str:
        """Return the SQL that selects rid, uid and anonymous_id of all rows.

        Args:
            starts: The `rid` of the first row of each file.
        """
        file, row = _NUMBERS
        rid = f"({list(starts)}::BIGINT[])[{file}::BIGINT + 1] + {row}"
        return f"SELECT {rid} AS rid, {self._identifiers} FROM {self._table}"

    @property
    def _is_unusual(self) -> str:
        """The SQL of what is true for a row with padded identifiers, and few others.

        It is thirty times as fast as trimming: some begin or end with no graphic ASCII.
        """
        conditions = [
            f"{each} NOT BETWEEN '!' AND '\x7f' OR {each}[-1] NOT BETWEEN '!' AND '~'"
            for each in self._varchars
        ]
        return " OR ".join(conditions) or "FALSE"

    @property
    def _identifiers(self) -> str:
        pairs = zip(self._names, _IDENTIFIERS, strict=True)
        return ", ".join(f"{name} AS {role}" for name, role in pairs)

    def _text(self, role: str) -> str:
        return f"nullif({self._rows.column(role, self._types)}::VARCHAR, '')"


def _any(conditions: Iterable[str]) -> str:
    """Return the SQL of whether any condition holds; one that is null does not."""
    return f"({' OR '.join(f'coalesce({each}, FALSE)' for each in conditions) or 'FALSE'})"


@contextlib.contextmanager
def opened(
    cursor: Cursor, rows: ColumnarRows, types: Mapping[str, str] | None = None
) -> Iterator[OpenRows]:
    """Open rows for a cursor of their own; a fault of theirs is an `InputError`.

    The types of their columns are found unless they are known.
    """
    try:
        with contextlib.closing(cursor):
            yield OpenRows(cursor, rows, types)
    except (duckdb.Error, OSError, ValueError) as error:  # the last two: pyarrow's
        raise rows.unreadable(type(error).__name__) from None
