"""Where the staged rows differ from the accepted members, found without joining all of them."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.duckdb.identities import Identities
from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql
from target_moengage_cohort.ledger.records import MemberSet

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PART_ROWS = 256
"""Rows of a part, roughly: where one row in a thousand differs, most parts are the same."""

_FEWEST_ROWS = 50_000
"""Rows that are joined faster than their parts are summed up."""

_MOST_BITS = 17
"""The logarithm of the most parts, which have to fit into memory while they are summed up."""


class DifferingParts(Identities):
    """The part of a comparison that finds the parts of the hashes to join.

    A part is the members of a cohort whose hashes begin with the same bits. Two parts are the same
    if their numbers of rows and the sums of their hashes are: the sums of all parts are the digest
    of the cohort. Summing up takes a sixth of the time of a join.
    """

    _bits = 0  # with which all hashes of a part begin
    _differing = ""  # table of the parts to join, each with its rows; "" if all are joined

    @property
    def _compares_pairs(self) -> bool:
        """Whether members differ in more than their hashes."""
        return self._rows.has_pairs or self._has_pairs

    def _is_same(self) -> bool:
        """Return whether the rows are the accepted members; else find the parts that differ.

        Most runs of most streams find that they are.
        """
        known = {
            cohort: counts.accepted
            for cohort, counts in self.options.known.items()
            if counts.accepted.count
        }
        count = sum(members.count for members in known.values())
        if self._compares_pairs or not (count and self._rows.count):
            return False
        self._bits = _bits(max(count, self._rows.count), len(self.options.known))
        rows = f"FROM {self.staged} WHERE present"
        if not self._bits:
            may_be_same = self._rows.count == count and not self._rows.has_absent
            return may_be_same and known == _sets(self._sums(rows))
        of_rows = self._sum_parts("row_parts", rows)
        totals = self._cursor.execute(
            f"SELECT {self._cohort} AS cohort, sum(n)::BIGINT, sum(high), sum(low) FROM {of_rows}"
            " GROUP BY cohort"
        ).fetchall()
        if known == _sets({cohort: sums for cohort, *sums in totals}):
            return True
        self._compare_parts(of_rows, self._sum_parts("member_parts", f"FROM {self._accepted}"))
        return False

    def _sum_parts(self, name: str, source: str) -> str:
        keys = f"{self._prefix}part"
        rows = f"SELECT {self._keys}, {self._part} AS part {source}"
        sums = f"SELECT {keys}, count(*), {sums_sql('h')} FROM ({rows}) GROUP BY {keys}"
        return self._make(name, f"FROM ({sums}) AS sums({keys}, n, high, low)")

    def _compare_parts(self, of_rows: str, of_members: str) -> None:
        keys = f"{self._prefix}part"
        differs = " OR ".join(
            f"r.{sum_} IS DISTINCT FROM m.{sum_}" for sum_ in ("n", "high", "low")
        )
        differing = self._make(
            "differing",
            f"SELECT {keys}, greatest(r.n, m.n) AS n FROM {of_rows} AS r"
            f" FULL JOIN {of_members} AS m USING ({keys}) WHERE {differs}",
        )
        if self._sizes[differing] < self._sizes[of_members] // 2:
            self._differing = differing

    @property
    def _part(self) -> str:
        """The SQL of a row's part."""
        return f"(h >> {128 - self._bits})::UINTEGER"

    def _unequal(self, rows: str) -> str:
        """Return SQL for those of some rows that are in a part to join."""
        if not self._differing:
            return rows
        keys = f"{self._prefix}part"
        with_part = f"(SELECT *, {self._part} AS part FROM {rows})"
        return f"(FROM {with_part} SEMI JOIN {self._differing} USING ({keys}))"

    def _joined_rows(self, accepted_count: int) -> int:
        """Return how many rows of either side there are to join, at most."""
        if not self._differing:
            return max(self._rows.count, accepted_count)
        return self._changed(f"SELECT coalesce(sum(n), 0)::BIGINT FROM {self._differing}")


def _sets(sums: Mapping[int, Sequence[int]]) -> dict[int, MemberSet]:
    """Return the set of members of each cohort, given their number and two sums."""
    return {cohort: MemberSet(count, digest(*of)) for cohort, (count, *of) in sums.items()}


def _bits(rows: int, cohorts: int) -> int:
    """Return with how many bits the hashes of a part begin; 0 if a cohort is one part."""
    if rows < _FEWEST_ROWS:
        return 0
    parts = min((rows // _PART_ROWS).bit_length(), _MOST_BITS)
    return max(parts - (cohorts - 1).bit_length(), 0)
