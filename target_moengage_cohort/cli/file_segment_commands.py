"""`moengage-cohort segments file`: changes segments whose users come from files."""

from __future__ import annotations

import contextlib
import logging
import typing as t
from collections import Counter

import click
import msgspec

from target_moengage_cohort.cli.empty_command import known_members
from target_moengage_cohort.cli.file_segment_change import FileChange, FileSender, SentFile
from target_moengage_cohort.cli.file_segment_options import FileOptions, takes_file
from target_moengage_cohort.cli.segment_callbacks import CallbackListener
from target_moengage_cohort.cli.segment_parts import (
    csv_values,
    member_values,
    opened_csv,
    write_parts,
)
from target_moengage_cohort.cli.segment_storage import SegmentStorage
from target_moengage_cohort.cli.segment_users import FileUsers
from target_moengage_cohort.cli.segments_api import segments_api
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError, TryAgainError
from target_moengage_cohort.core.files import Scratch
from target_moengage_cohort.core.text import format_count, printable
from target_moengage_cohort.moengage.segment_files import FAULTS

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from target_moengage_cohort.cli.file_segment_change import ChangeKind
    from target_moengage_cohort.cli.segment_parts import Part
    from target_moengage_cohort.ledger.moving import Opener

logger = logging.getLogger(__name__)

_TITLES = {
    "create": "Create",
    "add": "Add users to",
    "remove": "Remove users from",
    "replace": "Replace the users of",
}
_STATES = {
    "accepted": "accepted; MoEngage has not processed it yet",
    "processed": "processed",
    "failed": "MoEngage could not process it",
    "unanswered": "accepted, but no callback came in time",
    "unknown": "the request got no clear answer, so it may have been accepted",
}


def _example(start: str) -> str:
    return example(
        f"moengage-cohort segments file {start} \\",
        "  --csv staff.csv --upload files --public-url https://files.example.com \\",
        "  --config config.json",
    )


@click.group(epilog=_example("add Staff"))
def file() -> None:
    """Change file segments.

    A file segment consists of the users whose attribute has one of the values in a file: a CSV of
    one column that MoEngage fetches. Each command takes --url for a file that is already where
    MoEngage can fetch it. Otherwise it takes a CSV, or the accepted members of a cohort, checks
    them and uploads them; MoEngage gets a signed address, or the one of --public-url.
    """


@file.command(epilog=_example("create Partners --expiry-days 90"))
@click.option(
    "--expiry-days",
    type=click.IntRange(1, 36_500),
    required=True,
    help="Days after which the segment expires.",
)
@configured
@takes_file
def create(session: Session, name: str, given: FileOptions, expiry_days: int) -> int:
    """Create a file segment.

    It has no users until MoEngage has processed the file.
    """
    return _change("create", session, name, given, expiry_days)


@file.command(epilog=_example("add Staff"))
@configured
@takes_file
def add(session: Session, name: str, given: FileOptions, _expiry_days: int) -> int:
    """Add the users of a file to a file segment."""
    return _change("add", session, name, given)


@file.command(epilog=_example("remove Staff"))
@configured
@takes_file
def remove(session: Session, name: str, given: FileOptions, _expiry_days: int) -> int:
    """Remove the users of a file from a file segment."""
    return _change("remove", session, name, given)


@file.command(epilog=_example("replace Staff"))
@configured
@takes_file
def replace(session: Session, name: str, given: FileOptions, _expiry_days: int) -> int:
    """Replace the users of a file segment by those of a file."""
    return _change("replace", session, name, given)


@file.command(
    epilog=example(
        "moengage-cohort segments file discard \\",
        "  moengage-segment-00000000000000000000000000000000.csv --upload files \\",
        "  --config config.json",
    )
)
@click.argument("name", metavar="FILE", callback=require_utf8)
@click.option("--upload", metavar="URL", required=True, help="The folder that has the file.")
@configured
def discard(session: Session, name: str, upload: str) -> None:
    """Delete an uploaded file that MoEngage has fetched.

    A command that waits for the callback does that itself.
    """
    session.refuse_dry_run()
    SegmentStorage(upload, None, session.interrupt.is_set).delete(name)
    click.echo(f"deleted {name}")


def _change(
    kind: ChangeKind, session: Session, name: str, given: FileOptions, expiry_days: int = 0
) -> int:
    """Send the files of a change, and show what became of them; return the exit code."""
    session.refuse_dry_run()
    change = FileChange(
        kind=kind,
        segment=name,
        attribute=_attribute(session, given),
        attribute_type=given.attribute_type,
        expiry_days=expiry_days,
        callback_url=given.callback_url,
        wait_seconds=60 * (given.wait or 0),
    )
    url, left_out = given.address, Counter[str]()
    parts: tuple[Part, ...] = ()
    with (
        contextlib.nullcontext() if given.csv is None else opened_csv(given.csv) as csv,
        session.opener() as opener,
        contextlib.closing(Scratch()) as scratch,
    ):
        if csv is not None:
            values = csv_values(csv, str(given.csv), given.attribute_type)
            parts = write_parts(scratch.path, _until_stopped(session, values), str(given.csv))
        elif given.cohort is not None:
            parts = _parts(session, opener, given, scratch.path, left_out)
        if parts:
            change.check_split(len(parts))
        storage = _storage(session, given)
        users = FileUsers.of(session.settings, session.clock)
        with _listening(session, given) as listener, segments_api(session, opener) as api:
            sender = FileSender(api, change, listener, users)
            try:
                if storage is None:
                    sender.send_url(str(url))
                else:
                    sender.send_parts(parts, storage)
            finally:
                result = Result.of(change, sender, parts, left_out)
                if sender.sent:
                    show(result, _lines(result, storage), as_json=given.as_json)
    return DONE if result.is_done and not sender.has_failed else FAILED


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a change.

    Attributes:
        unsent: Users of files that were not sent, because one before them was not processed.
        left_out: Members of the cohort that no file can have, by the reason's code.
    """

    segment: str
    id: str | None
    change: ChangeKind
    files: list[SentFile]
    unsent: int
    left_out: dict[str, int]

    @classmethod
    def of(
        cls,
        change: FileChange,
        sender: FileSender,
        parts: tuple[Part, ...],
        left_out: Counter[str],
    ) -> Result:
        """Return the result of a change that has ended."""
        return cls(
            segment=change.segment,
            id=None if sender.segment is None else sender.segment.id,
            change=change.kind,
            files=sender.sent,
            unsent=sum(part.users for part in parts[len(sender.sent) :]),
            left_out=dict(left_out),
        )

    @property
    def is_done(self) -> bool:
        """Whether all files were accepted, and processed if that was waited for."""
        return not self.unsent and all(each.is_done for each in self.files)


def _attribute(session: Session, given: FileOptions) -> str:
    if attribute := given.attribute or session.settings.id_attribute:
        return attribute
    msg = (
        "id_attribute is not set: it names the attribute that the values are of. MoEngage shows "
        "the name in Test & Debug > Segment Payload; set it, or use --attribute"
    )
    raise SettingsError("id_attribute_missing", msg)


def _parts(
    session: Session, opener: Opener, given: FileOptions, folder: Path, left_out: Counter[str]
) -> tuple[Part, ...]:
    """Write the uids of a cohort to files."""
    cohort = str(given.cohort)
    with opener.open(session.settings, read_only=True) as ledgers:  # it holds the stream's lease
        ledger = known_members(ledgers, cohort)
        if ledger.entry.is_partial:
            logger.warning(
                "cohort %r: members from before its members were kept are not in the file",
                given.cohort,
                extra={"code": "members_unknown", "cohort_id": given.cohort},
            )
        values = member_values(ledger.accepted(), given.attribute_type, left_out)
        name = f"cohort {given.cohort!r}"
        parts = write_parts(folder, _until_stopped(session, values), name)
    if left_out:
        reasons = "; ".join(
            f"{count:,} whose uid {FAULTS[code]}" if code in FAULTS else f"{count:,} without a uid"
            for code, count in left_out.items()
        )
        logger.warning(
            "%s: %s left out, because no file can have their uid: %s",
            name,
            format_count(left_out.total(), "member"),
            reasons,
            extra={"code": "members_left_out", "cohort_id": given.cohort},
        )
    return parts


def _until_stopped(session: Session, batches: Iterator[list[str]]) -> Iterator[list[str]]:
    for values in batches:
        if session.interrupt.is_set():
            msg = "stopped before all users were read, so nothing was sent"
            raise TryAgainError("interrupted", msg)
        yield values


def _storage(session: Session, given: FileOptions) -> SegmentStorage | None:
    if given.upload is None:
        return None
    return SegmentStorage(given.upload, given.public_url, session.interrupt.is_set)


def _listening(
    session: Session, given: FileOptions
) -> contextlib.AbstractContextManager[CallbackListener | None]:
    if given.callback_listen is None:
        return contextlib.nullcontext()
    url = str(given.callback_url)
    return CallbackListener(*given.callback_listen, url, session.interrupt)


def _lines(result: Result, storage: SegmentStorage | None) -> Iterator[str]:
    yield f"{_TITLES[result.change]} segment {result.segment!r}:"
    for each in result.files:
        users = "" if each.users is None else f"{format_count(each.users, 'user')}, "
        yield f"  {users}{_STATES[each.state]}"
        if each.found is not None:
            numbers = (each.found, each.processed or 0, each.matched or 0)
            yield "  {:,} found, {:,} processed, {:,} matched".format(*numbers)
        if each.error:
            yield f"  {printable(each.error)}"
        if each.name is not None and storage is not None and not each.deleted:
            command = suggest("segments", "file", "discard", each.name, "--upload", storage.shown)
            yield f"  once MoEngage has fetched it, delete the file: {command}"
    if result.unsent:
        yield f"  {format_count(result.unsent, 'user')} not sent: send these again"
