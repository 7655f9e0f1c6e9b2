"""`moengage-cohort ledger`: checks, moves and changes ledgers."""

from __future__ import annotations

import typing as t
from pathlib import Path

import click
import msgspec

from target_moengage_cohort.cli.cohort_members import prepared, remove_all
from target_moengage_cohort.cli.moving_commands import (
    copy,
    export_archive,
    import_archive,
    reopen,
)
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured, reporting, show
from target_moengage_cohort.cli.terminal import complain, example, require_utf8
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, SettingsError, TryAgainError
from target_moengage_cohort.core.membership import cohort_name_fault
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.ledger.repairs import move_away

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.records import Fault
    from target_moengage_cohort.settings import Config, StreamMapping


_EXAMPLE = example("moengage-cohort ledger rename vip 'VIP users' --config config.json")


@click.group(epilog=_EXAMPLE)
def ledger() -> None:
    """Check, back up, move and change ledgers."""


@ledger.command(epilog=example("moengage-cohort ledger reassign vip buyers --config config.json"))
@click.argument("names", callback=require_utf8, nargs=-1, metavar="[COHORT] STREAM")
@click.option(
    "--from",
    "former",
    callback=require_utf8,
    metavar="STREAM",
    help="Move all cohorts of this stream, such as after it was renamed, instead of one cohort.",
)
@configured
def reassign(session: Session, names: tuple[str, ...], former: str | None) -> None:
    """Assign one or more cohorts to another stream.

    The accepted members are kept. A mirror removes those that are not in the new stream.

    With --from, the new stream also takes over plans, approvals, pauses and the tap's versions. To
    continue after a crash, run the same command again.
    """
    if len(names) != (1 if former is not None else 2):
        msg = "specify COHORT and STREAM, or --from STREAM and the new STREAM"
        raise click.UsageError(msg)
    session.refuse_dry_run()
    if not names[-1].strip():
        raise SettingsError("invalid_stream", "the stream's name must not be blank")
    if former is None:
        _reassign_one(session, *names)
    else:
        _reassign_all(session, former, names[0])


def _reassign_one(session: Session, cohort: str, stream: str) -> None:
    mapping_of(session.config, cohort, stream)
    with session.ledgers() as ledgers:
        before = ledgers.open_known(cohort).entry.stream
        if before == stream:
            click.echo(f"cohort {cohort!r}: already belongs to stream {stream!r}")
            return
        ledgers.reassign(cohort, stream)
        entry = ledgers.open_known(cohort).entry
        ledgers.note_action("reassign", entry, members=entry.counts.base)
    click.echo(f"cohort {cohort!r}: now belongs to stream {stream!r}, no longer to {before!r}")


def _reassign_all(session: Session, former: str, stream: str) -> None:
    if former == stream:
        raise SettingsError("invalid_stream", "--from and STREAM must be different streams")
    with session.ledgers() as ledgers:
        if former not in ledgers.streams():
            msg = f"stream {former!r} has no ledger in {ledgers.place}; see {suggest('status')}"
            raise SettingsError("no_ledger", msg)
        cohorts = [entry.cohort_id for entry in ledgers.entries(former)]
        mapping = session.config.mapping(stream) if session.config.mappings else None
        fixed = mapping.cohort.cohort_id if mapping is not None and mapping.cohort else None
        if cohorts and fixed not in {None, *cohorts}:
            mapping_of(session.config, cohorts[0], stream)
        moved = ledgers.reassign_all(former, stream)
    if moved:
        count = format_count(len(moved), "cohort")
        click.echo(f"Moved {count} from stream {former!r} to stream {stream!r}")
    else:
        click.echo(f"stream {former!r}: no cohorts left to move to stream {stream!r}")


@ledger.command(epilog=_EXAMPLE)
@click.argument("cohort", callback=require_utf8)
@click.argument("name", callback=require_utf8)
@configured
def rename(session: Session, cohort: str, name: str) -> None:
    """Change the name of a cohort.

    The next requests carry the new name. MoEngage does not document how it handles a changed name:
    it may rename the segment, create a second one, or drop the requests. Check the segment after
    the next run.
    """
    session.refuse_dry_run()
    if fault := cohort_name_fault(name):
        msg = f"NAME: {fault}. MoEngage may silently drop requests with it; choose another name"
        raise SettingsError("invalid_cohort_name", msg)
    with session.ledgers() as ledgers:
        cohort_ledger = ledgers.open_known(cohort)
        for entry in ledgers.entries():
            if entry.name == name and entry.cohort_id != cohort:
                msg = (
                    f"cohort {entry.cohort_id!r} already has the name {name!r}; MoEngage allows "
                    "one segment per name; choose another name"
                )
                raise SettingsError("name_taken", msg)
        before = cohort_ledger.entry.name
        cohort_ledger.rename(name)
        ledgers.note_action("rename", cohort_ledger.entry)
    click.echo(
        f"cohort {cohort!r}: renamed from {before!r} to {name!r}. MoEngage does not document what "
        "happens to a segment whose name changes: check the segment after the next run."
    )


@ledger.command(epilog=example("moengage-cohort ledger retire vip --config config.json"))
@click.argument("cohort", callback=require_utf8)
@click.option("--yes", is_flag=True, help="Do not prompt for confirmation.")
@reporting
def retire(session: Session, cohort: str, *, yes: bool) -> None:
    """Empty a cohort permanently and reserve its name.

    No run populates the cohort again: rows for it are rejected. MoEngage never releases a name.
    """
    with prepared(session, cohort, yes=yes) as (ledgers, cohort_ledger):
        if cohort_ledger.entry.is_retired:
            click.echo(f"cohort {cohort!r}: already retired")
        elif left := remove_all(session, ledgers, cohort_ledger, "retire"):
            command = suggest("ledger", "retire", cohort)
            msg = (
                f"cohort {cohort!r}: {format_count(left, 'member')} could not be removed, so it "
                f"was not retired; to continue, run: {command}"
            )
            raise TryAgainError("members_left", msg)
        else:
            cohort_ledger.retire()
            click.echo(f"cohort {cohort!r}: retired")


@ledger.command(epilog=example("moengage-cohort ledger accept-older --config config.json"))
@click.argument("streams", callback=require_utf8, nargs=-1, metavar="[STREAM]...")
@configured
def accept_older(session: Session, streams: tuple[str, ...]) -> None:
    """Trust a ledger that was restored or replaced.

    The ledger is used as it is, even if the state directory has a record of a newer or different
    one. With STREAM, trusts the members in that stream's file (none if the file is missing), even
    if the ledger has recorded other numbers. `ledger check` lists these streams.

    Afterwards, run `resync`: the next run then re-sends all members, in case MoEngage lacks some.
    Members that MoEngage has but the ledger lacks are removed only after `adopt` and a run.
    """
    session.refuse_dry_run()
    with session.ledgers() as ledgers:
        for stream in streams:
            ledgers.accept_members(stream)
            click.echo(f"stream {stream!r}: accepted the members in its file")
        if not streams:
            is_there, place = ledgers.accept_older(), ledgers.place
            nothing = f"There is no ledger in {place}; the next run creates one"
            click.echo(f"Accepted {place}" if is_there else nothing)


@ledger.command(epilog=example("moengage-cohort ledger check --config config.json"))
@click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")
@configured
def check(session: Session, *, as_json: bool) -> int:
    """Check the ledger for damage.

    Recomputes sizes, digests, owners and marks of all streams of the partner, and changes nothing.
    Prints a repair command for each fault. Exits with 1 if there are faults, else with 4 if a
    stream is busy.
    """
    checked, busy, faults = [], [], []
    with session.ledgers(read_only=True) as ledgers:
        for stream in ledgers.streams():
            if session.interrupt.is_set():
                break
            try:
                faults += ledgers.inspect(stream)
                checked.append(stream)
            except BusyError as error:
                busy.append(stream)
                complain(str(error))
        faults += ledgers.unknown_files()
        place = ledgers.place
    found = [msgspec.structs.asdict(each) | {"command": _repair(each)} for each in faults]
    result = {"ledger": place, "checked": checked, "busy": busy, "faults": found}
    show(result, _lines(place, len(checked), faults), as_json=as_json)
    if faults:
        return FAILED
    return BusyError.exit_code if busy else DONE


for _command in (export_archive, import_archive, copy, reopen):
    ledger.add_command(_command)


def _repair(fault: Fault) -> str:
    if fault.code in {"members_unusable", "unknown_file"}:  # so that the next check finds none
        return move_away(Path(fault.path))
    return suggest("ledger", "accept-older", fault.stream or "")


def _lines(place: str, checked: int, faults: list[Fault]) -> Iterator[str]:
    yield f"Ledger: {place}"
    for fault in faults:
        where = [f"stream {fault.stream!r}"] if fault.stream is not None else []
        where += [f"cohort {fault.cohort_id!r}"] if fault.cohort_id is not None else []
        yield f"{', '.join(where) or fault.path}: {fault.message}\n  to repair: {_repair(fault)}"
    yield f"Checked {format_count(checked, 'stream')}: {format_count(len(faults), 'fault')}"


def mapping_of(config: Config, cohort_id: str, stream: str) -> StreamMapping | None:
    """Return the mapping of a stream that may populate a cohort.

    ``None`` if the configuration has no mappings: a utility in Meltano may lack the target's.
    """
    mapping = config.mapping(stream) if config.mappings else None
    if mapping is not None and mapping.cohort is not None and mapping.cohort.cohort_id != cohort_id:
        msg = (
            f"cohorts.{stream}: the stream populates cohort {mapping.cohort.cohort_id!r}, not "
            f"{cohort_id!r}; change its cohort_id first"
        )
        raise SettingsError("cohort_mismatch", msg)
    return mapping
