"""Commands to suggest in messages, complete and ready to paste."""

from __future__ import annotations

import os
import shlex
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

_options: list[str] = []  # of the process, once it has read its configuration


def note_configs(values: Iterable[str]) -> None:
    """Note the values of ``--config`` that the program was started with."""
    _options[:] = [f"--config {shlex.quote(value)}" for value in values]


def is_under_meltano() -> bool:
    """Return whether Meltano has started this program."""
    return "MELTANO_PROJECT_ROOT" in os.environ


def suggest(*words: str) -> str:
    """Return a command of ``moengage-cohort`` in the form in which this program was started."""
    name, options = "moengage-cohort", _options or ["--config …"]
    if is_under_meltano():  # its own configuration file is gone after the run
        environment = os.environ.get("MELTANO_ENVIRONMENT")
        chosen = ["--environment", shlex.quote(environment)] if environment else []
        name, options = " ".join(["meltano", *chosen, "invoke", name]), ["--config=ENV"]
    return " ".join([name, shlex.join(words), *options])
