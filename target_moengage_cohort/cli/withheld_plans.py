"""The plans that the guard withholds, and the commands that release them."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.cli.terminal import release_command
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.records import Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry


def withheld_plans(ledgers: LedgerStore) -> dict[str, tuple[CohortEntry, Plan]]:
    """Return the plans that are or were withheld, by their IDs."""
    plans = ledgers.plans()
    return {
        plan.plan_id: (entry, plan)
        for entry in ledgers.entries()
        for plan in plans.get(entry.number, ())
        if plan.kind is not PlanKind.WAITING
    }


def find_withheld(ledgers: LedgerStore, plan_id: str) -> tuple[CohortEntry, Plan]:
    """Return a plan that is or was withheld, and its cohort; an error lists the withheld plans."""
    if plan_id not in (withheld := withheld_plans(ledgers)):
        msg = f"no plan {plan_id!r} is withheld in {ledgers.place}; {released_by(withheld)}"
        raise SettingsError("unknown_plan", msg)
    return withheld[plan_id]


def released_by(withheld: Mapping[str, tuple[CohortEntry, Plan]]) -> str:
    """Return which plans are withheld now, with their commands."""
    present = [
        f"plan {plan_id} of cohort {entry.cohort_id!r} is withheld; if its changes are intended, "
        f"run: {release_command(plan_id)}"
        for plan_id, (entry, plan) in sorted(withheld.items())
        if plan.kind is PlanKind.WITHHELD
    ]
    return "; ".join(present) or f"no plan is withheld now; see {suggest('status')}"
