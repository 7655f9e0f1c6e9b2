"""The command ``target-moengage-cohort``, with the options of every Singer target of the SDK's.

Each part is imported when it is needed: importing the SDK takes longer than a run without records.
"""

from __future__ import annotations

import logging
import os
import sys
import typing as t
import warnings

import click

from target_moengage_cohort import NAME, version
from target_moengage_cohort.cli.terminal import example

_LOG_FORMAT = "{asctime:23s} | {levelname:8s} | {name:30s} | {message}"  # the SDK's
_LEVEL_VARIABLES = ("TARGET_MOENGAGE_COHORT_LOGLEVEL", "LOGLEVEL")


def log_level() -> str:
    """Return the log level that the environment sets; exit if it is invalid."""
    variable = next(filter(os.environ.get, _LEVEL_VARIABLES), None)
    level = os.environ[variable].upper() if variable else "INFO"
    if level not in logging.getLevelNamesMapping():
        sys.exit(f"Error: {variable}: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level


def main() -> None:
    """Run the command line, with a log on standard error."""
    level = log_level()
    if "SINGER_SDK_LOG_CONFIG" in os.environ:  # Meltano asks for structured logs this way
        from singer_sdk._logging import _setup_console_logging  # noqa: PLC0415 - slow to import

        _setup_console_logging(log_level=level)
    else:
        logging.basicConfig(level=level, format=_LOG_FORMAT, style="{")
    # The report has warnings that the log leaves out, so the handlers have the level.
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setLevel(level)
    root.setLevel(min(logging.getLevelNamesMapping()[level], logging.WARNING))
    command()


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - as click calls it
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
    """Return the raw configuration in the files, and whether to add the environment's."""
    from target_moengage_cohort.settings import sources  # noqa: PLC0415

    try:
        return sources.from_files(value), sources.ENVIRONMENT in value
    except click.ClickException:
        from target_moengage_cohort.singer.lines import discard  # noqa: PLC0415

        discard(sys.stdin, lambda: False)  # so that the error comes after the tap's last words
        raise


@click.command(
    NAME,
    epilog=example(
        "tap-postgres --config tap.json --catalog catalog.json \\",
        "  | target-moengage-cohort --config config.json > state.json",
    ),
)
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
    type=click.Path(readable=False),  # for shell completion; reading it gives better errors
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
    """Keep MoEngage cohorts in sync with what a tap sends.

    Reads Singer messages from standard input and writes STATE to standard output. To inspect and
    manage cohorts, see moengage-cohort --help.
    """
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("once", category=DeprecationWarning)
    if about:
        from target_moengage_cohort.settings.about import format_about  # noqa: PLC0415

        click.echo(format_about(about_format))
        return
    from target_moengage_cohort.sync import process  # noqa: PLC0415

    raw, from_environment = config
    process.run(raw, from_environment=from_environment, source=source)
