"""From a raw configuration to `Config`: gathering, conversion, defaults and rules."""

from __future__ import annotations

import os
import re
import typing as t
from functools import partial

import msgspec

from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.core.membership import SyncMode, cohort_name_fault
from target_moengage_cohort.settings.alert_rules import alert_faults
from target_moengage_cohort.settings.convert import (
    closest_name,
    convert_object,
    fields_of,
    nearest_name,
)
from target_moengage_cohort.settings.declared import (
    DERIVED_KEYS,
    ENVIRONMENT_PREFIX,
    MAPPING_KEYS,
    SETTING_NAMES,
    OnReject,
    Settings,
    StreamMapping,
)
from target_moengage_cohort.settings.forms import OBJECTS, gather

if t.TYPE_CHECKING:
    import logging
    from collections.abc import Container, Iterable, Iterator

_MIRROR_KEYS = (
    "expected_count_column",
    "allow_bookmark",
    "removals",
    "max_removal_percent",
    "max_addition_percent",
)
_MODES_OF_KEYS: dict[str, tuple[SyncMode, ...]] = {
    "membership_column": (SyncMode.INCREMENTAL, SyncMode.MIRROR, SyncMode.ONE_TIME),
    **dict.fromkeys(
        ("deleted_at_column", "min_match_percent"),
        (SyncMode.INCREMENTAL, SyncMode.ADD, SyncMode.MIRROR, SyncMode.ONE_TIME),
    ),
    "exclusive": (SyncMode.INCREMENTAL, SyncMode.ADD, SyncMode.MIRROR),
    **dict.fromkeys(_MIRROR_KEYS, (SyncMode.MIRROR, SyncMode.ONE_TIME)),
}

_MISSPELLED = 0.8  # request_timeout, which taps and targets of the SDK's have, is just beyond
_SIMILAR = 0.75  # worth a hint

_EMPTY_COHORTS = (
    "cohorts: is an empty object, which maps no stream. Meltano passes on an empty object if a "
    "variable contains a key with a dot, such as a stream's name: set cohorts in meltano.yml "
    "instead. To let each stream populate a cohort of the same name, omit cohorts"
)

_NEEDS_MEMBERS = (
    "needs the members of the cohorts in the ledger, which this sync mode keeps only with "
    "ledger_uri; set it, or use the sync mode mirror"
)

_invalid = partial(SettingsError, "invalid_value")
_conflict = partial(SettingsError, "conflicting_settings")


class Config(msgspec.Struct, frozen=True):
    """A configuration that complies with every rule."""

    settings: Settings
    unknown: dict[str, str | None]  # foreign names, each with the most similar setting
    default: StreamMapping  # what every mapping has unless it sets it itself

    @property
    def mappings(self) -> dict[str, StreamMapping]:
        """The mapping of each stream that is listed under `cohorts`."""
        return self.settings.cohorts

    def warn(self, logger: logging.Logger) -> None:
        """Log a warning for each unknown setting; it has no effect."""
        for name, nearest in self.unknown.items():
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            logger.warning("unknown setting %r%s", name, hint, extra={"code": "unknown_setting"})

    def mapping(self, stream: str) -> StreamMapping:
        """Return the mapping of a stream that sends a SCHEMA."""
        if (mapping := self.mappings.get(stream)) is not None:
            return mapping
        if self.mappings:
            nearest = nearest_name(stream, self.mappings)
            advice = "Add it"
            if nearest:
                advice = f"Did you mean {nearest!r}? If so, correct that name. Otherwise add it"
            msg = (
                f"stream {stream!r} is not mapped under cohorts (mapped: "
                f"{', '.join(sorted(self.mappings))}). {advice}, or deselect it in the tap"
            )
            raise SettingsError("unmapped_stream", msg)
        mapping = _resolve(self.default, stream, {})
        SettingsError.raise_any(_mapping_faults(mapping, {}))
        return mapping


def load(raw: t.Mapping[str, t.Any]) -> Config:
    """Convert and check a configuration; the `SettingsError` has all faults that were found.

    Values are as a file has them, or strings from the environment. Object settings may be flattened
    to dotted keys, as Meltano passes them on.
    """
    try:
        return _load(raw)
    except RecursionError:
        msg = f"one of {', '.join(OBJECTS)} is nested too deeply; simplify it"
        raise SettingsError("invalid_value", msg) from None


def _load(raw: t.Mapping[str, t.Any]) -> Config:
    gathered = gather(raw)
    known = {name: gathered[name] for name in gathered if name in SETTING_NAMES}
    faults: list[TargetError] = []
    unknown = {}
    for name in filter(lambda each: each not in known, gathered):
        unknown[name], fault = _nearest_setting(name)
        faults += fault
    values = convert_object("", fields_of(Settings), known, faults)
    if values.get("cohorts") == {}:
        faults.append(SettingsError("empty_cohorts", _EMPTY_COHORTS))
    fields = fields_of(StreamMapping, without=DERIVED_KEYS)
    own = {
        stream: convert_object(
            f"cohorts.{stream}", fields, {} if keys is None else keys, faults, complete=False
        )
        for stream, keys in values.pop("cohorts", {}).items()
    }
    SettingsError.raise_any(faults)
    settings = Settings(**values)
    shared = fields.keys() & SETTING_NAMES
    default = StreamMapping(
        stream="",
        uid_required="uid_column" in values,
        **{key: getattr(settings, key) for key in shared},
    )
    mappings = {stream: _resolve(default, stream, keys) for stream, keys in own.items()}
    faults += [*_setting_faults(settings), *alert_faults(settings)]
    for stream, mapping in mappings.items():
        faults += _mapping_faults(mapping, own[stream])
        if mapping.exclusive and not (mapping.is_snapshot or settings.ledger_uri):
            faults.append(_conflict(f"cohorts.{stream}.exclusive: {_NEEDS_MEMBERS}"))
        if own[stream].get("min_match_percent") and settings.id_attribute is None:
            faults.append(_conflict(f"cohorts.{stream}.min_match_percent: requires id_attribute"))
    faults += _shared_cohort_faults(mappings.values())
    SettingsError.raise_any(faults)
    return Config(msgspec.structs.replace(settings, cohorts=mappings), unknown, default)


def is_misspelled(name: str) -> bool:
    """Return whether an unknown setting, or its environment variable, is an error."""
    return bool(_nearest_setting(name)[1])


def meant_variable(variable: str) -> str | None:
    """Return our variable if this one has the name of a setting after a prefix close to ours.

    It may be another plugin's, such as that of a second loader, so it is never an error.
    """
    for name in sorted(SETTING_NAMES, key=len, reverse=True):
        prefix = variable.removesuffix(f"_{name.upper()}")
        if prefix != variable and prefix.startswith("TARGET_"):
            is_close = closest_name(prefix, [ENVIRONMENT_PREFIX])[1] > _MISSPELLED
            is_ours = variable.startswith(ENVIRONMENT_PREFIX)
            return ENVIRONMENT_PREFIX + name.upper() if is_close and not is_ours else None
    return None


def _nearest_setting(name: str) -> tuple[str | None, list[SettingsError]]:
    """Return the setting that is most similar to an unknown one, and a fault if it was meant.

    The name may be that of an environment variable.
    """
    if (meant := meant_variable(name)) is not None:
        return meant, []
    own = name.removeprefix(ENVIRONMENT_PREFIX)
    own, prefix = (own.lower(), ENVIRONMENT_PREFIX) if own != name else (name, "")
    if own in MAPPING_KEYS:
        msg = f"unknown setting {name!r}; set it in a stream's mapping under cohorts"
        return None, [SettingsError("unknown_setting", msg)]
    nearest, similarity = closest_name(own, SETTING_NAMES)
    if similarity < _SIMILAR:
        return None, []
    shown = prefix + (nearest.upper() if prefix else nearest)
    if similarity <= _MISSPELLED:
        return shown, []
    msg = f"unknown setting {name!r}; did you mean {shown!r}?"
    return shown, [SettingsError("unknown_setting", msg)]


def _resolve(default: StreamMapping, stream: str, own: dict[str, t.Any]) -> StreamMapping:
    """Return a stream's mapping: the default one, with the stream's name and its own keys."""
    names = {} if "cohort_id_column" in own else {"cohort_id": stream, "cohort_name": stream}
    mapping = msgspec.structs.replace(default, stream=stream, **names | own)
    # An optional uid column is one that is not set explicitly and not needed.
    is_required = "uid_column" in own or mapping.anonymous_id_column is None
    return msgspec.structs.replace(mapping, uid_required=default.uid_required or is_required)


def _setting_faults(settings: Settings) -> Iterator[SettingsError]:
    """Yield a fault for each rule that top-level settings break."""
    if not re.fullmatch(r"[!-9;-~]+", settings.workspace_id):
        yield _invalid("workspace_id: must be ASCII without spaces or a colon")
    for name in ("data_api_key", "segments_api_key", "analytics_api_key", "db_name"):  # headers
        if re.fullmatch(r"[!-~]+", getattr(settings, name) or "-") is None:
            yield _invalid(f"{name}: must be ASCII without spaces")
    if not settings.partner.strip():
        yield _invalid("partner: must not be blank")
    if (storage := settings.batch_storage) is not None and not storage.root.strip():
        yield _invalid("batch_config.storage.root: must not be blank")
    yield from _file_faults(settings)
    if settings.flattening_enabled and settings.flattening_max_depth is None:
        yield _conflict("flattening_enabled: requires flattening_max_depth")
    if settings.min_match_percent and settings.id_attribute is None:
        yield _conflict("min_match_percent: requires id_attribute")


def _file_faults(settings: Settings) -> Iterator[SettingsError]:
    rejects, report = settings.rejects_path, settings.report_path
    if settings.on_reject is OnReject.SKIP and rejects is None:
        yield _conflict("on_reject: skip requires rejects_path, so that no row is lost")
    if rejects and report and os.path.realpath(rejects) == os.path.realpath(report):
        yield _conflict("report_path: is the same file as rejects_path, which it would replace")
    if not (settings.metrics_path or ".prom").endswith(".prom"):
        yield _invalid("metrics_path: must end with .prom")


def _mapping_faults(mapping: StreamMapping, own_keys: Container[str]) -> Iterator[SettingsError]:
    """Yield a fault for each rule that one stream's mapping breaks."""
    where = f"cohorts.{mapping.stream}"
    yield from _cohort_faults(where, mapping, own_keys)
    for key, (*modes, last) in _MODES_OF_KEYS.items():
        if key in own_keys and mapping.sync_mode not in {*modes, last}:
            rule = f"works only with the sync modes {', '.join(modes)} and {last}"
            yield _conflict(f"{where}.{key}: {rule}, not with {mapping.sync_mode}")
    roles: dict[str, str] = {}
    for role, column in mapping.columns.items():
        if (other := roles.setdefault(column, role)) != role:
            yield _conflict(
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
                yield _conflict(f"{where}.{key}: {rule}")
        return
    if not cohort.cohort_id.strip():
        yield _invalid(f"{where}.cohort_id: must not be blank")
    if fault := cohort_name_fault(cohort.name):
        msg = (
            f"{where}.cohort_name: {fault}; MoEngage may drop such a name without an error, "
            "so set a valid cohort_name"
        )
        yield SettingsError("invalid_cohort_name", msg)
    if mapping.cohort_name_column is not None:
        yield _conflict(f"{where}.cohort_name_column: requires cohort_id_column")
    if mapping.exclusive:
        yield _conflict(f"{where}.exclusive: requires cohort_id_column")


def _shared_cohort_faults(mappings: Iterable[StreamMapping]) -> Iterator[SettingsError]:
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
                f"cohorts: streams {other!r} and {mapping.stream!r} populate the same cohort "
                f"{cohort.cohort_id!r}; give each its own cohort_id, or merge the streams"
            )
            yield SettingsError("duplicate_cohort", msg)
        elif (other := by_name.get(cohort.name)) is not None:
            msg = (
                f"cohorts: streams {other!r} and {mapping.stream!r} give two cohorts the same name "
                f"{cohort.name!r}; MoEngage uses a name only once, so change one of them"
            )
            yield SettingsError("duplicate_cohort_name", msg)
        by_id[cohort.cohort_id] = by_name[cohort.name] = mapping.stream
