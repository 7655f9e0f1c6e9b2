"""Fixtures: the servers that real taps read, for `make test-long`."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres
from tests.taps.flow import Flow, Watched, tap_program
from tests.taps.sources import MySQL, PostgreSQL, Source

NUMBERS = itertools.count(1)
# The tap asks how far the log has been written, so each commit waits for that.
LOGS = {"wal_level": "logical", "max_replication_slots": "100", "synchronous_commit": "on"}

ALLOWED = "output_plugin_libraries"


def need(name: str, tree: Path | None) -> Path:
    """Return the folder of a server, or skip the test with what is missing."""
    if not os.environ.get("REAL_TAPS"):
        pytest.skip("taps as processes are run by make test-long")
    if not tap_program(name).exists():
        pytest.skip(f"pipelinewise-tap-{name} is not installed: make taps")
    if tree is None:
        pytest.skip(f"the server for tap-{name} is missing: {servers.HOW_TO_GET}")
    return tree


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB(need("mysql", servers.mariadb_tree())) as running:
        yield running


@pytest.fixture(scope="session")
def wal2json() -> Iterator[Postgres]:
    """A PostgreSQL that lets wal2json be used; newer ones have a list of what may be."""
    with Postgres(need("postgres", servers.wal2json_tree()), **LOGS) as running:
        if running.query("select 1 from pg_settings where name = %s", [ALLOWED]):
            running.execute(f"alter role {running.user} set {ALLOWED} = wal2json")
        yield running


@pytest.fixture(params=["mysql", "postgres"])
def source(request: pytest.FixtureRequest) -> Source:
    """A new database with an audience."""
    name = f"shop_{next(NUMBERS)}"
    if request.param == "mysql":
        return MySQL(request.getfixturevalue("mariadb"), name)
    return PostgreSQL(request.getfixturevalue("wal2json"), name)


@pytest.fixture
def flow(tmp_path: Path, source: Source) -> Iterator[Flow]:
    """Its tap and the target, with an emulator of their own."""
    with Watched() as moengage:
        yield Flow(tmp_path, source, moengage, str(tap_program(source.name)))


@pytest.fixture
def change(source: Source) -> Callable[[], None]:
    """Let some people leave, and others come."""

    def go() -> None:
        source.leave(60)
        source.come(40)

    return go
