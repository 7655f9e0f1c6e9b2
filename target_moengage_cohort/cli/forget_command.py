"""`moengage-cohort forget`: erases users who ask for it."""

from __future__ import annotations

import contextlib
import typing as t
from collections import defaultdict

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
from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.cli.operator_delivery import Batches
    from target_moengage_cohort.ledger.interface import CohortLedger, LedgerStore


@click.command(
    short_help="Remove users from all cohorts and erase them from the ledger.",
    epilog=example("moengage-cohort forget people.csv --config config.json"),
)
@click.argument("file", required=False, metavar="[FILE|-]")
@configured
def forget(session: Session, file: str | None) -> int:
    """Remove users from all cohorts of the partner, then erase them from the ledger.

    Reads identifiers from FILE (- is standard input): CSV with a header that has uid, anonymous_id
    or both, or one uid per line. Without FILE it prompts for them and hides what you type.
    List every identifier of each user. Remove the users from the warehouse first, or the next run
    adds them again. Files of rejected rows are not changed.
    """
    session.refuse_dry_run()
    batches = [_prompt()] if file is None else read_members(file, needs_header=False)
    members = [member for batch in batches for member in batch]
    identifiers = sum((each.uid is not None) + (each.anonymous_id is not None) for each in members)
    with session.ledgers() as ledgers:
        outcome = _Outcome(identifiers, [entry.cohort_id for entry in ledgers.entries()])
        _forget_in_ledgers(session, ledgers, members, outcome)
        if not outcome.left:
            _remove_without_ledger(session, ledgers, members, outcome)
        recorded = {entry.stream for entry in ledgers.entries()}
        removed = sum(outcome.removed.values())
        if outcome.recorded:  # else there may be no ledger to write to
            ledgers.note_action(
                "forget", identifiers=identifiers, erased=outcome.erased, removed=removed
            )
    mappings = session.config.mappings.values()
    # Streams that name their cohorts in their rows, none of which has a ledger
    unknown = [each.stream for each in mappings if not each.cohort and each.stream not in recorded]
    if not mappings:
        complain("no cohorts are configured, so cohorts without a ledger are unknown here")
    return _print_outcome(outcome, unknown)


class _Outcome(msgspec.Struct):
    """The results so far.

    Attributes:
        identifiers: How many were read.
        recorded: The cohorts that have a ledger.
        left: The cohorts not reached yet.
        removed: How many removals were accepted, by cohort.
        erased: How many ledgers contained any of the users.
        unrecorded: How many cohorts without a ledger were sent the removals.
        failures: Cohorts that may still have the users, and why.
    """

    identifiers: int
    recorded: list[str]
    left: list[str] = []
    removed: dict[str, int] = {}
    erased: int = 0
    unrecorded: int = 0
    failures: dict[str, TargetError] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether the latest failure would be the same for all other cohorts."""
        errors = list(self.failures.values())
        return bool(errors) and not isinstance(errors[-1], BusyError | InputError | LedgerError)

    def fail(self, cohort_ids: Iterable[str], error: TargetError) -> None:
        """Note that some cohorts may still have the users."""
        self.failures |= dict.fromkeys(cohort_ids, error)


def _forget_in_ledgers(
    session: Session, ledgers: LedgerStore, members: Sequence[Member], outcome: _Outcome
) -> None:
    """Remove users from the cohorts, one stream after the other, and erase them from its ledger."""
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for entry in ledgers.entries():
        streams[entry.stream].append(entry.cohort_id)
    outcome.left = outcome.recorded
    for cohort_ids in streams.values():
        if session.interrupt.is_set() or outcome.is_hopeless:
            return
        try:
            _forget_in_stream(session, ledgers, cohort_ids, members, outcome)
        except TargetError as error:
            outcome.fail(cohort_ids, error)
        outcome.left = [each for each in outcome.left if each not in cohort_ids]


def _forget_in_stream(
    session: Session,
    ledgers: LedgerStore,
    cohort_ids: Sequence[str],
    members: Sequence[Member],
    outcome: _Outcome,
) -> None:
    opened = [ledgers.open_known(cohort_id) for cohort_id in cohort_ids]
    with contextlib.closing(opened[0].stream) as stream:
        stored = {each.entry.cohort_id: _find(each, members) for each in opened}
        if any(stored.values()):
            with OperatorDelivery(session) as delivery:
                for ledger in opened:
                    if found := stored[ledger.entry.cohort_id]:
                        delivery.send(ledger, _removals(found))
                delivery.drain()
            for cohort_id, found in stored.items():
                if found and not delivery.is_accepted(cohort_id):
                    raise _stopped()
        found = [each for some in stored.values() for each in some]
        also = [Member(each.uid) if each.uid else each for each in found]
        # Even if none is stored: plans and deleted rows contain identifiers, too.
        had = stream.forget(list(dict.fromkeys([*members, *also])))
    outcome.removed |= {cohort_id: len(found) for cohort_id, found in stored.items() if found}
    outcome.erased += sum(1 for each in opened if each.number in had)


def _remove_without_ledger(
    session: Session, ledgers: LedgerStore, members: Sequence[Member], outcome: _Outcome
) -> None:
    """Remove users from the configured cohorts that have no ledger, whether they are in or not."""
    cohorts = (mapping.cohort for mapping in session.config.mappings.values())
    by_id = {
        cohort.cohort_id: cohort
        for cohort in cohorts
        if cohort is not None and not ledgers.has(cohort.cohort_id)
    }

    outcome.left = [*by_id]
    while outcome.left and not (session.interrupt.is_set() or outcome.is_hopeless):
        cohort_id = outcome.left[0]
        try:
            with OperatorDelivery(session) as delivery:
                delivery.send_unrecorded(by_id[cohort_id], _removals(members))
                delivery.drain()
            if not delivery.is_accepted(cohort_id):
                raise _stopped()
        except TargetError as error:
            outcome.fail([cohort_id], error)
        else:
            outcome.unrecorded += 1
        outcome.left.pop(0)


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


def _removals(members: Sequence[Member]) -> Batches:
    return ((Action.REMOVE, batch) for batch in _batches(members))


def _batches(members: Sequence[Member]) -> Iterator[Sequence[Member]]:
    return (members[at : at + BATCH_SIZE] for at in range(0, len(members), BATCH_SIZE))


def _stopped() -> TryAgainError:
    msg = "the removal was not accepted before the command was stopped"
    return TryAgainError("interrupted", msg)
