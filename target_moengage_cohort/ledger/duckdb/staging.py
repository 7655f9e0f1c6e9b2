"""The rows of a stream that is a snapshot, and their difference from its cohorts' members.

They are in an in-memory database of the ledgers' DuckDB instance, which spills to disk beyond its
memory limit. Large tables are joined on the members' 128-bit hashes; identifiers are fetched for
the difference only.
"""

from __future__ import annotations

import itertools
import threading
import typing as t

import msgspec

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.binding import Column, bound
from target_moengage_cohort.ledger.duckdb.columnar_rows import opened
from target_moengage_cohort.ledger.duckdb.comparison import Comparison
from target_moengage_cohort.ledger.duckdb.difference import DuckDBDifference
from target_moengage_cohort.ledger.duckdb.instance import translated
from target_moengage_cohort.ledger.duckdb.result_tables import Rows
from target_moengage_cohort.ledger.duckdb.row_table import NO_TEXT, RowTable
from target_moengage_cohort.ledger.duckdb.staged_files import StagedRows, identify, insert, sample

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from target_moengage_cohort.core.column_files import ColumnarRows
    from target_moengage_cohort.ledger.duckdb.instance import Engine, Row
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.result_tables import Options
    from target_moengage_cohort.ledger.snapshot import ColumnarFacts

_PENDING_ROWS = 250_000
"""Rows of files to insert at a time: DuckDB reads several files in parallel."""

_numbers = itertools.count(1)


class DuckDBStaging:
    """A `Staging` in DuckDB; a worker inserts some rows while the next ones are read."""

    def __init__(self, engine: Engine, directory: Path, worker: Executor) -> None:
        self.rows = 0
        self._engine = engine
        self._directory = directory  # named in errors
        self._lock = threading.Lock()
        self._worker = worker
        self._under_way: Future[None] | None
        self._catalog = f"staging_{next(_numbers)}"
        self._hash = engine.hash_sql("uid", "anonymous_id")
        self._cohorts: set[int] = set()
        self._files: list[StagedRows] = []
        self._pending: list[StagedRows] = []
        self.has_absent = self._has_pairs = self._has_copies = False
        with translated(directory):
            self._cursor = engine.cursor()
        self._table = RowTable(self._catalog)
        self._under_way = worker.submit(self._open)

    def _open(self) -> None:
        with self._lock, translated(self._directory):
            self._cursor.execute(f"ATTACH ':memory:' AS {self._catalog}")

    def append(
        self,
        cohorts: Sequence[int] | int,
        uids: Sequence[str | None],
        anonymous_ids: Sequence[str | None] | None,
        present: Sequence[bool] | None,
    ) -> None:
        """See `Staging.append`."""
        numbers = None if isinstance(cohorts, int) else cohorts
        columns = [
            Column("cohort", "INTEGER", str(cohorts), numbers),
            Column("uid", "VARCHAR", NO_TEXT, uids),
            Column("anonymous_id", "VARCHAR", NO_TEXT, anonymous_ids),
            Column("present", "BOOLEAN", "TRUE", present),
        ]
        if any(len(each.values) != len(uids) for each in columns if each.values is not None):
            msg = "the columns of a chunk differ in length"
            raise ValueError(msg)
        self.wait()
        self._under_way = self._worker.submit(self._insert, columns)
        # What the rows have: a difference can omit the rest of the work.
        self.rows += len(uids)
        self._has_copies = True
        self._cohorts.update([cohorts] if isinstance(cohorts, int) else cohorts)
        self.has_absent |= present is not None and not all(present)
        if anonymous_ids is not None and not self._has_pairs:
            pairs = zip(uids, anonymous_ids, strict=True)
            self._has_pairs = any(None not in pair for pair in pairs)

    def facts(self, rows: ColumnarRows) -> ColumnarFacts | None:
        """See `Staging.facts`."""
        with opened(self._engine.cursor(), rows) as source:
            return source.facts()

    def append_columnar(self, rows: ColumnarRows, facts: ColumnarFacts, cohort: int) -> None:
        """See `Staging.append_columnar`."""
        stays, is_absent = facts.can_be_read_again, facts.absent > 0
        rows = msgspec.structs.replace(rows, stays=stays)
        placed = (cohort, self.rows, facts.count, is_absent, facts.version)
        part = StagedRows(rows, facts.types, *placed)
        self._pending.append(part)
        self.rows += facts.count
        self._cohorts.add(cohort)
        self.has_absent |= is_absent
        self._has_pairs |= facts.pairs > 0
        if not stays:
            self._has_copies = True
            self.wait()
        else:
            self._files.append(part)
            if self.rows - self._pending[0].first >= _PENDING_ROWS:
                self._insert_pending()

    def sample(self, cohort: int, most: int) -> list[Member]:
        """See `Staging.sample`."""
        self.wait()
        with self._lock, translated(self._directory):
            self._table.create(self._cursor)  # if there was no row
        rows = self.fetch(
            f"SELECT h, uid, anonymous_id FROM {self._table.rows} WHERE cohort = {cohort}"
            " AND present AND coalesce(uid, anonymous_id) IS NOT NULL"
            f" ORDER BY h LIMIT {most}"
        )
        of_files = [each for each in self._files if each.cohort == cohort]
        rows += sample(of_files, self._engine, most)
        return [Member(*pair) for _, *pair in sorted(rows, key=lambda row: row[0])[:most]]

    def wait(self) -> None:
        """See `Staging.wait`."""
        self._insert_pending()
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def compare(self, members: Members, options: Options) -> DuckDBDifference:
        """Compare the rows with the members of some cohorts."""
        self.wait()
        rows = Rows(
            catalog=self._catalog,
            table=self._table,
            is_one=len(options.known) == 1 and self._cohorts <= options.known.keys(),
            count=self.rows,
            has_absent=self.has_absent,
            has_pairs=self._has_pairs,
        )
        with members.using(), self._lock:
            self._table.create(self._cursor)  # if there was no row
            tables = Comparison(members.cursor, rows, options, self._engine.hash_sql)
            tables.run()
        if self._files and (
            tables.resent or any(each.additions for each in tables.counts.values())
        ):
            self._identify(tables)
        return DuckDBDifference(self.fetch, tables)

    def _identify(self, tables: Comparison) -> None:
        named = identify(self._files, self._engine, tables)
        if self._has_copies:
            copies = f"FROM {tables.staged} WHERE coalesce(uid, anonymous_id) IS NOT NULL"
            columns = "SELECT rid, uid, anonymous_id"
            tables.identifiers = f"({columns} FROM {named} UNION ALL {columns} {copies})"
        else:
            tables.identifiers = named

    def close(self) -> None:
        """Free the memory that the rows take; differences of this staging end with it."""
        self._pending.clear()
        self.wait()
        with self._lock, translated(self._directory):
            self._cursor.execute(f"DETACH DATABASE IF EXISTS {self._catalog}")
            self._cursor.close()

    def _insert_pending(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self.wait()
            self._under_way = self._worker.submit(self._insert_parts, pending)

    def _insert_parts(self, parts: Sequence[StagedRows]) -> None:
        with self._lock:
            insert(parts, self._engine, self._table)

    def _insert(self, columns: Sequence[Column]) -> None:
        source, values = bound(columns)
        constants = {each.name: each.constant for each in columns if each.values is None}
        with self._lock, translated(self._directory):
            self._table.insert(self._cursor, source, self._hash, constants, values)

    def fetch(self, sql: str) -> list[Row]:
        """Return the rows of a query on the tables of this staging."""
        with self._lock, translated(self._directory):
            return self._cursor.execute(sql).fetchall()
