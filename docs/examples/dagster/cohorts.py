"""A Dagster asset that syncs cohorts to MoEngage with Meltano, every hour.

The report of each run becomes metadata of the asset. A run is retried only if a retry can help:
a withheld plan or a wrong setting waits for a person.
"""

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagster import (
    Definitions,
    Failure,
    MaterializeResult,
    RetryPolicy,
    ScheduleDefinition,
    asset,
    define_asset_job,
)

PROJECT = os.environ.get("MELTANO_PROJECT_ROOT", "/opt/cohorts")
COMMAND = ["meltano", "run", "tap-postgres", "target-moengage-cohort"]  # one pipeline, one report

# The errors of a run that may end by themselves. All others need a person.
TEMPORARY = {
    "incomplete_input",
    "ledger_busy",
    "moengage_unavailable",
    "rate_limited",
    "retries_exhausted",
    "stopped_read",
}


@asset(retry_policy=RetryPolicy(max_retries=2, delay=300))
def moengage_cohorts() -> MaterializeResult:
    """Sync all cohorts of the Meltano project."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "report.json")
        variables = os.environ | {"TARGET_MOENGAGE_COHORT_REPORT_PATH": str(path)}
        done = subprocess.run(COMMAND, cwd=PROJECT, env=variables, check=False)
        report = json.loads(path.read_text()) if path.exists() else {}
    if done.returncode:
        raise failure(done.returncode, report)
    cohorts = report["cohorts"]
    return MaterializeResult(
        metadata={
            "added": sum(cohort["added"] for cohort in cohorts),
            "removed": sum(cohort["removed"] for cohort in cohorts),
            "requests": report["requests"],
            "report": report,
        }
    )


def failure(exit_code: int, report: dict[str, Any]) -> Failure:
    """Return why a run failed, and whether Dagster may retry it.

    Args:
        exit_code: The exit code of Meltano.
        report: The report of the target; empty if Meltano did not start it.
    """
    error = report.get("error")
    messages = [error["message"]] if error else []
    if report.get("status") == "withheld":
        messages += [each["message"] for each in report["warnings"]]
    return Failure(
        description="\n".join(messages) or f"Meltano ended with exit code {exit_code}; see its log",
        metadata={"report": report},
        allow_retries=error["code"] in TEMPORARY if error else not messages,
    )


sync_cohorts = define_asset_job("sync_cohorts", [moengage_cohorts])

defs = Definitions(
    assets=[moengage_cohorts],
    jobs=[sync_cohorts],
    schedules=[ScheduleDefinition(job=sync_cohorts, cron_schedule="@hourly")],
)
