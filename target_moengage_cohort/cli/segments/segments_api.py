"""The Segments API for commands."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.cli.segments.segment_users import FileUsers
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import InputError, TargetError
from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.moengage.api_errors import ApiError
from target_moengage_cohort.moengage.segments import Segments

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.ledger.moving import Opener
    from target_moengage_cohort.moengage.segments import Segment


@contextlib.contextmanager
def segments_api(session: Session, opener: Opener) -> Iterator[Segments]:
    """Yield the Segments API; see `file_segments_api`."""
    with file_segments_api(session, opener) as (segments, _):
        yield segments


@contextlib.contextmanager
def file_segments_api(session: Session, opener: Opener) -> Iterator[tuple[Segments, FileUsers]]:
    """Yield the Segments API and the users of files, within the limits of all hosts of a ledger."""
    with opener.open(session.settings, read_only=True) as store:
        calls = live_calls(
            session.settings,
            session.interrupt.wait,
            store if store.exists else None,
            Timing(wall_clock=session.clock),
        )
        with contextlib.closing(calls):
            try:
                yield Segments(calls.send), FileUsers(calls.reserve, calls.release)
            except ApiError as error:
                raise _explained(error) from None


def find_segment(segments: Segments, name: str) -> Segment:
    """Return the segment with a name: commands take no IDs, which the process list would show."""
    for each in segments.list(name):
        if each.name == name:
            return each
    listing = suggest("segments", "list")
    msg = (
        f"MoEngage lists no segment with the name {name!r}. It does not document whether it lists "
        f"cohorts and archived segments. To see the listed segments, run: {listing}"
    )
    raise InputError("segment_not_listed", msg)


def _explained(error: ApiError) -> TargetError:
    """Return the error with the facts that a person needs to decide."""
    message = str(error)
    if error.existing is not None:
        message = f"{message}. The existing segment is named {error.existing.name!r}"
    if error.code == "segment_not_found":
        message = f"{message}. To see the listed segments, run: {suggest('segments', 'list')}"
    if error.is_doubted:
        message = (
            f"{message}. An earlier attempt got no answer and may have been applied: check the "
            "segment in MoEngage"
        )
    return InputError(error.code, message)
