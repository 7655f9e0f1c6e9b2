"""Records the outcome of a mirror's plans in the ledgers; a dry run writes nothing."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.sync.mirror.guard import Decision, Disposition

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.interface import CohortLedger, Difference, LedgerStore
    from target_moengage_cohort.ledger.records import RunEntry


class CohortPlan(msgspec.Struct, frozen=True):
    """One cohort's plan: the difference, its decision, and the parts that are not delivered now."""

    ledger: CohortLedger
    difference: Difference
    decision: Decision
    kept: Sequence[Plan]


class Recorder:
    """Writes into the ledgers of a destination.

    Attributes:
        remembers: Whether acceptances are in the ledgers, so that rows may leave before a plan.
    """

    remembers = True

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def keep(self, plan: CohortPlan) -> None:
        """Keep the parts of a plan that are not delivered, before any request of it leaves."""
        ledger = plan.ledger
        ledger.drop_plans(PlanKind.WAITING)
        if plan.decision.removals is not Disposition.LEFT:
            ledger.drop_plans(PlanKind.WITHHELD)
        for part in plan.kept:
            self._store.begin(part.stream)  # another run may have begun, but found the ledger busy
            additions, removals = part.additions > 0, part.removals > 0
            ledger.keep(part, plan.difference, additions=additions, removals=removals)

    def finish(self, plan: CohortPlan) -> None:
        """Note that the rest of a plan was delivered."""
        ledger, decision = plan.ledger, plan.decision
        ledger.fold()
        if decision.additions is Disposition.DELIVERED:
            ledger.drop_linked(plan.difference)
        if decision.removals is not Disposition.LEFT:
            ledger.clear_removed()
        for part in plan.kept:
            ledger.renew_plan(part.plan_id)
        if decision.seals:
            ledger.seal()

    def note_run(self, ledger: CohortLedger, entry: RunEntry) -> None:
        """Note the outcome of the run for a cohort."""
        ledger.note_run(entry)


class NullRecorder(Recorder):
    """Writes nothing: a dry run's."""

    remembers = False

    def keep(self, plan: CohortPlan) -> None:
        """Do nothing."""

    def finish(self, plan: CohortPlan) -> None:
        """Do nothing."""

    def note_run(self, ledger: CohortLedger, entry: RunEntry) -> None:
        """Do nothing."""
