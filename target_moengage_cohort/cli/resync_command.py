"""`moengage-cohort resync`: makes the next run send all members again."""

from __future__ import annotations

import click

from target_moengage_cohort.cli.empty_command import known_members
from target_moengage_cohort.cli.session import Session, reporting
from target_moengage_cohort.cli.terminal import ask, example, require_utf8
from target_moengage_cohort.core.text import format_count


@click.command(epilog=example("moengage-cohort resync vip --config config.json"))
@click.argument("cohorts", callback=require_utf8, nargs=-1, metavar="[COHORT]...")
@click.option("--yes", is_flag=True, help="Do not prompt for confirmation (only without a COHORT).")
@reporting
def resync(session: Session, cohorts: tuple[str, ...], *, yes: bool) -> None:
    """Re-send all members on the next run.

    Without a COHORT, those of all cohorts. Use it if MoEngage may have lost data. A mirror sends
    the members that are still in its stream and removes the others; any other stream sends all
    accepted members.
    """
    session.refuse_dry_run()
    chosen = list(dict.fromkeys(cohorts))
    if not chosen:
        with session.ledgers(read_only=True) as ledgers:
            entries = [each for each in ledgers.entries() if each.has_members]
            chosen = [each.cohort_id for each in entries if not each.is_retired]
        if not chosen:
            click.echo(f"No ledgers for partner {session.settings.partner!r} in {ledgers.place}.")
            return
        if not yes:
            ask(f"Re-send all members of {format_count(len(chosen), 'cohort')}?")
    with session.ledgers() as ledgers:
        for cohort_id in chosen:  # change nothing unless every ledger is there and free
            known_members(ledgers, cohort_id)
        for cohort_id in chosen:
            if session.interrupt.is_set():
                break
            ledger = ledgers.open_known(cohort_id)
            count = ledger.doubt_all()
            ledgers.note_action("resync", ledger.entry, members=count)
            session.report.note(ledger.entry, in_doubt=count)
            click.echo(f"cohort {cohort_id!r}: {format_count(count, 'member')} to be sent again")
