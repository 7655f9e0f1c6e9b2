"""The keys of one stream's mapping, and those of them that the top level has, too."""

from __future__ import annotations

import enum
import typing as t

import msgspec
from msgspec import UNSET, Meta, UnsetType

from target_moengage_cohort.core.membership import SyncMode


class Removals(enum.StrEnum):
    """When the removals of a mirror are sent."""

    IMMEDIATE = "immediate"
    DEFERRED = "deferred"


UidColumn: t.TypeAlias = t.Annotated[
    str,
    Meta(
        title="User ID column",
        description="Column that holds the user's ID (uid) in MoEngage. It must exist if it is "
        "set by hand or if no anonymous ID column is set.",
    ),
]
AnonymousIdColumn: t.TypeAlias = t.Annotated[
    str | UnsetType,
    Meta(
        title="Anonymous ID column",
        description="Column that holds the user's anonymous ID in MoEngage; used where a record "
        "has no user ID, and sent beside it where it has one.",
    ),
]
Mode: t.TypeAlias = t.Annotated[
    SyncMode,
    Meta(
        title="Sync mode",
        description="How records become changes. incremental: a record is a member to add, or to "
        "remove if it is deleted or its membership column says so. add: every record is a member "
        "to add. remove: every record is a member to remove. mirror: the stream is the whole "
        "cohort; who is new is added, and who is gone is removed. one_time: as mirror, but nobody "
        "is removed, and after the first complete run nothing more is sent.",
    ),
]
RemovalsWhen: t.TypeAlias = t.Annotated[
    Removals,
    Meta(
        title="Removals",
        description="When a mirror's removals are sent. immediate: in the run that finds them. "
        "deferred: they wait for moengage-cohort confirm, to be run once the tap has succeeded.",
    ),
]
MaxRemovalPercent: t.TypeAlias = t.Annotated[
    int,
    Meta(
        title="Largest removal (percent)",
        description="Most of a cohort's members, in percent, that a mirror may remove in one "
        "run; where more would go, the removals are withheld. An input that is proven complete may "
        "remove 20 members in any case, and empty a cohort if this is 100.",
        ge=0,
        le=100,
    ),
]
MaxAdditionPercent: t.TypeAlias = t.Annotated[
    int,
    Meta(
        title="Largest addition (percent)",
        description="Most that a mirror may add to a cohort in one run, in percent of its "
        "members; where more would come, the additions are withheld. A new cohort may have any "
        "size. Default: no limit.",
        ge=0,
    ),
]


class StreamMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `Settings.cohorts` says of one stream."""

    cohort_id: t.Annotated[
        str | UnsetType,
        Meta(
            title="Cohort ID",
            description="Unique identifier of the cohort in MoEngage. Default: the stream's name.",
        ),
    ] = UNSET
    cohort_name: t.Annotated[
        str | UnsetType,
        Meta(
            title="Cohort name",
            description="Name of the segment in MoEngage. Default: the stream's name.",
        ),
    ] = UNSET
    cohort_description: t.Annotated[
        str | UnsetType,
        Meta(
            title="Cohort description",
            description="Description that goes to MoEngage with the cohort.",
        ),
    ] = UNSET
    cohort_id_column: t.Annotated[
        str | UnsetType,
        Meta(
            title="Cohort ID column",
            description="Column that holds the cohort's ID, where one stream feeds many cohorts.",
        ),
    ] = UNSET
    cohort_name_column: t.Annotated[
        str | UnsetType,
        Meta(
            title="Cohort name column",
            description="Column that holds the cohort's name, beside cohort_id_column. Default: "
            "the cohort's ID is its name.",
        ),
    ] = UNSET
    uid_column: UidColumn | UnsetType = UNSET
    anonymous_id_column: AnonymousIdColumn = UNSET
    sync_mode: Mode | UnsetType = UNSET
    membership_column: t.Annotated[
        str | UnsetType,
        Meta(
            title="Membership column",
            description="Column that says whether the member belongs to the cohort: a boolean, "
            "0/1, true/false, t/f, yes/no or add/remove. For the sync modes incremental, mirror "
            "and one_time; in the last two, who does not belong counts as absent.",
        ),
    ] = UNSET
    expected_count_column: t.Annotated[
        str | UnsetType,
        Meta(
            title="Expected count column",
            description="Column that holds, in every row, how many rows the query gave, as "
            "count(*) over () does; it proves that no row was lost on the way. For the sync modes "
            "mirror and one_time.",
        ),
    ] = UNSET
    removals: RemovalsWhen | UnsetType = UNSET
    max_removal_percent: MaxRemovalPercent | UnsetType = UNSET
    max_addition_percent: MaxAdditionPercent | UnsetType = UNSET
