"""`moengage-cohort emulator`."""

from __future__ import annotations

import signal

import click

from target_moengage_cohort.cli.session import example

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_MISSING = "the emulator is not installed: pip install 'target-moengage-cohort[emulator]'"


@click.command(
    context_settings={"show_default": True},
    short_help="Be MoEngage on this machine, to try things out.",
    epilog=example("moengage-cohort emulator --port 8025"),
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    required=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--workspace-id", default="demo-workspace", help="Workspace ID to accept.")
@click.option("--data-api-key", default="demo-key", help="Data API key to accept.")
@click.option(
    "--order",
    type=click.Choice(["arrival", "last-writer-wins", "drop-older", "late"]),
    default="arrival",
    help="What decides between two requests of one cohort.",
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(min=1),
    default=300,
    help="Limit of requests in any rolling 60 seconds.",
)
def emulator(
    host: str,
    port: int,
    workspace_id: str,
    data_api_key: str,
    order: str,
    requests_per_minute: int,
) -> None:
    """Be MoEngage's Cohort Sync API on this machine.

    Prints its address when it listens, and ends at SIGTERM or Ctrl-C. Nothing is kept after that.
    A browser shows there what it holds and what it was sent, and keeps it up to date.
    The control endpoints under /_emulator/ say what it holds and let it fail on demand, without
    credentials: so listen on another address than loopback only where everybody may use them.
    """
    try:
        from target_moengage_cohort.emulator import Emulator  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in {"starlette", "uvicorn"}:
            raise click.ClickException(_MISSING) from None
        raise
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with Emulator(
            host=host,
            port=port,
            workspace_id=workspace_id,
            data_api_key=data_api_key,
            order=order,
            requests_per_minute=requests_per_minute,
        ) as running:
            click.echo(f"MoEngage emulator, to sync to or to open in a browser: {running.url}")
            signal.sigwait(_SIGNALS)
    except OSError as error:
        msg = f"cannot listen on {host} port {port}: {error.strerror or error}; choose another"
        raise click.ClickException(msg) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
