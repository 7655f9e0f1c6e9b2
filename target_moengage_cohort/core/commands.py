"""Commands to suggest in messages, complete and ready to paste."""

from __future__ import annotations

import os
import shlex
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLE_CSV = "members.csv"
"""A file that only the reader can name."""

_PARTS_OF_STATE_ID = ("ENVIRONMENT", "EXTRACTOR_NAME", "LOADER_NAME")

_options: list[str] = []  # of the process, once it has read its configuration


def note_configs(values: Iterable[str]) -> None:
    """Note the values of ``--config`` that the program was started with."""
    _options[:] = [f"--config {shlex.quote(value)}" for value in values]


def is_under_meltano() -> bool:
    """Return whether Meltano has started this program."""
    return "MELTANO_PROJECT_ROOT" in os.environ


def suggest(*words: str) -> str:
    """Return a command of ``moengage-cohort`` in the form in which this program was started.

    Empty words are left out. Names that look like options, such as ``-5``, follow a ``--``.
    """
    name, options = "moengage-cohort", _options or ["--config config.json"]
    if is_under_meltano():  # its own configuration file is gone after the run
        environment = os.environ.get("MELTANO_ENVIRONMENT")
        chosen = ["--environment", shlex.quote(environment)] if environment else []
        name, options = " ".join(["meltano", *chosen, "invoke", name]), ["--config=ENV"]
    first, names = _split([word for word in words if word])
    return " ".join(
        [name, shlex.join(first), *options, *(["--", shlex.join(names)] if names else [])]
    )


def how_to_clear_state() -> str:
    """Return how to clear the tap's STATE, as a sentence without its full stop.

    Meltano does not pass a loader its state ID, so this is the one that `meltano run` gives it.
    """
    if not is_under_meltano():
        return "Start the tap without its previous STATE (--state)"
    parts = [os.environ.get(f"MELTANO_{each}") for each in _PARTS_OF_STATE_ID]
    if not all(parts):
        return "Run Meltano once with --full-refresh"
    environment, tap, loader = map(str, parts)
    command = shlex.join(["meltano", "state", "clear", f"{environment}:{tap}-to-{loader}"])
    return (
        f"Clear its STATE, then run again: {command} (if the pipeline has its own state ID or "
        "suffix, replace the ID with the one that `meltano state list` shows)"
    )


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words, and those from the first name on that looks like an option."""
    looks = (at for at, word in enumerate(words) if word[0] == "-" and not word.startswith("--"))
    start = next(looks, len(words))
    options = next(
        (at for at in range(start, len(words)) if words[at].startswith("--")), len(words)
    )
    return [*words[:start], *words[options:]], words[start:options]
