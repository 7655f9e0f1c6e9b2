"""Fixtures of the tests of the Segments and the Analytics API."""

import contextlib

import pytest

from target_moengage_cohort.emulator import Emulator, ManualClock
from tests.support.apis import Callers


@pytest.fixture
def start():
    """Return a function that starts an emulator with options, and returns its callers."""
    with contextlib.ExitStack() as stack:

        def started(settings=None, **options):
            emulator = stack.enter_context(Emulator(clock=ManualClock(), **options))
            callers = Callers(emulator, **(settings or {}))
            stack.enter_context(contextlib.closing(callers.calls))
            return callers

        yield started
