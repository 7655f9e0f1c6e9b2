"""What the history keeps of a run, taken from its report; pure."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.text import utc_now
from target_moengage_cohort.ledger.records import HistoryEntry, RunEntry

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.warning_log import LoggedWarning
    from target_moengage_cohort.sync.reporting.report import CohortReport, Report, ReportHead

_PLAIN = {"succeeded", "sealed", "no_input"}
_SUMS = ("added", "removed", "records", "rejected", "removals_waiting", "removals_withheld")


def past_run(report: Report, streams: Iterable[str], bases: Mapping[str, int]) -> HistoryEntry:
    """Return the entry of a run that has read some streams.

    `bases` has how many members each cohort had before, by its id.
    """
    cohorts = report.cohorts
    # Those that it has read, which a pause may have left without a cohort, and those missing.
    names = tuple(dict.fromkeys([*streams, *(each.stream for each in cohorts)]))
    return HistoryEntry(
        kind="run",
        at=report.started_at,
        run_id=report.run_id,
        stream=names[0] if len(names) == 1 else None,
        streams=names,
        cohort_id=cohorts[0].cohort_id if len(cohorts) == len(names) == 1 else None,
        cohorts=sum(each.cohort_id is not None for each in cohorts),
        status=report.status,
        error=_error(report),
        exit_code=report.exit_code,
        warnings=_codes(report.warnings),
        requests=report.requests,
        retries=report.retries,
        throttled_seconds=report.throttled_seconds,
        **_numbers(cohorts, bases),
    )


def last_run(cohort: CohortReport, head: ReportHead, status: str) -> RunEntry:
    """Return the entry of a cohort's latest run, which ends now with a status."""
    return RunEntry(
        run_id=head.run_id,
        started_at=head.started_at,
        finished_at=utc_now(),
        status=status,
        sync_mode=cohort.sync_mode or "",
        complete=cohort.complete,
        records=cohort.records,
        added=cohort.added,
        removed=cohort.removed,
    )


def past_cohorts(report: Report, bases: Mapping[str, int]) -> Iterator[HistoryEntry]:
    """Yield an entry for each cohort that a run has changed or did not finish."""
    for each in report.cohorts:
        if each.cohort_id is None or not (each.added or each.removed or each.status not in _PLAIN):
            continue
        own = [one for one in report.warnings if one.cohort_id == each.cohort_id]
        yield HistoryEntry(
            kind="run",
            at=report.started_at,
            run_id=report.run_id,
            stream=each.stream,
            cohort_id=each.cohort_id,
            status=each.status,
            warnings=_codes(own),
            error=_error(report) if each.status == "failed" else None,
            requests=each.requests,
            **_numbers([each], bases),
        )


def _error(report: Report) -> str | None:
    if report.error is not None:
        return report.error.code
    return "interrupted" if report.status == "failed" else None


def _codes(warnings: Iterable[LoggedWarning]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.code for each in warnings))


def _numbers(cohorts: Sequence[CohortReport], bases: Mapping[str, int]) -> dict[str, t.Any]:
    """Return the numbers of one cohort, or of all."""
    sums = {name: sum(getattr(each, name) for each in cohorts) for name in _SUMS}
    known = [each for each in cohorts if each.accepted is not None]
    return sums | {
        "in_doubt": sum(each.in_doubt for each in cohorts),
        "accepted": sum(each.accepted.count for each in known if each.accepted) if known else None,
        "turnover_percent": _turnover(known, bases),
        "sync_mode": _common(each.sync_mode for each in cohorts),
        "complete": _common(each.complete.value for each in cohorts),
    }


def _turnover(cohorts: Sequence[CohortReport], bases: Mapping[str, int]) -> float | None:
    """Return what was added and removed, in percent of the members that were there before."""
    changed = sum(each.added + each.removed for each in cohorts)
    before = sum(bases.get(each.cohort_id or "", 0) for each in cohorts)
    return round(100 * changed / before, 2) if before > 0 else None


def _common(values: Iterable[str | None]) -> str | None:
    """Return the value that all have."""
    found = {*values}
    return found.pop() if len(found) == 1 else None
