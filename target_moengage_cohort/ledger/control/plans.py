"""The plans that were not carried out, without their members, and the approvals of them."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.ledger.control.history import user
from target_moengage_cohort.ledger.records import Approval, Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_moengage_cohort.ledger.control.database import Database, Transaction

APPROVAL_SECONDS = 86_400
"""How long a replaced plan can be approved, and how long an approval lasts."""
_MOST_REPLACED = 24  # plans of a cohort, whose members take disk space

_decode = msgspec.json.Decoder(Plan).decode
_KEPT = (
    "INSERT INTO plans (cohort, plan_id, kind, content) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (cohort, plan_id) DO UPDATE SET kind = excluded.kind, content = excluded.content"
)


class Plans:
    """The plans of the store's cohorts."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

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
                insert(transaction, plans)

    def replace(self, cohorts: Sequence[int]) -> list[tuple[int, str]]:
        """Mark the plans of cohorts of which newer rows were read; delete those of no more use.

        Withheld removals can be approved for a day; the latest plans are kept. Return the cohorts
        and ids of the plans that were deleted.
        """
        now, plans = self._clock(), self.of_cohorts(cohorts)
        approved = self.approved(cohorts) if plans else {}
        replaced: list[tuple[int, Plan]] = []
        deleted: list[tuple[int, str]] = []
        for cohort, some in plans.items():
            latest = [plan for plan in some if _is_approvable(plan, now)][-_MOST_REPLACED:]
            for plan in some:
                if plan not in latest and plan.plan_id != approved.get(cohort):
                    deleted.append((cohort, plan.plan_id))
                elif plan.kind is not PlanKind.REPLACED:
                    facts = {"kind": PlanKind.REPLACED, "replaced_at": now}
                    replaced.append((cohort, msgspec.structs.replace(plan, **facts)))
        self.keep(replaced)
        self.drop(deleted)
        return deleted

    def drop(
        self, plans: Sequence[tuple[int, str | None]], *, ends_approvals: bool = False
    ) -> None:
        """Delete plans by their cohorts and ids, or all of a cohort; and approvals of them.

        If they were confirmed, delete their cohorts' approvals of other plans, too.
        """
        approvals = [(cohort, None) for cohort, _ in plans] if ends_approvals else plans
        if plans:
            with self._database.change("drop plans") as transaction:
                for table, some in (("plans", plans), ("approvals", approvals)):
                    query = (
                        f"DELETE FROM {table} WHERE cohort = ? AND plan_id = coalesce(?, plan_id)"
                    )
                    transaction.run_many(query, some)

    # Approvals: of each cohort the latest

    def approve(self, cohort: int, plan: Plan) -> float | None:
        """Approve a plan's removals, in place of another plan's; return until when.

        Return ``None`` if the plan no longer exists, or it cannot be approved.
        """
        if not _is_approvable(plan, self._clock()):
            return None
        until = self._clock() + APPROVAL_SECONDS
        with self._database.change("approve") as transaction:
            query = "SELECT 1 FROM plans WHERE cohort = ? AND plan_id = ?"
            if not transaction.run(query, [cohort, plan.plan_id]):
                return None
            transaction.run("DELETE FROM approvals WHERE cohort = ?", [cohort])
            transaction.run(
                "INSERT INTO approvals (cohort, plan_id, approved_by, expires_at)"
                " VALUES (?, ?, ?, ?)",
                [cohort, plan.plan_id, user(), until],
            )
        return until

    def approved(self, cohorts: Sequence[int]) -> dict[int, str]:
        """Return the plans that are approved now, by their cohorts."""
        return {cohort: approval.plan_id for cohort, approval in self.approvals(cohorts).items()}

    def approvals(self, cohorts: Sequence[int]) -> dict[int, Approval]:
        """Return the approvals that are valid now, by their cohorts."""
        columns = "cohort, plan_id, approved_by, expires_at"
        query = f"SELECT {columns} FROM approvals WHERE expires_at > ?"
        wanted = set(cohorts)
        rows = self._database.rows(query, [self._clock()])
        return {cohort: Approval(*approval) for cohort, *approval in rows if cohort in wanted}


def _is_approvable(plan: Plan, now: float) -> bool:
    """Return whether a plan's removals may be approved at a time."""
    is_late = plan.kind is PlanKind.REPLACED and now > plan.replaced_at + APPROVAL_SECONDS
    return plan.kind is not PlanKind.WAITING and bool(plan.removals) and not is_late


def insert(transaction: Transaction, plans: Sequence[tuple[int, Plan]]) -> None:
    """Record plans within a change, each with its cohort, in place of those with their ids."""
    transaction.run_many(
        _KEPT,
        [
            (cohort, plan.plan_id, plan.kind.value, msgspec.json.encode(plan).decode())
            for cohort, plan in plans
        ],
    )
