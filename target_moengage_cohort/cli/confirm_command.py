"""`moengage-cohort confirm`: a word that lets removals go."""

from __future__ import annotations

import click

from target_moengage_cohort.cli import confirmation as plans
from target_moengage_cohort.cli.session import (
    DONE,
    WITHHELD,
    Session,
    complain,
    configured,
    example,
    text,
)
from target_moengage_cohort.core.errors import SettingsError


@click.command(
    short_help="Let removals go that wait, or that the guard withholds.",
    epilog=example("moengage-cohort confirm users --config config.json"),
)
@click.argument("streams", callback=text, nargs=-1, metavar="STREAM...")
@click.option(
    "--withheld", callback=text, metavar="PLAN_ID", help="Override the guard for this plan."
)
@configured
def confirm(session: Session, streams: tuple[str, ...], withheld: str | None) -> int:
    """Say that the tap has succeeded, so that the removals that wait may go.

    For streams with `removals: deferred`: run this once their tap has exited with 0, within an
    hour. The guard still holds; what it withholds, --withheld lets go on your word.
    """
    if bool(streams) == (withheld is not None):
        msg = "give the streams that have succeeded, or --withheld and the id of one plan"
        raise click.UsageError(msg)
    if session.settings.dry_run:
        click.echo("dry_run is set: nothing is confirmed.")
        return DONE
    if withheld is not None:
        return _override(session, withheld)
    return _confirm(session, list(dict.fromkeys(streams)))


def _confirm(session: Session, streams: list[str]) -> int:
    with session.ledgers() as ledgers:
        tasks = plans.waiting(ledgers, streams, session.clock())
        due = [task for task in tasks if not _is_withheld(task)]
        _carry_out(session, due)
    return DONE if len(due) == len(tasks) else WITHHELD


def _is_withheld(task: plans.Task) -> bool:
    """Let the guard judge a plan; if it objects, withhold the plan and say so."""
    if (objection := plans.objection(task)) is None:
        return False
    task.ledger.withhold_plan(task.plan.plan_id)
    complain(
        f"cohort {task.cohort_id!r}: {objection}; withheld. If it is right, override the guard "
        f"with: moengage-cohort confirm --withheld {task.plan.plan_id} --config …"
    )
    return True


def _override(session: Session, plan_id: str) -> int:
    cohort_id = plans.withheld(session, plan_id)
    with session.ledgers() as ledgers:
        ledger = ledgers.open_known(cohort_id)
        found = [plan for plan in ledger.plans() if plan.plan_id == plan_id]
        tasks = [plans.Task(ledger, plan) for plan in found]
        if not tasks or tasks[0].is_outdated:
            msg = (
                f"cohort {cohort_id!r}: the cohort has changed since plan {plan_id} was withheld; "
                "run its stream again, and override what is withheld then"
            )
            raise SettingsError(msg)
        _carry_out(session, tasks)
    return DONE


def _carry_out(session: Session, tasks: list[plans.Task]) -> None:
    left = list(tasks)

    def done(task: plans.Task) -> None:
        left.remove(task)
        counts = {"additions": task.plan.additions, "removals": task.plan.removals}
        told = [f"{count:,} {what} accepted" for what, count in counts.items() if count]
        click.echo(f"cohort {task.cohort_id!r}: {', '.join(told) or 'there is nothing to remove'}")

    try:
        plans.carry_out(session, tasks, done)
    finally:
        for task in left:
            complain(f"cohort {task.cohort_id!r}: not all was accepted; run its stream again")
