"""Plans that wait for somebody's word."""

# ruff: noqa: S608 - the names in statements are our own; values are parameters
from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb.journal import Journal
from target_moengage_cohort.ledger.records import Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.duckdb.difference import Difference

_decode = msgspec.json.Decoder(Plan).decode


class Plans(Journal):
    """What was worked out but not sent, with its members."""

    def plans(self) -> list[Plan]:
        """The plans, the oldest first.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._using() as cursor:
            rows = cursor.execute(f"SELECT plan FROM {self._tables}.plans").fetchall()
        return sorted(
            (_decode(text) for (text,) in rows), key=lambda plan: (plan.made_at, plan.plan_id)
        )

    def keep(self, plan: Plan, difference: Difference, *, additions: bool, removals: bool) -> None:
        """Keep a plan with its members; durable when this returns.

        Args:
            plan: It takes the place of one with the same id.
            difference: Whose members.
            additions: Whether those to add are part of it.
            removals: Whether those to remove are part of it.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self.drop_plans(plan_id=plan.plan_id)
        if additions:
            self._keep(plan.plan_id, Action.ADD, difference.additions())
        if removals:
            self._keep(plan.plan_id, Action.REMOVE, difference.removals())
        with self._change("keep plan"):  # until now its members belong to no plan
            self._insert(plan)

    def _keep(self, plan_id: str, action: Action, chunks: Iterable[Sequence[Member]]) -> None:
        for chunk in chunks:
            given, parameters = self._given(chunk)
            with self._change("keep members"):
                self._run(
                    "INSERT INTO {s}.plan_members "
                    f"SELECT ?, ?, uid, anonymous_id FROM {given} ORDER BY i",
                    [plan_id, action.value, *parameters],
                )

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members whom a plan adds, or those whom it removes, in chunks.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        return self._members(
            f"SELECT uid, anonymous_id FROM {self._tables}.plan_members "
            "WHERE plan_id = ? AND action = ?",
            [plan_id, action.value],
        )

    def renew_plan(self, plan_id: str) -> None:
        """Say that nothing has changed since a plan was made that it would not know of.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self._replace(plan_id, revision=self.revision)

    def withhold_plan(self, plan_id: str) -> None:
        """Let a plan that waits be withheld from now on.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self._replace(plan_id, kind=PlanKind.WITHHELD)

    def drop_plans(self, kind: PlanKind | None = None, plan_id: str | None = None) -> None:
        """Drop plans and their members.

        Args:
            kind: Only those of this kind.
            plan_id: Only this one.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._change("drop plans"):
            self._run(
                "DELETE FROM {s}.plans WHERE kind = coalesce(?, kind) "
                "AND plan_id = coalesce(?, plan_id)",
                [kind and kind.value, plan_id],
            )
            self._run(
                "DELETE FROM {s}.plan_members WHERE plan_id NOT IN (SELECT plan_id FROM {s}.plans)"
            )

    def _replace(self, plan_id: str, **changes: object) -> None:
        for plan in self.plans():
            if plan.plan_id == plan_id:
                with self._change("replace plan"):
                    self._run("DELETE FROM {s}.plans WHERE plan_id = ?", [plan_id])
                    self._insert(msgspec.structs.replace(plan, **changes))

    def _insert(self, plan: Plan) -> None:
        text = msgspec.json.encode(plan).decode()
        self._run("INSERT INTO {s}.plans VALUES (?, ?, ?)", [plan.plan_id, plan.kind.value, text])
