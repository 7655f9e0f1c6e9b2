"""`moengage-cohort forget`: a person wants to be erased."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.command import DONE, FAILED, Session, complain, configured
from target_moengage_cohort.cli.identifiers import read_members
from target_moengage_cohort.cli.sending import Sending
from target_moengage_cohort.errors import (
    BusyError,
    InputError,
    LedgerError,
    TargetError,
    TryAgainError,
)
from target_moengage_cohort.membership import Action, Member

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger import Ledger, Ledgers

_AT_ONCE = 10_000


@click.command()
@click.argument("file", required=False, metavar="[FILE|-]")
@configured
def forget(session: Session, file: str | None) -> int:
    """Remove people from all cohorts of the partner, then erase them from the ledger.

    Ids come from FILE (- is standard input): CSV with a header that has uid, anonymous_id or
    both, or one uid a line. Without FILE you are asked, and nothing is shown of what you type.
    Name every identifier of a person. Take them out of the warehouse first, else the next run
    adds them again. Files of rejected rows are yours to clean.
    """
    session.refuse_dry_run()
    members = _asked() if file is None else _read(file)
    touched = 0
    failures: dict[str, TargetError] = {}
    with session.ledgers() as ledgers:
        entries = ledgers.entries()
        left = [entry.cohort_id for entry in entries]
        while left and not session.interrupt.is_set():
            try:
                touched += _forget(session, ledgers, left[0], members)
            except (BusyError, InputError, LedgerError) as error:  # of this cohort alone
                failures[left[0]] = error
            except TargetError as error:
                failures[left[0]] = error
                break
            left.pop(0)
    repeat = list(dict.fromkeys([*failures, *left]))
    click.echo(f"{len(members)} members were named")
    click.echo(
        f"{len(entries) - len(repeat)} of {len(entries)} ledgers hold nothing of them any more; "
        f"{touched} cohorts had some of them"
    )
    for cohort_id in repeat:
        why = failures.get(cohort_id, "not reached")
        complain(f"cohort {cohort_id!r}: {why}; repeat this command for it")
    if not repeat:
        return DONE
    is_busy = all(isinstance(failures.get(cohort_id), BusyError) for cohort_id in repeat)
    return BusyError.exit_code if is_busy else FAILED


def _asked() -> list[Member]:
    """Have a person type a member's identifiers, unseen."""
    uid, anonymous_id = (
        click.prompt(
            f"{what} (not shown; empty if there is none)",
            hide_input=True,
            default="",
            show_default=False,
            err=True,
        )
        for what in ("User ID", "Anonymous ID")
    )
    if not (uid or anonymous_id):
        msg = "neither a user ID nor an anonymous ID was given"
        raise InputError(msg)
    return [Member(uid or None, anonymous_id or None)]


def _read(file: str) -> list[Member]:
    return [member for members in read_members(file, needs_header=False) for member in members]


def _forget(session: Session, ledgers: Ledgers, cohort_id: str, members: Sequence[Member]) -> bool:
    """Have a cohort forget members; return whether it had any of them.

    Raises:
        TargetError: It may not have forgotten all of them.
    """
    ledger = ledgers.open_known(cohort_id)
    try:
        found = _found(ledger, members)
        if found:
            _remove(session, ledger, found)
        ledger.forget([*members, *found])  # even then: plans and deleted rows hold ids, too
    finally:
        ledger.close()
    return bool(found)


def _found(ledger: Ledger, members: Sequence[Member]) -> list[Member]:
    """Who shares an identifier with them, or with one of those who do, and so on."""
    found: dict[Member, None] = {}
    while members:
        met = {
            member: None
            for start in range(0, len(members), _AT_ONCE)
            for member in ledger.find(members[start : start + _AT_ONCE])
        }
        members = [member for member in met if member not in found]
        found |= met
    return list(found)


def _remove(session: Session, ledger: Ledger, found: Sequence[Member]) -> None:
    with Sending(session) as sending:
        batches = (found[start : start + _AT_ONCE] for start in range(0, len(found), _AT_ONCE))
        sending.send(ledger, ((Action.REMOVE, batch) for batch in batches))
        sending.drain()
    if not sending.is_accepted(ledger):
        msg = "the removal was not accepted before the command was stopped"
        raise TryAgainError(msg)
