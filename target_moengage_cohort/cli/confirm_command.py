"""`moengage-cohort confirm`: sends removals that await confirmation."""

from __future__ import annotations

import time
import typing as t

import click
import msgspec

from target_moengage_cohort.cli.confirm_alerts import refuse_paused, tell_confirmed, tell_released
from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import DONE, Session, reporting
from target_moengage_cohort.cli.terminal import complain, example, release_command, require_utf8
from target_moengage_cohort.cli.withheld_plans import find_withheld, released_by, withheld_plans
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, SettingsError, WithheldError
from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.core.text import format_age, format_count
from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.sync.exclusions import Exclusions
from target_moengage_cohort.sync.mirror.guard import guard
from target_moengage_cohort.sync.outcome import withheld_exit
from target_moengage_cohort.sync.paused_streams import paused_error

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.interface import LedgerStore

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
        """Whether the cohort has changed, or newer rows were read, since the plan was made."""
        return self.plan.replaced_at > 0 or self.plan.revision != self.ledger.revision


@click.command(epilog=example("moengage-cohort confirm users --config config.json"))
@click.argument("streams", callback=require_utf8, nargs=-1, metavar="STREAM...")
@click.option(
    "--withheld", callback=require_utf8, metavar="PLAN_ID", help="Override the guard for this plan."
)
@reporting
def confirm(session: Session, streams: tuple[str, ...], withheld: str | None) -> int:
    """Send pending or withheld removals.

    For streams with `removals: deferred`: confirms that the tap succeeded, and sends the pending
    removals. Run it within an hour after the tap has exited with 0. The guard still applies.

    --withheld sends the changes of a plan that the guard withheld. If the stream has been read
    again since, it approves the plan's removals for the next run instead.
    """
    if bool(streams) == (withheld is not None):
        msg = "specify either the streams whose tap succeeded, or --withheld with a plan ID"
        raise click.UsageError(msg)
    if session.settings.dry_run:
        click.echo("dry_run is set; nothing was confirmed.")
        session.report.status = "dry_run"
        return DONE
    with session.ledgers() as ledgers:
        if withheld is not None:
            _release(session, ledgers, withheld)
            return DONE
        refuse_paused(session, ledgers, streams)
        plans = _find_pending(ledgers, list(dict.fromkeys(streams)), session.clock())
        allowed = [pending for pending in plans if not _is_withheld(pending)]
        for each in plans:
            if each not in allowed:
                _note_withheld(session, each)
        _deliver(session, ledgers, allowed)
        withheld_now = [(each.ledger.entry, each.plan) for each in plans if each not in allowed]
        tell_confirmed(session, ledgers, streams, withheld_now)
    return DONE if len(allowed) == len(plans) else withheld_exit(session.settings)


def _note_withheld(session: Session, pending: PendingPlan) -> None:
    """Note in the report that the guard withholds a plan."""
    plan, session.report.status = pending.plan, "withheld"
    facts = {"plan_id": plan.plan_id, "removals_withheld": plan.removals}
    session.report.note(pending.ledger.entry, "withheld", **facts)


def _release(session: Session, ledgers: LedgerStore, plan_id: str) -> None:
    """Send a withheld plan; approve it for the next run if it is outdated, or its stream busy."""
    entry, plan = find_withheld(ledgers, plan_id)
    refuse_paused(session, ledgers, [entry.stream])
    if plan.kind is PlanKind.WITHHELD:
        try:
            ledger = ledgers.open_known(entry.cohort_id)
        except BusyError:
            if session.interrupt.is_set() or not plan.removals:
                raise
        else:
            pending = [
                PendingPlan(ledger, each) for each in ledger.plans() if each.plan_id == plan_id
            ]
            if pending and not pending[0].is_outdated:
                _deliver(session, ledgers, pending)
                tell_released(session, ledgers, entry.stream)
                return
    if (until := ledgers.approve(entry, plan)) is None:
        msg = (
            f"cohort {entry.cohort_id!r}: the cohort has changed since plan {plan_id} was withheld"
        )
        raise SettingsError("plan_outdated", f"{msg}; {released_by(withheld_plans(ledgers))}")
    ledgers.note_action("approve", entry, status="approved", removals=plan.removals)
    when = time.strftime("%H:%M UTC tomorrow", time.gmtime(until))
    removals = format_count(plan.removals, "removal")
    click.echo(
        f"cohort {entry.cohort_id!r}: {removals} approved for the next run; the approval expires "
        f"at {when}"
    )


def _find_pending(ledgers: LedgerStore, streams: Sequence[str], now: float) -> list[PendingPlan]:
    """Open the ledgers of some streams, and return the plans that await `confirm`.

    It is an error if any stream has no pending plan, or one that must not be delivered `now`, in
    seconds since 1970.
    """
    entries = ledgers.entries()
    plans: list[PendingPlan] = []
    faults: list[SettingsError] = []
    for stream in streams:
        known = [each for each in entries if each.stream == stream and each.has_members]
        opened = [ledgers.open_known(each.cohort_id) for each in known]
        kept = [PendingPlan(ledger, plan) for ledger in opened for plan in ledger.plans()]
        waiting = [each for each in kept if each.plan.kind is PlanKind.WAITING]
        pending = [each for each in waiting if not ledgers.is_void(each.plan)]
        # A finished one_time cohort has nothing left to confirm, which is not a fault.
        if not pending and not any(ledger.is_sealed for ledger in opened):
            faults.append(_nothing_pending(ledgers, stream, kept))
        faults += [fault for each in pending for fault in _faults(each, now)]
        plans += pending
    SettingsError.raise_any(faults)
    return plans


def _nothing_pending(
    ledgers: LedgerStore, stream: str, kept: Sequence[PendingPlan]
) -> SettingsError:
    owners = {entry.cohort_id: entry.stream for entry in ledgers.entries()}
    hint = (
        "its latest run must have used this ledger and removals: deferred, and must have read its "
        "whole input without errors"
    )
    # No such hint if a stream has that name, too: its removals are not those of the cohort.
    if stream in owners and stream not in owners.values():
        hint = (
            f"this is the ID of a cohort of stream {owners[stream]!r}. Did you mean: "
            f"{suggest('confirm', owners[stream])}"
        )
    for each in kept:
        if each.plan.kind is PlanKind.WITHHELD and not each.is_outdated:
            hint += (
                f". Plan {each.plan.plan_id} is withheld by the guard; if its changes are "
                f"intended, run: {release_command(each.plan.plan_id)}"
            )
    msg = f"no removals are pending for stream {stream!r} in {ledgers.place}; {hint}"
    return SettingsError("nothing_pending", msg)


def _faults(pending: PendingPlan, now: float) -> Iterator[SettingsError]:
    where = f"cohort {pending.cohort_id!r}, stream {pending.plan.stream!r}"
    age = now - pending.plan.made_at
    if abs(age) > MAX_AGE_SECONDS:
        future = "in the future according to this machine's clock,"
        when = format_age(age) if age > 0 else future
        yield SettingsError(
            "plan_expired",
            f"{where}: the pending removals were computed {when} and must be confirmed within an "
            "hour; run the stream again",
        )
    if pending.is_outdated:
        msg = f"{where}: the cohort has changed since the last run; run the stream again"
        yield SettingsError("plan_outdated", msg)


def _is_withheld(pending: PendingPlan) -> bool:
    """Check a plan against the guard; if it exceeds it, withhold the plan and print why."""
    plan = pending.plan
    objection = guard(
        base=plan.base,
        removals=plan.leaving,
        desired=plan.desired,
        max_removal_percent=plan.max_removal_percent,
        proven=True,
    )
    if objection is None:
        return False
    pending.ledger.withhold_plan(plan.plan_id)
    complain(
        f"cohort {pending.cohort_id!r}: withheld, because {objection}. If the removals are "
        f"intended, run: {release_command(plan.plan_id)}"
    )
    return True


def _deliver(session: Session, ledgers: LedgerStore, plans: list[PendingPlan]) -> None:
    """Deliver plans, and print which of them were accepted; not all are if interrupted."""
    siblings = [_siblings(each) for each in plans]
    streams = {each.cohort_id: each.plan.stream for each in plans}
    delivery = OperatorDelivery(
        session, lambda cohort: paused_error(ledgers, streams[cohort.cohort_id])
    )
    exclusions = Exclusions(session.settings.exclude_path)
    exclusions.load()
    for each in plans:
        if each.plan.removals:
            each.ledger.doubt_resent(each.plan.plan_id)
    try:
        delivery.deliver((each.ledger, _batches(each, exclusions)) for each in plans)
    except WithheldError:
        session.report.status = "withheld"
        raise
    finally:
        for each, others in zip(plans, siblings, strict=True):
            if delivery.is_accepted(each.cohort_id):
                _finish(ledgers, each, others)
                accepted = each.ledger.numbers().accepted
                entry, plan_id = each.ledger.entry, each.plan.plan_id
                session.report.note(entry, plan_id=plan_id, accepted=accepted)
            else:
                left = "not all changes were accepted; run the stream again"
                complain(f"cohort {each.cohort_id!r}: {left}")


def _siblings(pending: PendingPlan) -> list[str]:
    """Return the other plans of the same run and cohort: delivering this one keeps them valid."""
    return [
        plan.plan_id
        for plan in pending.ledger.plans()
        if plan.plan_id != pending.plan.plan_id
        and (plan.run_id, plan.revision) == (pending.plan.run_id, pending.plan.revision)
    ]


def _batches(
    pending: PendingPlan, exclusions: Exclusions
) -> Iterator[tuple[Action, Sequence[Member]]]:
    """Yield the changes of a plan, without additions of members that are excluded by now."""
    for action in (Action.REMOVE, Action.ADD):  # as in a run: the addition must come last
        for members in pending.ledger.plan_members(pending.plan.plan_id, action):
            yield action, exclusions.without(members) if action is Action.ADD else members


def _finish(ledgers: LedgerStore, pending: PendingPlan, siblings: Sequence[str]) -> None:
    """Drop a fully accepted plan from its ledger, and print the accepted changes."""
    ledger, plan = pending.ledger, pending.plan
    ledger.stream.fold()
    for plan_id in siblings:
        ledger.renew_plan(plan_id)
    if plan.seals:
        ledger.seal()
    ledger.drop_plans(plan_id=plan.plan_id)
    run = ledger.entry.last_run
    if run is not None and run.run_id == plan.run_id and run.status != "failed" and not siblings:
        ledgers.note_confirmed(pending.cohort_id, plan.made_at)
    counts = {"addition": plan.additions, "removal": plan.removals}
    parts = [f"{format_count(count, noun)} accepted" for noun, count in counts.items() if count]
    click.echo(f"cohort {pending.cohort_id!r}: {', '.join(parts) or 'no removals to send'}")
    ledgers.note_action("confirm", ledger.entry, additions=plan.additions, removals=plan.removals)
