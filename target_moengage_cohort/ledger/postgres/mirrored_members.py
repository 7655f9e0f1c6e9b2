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

_CHANGE = re.compile(r"(DELETE FROM|INSERT INTO) \{s\}\.(\w+)")
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
        match = _CHANGE.match(statement)
        if match is None or not self._is_repeated:
            return super().run(statement, values)
        table, deletes = match[2], match[1].startswith("DELETE")
        columns = server_tables.keys(table) if deletes else COLUMNS[table]
        text = statement.format(s=self.schema, v=self.folded)
        self.cursor.execute(f"{text} RETURNING {copying.line_sql(columns)}", values)
        lines = self._lines(self.cursor)
        count, changed = self._bulk.repeat(table, columns, lines, deletes=deletes)
        if count != changed:
            fault = f"has other rows in {table} than were copied from it"
            raise self.mismatch(fault)
        return count

    @staticmethod
    def _lines(cursor: Cursor) -> Iterator[list[str]]:
        while rows := cursor.fetchmany(_FETCHED):
            yield [line for (line,) in rows]

    def rewrite(self) -> None:
        """Let the server use the space of deleted rows for others."""
        self._bulk.vacuum()
