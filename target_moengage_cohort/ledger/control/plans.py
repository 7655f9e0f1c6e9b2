"""The plans that were not carried out, without their members."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.ledger.records import Plan

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.control.sqlite import SQLiteDatabase, Transaction
    from target_moengage_cohort.ledger.records import PlanKind

_decode = msgspec.json.Decoder(Plan).decode
_KEPT = (
    "INSERT INTO plans (cohort, plan_id, kind, content) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (cohort, plan_id) DO UPDATE SET kind = excluded.kind, content = excluded.content"
)


class Plans:
    """The plans of the store's cohorts."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def of_cohorts(self, numbers: Sequence[int]) -> dict[int, list[Plan]]:
        """Return the plans of some cohorts, the oldest first; no entry for a cohort without any."""
        if not numbers:
            return {}
        query = "SELECT cohort, content FROM plans WHERE cohort BETWEEN ? AND ?"
        wanted = set(numbers)
        plans: dict[int, list[Plan]] = {}
        for cohort, content in self._database.rows(query, [min(wanted), max(wanted)]):
            if cohort in wanted:
                plans.setdefault(cohort, []).append(_decode(content))
        for each in plans.values():
            each.sort(key=lambda plan: (plan.made_at, plan.plan_id))
        return plans

    def keep(self, plans: Sequence[tuple[int, Plan]]) -> None:
        """Record plans, each with its cohort, in place of those with their ids."""
        if plans:
            with self._database.change("keep plans") as transaction:
                _insert(transaction, plans)

    def drop(self, cohorts: Sequence[int], kind: PlanKind | None, plan_id: str | None) -> None:
        """Delete the plans of some cohorts: all, or only those of a kind or of an id."""
        query = (
            "DELETE FROM plans WHERE cohort = ? AND kind = coalesce(?, kind)"
            " AND plan_id = coalesce(?, plan_id)"
        )
        with self._database.change("drop plans") as transaction:
            rows = [(cohort, kind and kind.value, plan_id) for cohort in cohorts]
            transaction.run_many(query, rows)


def _insert(transaction: Transaction, plans: Sequence[tuple[int, Plan]]) -> None:
    transaction.run_many(
        _KEPT,
        [
            (cohort, plan.plan_id, plan.kind.value, msgspec.json.encode(plan).decode())
            for cohort, plan in plans
        ],
    )
