"""`moengage-cohort empty`: removes all members from a cohort."""

from __future__ import annotations

import click

from target_moengage_cohort.cli.cohort_members import prepared, remove_all
from target_moengage_cohort.cli.session import Session, reporting
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.commands import suggest


@click.command(epilog=example("moengage-cohort empty vip --config config.json"))
@click.argument("cohort", callback=require_utf8)
@click.option("--yes", is_flag=True, help="Do not prompt for confirmation.")
@reporting
def empty(session: Session, cohort: str, *, yes: bool) -> None:
    """Remove all members from a cohort.

    Removes accepted and unconfirmed members, and discards the cohort's plans. The next run of its
    stream populates the cohort again.
    """
    with prepared(session, cohort, yes=yes) as (ledgers, ledger):
        remove_all(session, ledgers, ledger, "empty")
        end = suggest("ledger", "retire", cohort)
        stream = ledger.entry.stream
        after = f"the next run of stream {stream!r} populates it again; to retire it, run: {end}"
        if ledger.is_sealed:
            after = "it is finished, so no run populates it again"
        click.echo(f"cohort {cohort!r}: {after}")
