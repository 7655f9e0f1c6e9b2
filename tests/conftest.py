"""Fixtures and settings that all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED

settings.register_profile(
    "project",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("project")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Keep the rate limit's bucket of each test, and of its processes, to itself."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
