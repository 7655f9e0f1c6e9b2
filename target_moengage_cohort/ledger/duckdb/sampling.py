"""Samples of a cohort's accepted and removed members, and comparison with an observed membership.

Unconfirmed members are in none of it, and removed ones only if they were not added again.
"""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb.instance import quoted
from target_moengage_cohort.ledger.samples import ObservedCounts, Sample, Samples

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.snapshot import DifferenceKind


class CohortTables(t.NamedTuple):
    """The tables of a stream, as if folded, and the number of one of its cohorts."""

    members: Members
    schema: str
    number: int

    def of(self, table: str) -> str:
        """Return SQL for the rows that a table has of the cohort."""
        return f"(SELECT * FROM {self.schema}.{table} WHERE cohort = {self.number})"

    @property
    def accepted(self) -> str:
        """SQL for the accepted members whose last request was answered."""
        return f"{self.of('accepted')} ANTI JOIN {self.of('doubts')} USING (h)"

    @property
    def removed(self) -> str:
        """SQL for the removals that are kept, of members that were not added again."""
        others = f"{self.of('accepted')} UNION ALL BY NAME SELECT * FROM {self.of('doubts')}"
        kept = f"(SELECT * FROM {self.members.schema}.kept_removals WHERE cohort = {self.number})"
        return f"{kept} ANTI JOIN (SELECT h FROM {others}) USING (h)"

    @property
    def dropped(self) -> int:
        """How many removals are no longer kept; members added again since then count, too."""
        query = f"SELECT number FROM {{s}}.dropped_removals WHERE cohort = {self.number}"
        return sum(number for (number,) in self.members.rows(query))

    def count(self, rows: str) -> int:
        """Count the rows of some SQL."""
        ((count,),) = self.members.rows(f"SELECT count(*) FROM {rows}")
        return int(count)


def samples(tables: CohortTables, size: int, seed: str) -> Samples:
    """See `CohortLedger.samples`."""
    return Samples(
        accepted=_sample(tables, tables.accepted, size, seed),
        removed=_sample(tables, tables.removed, size, seed),
        dropped=tables.dropped,
    )


def _sample(tables: CohortTables, rows: str, size: int, seed: str) -> Sample:
    """Return a sample of the members with a uid: those whose hashes with the seed are lowest."""
    rows = f"(SELECT h, uid FROM {rows}) WHERE uid IS NOT NULL"
    # As a number, its text takes DuckDB 400 times as long.
    order = f"md5_number(h::UUID::VARCHAR || {quoted(seed)})"
    found = tables.members.rows(f"SELECT uid FROM {rows} ORDER BY {order} LIMIT {size:d}")
    return Sample(tuple(uid for (uid,) in found), tables.count(rows))


def kept_removals(tables: CohortTables) -> Iterator[list[Member]]:
    """See `CohortLedger.kept_removals`."""
    return tables.members.members(f"SELECT uid, anonymous_id FROM {tables.removed}")


class DuckDBObservation:
    """An `Observation`; `rows` is a table of members, each once with its last action."""

    def __init__(self, tables: CohortTables, rows: str) -> None:
        self._tables = tables
        here = f"(SELECT h, uid FROM {rows} WHERE action = '{Action.ADD.value}')"
        named = f"(SELECT h, uid FROM {tables.accepted}) WHERE uid IS NOT NULL"
        removed = f"(SELECT h FROM {tables.removed})"
        known = " UNION ALL ".join(f"SELECT h FROM {tables.of(x)}" for x in ("accepted", "doubts"))
        self._rows: dict[DifferenceKind, str] = {
            "missing": f"(SELECT h, uid FROM {named}) ANTI JOIN {here} USING (h)",
            "removed": f"{here} SEMI JOIN {removed} USING (h)",
            "stranger": f"{here} ANTI JOIN ({known} UNION ALL FROM {removed}) USING (h)",
        }
        numbers = {kind: tables.count(difference) for kind, difference in self._rows.items()}
        self.counts = ObservedCounts(
            observed=tables.count(here),
            population=tables.count(named),
            missing=numbers["missing"],
            kept=tables.count(tables.removed),
            removed=numbers["removed"],
            strangers=numbers["stranger"],
        )

    def uids(self, kind: DifferenceKind) -> Iterator[list[str]]:
        """See `Observation.uids`."""
        chunks = self._tables.members.chunks(f"SELECT uid FROM {self._rows[kind]}")
        return ([uid for (uid,) in chunk] for chunk in chunks)
