"""`moengage-cohort`: what people do beside a sync."""

from __future__ import annotations

import importlib
import io
import sys
import typing as t

import click

from target_moengage_cohort.cli.target_command import version_option
from target_moengage_cohort.core.interrupts import end_at_sigint

_MODULES = {
    "adopt": "ledger_command",
    "check": "check_command",
    "confirm": "confirm_command",
    "emulator": "emulator_command",
    "empty": "empty_command",
    "forget": "forget_command",
    "ledger": "ledger_command",
    "plan": "plan_command",
    "resync": "resync_command",
    "run": "run_command",
    "status": "status_command",
}


class _Commands(click.Group):
    """Imports a command when it is asked for: none needs all that the others do."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return sorted({*super().list_commands(ctx), *_MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        if (module := _MODULES.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        found = importlib.import_module(f"{__name__}.{module}")
        return t.cast("click.Command", getattr(found, cmd_name))


_EPILOG = """\b
Completion of commands, options and files by the Tab key:
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
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@version_option
def cli() -> None:
    """What people do beside a sync of cohorts to MoEngage.

    Each COMMAND has a --help of its own. A sync is what target-moengage-cohort does.
    """


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    end_at_sigint()  # until a command begins
    cli(prog_name="moengage-cohort")
