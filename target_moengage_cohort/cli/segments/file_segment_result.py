"""The result of a change of a file segment, as JSON and as text."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.text import format_count, printable

if t.TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from target_moengage_cohort.cli.segments.file_segment_change import (
        ChangeKind,
        FileChange,
        FileSender,
        SentFile,
    )
    from target_moengage_cohort.cli.segments.segment_parts import Part
    from target_moengage_cohort.cli.segments.segment_storage import SegmentStorage

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
    "unanswered": "accepted, but no callback came in time; MoEngage may still process it",
    "interrupted": "accepted; a signal ended the wait, and MoEngage may still process it",
    "unknown": "the request got no clear answer, so it may have been accepted",
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a change.

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


def lines(result: Result, storage: SegmentStorage | None) -> Iterator[str]:
    """Yield a result as text, with what is left to do."""
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
        command = "remove" if result.change == "remove" else "add"
        yield (
            f"  {format_count(result.unsent, 'user')} not sent: the last of the file or cohort. "
            f"Send them with `segments file {command}`"
        )
    if {each.state for each in result.files} & {"unanswered", "interrupted", "unknown"}:
        look = suggest("segments", "list", f"--name={result.segment}")
        yield f"  to see whether MoEngage has the segment: {look}"
        yield "  to see how many users it has: MoEngage's dashboard"
