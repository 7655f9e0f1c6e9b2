"""The ledger of one cohort, which is a part of its stream's."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import RowError, SettingsError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.control.history import RunHistory
from target_moengage_cohort.ledger.control.owners import check_owner
from target_moengage_cohort.ledger.duckdb.adoption import adopt, collect
from target_moengage_cohort.ledger.records import PlanKind, RefusedDoubt

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Cohort, Member
    from target_moengage_cohort.ledger.cohort_record import RequestState
    from target_moengage_cohort.ledger.duckdb.stream_state import StreamState
    from target_moengage_cohort.ledger.interface import StreamLedger
    from target_moengage_cohort.ledger.records import (
        CohortEntry,
        FoldedCohort,
        LedgerCounts,
        Plan,
        RunEntry,
    )


class DuckDBCohortLedger:
    """The `CohortLedger`; see there."""

    def __init__(
        self, stream: StreamLedger, state: StreamState, entry: CohortEntry, *, created: bool
    ) -> None:
        self.stream = stream
        self.state = state
        self.entry = entry
        self.number = entry.number
        self.created = created
        self.exists = entry.number > 0
        self.last_timestamp = entry.last_timestamp
        self.revision = entry.revision

    @property
    def is_sealed(self) -> bool:
        """Whether this one_time cohort is finished."""
        return self.entry.is_sealed

    def check(self, cohort: Cohort, stream: str) -> None:
        """Check that stream and name are the ones that the ledger has; record a description."""
        check_owner(self.entry, cohort, stream)
        if self.entry.description != cohort.description and not self.state.read_only:
            self._describe(description=cohort.description)

    # Requests; these methods are for all threads

    def sent(self, action: Action, members: bytes, count: int, timestamp: int) -> int:
        """See `CohortRecord.sent`."""
        timestamp, revision = max(self.last_timestamp, timestamp), self.revision + 1
        number = self.state.send(self.number, action, members, count, timestamp, revision)
        self.last_timestamp, self.revision = timestamp, revision
        return number

    def answered(self, number: int, state: RequestState) -> None:
        """See `CohortRecord.answered`."""
        self.state.answer(number, state)

    # Members

    def numbers(self) -> LedgerCounts:
        """Return how many members the ledger has, after all requests that were answered."""
        self.state.fold()
        return self.entry.counts

    def doubts(self) -> Iterator[list[tuple[Action, Member]]]:
        """See `CohortLedger.doubts`."""
        return self.state.lookups.doubts(self.number, self.state.tables)

    def refuse_doubt(self, member: Member) -> RefusedDoubt | None:
        """See `CohortLedger.refuse_doubt`."""
        revision = self.revision + 1
        doubt = self.state.refuse_doubt(self.number, member, self.last_timestamp, revision)
        if doubt is RefusedDoubt.NEW:
            self.revision = revision
        return doubt

    def members(self) -> Iterator[list[Member]]:
        """Yield the members that are accepted or unconfirmed, in chunks."""
        self.state.fold()
        s, mine = self.state.tables, f"cohort = {self.number}"
        return self.state.table.members(
            f"SELECT uid, anonymous_id FROM {s}.accepted WHERE {mine} UNION ALL"
            f" SELECT uid, anonymous_id FROM {s}.doubts AS d WHERE {mine} AND h NOT IN"
            f" (SELECT h FROM {s}.accepted WHERE {mine})"
        )

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Return the accepted or unconfirmed members that share an identifier with these."""
        self.state.fold()
        matches: dict[Member, None] = {}
        uids = [m.uid for m in members if m.uid is not None]
        anonymous_ids = [m.anonymous_id for m in members if m.anonymous_id is not None]
        s, mine = self.state.tables, f"cohort = {self.number}"
        given = "anonymous_id IN (SELECT unnest(?::VARCHAR[]))"
        columns = {"accepted": "uid", "doubts": "uid", "aliases": "NULL"}
        sources = (f"SELECT uid FROM {s}.{table} WHERE {mine} AND {given}" for table in columns)
        owners = " UNION ".join(sources)
        same = f"(uid IN (SELECT unnest(?::VARCHAR[]) UNION {owners}) OR {given})"
        values = [uids, *[anonymous_ids] * (len(columns) + 1)]
        for table, uid in columns.items():
            query = f"SELECT {uid}, anonymous_id FROM {s}.{table} WHERE {mine} AND {same}"
            chunks = self.state.table.members(query, values)
            matches.update((member, None) for chunk in chunks for member in chunk)
        return list(matches)

    def aliases(self) -> Iterator[list[Member]]:
        """See `CohortLedger.aliases`."""
        self.state.fold()
        s, mine = self.state.tables, f"cohort = {self.number}"
        return self.state.table.members(
            f"SELECT DISTINCT NULL, anonymous_id FROM {s}.aliases WHERE {mine} AND h NOT IN"
            f" (SELECT h FROM {s}.accepted WHERE {mine} UNION ALL"
            f" SELECT h FROM {s}.doubts WHERE {mine})"
        )

    def doubt_all(self) -> int:
        """Mark every accepted member as unconfirmed; return their number."""
        self.state.fold()
        self.state.doubt([self.number])
        if self.is_sealed:
            self._describe(is_sealed=0)
        return self.entry.counts.accepted.count

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Record members as accepted; return how many were not before."""
        self.state.fold()
        before = self.entry.counts.accepted.count
        table, mine = self.state.table, [self.number]
        source = collect(table, chunks)
        with self.state.changing("adopt", mine):
            adopt(table, self.number, source)
        return self.entry.counts.accepted.count - before

    def note_folded(self, folded: FoldedCohort) -> None:
        """Take over the numbers after a change of the members."""
        changes = {"mark": folded.mark, "counts": folded.counts}
        self.entry = msgspec.structs.replace(self.entry, **changes)

    # Facts

    def seal(self) -> None:
        """Record that a one_time cohort is finished."""
        self._describe(is_sealed=1)

    def retire(self) -> None:
        """Mark the cohort as retired, so that no run populates it."""
        self._describe(is_retired=1)

    def rename(self, name: str) -> None:
        """Give the cohort another name."""
        try:
            self.state.control.new.check_name(msgspec.structs.replace(self.entry.cohort, name=name))
        except RowError as error:
            raise SettingsError(error.code, error.reason) from None
        self._describe(name=name, revision=self.revision + 1)

    def reassign(self, stream: str) -> None:
        """Let another stream populate the cohort, whose members it has taken over."""
        latest = self.last_timestamp  # in the former stream
        self._describe(stream=stream, revision=self.revision + 1, last_timestamp=latest)

    def _describe(self, **facts: object) -> None:
        self.entry = self.state.control.describe(self.entry, **facts)
        self.revision = max(self.revision, self.entry.revision)

    def runs(self) -> list[RunEntry]:
        """Return the runs that changed the cohort, the newest first."""
        return RunHistory(self.state.control).of_cohort(self.number)

    # Plans

    def plans(self) -> list[Plan]:
        """Return the plans, the oldest first."""
        return self.state.plans.of_cohorts([self.number]).get(self.number, [])

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members that a plan adds, or those that it removes, in chunks."""
        query = (
            "SELECT uid, anonymous_id FROM {s}.plan_members"
            f" WHERE cohort = {self.number} AND plan_id = ? AND action = ?"
        )
        return self.state.table.members(query, [plan_id, action.value])

    def doubt_resent(self, plan_id: str) -> None:
        """See `CohortLedger.doubt_resent`."""
        h = self.state.table.engine.hash_sql("uid", "anonymous_id")
        self.state.doubt(
            [self.number],
            f"SELECT cohort, {h} AS h FROM {{s}}.plan_members WHERE plan_id = ? AND action = ?",
            [plan_id, Action.ADD.value],
        )

    def renew_plan(self, plan_id: str) -> None:
        """Mark a plan as up to date with the ledger as it is now."""
        self._replace(plan_id, revision=self.revision)

    def withhold_plan(self, plan_id: str) -> None:
        """Turn a pending plan into a withheld one."""
        self._replace(plan_id, kind=PlanKind.WITHHELD)

    def drop_plans(self, plan_id: str | None = None) -> None:
        """See `CohortLedger.drop_plans`."""
        self.state.drop_plan(self.number, plan_id, ends_approvals=True)

    def _replace(self, plan_id: str, **changes: object) -> None:
        plans = [plan for plan in self.plans() if plan.plan_id == plan_id]
        changed = [msgspec.structs.replace(plan, **changes) for plan in plans]
        self.state.plans.keep([(self.number, plan) for plan in changed])
