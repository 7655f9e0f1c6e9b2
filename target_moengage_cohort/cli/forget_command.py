"""`moengage-cohort forget`: erases users who ask for it."""

from __future__ import annotations

import contextlib
import typing as t
from collections import defaultdict
from functools import partial

import click
import msgspec

from target_moengage_cohort.cli.identifiers import BATCH_SIZE, read_members
from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured
from target_moengage_cohort.cli.terminal import complain, example
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
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.ledger.interface import CohortLedger, LedgerStore


@click.command(epilog=example("moengage-cohort forget people.csv --config config.json"))
@click.argument("file", required=False, metavar="[FILE|-]")
@configured
def forget(session: Session, file: str | None) -> int:
    """Remove users from all cohorts and erase them from the ledger.

    Reads identifiers from FILE (- is standard input): CSV with a header that has uid, anonymous_id
    or both, or one uid per line. Without FILE it prompts for them and hides what you type.
    List every identifier of each user. Remove the users from the warehouse first, or the next run
    adds them again. Files of rejected rows are not changed.
    """
    session.refuse_dry_run()
    batches = [_prompt()] if file is None else read_members(file, needs_header=False)
    members = [member for batch in batches for member in batch]
    identifiers = sum((each.uid is not None) + (each.anonymous_id is not None) for each in members)
    mappings = session.config.mappings.values()
    with session.ledgers() as ledgers:
        entries = ledgers.entries()
        outcome = _Outcome(identifiers, [entry.cohort_id for entry in entries])
        steps = list(_steps(session, ledgers, members, outcome))
        outcome.left = [cohort_id for cohort_ids, _ in steps for cohort_id in cohort_ids]
        for cohort_ids, work in steps:
            if session.interrupt.is_set() or outcome.is_hopeless:
                break
            try:
                work()
            except TargetError as error:
                outcome.failures |= dict.fromkeys(cohort_ids, error)
            outcome.left = outcome.left[len(cohort_ids) :]
        if entries:  # else there may be no ledger to write to
            removed = sum(outcome.removed.values())
            ledgers.note_action(
                "forget", identifiers=identifiers, erased=outcome.erased, removed=removed
            )
    # Streams that name their cohorts in their rows, none of which has a ledger
    recorded = {entry.stream for entry in entries}
    unknown = [each.stream for each in mappings if not each.cohort and each.stream not in recorded]
    if not mappings:
        complain("no cohorts are configured, so cohorts without a ledger are unknown here")
    return _print_outcome(outcome, unknown)


class _Outcome(msgspec.Struct):
    """The results so far."""

    identifiers: int  # how many were read
    recorded: list[str]  # the cohorts that have a ledger
    left: list[str] = []  # the cohorts not reached yet
    removed: dict[str, int] = {}  # how many removals were accepted, by cohort
    erased: int = 0  # how many ledgers contained any of the users
    unrecorded: int = 0  # how many cohorts without a ledger were sent the removals
    failures: dict[str, TargetError] = {}  # cohorts that may still have the users, and why

    @property
    def is_hopeless(self) -> bool:
        """Whether the latest failure would be the same for all other cohorts."""
        errors = list(self.failures.values())
        return bool(errors) and not isinstance(errors[-1], BusyError | InputError | LedgerError)


def _steps(
    session: Session, ledgers: LedgerStore, members: Sequence[Member], outcome: _Outcome
) -> Iterator[tuple[list[str], Callable[[], None]]]:
    """Return the cohorts of each stream, then each one without a ledger, and the work on them."""
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for entry in ledgers.entries():
        streams[entry.stream].append(entry.cohort_id)
    for cohort_ids in streams.values():
        work = partial(_forget_in_stream, session, ledgers, cohort_ids, members, outcome)
        yield cohort_ids, work
    for mapping in session.config.mappings.values():
        if (cohort := mapping.cohort) is not None and not ledgers.has(cohort.cohort_id):
            work = partial(_remove_without_ledger, session, cohort, members, outcome)
            yield [cohort.cohort_id], work


def _forget_in_stream(
    session: Session,
    ledgers: LedgerStore,
    cohort_ids: Sequence[str],
    members: Sequence[Member],
    outcome: _Outcome,
) -> None:
    """Remove users from the cohorts of a stream, and erase them from its ledger."""
    opened = [ledgers.open_known(cohort_id) for cohort_id in cohort_ids]
    with contextlib.closing(opened[0].stream) as stream:
        stored = [(ledger, found) for ledger in opened if (found := _find(ledger, members))]
        if stored:
            _remove(session, stored)
        uids = [Member(each.uid) for _, found in stored for each in found if each.uid]
        # Even if none is stored: plans and deleted rows contain identifiers, too.
        had = stream.forget(list(dict.fromkeys([*members, *uids])))
    outcome.removed |= {ledger.entry.cohort_id: len(found) for ledger, found in stored}
    outcome.erased += sum(1 for each in opened if each.number in had)


def _remove_without_ledger(
    session: Session, cohort: Cohort, members: Sequence[Member], outcome: _Outcome
) -> None:
    """Remove users from a configured cohort that has no ledger, whether they are in or not."""
    _remove(session, [(cohort, members)])
    outcome.unrecorded += 1


def _remove(
    session: Session, orders: Sequence[tuple[Cohort | CohortLedger, Sequence[Member]]]
) -> None:
    """Remove members from cohorts; raise `TryAgainError` unless all removals are accepted."""
    removals = (
        (owner, ((Action.REMOVE, batch) for batch in _batches(found))) for owner, found in orders
    )
    if not OperatorDelivery(session).deliver(removals):
        msg = "the removal was not accepted before the command was stopped"
        raise TryAgainError("interrupted", msg)


def _print_outcome(outcome: _Outcome, unknown: Sequence[str]) -> int:
    """Print the results and the remaining work; return the exit code."""
    unfinished = list(dict.fromkeys([*outcome.failures, *outcome.left]))
    for cohort_id, removed in outcome.removed.items():
        click.echo(f"cohort {cohort_id!r}: {format_count(removed, 'removal')} accepted")
    remaining = len(set(outcome.recorded) & set(unfinished))
    click.echo(
        f"Read {format_count(outcome.identifiers, 'identifier')}. Erased from {outcome.erased:,} "
        f"of {format_count(len(outcome.recorded), 'ledger')}; "
        f"{f'{remaining:,} may still contain' if remaining else 'none of the ledgers contains'} "
        "them now."
    )
    if outcome.recorded and not remaining and not outcome.erased:
        click.echo(
            "None of these identifiers was found in any ledger; check that they match exactly."
        )
    if outcome.unrecorded:
        cohorts = format_count(outcome.unrecorded, "cohort")
        click.echo(f"Sent the removals to {cohorts} without a ledger, whose members are unknown.")
    for stream in unknown:
        complain(
            f"stream {stream!r}: its rows name its cohorts, which have no ledger and are unknown "
            "here; let the stream remove these users from them"
        )
    for cohort_id in unfinished:
        reason = outcome.failures.get(cohort_id, "not reached")
        complain(f"cohort {cohort_id!r}: {reason}; repeat this command for it")
    if not unfinished:
        return FAILED if unknown else DONE
    is_busy = all(isinstance(outcome.failures.get(each), BusyError) for each in unfinished)
    return BusyError.exit_code if is_busy else FAILED


def _prompt() -> list[Member]:
    """Prompt for the identifiers of one user, hiding the input."""
    uid, anonymous_id = (
        click.prompt(
            f"{name} (hidden; leave empty if there is none)",
            hide_input=True,
            default="",
            show_default=False,
            err=True,
        )
        for name in ("User ID", "Anonymous ID")
    )
    if not (uid or anonymous_id):
        msg = "neither a user ID nor an anonymous ID was entered; enter one, or name a file"
        raise InputError("no_identifiers", msg)
    return [Member(uid or None, anonymous_id or None)]


def _find(ledger: CohortLedger, members: Sequence[Member]) -> list[Member]:
    """Return the ledger's members that these identify, not those that share another identifier."""
    stored = (member for batch in _batches(members) for member in ledger.find(batch))
    return list(dict.fromkeys(stored))


def _batches(members: Sequence[Member]) -> Iterator[Sequence[Member]]:
    return (members[at : at + BATCH_SIZE] for at in range(0, len(members), BATCH_SIZE))
