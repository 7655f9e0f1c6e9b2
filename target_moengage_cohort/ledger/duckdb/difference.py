"""The difference between a stream's rows and its cohorts' members, read from a comparison."""

from __future__ import annotations

import itertools
import typing as t

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql
from target_moengage_cohort.ledger.duckdb.members import CHUNK

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.ledger.duckdb.comparison import Comparison
    from target_moengage_cohort.ledger.duckdb.instance import Row
    from target_moengage_cohort.ledger.snapshot import CohortMembers, Part

_ADDED, _REMOVED = "+", "-"


class DuckDBDifference:
    """A `Difference`, by queries in the tables that a `Comparison` made."""

    def __init__(self, fetch: Callable[[str], list[Row]], tables: Comparison) -> None:
        self.counts = tables.counts
        self.outvoted = tables.outvoted
        self.tables = tables
        self._fetch = fetch
        self._sums: dict[tuple[int, str], tuple[int, int]] | None = None

    def changes(self, part: Part) -> Iterator[CohortMembers]:
        """See `Difference.changes`."""
        if not (table := str(getattr(self.tables, part))):
            return iter(())
        ((count,),) = self._fetch(f"SELECT count(*) FROM {table}")
        if part in {"removals", "approved"}:
            return self._listed(table, count)
        if count > CHUNK and len(self.counts) > 1:
            # A table of the rows with their identifiers: pages of it are read faster.
            listed = self.tables.new("listed")
            self._fetch(f"CREATE TABLE {listed} AS {self.select(table)}")
            return self._listed(listed, count)
        return self._added(table, count)

    def digest(self, cohort: int, *, additions: bool, removals: bool) -> str:
        """Return a digest of a cohort's changes; the same changes have the same digest."""
        if self._sums is None:
            self._sums = self._all_sums()
        signs = [_ADDED] * additions + [_REMOVED] * removals
        sums = [self._sums.get((cohort, sign), (0, 0)) for sign in signs]
        return digest(sum(high for high, _ in sums), sum(low for _, low in sums))

    def close(self) -> None:
        """Free the memory that the difference takes."""
        while self.tables.made:
            self._fetch(f"DROP TABLE IF EXISTS {self.tables.made.pop()}")

    def select(self, table: str, where: str = "") -> str:
        """Return SQL for cohort, uid and anonymous_id of a table's rows ``s``, in order."""
        return table and (
            "SELECT a.cohort, s.uid, s.anonymous_id"
            f" FROM {table} a JOIN {self.tables.identifiers} s ON s.rid = a.rid"
            f"{where} ORDER BY a.cohort, a.rid"
        )

    def _added(self, additions: str, count: int) -> Iterator[CohortMembers]:
        for page in _pages(count):
            chosen = f"(SELECT cohort, rid FROM {additions} WHERE rowid {page})"
            ((first, last),) = self._fetch(f"SELECT min(rid), max(rid) FROM {chosen}")
            query = self.select(chosen, f" WHERE s.rid BETWEEN {first} AND {last}")
            yield from _by_cohort(self._fetch(query))

    def _listed(self, table: str, count: int) -> Iterator[CohortMembers]:
        for page in _pages(count):
            query = f"SELECT cohort, uid, anonymous_id FROM {table} WHERE rowid {page}"
            yield from _by_cohort(self._fetch(query))

    def _all_sums(self) -> dict[tuple[int, str], tuple[int, int]]:
        """Return the sums of each cohort's additions and of its removals."""
        tables = self.tables
        sums: dict[tuple[int, str], tuple[int, int]] = {}
        if not tables.additions:  # nothing differs
            return sums
        added = (
            f"SELECT a.cohort, a.h, s.anonymous_id FROM {tables.additions} a"
            f" JOIN {tables.identifiers} s ON s.rid = a.rid"
        )
        removed = f"SELECT cohort, h, anonymous_id FROM {tables.removals}"
        for sign, pairs in ((_ADDED, added), (_REMOVED, removed)):
            # A hash has no comma, so everything after the first one is the anonymous id. Hex
            # digits are a hundred times faster to produce than decimal ones.
            text = f"concat('{sign}', hex(h), ',' || anonymous_id)"
            rows = self._fetch(
                f"SELECT cohort, {sums_sql('h')}"
                f" FROM (SELECT cohort, md5_number({text}) AS h FROM ({pairs})) GROUP BY cohort"
            )
            sums |= {(cohort, sign): (high, low) for cohort, high, low in rows}
        return sums


def _by_cohort(rows: list[Row]) -> Iterator[CohortMembers]:
    for cohort, group in itertools.groupby(rows, lambda row: row[0]):
        yield cohort, [Member(uid, anonymous_id) for _, uid, anonymous_id in group]


def _pages(count: int) -> Iterator[str]:
    """Yield conditions on the row numbers of a table, one for each page of rows."""
    return (f"BETWEEN {first} AND {first + CHUNK - 1}" for first in range(0, count, CHUNK))
