"""`moengage-cohort resync`: send everything again."""

from __future__ import annotations

import click

from target_moengage_cohort.cli.session import DONE, Session, ask, configured, example, text


@click.command(
    short_help="Let the next run send everybody again.",
    epilog=example("moengage-cohort resync vip --config config.json"),
)
@click.argument("cohorts", callback=text, nargs=-1, metavar="[COHORT]...")
@click.option(
    "--yes", is_flag=True, help="Ask no question (one is asked only if no COHORT is named)."
)
@configured
def resync(session: Session, cohorts: tuple[str, ...], *, yes: bool) -> int:
    """Let the next run send every member of these cohorts again; without a COHORT, of all.

    For when MoEngage may have lost something. A mirror sends who is still in its stream, and
    removes who is not; every other stream sends all that was accepted.
    """
    session.refuse_dry_run()
    chosen = list(dict.fromkeys(cohorts))
    if not chosen:
        with session.ledgers(read_only=True) as ledgers:
            chosen = [entry.cohort_id for entry in ledgers.entries()]
            folder = ledgers.folder
        if not chosen:
            click.echo(f"No cohort of this partner has a ledger in {folder}.")
            return DONE
        ask(f"Send all members of {len(chosen):,} cohorts again in the next run?", yes=yes)
    with session.ledgers() as ledgers:
        for cohort_id in chosen:  # all of them are there and free, or nothing is done
            ledgers.open_known(cohort_id)
        for cohort_id in chosen:
            if session.interrupt.is_set():
                break
            ledger = ledgers.open_known(cohort_id)
            count = ledger.doubt_all()
            click.echo(f"cohort {cohort_id!r}: {count:,} members to be sent again")
    return DONE
