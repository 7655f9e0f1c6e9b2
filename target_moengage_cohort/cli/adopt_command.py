"""`moengage-cohort adopt`: imports members that MoEngage already has into the ledger."""

from __future__ import annotations

import typing as t
from pathlib import Path

import click

from target_moengage_cohort.cli.ledger_command import mapping_of
from target_moengage_cohort.cli.session import Session, configured
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.errors import RowError, SettingsError, TryAgainError
from target_moengage_cohort.core.member_lists import read_members
from target_moengage_cohort.core.membership import Cohort, Member, cohort_name_fault
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Config


@click.command(epilog=example("moengage-cohort adopt vip --csv members.csv --config config.json"))
@click.argument("cohort", callback=require_utf8)
@click.option(
    "--csv",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="CSV with a header row that contains uid, anonymous_id or both.",
)
@click.option("--stream", callback=require_utf8, help="Stream, if it populates several cohorts.")
@click.option("--name", callback=require_utf8, help="Cohort name, if the configuration has none.")
@configured
def adopt(session: Session, cohort: str, file: str, stream: str | None, name: str | None) -> None:
    """Import existing members into the ledger without sending them.

    The members must already be in the cohort in MoEngage, added under the same partner. A mirror
    then sends only the differences. From a file that `verify --differences` wrote, only the rows
    with the difference `stranger` are imported.
    """
    session.refuse_dry_run()
    if not Path(file).is_file():
        msg = f"--csv: {file} must be a regular file because it is read twice; save the data first"
        raise SettingsError("not_a_regular_file", msg)
    count = sum(len(members) for members in _members_to_adopt(file))
    with session.ledgers() as ledgers:
        owner = _cohort_and_stream(session.config, ledgers, cohort, stream, name)
        try:
            ledger = ledgers.open(*owner)
        except RowError as error:
            raise SettingsError(error.code, error.reason) from None
        origin = "new ledger" if ledger.created else f"stream {ledger.entry.stream!r}"
        added = ledger.adopt(_until_stopped(session, _members_to_adopt(file)))
        ledgers.note_action("adopt", ledger.entry, read=count, added=added)
    click.echo(
        f"cohort {cohort!r} ({origin}): {format_count(count, 'member')} read, {added:,} added to "
        "the ledger; nothing was sent"
    )


def _members_to_adopt(file: str) -> Iterator[list[Member]]:
    """Read a file; in a file of differences, removed and missing members are not in the cohort."""
    return read_members(file, needs_header=True, only="stranger")


def _until_stopped(session: Session, batches: Iterable[list[Member]]) -> Iterator[list[Member]]:
    """Pass batches on; raise `TryAgainError` if the command is stopped, so none are adopted."""
    for members in batches:
        if session.interrupt.is_set():
            msg = "stopped before the whole file was read; no members were imported"
            raise TryAgainError("interrupted", msg)
        yield members


def _cohort_and_stream(
    config: Config, ledgers: LedgerStore, cohort_id: str, stream: str | None, name: str | None
) -> tuple[Cohort, str]:
    """Return a cohort as the runs of its stream will name it, and that stream."""
    if stream is None and name is None and ledgers.has(cohort_id):
        entry = ledgers.open_known(cohort_id).entry
        return entry.cohort, entry.stream
    if stream is None:
        streams = {
            each.cohort.cohort_id: each.stream
            for each in config.mappings.values()
            if each.cohort is not None
        }
        if config.mappings and cohort_id not in streams:
            msg = (
                f"cohorts: no stream has cohort_id {cohort_id!r}; use --stream, and --name if the "
                "cohort's name differs from its ID"
            )
            raise SettingsError("unknown_cohort", msg)
        stream = streams.get(cohort_id, cohort_id)
    mapping = mapping_of(config, cohort_id, stream)
    if mapping is not None and mapping.cohort is not None:
        if name not in {None, mapping.cohort.name}:
            msg = (
                f"--name: the configuration sets the name of cohort {cohort_id!r} to "
                f"{mapping.cohort.name!r}; omit the option, or change cohort_name"
            )
            raise SettingsError("cohort_name_mismatch", msg)
        return mapping.cohort, stream
    if fault := cohort_name_fault(name or cohort_id):
        raise SettingsError("invalid_cohort_name", f"--name: {fault}; choose another name")
    description = None if mapping is None else mapping.cohort_description
    return Cohort(cohort_id, name or cohort_id, description), stream
