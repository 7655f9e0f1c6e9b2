"""The warnings of a run, by their codes."""

import logging
import typing as t

import pytest


class Warned(t.NamedTuple):
    """A warning and its subject."""

    code: str
    stream: str | None
    cohort_id: str | None


def warnings(caplog: pytest.LogCaptureFixture) -> list[Warned]:
    """Return the logged warnings in order."""
    return [
        Warned(*(getattr(record, name, None) for name in Warned._fields))
        for record in caplog.records
        if record.levelno == logging.WARNING
    ]


def codes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the codes of the logged warnings in order."""
    return [warned.code for warned in warnings(caplog)]
