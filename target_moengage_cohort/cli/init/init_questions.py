"""Questions that `init` asks at the terminal itself, whatever the standard streams are."""

from __future__ import annotations

import os
import typing as t

import click

from target_moengage_cohort.cli import terminal
from target_moengage_cohort.core.errors import SettingsError

if t.TYPE_CHECKING:
    from collections.abc import Callable


class Questions:
    """Asks for values; without a terminal, notes how each of them can be given instead."""

    def __init__(self) -> None:
        self._missing: list[str] = []
        self._terminal: t.BinaryIO | None = None
        try:
            descriptor = os.open(terminal.TERMINAL, os.O_RDWR)
        except OSError:
            return
        self._terminal = os.fdopen(descriptor, "rb+", buffering=0)

    @property
    def can_ask(self) -> bool:
        """Whether there is a terminal."""
        return self._terminal is not None

    def close(self) -> None:
        """Close the terminal."""
        if self._terminal is not None:
            self._terminal.close()

    def say(self, text: str) -> None:
        """Show a line at the terminal, if there is one."""
        if self._terminal is not None:
            self._terminal.write(f"{text}\n".encode(errors="replace"))

    def ask(
        self,
        question: str,
        how: str,
        *,
        default: str | None = None,
        convert: Callable[[str], str] = str,
    ) -> str:
        """Return the answer, or the default for an empty one; ask again without either.

        `how` is the option or variable for the value; `convert` raises a `SettingsError` for a
        value that is not valid.
        """
        if self._terminal is None:
            self._note(how, default)
            return default or ""
        shown = f" [{default}]" if default else ""
        while True:
            self._terminal.write(f"{question}{shown}: ".encode(errors="replace"))
            line = self._terminal.readline()
            if not line:
                raise click.Abort
            value = line.decode(errors="replace").strip() or default
            try:
                if value is not None:
                    return convert(value)
            except SettingsError as error:
                self.say(str(error))

    def ask_secret(self, question: str, how: str) -> str:
        """Return the answer, which is not shown."""
        if self._terminal is None:
            self._note(how, None)
            return ""
        while not (value := terminal.ask_hidden(question)):
            pass
        return value

    def require(self, how: str) -> None:
        """Note what must be given, because it is not asked for."""
        self._missing.append(how)

    def end(self) -> None:
        """Raise click's `UsageError` if something is missing."""
        if self._missing:
            reason = "is missing" if self.can_ask else "cannot be asked for (no terminal)"
            msg = f"{', '.join(dict.fromkeys(self._missing))}: {reason}"
            raise click.UsageError(msg)

    def _note(self, how: str, default: str | None) -> None:
        if default is None:
            self._missing.append(how)
