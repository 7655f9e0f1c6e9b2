"""The command line of ``target-moengage-cohort``: what every Singer target of the SDK's offers.

Each part is imported when it is asked for; the SDK alone takes longer than a run without records.
"""

from __future__ import annotations

import logging
import os
import sys
import typing as t
import warnings

import click

from target_moengage_cohort import NAME, version

_LOG_FORMAT = "{asctime:23s} | {levelname:8s} | {name:30s} | {message}"  # the SDK's
_LEVEL_VARIABLES = ("TARGET_MOENGAGE_COHORT_LOGLEVEL", "LOGLEVEL")


def main() -> None:
    """Run the command line, with a log on standard error."""
    if "SINGER_SDK_LOG_CONFIG" in os.environ:  # the SDK reads the file that it names
        from target_moengage_cohort.target import TargetMoEngageCohort  # noqa: PLC0415

        TargetMoEngageCohort.cli()
    else:
        _set_up_logging()
        command()


def _set_up_logging() -> None:
    variable = next(filter(os.environ.get, _LEVEL_VARIABLES), None)
    level = os.environ[variable].upper() if variable else "INFO"
    try:
        logging.basicConfig(level=level, format=_LOG_FORMAT, style="{")
    except ValueError:
        sys.exit(f"Error: {variable}: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")


def _show_version(
    context: click.Context,
    _parameter: click.Parameter,
    value: bool,  # noqa: FBT001 - as click calls it
) -> None:
    if value:
        click.echo(version())
        context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Display the package version.",
)


def _read_files(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[dict[str, t.Any], bool]:
    """The raw configuration in the files, and whether the environment is to be added."""
    from target_moengage_cohort.settings import sources as configuration  # noqa: PLC0415

    return configuration.from_files(value), configuration.ENVIRONMENT in value


_HELP = """Keep MoEngage cohorts equal to what a tap sends: Singer messages on standard input, STATE
on standard output.

What people do beside a sync: moengage-cohort --help
"""
_EXAMPLE = """\b
Example:
  tap-postgres --config tap.json --catalog catalog.json \\
    | target-moengage-cohort --config config.json > state.json
"""


@click.command(NAME, help=_HELP, epilog=_EXAMPLE)
@version_option
@click.option("--about", is_flag=True, help="Display package metadata and settings.")
@click.option(
    "--format",
    "about_format",
    type=click.Choice(["json", "markdown"], case_sensitive=False),
    help="Specify output style for --about",
)
@click.option(
    "--config",
    multiple=True,
    is_eager=True,
    callback=_read_files,
    type=click.Path(readable=False),  # for completion; reading it says more of what is wrong
    metavar="TEXT",
    help="Configuration file location or 'ENV' to use environment variables.",
)
@click.option(
    "--input",
    "source",
    type=click.File("r"),
    help="A path to read messages from instead of from standard in.",
)
def command(
    *,
    about: bool,
    about_format: str | None,
    config: tuple[dict[str, t.Any], bool],
    source: t.IO[str] | None,
) -> None:
    """Run the target, or tell what it is."""
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("once", category=DeprecationWarning)
    if about:
        from target_moengage_cohort.target import TargetMoEngageCohort  # noqa: PLC0415

        TargetMoEngageCohort.print_about(about_format)
        return
    from target_moengage_cohort.sync import process as sync  # noqa: PLC0415

    given, from_environment = config
    sync.run(given, from_environment=from_environment, source=source)
