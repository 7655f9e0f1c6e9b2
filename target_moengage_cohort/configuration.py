"""Where a raw configuration comes from: files, and the environment; for all commands alike."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import click

from target_moengage_cohort.settings.load import SETTING_NAMES

if t.TYPE_CHECKING:
    from collections.abc import Iterable

ENVIRONMENT = "ENV"
"""Stands among the files of ``--config`` for the environment."""

_PREFIX = "TARGET_MOENGAGE_COHORT_"


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
            msg = f"{path} cannot be read ({error.strerror})"
            raise click.BadParameter(msg) from None
        except ValueError:
            msg = f"{path} is not valid JSON"
            raise click.BadParameter(msg) from None
        if not isinstance(content, dict):
            msg = f"{path} holds no JSON object"
            raise click.BadParameter(msg)
        config |= content
    return config


def from_environment() -> dict[str, t.Any]:
    """The environment's settings as text; `settings.load` gives them types, and errors.

    A file ``.env`` here or in a folder above counts as environment, as for every Singer target.
    """
    # The SDK takes a third of a second to import, and a command needs nothing else of it.
    from singer_sdk.configuration._dict_config import (  # noqa: PLC0415
        parse_environment_config,
    )

    as_text = {name: {"type": "string"} for name in sorted(SETTING_NAMES)}
    return parse_environment_config({"properties": as_text}, _PREFIX)


def read(value: Iterable[str]) -> dict[str, t.Any]:
    """The raw configuration that the values of ``--config`` stand for.

    Raises:
        click.BadParameter: A file cannot be read.
    """
    paths = list(value)
    config = from_files(paths)
    return config | from_environment() if ENVIRONMENT in paths else config
