"""From a raw configuration to `Config`: gathering, conversion, and rules between settings."""

from __future__ import annotations

import os
import re
import typing as t
from functools import partial

import msgspec

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.convert import (
    conflict,
    convert_fields,
    convert_object,
    drop_blanks,
    fields_of,
    invalid,
    nearest_name,
    required_names,
)
from target_moengage_cohort.settings.declared import OnReject, Settings
from target_moengage_cohort.settings.forms import by_stream, nested
from target_moengage_cohort.settings.keys import DERIVED_KEYS, StreamMapping
from target_moengage_cohort.settings.mapping import mapping_faults, resolve, shared_cohort_faults

if t.TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

SETTING_NAMES = frozenset(Settings.__struct_fields__)
MAPPING_KEYS = frozenset(StreamMapping.__struct_fields__) - DERIVED_KEYS
_OBJECTS = ("cohorts", "batch_config", "stream_maps", "stream_map_config")


class Config(msgspec.Struct, frozen=True):
    """A configuration that complies with every rule.

    Attributes:
        settings: The settings.
        unknown: Unknown names, each with the most similar setting, for a warning.
        uid_column_is_set: Whether `uid_column` is set explicitly for all streams.
    """

    settings: Settings
    unknown: dict[str, str | None]
    uid_column_is_set: bool

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
            hint = f"Did you mean {nearest!r}? " if nearest else ""
            msg = (
                f"stream {stream!r} is not mapped under cohorts (mapped: "
                f"{', '.join(sorted(self.mappings))}). {hint}Add it, or deselect it in the tap"
            )
            raise SettingsError("unmapped_stream", msg)
        mapping = resolve(self.settings, stream, {}, uid_column_is_set=self.uid_column_is_set)
        if faults := list(mapping_faults(mapping, {})):
            raise SettingsError.combine(faults)
        return mapping


def load(raw: t.Mapping[str, t.Any]) -> Config:
    """Convert and check a configuration; the `SettingsError` has all faults that were found.

    Values are as a file has them, or strings from the environment. Object settings may be flattened
    to dotted keys, as Meltano passes them on.
    """
    try:
        return _load(raw)
    except RecursionError:
        msg = f"{', '.join(_OBJECTS)}: one of them is nested too deeply"
        raise SettingsError("invalid_value", msg) from None


def _load(raw: t.Mapping[str, t.Any]) -> Config:
    gathered = _gather(raw)
    unknown = {
        name: nearest_name(name, SETTING_NAMES) for name in gathered if name not in SETTING_NAMES
    }
    present, faults = _parse_objects(drop_blanks(gathered))
    keys, key_faults = _convert_mappings(present.pop("cohorts", {}))
    fields = fields_of(Settings, without={"cohorts"})
    values, value_faults = convert_fields(fields, present, required=required_names(fields))
    if faults := [*value_faults, *faults, *key_faults]:
        raise SettingsError.combine(faults)
    uid_column_is_set = "uid_column" in present
    settings = Settings(**values)
    mappings = {
        stream: resolve(settings, stream, own, uid_column_is_set=uid_column_is_set)
        for stream, own in keys.items()
    }
    faults = list(_setting_faults(settings))
    for stream, mapping in mappings.items():
        faults += mapping_faults(mapping, keys[stream])
    faults += shared_cohort_faults(mappings.values())
    if faults:
        raise SettingsError.combine(faults)
    settings = msgspec.structs.replace(settings, cohorts=mappings)
    return Config(settings, unknown, uid_column_is_set)


def _gather(raw: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Gather ``cohorts.vip.cohort_id`` and the like into the object settings they belong to."""
    gathered = dict(raw)
    for name in raw:
        setting, dot, rest = name.partition(".")
        if dot and setting in _OBJECTS:
            value = gathered.get(setting) or {}
            if isinstance(value, dict):
                gathered[setting] = {**value, rest: gathered.pop(name)}
    return gathered


def _parse_objects(present: dict[str, t.Any]) -> tuple[dict[str, t.Any], list[SettingsError]]:
    """Return the settings with their objects in one form, and a fault for text that is not JSON."""
    faults = []
    for name in present.keys() & set(_OBJECTS):
        value = present[name]
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                faults.append(SettingsError("invalid_value", f"{name}: is not valid JSON"))
                value = {}
        if isinstance(value, dict) and name in _UNFLATTENED:
            value = _UNFLATTENED[name](value)
        present[name] = value
    return present, sorted(faults, key=str)


def _convert_mappings(cohorts: t.Any) -> tuple[dict[str, dict[str, t.Any]], list[SettingsError]]:
    """Return the keys that are set explicitly for each stream, converted, and the faults."""
    if not isinstance(cohorts, dict):
        return {}, [SettingsError("invalid_value", "cohorts: must be an object: stream → mapping")]
    fields = fields_of(StreamMapping, without=DERIVED_KEYS)
    keys: dict[str, dict[str, t.Any]] = {}
    faults: list[SettingsError] = []
    for stream, raw in cohorts.items():
        try:
            keys[stream] = convert_object(f"cohorts.{stream}", fields, {} if raw is None else raw)
        except SettingsError as error:
            faults += error.faults
    return keys, sorted(faults, key=str)


def _setting_faults(settings: Settings) -> Iterator[SettingsError]:
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


def _is_mapping_key(inner: str, leaf: object) -> bool:
    return not isinstance(leaf, dict) and (leaf is not None or inner in MAPPING_KEYS)


def _is_stream_map_key(inner: str, leaf: object) -> bool:
    """Whether a dotted name in `stream_maps` ends in a property; null by itself drops a stream."""
    return inner.startswith("__") or (
        leaf is not None and not isinstance(leaf, dict) and leaf != "__NULL__"
    )


_UNFLATTENED: dict[str, Callable[[dict[str, t.Any]], dict[str, t.Any]]] = {
    "cohorts": partial(by_stream, is_key=_is_mapping_key),
    "stream_maps": partial(by_stream, is_key=_is_stream_map_key),
    "batch_config": nested,
}
