"""The sources of a raw configuration, for all commands: files and the environment."""

from __future__ import annotations

import json
import logging
import os
import typing as t
from pathlib import Path

import click

from target_moengage_cohort import NAME
from target_moengage_cohort.core.commands import is_under_meltano, note_configs
from target_moengage_cohort.settings.declared import ENVIRONMENT_PREFIX, SETTING_NAMES
from target_moengage_cohort.settings.forms import OBJECTS
from target_moengage_cohort.settings.load import is_misspelled, meant_variable

if t.TYPE_CHECKING:
    from collections.abc import Sequence

ENVIRONMENT = "ENV"  # the value of ``--config`` that stands for the environment
_NO_SETTINGS = {"", "loglevel"}  # the SDK's own

logger = logging.getLogger(NAME)  # the target's own logger: `moengage-cohort` shows no such lines


def from_files(paths: Sequence[str]) -> dict[str, t.Any]:
    """Return the settings in configuration files; later files win, `ENVIRONMENT` is skipped."""
    config: dict[str, t.Any] = {}
    note_configs(paths)
    for path in paths:
        if path != ENVIRONMENT:
            config |= _from_file(path)
    return config


def _from_file(path: str) -> dict[str, t.Any]:
    content, fault = None, "must contain a JSON object of settings"
    try:  # once, because it may be a pipe
        data = Path(path).read_bytes()
        content = json.loads(data.decode(json.detect_encoding(data)))  # by its byte order mark
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); choose a readable JSON file of settings"
    except json.JSONDecodeError as error:
        fault = f"is not valid JSON (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        fault = "is not valid JSON: it must be UTF-8 text and must not be nested too deeply"
    if not isinstance(content, dict):
        msg = f"{path} {fault}"
        raise click.BadParameter(msg)
    return content


def from_environment() -> dict[str, t.Any]:
    """Return the settings in the environment as text; `settings.load` converts it.

    A ``.env`` file in the current directory, or else in the nearest one above it, adds what the
    environment lacks. A variable that sets nothing has its own name, for `settings.load` to judge.
    """
    _add_env_file()
    config: dict[str, t.Any] = {}
    for name in sorted(SETTING_NAMES):
        variable = ENVIRONMENT_PREFIX + name.upper()
        if (value := os.environ.get(variable)) is not None:
            logger.debug("Parsing '%s' config from env variable '%s'.", name, variable)
            config[name] = value
    return config | dict.fromkeys(_unknown_variables())


def add_misspellings(config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a configuration from files, with the misspelled variables of a run under Meltano.

    Meltano reads the variables of the settings that it knows, writes them to a file, and drops the
    others without a word.
    """
    if not is_under_meltano():
        return config
    return config | dict.fromkeys(
        name for name in _unknown_variables() if is_misspelled(name) or meant_variable(name)
    )


def _add_env_file() -> None:
    from dotenv import find_dotenv, load_dotenv  # noqa: PLC0415 - most runs have a file only

    try:
        if path := find_dotenv(usecwd=True):
            load_dotenv(path, override=False, encoding="utf-8-sig")
    except (OSError, ValueError):
        msg = "the file .env cannot be read as text; save it in UTF-8, or move it"
        raise click.BadParameter(msg) from None


def _unknown_variables() -> list[str]:
    """Return the variables with our prefix that are neither settings nor another program's.

    Those with a prefix close to ours count as well, unless the one that was meant is set, too.

    Meltano adds its extras, which begin with another underscore, and the parts of objects, such as
    ``…_COHORTS_VIP_COHORT_ID``. A plugin that inherits from ours, as target-moengage-cohort-eu
    does, has variables such as ``…_EU_PARTNER``.
    """
    unknown = []
    for variable in sorted(os.environ):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        is_ours = variable.startswith(ENVIRONMENT_PREFIX) and name not in _NO_SETTINGS
        is_part = name.startswith(("_", *(f"{each}_" for each in OBJECTS)))
        is_inherited = name.endswith(tuple(f"_{each}" for each in SETTING_NAMES))
        sets_nothing = is_ours and not (name in SETTING_NAMES or is_part or is_inherited)
        meant = meant_variable(variable)
        if sets_nothing or (meant is not None and meant not in os.environ):
            unknown.append(variable)
    return unknown


def read(paths: Sequence[str]) -> dict[str, t.Any]:
    """Return the raw configuration for the values of ``--config``."""
    config = from_files(paths)
    return config | from_environment() if ENVIRONMENT in paths else add_misspellings(config)
