"""The members of one cohort, among those of its stream."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
from target_moengage_cohort.ledger.control.requests import REFUSED_DOUBT
from target_moengage_cohort.ledger.duckdb import sampling
from target_moengage_cohort.ledger.duckdb.binding import bound_members
from target_moengage_cohort.ledger.duckdb.sampling import CohortTables, DuckDBObservation

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.stream_members import StreamMembers
    from target_moengage_cohort.ledger.samples import Samples

_GROUPED = 2_000_000
"""Rows to group at a time, as in a comparison."""


class DuckDBCohortLedger(CohortLedger):
    """A `CohortLedger`; see there."""

    stream: StreamMembers

    def doubts(self, *, refused: bool = True) -> Iterator[list[tuple[Action, Member]]]:
        """See `CohortLedger.doubts`."""
        new, queue = "", self.stream.queue
        if queue:
            new = f" ANTI JOIN {queue} AS q ON q.cohort = d.cohort AND q.h = d.h"
        others = "" if refused else f" AND action <> '{REFUSED_DOUBT}'"
        doubts = f"{self.stream.tables}.doubts AS d{new} WHERE cohort = {self.number}{others}"
        query = f"SELECT action, uid, anonymous_id FROM {doubts} AND action"
        adds = f"= '{Action.ADD.value}' AND uid IS"
        parts = f"<> '{Action.ADD.value}'", f"{adds} NOT NULL", f"{adds} NULL"
        with self.stream.table.sparing():
            rows = self.stream.table.chunks(" UNION ALL ".join(f"{query} {each}" for each in parts))
        return (
            [(_action(action), Member(uid, anonymous_id)) for action, uid, anonymous_id in chunk]
            for chunk in rows
        )

    def members(self) -> Iterator[list[Member]]:
        """See `CohortLedger.members`."""
        self.stream.fold()
        s, mine = self.stream.tables, f"cohort = {self.number}"
        return self.stream.table.members(
            f"SELECT uid, anonymous_id FROM {s}.accepted WHERE {mine} UNION ALL"
            f" SELECT uid, anonymous_id FROM {s}.doubts AS d WHERE {mine} AND h NOT IN"
            f" (SELECT h FROM {s}.accepted WHERE {mine})"
        )

    def accepted(self) -> Iterator[list[Member]]:
        """See `CohortLedger.accepted`."""
        self.stream.fold()
        s, mine = self.stream.tables, f"cohort = {self.number}"
        return self.stream.table.members(
            f"SELECT uid, anonymous_id FROM {s}.accepted WHERE {mine} AND h NOT IN"
            f" (SELECT h FROM {s}.doubts WHERE {mine} AND action <> '{Action.ADD.value}')"
        )

    def find(self, members: Sequence[Member]) -> list[Member]:
        """See `CohortLedger.find`."""
        self.stream.fold()
        matches: dict[Member, None] = {}
        uids = [m.uid for m in members if m.uid is not None]
        anonymous_ids = [m.anonymous_id for m in members if m.anonymous_id is not None]
        s, mine = self.stream.tables, f"cohort = {self.number}"
        given = "anonymous_id IN (SELECT unnest(?::VARCHAR[]))"
        columns = {"accepted": "uid", "doubts": "uid", "aliases": "NULL"}
        sources = (f"SELECT uid FROM {s}.{table} WHERE {mine} AND {given}" for table in columns)
        owners = " UNION ".join(sources)
        same = f"(uid IN (SELECT unnest(?::VARCHAR[]) UNION {owners}) OR {given})"
        values = [uids, *[anonymous_ids] * (len(columns) + 1)]
        for table, uid in columns.items():
            query = f"SELECT {uid}, anonymous_id FROM {s}.{table} WHERE {mine} AND {same}"
            chunks = self.stream.table.members(query, values)
            matches.update((member, None) for chunk in chunks for member in chunk)
        return list(matches)

    def aliases(self) -> Iterator[list[Member]]:
        """See `CohortLedger.aliases`."""
        self.stream.fold()
        s, mine = self.stream.tables, f"cohort = {self.number}"
        return self.stream.table.members(
            f"SELECT DISTINCT NULL, anonymous_id FROM {s}.aliases WHERE {mine} AND h NOT IN"
            f" (SELECT h FROM {s}.accepted WHERE {mine} UNION ALL"
            f" SELECT h FROM {s}.doubts WHERE {mine})"
        )

    @property
    def _tables(self) -> CohortTables:
        self.stream.fold()
        return CohortTables(self.stream.table, self.stream.tables, self.number)

    def samples(self, size: int, seed: str) -> Samples:
        """See `CohortLedger.samples`."""
        return sampling.samples(self._tables, size, seed)

    def kept_removals(self) -> Iterator[list[Member]]:
        """See `CohortLedger.kept_removals`."""
        return sampling.kept_removals(self._tables)

    def observe(self, chunks: Iterable[Sequence[tuple[Action, Member]]]) -> DuckDBObservation:
        """See `CohortLedger.observe`."""
        return DuckDBObservation(self._tables, _collect(self.stream.table, chunks))

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """See `CohortLedger.adopt`."""
        self.stream.fold()
        before = self.entry.counts.accepted.count
        table, mine = self.stream.table, [self.number]
        source = _collect(table, ([(Action.ADD, each) for each in chunk] for chunk in chunks))
        with self.stream.changing("adopt", mine):
            _adopt(table, self.number, source)
        return self.entry.counts.accepted.count - before

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """See `CohortLedger.plan_members`."""
        query = (
            "SELECT uid, anonymous_id FROM {s}.plan_members"
            f" WHERE cohort = {self.number} AND plan_id = ? AND action = ?"
        )
        return self.stream.table.members(query, [plan_id, action.value])

    def doubt_resent(self, plan_id: str) -> None:
        """See `CohortLedger.doubt_resent`."""
        h = self.stream.table.engine.hash_sql("uid", "anonymous_id")
        self.stream.doubt(
            [self.number],
            f"SELECT cohort, {h} AS h FROM {{s}}.plan_members WHERE plan_id = ? AND action = ?",
            [plan_id, Action.ADD.value],
        )


def _action(text: str) -> Action:
    return Action.REMOVE if text == REFUSED_DOUBT else Action(text)


def _collect(table: Members, chunks: Iterable[Sequence[tuple[Action, Member]]]) -> str:
    """Collect members in memory, each once with its last row; return the view's name."""
    rows, latest = "memory.collected_rows", "memory.collected"
    with table.using() as cursor:
        columns = "(position BIGINT, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, action VARCHAR)"
        cursor.execute(f"CREATE OR REPLACE TABLE {rows} {columns}")
        cursor.execute(f"CREATE OR REPLACE TABLE {latest} (h UHUGEINT, position BIGINT)")
    position, h = 0, table.engine.hash_sql("uid", "anonymous_id")
    for chunk in chunks:
        source, values = bound_members(
            [member for _, member in chunk], actions=[action.value for action, _ in chunk]
        )
        place = f"{position} + row_number() OVER () - 1"
        select = f"SELECT {place}, {h}, uid, anonymous_id, action FROM {source}"
        with table.using() as cursor:
            cursor.execute(f"INSERT INTO {rows} {select}", values)
        position += len(chunk)
    slices = 1 + position // _GROUPED
    with table.using() as cursor:
        for number in range(slices):
            part = f"WHERE (h >> 64)::UBIGINT % {slices} = {number} GROUP BY h"
            cursor.execute(f"INSERT INTO {latest} SELECT h, max(position) FROM {rows} {part}")
        cursor.execute(
            f"CREATE OR REPLACE VIEW {rows}_once AS FROM {rows} SEMI JOIN {latest} USING (position)"
        )
    return f"{rows}_once"


def _adopt(table: Members, cohort: int, source: str) -> None:
    """Record the members in a table as accepted by a cohort, within a change.

    Only what differs is deleted: DuckDB keeps deleted rows in memory until the change ends.
    """
    same = f"old.cohort = {cohort} AND old.h = a.h"
    for name in ("doubts", "removed", "aliases"):
        table.run(f"DELETE FROM {{s}}.{name} AS old USING {source} AS a WHERE {same}")
    differs = "old.anonymous_id IS DISTINCT FROM a.anonymous_id"
    former = table.engine.hash_sql("NULL::VARCHAR", "old.anonymous_id")
    table.run(
        f"CREATE OR REPLACE TEMP TABLE formers AS SELECT {cohort} AS cohort, {former} AS h,"
        f" old.uid, old.anonymous_id FROM {{s}}.accepted AS old JOIN {source} AS a"
        f" ON {same} AND {differs}"
        " WHERE old.uid IS NOT NULL AND old.anonymous_id IS NOT NULL"
    )
    table.run(f"DELETE FROM {{s}}.accepted AS old USING {source} AS a WHERE {same} AND {differs}")
    table.run(
        f"INSERT INTO {{s}}.accepted SELECT {cohort}, h, uid, anonymous_id FROM {source} AS a"
        f" ANTI JOIN (SELECT h FROM {{s}}.accepted WHERE cohort = {cohort}) AS old USING (h)"
    )
    table.run(
        "INSERT INTO {s}.aliases FROM (FROM formers ANTI JOIN {s}.accepted USING (cohort, h))"
        " ANTI JOIN {s}.aliases USING (cohort, h, uid)"
    )
