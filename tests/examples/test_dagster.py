"""The asset of docs/examples/dagster, run by the real Dagster (`make test-long`)."""

from __future__ import annotations

import typing as t

import pytest

from tests.examples.conftest import EXAMPLES, SYNC, needed
from tests.support.processes import run_guarded

if t.TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 300
DELAY = "delay=300"


@pytest.fixture
def materialize(newcomer) -> Callable[..., tuple[int, str]]:
    """Materialize the asset, with retries that do not wait."""
    program = str(needed("dagster"))
    text = (EXAMPLES / "dagster" / "cohorts.py").read_text()
    assert DELAY in text
    folder = newcomer.folder / "dagster"  # elsewhere it would read the project's own .env
    folder.mkdir()
    (folder / "cohorts.py").write_text(text.replace(DELAY, "delay=0"))

    def run(**variables: str) -> tuple[int, str]:
        environment = newcomer.environment | variables
        environment["MELTANO_PROJECT_ROOT"] = str(newcomer.folder)
        done = run_guarded(
            [program, "asset", "materialize", "-f", "cohorts.py", "--select", "moengage_cohorts"],
            cwd=folder,
            env=environment,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_run_that_succeeds(newcomer, materialize):
    """A run of the asset succeeds, and MoEngage has the members that the warehouse has."""
    code, output = materialize()
    assert 0 == code, output
    assert "RUN_SUCCESS" in output
    for cohort_id in ("vip", "newsletter"):
        assert newcomer.wanted(cohort_id) == newcomer.accepted(cohort_id)


def test_a_wrong_key(materialize):
    """A run with a wrong key fails without a retry; its log has the target's message, and no
    key."""
    code, output = materialize(TARGET_MOENGAGE_COHORT_DATA_API_KEY="planted-key")
    assert 1 == code, output
    assert "RUN_FAILURE" in output
    assert "STEP_UP_FOR_RETRY" not in output
    assert "check workspace_id, data_api_key" in output
    assert "planted-key" not in output


def test_a_withheld_plan(newcomer, materialize):
    """A withheld plan fails the run without a retry, and the description of the failure has the
    command that releases it."""
    newcomer.run(SYNC)
    newcomer.unsubscribe(25)
    code, output = materialize()
    assert 1 == code, output
    assert "STEP_UP_FOR_RETRY" not in output
    assert "confirm --withheld" in output
    assert 100 == len(newcomer.accepted("newsletter"))


@pytest.mark.parametrize("fault", ["MoEngage", "the database"])
def test_a_fault_that_passes(newcomer, materialize, fault):
    """If MoEngage or the database cannot be reached, Dagster retries twice, and then fails."""
    variables = {"TARGET_MOENGAGE_COHORT_MAX_RETRY_SECONDS": "1"}
    if fault == "MoEngage":
        newcomer.moengage.fail_share(1)
    else:
        variables["TAP_POSTGRES_PORT"] = "9"  # no server listens there
    code, output = materialize(**variables)
    assert 1 == code, output
    assert "RUN_FAILURE" in output
    assert 2 == output.count("STEP_UP_FOR_RETRY")
