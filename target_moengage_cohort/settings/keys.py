"""The keys of one stream's mapping; the top level has some of them, too, as their defaults."""

from __future__ import annotations

import enum
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.membership import Cohort, SyncMode


class Removals(enum.StrEnum):
    """When the removals of a mirror are sent."""

    IMMEDIATE = "immediate"
    DEFERRED = "deferred"


Percent: t.TypeAlias = t.Annotated[int, Meta(ge=0, le=100)]

DERIVED_KEYS = frozenset({"stream", "uid_required"})
"""The fields of `StreamMapping` that cannot be set."""

_SNAPSHOTS = (SyncMode.MIRROR, SyncMode.ONE_TIME)


class StreamMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one stream's records become changes of membership, with every default filled in.

    Keys without a default here have theirs in `Settings`, where the top level sets them for all
    streams.

    Attributes:
        stream: The stream's name, after stream maps.
        uid_required: Whether the stream must have the `uid_column`.
    """

    stream: str
    uid_required: bool
    cohort_id: str | None = None
    cohort_name: str | None = None
    cohort_description: str | None = None
    cohort_id_column: str | None = None
    cohort_name_column: str | None = None
    uid_column: str
    anonymous_id_column: str | None
    sync_mode: SyncMode
    membership_column: str | None = None
    expected_count_column: str | None = None
    removals: Removals
    max_removal_percent: Percent
    max_addition_percent: t.Annotated[int, Meta(ge=0)] | None

    @property
    def cohort(self) -> Cohort | None:
        """The cohort that the stream feeds; ``None`` if each row names its cohort."""
        if self.cohort_id is None or self.cohort_name is None:
            return None
        return Cohort(self.cohort_id, self.cohort_name, self.cohort_description)

    @property
    def is_snapshot(self) -> bool:
        """Whether the stream is the whole cohort: an absent member is known at its end only."""
        return self.sync_mode in _SNAPSHOTS

    @property
    def columns(self) -> dict[str, str]:
        """The name of the mapped column for each role."""
        columns = {
            "uid": self.uid_column,
            "anonymous_id": self.anonymous_id_column,
            "cohort_id": self.cohort_id_column,
            "cohort_name": self.cohort_name_column,
            "membership": self.membership_column,
            "expected_count": self.expected_count_column,
        }
        return {role: column for role, column in columns.items() if column is not None}
