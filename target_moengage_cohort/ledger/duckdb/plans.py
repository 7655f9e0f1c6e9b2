"""Plans that were not carried out."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb.journal import Journal
from target_moengage_cohort.ledger.records import Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.interface import Difference

_decode = msgspec.json.Decoder(Plan).decode


class Plans(Journal):
    """The plans of a cohort with their members; see `CohortLedger`."""

    def plans(self) -> list[Plan]:
        """Return the plans, the oldest first."""
        with self._using() as cursor:
            rows = cursor.execute(f"SELECT plan FROM {self._tables}.plans").fetchall()
        plans = (_decode(text) for (text,) in rows)
        return sorted(plans, key=lambda plan: (plan.made_at, plan.plan_id))

    def keep(self, plan: Plan, difference: Difference, *, additions: bool, removals: bool) -> None:
        """Record a plan with its members; durable on return."""
        self.drop_plans(plan_id=plan.plan_id)
        if additions:
            self._keep(plan.plan_id, Action.ADD, difference.additions())
        if removals:
            self._keep(plan.plan_id, Action.REMOVE, difference.removals())
        with self._change("keep plan"):  # until then its members belong to no plan
            self._insert(plan)

    def _keep(self, plan_id: str, action: Action, chunks: Iterable[Sequence[Member]]) -> None:
        for chunk in chunks:
            rows_sql, parameters = self._members_sql(chunk)
            rows = f"SELECT ?, ?, uid, anonymous_id FROM {rows_sql} ORDER BY i"
            with self._change("keep members"):
                values = [plan_id, action.value, *parameters]
                self._run(f"INSERT INTO {{s}}.plan_members {rows}", values)

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members that a plan adds, or those that it removes, in chunks."""
        table = f"{self._tables}.plan_members"
        select = f"SELECT uid, anonymous_id FROM {table} WHERE plan_id = ? AND action = ?"
        return self._members(select, [plan_id, action.value])

    def renew_plan(self, plan_id: str) -> None:
        """Mark a plan as up to date with the ledger as it is now."""
        self._replace(plan_id, revision=self.revision)

    def withhold_plan(self, plan_id: str) -> None:
        """Turn a pending plan into a withheld one."""
        self._replace(plan_id, kind=PlanKind.WITHHELD)

    def drop_plans(self, kind: PlanKind | None = None, plan_id: str | None = None) -> None:
        """Delete plans with their members: all, or only those of a kind or of an id."""
        with self._change("drop plans"):
            chosen = "kind = coalesce(?, kind) AND plan_id = coalesce(?, plan_id)"
            self._run(f"DELETE FROM {{s}}.plans WHERE {chosen}", [kind and kind.value, plan_id])
            orphaned = "plan_id NOT IN (SELECT plan_id FROM {s}.plans)"
            self._run(f"DELETE FROM {{s}}.plan_members WHERE {orphaned}")

    def _replace(self, plan_id: str, **changes: object) -> None:
        for plan in self.plans():
            if plan.plan_id == plan_id:
                with self._change("replace plan"):
                    self._run("DELETE FROM {s}.plans WHERE plan_id = ?", [plan_id])
                    self._insert(msgspec.structs.replace(plan, **changes))

    def _insert(self, plan: Plan) -> None:
        text = msgspec.json.encode(plan).decode()
        self._run("INSERT INTO {s}.plans VALUES (?, ?, ?)", [plan.plan_id, plan.kind.value, text])
