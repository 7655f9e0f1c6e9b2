"""From a raw configuration to `Config`: gathering, conversion, defaults and rules."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.settings.convert import convert_object, fields_of, nearest_name
from target_moengage_cohort.settings.declared import (
    DERIVED_KEYS,
    SETTING_NAMES,
    Settings,
    StreamMapping,
)
from target_moengage_cohort.settings.forms import OBJECTS, gather
from target_moengage_cohort.settings.validation import (
    mapping_faults,
    setting_faults,
    shared_cohort_faults,
)

if t.TYPE_CHECKING:
    import logging


class Config(msgspec.Struct, frozen=True):
    """A configuration that complies with every rule.

    Attributes:
        settings: The settings.
        unknown: Unknown names, each with the most similar setting, for a warning.
        default: What every mapping has unless it sets it itself.
    """

    settings: Settings
    unknown: dict[str, str | None]
    default: StreamMapping

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
        mapping = _resolve(self.default, stream, {})
        SettingsError.raise_any(mapping_faults(mapping, {}))
        return mapping


def load(raw: t.Mapping[str, t.Any]) -> Config:
    """Convert and check a configuration; the `SettingsError` has all faults that were found.

    Values are as a file has them, or strings from the environment. Object settings may be flattened
    to dotted keys, as Meltano passes them on.
    """
    try:
        return _load(raw)
    except RecursionError:
        msg = f"{', '.join(OBJECTS)}: one of them is nested too deeply"
        raise SettingsError("invalid_value", msg) from None


def _load(raw: t.Mapping[str, t.Any]) -> Config:
    gathered = gather(raw)
    known = {name: gathered[name] for name in gathered if name in SETTING_NAMES}
    unknown = {name: nearest_name(name, SETTING_NAMES) for name in gathered if name not in known}
    faults: list[TargetError] = []
    values = convert_object("", fields_of(Settings), known, faults)
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
    faults += setting_faults(settings)
    for stream, mapping in mappings.items():
        faults += mapping_faults(mapping, own[stream])
    faults += shared_cohort_faults(mappings.values())
    SettingsError.raise_any(faults)
    return Config(msgspec.structs.replace(settings, cohorts=mappings), unknown, default)


def _resolve(default: StreamMapping, stream: str, own: dict[str, t.Any]) -> StreamMapping:
    """Return a stream's mapping: the default one, with the stream's name and its own keys."""
    names = {} if "cohort_id_column" in own else {"cohort_id": stream, "cohort_name": stream}
    mapping = msgspec.structs.replace(default, stream=stream, **names | own)
    # An optional uid column is one that nobody has named and that nobody needs.
    is_required = "uid_column" in own or mapping.anonymous_id_column is None
    return msgspec.structs.replace(mapping, uid_required=default.uid_required or is_required)
