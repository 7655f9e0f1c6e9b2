"""One stream's mapping with its defaults filled in, and the rules it must keep."""

from __future__ import annotations

import typing as t

import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.membership import Cohort, SyncMode, cohort_name_fault

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings.declared import Settings
    from target_moengage_cohort.settings.keys import Removals, StreamMapping

_SNAPSHOTS = (SyncMode.MIRROR, SyncMode.ONE_TIME)
_SNAPSHOT_KEYS = (
    "expected_count_column",
    "removals",
    "max_removal_percent",
    "max_addition_percent",
)


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """How one stream's records become changes of membership.

    Attributes:
        stream: The stream's name, after stream maps.
        cohort: The cohort that the stream feeds, or ``None`` where `cohort_id_column` says it.
        cohort_id_column: Column with the cohort's id, for a stream that feeds many cohorts.
        cohort_name_column: Column with the cohort's name; ``None``: the id is the name.
        cohort_description: Goes with every cohort of a stream that feeds many.
        uid_column: Column with the user's id.
        uid_required: Whether the stream must have the `uid_column`.
        anonymous_id_column: Column with the user's anonymous id.
        membership_column: Column that says whether the member belongs to the cohort.
        sync_mode: How a record becomes a change.
        expected_count_column: Column with the number of rows that the warehouse saw.
        removals: When a mirror's removals are sent.
        max_removal_percent: The guard of removals, in percent of the cohort.
        max_addition_percent: The guard of additions; ``None``: there is none.
    """

    stream: str
    cohort: Cohort | None
    cohort_id_column: str | None
    cohort_name_column: str | None
    cohort_description: str | None
    uid_column: str
    uid_required: bool
    anonymous_id_column: str | None
    membership_column: str | None
    sync_mode: SyncMode
    expected_count_column: str | None
    removals: Removals
    max_removal_percent: int
    max_addition_percent: int | None

    @property
    def is_snapshot(self) -> bool:
        """Whether the stream is the whole cohort, so that only its end tells who is gone."""
        return self.sync_mode in _SNAPSHOTS

    @property
    def columns(self) -> dict[str, str]:
        """The mapped columns: what each is for → its name."""
        named = {
            "uid": self.uid_column,
            "anonymous_id": self.anonymous_id_column,
            "cohort_id": self.cohort_id_column,
            "cohort_name": self.cohort_name_column,
            "membership": self.membership_column,
            "expected_count": self.expected_count_column,
        }
        return {role: column for role, column in named.items() if column is not None}


def resolve(settings: Settings, stream: str, raw: StreamMapping, *, uid_by_hand: bool) -> Mapping:
    """Fill in the defaults of one stream's mapping.

    Args:
        settings: Where the defaults for every stream are.
        stream: The stream's name.
        raw: What the configuration says of the stream.
        uid_by_hand: Whether the configuration sets `uid_column` for all streams.
    """
    cohort = None
    if raw.cohort_id_column is UNSET:
        cohort = Cohort(
            cohort_id=_or(raw.cohort_id, stream),
            name=_or(raw.cohort_name, stream),
            description=_or(raw.cohort_description, None),
        )
    anonymous_id_column = _or(raw.anonymous_id_column, _or(settings.anonymous_id_column, None))
    return Mapping(
        stream=stream,
        cohort=cohort,
        cohort_id_column=_or(raw.cohort_id_column, None),
        cohort_name_column=_or(raw.cohort_name_column, None),
        cohort_description=_or(raw.cohort_description, None),
        uid_column=_or(raw.uid_column, settings.uid_column),
        uid_required=uid_by_hand or raw.uid_column is not UNSET or anonymous_id_column is None,
        anonymous_id_column=anonymous_id_column,
        membership_column=_or(raw.membership_column, None),
        sync_mode=_or(raw.sync_mode, settings.sync_mode),
        expected_count_column=_or(raw.expected_count_column, None),
        removals=_or(raw.removals, settings.removals),
        max_removal_percent=_or(raw.max_removal_percent, settings.max_removal_percent),
        max_addition_percent=_or(
            raw.max_addition_percent, _or(settings.max_addition_percent, None)
        ),
    )


_T = t.TypeVar("_T")
_D = t.TypeVar("_D")


def _or(value: _T | msgspec.UnsetType, default: _D) -> _T | _D:
    return default if isinstance(value, msgspec.UnsetType) else value


def mapping_faults(mapping: Mapping, raw: StreamMapping) -> Iterator[str]:
    """Yield a message for each rule that one stream's mapping breaks."""
    where = f"cohorts.{mapping.stream}"
    if mapping.cohort is not None:
        if not mapping.cohort.cohort_id.strip():
            yield f"{where}.cohort_id: must not be blank"
        if fault := cohort_name_fault(mapping.cohort.name):
            yield (
                f"{where}.cohort_name: {fault}; MoEngage may drop such a name without a word, "
                "so set a cohort_name that keeps its rules"
            )
        if mapping.cohort_name_column is not None:
            yield f"{where}.cohort_name_column: needs cohort_id_column beside it"
    else:
        for setting in ("cohort_id", "cohort_name"):
            if getattr(raw, setting) is not UNSET:
                yield f"{where}.{setting}: cannot stand beside cohort_id_column; remove one of them"
    yield from _mode_faults(mapping, raw)
    seen: dict[str, str] = {}
    for role, column in mapping.columns.items():
        if column in seen:
            yield (
                f"{where}: {seen[column]} and {role}_column name the same column {column!r}; "
                "change one of them"
            )
        seen[column] = f"{role}_column"


def _mode_faults(mapping: Mapping, raw: StreamMapping) -> Iterator[str]:
    """Yield a message for each key that the stream's sync mode has no use for."""
    where, mode = f"cohorts.{mapping.stream}", mapping.sync_mode
    if mapping.membership_column is not None and mode in {SyncMode.ADD, SyncMode.REMOVE}:
        yield (
            f"{where}.membership_column: works with the sync modes incremental, mirror and "
            f"one_time only, not with {mode.value}"
        )
    if mapping.is_snapshot:
        return
    for key in _SNAPSHOT_KEYS:
        if getattr(raw, key) is not UNSET:
            yield (
                f"{where}.{key}: works with the sync modes mirror and one_time only, "
                f"not with {mode.value}"
            )


def shared_cohort_faults(mappings: t.Iterable[Mapping]) -> Iterator[str]:
    """Yield a message for each pair of streams that would feed one cohort, or share its name.

    A name cannot be used for two segments (MoEngage: "its name can't be reused").
    """
    by_id: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for mapping in mappings:
        if (cohort := mapping.cohort) is None:
            continue
        if (other := by_id.get(cohort.cohort_id)) is not None:
            yield (
                f"cohorts: the streams {other!r} and {mapping.stream!r} feed one cohort "
                f"{cohort.cohort_id!r}; give each a cohort_id of its own, or make them one stream"
            )
        elif (other := by_name.get(cohort.name)) is not None:
            yield (
                f"cohorts: the streams {other!r} and {mapping.stream!r} give two cohorts one name "
                f"{cohort.name!r}; MoEngage uses a name for one segment only, so change one of them"
            )
        by_id[cohort.cohort_id] = by_name[cohort.name] = mapping.stream
