"""Fixtures of all tests of the ledger."""

import os

import pytest


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
