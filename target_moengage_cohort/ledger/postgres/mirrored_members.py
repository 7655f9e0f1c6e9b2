"""The members of a stream's cohorts on a server, and a copy of them in DuckDB that computes."""

from __future__ import annotations

import contextlib
import itertools
import re
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.duckdb.instance import translated
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.duckdb.members_file import make_tables
from target_moengage_cohort.ledger.postgres import copying, server_tables
from target_moengage_cohort.ledger.repairs import ADOPTION

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, Engine
    from target_moengage_cohort.ledger.duckdb.members_file import Owner
    from target_moengage_cohort.ledger.postgres.bulk import Bulk

_CHANGE = re.compile(r"(DELETE FROM|INSERT INTO) \{s\}\.(\w+)")
_FETCHED = 20_000
"""Rows of a change to send at a time."""

_IDENTIFIERS = {"cohort": "INTEGER", "uid": "VARCHAR", "anonymous_id": "VARCHAR"}
_LOADED = {
    "accepted": _IDENTIFIERS,  # their hashes are computed here, which takes less than to copy them
    "doubts": {**_IDENTIFIERS, "action": "VARCHAR"},
    "aliases": _IDENTIFIERS,
    "removed": {"cohort": "INTEGER", "h": "VARCHAR"},
    "plan_members": {"plan_id": "VARCHAR", "action": "VARCHAR", **_IDENTIFIERS},
    "marks": {
        "cohort": "INTEGER",
        "mark": "BIGINT",
        "accepted": "BIGINT",
        "digest": "VARCHAR",
        "in_doubt": "BIGINT",
        "base": "BIGINT",
    },
}
"""The columns that are copied from the server, with DuckDB's types."""

_COLUMNS = {
    table: [column.split()[0] for column in columns.split(", ")]
    for table, columns in server_tables.MEMBERS.items()
}


class MirroredMembers(Members):
    """`Members` whose tables are on a server; those in DuckDB are a copy in memory, which spills.

    Each change of the copy returns its rows, and these are changed on the server, whose transaction
    is committed first. After an error the copy is of no more use.
    """

    def __init__(self, engine: Engine, folder: Path, owner: Owner, step: Step, bulk: Bulk) -> None:
        self._folder = folder
        super().__init__(engine, folder, owner, step)
        self.path = Path(":memory:")
        self.place = bulk.place
        self.exists = True
        self.schema = self.name
        self.pins = 1  # it is never detached while it is open, because that would delete it
        self._bulk = bulk
        self._is_repeated = False  # whether changes are made on the server, too

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return translated(self._folder)

    def mismatch(self, fault: str, *, trusts: bool = False) -> SettingsError:
        """See `MembersFile.mismatch`."""
        _ = trusts  # the tables are always there
        msg = (
            f"ledger_uri: the ledger {self.place} {fault}, so nothing is sent. Restore the whole "
            f"database from one backup, then run again. Without a backup, {ADOPTION}"
        )
        return SettingsError("ledger_mismatch", msg)

    def open(self, cohorts: Sequence[int]) -> None:
        """Copy the members of some cohorts from the server."""
        with self.using() as cursor:
            make_tables(cursor, self.schema)
        if not cohorts:
            return
        numbers = f"'{{{','.join(map(str, cohorts))}}}'::INTEGER[]"
        with self.using() as cursor, self._bulk.reading():
            chosen = f"WHERE cohort = ANY ({numbers})"
            exist = ", ".join(f"EXISTS (SELECT 1 FROM {table} {chosen})" for table in _LOADED)
            (filled,) = self._bulk.channel.run(f"SELECT {exist}")
            for table, columns in itertools.compress(_LOADED.items(), filled):
                query = f"SELECT {', '.join(columns)} FROM {table} {chosen}"
                pipe = self._folder / f"{self.name}.{table}"
                with copying.copied_out(self._bulk.channel, query, columns, pipe) as source:
                    cursor.execute(
                        f"INSERT INTO {self.schema}.{table} {self._select(table, source)}"
                    )

    def _select(self, table: str, source: str) -> str:
        """Return SQL that makes the rows of a table from those that were copied."""
        hashes = {
            "accepted": self.engine.hash_sql("uid", "anonymous_id"),
            "doubts": self.engine.hash_sql("uid", "anonymous_id"),
            "aliases": self.engine.hash_sql("NULL::VARCHAR", "anonymous_id"),
            "removed": "h::UUID::UHUGEINT",
        }
        columns = ", ".join(
            hashes[table] if column == "h" else column for column in _COLUMNS[table]
        )
        texts = [column for column in copying.TEXTS if column in _LOADED[table]]
        if not texts:
            return f"SELECT {columns} FROM {source}"
        decoded = ", ".join(f"{copying.decoded_sql(text)} AS {text}" for text in texts)
        return f"SELECT {columns} FROM (SELECT * REPLACE ({decoded}) FROM {source})"

    @contextlib.contextmanager
    def _elsewhere(self, name: str) -> Iterator[None]:
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
        columns = server_tables.keys(table) if deletes else _COLUMNS[table]
        text = statement.format(s=self.schema, v=self.folded)
        self.cursor.execute(f"{text} RETURNING {copying.line_sql(columns)}", values)
        return self._bulk.repeat(table, columns, self._lines(self.cursor), deletes=deletes)

    @staticmethod
    def _lines(cursor: Cursor) -> Iterator[list[str]]:
        while rows := cursor.fetchmany(_FETCHED):
            yield [line for (line,) in rows]

    def rewrite(self) -> None:
        """Let the server use the space of deleted rows for others."""
        self._bulk.vacuum()
