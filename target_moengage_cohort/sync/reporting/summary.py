"""A readable summary of a run: a row for each cohort that matters, and a total."""

from __future__ import annotations

import typing as t
from collections import Counter

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.sync.reporting.report import CohortReport, Report

_MOST_COHORTS = 50
_COLUMNS, _LONGEST_NAME, _SHORTEST_NAME = 80, 30, 6
_QUIET = {"succeeded", "dry_run", "sealed"}


class SummaryLine(msgspec.Struct, frozen=True):
    """A line for a log record of its own."""

    text: str
    stream: str | None = None  # that of a cohort's row
    cohort_id: str | None = None

    @property
    def extra(self) -> dict[str, str | None]:
        """What the record has for programs."""
        names = {"stream": self.stream, "cohort_id": self.cohort_id}
        return {"code": "summary"} | ({} if self.stream is None else names)


def summary(report: Report, requests_per_minute: int) -> Iterator[SummaryLine]:
    """Yield the lines about a run; the row of a cohort has its names for programs, too.

    A run that changed nothing and met no trouble has one line: the total.
    """
    cohorts = report.cohorts
    yield from _table([each for each in cohorts if _has_changed(each) or _is_in_trouble(each)])
    yield from map(SummaryLine, _of_run(report, requests_per_minute))


def _of_run(report: Report, requests_per_minute: int) -> Iterator[str]:
    cohorts = report.cohorts
    yield _totals(report)
    if report.status == "dry_run" and report.requests:
        minutes = format_minutes(report.requests / requests_per_minute)
        yield f"Duration at the rate limit: {minutes}"
    if waiting := sum(cohort.removals_waiting for cohort in cohorts):
        streams = sorted({each.stream for each in cohorts if each.removals_waiting})
        pending = format_count(waiting, "pending removal")
        yield f"{pending}; to send them, run: {suggest('confirm', *streams)}"
    if report.status == "withheld":
        withheld = sum(cohort.removals_withheld for cohort in cohorts)
        what = f"{format_count(withheld, 'removal was', 'removals were')} withheld"
        if not withheld:  # but additions, or all of a cohort
            stopped = sum(cohort.status == "withheld" for cohort in cohorts)
            what = f"Changes of {format_count(stopped, 'cohort')} were withheld"
            if not stopped:
                what = "All changes of a stream were withheld"
        yield f"{what}; see the warnings above"
    if doubts := sum(cohort.in_doubt for cohort in cohorts):
        members, them = ("member is", "it") if doubts == 1 else ("members are", "them")
        yield f"{doubts:,} {members} unconfirmed (no answer); the next run sends {them} again"
    yield from _warnings(report)


def _warnings(report: Report) -> Iterator[str]:
    """Yield the codes of the warnings, each with its number if there are several."""
    codes = Counter(warning.code for warning in report.warnings)
    shown = (code if count == 1 else f"{code} ({count:,})" for code, count in codes.items())
    if codes:
        yield f"Warnings, explained above: {', '.join(shown)}"


def _has_changed(cohort: CohortReport) -> bool:
    return cohort.added > 0 or cohort.removed > 0


def _is_in_trouble(cohort: CohortReport) -> bool:
    held = cohort.removals_waiting or cohort.removals_withheld or cohort.in_doubt
    return bool(held or cohort.rejected or cohort.status not in _QUIET)


def _table(cohorts: Sequence[CohortReport]) -> Iterator[SummaryLine]:
    """Yield aligned rows, those of cohorts in trouble first, then the most changed first."""
    order = sorted(
        cohorts, key=lambda each: (not _is_in_trouble(each), -(each.added + each.removed))
    )
    shown = order[:_MOST_COHORTS]
    numbers = [(str(each.records), str(each.added), str(each.removed)) for each in shown]
    widths = [max(map(len, column)) for column in zip(*numbers, strict=True)]
    details = [_details(*each, widths) for each in zip(shown, numbers, strict=True)]
    names = [*map(_name, shown)]
    room = _COLUMNS - 2 - max(map(len, details), default=0)
    width = min(_LONGEST_NAME, max(_SHORTEST_NAME, room), max(map(len, names), default=0))
    for cohort, name, text in zip(shown, names, details, strict=True):
        row = f"{shorten(name, width):<{width}}  {text}"
        yield SummaryLine(row, cohort.stream, cohort.cohort_id)
    if (more := len(order) - len(shown)) > 0:
        rest = format_count(more, "more cohort")
        yield SummaryLine(f"… and {rest}; the report (report_path) lists all of them")


def _details(cohort: CohortReport, numbers: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row without its name: the numbers, and what is unusual after them."""
    if cohort.status == "no_input":
        return "no input"
    names = ("read", "added", "removed")
    parts = [
        f"{number:>{width}} {name}"
        for number, width, name in zip(numbers, widths, names, strict=True)
    ]
    if cohort.rejected:
        parts.append(f"{cohort.rejected} rejected")
    if cohort.excluded:
        parts.append(f"{cohort.excluded} excluded")
    if cohort.status in {"failed", "withheld"}:
        parts.append(cohort.status)
    return "  ".join(parts)


def _name(cohort: CohortReport) -> str:
    if cohort.cohort_id is not None:
        return cohort.cohort_id
    return cohort.stream if cohort.status == "no_input" else f"(no cohort: {cohort.stream})"


def _totals(report: Report) -> str:
    requests = format_count(report.requests, "request")
    size = format_size(sum(cohort.bytes for cohort in report.cohorts))
    if report.status == "dry_run":
        return f"Dry run, nothing sent: a real run would take {requests} ({size})"
    outcome = {
        "succeeded": "Succeeded:",
        "failed": "Failed after",
        "withheld": "Finished with withheld changes:",
    }[report.status]
    text = f"{outcome} {requests}, {size}"
    if report.retries:
        text += f", {format_count(report.retries, 'retry', 'retries')}"
    if (seconds := round(report.throttled_seconds)) > 0:
        text += f", throttled for {seconds:,} s"
    if not report.cohorts:
        return f"{text}; the input had no cohorts"
    changed = sum(map(_has_changed, report.cohorts))
    return f"{text}; {changed:,} of {format_count(len(report.cohorts), 'cohort')} changed"
