"""`moengage-cohort forget`: erases users who ask for it."""

from __future__ import annotations

import contextlib
import typing as t
from collections import defaultdict
from functools import partial

import click
import msgspec

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import DONE, FAILED, Session, reporting
from target_moengage_cohort.cli.terminal import ask_hidden, complain, example
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import (
    BusyError,
    InputError,
    LedgerError,
    TargetError,
    TryAgainError,
)
from target_moengage_cohort.core.member_lists import BATCH_SIZE, read_members
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger, CohortRecord
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry

_SHOWN = 50  # cohorts with a line of their own


@click.command(epilog=example("moengage-cohort forget people.csv --config config.json"))
@click.argument("file", required=False, metavar="[FILE|-]")
@reporting
def forget(session: Session, file: str | None) -> int:
    """Remove users from all cohorts and erase them from the ledger.

    Reads identifiers from FILE (- is standard input): a CSV with a header row that contains uid,
    anonymous_id or both, or one uid per line. Without FILE, prompts for the identifiers of one user
    and hides the input. List every identifier of each user. Remove the users from the warehouse
    first; otherwise the next run adds them again. Files of rejected rows are not changed.

    The removals are sent to every cohort that is configured or has a ledger, including retired
    ones, whether or not the ledger contains the users.
    """
    session.refuse_dry_run()
    batches = [_prompt()] if file is None else read_members(file, needs_header=False)
    members = _each_identifier(member for batch in batches for member in batch)
    mappings = session.config.mappings.values()
    with session.ledgers() as ledgers:
        entries = ledgers.entries()
        outcome = _Outcome([entry.cohort_id for entry in entries if entry.has_members])
        steps: list[tuple[list[str], Callable[[], object]]] = []
        for cohort_ids in _by_stream(entries).values():
            work = partial(_forget_in_stream, session, ledgers, cohort_ids, members, outcome)
            steps.append((cohort_ids, work))
        for entry in entries:
            if not entry.has_members:
                work = partial(_remove_unrecorded, session, ledgers, entry, members, outcome)
                steps.append(([entry.cohort_id], work))
        for cohort in (each.cohort for each in mappings):
            if cohort is not None and not ledgers.has(cohort.cohort_id):
                work = partial(_remove, session, [(cohort, members)], outcome)
                steps.append(([cohort.cohort_id], work))
        _carry_out(session, steps, outcome)
        _report_unfinished(session, outcome, entries)
        if outcome.recorded:  # else there may be no ledger to write to
            ledgers.note_action(
                "forget",
                status="failed" if outcome.unfinished else "succeeded",
                identifiers=len(members),
                erased=outcome.erased,
                removed=sum(outcome.accepted.values()),
            )
    if not mappings:
        complain("no cohorts are configured, so no removals were sent to cohorts without a ledger")
    _print_outcome(outcome, len(members))
    # Streams whose rows name their cohorts, none of which is known
    known = {entry.stream for entry in entries}
    unknown = [each.stream for each in mappings if not each.cohort and each.stream not in known]
    if unknown:
        session.note_error(_unknown_cohorts(unknown, file))
    return _exit_code(outcome, unknown)


class _Outcome(msgspec.Struct):
    """The results so far."""

    recorded: list[str]  # the cohorts whose members the ledger keeps
    accepted: dict[str, int] = {}  # how many removals MoEngage accepted, by cohort
    erased: int = 0  # how many ledgers contained any of the users
    unfinished: dict[str, TargetError | str] = {}  # why cohorts may still have the users


def _each_identifier(members: Iterable[Member]) -> list[Member]:
    """Return a member for each identifier, once.

    MoEngage looks for the uid first, so that a pair reaches no member who was added by the
    anonymous ID alone; and a pair might tell MoEngage that the two are one user.
    """
    singles = (
        single
        for member in members
        for single in (Member(member.uid), Member(None, member.anonymous_id))
        if single.uid or single.anonymous_id
    )
    return list(dict.fromkeys(singles))


def _by_stream(entries: Iterable[CohortEntry]) -> dict[str, list[str]]:
    """Return the cohorts whose members the ledger keeps, by the stream that populates them."""
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.has_members:
            streams[entry.stream].append(entry.cohort_id)
    return streams


def _carry_out(
    session: Session, steps: list[tuple[list[str], Callable[[], object]]], outcome: _Outcome
) -> None:
    """Process the cohorts until a step fails for a reason that would also stop all others."""
    cohort_ids = [cohort_id for cohort_ids, _ in steps for cohort_id in cohort_ids]
    outcome.unfinished = dict.fromkeys(cohort_ids, "not processed")
    for cohort_ids, work in steps:
        if session.interrupt.is_set():
            return
        try:
            work()
        except TargetError as error:
            outcome.unfinished |= dict.fromkeys(cohort_ids, error)
            if not isinstance(error, BusyError | InputError | LedgerError):
                return
        else:
            for cohort_id in cohort_ids:
                del outcome.unfinished[cohort_id]


def _report_unfinished(session: Session, outcome: _Outcome, entries: Sequence[CohortEntry]) -> None:
    """Note in the report the cohorts that may still have the users, and one reason."""
    owners: dict[str, Cohort | CohortEntry] = {entry.cohort_id: entry for entry in entries}
    for mapping in session.config.mappings.values():
        if (cohort := mapping.cohort) is not None:
            owners.setdefault(cohort.cohort_id, cohort)
    for cohort_id in outcome.unfinished:
        session.report.note(owners[cohort_id], "failed")
    for reason in outcome.unfinished.values():
        if isinstance(reason, TargetError):
            session.note_error(reason)
            return


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
        known = {ledger.number: _find(ledger, members) for ledger in opened}
        also = (Member(m.uid) if m.uid else m for found in known.values() for m in found)
        everyone = list(dict.fromkeys([*members, *also]))
        # Before the removals, which leave a trace of everyone.
        had = stream.cohorts_with(everyone)
        # Known members are removed by the identifiers that they were added with.
        orders = [
            (ledger, list({each.key: each for each in [*members, *known[ledger.number]]}.values()))
            for ledger in opened
        ]
        _remove(session, orders, outcome)
        stream.forget(everyone)
    outcome.erased += sum(1 for each in opened if each.number in had)


def _remove_unrecorded(
    session: Session,
    ledgers: LedgerStore,
    entry: CohortEntry,
    members: Sequence[Member],
    outcome: _Outcome,
) -> None:
    """Remove users from a cohort whose members are unknown."""
    owner: Cohort | CohortRecord = entry.cohort
    if not entry.is_retired:  # else it has no record that may be opened
        owner = ledgers.open_without_members(entry.cohort, entry.stream)
    _remove(session, [(owner, members)], outcome)
    ledgers.erase_changes(entry.stream, members)


def _remove(
    session: Session,
    orders: Sequence[tuple[Cohort | CohortRecord, Sequence[Member]]],
    outcome: _Outcome,
) -> None:
    """Remove members from cohorts; raise `TryAgainError` unless all removals are accepted."""
    removals = (
        (owner, ((Action.REMOVE, batch) for batch in _batches(found))) for owner, found in orders
    )
    if not OperatorDelivery(session).deliver(removals):
        msg = "the removal was not accepted before the command was stopped"
        raise TryAgainError("interrupted", msg)
    for owner, found in orders:
        cohort = owner if isinstance(owner, Cohort) else owner.entry.cohort
        outcome.accepted[cohort.cohort_id] = len(found)


def _unknown_cohorts(streams: Sequence[str], file: str | None) -> TargetError:
    """Print that the cohorts of some streams are unknown; return the error, which is the same."""
    several = len(streams) > 1
    msg = (
        f"{'streams' if several else 'stream'} {', '.join(map(repr, streams))}: the rows name the "
        "cohorts, but the ledger contains none of these cohorts, so no removals were sent to them. "
        f"Sync {'these streams' if several else 'this stream'} once with this ledger, then run: "
        f"{suggest('forget', file or '')}"
    )
    complain(msg)
    return InputError("cohorts_unknown", msg)


def _exit_code(outcome: _Outcome, unknown: Sequence[str]) -> int:
    """Return the exit code: that of a busy stream only if there is no other reason."""
    reasons = outcome.unfinished.values()
    if reasons and not unknown and all(isinstance(each, BusyError) for each in reasons):
        return BusyError.exit_code
    return FAILED if reasons or unknown else DONE


def _print_outcome(outcome: _Outcome, identifiers: int) -> None:
    """Print the results and the remaining work."""
    accepted = list(outcome.accepted.items())
    for cohort_id, removals in accepted[:_SHOWN]:
        click.echo(f"cohort {cohort_id!r}: {format_count(removals, 'removal')} accepted")
    if len(accepted) > _SHOWN:
        click.echo(f"... and {format_count(len(accepted) - _SHOWN, 'more cohort')}")
    cohorts = len(accepted) + sum(each not in outcome.accepted for each in outcome.unfinished)
    click.echo(
        f"Read {format_count(identifiers, 'identifier')}. MoEngage accepted the removals from "
        f"{len(accepted):,} of {format_count(cohorts, 'cohort')}; it does not report whether it "
        "knew the users."
    )
    remaining = sum(cohort_id in outcome.unfinished for cohort_id in outcome.recorded)
    click.echo(
        f"Erased from {outcome.erased:,} of {format_count(len(outcome.recorded), 'ledger')}; "
        f"{f'{remaining:,} may still contain' if remaining else 'none of the ledgers contains'} "
        "them now."
    )
    if outcome.recorded and not remaining and not outcome.erased:
        click.echo(
            "None of these identifiers was found in any ledger; check that they match exactly."
        )
    for cohort_id, reason in outcome.unfinished.items():
        complain(f"cohort {cohort_id!r}: {reason}; run this command again to remove the users")
    click.echo("If the warehouse still contains these users, the next run adds them again.")


def _prompt() -> list[Member]:
    """Prompt for the identifiers of one user, hiding the input."""
    uid, anonymous_id = (
        ask_hidden(f"{name} (hidden; leave empty if there is none)")
        for name in ("User ID", "Anonymous ID")
    )
    if not (uid or anonymous_id):
        msg = "neither a user ID nor an anonymous ID was entered; enter one of them, or use FILE"
        raise InputError("no_identifiers", msg)
    return [Member(uid or None, anonymous_id or None)]


def _find(ledger: CohortLedger, members: Sequence[Member]) -> list[Member]:
    """Return the ledger's members that these identify, not those that share another identifier."""
    stored = (member for batch in _batches(members) for member in ledger.find(batch))
    return list(dict.fromkeys(stored))


def _batches(members: Sequence[Member]) -> Iterator[Sequence[Member]]:
    return (members[at : at + BATCH_SIZE] for at in range(0, len(members), BATCH_SIZE))
