"""The workflow of docs/examples/github: what it runs, with the real Meltano."""

import os
from pathlib import Path

import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import ROOT, MeltanoProject, program

WORKFLOW = yaml.safe_load((ROOT / "docs/examples/github/plan.yml").read_text())


def test_the_step_writes_a_comment(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """The workflow's step writes the plan of a project to a file, and sends nothing."""
    postgres.execute(
        "create view cohort_vip as select 'u' || id as uid, now() as updated_at"
        " from generate_series(1, 7) id"
    )
    config = {"cohorts": {"public-cohort_vip": {"cohort_id": "vip", "cohort_name": "VIP"}}}
    for kind in ("loaders", "utilities"):
        project.configure(kind, config=config)
    assert 0 == project.meltano("config", "list", "target-moengage-cohort").returncode
    (script,) = [each["run"] for each in WORKFLOW["jobs"]["plan"]["steps"] if "env" in each]
    path = os.pathsep.join([str(Path(program("meltano")).parent), project.environment["PATH"]])
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    environment = project.environment | {"PATH": path, "MELTANO_ENVIRONMENT": "dev"}
    done = run_guarded(command, cwd=project.folder, env=environment, timeout=120)
    assert 0 == done.returncode, done.stderr
    text = (project.folder / "plan.md").read_text()
    assert text.startswith("### Plan")
    assert "**7 additions, 0 removals** in 1 cohort: 1 request" in text
    assert [] == moengage.requests()
