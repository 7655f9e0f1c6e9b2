"""Fixtures of all tests of the ledger."""

import os

import pytest

from target_moengage_cohort.ledger.postgres import loaded_members
from tests.ledger.databases import SERVER


def pytest_generate_tests(metafunc):
    """Run the tests of the contract with each engine."""
    marked = metafunc.definition.get_closest_marker
    if marked("server"):
        metafunc.parametrize("engine", ["postgresql"], indirect=True)
    elif (contract := marked("contract")) and not marked("files"):
        engines = ["files", "postgresql", *contract.kwargs.get("more", [])]
        metafunc.parametrize("engine", engines, indirect=True)


@pytest.fixture(autouse=True)
def engine(request, monkeypatch):
    """Keep ledgers in folders, or in databases of a server; the processes of a test do likewise."""
    name = getattr(request, "param", "files")
    if name == "looked up":  # each member by itself, as in a large cohort
        monkeypatch.setattr(loaded_members, "FEWEST", 1)
        monkeypatch.setattr(loaded_members, "MOST_PERCENT", 1_000_000)
    if name != "files":
        server = request.getfixturevalue("server")
        uri = f"postgresql://{server.user}@{server.host}:{server.port}"
        monkeypatch.setenv(SERVER, uri)
    return name


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory, monkeypatch):
    """Keep the state directory of each test to itself, and apart from its ledgers."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def private():
    """Create files for the user alone, as the target does from its start."""
    before = os.umask(0o077)
    yield
    os.umask(before)
