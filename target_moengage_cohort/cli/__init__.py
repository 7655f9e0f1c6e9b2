"""`moengage-cohort`: what people do beside a sync."""

from __future__ import annotations

import click

from .emulator import emulator


@click.group(name="moengage-cohort", context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """What people do beside a sync of cohorts to MoEngage."""


cli.add_command(emulator)


def main() -> None:
    """Run the command line."""
    cli(prog_name="moengage-cohort")
