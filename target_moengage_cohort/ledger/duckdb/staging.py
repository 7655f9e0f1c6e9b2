"""A snapshot as it streams, and what differs between it and a ledger.

Rows wait in an in-memory database of the ledgers' DuckDB instance, which spills to disk beyond
its memory limit. Everything of size is joined on the members' 128-bit hashes alone; identifiers
are fetched for the difference only.
"""

# ruff: noqa: S608 - only names of our own tables are put into SQL; values are parameters

from __future__ import annotations

import itertools
import threading
import typing as t

import msgspec

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.comparison import Comparison, Rows, Tables
from target_moengage_cohort.ledger.duckdb.difference import Difference
from target_moengage_cohort.ledger.duckdb.engine import translated

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future

    from target_moengage_cohort.ledger.duckdb.engine import Cursor
    from target_moengage_cohort.ledger.duckdb.ledger import Ledger
    from target_moengage_cohort.ledger.duckdb.store import Ledgers

    Row = tuple[t.Any, ...]

_SLICE = 4_096
"""Values that are bound in one text."""

_WORTH_CLUSTERING = 20_000_000
"""Rows times cohorts; beyond it, sorting the rows once costs less than a scan for each cohort."""

_numbers = itertools.count(1)
_encode = msgspec.json.Encoder().encode


class Staging:
    """The rows of a snapshot, in stream order; use it from one thread.

    A chunk of rows is put into the table by another thread, while the next one is read.

    Args:
        ledgers: The ledgers of the destination.
        worker: The other thread.

    Attributes:
        rows: How many there are.
        has_absent: Whether any of them says that its member is none.
    """

    def __init__(self, ledgers: Ledgers, worker: Executor) -> None:
        self.rows = 0
        self._ledgers = ledgers
        self._lock = threading.Lock()
        self._worker = worker
        self._under_way: Future[None] | None = None
        self._catalog = f"staging_{next(_numbers)}"
        self._table = f"{self._catalog}.staged"
        self._cohorts: set[int] = set()
        self.has_absent = self._has_pairs = False
        self._is_compared = False
        with translated(ledgers.folder):
            self._cursor = ledgers.cursor()
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
        """Take the next rows, column by column; some 100,000 at a time are fastest.

        The lists are ours from now on.

        Args:
            cohorts: Which cohort each row is of; ``None``: all are of cohort 0.
            uids: Every row has one, or an anonymous id.
            anonymous_ids: ``None``: no row has one.
            present: Whether the row is a member's; ``None``: all are.

        Raises:
            LedgerError: The chunk before could not be kept.
        """
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
        key = self._ledgers.hash_sql("uid", "anonymous_id")
        sql = (
            f"INSERT INTO {self._table} SELECT cohort, {key}, uid, anonymous_id, present"
            f" FROM (SELECT {source} FROM (SELECT {slices}))"
        )
        self._await()
        self._under_way = self._worker.submit(self._insert, sql, given)
        self._note(cohorts, uids, anonymous_ids, present)

    def cursor(self) -> Cursor:
        """A new cursor for `append_from`."""
        return self._ledgers.cursor()

    def append_from(
        self, cursor: Cursor, select: str, *, rows: int, has_absent: bool, has_pairs: bool
    ) -> None:
        """Take the next rows, which DuckDB finds by itself, all of cohort 0.

        Args:
            cursor: Can see them; of the ledgers' instance.
            select: Selects their uid, anonymous_id and present, in order.
            rows: How many there are.
            has_absent: Whether any is no member's.
            has_pairs: Whether any has both identifiers.

        Raises:
            LedgerError: The chunk before could not be kept.
            duckdb.Error: The rows cannot be read to their end, or not be kept.
        """
        key = self._ledgers.hash_sql("uid", "anonymous_id")
        self._await()
        with self._lock:
            cursor.execute(
                f"INSERT INTO {self._table} SELECT 0, {key}, uid, anonymous_id, present"
                f" FROM ({select})"
            )
        self.rows += rows
        self._cohorts.add(0)
        self.has_absent |= has_absent
        self._has_pairs |= has_pairs

    def new_members(self, first: int, end: int) -> list[Member]:
        """The members of some rows, as their last row among these has them, who had no row before.

        Args:
            first: The number of the first row.
            end: The number of the row after the last one.

        Raises:
            LedgerError: The rows could not be kept, or not be read.
        """
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

    def difference(self, ledger: Ledger, cohort: int, *, keeps: bool = False) -> Difference:
        """Compare one cohort's rows with its ledger.

        Args:
            ledger: The cohort's.
            cohort: Its number in `append`.
            keeps: Remove nobody, as a one_time stream does.

        Raises:
            LedgerError: The rows could not be kept, or not be compared.
        """
        self._await()
        ledger.folded()
        # The ledger's lock first: who keeps a plan holds it while reading a difference.
        with ledger.tables() as (cursor, schema), self._lock, translated(self._ledgers.folder):
            self._cluster()
            self._is_compared = True
            tables = Tables(self._catalog, schema)
            rows = Rows(
                cohort=None if self._cohorts <= {cohort} else cohort,
                has_absent=self.has_absent,
                has_pairs=self._has_pairs,
                keeps=keeps,
            )
            differs = Comparison(cursor, tables, rows, self._ledgers.hash_sql).run()
        return Difference(self, tables, differs)

    def close(self) -> None:
        """Give the rows' memory back; differences of this staging end with it.

        Raises:
            LedgerError: The last rows could not be kept.
        """
        self._await()
        with self._lock, translated(self._ledgers.folder):
            self._cursor.execute(f"DETACH DATABASE IF EXISTS {self._catalog}")
            self._cursor.close()

    def _insert(self, sql: str, columns: Sequence[Sequence[t.Any]]) -> None:
        with self._lock, translated(self._ledgers.folder):
            self._cursor.execute(sql, [_slices(column) for column in columns])

    def _await(self) -> None:
        """Wait until all rows are in the table."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def fetch(self, sql: str) -> list[Row]:
        """Ask for a few rows; for `Difference`."""
        with self._lock, translated(self._ledgers.folder):
            return self._cursor.execute(sql).fetchall()

    def _note(
        self,
        cohorts: Sequence[int] | None,
        uids: Sequence[str | None],
        anonymous_ids: Sequence[str | None] | None,
        present: Sequence[bool] | None,
    ) -> None:
        """Remember what the data needs, so that a difference can leave out the rest."""
        self.rows += len(uids)
        self._cohorts.update({0} if cohorts is None else cohorts)
        self.has_absent |= present is not None and not all(present)
        if anonymous_ids is not None and not self._has_pairs:
            self._has_pairs = any(
                None not in pair for pair in zip(uids, anonymous_ids, strict=True)
            )

    def _cluster(self) -> None:
        """Sort the rows by cohort once if that pays; stream order stays within each cohort."""
        if self._is_compared or self.rows * (len(self._cohorts) - 1) < _WORTH_CLUSTERING:
            return
        clustered = f"{self._catalog}.clustered"
        self._cursor.execute(
            f"CREATE TABLE {clustered} AS FROM {self._table} ORDER BY cohort, rowid"
        )
        self._cursor.execute(f"DROP TABLE {self._table}")
        self._cursor.execute(f"ALTER TABLE {clustered} RENAME TO staged")


def _slices(column: Sequence[t.Any]) -> list[str]:
    """A column as JSON, some values at a time.

    Text is faster to bind than a list, whose elements are converted one by one, and DuckDB takes
    many short lists apart in a third of the time of a long one.
    """
    starts = range(0, len(column), _SLICE)
    return [_encode(column[start : start + _SLICE]).decode() for start in starts]
