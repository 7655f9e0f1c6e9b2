"""`moengage-cohort resume`: ends a pause."""

from __future__ import annotations

import click

from target_moengage_cohort.cli.pause_command import check_name, named
from target_moengage_cohort.cli.session import Session, configured
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError


@click.command(epilog=example("moengage-cohort resume users --config config.json"))
@click.argument("stream", callback=require_utf8, required=False)
@configured
def resume(session: Session, stream: str | None) -> None:
    """End the pause of a STREAM.

    Without STREAM, ends all pauses. The next run of each stream resumes from the last STATE that
    was written.
    """
    session.refuse_dry_run()
    with session.ledgers() as ledgers:
        ended = ledgers.resume(stream)
        left = [each.stream for each in ledgers.pauses()]
        if stream is not None and not ended:
            check_name(session, ledgers, stream)
    for name in ended:
        click.echo(f"{named(name)}: resumed in {ledgers.place}")
    if stream is not None and None in left:
        msg = f"all streams are paused, including {stream!r}; run: {suggest('resume')}"
        raise SettingsError("stream_paused", msg)
    if not ended:
        rest = f" Paused: {', '.join(map(named, left))}" if left else ""
        click.echo(f"{named(stream)}: not paused in {ledgers.place}.{rest}")
