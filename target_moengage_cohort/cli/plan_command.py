"""`moengage-cohort plan`: shows what a run would do with a tap's output."""

from __future__ import annotations

import logging
import sys
import typing as t

import click
import msgspec

from target_moengage_cohort.cli.session import DONE, Session, configured, show
from target_moengage_cohort.cli.terminal import example, wrap
from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten
from target_moengage_cohort.sync.process import open_run

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.sync.cohorts import SettlementResult, SyncedCohort
    from target_moengage_cohort.sync.report import CohortReport
    from target_moengage_cohort.sync.run import Run

SOMETHING_TO_DO = 5
_COHORT_WIDTH = 21
_WIDTHS = (9, 9, 9, 9, 9, 8)


class CohortPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that a run would make to one cohort.

    Attributes:
        desired: Members in the input; ``None`` if the input is not the whole cohort.
        accepted: Members that MoEngage has accepted; ``None`` without a ledger.
        unchanged: Members that need no request.
        in_doubt: Members whose last request got no answer.
        requests: Requests that a run would send now.
        bytes: The bytes of their bodies.
        minutes: How long they take at the rate limit.
        complete: The proof that the input is complete.
        verdict: The guard's decision.
    """

    cohort_id: str
    cohort_name: str
    stream: str
    sync_mode: str
    desired: int | None
    accepted: int | None
    to_add: int
    to_remove: int
    unchanged: int
    in_doubt: int
    requests: int
    bytes: int
    minutes: float
    complete: str
    verdict: str


@click.command(
    epilog=example(
        "tap-postgres --config tap.json --catalog catalog.json \\",
        "  | moengage-cohort plan --config config.json",
    ),
)
@configured
@click.option("--json", "as_json", is_flag=True, help="Output JSON, one item per cohort.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 5 if there are changes.")
def plan(session: Session, *, as_json: bool, detailed_exitcode: bool) -> int:
    """Show what a run would do and how many requests it would take.

    Reads a tap's output from standard input. Sends nothing and changes nothing.
    """
    settings = msgspec.structs.replace(session.settings, dry_run=True, report_path=None)
    config = msgspec.structs.replace(session.config, settings=settings)
    logging.getLogger("target_moengage_cohort").setLevel(logging.ERROR)  # the table has it all
    busy: BusyError | None = None
    with session.ledgers(read_only=True) as ledgers:
        running = open_run(config, session.interrupt, ledgers)
        running.read(sys.stdin.buffer)
        try:
            running.finish()
        except BusyError as error:  # of some streams; the table has the others
            busy = error
    plans = _plans(running, settings.requests_per_minute)
    show(plans, _table(plans), as_json=as_json)
    if busy is not None:
        raise busy
    has_changes = any(each.to_add or each.to_remove for each in plans)
    return SOMETHING_TO_DO if has_changes and detailed_exitcode else DONE


def _plans(running: Run, requests_per_minute: int) -> list[CohortPlan]:
    plans = [
        _plan(entry, cohort, requests_per_minute)
        for entry in (running.report.cohorts if running.report is not None else ())
        if (cohort := running.cohorts.by_id.get(entry.cohort_id or "")) is not None
    ]
    return sorted(plans, key=lambda each: each.cohort_id)


def _plan(entry: CohortReport, synced: SyncedCohort, requests_per_minute: int) -> CohortPlan:
    differs = synced.result.differs
    return CohortPlan(
        cohort_id=synced.cohort.cohort_id,
        cohort_name=synced.cohort.name,
        stream=entry.stream,
        sync_mode=entry.sync_mode,
        desired=None if entry.desired is None else entry.desired.count,
        accepted=None if entry.accepted is None else entry.accepted.count,
        to_add=entry.added if differs is None else differs.additions,
        to_remove=entry.removed if differs is None else differs.removals,
        unchanged=entry.unchanged,
        in_doubt=entry.in_doubt,
        requests=entry.requests,
        bytes=entry.bytes,
        minutes=round(entry.requests / requests_per_minute, 2),
        complete=entry.complete.value,
        verdict=_decision(synced.result),
    )


def _decision(result: SettlementResult) -> str:
    if result.is_sealed:
        return "sealed: nothing more is sent"
    if result.differs is None:
        return "no guard: the records define the removals"
    return "; ".join(_held_back(result)) or "within the guard"


def _held_back(result: SettlementResult) -> Iterator[str]:
    """Describe the changes that a run would not deliver itself."""
    if result.reason is not None:
        is_incomplete = result.plan_id is None
        yield result.reason if is_incomplete else f"withheld: {result.reason}"
    if result.removals_waiting:
        yield f"{format_count(result.removals_waiting, 'removal')} would wait for confirm"
    if result.objection is not None:
        yield f"the guard would then withhold them: {result.objection}"


def _table(plans: Sequence[CohortPlan]) -> Iterator[str]:
    """Return a table of at most 80 columns: two lines per cohort, and the total."""
    yield _row("cohort", ("desired", "accepted", "add", "remove", "unchanged", "in doubt"))
    for row in plans:
        counts = row.desired, row.accepted, row.to_add, row.to_remove, row.unchanged, row.in_doubt
        yield _row(row.cohort_id, ["-" if count is None else str(count) for count in counts])
        effort = _effort(row.requests, row.bytes, row.minutes)
        yield wrap(f"{effort}; {row.verdict}", first="  ", indent="  ")
    total = _effort(
        sum(each.requests for each in plans),
        sum(each.bytes for each in plans),
        sum(each.minutes for each in plans),
    )
    yield f"total: {total}"


def _effort(requests: int, size: int, minutes: float) -> str:
    effort = f"{format_count(requests, 'request')}, {format_size(size)}"
    return f"{effort}, {format_minutes(minutes)} at the rate limit" if requests else effort


def _row(cohort_id: str, cells: Sequence[str]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return " ".join((shorten(cohort_id, _COHORT_WIDTH).ljust(_COHORT_WIDTH), *numbers))
