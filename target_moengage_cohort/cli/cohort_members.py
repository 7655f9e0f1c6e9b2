"""The members of a cohort that a command is about."""

from __future__ import annotations

import contextlib
import itertools
import typing as t

import click

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.terminal import ask, complain
from target_moengage_cohort.core.commands import EXAMPLE_CSV, suggest
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.interface import LedgerStore


@contextlib.contextmanager
def prepared(
    session: Session, cohort: str, *, yes: bool
) -> Iterator[tuple[LedgerStore, CohortLedger]]:
    """Ask whether to remove all members of a cohort, then open its ledger."""
    session.refuse_dry_run()
    if not yes:
        with session.ledgers(read_only=True) as ledgers:
            count = known_members(ledgers, cohort).numbers().base
        if count:
            ask(f"Remove {format_count(count, 'member')} from cohort {cohort!r}?")
    with session.ledgers() as ledgers:
        yield ledgers, known_members(ledgers, cohort)


def known_members(ledgers: LedgerStore, cohort: str) -> CohortLedger:
    """Open the ledger of a cohort; raise a `SettingsError` if its members are not kept."""
    for entry in ledgers.entries():
        if entry.cohort_id == cohort and not entry.has_members:
            command = suggest("adopt", cohort, "--csv", EXAMPLE_CSV)
            msg = (
                f"cohort {cohort!r}: the ledger does not keep the members of stream "
                f"{entry.stream!r}, so they are unknown. Import them first: {command}"
            )
            raise SettingsError("members_unknown", msg)
    return ledgers.open_known(cohort)


def cohorts_with_members(session: Session) -> list[str]:
    """Return the partner's cohorts whose members are kept, without retired ones; print if none."""
    with session.ledgers(read_only=True) as ledgers:
        entries = [each for each in ledgers.entries() if each.has_members and not each.is_retired]
    if not entries:
        click.echo(f"No ledgers for partner {session.settings.partner!r} in {ledgers.place}.")
    return [each.cohort_id for each in entries]


def remove_all(session: Session, ledgers: LedgerStore, ledger: CohortLedger, kind: str) -> int:
    """Remove all members of a cohort, as an action of a kind; return how many are left."""
    if ledger.entry.is_partial:
        command = suggest("adopt", ledger.entry.cohort_id, "--csv", EXAMPLE_CSV)
        complain(
            f"cohort {ledger.entry.cohort_id!r}: members that were added before the ledger kept "
            f"them are removed only if you import them first: {command}"
        )
    count = ledger.numbers().base
    ledger.drop_plans()
    try:
        chunks = itertools.chain(ledger.members(), ledger.aliases())
        removals = ((Action.REMOVE, members) for members in chunks)
        OperatorDelivery(session).deliver([(ledger, removals)])
    finally:
        left = ledger.numbers().base
        session.report.note(ledger.entry, accepted=ledger.entry.counts.accepted)
        status = "failed" if left else "succeeded"
        ledgers.note_action(kind, ledger.entry, status=status, members=count, removed=count - left)
    cohort_id = ledger.entry.cohort_id
    click.echo(f"cohort {cohort_id!r}: {count - left:,} of {count:,} removals accepted")
    return left
