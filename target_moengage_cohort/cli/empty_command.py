"""`moengage-cohort empty`: remove everybody from a cohort."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.sending import Sending
from target_moengage_cohort.cli.session import DONE, Session, ask, configured, example, text
from target_moengage_cohort.core.membership import Action

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger import Ledger


@click.command(
    short_help="Remove everybody from a cohort.",
    epilog=example("moengage-cohort empty vip --config config.json"),
)
@click.argument("cohort", callback=text)
@click.option("--yes", is_flag=True, help="Ask no question.")
@configured
def empty(session: Session, cohort: str, *, yes: bool) -> int:
    """Remove everybody from a cohort who was accepted into it, or may have been.

    Plans for it are void then. The next run of its stream fills it again.
    """
    session.refuse_dry_run()
    if not yes:
        with session.ledgers(read_only=True) as ledgers:
            count = ledgers.open_known(cohort).numbers().base
        if count:
            ask(f"Remove {count:,} members from the cohort {cohort!r}?", yes=yes)
    with session.ledgers() as ledgers:
        ledger = ledgers.open_known(cohort)
        count = ledger.numbers().base
        ledger.drop_plans()
        if count:
            _remove_all(session, ledger)
        left = ledger.numbers().base
        note = "; it is sealed, so no run fills it again" if ledger.is_sealed else ""
    click.echo(f"cohort {cohort!r}: {count - left:,} of {count:,} removals accepted{note}")
    return DONE


def _remove_all(session: Session, ledger: Ledger) -> None:
    with Sending(session) as sending:
        sending.send(ledger, ((Action.REMOVE, members) for members in ledger.members()))
        sending.drain()
    ledger.fold()
