"""Who must be added to a cohort and who removed, read from the tables of a comparison."""

# ruff: noqa: S608 - only names of our own tables are put into SQL; values are parameters

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.engine import digest, sums_sql

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.duckdb.comparison import Tables
    from target_moengage_cohort.ledger.duckdb.staging import Staging
    from target_moengage_cohort.ledger.records import DiffCounts

_CHUNK = 10_000
"""Members that an iterator holds at a time."""


class Difference:
    """Who must be added to a cohort and who removed; holds as long as its staging is open.

    Attributes:
        differs: It in numbers.
    """

    def __init__(self, staging: Staging, tables: Tables, differs: DiffCounts) -> None:
        """Hand out what a `Comparison` left in the tables."""
        self.differs = differs
        self._staging = staging
        self._tables = tables

    def additions(self) -> Iterator[list[Member]]:
        """Who must be added, in stream order and in chunks."""
        tables = self._tables
        for page in _pages(self.differs.additions):
            chosen = f"FROM {tables.additions} WHERE rowid {page}"
            ((first, last),) = self._staging.fetch(f"SELECT min(rid), max(rid) {chosen}")
            yield self._members(
                f"SELECT uid, anonymous_id FROM {tables.staged} WHERE rowid BETWEEN {first}"
                f" AND {last} AND rowid IN (SELECT rid {chosen}) ORDER BY rowid"
            )

    def removals(self) -> Iterator[list[Member]]:
        """Who must be removed, with the identifiers that were accepted, in chunks."""
        return self._listed(self._tables.removals, self.differs.removals)

    def dropped(self) -> Iterator[list[Member]]:
        """Who is to be forgotten without a request, in chunks."""
        return self._listed(self._tables.dropped, self.differs.dropped)

    def digest(self, *, additions: bool, removals: bool) -> str:
        """Which changes these are: the same changes of one cohort have the same digest."""
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
            # A hash has no comma, so whatever follows the first one is the anonymous id; hex
            # digits are a hundred times faster to come by than decimal ones.
            text = f"concat('{sign}', hex(h), ',' || anonymous_id)"
            (sums,) = self._staging.fetch(
                f"SELECT {sums_sql('h')} FROM (SELECT md5_number({text}) AS h FROM ({pairs}))"
            )
            total = [a + b for a, b in zip(total, sums, strict=True)]
        return digest(*total)

    def close(self) -> None:
        """Give the difference's memory back."""
        while self._tables.made:
            self._staging.fetch(f"DROP TABLE IF EXISTS {self._tables.made.pop()}")

    def _listed(self, table: str, count: int) -> Iterator[list[Member]]:
        for page in _pages(count):
            yield self._members(f"SELECT uid, anonymous_id FROM {table} WHERE rowid {page}")

    def _members(self, select: str) -> list[Member]:
        rows = self._staging.fetch(select)
        return [Member(uid, anonymous_id) for uid, anonymous_id in rows]


def _pages(count: int) -> Iterator[str]:
    """Conditions on the row numbers of a table of so many rows, one page after the other."""
    return (f"BETWEEN {first} AND {first + _CHUNK - 1}" for first in range(0, count, _CHUNK))
