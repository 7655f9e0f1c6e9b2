"""Plans that were not carried out: which of them may be now; and how that is done."""

from __future__ import annotations

import shlex
import typing as t

import msgspec

from target_moengage_cohort.cli.sending import Sending
from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger import CohortEntry, Ledger, Plan, PlanKind
from target_moengage_cohort.sync.mirror.guard import guard

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger import Ledgers

LONGEST_WAIT_SECONDS = 3_600


class Task(msgspec.Struct, frozen=True):
    """A plan, and the ledger of its cohort."""

    ledger: Ledger
    plan: Plan

    @property
    def cohort_id(self) -> str:
        """The cohort's."""
        return self.ledger.entry.cohort_id

    @property
    def is_outdated(self) -> bool:
        """Whether the cohort has changed since the plan was made."""
        return self.plan.revision != self.ledger.revision


def waiting(ledgers: Ledgers, streams: Sequence[str], now: float) -> list[Task]:
    """What waits for the confirmation of some streams, all of it fit to be carried out.

    Args:
        ledgers: The destination's; those of the streams' cohorts are opened.
        streams: The streams.
        now: Seconds since 1970.

    Raises:
        BusyError: Another process has one of the ledgers.
        SettingsError: Nothing waits for a stream, or what waits must not be carried out; with a
            message for each fault.
    """
    entries = ledgers.entries()
    tasks: list[Task] = []
    faults: list[str] = []
    for stream in streams:
        fed = [ledgers.open_known(each.cohort_id) for each in entries if each.stream == stream]
        found = [
            Task(ledger, plan)
            for ledger in fed
            for plan in ledger.plans()
            if plan.kind is PlanKind.WAITING and not ledgers.is_void(plan)
        ]
        # A one_time that is done has nothing more to confirm, and that is no fault.
        if not found and not any(ledger.is_sealed for ledger in fed):
            faults.append(_nothing_waits(ledgers, stream))
        faults += [fault for task in found for fault in _faults(task, now)]
        tasks += found
    if faults:
        raise SettingsError.combine(map(SettingsError, faults))
    return tasks


def _nothing_waits(ledgers: Ledgers, stream: str) -> str:
    entries = ledgers.entries()
    feeding = {entry.cohort_id: entry.stream for entry in entries}.get(stream)
    # Not where it is a stream, too: confirming another one's removals would be worse.
    if feeding is not None and all(entry.stream != stream for entry in entries):
        return (
            f"nothing waits for the stream {stream!r} in {ledgers.folder}; it is the id of a "
            f"cohort, which the stream {feeding!r} feeds: did you mean "
            f"moengage-cohort confirm {shlex.quote(feeding)}?"
        )
    return (
        f"nothing waits for the stream {stream!r} in {ledgers.folder}; its latest run "
        "must have had removals: deferred, this ledger, and an input without any fault"
    )


def _faults(task: Task, now: float) -> Iterator[str]:
    where = f"cohort {task.cohort_id!r}, stream {task.plan.stream!r}"
    age = now - task.plan.made_at
    if abs(age) > LONGEST_WAIT_SECONDS:
        when = f"was worked out {age / 60:.0f} minutes ago"
        if age < 0:
            when = "was worked out in the future, by this machine's clock,"
        yield (
            f"{where}: what waits {when} and must be confirmed within an hour; run the stream again"
        )
    if task.is_outdated:
        yield f"{where}: the cohort has changed since; run the stream again"


def withheld(session: Session, plan_id: str) -> str:
    """The id of the cohort that has a withheld plan.

    Raises:
        SettingsError: None.
        TargetError: Perhaps one whose ledger cannot be read now.
    """
    known: list[str] = []
    unread: TargetError | None = None
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        folder = ledgers.folder
        for entry in ledgers.entries():
            try:
                found = _withheld_of(ledgers, entry)
            except TargetError as error:  # another cohort's may be the one
                unread = unread or error
                continue
            if plan_id in found:
                return entry.cohort_id
            known += found
    if unread is not None:
        raise unread
    listed = "nothing is; see moengage-cohort status"
    if known:
        listed = f"withheld are {', '.join(sorted(known))}; give one of these"
    msg = f"no plan {plan_id!r} is withheld in {folder}; {listed}"
    raise SettingsError(msg)


def _withheld_of(ledgers: Ledgers, entry: CohortEntry) -> list[str]:
    ledger = ledgers.open_known(entry.cohort_id)
    try:
        return [plan.plan_id for plan in ledger.plans() if plan.kind is PlanKind.WITHHELD]
    finally:
        ledger.close()


def objection(task: Task) -> str | None:
    """Why the guard holds a plan's removals back although it was confirmed, if it does."""
    plan = task.plan
    return guard(
        base=plan.base,
        removals=plan.removals,
        desired=plan.desired,
        max_removal_percent=plan.max_removal_percent,
        proven=True,
    )


def carry_out(session: Session, tasks: Sequence[Task], done: t.Callable[[Task], None]) -> None:
    """Have plans delivered; not all of them if the command is interrupted.

    Args:
        session: The command.
        tasks: The plans.
        done: Called for each one of which all was accepted, and which is gone from its ledger.

    Raises:
        TargetError: A request has failed for good, or a ledger.
    """
    due = [task for task in tasks if task.plan.additions or task.plan.removals]
    for task in tasks:
        if task not in due:
            _finish(task, [])
            done(task)
    if not due:
        return
    siblings = [_siblings(task) for task in due]
    sending = Sending(session)
    try:
        with sending:
            for task in due:
                sending.send(task.ledger, _batches(task))
            sending.drain()
    finally:
        for task, others in zip(due, siblings, strict=True):
            if sending.is_accepted(task.cohort_id):
                _finish(task, others)
                done(task)


def _siblings(task: Task) -> list[str]:
    """The other half of what a run worked out for the cohort, which this half does not touch."""
    return [
        plan.plan_id
        for plan in task.ledger.plans()
        if plan.plan_id != task.plan.plan_id
        and (plan.run_id, plan.revision) == (task.plan.run_id, task.plan.revision)
    ]


def _batches(task: Task) -> Iterator[tuple[Action, Sequence[Member]]]:
    for action in (Action.REMOVE, Action.ADD):  # as in a run: the addition has the last word
        for members in task.ledger.plan_members(task.plan.plan_id, action):
            yield action, members


def _finish(task: Task, siblings: Sequence[str]) -> None:
    task.ledger.fold()
    for plan_id in siblings:
        task.ledger.renew_plan(plan_id)
    if task.plan.seals:
        task.ledger.seal()
    task.ledger.drop_plans(plan_id=task.plan.plan_id)
