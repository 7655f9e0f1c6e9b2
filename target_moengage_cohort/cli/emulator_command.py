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
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="0 selects a free port.")
@click.option("--workspace-id", default="demo-workspace", help="Workspace ID to accept.")
@click.option("--data-api-key", default="demo-key", help="Data API key to accept.")
@click.option(
    "--order",
    type=click.Choice(["arrival", "last-writer-wins", "drop-older", "late"]),
    default="arrival",
    help="How to resolve conflicting requests of a cohort.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), default=300, help="Rate limit.")
@click.option("--segments-api-key", help="Segments API key, if not the Data API key.")
@click.option("--analytics-api-key", help="Analytics API key, if not the Data API key.")
@click.option(
    "--processing-seconds",
    type=click.FloatRange(0),
    default=0.0,
    help="Seconds until a change is processed and counted.",
)
def emulator(host: str, port: int, **options: t.Any) -> None:
    """Run a local emulator of MoEngage's APIs.

    It implements the Cohort Sync, Segments and Analytics APIs.

    It prints its URL once it is listening, and exits on SIGTERM or Ctrl-C, without keeping any
    data. Open the URL in a browser for a live view of cohorts and requests. The control endpoints
    under /_emulator/ return its state and inject faults. They need no credentials, so bind to a
    non-loopback address only on a trusted network.
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
        msg = f"cannot listen on {host} port {port}: {error.strerror or error}; choose another port"
        raise click.ClickException(msg) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
