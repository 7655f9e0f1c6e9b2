"""`moengage-cohort ledger export`, `import`, `copy` and `reopen`: move a whole ledger."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.session import Session, configured
from target_moengage_cohort.cli.terminal import ask, caution, example, require_utf8
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.ledger import archive, archive_files, moving

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.store_facts import StoreFacts

_FILE = click.argument("file", callback=require_utf8)


@click.command(
    "export", epilog=example("moengage-cohort ledger export ledger.zip --config config.json")
)
@_FILE
@configured
def export_archive(session: Session, file: str) -> None:
    """Back up the whole ledger to an archive.

    The archive contains the cohorts of all partners and streams, and the identifiers of members:
    keep it as private as the ledger. FILE is a path, or a URL of a storage that fsspec supports. An
    existing file is replaced once the new one is complete.

    No run can use the ledger in the meantime. If a run is using a stream, the exit code is 4.
    """
    session.refuse_dry_run()
    with (
        session.opener() as opener,
        moving.held(opener, session.settings) as source,
        archive_files.written(file, session.step) as output,
    ):
        archive.write(output, source.facts, source.pieces())
    click.echo(f"Exported {_numbers(source.facts)} to {archive_files.shown(file)}")


@click.command(
    "import", epilog=example("moengage-cohort ledger import ledger.zip --config config.json")
)
@_FILE
@configured
def import_archive(session: Session, file: str) -> None:
    """Restore the whole ledger from an archive.

    FILE must be an archive that `ledger export` wrote for this destination. The configured location
    must not contain a ledger. If runs have used the ledger since the export, the next run is
    refused until you run `ledger accept-older`.
    """
    session.refuse_dry_run()
    with session.opener() as opener:
        with archive_files.read(file) as source:
            store = archive.Archive(source, session.settings)
            pieces, facts = store.pieces, store.store
            with moving.filled(opener, session.settings, facts, pieces) as imported:
                imported.put_in_place()
        click.echo(f"Imported {_numbers(facts)} into {imported.place}")
        with opener.open(session.settings, read_only=True) as ledgers:
            try:
                ledgers.entries()
            except SettingsError as error:  # the archive is older than the last run
                caution(str(error))


@click.command(epilog=example("moengage-cohort ledger copy ledger new/ledger --config config.json"))
@click.argument("origin", metavar="FROM", callback=require_utf8)
@click.argument("destination", metavar="TO", callback=require_utf8)
@configured
def copy(session: Session, origin: str, destination: str) -> None:
    """Move the whole ledger to another location.

    FROM and TO are values of `ledger_uri`; the configured value is ignored. Arguments are visible
    in the process list: pass a password in PGPASSWORD or PGPASSFILE instead.

    FROM keeps its files but is marked as moved: no run or command uses it until `ledger reopen`
    removes the mark. Set `ledger_uri` to TO before the next run.

    No run can use either ledger in the meantime. If a run is using a stream, the exit code is 4.
    """
    session.refuse_dry_run()
    places = (
        msgspec.structs.replace(session.settings, ledger_uri=each) for each in (origin, destination)
    )
    with session.opener() as opener:
        copied = moving.copy(opener, *places)
    click.echo(
        f"Copied {_numbers(copied.facts)} to {copied.place}; {copied.origin} is marked as moved. "
        f"Set ledger_uri to {copied.uri} before the next run"
    )


@click.command(epilog=example("moengage-cohort ledger reopen --config config.json"))
@click.option("--yes", is_flag=True, help="Do not prompt for confirmation.")
@configured
def reopen(session: Session, *, yes: bool) -> None:
    """Reactivate a ledger that `ledger copy` marked as moved.

    It lacks everything that was sent since then with the ledger in the new location. Stop using
    that one: of two ledgers for one destination, each undoes the changes of the other.
    """
    session.refuse_dry_run()
    with session.ledgers() as ledgers:
        ledgers.require()
        uri, place = ledgers.moved_to(), ledgers.place
    if uri is None:
        click.echo(f"{place} is not marked as moved")
        return
    if not yes:
        ask(
            f"The ledger was moved to {uri}. This ledger lacks everything that was sent since "
            "then, and the other one must no longer be used. Reactivate this ledger?"
        )
    with session.ledgers() as ledgers:
        ledgers.reopen()
        ledgers.note_action("reopen")
    click.echo(f"Reopened {place}; the ledger {uri} must no longer be used")


def _numbers(facts: StoreFacts) -> str:
    members = sum(each.base for each in facts.cohorts)
    return f"{format_count(len(facts.cohorts), 'cohort')} with {format_count(members, 'member')}"
