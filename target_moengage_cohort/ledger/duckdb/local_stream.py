"""A stream's ledger: its requests in control, and the members of its cohorts in a file."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.duckdb import erasure, folding, parquet_files, schema
from target_moengage_cohort.ledger.duckdb.binding import bound_members
from target_moengage_cohort.ledger.duckdb.inspection import cohorts_with_rows, stray_plans
from target_moengage_cohort.ledger.duckdb.local_cohort import DuckDBCohortLedger
from target_moengage_cohort.ledger.duckdb.result_tables import Options
from target_moengage_cohort.ledger.duckdb.stream_members import StreamMembers
from target_moengage_cohort.ledger.records import NO_MEMBERS, FoldedCohort

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.requests import JournaledRequest
    from target_moengage_cohort.ledger.duckdb.difference import DuckDBDifference
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.records import CohortEntry, Plan
    from target_moengage_cohort.ledger.snapshot import Difference, Staging


class DuckDBStreamLedger(StreamMembers):
    """A `StreamLedger`; `release` releases the stream's lease."""

    def __init__(
        self, name: str, control: Control, members: Members, release: Callable[[], object]
    ) -> None:
        super().__init__(name, control, members)
        self._release = release
        self._is_closed = False

    def load(self, *, trusts: bool = False) -> None:
        """Open the members' file, check it against control, and fold what an earlier run left.

        If it `trusts` the file, or its absence, control takes over the members that this has.
        """
        entries = self.control.entries(self.name)
        had_file = self.control.has_members(self.name)
        if had_file and not (self.table.exists or trusts):
            fault = "is missing, although control.sqlite in its directory has the stream's cohorts"
            raise self.table.mismatch(fault)
        self.table.open([entry.number for entry in entries])
        if not (had_file or self.read_only):
            self.control.note_stream(self.name, has_members=1)
        for entry in entries:
            self.add(entry, created=False)
        journal = self.requests.journal()
        with self.table.sparing():
            marks = self.table.marks()
        if trusts:
            self.requests.add_marks(list(self.by_number))
        is_ahead = trusts or self._reconcile(journal, marks)
        self._clean_up(cohorts_with_rows(self.table) if trusts else {*marks})
        if self.read_only:
            self._show(journal)
        else:
            self._fold(self.requests.journal() if is_ahead else journal)
            self.end_spent_approvals()

    def _reconcile(
        self, journal: Sequence[JournaledRequest], marks: Mapping[int, FoldedCohort]
    ) -> bool:
        """Check the file's marks against control's; finish a fold that a crash interrupted.

        The file is written first. So it may be ahead by requests that control still has; return
        whether it was.
        """
        self.table.check_counts()
        numbers = {each.number for each in journal}
        ahead: list[FoldedCohort] = []
        for ledger in self.cohorts.values():
            entry, number = ledger.entry, ledger.number
            found = marks.get(number) or FoldedCohort(number, 0, NO_MEMBERS)
            if found.is_ahead(entry.mark, numbers):
                ahead.append(found)
            elif (found.mark, found.counts) != (entry.mark, entry.counts):
                raise self.table.mismatch(_differs(entry), trusts=True)
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
        has_plans, has_removed = self.table.are_filled("plan_members", "removed")
        self.table.may_have_removed = has_removed
        for cohort, plan_id in stray_plans(self) if has_plans else ():
            self.drop_plan_members([cohort], plan_id)

    def add(self, entry: CohortEntry, *, created: bool) -> DuckDBCohortLedger:
        """See `StreamLedger.add`."""
        ledger = DuckDBCohortLedger(self, entry, created=created)
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

    # Comparing

    def difference(
        self,
        staging: Staging,
        cohorts: Sequence[CohortLedger],
        *,
        keeps: bool = False,
        defers: bool = False,
        exclusive: bool = False,
        on_difference: Callable[[], object] = lambda: None,
    ) -> DuckDBDifference:
        """See `StreamLedger.difference`."""
        self.fold()
        rows = t.cast("DuckDBStaging", staging)  # of the same store, so of the same engine
        known = {each.number: self.by_number[each.number].entry.counts for each in cohorts}
        others = self.by_number.keys() - known.keys()
        has_others = any(self.by_number[number].entry.counts.base for number in others)
        approvals = self.plans.approved([*known])
        options = Options(
            schema=self.tables,
            known=known,
            has_others=has_others,
            keeps=keeps,
            approvals=approvals,
            approved=self.removals_sql(approvals),
            defers=defers,
            exclusive=exclusive,
            on_difference=on_difference,
        )
        return rows.compare(self.table, options)

    def settle(self, difference: Difference, *, complete: Sequence[CohortLedger]) -> None:
        """See `StreamLedger.settle`."""
        self.fold()
        tables = t.cast("DuckDBDifference", difference).tables
        if linked := [number for number, counts in tables.counts.items() if counts.linked]:
            self.link(linked, tables.linked)
        numbers = [each.number for each in complete]
        for number, plan_id in t.cast(
            "DuckDBDifference", difference
        ).tables.options.approvals.items():
            if number in numbers and difference.counts[number].approved:
                self.drop_plan(number, plan_id)  # also if another one was approved since
        if numbers and self.table.may_have_removed:
            chosen = "WHERE cohort IN (SELECT unnest(?::INTEGER[]))"
            if self.table.rows(f"SELECT 1 FROM {{s}}.removed {chosen} LIMIT 1", [numbers]):
                with self.table.change("clear removed"):
                    self.table.run(f"DELETE FROM {{s}}.removed {chosen}", [numbers])

    def doubt_resent(self, difference: Difference, cohorts: Sequence[CohortLedger]) -> None:
        """See `StreamLedger.doubt_resent`."""
        if (resent := t.cast("DuckDBDifference", difference).tables.resent) and cohorts:
            self.doubt([each.number for each in cohorts], f"SELECT cohort, h FROM {resent}")

    def take_over(self, numbers: Sequence[int], source: Members) -> None:
        """Copy the members of cohorts of another stream, whose file must be folded."""
        self.table.drop_cohorts(numbers)  # of an attempt that was interrupted
        with source.using(), self.table.change("take over", moves=True):
            for table in schema.COHORT_TABLES:
                rows = f"FROM {source.schema}.{table} WHERE cohort IN (SELECT unnest(?::INTEGER[]))"
                self.table.run(f"INSERT INTO {{s}}.{table} {rows}", [numbers])

    # Plans

    def keep(self, plans: Sequence[tuple[CohortLedger, Plan]], difference: Difference) -> None:
        """See `StreamLedger.keep`."""
        numbered = [(ledger.number, plan) for ledger, plan in plans]
        changes = t.cast("DuckDBDifference", difference)
        tables = changes.tables
        if plans and tables.additions:  # else nothing differs, so no plan has a member
            adding = [each for each in numbered if each[1].additions]
            removing = [each for each in numbered if each[1].removals]
            given = schema.GIVEN_PLANS
            # A replaced plan of the same changes may be approved: its members are never missing.
            with self.table.change("keep members"):
                old = f"DELETE FROM {{s}}.plan_members WHERE (cohort, plan_id) IN ({given})"
                self.table.run(old, _given(numbered))
                for action, chosen, select in (
                    (Action.ADD, adding, changes.select(tables.additions)),
                    (Action.REMOVE, removing, f"FROM {tables.removals}"),
                    (Action.ADD, removing, changes.select(tables.resent)),
                ):
                    if chosen and select:
                        self.table.run(
                            "INSERT INTO {s}.plan_members SELECT c.cohort, p.plan_id,"
                            f" '{action.value}', c.uid, c.anonymous_id FROM ({select}) AS c"
                            f" JOIN ({given}) AS p ON p.cohort = c.cohort",
                            _given(chosen),
                        )
        self.plans.keep(numbered)

    def drop_plan_members(self, cohorts: Sequence[int], plan_id: str | None) -> None:
        """See `StreamLedger.drop_plan_members`."""
        chosen = "WHERE cohort IN (SELECT unnest(?::INTEGER[])) AND plan_id = coalesce(?, plan_id)"
        with self.table.sparing():
            query = f"SELECT 1 FROM {{s}}.plan_members {chosen} LIMIT 1"
            are_there = self.table.rows(query, [cohorts, plan_id])
        if are_there:
            with self.table.change("drop plan members"):
                self.table.run(f"DELETE FROM {{s}}.plan_members {chosen}", [cohorts, plan_id])

    # People

    def with_anonymous_ids(self, members: Sequence[Member]) -> Iterator[tuple[int, Member]]:
        """See `StreamLedger.with_anonymous_ids`."""
        asked = [Member(None, each.anonymous_id) for each in members if each.anonymous_id]
        if not asked:
            return
        self.fold()
        source, values = bound_members(asked)
        rows = " UNION ALL ".join(
            f"SELECT cohort, uid, anonymous_id FROM {self.tables}.{name}"
            for name in ("accepted", "doubts")
        )
        of_asked = f"SEMI JOIN {source} USING (anonymous_id) WHERE uid IS NOT NULL"
        for cohort, uid, anonymous_id in self.table.rows(f"FROM ({rows}) {of_asked}", values):
            yield cohort, Member(uid, anonymous_id)

    def cohorts_with(self, members: Sequence[Member]) -> set[int]:
        """See `StreamLedger.cohorts_with`."""
        self.fold()
        return erasure.cohorts_with(self, members)

    def forget(self, members: Sequence[Member]) -> set[int]:
        """See `StreamLedger.forget`."""
        self.fold()
        self.control.changes.erase(self.name, members)
        return erasure.erase(self, members)

    # Moving

    def dump(self, directory: Path) -> Iterator[Path]:
        """See `StreamLedger.dump`."""
        return parquet_files.dump(self.table, directory)

    def restore(self, paths: Iterable[Path]) -> None:
        """See `LedgerStore.restore`."""
        marks = {entry.number: entry.mark for entry in self.control.entries(self.name)}
        parquet_files.restore(self.table, paths, marks)

    # The end

    def close(self) -> None:
        """See `StreamLedger.close`; after an error the next open folds."""
        if self._is_closed:
            return
        try:
            if not (self.read_only or self.table.has_failed):
                self._fold(self.requests.journal())
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


def _given(plans: Sequence[tuple[int, Plan]]) -> list[list[object]]:
    """Return the values of `schema.GIVEN_PLANS`."""
    return [[cohort for cohort, _ in plans], [plan.plan_id for _, plan in plans]]


def _differs(entry: CohortEntry) -> str:
    return (
        f"does not have the members of cohort {entry.cohort_id!r} that control.sqlite in its "
        "directory records (one of them is older or damaged)"
    )
