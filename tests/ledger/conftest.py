"""What all tests of the ledger share."""

import os

import pytest


@pytest.fixture(autouse=True)
def private():
    """Make files for ourselves alone, as the target does from its start."""
    before = os.umask(0o077)
    yield
    os.umask(before)
