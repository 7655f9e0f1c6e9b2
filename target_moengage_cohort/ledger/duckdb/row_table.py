"""The table of the rows of a snapshot, as narrow as they allow."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.ledger.duckdb.instance import Cursor

NO_TEXT = "NULL::VARCHAR"
_TYPES = {"cohort": "INTEGER", "uid": "VARCHAR", "anonymous_id": "VARCHAR", "present": "BOOLEAN"}


class RowTable:
    """A table that has a column only if its values differ, and a view that always has all of them.

    A narrow table is filled faster, and more of it fits into memory.

    Attributes:
        stored: The table.
        rows: The view: rid (a row's number, from 0), h, cohort, uid, anonymous_id and present.
    """

    def __init__(self, catalog: str) -> None:
        self.stored = f"{catalog}.staged"
        self.rows = f"{catalog}.rows"
        self._constants = {
            "cohort": "0",
            "uid": NO_TEXT,
            "anonymous_id": NO_TEXT,
            "present": "TRUE",
        }
        self._exists = False

    def create(self, cursor: Cursor, constants: Mapping[str, str] | None = None) -> None:
        """Create both, unless they exist, without the columns whose SQL is constant so far."""
        if self._exists:
            return
        if constants is not None:
            self._constants = {**constants}
        stored = [f"{name} {kind}" for name, kind in _TYPES.items() if name not in self._constants]
        columns = ", ".join(["h UHUGEINT NOT NULL", *stored])
        cursor.execute(f"CREATE TABLE {self.stored} ({columns})")
        self._show(cursor)
        self._exists = True

    def insert(
        self,
        cursor: Cursor,
        source: str,
        h: str,
        constants: Mapping[str, str],
        values: Sequence[t.Any] = (),
    ) -> int:
        """Insert rows; return how many they are.

        Args:
            cursor: Inserts them.
            source: SQL after FROM that has all columns but the hash.
            h: The SQL of the hash.
            constants: The SQL of columns whose value is to be the same in all of these rows.
            values: The parameters of `source`.
        """
        self.create(cursor, constants)
        differing = [
            column for column, value in self._constants.items() if constants.get(column) != value
        ]
        for column in differing:
            self._add(cursor, column)
        if differing:
            self._show(cursor)
        stored = [column for column in _TYPES if column not in self._constants]
        inserted = cursor.execute(
            f"INSERT INTO {self.stored} ({', '.join(['h', *stored])})"
            f" SELECT {', '.join([h, *(constants.get(each, each) for each in stored)])}"
            f" FROM {source}",
            values,
        ).fetchone()
        return int(t.cast("tuple[int]", inserted)[0])

    def store(self, cursor: Cursor, column: str) -> None:
        """Make a column of the table, whose values may be changed then."""
        if column in self._constants:
            self._add(cursor, column)
            self._show(cursor)

    def _add(self, cursor: Cursor, column: str) -> None:
        kind = f"{_TYPES[column]} DEFAULT {self._constants.pop(column)}"
        cursor.execute(f"ALTER TABLE {self.stored} ADD COLUMN {column} {kind}")

    def _show(self, cursor: Cursor) -> None:
        columns = ", ".join(
            f"{self._constants[column]}::{kind} AS {column}"
            if column in self._constants
            else column
            for column, kind in _TYPES.items()
        )
        view = f"SELECT rowid AS rid, h, {columns} FROM {self.stored}"
        cursor.execute(f"CREATE OR REPLACE VIEW {self.rows} AS {view}")
