"""How a stream's mapping gets its defaults, and the rules that it must comply with."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import SyncMode, cohort_name_fault
from target_moengage_cohort.settings.convert import conflict, invalid
from target_moengage_cohort.settings.declared import Settings
from target_moengage_cohort.settings.keys import StreamMapping

if t.TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

_DEFAULTED_KEYS = frozenset(Settings.__struct_fields__) & {*StreamMapping.__struct_fields__}
_MIRROR_KEYS = ("expected_count_column", "removals", "max_removal_percent", "max_addition_percent")


def resolve(
    settings: Settings, stream: str, own_keys: dict[str, t.Any], *, uid_column_is_set: bool
) -> StreamMapping:
    """Return a stream's mapping with the settings as defaults for keys that it does not set.

    `uid_column_is_set` means that `uid_column` is set explicitly for all streams.
    """
    names = {} if "cohort_id_column" in own_keys else {"cohort_id": stream, "cohort_name": stream}
    keys = {key: getattr(settings, key) for key in _DEFAULTED_KEYS} | names | own_keys
    is_set = uid_column_is_set or "uid_column" in own_keys
    uid_required = is_set or keys["anonymous_id_column"] is None
    return StreamMapping(stream=stream, uid_required=uid_required, **keys)


def mapping_faults(mapping: StreamMapping, own_keys: Container[str]) -> Iterator[SettingsError]:
    """Yield a fault for each rule that one stream's mapping breaks."""
    where = f"cohorts.{mapping.stream}"
    if mapping.cohort_id_column is not None:
        for key in ("cohort_id", "cohort_name"):
            if key in own_keys:
                yield conflict(
                    f"{where}.{key}: cannot be combined with cohort_id_column; remove one of them"
                )
    elif mapping.cohort is not None:
        if not mapping.cohort.cohort_id.strip():
            yield invalid(f"{where}.cohort_id: must not be blank")
        if fault := cohort_name_fault(mapping.cohort.name):
            msg = (
                f"{where}.cohort_name: {fault}; MoEngage may drop such a name without an error, "
                "so set a valid cohort_name"
            )
            yield SettingsError("invalid_cohort_name", msg)
        if mapping.cohort_name_column is not None:
            yield conflict(f"{where}.cohort_name_column: requires cohort_id_column")
    yield from _mode_faults(mapping, own_keys)
    roles: dict[str, str] = {}
    for role, column in mapping.columns.items():
        if column in roles:
            yield conflict(
                f"{where}: {roles[column]} and {role}_column name the same column {column!r}; "
                "change one of them"
            )
        roles[column] = f"{role}_column"


def _mode_faults(mapping: StreamMapping, own_keys: Container[str]) -> Iterator[SettingsError]:
    """Yield a fault for each key that has no effect in the stream's sync mode."""
    where, mode = f"cohorts.{mapping.stream}", mapping.sync_mode
    if mapping.membership_column is not None and mode in {SyncMode.ADD, SyncMode.REMOVE}:
        yield conflict(
            f"{where}.membership_column: works with the sync modes incremental, mirror and "
            f"one_time only, not with {mode.value}"
        )
    if mapping.is_snapshot:
        return
    for key in _MIRROR_KEYS:
        if key in own_keys:
            yield conflict(
                f"{where}.{key}: works with the sync modes mirror and one_time only, "
                f"not with {mode.value}"
            )


def shared_cohort_faults(mappings: Iterable[StreamMapping]) -> Iterator[SettingsError]:
    """Yield a fault for each pair of streams with the same cohort or the same cohort name.

    MoEngage does not accept one name for two segments ("its name can't be reused").
    """
    by_id: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for mapping in mappings:
        if (cohort := mapping.cohort) is None:
            continue
        if (other := by_id.get(cohort.cohort_id)) is not None:
            msg = (
                f"cohorts: streams {other!r} and {mapping.stream!r} feed the same cohort "
                f"{cohort.cohort_id!r}; give each its own cohort_id, or merge the streams"
            )
            yield SettingsError("duplicate_cohort", msg)
        elif (other := by_name.get(cohort.name)) is not None:
            msg = (
                f"cohorts: streams {other!r} and {mapping.stream!r} give two cohorts the same name "
                f"{cohort.name!r}; MoEngage uses a name for one segment only, so change one of them"
            )
            yield SettingsError("duplicate_cohort_name", msg)
        by_id[cohort.cohort_id] = by_name[cohort.name] = mapping.stream
