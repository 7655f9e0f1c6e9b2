"""The rows of a snapshot, and their differences from ledgers.

They are in an in-memory database of the ledgers' DuckDB instance, which spills to disk beyond its
memory limit. Large tables are joined on the members' 128-bit hashes alone; identifiers are fetched
for the difference only.
"""

from __future__ import annotations

import itertools
import threading
import typing as t

import msgspec

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.comparison import Comparison, Rows, Tables
from target_moengage_cohort.ledger.duckdb.connection import CHUNK
from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql, translated

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from target_moengage_cohort.ledger.duckdb.instance import Cursor, Engine, Row
    from target_moengage_cohort.ledger.duckdb.journal import Journal
    from target_moengage_cohort.ledger.interface import CohortLedger
    from target_moengage_cohort.ledger.records import DiffCounts

_SLICE = 4_096
"""The most values to bind as one text."""

_WORTH_CLUSTERING = 20_000_000
"""Rows times cohorts; above it, sorting the rows once is faster than a scan for each cohort."""

_numbers = itertools.count(1)
_encode = msgspec.json.Encoder().encode


class DuckDBStaging:
    """A `Staging` in DuckDB; a worker inserts a chunk of rows while the next one is read."""

    def __init__(self, engine: Engine, directory: Path, worker: Executor) -> None:
        self.rows = 0
        self._engine = engine
        self._directory = directory  # named in errors
        self._lock = threading.Lock()
        self._worker = worker
        self._under_way: Future[None] | None = None
        self._catalog = f"staging_{next(_numbers)}"
        self._table = f"{self._catalog}.staged"
        self._hash = engine.hash_sql("uid", "anonymous_id")
        self._cohorts: set[int] = set()
        self.has_absent = self._has_pairs = False
        self._is_compared = False
        with translated(directory):
            self._cursor = engine.cursor()
            self._cursor.execute(f"ATTACH ':memory:' AS {self._catalog}")
            self._cursor.execute(
                f"CREATE TABLE {self._table} (cohort INTEGER NOT NULL, h UHUGEINT NOT NULL,"
                " uid VARCHAR, anonymous_id VARCHAR, present BOOLEAN NOT NULL)"
            )

    def append(
        self,
        cohorts: Sequence[int] | None,
        uids: Sequence[str | None],
        anonymous_ids: Sequence[str | None] | None,
        present: Sequence[bool] | None,
    ) -> None:
        """See `Staging.append`."""
        columns = {
            "cohort": ("INTEGER", "0", cohorts),
            "uid": ("VARCHAR", "NULL::VARCHAR", uids),
            "anonymous_id": ("VARCHAR", "NULL::VARCHAR", anonymous_ids),
            "present": ("BOOLEAN", "TRUE", present),
        }
        given = [values for _, _, values in columns.values() if values is not None]
        if any(len(values) != len(uids) for values in given):
            msg = "the columns of a chunk differ in length"
            raise ValueError(msg)
        source = ", ".join(
            f"{constant} AS {name}"
            if values is None
            else f"""unnest(from_json({name}, '["{kind}"]')) AS {name}"""
            for name, (kind, constant, values) in columns.items()
        )
        slices = ", ".join(
            f"unnest(?::VARCHAR[]) AS {name}"
            for name, (_, _, values) in columns.items()
            if values is not None
        )
        sql = (
            f"INSERT INTO {self._table} SELECT cohort, {self._hash}, uid, anonymous_id, present"
            f" FROM (SELECT {source} FROM (SELECT {slices}))"
        )
        self._await()
        self._under_way = self._worker.submit(self._insert, sql, given)
        # What the rows have: a difference can omit the rest of the work.
        self.rows += len(uids)
        self._cohorts.update({0} if cohorts is None else cohorts)
        self.has_absent |= present is not None and not all(present)
        if anonymous_ids is not None and not self._has_pairs:
            pairs = zip(uids, anonymous_ids, strict=True)
            self._has_pairs = any(None not in pair for pair in pairs)

    def cursor(self) -> Cursor:
        """Return a new cursor for `append_from`."""
        return self._engine.cursor()

    def append_from(
        self, cursor: Cursor, select: str, *, rows: int, has_absent: bool, has_pairs: bool
    ) -> None:
        """See `Staging.append_from`."""
        self._await()
        with self._lock:
            columns = f"0, {self._hash}, uid, anonymous_id, present"
            cursor.execute(f"INSERT INTO {self._table} SELECT {columns} FROM ({select})")
        self.rows += rows
        self._cohorts.add(0)
        self.has_absent |= has_absent
        self._has_pairs |= has_pairs

    def new_members(self, first: int, end: int) -> list[Member]:
        """See `Staging.new_members`."""
        self._await()
        last = (
            f"SELECT h, max(rowid) AS rid FROM {self._table}"
            f" WHERE rowid >= {first} AND rowid < {end} GROUP BY h"
        )
        known = f"SELECT h FROM {self._table} WHERE rowid < {first} AND h IN (SELECT h FROM last)"
        rows = self.fetch(
            f"WITH last AS ({last}), new AS (SELECT rid FROM last WHERE h NOT IN ({known}))"
            f" SELECT uid, anonymous_id FROM {self._table} WHERE rowid >= {first}"
            f" AND rowid < {end} AND rowid IN (SELECT rid FROM new) ORDER BY rowid"
        )
        return [Member(uid, anonymous_id) for uid, anonymous_id in rows]

    def difference(
        self, ledger: CohortLedger, cohort: int, *, keeps: bool = False
    ) -> DuckDBDifference:
        """See `Staging.difference`."""
        self._await()
        journal = t.cast("Journal", ledger)  # of the same store, so of the same engine
        journal.folded()
        # The ledger's lock first: `CohortLedger.keep` has it while it reads a difference.
        with journal.tables() as (cursor, schema), self._lock, translated(self._directory):
            self._cluster()
            self._is_compared = True
            tables = Tables(self._catalog, schema)
            rows = Rows(
                cohort=None if self._cohorts <= {cohort} else cohort,
                has_absent=self.has_absent,
                has_pairs=self._has_pairs,
                keeps=keeps,
            )
            differs = Comparison(cursor, tables, rows, self._engine.hash_sql).run()
        return DuckDBDifference(self.fetch, tables, differs)

    def close(self) -> None:
        """Free the memory that the rows take; differences of this staging end with it."""
        self._await()
        with self._lock, translated(self._directory):
            self._cursor.execute(f"DETACH DATABASE IF EXISTS {self._catalog}")
            self._cursor.close()

    def _insert(self, sql: str, columns: Sequence[Sequence[t.Any]]) -> None:
        with self._lock, translated(self._directory):
            self._cursor.execute(sql, [_slices(column) for column in columns])

    def _await(self) -> None:
        """Wait until all rows are in the table; raise the error if one could not be inserted."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def fetch(self, sql: str) -> list[Row]:
        """Return the rows of a query, for `DuckDBDifference`."""
        with self._lock, translated(self._directory):
            return self._cursor.execute(sql).fetchall()

    def _cluster(self) -> None:
        """Sort the rows by cohort once if that pays; keep the stream order within each cohort."""
        if self._is_compared or self.rows * (len(self._cohorts) - 1) < _WORTH_CLUSTERING:
            return
        clustered = f"{self._catalog}.clustered"
        ordered = f"FROM {self._table} ORDER BY cohort, rowid"
        self._cursor.execute(f"CREATE TABLE {clustered} AS {ordered}")
        self._cursor.execute(f"DROP TABLE {self._table}")
        self._cursor.execute(f"ALTER TABLE {clustered} RENAME TO staged")


def _slices(column: Sequence[t.Any]) -> list[str]:
    """Return a column as JSON, some values in each text.

    Text is faster to bind than a list, whose elements are converted one by one, and DuckDB unnests
    many short lists in a third of the time of a long one.
    """
    starts = range(0, len(column), _SLICE)
    return [_encode(column[start : start + _SLICE]).decode() for start in starts]


class DuckDBDifference:
    """A `Difference`, read from the tables that a `Comparison` made by queries in the staging."""

    def __init__(
        self, fetch: Callable[[str], list[Row]], tables: Tables, differs: DiffCounts
    ) -> None:
        self.differs = differs
        self._fetch = fetch
        self._tables = tables

    def additions(self) -> Iterator[list[Member]]:
        """Yield the members to add, in stream order and in chunks."""
        tables = self._tables
        for page in _pages(self.differs.additions):
            chosen = f"FROM {tables.additions} WHERE rowid {page}"
            ((first, last),) = self._fetch(f"SELECT min(rid), max(rid) {chosen}")
            yield self._members(
                f"SELECT uid, anonymous_id FROM {tables.staged} WHERE rowid BETWEEN {first}"
                f" AND {last} AND rowid IN (SELECT rid {chosen}) ORDER BY rowid"
            )

    def removals(self) -> Iterator[list[Member]]:
        """Yield the members to remove, with the identifiers that were accepted, in chunks."""
        return self._listed(self._tables.removals, self.differs.removals)

    def dropped(self) -> Iterator[list[Member]]:
        """Yield the members to delete from the ledger without a request, in chunks."""
        return self._listed(self._tables.dropped, self.differs.dropped)

    def digest(self, *, additions: bool, removals: bool) -> str:
        """Return a digest of the changes; the same changes of one cohort have the same digest."""
        tables = self._tables
        sources = []
        if additions and self.differs.additions:
            pairs = (
                f"SELECT a.h, s.anonymous_id FROM {tables.additions} a"
                f" JOIN {tables.staged} s ON s.rowid = a.rid"
            )
            sources.append(("+", pairs))
        if removals and self.differs.removals:
            sources.append(("-", f"SELECT h, anonymous_id FROM {tables.removals}"))
        total = [0, 0]
        for sign, pairs in sources:
            # A hash has no comma, so everything after the first one is the anonymous id. Hex
            # digits are a hundred times faster to produce than decimal ones.
            text = f"concat('{sign}', hex(h), ',' || anonymous_id)"
            (sums,) = self._fetch(
                f"SELECT {sums_sql('h')} FROM (SELECT md5_number({text}) AS h FROM ({pairs}))"
            )
            total = [a + b for a, b in zip(total, sums, strict=True)]
        return digest(*total)

    def close(self) -> None:
        """Free the memory that the difference takes."""
        while self._tables.made:
            self._fetch(f"DROP TABLE IF EXISTS {self._tables.made.pop()}")

    def _listed(self, table: str, count: int) -> Iterator[list[Member]]:
        for page in _pages(count):
            yield self._members(f"SELECT uid, anonymous_id FROM {table} WHERE rowid {page}")

    def _members(self, select: str) -> list[Member]:
        return [Member(uid, anonymous_id) for uid, anonymous_id in self._fetch(select)]


def _pages(count: int) -> Iterator[str]:
    """Yield conditions on the row numbers of a table, one for each page of rows."""
    return (f"BETWEEN {first} AND {first + CHUNK - 1}" for first in range(0, count, CHUNK))
