"""A complete configuration, and the faults of one that is not valid."""

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load

KEY = "Key-0f9a8b7c6d"
BASE = {"workspace_id": "ws", "data_api_key": KEY, "data_center": "02", "partner": "acme"}


def settings(**extra):
    return load(BASE | extra).settings


def messages(raw=BASE, **extra) -> list[str]:
    """Return the messages of a configuration's faults."""
    return [str(fault) for fault in raised(raw, **extra)]


def faults(raw=BASE, **extra) -> list[tuple[str, str]]:
    """Return the code and the setting of each of a configuration's faults."""
    return [(fault.code, str(fault).partition(": ")[0]) for fault in raised(raw, **extra)]


def raised(raw=BASE, **extra) -> tuple[SettingsError, ...]:
    with pytest.raises(SettingsError) as error:
        load(raw | extra)
    return error.value.faults
