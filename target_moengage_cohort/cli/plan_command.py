"""`moengage-cohort plan`: what a run would do with a tap's output, and what that would cost."""

from __future__ import annotations

import logging
import sys
import textwrap
import typing as t

import click
import msgspec

from target_moengage_cohort.cli.session import DONE, configured, example
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten
from target_moengage_cohort.sync.wiring import wired

if t.TYPE_CHECKING:
    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.sync.cohorts import Settlement, SyncedCohort
    from target_moengage_cohort.sync.report import CohortReport
    from target_moengage_cohort.sync.run import Run

SOMETHING_TO_DO = 5
_COHORT_WIDTH = 21
_WIDTHS = (9, 9, 9, 9, 9, 8)


class CohortPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do for one cohort.

    Attributes:
        cohort_id: The cohort.
        cohort_name: Its name.
        stream: The stream that feeds it.
        sync_mode: How its records become changes.
        desired: How many members the input has; ``None`` where that is not what the input says.
        accepted: How many MoEngage has accepted; ``None`` without a ledger.
        to_add: How many would join.
        to_remove: How many would leave.
        unchanged: How many need no request.
        in_doubt: How many are in doubt.
        requests: How many requests a run would send now.
        bytes: The bytes of their bodies.
        minutes: How long they take at the rate limit.
        complete: What shows that the input is complete.
        verdict: What the guard says.
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
    short_help="Say what a run would do, and what that costs.",
    epilog=example(
        "tap-postgres --config tap.json --catalog catalog.json \\",
        "  | moengage-cohort plan --config config.json",
    ),
)
@configured
@click.option("--json", "as_json", is_flag=True, help="For programs: a list, one item a cohort.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 5 if there is something to do.")
def plan(session: Session, *, as_json: bool, detailed_exitcode: bool) -> int:
    """Say what a run would do with a tap's output on standard input; send and change nothing."""
    settings = msgspec.structs.replace(session.settings, dry_run=True, report_path=msgspec.UNSET)
    loaded = msgspec.structs.replace(session.loaded, settings=settings)
    logging.getLogger("target_moengage_cohort").setLevel(logging.ERROR)  # the table says it all
    with session.ledgers(read_only=True) as ledgers:
        running = wired(loaded, session.interrupt, ledgers)
        running.read(sys.stdin.buffer)
        running.finish()
    plans = _plans(running, settings.requests_per_minute)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(plans)))
    else:
        click.echo(_table(plans))
    something = any(each.to_add or each.to_remove for each in plans)
    return SOMETHING_TO_DO if something and detailed_exitcode else DONE


def _plans(running: Run, requests_per_minute: int) -> list[CohortPlan]:
    found = []
    for entry in running.report.cohorts if running.report is not None else ():
        destination = running.destinations.by_id.get(entry.cohort_id or "")
        if destination is not None:
            found.append(_plan(entry, destination, requests_per_minute))
    return sorted(found, key=lambda each: each.cohort_id)


def _plan(entry: CohortReport, destination: SyncedCohort, requests_per_minute: int) -> CohortPlan:
    settled = destination.settlement
    differs = settled.differs
    if settled.is_sealed:
        verdict = "sealed: nothing more is sent"
    elif differs is None:
        verdict = "no guard: the records say who leaves"
    else:
        verdict = "; ".join(_held_back(settled)) or "within the guard"
    return CohortPlan(
        cohort_id=destination.cohort.cohort_id,
        cohort_name=destination.cohort.name,
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
        verdict=verdict,
    )


def _held_back(settled: Settlement) -> t.Iterator[str]:
    """What would not be delivered at once, and why."""
    if settled.reason is not None:
        yield settled.reason if settled.plan_id is None else f"withheld: {settled.reason}"
    if settled.removals_waiting:
        yield f"{format_count(settled.removals_waiting, 'removal')} would wait for confirm"
    if settled.objection is not None:
        yield f"the guard would withhold them then: {settled.objection}"


def _table(plans: list[CohortPlan]) -> str:
    """A table of at most 80 columns: two lines a cohort, and one for all of them."""
    head = ("desired", "accepted", "add", "remove", "unchanged", "in doubt")
    lines = [_line("cohort", head)]
    for each in plans:
        counts = (
            each.desired,
            each.accepted,
            each.to_add,
            each.to_remove,
            each.unchanged,
            each.in_doubt,
        )
        cells = tuple("-" if count is None else str(count) for count in counts)
        cost = _cost(each.requests, each.bytes, each.minutes)
        lines += [_line(each.cohort_id, cells), *_wrapped(f"{cost}; {each.verdict}")]
    totals = [sum(part) for part in zip(*((p.requests, p.bytes) for p in plans), strict=True)]
    requests, size = totals or (0, 0)
    minutes = sum(each.minutes for each in plans)
    lines.append(f"in all {_cost(requests, size, minutes)}")
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="  ")


def _cost(requests: int, size: int, minutes: float) -> str:
    cost = f"{format_count(requests, 'request')}, {format_size(size)}"
    return f"{cost}, {format_minutes(minutes)} at the rate limit" if requests else cost


def _line(cohort_id: str, cells: tuple[str, ...]) -> str:
    name = shorten(cohort_id, _COHORT_WIDTH)
    numbers = (cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return " ".join((name.ljust(_COHORT_WIDTH), *numbers))
