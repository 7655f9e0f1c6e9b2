"""A run's numbers for people: a summary that fits a screen."""

from __future__ import annotations

import textwrap
import typing as t
from collections import Counter

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.sync.report import CohortReport, Report

_MOST_COHORTS = 12


def summary(report: Report, requests_per_minute: int) -> str:
    """Summarize a run, on at most some twenty lines of at most 80 columns."""
    cohorts = report.cohorts
    lines = [*_table(cohorts), _totals(report, requests_per_minute)]
    if waiting := sum(cohort.removals_waiting for cohort in cohorts):
        streams = sorted({each.stream for each in cohorts if each.removals_waiting})
        pending = format_count(waiting, "pending removal")
        lines.append(f"{pending}; to release: {suggest('confirm', *streams)}")
    if report.status == "withheld":
        withheld = sum(cohort.removals_withheld for cohort in cohorts)
        what = format_count(withheld, "removal")
        lines.append(f"Withheld changes include {what}; see the warnings above")
    if doubts := sum(cohort.in_doubt for cohort in cohorts):
        members, them = ("member is", "it") if doubts == 1 else ("members are", "them")
        lines.append(
            f"{doubts:,} {members} unconfirmed (no answer); the next run sends {them} again"
        )
    lines += _warnings(report)
    return "\n".join(lines)


def _warnings(report: Report) -> list[str]:
    """Return the codes of the warnings, each with its number if there are several."""
    codes = Counter(warning.code for warning in report.warnings)
    shown = (code if count == 1 else f"{code} ({count:,})" for code, count in codes.items())
    text = f"Warnings, explained above: {', '.join(shown)}"
    return textwrap.wrap(text, 80, break_on_hyphens=False) if codes else []


def _table(cohorts: Sequence[CohortReport]) -> Iterator[str]:
    yield f"{'cohort':<30} {'records':>9} {'added':>9} {'removed':>9} {'rejected':>8} {'req.':>6}"
    by_size = sorted(cohorts, key=lambda each: (each.status != "no_input", -each.records))
    for cohort in by_size[:_MOST_COHORTS]:
        name = cohort.cohort_id if cohort.cohort_id is not None else f"(no cohort: {cohort.stream})"
        if cohort.status == "no_input":
            name = cohort.cohort_id or cohort.stream
            yield f"{shorten(name, 30):<30} {'no input':>9}"
            continue
        yield (
            f"{shorten(name, 30):<30} {cohort.records:>9} {cohort.added:>9} "
            f"{cohort.removed:>9} {cohort.rejected:>8} {cohort.requests:>6}"
        )
    if (more := len(by_size) - _MOST_COHORTS) > 0:
        yield f"… and {more} more cohorts; report_path has them all"


def _totals(report: Report, requests_per_minute: int) -> str:
    requests = format_count(report.requests, "request")
    size = format_size(sum(cohort.bytes for cohort in report.cohorts))
    if report.status == "dry_run":
        text = f"Dry run, nothing sent: a real run would take {requests} ({size})"
        if report.requests:
            minutes = format_minutes(report.requests / requests_per_minute)
            text += f",\n{minutes} at the rate limit"
        return text
    outcome = {
        "succeeded": "Succeeded:",
        "failed": "Failed after",
        "withheld": "Finished with withheld changes:",
    }[report.status]
    retries = format_count(report.retries, "retry", "retries")
    return (
        f"{outcome} {requests}, {size}, {retries}, throttled for {report.throttled_seconds:.0f} s"
    )
