"""Where a raw configuration comes from: files, and the environment; for all commands alike."""

from __future__ import annotations

import json
import logging
import os
import typing as t
from pathlib import Path

import click

from target_moengage_cohort.settings.load import SETTING_NAMES

if t.TYPE_CHECKING:
    from collections.abc import Iterable

ENVIRONMENT = "ENV"
"""Stands among the files of ``--config`` for the environment."""

_PREFIX = "TARGET_MOENGAGE_COHORT_"

logger = logging.getLogger("target-moengage-cohort")  # `moengage-cohort` has no such lines


def from_files(paths: Iterable[str]) -> dict[str, t.Any]:
    """Read configuration files, of which a later one wins; `ENVIRONMENT` is passed over.

    Raises:
        click.BadParameter: One cannot be read: wrong usage, not a traceback.
    """
    config: dict[str, t.Any] = {}
    for path in paths:
        if path == ENVIRONMENT:
            continue
        try:  # once, since it may be a pipe
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            msg = f"{path} cannot be read ({error.strerror}); name a file with the settings as JSON"
            raise click.BadParameter(msg) from None
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            msg = f"{path} is not valid JSON; mend it at {where}"
            raise click.BadParameter(msg) from None
        except (ValueError, RecursionError):
            msg = f"{path} is not valid JSON; it must be text in UTF-8, and not nested too deeply"
            raise click.BadParameter(msg) from None
        if not isinstance(content, dict):
            msg = f"{path} holds no JSON object; put the settings into one, by their names"
            raise click.BadParameter(msg)
        config |= content
    return config


def from_environment() -> dict[str, t.Any]:
    """The environment's settings as text; `settings.load` gives them types, and errors.

    As for every target of the SDK's, a file ``.env`` beside this package or in a folder above it,
    such as the project around ``.venv``, wins over the environment.

    Raises:
        click.BadParameter: That file cannot be read.
    """
    from dotenv import load_dotenv  # noqa: PLC0415 - most runs are configured by a file

    try:
        load_dotenv(override=True)
    except (OSError, ValueError):
        msg = "the file .env cannot be read as text; save it in UTF-8, or move it away"
        raise click.BadParameter(msg) from None
    found: dict[str, t.Any] = {}
    for name in sorted(SETTING_NAMES):
        variable = _PREFIX + name.upper()
        if (value := os.environ.get(variable)) is not None:
            logger.info("Parsing '%s' config from env variable '%s'.", name, variable)
            found[name] = value
    return found


def read(value: Iterable[str]) -> dict[str, t.Any]:
    """The raw configuration that the values of ``--config`` stand for.

    Raises:
        click.BadParameter: A file cannot be read.
    """
    paths = list(value)
    config = from_files(paths)
    return config | from_environment() if ENVIRONMENT in paths else config
