"""`moengage-cohort adopt` and `moengage-cohort ledger`: put right what the ledger says."""

from __future__ import annotations

import typing as t
from pathlib import Path

import click

from target_moengage_cohort.cli.identifiers import read_members
from target_moengage_cohort.cli.session import DONE, Session, configured, example, text
from target_moengage_cohort.core.errors import SettingsError, TryAgainError
from target_moengage_cohort.core.membership import Cohort, cohort_name_fault

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.settings import Config, Mapping


@click.command(
    short_help="Take members as accepted without sending them.",
    epilog=example("moengage-cohort adopt vip --csv members.csv --config config.json"),
)
@click.argument("cohort", callback=text)
@click.option(
    "--csv",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="CSV with a header that has uid, anonymous_id or both.",
)
@click.option(
    "--stream", callback=text, help="The stream that feeds it, where it feeds many cohorts."
)
@click.option(
    "--name", callback=text, help="The cohort's name, where the configuration does not say it."
)
@configured
def adopt(session: Session, cohort: str, file: str, stream: str | None, name: str | None) -> int:
    """Take members as accepted without sending them: MoEngage has them already.

    They must be in the cohort in MoEngage, added under the same partner. A mirror then sends
    the difference only.
    """
    session.refuse_dry_run()
    if not Path(file).is_file():
        msg = f"--csv: {file} is no regular file, and it must be read twice; save it as one"
        raise SettingsError(msg)
    count = sum(len(members) for members in read_members(file, needs_header=True))
    with session.ledgers() as ledgers:
        if ledgers.has(cohort) and stream is None and name is None:
            ledger = ledgers.open_known(cohort)
        else:
            found, feeding = _identity(session.loaded, cohort, stream, name)
            ledger = ledgers.open(found, feeding)
        how = "made a ledger for it" if ledger.created else f"stream {ledger.entry.stream!r}"
        added = ledger.adopt(_until_stopped(session, read_members(file, needs_header=True)))
    click.echo(
        f"cohort {cohort!r} ({how}): {count:,} members read, {added:,} of them new to the ledger; "
        "nothing was sent"
    )
    return DONE


def _until_stopped(session: Session, chunks: Iterable[list[Member]]) -> Iterator[list[Member]]:
    """Go on with what is read unless the command is stopped: then nobody is adopted.

    Raises:
        TryAgainError: It is stopped.
    """
    for members in chunks:
        if session.interrupt.is_set():
            msg = "stopped before all was read, so nobody was adopted"
            raise TryAgainError(msg)
        yield members


def _identity(
    loaded: Config, cohort_id: str, stream: str | None, name: str | None
) -> tuple[Cohort, str]:
    """A cohort as its stream's runs will call it, and the stream.

    Raises:
        SettingsError: The configuration does not say it, or says something else.
    """
    if stream is not None:
        mapping = _feeding(loaded, cohort_id, stream)
    else:
        mapping, stream = _of_cohort(loaded, cohort_id), cohort_id
    if mapping is not None and mapping.cohort is not None:
        if name not in {None, mapping.cohort.name}:
            msg = (
                f"--name: the configuration names the cohort {cohort_id!r} "
                f"{mapping.cohort.name!r}; leave the option out, or change cohort_name"
            )
            raise SettingsError(msg)
        return mapping.cohort, mapping.stream
    if fault := cohort_name_fault(name or cohort_id):
        msg = f"--name: {fault}; choose another"
        raise SettingsError(msg)
    description = None if mapping is None else mapping.cohort_description
    return Cohort(cohort_id, name or cohort_id, description), stream


def _of_cohort(loaded: Config, cohort_id: str) -> Mapping | None:
    """The mapping that names a cohort; ``None`` where every stream is a cohort by its own name.

    Raises:
        SettingsError: No mapping does.
    """
    for mapping in loaded.mappings.values():
        if mapping.cohort is not None and mapping.cohort.cohort_id == cohort_id:
            return mapping
    if not loaded.mappings:
        return None
    msg = (
        f"cohorts: no stream's cohort_id is {cohort_id!r}; give --stream, and --name if its name "
        "is not its id"
    )
    raise SettingsError(msg)


def _feeding(loaded: Config, cohort_id: str, stream: str) -> Mapping | None:
    """The mapping of a stream that may feed a cohort, if the configuration has mappings.

    A utility in Meltano need not have them, though the target does.

    Raises:
        SettingsError: The stream is not configured, or feeds another one.
    """
    if not loaded.mappings:
        return None
    mapping = loaded.mapping(stream)
    if mapping.cohort is not None and mapping.cohort.cohort_id != cohort_id:
        msg = (
            f"cohorts.{stream}: feeds the cohort {mapping.cohort.cohort_id!r}, not {cohort_id!r}; "
            "change its cohort_id first"
        )
        raise SettingsError(msg)
    return mapping


@click.group(
    short_help="Change a cohort's stream or name.",
    epilog=example("moengage-cohort ledger rename vip 'VIP users' --config config.json"),
)
def ledger() -> None:
    """Change to whom a ledger belongs."""


@ledger.command(
    short_help="Let another stream feed a cohort.",
    epilog=example("moengage-cohort ledger reassign vip customers --config config.json"),
)
@click.argument("cohort", callback=text)
@click.argument("stream", callback=text)
@configured
def reassign(session: Session, cohort: str, stream: str) -> int:
    """Let another stream feed a cohort.

    What was accepted stays. A mirror removes whoever is not in the new stream.
    """
    session.refuse_dry_run()
    if not stream.strip():
        msg = "the stream's name must not be blank"
        raise SettingsError(msg)
    _feeding(session.loaded, cohort, stream)
    with session.ledgers() as ledgers:
        known = ledgers.open_known(cohort)
        before = known.entry.stream
        if before == stream:
            click.echo(f"cohort {cohort!r}: is already fed by the stream {stream!r}")
            return DONE
        known.reassign(stream)
    click.echo(f"cohort {cohort!r}: fed by the stream {stream!r} from now on, not by {before!r}")
    return DONE


@ledger.command(
    short_help="Give a cohort another name.",
    epilog=example("moengage-cohort ledger rename vip 'VIP users' --config config.json"),
)
@click.argument("cohort", callback=text)
@click.argument("name", callback=text)
@configured
def rename(session: Session, cohort: str, name: str) -> int:
    """Give a cohort another name, to be sent with its next requests.

    MoEngage does not document what it does with a cohort whose name has changed: it may rename
    the segment, make a second one, or drop the requests. Look at the segment after the next run.
    """
    session.refuse_dry_run()
    if fault := cohort_name_fault(name):
        msg = f"cohort_name: {fault}; MoEngage may drop such a name without a word; choose another"
        raise SettingsError(msg)
    with session.ledgers() as ledgers:
        known = ledgers.open_known(cohort)
        for entry in ledgers.entries():
            if entry.name == name and entry.cohort_id != cohort:
                msg = (
                    f"the cohort {entry.cohort_id!r} has the name {name!r}; MoEngage uses a name "
                    "for one segment only, so choose another"
                )
                raise SettingsError(msg)
        before = known.entry.name
        known.rename(name)
    click.echo(
        f"cohort {cohort!r}: goes by {name!r} from now on, not by {before!r}. MoEngage does not "
        "document what becomes of a segment whose name changes: look at it after the next run."
    )
    return DONE
