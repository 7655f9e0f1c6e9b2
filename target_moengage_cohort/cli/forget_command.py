"""`moengage-cohort forget`: a person wants to be erased."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.identifiers import read_members
from target_moengage_cohort.cli.sending import Sending
from target_moengage_cohort.cli.session import DONE, FAILED, Session, complain, configured, example
from target_moengage_cohort.core.errors import (
    BusyError,
    InputError,
    LedgerError,
    TargetError,
    TryAgainError,
)
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger import Ledger, Ledgers

_AT_ONCE = 10_000


@click.command(
    short_help="Remove people from all cohorts, and erase them here.",
    epilog=example("moengage-cohort forget people.csv --config config.json"),
)
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
    identifiers = sum((each.uid is not None) + (each.anonymous_id is not None) for each in members)
    with session.ledgers() as ledgers:
        done = _Done(identifiers, [entry.cohort_id for entry in ledgers.entries()])
        done.left = [*done.kept]
        _forget_kept(session, ledgers, members, done)
        if not done.left:
            _forget_unkept(session, _unkept(session, ledgers), members, done)
        unknown = _unknown(session, ledgers)
    if not session.loaded.mappings:
        complain("no cohorts are configured here, so those without a ledger are not known")
    return _told(done, unknown)


class _Done(msgspec.Struct):
    """How far it is.

    Attributes:
        identifiers: How many were read.
        kept: The cohorts that have a ledger.
        left: Cohorts that were not reached yet.
        removed: How many removals were accepted, by cohort.
        erased: How many ledgers had anything of them.
        unkept: How many cohorts without a ledger were told to remove them.
        failures: Cohorts that may still have them, each with why.
    """

    identifiers: int
    kept: list[str]
    left: list[str] = []
    removed: dict[str, int] = {}
    erased: int = 0
    unkept: int = 0
    failures: dict[str, TargetError] = {}


def _forget_kept(
    session: Session, ledgers: Ledgers, members: Sequence[Member], done: _Done
) -> None:
    while done.left and not session.interrupt.is_set():
        cohort_id = done.left[0]
        try:
            removed, was_known = _forget(session, ledgers, cohort_id, members)
            if removed:
                done.removed[cohort_id] = removed
            done.erased += was_known
        except (BusyError, InputError, LedgerError) as error:  # of this cohort alone
            done.failures[cohort_id] = error
        except TargetError as error:
            done.failures[cohort_id] = error
            return
        done.left.pop(0)


def _forget_unkept(
    session: Session, cohorts: Sequence[Cohort], members: Sequence[Member], done: _Done
) -> None:
    """Remove members from cohorts of which nobody knows who is in them; it does no harm."""
    done.left = [cohort.cohort_id for cohort in cohorts]
    for cohort in cohorts:
        if session.interrupt.is_set():
            return
        try:
            _remove(session, cohort, members)
            done.unkept += 1
        except InputError as error:  # of this cohort alone
            done.failures[cohort.cohort_id] = error
        except TargetError as error:
            done.failures[cohort.cohort_id] = error
            return
        done.left.pop(0)


def _told(done: _Done, unknown: Sequence[str]) -> int:
    """Say what was done, and what is left to do; return the exit code."""
    repeat = list(dict.fromkeys([*done.failures, *done.left]))
    for cohort_id, removed in done.removed.items():
        click.echo(f"cohort {cohort_id!r}: {format_count(removed, 'removal')} accepted")
    clean = len(set(done.kept) - set(repeat))
    click.echo(
        f"{format_count(done.identifiers, 'identifier')} read; erased from "
        f"{format_count(done.erased, 'ledger')}; {clean:,} of {len(done.kept):,} hold nothing of "
        "them any more"
    )
    if done.kept and clean == len(done.kept) and not done.erased:
        click.echo(
            "nobody of them was known in any ledger; compare the identifiers to the character"
        )
    if done.unkept:
        told = format_count(done.unkept, "cohort")
        click.echo(f"{told} without a ledger told to remove them, whether they are in it or not")
    for stream in unknown:
        complain(
            f"stream {stream!r}: it names its cohorts itself and they have no ledger, so they are "
            "not known here; let the stream remove these people from them"
        )
    for cohort_id in repeat:
        why = done.failures.get(cohort_id, "not reached")
        complain(f"cohort {cohort_id!r}: {why}; repeat this command for it")
    if not repeat:
        return FAILED if unknown else DONE
    is_busy = all(isinstance(done.failures.get(cohort_id), BusyError) for cohort_id in repeat)
    return BusyError.exit_code if is_busy else FAILED


def _unkept(session: Session, ledgers: Ledgers) -> list[Cohort]:
    """The cohorts that the configuration names and that have no ledger."""
    named = (mapping.cohort for mapping in session.loaded.mappings.values())
    return [cohort for cohort in named if cohort is not None and not ledgers.has(cohort.cohort_id)]


def _unknown(session: Session, ledgers: Ledgers) -> list[str]:
    """The streams that name their cohorts themselves, and none of these has a ledger."""
    kept = {entry.stream for entry in ledgers.entries()}
    return [
        mapping.stream
        for mapping in session.loaded.mappings.values()
        if mapping.cohort is None and mapping.stream not in kept
    ]


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
        msg = "neither a user ID nor an anonymous ID was given; type one, or name a file"
        raise InputError(msg)
    return [Member(uid or None, anonymous_id or None)]


def _read(file: str) -> list[Member]:
    return [member for members in read_members(file, needs_header=False) for member in members]


def _forget(
    session: Session, ledgers: Ledgers, cohort_id: str, members: Sequence[Member]
) -> tuple[int, bool]:
    """Have a cohort forget members.

    Returns:
        How many removals were accepted, and whether its ledger had anything of them.

    Raises:
        TargetError: It may not have forgotten all of them.
    """
    ledger = ledgers.open_known(cohort_id)
    try:
        found = _found(ledger, members)
        if found:
            _remove(session, ledger, found)
        uids = [Member(member.uid) for member in found if member.uid is not None]
        # Even if none was found: plans and deleted rows hold ids, too.
        was_known = ledger.forget([*members, *uids])
    finally:
        ledger.close()
    return len(found), was_known


def _found(ledger: Ledger, members: Sequence[Member]) -> list[Member]:
    """Who has one of their identifiers; nobody else who merely shares another one with these."""
    pages = (members[start : start + _AT_ONCE] for start in range(0, len(members), _AT_ONCE))
    return list(dict.fromkeys(member for page in pages for member in ledger.find(page)))


def _remove(session: Session, whose: Ledger | Cohort, found: Sequence[Member]) -> None:
    pages = (found[start : start + _AT_ONCE] for start in range(0, len(found), _AT_ONCE))
    batches = ((Action.REMOVE, page) for page in pages)
    with Sending(session) as sending:
        if isinstance(whose, Cohort):
            cohort_id = whose.cohort_id
            sending.send_unrecorded(whose, batches)
        else:
            cohort_id = whose.entry.cohort_id
            sending.send(whose, batches)
        sending.drain()
    if not sending.is_accepted(cohort_id):
        msg = "the removal was not accepted before the command was stopped"
        raise TryAgainError(msg)
