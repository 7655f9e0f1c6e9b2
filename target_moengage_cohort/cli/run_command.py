"""`moengage-cohort run`: runs the tap itself, because its exit code proves the input complete."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t

import click

from target_moengage_cohort.cli.session import Session, reporting
from target_moengage_cohort.cli.terminal import example
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.sync.process import open_run

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 8.0


@click.command(
    options_metavar="--config FILE|ENV --",
    epilog=example(
        "moengage-cohort run --config config.json -- \\",
        "  tap-postgres --config tap.json --catalog catalog.json > state.json",
    ),
)
@reporting
@click.argument("tap", nargs=-1, required=True, type=click.UNPROCESSED, metavar="TAP [ARGUMENT]…")
def run(session: Session, tap: tuple[str, ...]) -> int:
    """Run a tap and sync its output.

    Writes STATE to standard output. Works like a pipe from the tap to target-moengage-cohort, and
    also checks the tap's exit code: 0 proves that the input is complete. With any other code, no
    members are removed.
    """
    dry_run = session.settings.dry_run
    with session.ledgers(read_only=dry_run) as ledgers, _started(tap) as process:

        def tap_exit() -> int | None:
            """Wait for the tap to exit, but no longer than the run may last."""
            while process.poll() is None and not session.interrupt.wait(_POLL_SECONDS):
                pass
            return process.poll()

        running = open_run(session.config, session.interrupt, ledgers, session.head)
        try:
            running.read(t.cast("t.IO[bytes]", process.stdout))
            running.finish(tap_exit)
        finally:
            session.is_abandoned = running.is_abandoned
            session.report.run = running.report
    return running.exit_code


@contextlib.contextmanager
def _started(command: tuple[str, ...]) -> t.Iterator[subprocess.Popen[bytes]]:
    """Start a tap; it does not outlive the block."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the command line names the program to start
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        msg = (
            f"cannot start {command[0]} ({error.strerror}); check that the tap is installed and on "
            "the PATH"
        )
        raise SettingsError("tap_not_started", msg) from None
    try:
        yield process
    finally:
        t.cast("t.IO[bytes]", process.stdout).close()
        process.terminate()  # does nothing once it has ended
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
