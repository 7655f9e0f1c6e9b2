"""The alerts of `confirm`, which releases withheld changes or withholds pending ones."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.cli.terminal import release_command
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.sync.paused_streams import paused_error
from target_moengage_cohort.sync.reporting.alert_states import State, StreamOutcome
from target_moengage_cohort.sync.reporting.alerting import Alerting

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry, Plan


def refuse_paused(session: Session, ledgers: LedgerStore, streams: Iterable[str]) -> None:
    """Raise an error if any stream is paused: schedules also run `confirm`."""
    for stream in streams:
        if (error := paused_error(ledgers, stream)) is not None:
            session.report.status = "withheld"
            raise error


def tell_released(session: Session, ledgers: LedgerStore, stream: str) -> None:
    """Send the alert that a stream no longer has withheld changes."""
    if not _is_open(ledgers, stream):
        _tell(session, ledgers, [StreamOutcome(stream=stream, state=State.OK)], State.WITHHELD)


def tell_confirmed(
    session: Session,
    ledgers: LedgerStore,
    streams: Iterable[str],
    withheld: Sequence[tuple[CohortEntry, Plan]],
) -> None:
    """Send alerts about confirmed streams, and about those with a plan that the guard withheld."""
    outcomes = {
        entry.stream: StreamOutcome(
            stream=entry.stream,
            state=State.WITHHELD,
            cohort_id=entry.cohort_id,
            code="plan_withheld",
            reason=f"the guard withheld {format_count(plan.removals, 'confirmed removal')}",
            command=release_command(plan.plan_id),
            removals_withheld=plan.removals,
        )
        for entry, plan in withheld
    }
    for stream in streams:
        if stream not in outcomes and not _is_open(ledgers, stream):
            outcomes[stream] = StreamOutcome(stream=stream, state=State.OK)
    _tell(session, ledgers, [*outcomes.values()])


def _is_open(ledgers: LedgerStore, stream: str) -> bool:
    """Return whether any plan of a stream is still to be delivered."""
    plans = ledgers.plans()
    return any(
        plan.kind is not PlanKind.REPLACED and not ledgers.is_void(plan)
        for entry in ledgers.entries(stream)
        for plan in plans.get(entry.number, ())
    )


def _tell(
    session: Session,
    ledgers: LedgerStore,
    outcomes: Sequence[StreamOutcome],
    only: State | None = None,
) -> None:
    if not session.interrupt.is_set():
        alerting = Alerting(session.settings, ledgers, session.head.run_id, session.clock)
        session.report.alerts = alerting.tell(outcomes, only)
