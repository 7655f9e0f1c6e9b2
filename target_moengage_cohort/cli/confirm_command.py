"""`moengage-cohort confirm`: sends removals that await confirmation."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.confirmation import (
    PendingPlan,
    deliver,
    find_withheld,
    pending_plans,
)
from target_moengage_cohort.cli.session import DONE, WITHHELD, Session, configured
from target_moengage_cohort.cli.terminal import complain, example, release_command, require_utf8
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.sync.mirror.guard import guard

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import LedgerStore


@click.command(
    short_help="Send pending or withheld removals.",
    epilog=example("moengage-cohort confirm users --config config.json"),
)
@click.argument("streams", callback=require_utf8, nargs=-1, metavar="STREAM...")
@click.option(
    "--withheld", callback=require_utf8, metavar="PLAN_ID", help="Override the guard for this plan."
)
@configured
def confirm(session: Session, streams: tuple[str, ...], withheld: str | None) -> int:
    """Confirm that the tap succeeded, and send the pending removals of its streams.

    For streams with `removals: deferred`: run this within an hour after their tap has exited with
    0. The guard still applies; --withheld sends what it withholds.
    """
    if bool(streams) == (withheld is not None):
        msg = "give the streams whose tap succeeded, or --withheld and the ID of one plan"
        raise click.UsageError(msg)
    if session.settings.dry_run:
        click.echo("dry_run is set: nothing is confirmed.")
        return DONE
    if withheld is not None:
        return _override(session, withheld)
    with session.ledgers() as ledgers:
        plans = pending_plans(ledgers, list(dict.fromkeys(streams)), session.clock())
        allowed = [pending for pending in plans if not _is_withheld(pending)]
        _deliver(session, ledgers, allowed)
    return DONE if len(allowed) == len(plans) else WITHHELD


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
        f"cohort {pending.cohort_id!r}: {objection}; withheld. If the removals are intended, run: "
        f"{release_command(plan.plan_id)}"
    )
    return True


def _override(session: Session, plan_id: str) -> int:
    cohort_id = find_withheld(session, plan_id)
    with session.ledgers() as ledgers:
        ledger = ledgers.open_known(cohort_id)
        plans = [PendingPlan(ledger, plan) for plan in ledger.plans() if plan.plan_id == plan_id]
        if not plans or plans[0].is_outdated:
            msg = (
                f"cohort {cohort_id!r}: the cohort has changed since plan {plan_id} was withheld; "
                "run its stream again, then override the new plan"
            )
            raise SettingsError("plan_outdated", msg)
        _deliver(session, ledgers, plans)
    return DONE


def _deliver(session: Session, ledgers: LedgerStore, plans: list[PendingPlan]) -> None:
    """Deliver plans, and print which of them were accepted."""
    left = list(plans)

    def report(pending: PendingPlan) -> None:
        left.remove(pending)
        additions, removals = pending.plan.additions, pending.plan.removals
        counts = {"addition": additions, "removal": removals}
        parts = [f"{format_count(count, noun)} accepted" for noun, count in counts.items() if count]
        click.echo(f"cohort {pending.cohort_id!r}: {', '.join(parts) or 'no removals to send'}")
        entry = pending.ledger.entry
        ledgers.note_action("confirm", entry, additions=additions, removals=removals)

    try:
        deliver(session, plans, report)
    finally:
        for pending in left:
            complain(
                f"cohort {pending.cohort_id!r}: not all changes were accepted; run its stream again"
            )
