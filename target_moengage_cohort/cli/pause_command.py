"""`moengage-cohort pause`: stops the runs of one stream, or of all, from sending anything."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.session import Session, configured
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.convert import nearest_name

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import LedgerStore


@click.command(epilog=example("moengage-cohort pause users --config config.json"))
@click.argument("stream", callback=require_utf8, required=False)
@configured
def pause(session: Session, stream: str | None) -> None:
    """Stop all runs of a STREAM from sending anything, on every host.

    Without STREAM, pauses all streams. The pause lasts until `resume`. A run of a paused stream
    drops its rows, writes no STATE that covers them, and exits with 3. A run in progress stops
    before its next request. `confirm` is also refused; other commands are not.
    """
    session.refuse_dry_run()
    with session.ledgers() as ledgers:
        if stream is not None:
            check_name(session, ledgers, stream)
        is_new = ledgers.pause(stream)
    click.echo(f"{named(stream)}: {'' if is_new else 'already '}paused in {ledgers.place}")
    click.echo(f"To end the pause, run: {suggest('resume', stream or '')}")


def named(stream: str | None) -> str:
    """Return a stream for a message, or all of them."""
    return "all streams" if stream is None else f"stream {stream!r}"


def check_name(session: Session, ledgers: LedgerStore, stream: str) -> None:
    """Raise an error for an unknown stream: a misspelled name would pause nothing."""
    known = {*session.config.mappings, *ledgers.streams()}
    if stream in known:
        return
    like = nearest_name(stream, known)
    hint = f"did you mean {like!r}?" if like else f"known: {', '.join(sorted(known)) or 'none'}"
    msg = f"unknown stream {stream!r}: not in the configuration, nor in {ledgers.place}; {hint}"
    raise SettingsError("unknown_stream", msg)
