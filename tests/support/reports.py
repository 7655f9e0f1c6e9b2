"""Reports of runs that never were, for the tests of the report and the summary."""

from target_moengage_cohort.ledger.records import HistoryEntry
from target_moengage_cohort.sync.reporting.report import CohortReport, Report

REPORT_FIELDS = [  # of every report, in their order
    "run_id",
    "version",
    "started_at",
    "finished_at",
    "status",
    "exit_code",
    "error",
    "warnings",
    "destination",
    "partner",
    "requests",
    "retries",
    "throttled_seconds",
    "alerts",
    "cohorts",
]


def cohort(cohort_id="vip", stream="s", **numbers):
    """Return the report of a cohort with these numbers."""
    names = {"cohort_id": cohort_id, "cohort_name": cohort_id, "stream": stream}
    return CohortReport(**{"sync_mode": "add", "status": "succeeded"} | names | numbers)


def report(*cohorts, **fields):
    """Return the report of a run with these fields."""
    numbers = {
        "status": "succeeded",
        "exit_code": 0,
        "requests": 0,
        "retries": 0,
        "throttled_seconds": 0.0,
    }
    times = {"run_id": "r", "version": "1.0", "started_at": "a", "finished_at": "b"}
    return Report(**times | numbers | fields, cohorts=list(cohorts))


def past_run(run_id="run-1", at="2026-11-30T00:00:00.000Z", **fields):
    """Return the entry of a run in the history, with these fields."""
    return HistoryEntry(kind="run", at=at, run_id=run_id, **{"status": "succeeded"} | fields)
