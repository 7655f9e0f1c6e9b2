"""Fixtures: README's Meltano project, and the environments in which the examples run."""

from __future__ import annotations

import itertools
import os
import typing as t

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.newcomer import EXAMPLES, Newcomer
from tests.support.project import ROOT

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

__all__ = ["EXAMPLES", "SYNC", "needed"]
NUMBERS = itertools.count(1)
SYNC = "meltano run tap-postgres target-moengage-cohort"


def needed(name: str) -> Path:
    """Return a program of the environment with its name, or skip the test with the reason."""
    if not os.environ.get("REAL_TAPS"):
        pytest.skip("examples with programs of other makers are run by make test-long")
    program = ROOT / f".venv-{name}" / "bin" / name
    if not program.exists():
        pytest.skip(f"{name} is not installed: make examples")
    return program


@pytest.fixture
def newcomer(tmp_path: Path, server: Postgres) -> Iterator[Newcomer]:
    """README's project with its views and files; nothing has run."""
    with Emulator(workspace_id="your-workspace-id", data_api_key="your-key") as moengage:
        made = Newcomer(tmp_path, server.new_database(f"shop_{next(NUMBERS)}"), moengage)
        made.follow_readme()
        yield made
