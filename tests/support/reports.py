"""Reports of runs that never were, for the tests of the report and the summary."""

from target_moengage_cohort.sync.report import CohortReport, Report

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
