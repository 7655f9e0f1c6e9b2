"""`moengage-cohort plan`: shows what a run would do with a tap's output."""

from __future__ import annotations

import contextlib
import sys
import typing as t

import click
import msgspec

from target_moengage_cohort.cli.new_files import member_file
from target_moengage_cohort.cli.plan_markdown import markdown
from target_moengage_cohort.cli.session import (
    DONE,
    Session,
    configured,
    show,
    show_errors_only,
)
from target_moengage_cohort.cli.terminal import caution, example, wrap
from target_moengage_cohort.core.errors import BusyError, TargetError
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten
from target_moengage_cohort.singer.lines import discard
from target_moengage_cohort.sync.process import open_run
from target_moengage_cohort.sync.withheld_cohorts import WITHHOLDS

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.sync.change_list import ListChanges
    from target_moengage_cohort.sync.reporting.report import CohortReport
    from target_moengage_cohort.sync.run import Run
    from target_moengage_cohort.sync.synced_cohort import SettlementResult, SyncedCohort

SOMETHING_TO_DO = 5
_OF_SOME = {"incomplete_input", "stream_without_input"}  # errors that leave the table right
_SHOWN = {
    "removals_without_proof",
    "segment_limit",
    "segments_unknown",
    "stream_paused",
    "stream_without_input",
} | WITHHOLDS
_COHORT_WIDTH = 18
_COLUMNS = ("desired", "accepted", "add", "remove", "unchanged", "unconfirmed")
_WIDTHS = (9, 9, 9, 9, 9, 11)


@click.command(
    epilog=example(
        "tap-postgres --config tap.json --catalog catalog.json \\",
        "  | moengage-cohort plan --config config.json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Output JSON, one item per cohort.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    help="Output format; markdown is for a comment on a pull request.",
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 5 if there are changes.")
@click.option(
    "--members",
    "members_path",
    type=click.Path(),
    metavar="FILE",
    help="Write the members to add and remove to a new CSV file.",
)
@configured
def plan(
    session: Session, *, as_json: bool, form: str, detailed_exitcode: bool, members_path: str | None
) -> int:
    """Show what a run would do and how many requests it would take.

    Reads a tap's output from standard input. Sends nothing and changes nothing.
    """
    settings = msgspec.structs.replace(session.settings, dry_run=True, report_path=None)
    config = msgspec.structs.replace(session.config, settings=settings)
    show_errors_only()  # the table has what the log says of cohorts
    busy: BusyError | None = None
    with (
        session.ledgers(read_only=True) as ledgers,
        _letting_tap_end(session),
        _list_changes(members_path) as list_changes,
    ):
        running = open_run(config, session.interrupt, ledgers, session.head, list_changes)
        running.read(sys.stdin.buffer)
        try:
            running.finish()
        except BusyError as error:  # of some streams; the table has the others
            busy = error
        except TargetError as error:
            if error.code not in _OF_SOME:
                raise
        if list_changes is not None:
            session.check_interrupt()
    plans = _plans(running, settings.requests_per_minute)
    report = running.report
    warnings = [each.message for each in report.warnings if each.code in _SHOWN] if report else []
    for warning in warnings:
        caution(warning)
    if form == "markdown" and not as_json:
        click.echo(markdown(plans, warnings, _effort(plans)))
    else:
        show(plans, _table(plans), as_json=as_json or form == "json")
    if busy is not None:
        raise busy
    has_changes = any(each["to_add"] or each["to_remove"] for each in plans)
    return SOMETHING_TO_DO if has_changes and detailed_exitcode else DONE


@contextlib.contextmanager
def _list_changes(path: str | None) -> Iterator[ListChanges | None]:
    """Yield a function that lists changes in a file, if one is named."""
    if path is None:
        yield None
        return
    with member_file(path) as file:
        yield file.write_members
    click.echo(f"Wrote {format_count(file.rows, 'change')} to {path}", err=True)


@contextlib.contextmanager
def _letting_tap_end(session: Session) -> Iterator[None]:
    """Read the rest of the input before an error is printed, so that the error is the last line."""
    try:
        yield
    except TargetError:
        discard(sys.stdin, lambda: session.interrupt.signal is not None)
        raise


def _plans(running: Run, requests_per_minute: int) -> list[dict[str, t.Any]]:
    """Return the changes that a run would make, by cohort."""
    cohorts = running.cohorts.by_id
    plans = [
        _plan(entry, cohorts[entry.cohort_id], requests_per_minute)
        for entry in (running.report.cohorts if running.report is not None else ())
        if entry.cohort_id in cohorts
    ]
    return sorted(plans, key=lambda each: each["cohort_id"])


def _plan(entry: CohortReport, synced: SyncedCohort, requests_per_minute: int) -> dict[str, t.Any]:
    """Return the changes that a run would make to one cohort."""
    differs = synced.result.differs
    return {
        "cohort_id": synced.cohort.cohort_id,
        "cohort_name": synced.cohort.name,
        "stream": entry.stream,
        "sync_mode": entry.sync_mode,
        # None if the input is not the whole cohort, and without a ledger
        "desired": None if entry.desired is None else entry.desired.count,
        "accepted": None if entry.accepted is None else entry.accepted.count,
        "to_add": entry.added if differs is None else differs.additions,
        "to_remove": entry.removed if differs is None else differs.removals,
        "unchanged": entry.unchanged,  # members that need no request
        "in_doubt": entry.in_doubt,  # members whose last request got no answer
        "requests": entry.requests,  # that a run would send now
        "bytes": entry.bytes,
        "minutes": round(entry.requests / requests_per_minute, 2),
        "complete": entry.complete.value,
        "verdict": _verdict(synced.result),
    }


def _verdict(result: SettlementResult) -> str:
    """Return the guard's decision, or the changes that a run would not deliver itself."""
    if result.is_sealed:
        return "finished: nothing more is sent"
    if result.differs is None:
        return "no guard: the records define the removals"
    held_back = []
    if result.reason is not None:
        is_incomplete = result.plan_id is None
        held_back.append(result.reason if is_incomplete else f"withheld: {result.reason}")
    if result.removals_waiting:
        removals = format_count(result.removals_waiting, "removal")
        held_back.append(f"{removals} would stay pending until confirm")
    if result.objection is not None:
        held_back.append(f"the guard would then withhold them: {result.objection}")
    return "; ".join(held_back) or "within the guard"


def _table(plans: list[dict[str, t.Any]]) -> Iterator[str]:
    """Return a table of at most 80 columns: two lines per cohort, and the total."""
    yield _row("cohort", _COLUMNS)
    for each in plans:
        names = ("desired", "accepted", "to_add", "to_remove", "unchanged", "in_doubt")
        counts = (each[name] for name in names)
        yield _row(each["cohort_id"], ("-" if count is None else count for count in counts))
        yield wrap(f"{_effort([each])}; {each['verdict']}", first="  ", indent="  ")
    yield f"total: {_effort(plans)}"


def _effort(plans: list[dict[str, t.Any]]) -> str:
    requests, size, minutes = (
        sum(each[name] for each in plans) for name in ("requests", "bytes", "minutes")
    )
    effort = f"{format_count(requests, 'request')}, {format_size(size)}"
    return f"{effort}, {format_minutes(minutes)} at the rate limit" if requests else effort


def _row(cohort_id: str, cells: Iterable[object]) -> str:
    numbers = (f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
    return " ".join((f"{shorten(cohort_id, _COHORT_WIDTH):<{_COHORT_WIDTH}}", *numbers))
