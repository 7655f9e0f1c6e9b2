"""`moengage-cohort run`: starts the tap itself, since its exit code proves an input complete."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t

import click

from target_moengage_cohort.cli.session import DONE, configured, example
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.sync.wiring import wired

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.cli.session import Session

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 8.0


@click.command(
    options_metavar="--config FILE|ENV --",
    short_help="Start a tap, and sync what it sends.",
    epilog=example(
        "moengage-cohort run --config config.json -- \\",
        "  tap-postgres --config tap.json --catalog catalog.json > state.json",
    ),
)
@configured
@click.argument("tap", nargs=-1, required=True, type=click.UNPROCESSED, metavar="TAP [ARGUMENT]…")
def run(session: Session, tap: tuple[str, ...]) -> int:
    """Start a tap, and sync what it sends; STATE goes to standard output.

    The same as a pipe from the tap to target-moengage-cohort, but that the tap's exit code is
    known: with 0 the input is complete, with anything else nobody is removed.
    """
    settings = session.settings
    with session.ledgers(read_only=settings.dry_run) as ledgers, _started(tap) as process:

        def tap_exit() -> int | None:
            """Wait for the tap, but no longer than the run is to last."""
            while process.poll() is None and not session.interrupt.wait(_POLL_SECONDS):
                pass
            return process.poll()

        running = wired(session.loaded, session.interrupt, ledgers)
        try:
            running.read(t.cast("t.IO[bytes]", process.stdout))
            running.finish(tap_exit)
        finally:
            session.is_abandoned = running.is_abandoned
    return DONE if running.report is None else running.report.exit_code


@contextlib.contextmanager
def _started(command: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A tap for as long as it is read from; it does not outlive that.

    Raises:
        SettingsError: There is no such command.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - what to start is what the command is for
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        msg = (
            f"{command[0]} cannot be started ({error.strerror}); see that the tap is installed and "
            "on the PATH"
        )
        raise SettingsError(msg) from None
    try:
        yield process
    finally:
        t.cast("t.IO[bytes]", process.stdout).close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
