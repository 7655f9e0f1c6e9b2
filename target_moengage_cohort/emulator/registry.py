"""The names of a workspace's segments of all kinds, and which of them are archived."""

from __future__ import annotations

import typing as t
from hashlib import blake2b

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterable

Kind = t.Literal["cohort", "file", "filter"]


class Head(msgspec.Struct, eq=False):
    """What segments of all kinds have; times are in seconds since the epoch."""

    id: str
    name: str
    kind: Kind
    created_at: float
    updated_at: float
    last_run: float
    is_archived: bool = False


class Registry:
    """The segments of a workspace by id and by name; a name is never free again.

    Args:
        most: The largest number of active segments.
        archive_seconds: Seconds from a segment's last run, or creation, until it is archived.
    """

    def __init__(self, most: int, archive_seconds: float) -> None:
        self.most = most
        self._archive_seconds = archive_seconds
        self._by_id: dict[str, Head] = {}
        self._by_name: dict[str, Head] = {}

    def add(self, name: str, kind: Kind, now: float) -> Head | None:
        """Add a segment of a new name; None if there are too many active ones."""
        if len(self._by_id) >= self.most and self.active(now) >= self.most:
            return None
        number = f"{len(self._by_id)} {name}".encode()
        segment_id = blake2b(number, digest_size=12).hexdigest()
        head = Head(segment_id, name, kind, now, now, now)
        self._by_id[segment_id] = self._by_name[name] = head
        return head

    def named(self, name: str) -> Head | None:
        """Return the segment with exactly this name."""
        return self._by_name.get(name)

    def find(self, name: str | None, segment_id: str | None) -> Head | None:
        """Return the segment with an id, or else with a name."""
        if segment_id:
            return self._by_id.get(segment_id)
        return None if name is None else self.named(name)

    def rename(self, head: Head, name: str) -> None:
        """Give a segment another name; its old one stays taken."""
        head.name = name
        self._by_name[name] = head

    def heads(self, now: float) -> Iterable[Head]:
        """Return all segments, after archiving those without a run for too long."""
        for head in self._by_id.values():
            head.is_archived |= now - head.last_run >= self._archive_seconds
        return self._by_id.values()

    def active(self, now: float) -> int:
        """Return the number of segments that are not archived."""
        return sum(not head.is_archived for head in self.heads(now))

    def unarchive(self, head: Head, now: float) -> None:
        """Unarchive a segment; its time starts again, or it would be archived immediately."""
        head.is_archived, head.last_run = False, now
