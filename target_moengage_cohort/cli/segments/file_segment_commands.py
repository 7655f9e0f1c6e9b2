"""`moengage-cohort segments file`: changes segments whose users come from files."""

from __future__ import annotations

import contextlib
import functools
import logging
import typing as t
from collections import Counter

import click

from target_moengage_cohort.cli.cohort_members import known_members
from target_moengage_cohort.cli.segments.file_segment_change import FileChange, FileSender
from target_moengage_cohort.cli.segments.file_segment_options import FileOptions, takes_file
from target_moengage_cohort.cli.segments.file_segment_result import Result, lines
from target_moengage_cohort.cli.segments.segment_callbacks import CallbackListener
from target_moengage_cohort.cli.segments.segment_parts import (
    csv_values,
    member_values,
    opened_csv,
    write_parts,
)
from target_moengage_cohort.cli.segments.segment_storage import SegmentStorage
from target_moengage_cohort.cli.segments.segments_api import file_segments_api
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.errors import SettingsError, TryAgainError
from target_moengage_cohort.core.files import Scratch
from target_moengage_cohort.core.text import format_count, iso_utc
from target_moengage_cohort.moengage.segment_files import FAULTS

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from target_moengage_cohort.cli.segments.file_segment_change import ChangeKind
    from target_moengage_cohort.cli.segments.segment_parts import Part
    from target_moengage_cohort.ledger.moving import Opener

logger = logging.getLogger(__name__)


def _example(start: str) -> str:
    return example(
        f"moengage-cohort segments file {start} \\",
        "  --csv staff.csv --upload files --public-url https://files.example.com \\",
        "  --config config.json",
    )


@click.group(epilog=_example("add Staff"))
def file() -> None:
    """Change file segments.

    A file segment contains the users whose attribute has one of the values in a file: a one-column
    CSV that MoEngage fetches. Use --url for a file that MoEngage can already fetch. Otherwise use
    --csv, or --cohort for the accepted members of a cohort: the command checks and uploads the
    values. MoEngage then fetches them from a signed URL, or from --public-url.
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

    The segment has no users until MoEngage has processed the file.
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
    """Replace the users of a file segment with those of a file."""
    return _change("replace", session, name, given)


@file.command(
    epilog=example(
        "moengage-cohort segments file discard \\",
        "  moengage-segment-00000000000000000000000000000000.csv --upload files \\",
        "  --config config.json",
    )
)
@click.argument("name", metavar="FILE", callback=require_utf8)
@click.option("--upload", metavar="URL", required=True, help="Directory that has the file.")
@configured
def discard(session: Session, name: str, upload: str) -> None:
    """Delete an uploaded file that MoEngage has fetched.

    Commands with --wait delete their files themselves.
    """
    session.refuse_dry_run()
    SegmentStorage(upload, None, session.interrupt.is_set).delete(name)
    click.echo(f"Deleted {name}")


def _change(
    kind: ChangeKind, session: Session, name: str, given: FileOptions, expiry_days: int = 0
) -> int:
    """Send the files of a change and show the results; return the exit code."""
    session.refuse_dry_run()
    change = FileChange(
        kind=kind,
        segment=name,
        attribute=_attribute(session, given),
        attribute_type=given.attribute_type,
        expiry_days=expiry_days,
        callback_url=given.callback_url,
        is_awaited=given.wait is not None,
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
        with _listening(session, given) as listener, file_segments_api(session, opener) as api:
            say = functools.partial(_say, session, given)
            sender = FileSender(*api, change, listener, say)
            try:
                if storage is None:
                    sender.send_url(str(url))
                else:
                    sender.send_parts(parts, storage)
            finally:
                result = Result.of(change, sender, parts, left_out)
                if sender.sent:
                    show(result, lines(result, storage), as_json=given.as_json)
    return DONE if result.is_done and not sender.has_failed else FAILED


def _attribute(session: Session, given: FileOptions) -> str:
    if attribute := given.attribute or session.settings.id_attribute:
        return attribute
    msg = (
        "id_attribute is not set: it names the attribute that the values belong to. MoEngage shows "
        "the name in Test & Debug > Segment Payload; set id_attribute, or use --attribute"
    )
    raise SettingsError("id_attribute_missing", msg)


def _parts(
    session: Session, opener: Opener, given: FileOptions, directory: Path, left_out: Counter[str]
) -> tuple[Part, ...]:
    """Write the uids of a cohort to files."""
    cohort = str(given.cohort)
    with opener.open(session.settings, read_only=True) as ledgers:  # it holds the stream's lease
        ledger = known_members(ledgers, cohort)
        if ledger.entry.is_partial:
            logger.warning(
                "cohort %r: members that were added before the ledger kept them are not in the "
                "file",
                given.cohort,
                extra={"code": "members_unknown", "cohort_id": given.cohort},
            )
        values = member_values(ledger.accepted(), given.attribute_type, left_out)
        name = f"cohort {given.cohort!r}"
        parts = write_parts(directory, _until_stopped(session, values), name)
    if left_out:
        reasons = "; ".join(
            f"{count:,} whose uid {FAULTS[code]}" if code in FAULTS else f"{count:,} without a uid"
            for code, count in left_out.items()
        )
        logger.warning(
            "%s: %s left out, because a file cannot contain them: %s",
            name,
            format_count(left_out.total(), "member"),
            reasons,
            extra={"code": "members_left_out", "cohort_id": given.cohort},
        )
    return parts


def _until_stopped(session: Session, batches: Iterator[list[str]]) -> Iterator[list[str]]:
    for values in batches:
        if session.interrupt.is_set():
            msg = "stopped before all users were read; nothing was sent"
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
    seconds = 60 * (given.wait or 0)
    return CallbackListener(*given.callback_listen, url, session.interrupt, seconds)


def _say(session: Session, given: FileOptions, text: str, seconds: float) -> None:
    """Log the progress; a program that reads JSON needs only the result."""
    until = f", until {iso_utc(session.clock() + seconds, 'seconds')}"
    level = logging.DEBUG if given.as_json else logging.INFO
    logger.log(level, "%s%s", text, until if seconds else "", extra={"code": "file_progress"})
