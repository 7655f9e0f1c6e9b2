"""Fixtures and settings that all tests share."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import HealthCheck, settings

from target_moengage_cohort.core.commands import note_configs
from target_moengage_cohort.emulator import Emulator
from tests.support.ledger_places import FolderPlace, opened
from tests.support.postgres import Postgres
from tests.support.singer import UNLIMITED

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.scheduler import Scheduling

settings.register_profile(
    "project",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("project")

PER_PARAMETER = "tests/ledger/test_ledger_crash.py"  # a run for each, killed at every step
SHARED = (
    PER_PARAMETER,
    "tests/emulator/test_page",  # a browser
    "tests/cli/test_history_page.py",  # likewise
    "tests/packaging/",  # a wheel, an sdist, and the demo's database
    "tests/singer/test_storage.py",  # an S3 server
    "tests/cli/test_segment_uploads.py",  # likewise
)
"""Files and folders whose tests share a slow fixture, so that one process runs all of them."""


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be missing
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Return a scheduler for `--dist loadgroup`, which groups nothing with pytest 9.2.

    See https://github.com/pytest-dev/pytest-xdist/issues/1386.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - as above

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            shared = next((path for path in SHARED if file.startswith(path)), None)
            if shared is None:
                return nodeid
            return shared + test.partition("[")[2] if shared == PER_PARAMETER else shared

    return Grouped(config, log)


@pytest.fixture(autouse=True)
def no_configs(monkeypatch):
    """Forget which --config other tests' commands had, and that Meltano runs these ones."""
    note_configs(())
    monkeypatch.delenv("MELTANO_PROJECT_ROOT", raising=False)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One PostgreSQL per process; each test takes a new database of it."""
    with Postgres() as running:
        yield running


@pytest.fixture(params=["files", "server"])
def place(request) -> Iterator[FolderPlace]:
    """A place for a ledger, of each engine."""
    with opened(request, request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Keep the rate limit's file of each test, and of its processes, to itself."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
