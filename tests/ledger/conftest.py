"""Fixtures of all tests of the ledger."""

import os

import pytest


@pytest.fixture(autouse=True)
def private():
    """Create files for the user alone, as the target does from its start."""
    before = os.umask(0o077)
    yield
    os.umask(before)
