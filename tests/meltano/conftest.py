"""Fixtures: for each test a database, an emulator and a project."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.project import ROOT, MeltanoProject, destination

NUMBERS = itertools.count(1)


@pytest.fixture
def postgres(server: Postgres) -> Postgres:
    """A new database."""
    return server.new_database(f"test_{next(NUMBERS)}")


@pytest.fixture
def moengage() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, postgres: Postgres, moengage: Emulator) -> MeltanoProject:
    """A project with all settings except the cohorts in the environment."""
    made = MeltanoProject(tmp_path, postgres, moengage.url)
    for name, value in destination(moengage).items():
        made.environment[f"TARGET_MOENGAGE_COHORT_{name.upper()}"] = value
    incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
    made.configure(
        "extractors",
        config={"filter_schemas": ["public"]},
        select=["public-cohort_*.*"],
        metadata={"public-cohort_*": incremental},
    )
    return made


@pytest.fixture(scope="session")
def meltano_yml() -> dict:
    return yaml.safe_load((ROOT / "meltano.yml").read_text())
