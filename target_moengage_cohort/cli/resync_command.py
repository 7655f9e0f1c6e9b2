"""`moengage-cohort resync`: sends all members again, or the latest removals."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.cohort_members import cohorts_with_members, known_members
from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import FAILED, Session, reporting
from target_moengage_cohort.cli.terminal import ask, example, require_utf8
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.interface import LedgerStore


@click.command(
    epilog=example(
        "moengage-cohort resync vip --config config.json",
        "moengage-cohort resync --removals vip --config config.json",
    )
)
@click.argument("cohorts", callback=require_utf8, nargs=-1, metavar="[COHORT]...")
@click.option("--removals", is_flag=True, help="Re-send the latest removals now, nothing else.")
@click.option("--yes", is_flag=True, help="Do not prompt for confirmation (only without a COHORT).")
@reporting
def resync(session: Session, cohorts: tuple[str, ...], *, removals: bool, yes: bool) -> int | None:
    """Re-send all members on the next run, or the latest removals now.

    Without COHORT, applies to all cohorts. Use it if MoEngage may have lost data. A mirror re-sends
    the members that are still in its stream and removes the others; any other stream re-sends all
    accepted members.

    With --removals, re-sends all unconfirmed removals and the latest 3,000 removals of each cohort,
    except for members that have been added again.
    """
    session.refuse_dry_run()
    chosen = list(dict.fromkeys(cohorts))
    if not chosen:
        if not (chosen := cohorts_with_members(session)):
            return None
        what = "the latest removals" if removals else "all members"
        if not yes:
            ask(f"Re-send {what} of {format_count(len(chosen), 'cohort')}?")
    with session.ledgers() as ledgers:
        for cohort_id in chosen:  # change nothing unless every ledger is there and free
            known_members(ledgers, cohort_id)
        opened = map(ledgers.open_known, chosen)
        if removals:
            return _remove_again(session, ledgers, [*opened])
        _doubt(session, ledgers, opened)
    return None


def _doubt(session: Session, ledgers: LedgerStore, opened: Iterator[CohortLedger]) -> None:
    """Mark all members of cohorts as unconfirmed."""
    for ledger in opened:
        if session.interrupt.is_set():
            break
        count = ledger.doubt_all()
        ledgers.note_action("resync", ledger.entry, members=count)
        session.report.note(ledger.entry, in_doubt=count)
        members = format_count(count, "member")
        click.echo(f"cohort {ledger.entry.cohort_id!r}: the next run re-sends {members}")


def _remove_again(
    session: Session, ledgers: LedgerStore, opened: Sequence[CohortLedger]
) -> int | None:
    """Send the removals of cohorts that the ledger has; return the exit code."""
    delivery = OperatorDelivery(session)
    counts = dict.fromkeys((ledger.entry.cohort_id for ledger in opened), 0)

    def batches(ledger: CohortLedger) -> Iterator[tuple[Action, list[Member]]]:
        for members in _removals(ledger):
            counts[ledger.entry.cohort_id] += len(members)
            yield Action.REMOVE, members

    try:
        is_done = delivery.deliver([(ledger, batches(ledger)) for ledger in opened])
    finally:
        for ledger in opened:
            count = counts[ledger.entry.cohort_id]
            is_accepted = delivery.is_accepted(ledger.entry.cohort_id)
            status = "succeeded" if is_accepted else "failed"
            ledgers.note_action(
                "resync_removals", ledger.entry, status=status, removals_resent=count
            )
            removals = format_count(count, "removal")
            ending = "accepted" if is_accepted else "sent, but not all of them were accepted"
            click.echo(f"cohort {ledger.entry.cohort_id!r}: {removals} {ending}")
    return None if is_done else FAILED


def _removals(ledger: CohortLedger) -> Iterator[list[Member]]:
    """Yield the members to remove again: the kept removals, and the unconfirmed ones."""
    kept, doubts = ledger.kept_removals(), ledger.doubts()  # as of now, before any is accepted
    yield from kept
    for chunk in doubts:
        if members := [member for action, member in chunk if action is Action.REMOVE]:
            yield members
