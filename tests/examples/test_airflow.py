"""The DAG of docs/examples/airflow, run by the real Airflow (`make test-long`)."""

from __future__ import annotations

import re
import typing as t

import pytest

from tests.examples.conftest import EXAMPLES, SYNC, needed
from tests.support.processes import run_guarded
from tests.support.project import plain_environment

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.support.newcomer import Newcomer

SECONDS = 120
DAG = ("moengage_cohorts",)
TASK = (*DAG, "sync_cohorts")  # by itself it is tried once; a DAG waits for its retries


class Airflow:
    """An Airflow with a database of its own."""

    def __init__(self, home: Path) -> None:
        self._program = str(needed("airflow"))
        self._home = home
        self._settings = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        code, output = self._run(["db", "migrate"], plain_environment(home))
        assert 0 == code, output

    def test(self, newcomer: Newcomer, kind: str, *names: str, **variables: str) -> tuple[str, str]:
        """Run a DAG or a task once; return the state of its task, and everything it wrote."""
        environment = newcomer.environment | variables
        environment["MELTANO_PROJECT_ROOT"] = str(newcomer.folder)
        _, output = self._run([kind, "test", *names], environment)
        states = re.findall(r"new_state=(\w+)", output)
        assert 1 == len(states), output
        return states[0], output

    def _run(self, arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
        done = run_guarded(
            [self._program, *arguments],
            cwd=self._home,
            env=environment | self._settings,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


def test_a_run_that_succeeds(newcomer, airflow):
    """A run of the DAG succeeds, and MoEngage has the members that the warehouse has."""
    state, output = airflow.test(newcomer, "dags", *DAG)
    assert "success" == state, output
    for cohort_id in ("vip", "newsletter"):
        assert newcomer.wanted(cohort_id) == newcomer.accepted(cohort_id)


def test_a_wrong_key(newcomer, airflow):
    """A task with a wrong key fails without a retry; its log has the target's message and the
    alert, and no key."""
    key = {"TARGET_MOENGAGE_COHORT_DATA_API_KEY": "planted-key"}
    state, output = airflow.test(newcomer, "tasks", *TASK, **key)
    assert "failed" == state, output
    assert "check workspace_id, data_api_key" in output
    assert "Cohorts need attention" in output
    assert "planted-key" not in output


def test_a_withheld_plan(newcomer, airflow):
    """A withheld plan fails the task without a retry, and the alert has the command that releases
    it."""
    newcomer.run(SYNC)
    newcomer.unsubscribe(25)
    state, output = airflow.test(newcomer, "tasks", *TASK)
    assert "failed" == state, output
    (alert,) = re.findall(r"Cohorts need attention: (.+)", output)
    assert "confirm --withheld" in alert
    assert 100 == len(newcomer.accepted("newsletter"))


@pytest.mark.parametrize("fault", ["MoEngage", "the database"])
def test_a_fault_that_passes(newcomer, airflow, fault):
    """If MoEngage or the database cannot be reached, Airflow is to retry the task."""
    variables = {"TARGET_MOENGAGE_COHORT_MAX_RETRY_SECONDS": "1"}
    if fault == "MoEngage":
        newcomer.moengage.fail_share(1)
    else:
        variables["TAP_POSTGRES_PORT"] = "9"  # no server listens there
    state, output = airflow.test(newcomer, "tasks", *TASK, **variables)
    assert "up_for_retry" == state, output
    assert "Cohorts need attention" not in output
