"""The members of a stream's cohorts on a server, and a copy of them in DuckDB that computes."""

from __future__ import annotations

import contextlib
import re
import typing as t

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.postgres import copying, server_tables
from target_moengage_cohort.ledger.postgres.loaded_members import COLUMNS, LoadedMembers
from target_moengage_cohort.ledger.repairs import ADOPTION

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.duckdb.instance import Cursor

_CHANGE = re.compile(
    r"(?P<verb>DELETE FROM|INSERT INTO) \{s\}\.(?P<table>\w+)(?: AS old USING (?P<others>.*?))?"
    r"(?P<rest>(?: (?:WHERE|SELECT|FROM)\b.*)?)",
    re.DOTALL,
)
_CHANGES = ("DELETE FROM {s}.", "INSERT INTO {s}.")
_FETCHED = 20_000
"""Rows of a change to send at a time."""


class MirroredMembers(LoadedMembers):
    """`Members` whose tables are on a server; those in DuckDB are a copy.

    Each change of the copy returns its rows, and these are changed on the server, whose transaction
    is committed first. After an error the copy is of no more use.
    """

    _is_repeated = False  # whether changes are made on the server, too

    def mismatch(self, fault: str, *, trusts: bool = False) -> SettingsError:
        """See `MembersFile.mismatch`."""
        _ = trusts  # the tables are always there
        msg = (
            f"ledger_uri: the ledger {self.place} {fault}, so nothing is sent. Restore the whole "
            f"database from one backup, then run again. Without a backup, {ADOPTION}"
        )
        return SettingsError("ledger_mismatch", msg)

    @contextlib.contextmanager
    def _elsewhere(self, name: str) -> Iterator[None]:
        self._note_sizes()
        with self._bulk.change(name):
            self._is_repeated = True
            try:
                yield
            finally:
                self._is_repeated = False

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """See `Members.run`; repeat a change on the server."""
        if not self._is_repeated or not statement.startswith(_CHANGES):
            return super().run(statement, values)
        match = t.cast("re.Match[str]", _CHANGE.fullmatch(statement))
        table, deletes = match["table"], match["verb"] == "DELETE FROM"
        columns = server_tables.keys(table) if deletes else COLUMNS[table]
        if deletes:
            self._delete(match, values)
        else:
            self._insert(match, values)
        self.cursor.execute(f"SELECT {copying.line_sql(columns)} FROM changed")
        lines = self._lines(self.cursor)
        count, changed = self._bulk.repeat(table, columns, lines, deletes=deletes)
        self.cursor.execute("DROP TABLE changed")
        if count != changed:
            fault = f"has other rows in {table} than were copied from it"
            raise self.mismatch(fault)
        return count

    # DuckDB keeps the rows of RETURNING in memory, however many. A table spills.

    def _delete(self, match: re.Match[str], values: Sequence[object]) -> None:
        """Delete rows here, and collect their keys."""
        table, others = match["table"], match["others"]
        keys = ", ".join(f"old.{key}" for key in server_tables.keys(table))
        source = f"{{s}}.{table} AS old" + (f", {others}" if others else "")
        text = f"SELECT DISTINCT old.rowid AS place, {keys} FROM {source}{match['rest']}"
        super().run(f"CREATE OR REPLACE TEMP TABLE changed AS {text}", values)
        super().run(f"DELETE FROM {{s}}.{table} WHERE rowid IN (SELECT place FROM changed)")

    def _insert(self, match: re.Match[str], values: Sequence[object]) -> None:
        """Insert rows here, and collect them."""
        table = match["table"]
        source = f"({match['rest']}) AS c ({', '.join(COLUMNS[table])})"
        super().run(f"CREATE OR REPLACE TEMP TABLE changed AS FROM {source}", values)
        super().run(f"INSERT INTO {{s}}.{table} FROM changed")

    @staticmethod
    def _lines(cursor: Cursor) -> Iterator[list[str]]:
        while rows := cursor.fetchmany(_FETCHED):
            yield [line for (line,) in rows]

    def rewrite(self) -> None:
        """Let the server use the space of deleted rows for others."""
        self._bulk.vacuum()
