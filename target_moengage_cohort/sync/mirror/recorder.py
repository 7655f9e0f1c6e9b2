"""Records the outcome of a mirror's plans in the ledgers; a dry run writes nothing."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.sync.mirror.guard import Decision, Disposition

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.ledger.interface import (
        CohortLedger,
        LedgerStore,
        StreamLedger,
    )
    from target_moengage_cohort.ledger.records import RunEntry
    from target_moengage_cohort.ledger.snapshot import Difference


class StreamPlan(msgspec.Struct, frozen=True):
    """A stream's plan: the difference of its cohorts, and what is decided for each of them."""

    ledger: StreamLedger
    difference: Difference
    cohorts: Sequence[CohortPlan]


class CohortPlan(msgspec.Struct, frozen=True):
    """The decision on one cohort's part of a plan, and the parts that are not delivered now."""

    ledger: CohortLedger
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

    def keep(self, plan: StreamPlan) -> None:
        """Keep the parts of a plan that are not delivered, before any request of it leaves."""
        ledger = plan.ledger
        ledger.drop_plans_of([each.ledger for each in plan.cohorts], PlanKind.WAITING)
        decided = [
            each.ledger for each in plan.cohorts if each.decision.removals is not Disposition.LEFT
        ]
        ledger.drop_plans_of(decided, PlanKind.WITHHELD)
        parts = [(each.ledger, part) for each in plan.cohorts for part in each.kept]
        for stream in {part.stream for _, part in parts}:
            self._store.begin(stream)  # another run may have begun, but found the ledger busy
        ledger.keep(parts, plan.difference)
        delivered = [
            each.ledger for each in plan.cohorts if each.decision.removals is Disposition.DELIVERED
        ]
        ledger.doubt_resent(plan.difference, delivered)

    def finish(self, plan: StreamPlan) -> None:
        """Note that the rest of a plan was delivered."""
        plan.ledger.settle(
            plan.difference,
            complete=[
                each.ledger
                for each in plan.cohorts
                if each.decision.removals is not Disposition.LEFT
            ],
        )
        for each in plan.cohorts:
            for part in each.kept:
                each.ledger.renew_plan(part.plan_id)
            if each.decision.seals:
                each.ledger.seal()

    def note_run(self, entries: Mapping[int, RunEntry]) -> None:
        """Note the outcome of the run for its cohorts, by the numbers of their ledgers."""
        self._store.note_run(entries)


class NullRecorder(Recorder):
    """Writes nothing: a dry run's."""

    remembers = False

    def keep(self, plan: StreamPlan) -> None:
        """Do nothing."""

    def finish(self, plan: StreamPlan) -> None:
        """Do nothing."""

    def note_run(self, entries: Mapping[int, RunEntry]) -> None:
        """Do nothing."""
