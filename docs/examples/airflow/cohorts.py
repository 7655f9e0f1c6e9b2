"""An Airflow DAG that syncs cohorts to MoEngage with Meltano, every hour.

A run is retried only if a retry can help: a withheld plan or a wrong setting fails the task
immediately, and the alert says what a person has to do.
"""

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

PROJECT = os.environ.get("MELTANO_PROJECT_ROOT", "/opt/cohorts")
COMMAND = "meltano run tap-postgres target-moengage-cohort"  # one pipeline, one report

# The errors of a run that may end by themselves. All others need a person.
TEMPORARY = {
    "incomplete_input",
    "ledger_busy",
    "moengage_unavailable",
    "rate_limited",
    "retries_exhausted",
    "stopped_read",
}


def alert(context: Context) -> None:
    """Report a failed task. Replace it by a notifier, such as SlackNotifier or SmtpNotifier."""
    logging.getLogger(__name__).error("Cohorts need attention: %s", context.get("exception"))


class CohortSync(BashOperator):
    """Run a sync, and return the number of members added to and removed from each cohort."""

    def execute(self, context: Context) -> dict[str, dict[str, int]]:
        """Run the command, and judge its end by the report of the target."""
        with TemporaryDirectory() as directory:
            path = Path(directory, "report.json")
            self.env = {"TARGET_MOENGAGE_COHORT_REPORT_PATH": str(path)}
            try:
                super().execute(context)
            except AirflowException:
                report = json.loads(path.read_text()) if path.exists() else {}
                if (reason := final_reason(report)) is not None:
                    raise AirflowFailException(reason) from None
                raise
            cohorts = json.loads(path.read_text())["cohorts"]
        return {
            cohort["cohort_id"]: {key: cohort[key] for key in ("added", "removed")}
            for cohort in cohorts
        }


def final_reason(report: dict[str, Any]) -> str | None:
    """Return why a retry cannot help; `None` if it can, or if Meltano did not start the target."""
    if report.get("status") == "withheld":
        return "\n".join(warning["message"] for warning in report["warnings"])
    error = report.get("error")
    return error["message"] if error and error["code"] not in TEMPORARY else None


with DAG(
    "moengage_cohorts",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    CohortSync(
        task_id="sync_cohorts",
        bash_command=COMMAND,
        cwd=PROJECT,
        append_env=True,
        retries=2,
        retry_delay=timedelta(minutes=5),
        on_failure_callback=alert,
    )
