"""The rules that converted settings, and the mappings of streams, must comply with."""

from __future__ import annotations

import os
import re
import typing as t

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import SyncMode, cohort_name_fault
from target_moengage_cohort.settings.convert import conflict, invalid
from target_moengage_cohort.settings.declared import OnReject

if t.TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from target_moengage_cohort.settings.declared import Settings, StreamMapping

_MIRROR_KEYS = ("expected_count_column", "removals", "max_removal_percent", "max_addition_percent")
_MODES_OF_KEYS: dict[str, tuple[SyncMode, ...]] = {
    "membership_column": (SyncMode.INCREMENTAL, SyncMode.MIRROR, SyncMode.ONE_TIME),
    **dict.fromkeys(_MIRROR_KEYS, (SyncMode.MIRROR, SyncMode.ONE_TIME)),
}


def setting_faults(settings: Settings) -> Iterator[SettingsError]:
    """Yield a fault for each rule that top-level settings break."""
    if not re.fullmatch(r"[!-9;-~]+", settings.workspace_id):
        yield invalid("workspace_id: must be ASCII without spaces or a colon")
    if not re.fullmatch(r"[!-~]+", settings.data_api_key):
        yield invalid("data_api_key: must be ASCII without spaces")
    if not settings.partner.strip():
        yield invalid("partner: must not be blank")
    if (storage := settings.batch_storage) is not None and not storage.root.strip():
        yield invalid("batch_config.storage.root: must not be blank")
    rejects, report = settings.rejects_path, settings.report_path
    if settings.on_reject is OnReject.SKIP and rejects is None:
        yield conflict("on_reject: skip requires rejects_path, so that no row is lost")
    if rejects and report and os.path.realpath(rejects) == os.path.realpath(report):
        yield conflict("report_path: is the same file as rejects_path, which it would replace")
    if settings.flattening_enabled and settings.flattening_max_depth is None:
        yield conflict("flattening_enabled: requires flattening_max_depth")


def mapping_faults(mapping: StreamMapping, own_keys: Container[str]) -> Iterator[SettingsError]:
    """Yield a fault for each rule that one stream's mapping breaks."""
    where = f"cohorts.{mapping.stream}"
    yield from _cohort_faults(where, mapping, own_keys)
    for key, (*modes, last) in _MODES_OF_KEYS.items():
        if key in own_keys and mapping.sync_mode not in {*modes, last}:
            rule = f"works with the sync modes {', '.join(modes)} and {last} only"
            yield conflict(f"{where}.{key}: {rule}, not with {mapping.sync_mode}")
    roles: dict[str, str] = {}
    for role, column in mapping.columns.items():
        if (other := roles.setdefault(column, role)) != role:
            yield conflict(
                f"{where}: {other}_column and {role}_column name the same column {column!r}; "
                "change one of them"
            )


def _cohort_faults(
    where: str, mapping: StreamMapping, own_keys: Container[str]
) -> Iterator[SettingsError]:
    if (cohort := mapping.cohort) is None:
        for key in ("cohort_id", "cohort_name"):
            if key in own_keys:
                rule = "cannot be combined with cohort_id_column; remove one of them"
                yield conflict(f"{where}.{key}: {rule}")
        return
    if not cohort.cohort_id.strip():
        yield invalid(f"{where}.cohort_id: must not be blank")
    if fault := cohort_name_fault(cohort.name):
        msg = (
            f"{where}.cohort_name: {fault}; MoEngage may drop such a name without an error, "
            "so set a valid cohort_name"
        )
        yield SettingsError("invalid_cohort_name", msg)
    if mapping.cohort_name_column is not None:
        yield conflict(f"{where}.cohort_name_column: requires cohort_id_column")


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
