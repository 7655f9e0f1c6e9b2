"""`moengage-cohort`: inspects and manages cohorts; a module for each command."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import typing as t
from pathlib import Path

import click

from target_moengage_cohort.cli.target_command import version_option
from target_moengage_cohort.core.interrupts import end_at_sigint

_COMMANDS = (
    "adopt",
    "check",
    "confirm",
    "empty",
    "emulator",
    "forget",
    "history",
    "init",
    "ledger",
    "pause",
    "plan",
    "resume",
    "resync",
    "run",
    "segments",
    "status",
    "verify",
)


class _LazyGroup(click.Group):
    """Imports a command's module only when it is used: commands have different dependencies."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of a name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name}_command")
        return t.cast("click.Command", getattr(module, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments call; suggest one for a misspelled name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            similar = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if not similar:
                raise
            msg = f"No such command {args[0]!r}. Did you mean {similar[0]!r}?"
            raise click.UsageError(msg, ctx) from None


_EPILOG = """\b
Shell completion:
  bash, in ~/.bashrc:
    eval "$(_MOENGAGE_COHORT_COMPLETE=bash_source moengage-cohort)"
  zsh, in ~/.zshrc:
    eval "$(_MOENGAGE_COHORT_COMPLETE=zsh_source moengage-cohort)"
  fish, in ~/.config/fish/completions/moengage-cohort.fish:
    _MOENGAGE_COHORT_COMPLETE=fish_source moengage-cohort | source

\b
Example:
  moengage-cohort check --config config.json
"""


@click.group(
    name="moengage-cohort",
    cls=_LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@version_option
def cli() -> None:
    """Inspect and manage MoEngage cohorts.

    To run a sync, use target-moengage-cohort. Each COMMAND has its own --help.
    """


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have characters it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdin is None:  # it was closed: readers get an empty input
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - until the process ends
    umask = os.umask(0o077)  # only the owner can read the files that we create
    end_at_sigint()  # until a command begins
    cli(prog_name="moengage-cohort", obj=umask)
