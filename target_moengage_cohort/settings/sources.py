"""The sources of a raw configuration, for all commands: files and the environment."""

from __future__ import annotations

import json
import logging
import os
import typing as t
from pathlib import Path

import click

from target_moengage_cohort import NAME
from target_moengage_cohort.core.commands import note_configs
from target_moengage_cohort.settings.declared import SETTING_NAMES

if t.TYPE_CHECKING:
    from collections.abc import Sequence

ENVIRONMENT = "ENV"  # the value of ``--config`` that stands for the environment
ENVIRONMENT_PREFIX = "TARGET_MOENGAGE_COHORT_"

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
    content, fault = None, "must contain a JSON object with the settings"
    try:  # once, because it may be a pipe
        data = Path(path).read_bytes()
        content = json.loads(data.decode(json.detect_encoding(data)))  # by its byte order mark
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); choose a JSON file with the settings"
    except json.JSONDecodeError as error:
        fault = f"is not valid JSON (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        fault = "is not valid JSON; it must be UTF-8 text that is not nested too deeply"
    if not isinstance(content, dict):
        msg = f"{path} {fault}"
        raise click.BadParameter(msg)
    return content


def from_environment() -> dict[str, t.Any]:
    """Return the settings in the environment as text; `settings.load` converts it.

    As in every target of the SDK's, a ``.env`` file in the package's directory or in a parent of
    it, such as the project around ``.venv``, wins over the environment.
    """
    from dotenv import load_dotenv  # noqa: PLC0415 - most runs are configured by a file

    try:
        load_dotenv(override=True, encoding="utf-8-sig")
    except (OSError, ValueError):
        msg = "the file .env cannot be read as text; save it in UTF-8, or move it"
        raise click.BadParameter(msg) from None
    config: dict[str, t.Any] = {}
    for name in sorted(SETTING_NAMES):
        variable = ENVIRONMENT_PREFIX + name.upper()
        if (value := os.environ.get(variable)) is not None:
            logger.info("Parsing '%s' config from env variable '%s'.", name, variable)
            config[name] = value
    return config


def read(paths: Sequence[str]) -> dict[str, t.Any]:
    """Return the raw configuration for the values of ``--config``."""
    config = from_files(paths)
    return config | from_environment() if ENVIRONMENT in paths else config
