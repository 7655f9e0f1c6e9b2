"""`moengage-cohort emulator`: runs a local MoEngage emulator."""

from __future__ import annotations

import signal
import typing as t

import click

from target_moengage_cohort.cli.terminal import example

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_MISSING = "the emulator is not installed: pip install 'target-moengage-cohort[emulator]'"


@click.command(
    context_settings={"show_default": True},
    epilog=example("moengage-cohort emulator --port 8025"),
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="0 takes a free port.")
@click.option("--workspace-id", default="demo-workspace", help="Workspace ID to accept.")
@click.option("--data-api-key", default="demo-key", help="Data API key to accept.")
@click.option(
    "--order",
    type=click.Choice(["arrival", "last-writer-wins", "drop-older", "late"]),
    default="arrival",
    help="How conflicting requests of a cohort are resolved.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), default=300, help="Rate limit.")
@click.option("--segments-api-key", help="Segments API key to accept in place of the Data API key.")
@click.option("--analytics-api-key", help="Analytics API key to accept, likewise.")
@click.option(
    "--processing-seconds",
    type=click.FloatRange(0),
    default=0.0,
    help="How long MoEngage takes until it counts a change.",
)
def emulator(host: str, port: int, **options: t.Any) -> None:
    """Run a local emulator of MoEngage's APIs.

    It speaks Cohort Sync, the Segments API and the Analytics API.

    It prints its address once it listens, and exits on SIGTERM or Ctrl-C. Nothing is kept after
    that. Open the address in a browser for a live view of its cohorts and requests. The control
    endpoints under /_emulator/ return its state and inject faults. They need no credentials, so
    bind to a non-loopback address only on a trusted network.
    """
    try:
        from target_moengage_cohort.emulator import Emulator  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in {"starlette", "uvicorn"}:
            raise click.ClickException(_MISSING) from None
        raise
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with Emulator(host=host, port=port, **options) as running:
            click.echo(f"MoEngage emulator, for the target and your browser: {running.url}")
            signal.sigwait(_SIGNALS)
    except OSError as error:
        msg = f"cannot listen on {host} port {port}: {error.strerror or error}; choose another one"
        raise click.ClickException(msg) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
