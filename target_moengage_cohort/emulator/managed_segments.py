"""The file and filter segments of a workspace, and the users of segments of all kinds."""

from __future__ import annotations

import functools
import typing as t

import msgspec

from .filter_language import Group, Language, segment_ids
from .people import People
from .registry import Head, Kind  # noqa: TC001 - msgspec resolves it

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import Options
    from .people import User
    from .registry import Registry
    from .workspace import Workspace


class FileSegment(msgspec.Struct, eq=False):
    """A segment whose users come from files; it has none until the first is processed."""

    head: Head
    attribute_name: str
    users: set[User] = msgspec.field(default_factory=set)


class FilterSegment(msgspec.Struct, eq=False):
    """A segment whose users pass its filters."""

    head: Head
    included: Group
    excluded: Group | None


class SegmentSummary(msgspec.Struct, frozen=True):
    """A segment of any kind, for the page and the control endpoints.

    Attributes:
        users: Its number of users; None for a filter segment, whose users depend on the moment.
    """

    id: str
    name: str
    kind: Kind
    is_archived: bool
    users: int | None


class ManagedSegments:
    """All segments of a workspace.

    Args:
        options: The emulator's options.
        workspace: The cohorts.
        registry: The names of all segments.
    """

    def __init__(self, options: Options, workspace: Workspace, registry: Registry) -> None:
        self.options = options
        self.registry = registry
        self.people = People()
        self.language = Language(options, self.users, self.everyone)
        self.files: dict[str, FileSegment] = {}
        self.filters: dict[str, FilterSegment] = {}
        self._workspace = workspace

    def users(self, segment_id: str) -> set[User] | None:
        """Return the known users of a segment, as far as its changes are processed."""
        if (file := self.files.get(segment_id)) is not None:
            return file.users
        if (filtered := self.filters.get(segment_id)) is not None:
            users = self.language.users(filtered.included)
            without = filtered.excluded
            return users if without is None else users - self.language.users(without)
        if (cohort := self._workspace.by_segment_id().get(segment_id)) is None:
            return None
        return self.people.among(cohort.counted(self.options.clock.wall()))

    def snapshot(self) -> Language:
        """Return the language of one moment, which collects the users of a segment only once."""
        return Language(self.options, functools.cache(self.users), functools.cache(self.everyone))

    def everyone(self) -> set[User]:
        """Return all users."""
        cohorts = self._workspace.by_segment_id().values()
        mentioned = [*(each.users for each in self.files.values())]
        return self.people.everyone([*mentioned, *(cohort.mentioned() for cohort in cohorts)])

    def refers(self, group: Group, segment_id: str) -> bool:
        """Return whether a segment is in a group's filters, or in those of its segments."""
        return any(
            each == segment_id
            or (each in self.filters and self.refers(self.filters[each].included, segment_id))
            for each in segment_ids(group)
        )

    def count_run(self, group: Group, now: float) -> None:
        """Count a run of each segment in a group's filters."""
        for each in segment_ids(group):
            if (head := self.registry.find(None, each)) is not None:
                head.last_run = now

    def summaries(self) -> Iterator[SegmentSummary]:
        """Yield a summary of each segment, in the order of their creation."""
        cohorts = self._workspace.by_segment_id()
        for head in self.registry.heads(self.options.clock.wall()):
            users = None
            if head.id in cohorts:
                users = len(cohorts[head.id])
            elif head.id in self.files:
                users = len(self.files[head.id].users)
            yield SegmentSummary(head.id, head.name, head.kind, head.is_archived, users)
