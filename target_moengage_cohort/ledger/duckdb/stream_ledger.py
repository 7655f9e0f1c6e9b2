"""A stream's ledger: its requests in control, and the members of its cohorts in a file."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.control.stream_records import StreamRecords
from target_moengage_cohort.ledger.duckdb import aliases, erasure, folding, schema
from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBCohortLedger
from target_moengage_cohort.ledger.duckdb.inspection import cohorts_with_rows, stray_plans
from target_moengage_cohort.ledger.duckdb.result_tables import Options
from target_moengage_cohort.ledger.duckdb.stream_state import StreamState
from target_moengage_cohort.ledger.records import NO_MEMBERS, FoldedCohort
from target_moengage_cohort.ledger.repairs import inconsistent, restore_members

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.requests import JournaledRequest
    from target_moengage_cohort.ledger.duckdb.difference import DuckDBDifference
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.interface import CohortLedger, NumberedChange, NumberedKey
    from target_moengage_cohort.ledger.records import CohortEntry, Expected, Plan
    from target_moengage_cohort.ledger.snapshot import CohortMembers, Difference, Staging


class DuckDBStreamLedger(StreamState):
    """The `StreamLedger` of one stream, with its lease.

    Attributes:
        name: The stream.
        cohorts: The ledgers of its cohorts, by their ids.
    """

    def __init__(
        self,
        name: str,
        control: Control,
        members: Members,
        release: Callable[[], object],
    ) -> None:
        super().__init__(name, control, members)
        self.cohorts: dict[str, DuckDBCohortLedger] = {}
        self._release = release
        self._is_closed = False

    def load(self, *, trusts: bool = False) -> None:
        """Open the members' file, check it against control, and fold what an earlier run left.

        If it `trusts` the file, or its absence, control takes over the members that this has.
        """
        entries = self.control.entries(self.name)
        had_file = StreamRecords(self.control).has_members(self.name)
        if had_file and not (self.table.exists or trusts):
            fault = "is missing, although control.sqlite in its directory has the stream's cohorts"
            path = self.table.file.path
            raise inconsistent(path, fault, restore_members(path, self.name))
        self.table.open()
        if not (had_file or self.read_only):
            StreamRecords(self.control).note_stream(self.name, has_members=1)
        for entry in entries:
            self.add(entry, created=False)
        journal = self.requests.of_stream(self.name)
        marks = self.table.marks()
        if trusts:
            self.requests.add_marks(list(self.by_number))
        is_ahead = trusts or self._reconcile(journal, marks)
        self._clean_up(cohorts_with_rows(self.table) if trusts else {*marks})
        if self.read_only:
            self._show(journal)
        else:
            self._fold(self.requests.of_stream(self.name) if is_ahead else journal)
            self.end_spent_approvals()

    def _reconcile(
        self, journal: Sequence[JournaledRequest], marks: Mapping[int, FoldedCohort]
    ) -> bool:
        """Check the file's marks against control's; finish a fold that a crash interrupted.

        The file is written first. So it may be ahead by requests that control still has; return
        whether it was.
        """
        numbers = {each.number for each in journal}
        ahead: list[FoldedCohort] = []
        for ledger in self.cohorts.values():
            entry, number = ledger.entry, ledger.number
            found = marks.get(number) or FoldedCohort(number, 0, NO_MEMBERS)
            if found.is_ahead(entry.mark, numbers):
                ahead.append(found)
            elif (found.mark, found.counts) != (entry.mark, entry.counts):
                path = self.table.file.path
                repair = restore_members(path, self.name, trusts=True)
                raise inconsistent(path, _differs(entry), repair)
        if ahead and not self.read_only:
            self.requests.note_folded(ahead)
            for each in ahead:
                self.by_number[each.number].note_folded(each)
        return bool(ahead)

    def _clean_up(self, found: set[int]) -> None:
        """Delete the rows of cohorts that are another stream's now, and of plans that are gone."""
        if self.read_only:
            return
        if others := found - self.by_number.keys():
            self.table.drop_cohorts(others)
        query = "SELECT EXISTS (FROM {s}.plan_members), EXISTS (FROM {s}.removed)"
        ((has_plans, self.table.may_have_removed),) = self.table.rows(query)
        for cohort, plan_id in stray_plans(self) if has_plans else ():
            self.drop_plan_members([cohort], plan_id)

    def add(self, entry: CohortEntry, *, created: bool) -> DuckDBCohortLedger:
        """Return the ledger of one of the stream's cohorts."""
        ledger = DuckDBCohortLedger(self, self, entry, created=created)
        self.cohorts[entry.cohort_id] = self.by_number[entry.number] = ledger
        return ledger

    def _show(self, journal: Sequence[JournaledRequest]) -> None:
        if not journal:
            return
        folding.show_folded(self.table, self.requests, journal)
        self._is_shown = True
        sizes = self.table.sized([each.number for each in self.cohorts.values()], "{v}")
        for ledger in self.cohorts.values():
            counts = sizes.get(ledger.number, NO_MEMBERS)
            ledger.entry = msgspec.structs.replace(ledger.entry, counts=counts)

    # Comparing and looking up

    def known(
        self, cohorts: Sequence[int], members: Sequence[Member]
    ) -> dict[NumberedKey, Expected]:
        """See `StreamLedger.known`."""
        return self.lookups.known(cohorts, members, self.tables)

    def queued(self, changes: Sequence[NumberedChange]) -> None:
        """See `StreamLedger.queued`."""
        self.lookups.queued(changes)

    def queue_known(self, actions: Sequence[Action]) -> None:
        """See `StreamLedger.queue_known`."""
        self.lookups.queue_asked(actions)

    def difference(
        self,
        staging: Staging,
        cohorts: Sequence[CohortLedger],
        *,
        keeps: bool = False,
        defers: bool = False,
    ) -> DuckDBDifference:
        """See `StreamLedger.difference`."""
        self.fold()
        rows = t.cast("DuckDBStaging", staging)  # of the same store, so of the same engine
        known = {each.number: self.by_number[each.number].entry.counts for each in cohorts}
        others = self.by_number.keys() - known.keys()
        has_others = any(self.by_number[number].entry.counts.base for number in others)
        approvals = self.plans.approved([*known])
        sql = self.removals_sql(approvals)
        options = Options(has_others=has_others, keeps=keeps, defers=defers, approved=sql)
        return rows.compare(self.table, self.tables, known, approvals, options)

    def settle(self, difference: Difference, *, complete: Sequence[CohortLedger]) -> None:
        """See `StreamLedger.settle`."""
        self.fold()
        if linked := [number for number, counts in difference.counts.items() if counts.linked]:
            aliases.link(self, linked, t.cast("DuckDBDifference", difference).tables.linked)
        numbers = [each.number for each in complete]
        for number, plan_id in t.cast("DuckDBDifference", difference).approvals.items():
            if number in numbers and difference.counts[number].approved:
                self.drop_plan(number, plan_id)  # also if a person has approved another one since
        if numbers and self.table.may_have_removed:
            chosen = "WHERE cohort IN (SELECT unnest(?::INTEGER[]))"
            if self.table.rows(f"SELECT 1 FROM {{s}}.removed {chosen} LIMIT 1", [numbers]):
                with self.table.change("clear removed"):
                    self.table.run(f"DELETE FROM {{s}}.removed {chosen}", [numbers])

    def has_aliases(self) -> bool:
        """See `StreamLedger.has_aliases`."""
        return bool(self.table.rows(f"SELECT 1 FROM {self.tables}.aliases LIMIT 1"))

    def stale_aliases(self) -> tuple[list[int], Iterator[CohortMembers]]:
        """See `StreamLedger.stale_aliases`."""
        self.fold()
        return aliases.stale(self)

    def doubt_resent(self, difference: Difference, cohorts: Sequence[CohortLedger]) -> None:
        """See `StreamLedger.doubt_resent`."""
        if (resent := t.cast("DuckDBDifference", difference).tables.resent) and cohorts:
            self.doubt([each.number for each in cohorts], f"SELECT cohort, h FROM {resent}")

    def take_over(self, ledger: DuckDBCohortLedger) -> None:
        """Copy the members of another stream's cohort; its own file must be folded."""
        source, number = ledger.state.table, ledger.number
        self.table.drop_cohorts([number])  # of an attempt that was interrupted
        with source.using(), self.table.change("take over"):
            for table in schema.COHORT_TABLES:
                rows = f"FROM {source.schema}.{table} WHERE cohort = {number}"
                self.table.run(f"INSERT INTO {{s}}.{table} {rows}")

    # Plans

    def keep(self, plans: Sequence[tuple[CohortLedger, Plan]], difference: Difference) -> None:
        """See `StreamLedger.keep`."""
        if not plans:
            return
        changes = t.cast("DuckDBDifference", difference)
        if not changes.tables.additions:  # nothing differs, so no plan has a member
            self.plans.keep([(ledger.number, plan) for ledger, plan in plans])
            return
        kept = [(ledger.number, plan.plan_id) for ledger, plan in plans]
        adding = [(ledger.number, plan.plan_id) for ledger, plan in plans if plan.additions]
        removing = [(ledger.number, plan.plan_id) for ledger, plan in plans if plan.removals]
        removals = f"SELECT cohort, uid, anonymous_id FROM {changes.tables.removals}"
        # A replaced plan of the same changes may be approved, so its members are never missing.
        with self.table.change("keep members"):
            self.table.run(
                f"DELETE FROM {{s}}.plan_members WHERE (cohort, plan_id) IN ({schema.GIVEN_PLANS})",
                [[number for number, _ in kept], [name for _, name in kept]],
            )
            for action, chosen, select in (
                (Action.ADD, adding, changes.select(changes.tables.additions)),
                (Action.REMOVE, removing, removals),
                (Action.ADD, removing, changes.select(changes.tables.resent)),
            ):
                if chosen and select:
                    self.table.run(
                        "INSERT INTO {s}.plan_members SELECT c.cohort, p.plan_id,"
                        f" '{action.value}', c.uid, c.anonymous_id FROM ({select}) AS c"
                        f" JOIN ({schema.GIVEN_PLANS}) AS p ON p.cohort = c.cohort",
                        [[number for number, _ in chosen], [name for _, name in chosen]],
                    )
        self.plans.keep([(ledger.number, plan) for ledger, plan in plans])

    # People

    def cohorts_with(self, members: Sequence[Member]) -> set[int]:
        """See `StreamLedger.cohorts_with`."""
        self.fold()
        return erasure.cohorts_with(self, members)

    def forget(self, members: Sequence[Member]) -> set[int]:
        """See `StreamLedger.forget`."""
        self.fold()
        return erasure.erase(self, members)

    # The end

    def close(self) -> None:
        """See `StreamLedger.close`; after an error the next open folds."""
        if self._is_closed:
            return
        try:
            if not (self.read_only or self.table.has_failed):
                self._fold(self.requests.of_stream(self.name))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the file and the lease in whatever state they are."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self.table.close()
        finally:
            self._release()


def _differs(entry: CohortEntry) -> str:
    return (
        f"does not have the members of cohort {entry.cohort_id!r} that control.sqlite in its "
        "directory records (one of them is older or damaged)"
    )
