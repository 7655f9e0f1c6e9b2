"""Finds, checks and delivers plans that await confirmation."""

from __future__ import annotations

import shlex
import typing as t

import msgspec

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.terminal import release_command
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.records import Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.interface import CohortLedger, LedgerStore

MAX_AGE_SECONDS = 3_600


class PendingPlan(msgspec.Struct, frozen=True):
    """A plan that was not delivered, and the ledger of its cohort."""

    ledger: CohortLedger
    plan: Plan

    @property
    def cohort_id(self) -> str:
        """The ID of its cohort."""
        return self.ledger.entry.cohort_id

    @property
    def is_outdated(self) -> bool:
        """Whether the cohort has changed since the plan was made."""
        return self.plan.revision != self.ledger.revision


def pending_plans(ledgers: LedgerStore, streams: Sequence[str], now: float) -> list[PendingPlan]:
    """Open the ledgers of some streams, and return the plans that await `confirm`.

    It is an error if any stream has no pending plan, or one that must not be delivered `now`, in
    seconds since 1970.
    """
    entries = ledgers.entries()
    plans: list[PendingPlan] = []
    faults: list[SettingsError] = []
    for stream in streams:
        opened = [ledgers.open_known(each.cohort_id) for each in entries if each.stream == stream]
        kept = [PendingPlan(ledger, plan) for ledger in opened for plan in ledger.plans()]
        waiting = [each for each in kept if each.plan.kind is PlanKind.WAITING]
        pending = [each for each in waiting if not ledgers.is_void(each.plan)]
        # A sealed one_time cohort has nothing left to confirm, which is not a fault.
        if not pending and not any(ledger.is_sealed for ledger in opened):
            faults.append(_nothing_pending(ledgers, stream, kept))
        faults += [fault for each in pending for fault in _faults(each, now)]
        plans += pending
    if faults:
        raise SettingsError.combine(faults)
    return plans


def _nothing_pending(
    ledgers: LedgerStore, stream: str, kept: Sequence[PendingPlan]
) -> SettingsError:
    msg = f"no removals are pending for stream {stream!r} in {ledgers.place}; "
    entries = ledgers.entries()
    owner = {entry.cohort_id: entry.stream for entry in entries}.get(stream)
    # No hint if a stream has that name, too: its removals are not those of the cohort.
    if owner is not None and all(entry.stream != stream for entry in entries):
        msg += (
            f"it is the ID of a cohort that belongs to stream {owner!r}: did you mean "
            f"moengage-cohort confirm {shlex.quote(owner)}?"
        )
        return SettingsError("nothing_pending", msg)
    msg += (
        "its latest run must have used this ledger and removals: deferred, and read its whole "
        "input without a fault"
    )
    for each in kept:
        if each.plan.kind is PlanKind.WITHHELD and not each.is_outdated:
            msg += (
                f". Plan {each.plan.plan_id} is withheld by the guard; if its changes are "
                f"intended, run: {release_command(each.plan.plan_id)}"
            )
    return SettingsError("nothing_pending", msg)


def _faults(pending: PendingPlan, now: float) -> Iterator[SettingsError]:
    where = f"cohort {pending.cohort_id!r}, stream {pending.plan.stream!r}"
    age = now - pending.plan.made_at
    if abs(age) > MAX_AGE_SECONDS:
        future = "in the future, by this machine's clock,"
        when = f"{age / 60:.0f} minutes ago" if age > 0 else future
        yield SettingsError(
            "plan_expired",
            f"{where}: the pending removals were computed {when} and must be confirmed within an "
            "hour; run the stream again",
        )
    if pending.is_outdated:
        msg = f"{where}: the cohort has changed since; run the stream again"
        yield SettingsError("plan_outdated", msg)


def find_withheld(session: Session, plan_id: str) -> str:
    """Return the ID of the cohort that has a withheld plan."""
    withheld: list[str] = []
    with session.ledgers(read_only=True) as ledgers:
        plans = ledgers.plans()
        for entry in ledgers.entries():
            for plan in plans.get(entry.number, ()):
                if plan.kind is PlanKind.WITHHELD:
                    withheld.append(plan.plan_id)
                    if plan.plan_id == plan_id:
                        return entry.cohort_id
    hint = "no plan is; see moengage-cohort status"
    if withheld:
        hint = f"the withheld plans are: {', '.join(sorted(withheld))}"
    msg = f"no plan {plan_id!r} is withheld in {ledgers.place}; {hint}"
    raise SettingsError("unknown_plan", msg)


def deliver(
    session: Session, plans: Sequence[PendingPlan], accepted: Callable[[PendingPlan], None]
) -> None:
    """Deliver plans; not all of them if the command is interrupted.

    Call `accepted` for each plan that is fully accepted and dropped from its ledger.
    """
    with_changes = [each for each in plans if each.plan.additions or each.plan.removals]
    for each in plans:
        if each not in with_changes:
            _finish(each, [])
            accepted(each)
    if not with_changes:
        return
    siblings = [_siblings(each) for each in with_changes]
    delivery = OperatorDelivery(session)
    try:
        with delivery:
            for each in with_changes:
                if each.plan.removals:
                    each.ledger.doubt_resent(each.plan.plan_id)
                delivery.send(each.ledger, _batches(each))
            delivery.drain()
    finally:
        for each, others in zip(with_changes, siblings, strict=True):
            if delivery.is_accepted(each.cohort_id):
                _finish(each, others)
                accepted(each)


def _siblings(pending: PendingPlan) -> list[str]:
    """Return the other plans of the same run and cohort: delivering this one keeps them valid."""
    return [
        plan.plan_id
        for plan in pending.ledger.plans()
        if plan.plan_id != pending.plan.plan_id
        and (plan.run_id, plan.revision) == (pending.plan.run_id, pending.plan.revision)
    ]


def _batches(pending: PendingPlan) -> Iterator[tuple[Action, Sequence[Member]]]:
    for action in (Action.REMOVE, Action.ADD):  # as in a run: the addition must come last
        for members in pending.ledger.plan_members(pending.plan.plan_id, action):
            yield action, members


def _finish(pending: PendingPlan, siblings: Sequence[str]) -> None:
    pending.ledger.stream.fold()
    for plan_id in siblings:
        pending.ledger.renew_plan(plan_id)
    if pending.plan.seals:
        pending.ledger.seal()
    pending.ledger.drop_plans(plan_id=pending.plan.plan_id)
