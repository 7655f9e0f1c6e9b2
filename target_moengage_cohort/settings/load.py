"""From a raw configuration to `Settings`: forms, types, and the rules between settings."""

from __future__ import annotations

import difflib
import os
import re
import typing as t

import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import api_url, ledger_folder
from target_moengage_cohort.settings.declared import OnReject, Settings
from target_moengage_cohort.settings.forms import by_stream, nested
from target_moengage_cohort.settings.keys import StreamMapping
from target_moengage_cohort.settings.mapping import (
    Mapping,
    mapping_faults,
    resolve,
    shared_cohort_faults,
)

if t.TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator

DATA_CENTERS = ("01", "02", "03", "04", "05", "06", "101")
MAPPING_KEYS = frozenset(StreamMapping.__struct_fields__)
SETTING_NAMES = frozenset(Settings.__struct_fields__)
_OBJECTS = ("cohorts", "batch_config", "stream_maps", "stream_map_config")
_ADDRESSES = {"api_url": api_url, "ledger_uri": ledger_folder}


class Config(msgspec.Struct, frozen=True):
    """A configuration that keeps every rule.

    Attributes:
        settings: The settings.
        mappings: What `cohorts` says, per stream, with its defaults filled in.
        uid_by_hand: Whether `uid_column` was set for all streams.
        unknown: Names that are no settings, each with the nearest one that is, for a warning.
    """

    settings: Settings
    mappings: dict[str, Mapping]
    uid_by_hand: bool
    unknown: dict[str, str | None]

    def warn(self, logger: logging.Logger) -> None:
        """Tell of names that are no settings: they are kept from no run, and do nothing."""
        for name, near in self.unknown.items():
            hint = f"; did you mean {near}?" if near else ""
            logger.warning("%s: is no setting of the target%s", name, hint)

    def mapping(self, stream: str) -> Mapping:
        """The mapping of a stream that sends a SCHEMA.

        Raises:
            SettingsError: The stream is not listed, or its own name is no cohort's name.
        """
        if (mapping := self.mappings.get(stream)) is not None:
            return mapping
        if self.mappings:
            msg = (
                f"cohorts: the stream {stream!r} is not listed ({_listed(self.mappings)} are); "
                "add it, or deselect it in the tap"
            )
            raise SettingsError(msg)
        raw = StreamMapping()
        mapping = resolve(self.settings, stream, raw, uid_by_hand=self.uid_by_hand)
        if faults := list(mapping_faults(mapping, raw)):
            raise SettingsError.combine(map(SettingsError, faults))
        return mapping


def load(raw: t.Mapping[str, t.Any]) -> Config:
    """Check a configuration and give it types.

    Args:
        raw: As it stands in a file, or as strings from the environment; `cohorts`,
            `batch_config` and `stream_maps` may be flattened to dotted keys, as Meltano hands
            them over there.

    Raises:
        SettingsError: With a message for each fault that was found.
    """
    try:
        return _loaded(_gathered(raw))
    except RecursionError:
        msg = f"{', '.join(_OBJECTS)}: one of them is nested too deeply"
        raise SettingsError(msg) from None


def _loaded(raw: t.Mapping[str, t.Any]) -> Config:
    given = {name: value for name, value in raw.items() if value is not None and value != ""}
    fields = msgspec.structs.fields(Settings)
    faults = [f"{f.name}: is required" for f in fields if f.required and f.name not in given]
    types = {field.name: field.type for field in fields if field.name != "cohorts"}
    values, found = _converted("", types, given)
    values["cohorts"], found_in_cohorts = _stream_mappings(given.get("cohorts", {}))
    faults += sorted(found) + found_in_cohorts
    if faults:
        raise SettingsError.combine(map(SettingsError, faults))
    settings = Settings(**values)
    mappings = {
        stream: resolve(settings, stream, mapping, uid_by_hand="uid_column" in given)
        for stream, mapping in settings.cohorts.items()
    }
    faults += _faults(settings)
    for stream, mapping in mappings.items():
        faults += mapping_faults(mapping, settings.cohorts[stream])
    faults += shared_cohort_faults(mappings.values())
    if faults:
        raise SettingsError.combine(map(SettingsError, faults))
    unknown = {name: nearest(name, SETTING_NAMES) for name in raw if name not in SETTING_NAMES}
    return Config(settings, mappings, "uid_column" in given, unknown)


def _gathered(raw: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Gather ``cohorts.vip.cohort_id`` and its like, flattened all the way up, into one object."""
    gathered = dict(raw)
    for name in raw:
        setting, dot, rest = name.partition(".")
        if dot and setting in _OBJECTS:
            whole = gathered.get(setting) or {}
            if isinstance(whole, dict):
                gathered[setting] = {**whole, rest: gathered.pop(name)}
    return gathered


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a mistyped one, if any is."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)), None)


def _convert(name: str, kind: t.Any, value: t.Any) -> t.Any:
    """Give one setting its type; strings serve for numbers and booleans, as in the environment."""
    if name == "data_center":
        return _data_center(value)
    if isinstance(value, str) and not _is_text(value):
        msg = f"{name}: holds characters that are no text"
        raise SettingsError(msg)
    if name in _OBJECTS:
        value = _object(value)
    if name == "stream_maps" and isinstance(value, dict):
        value = by_stream(value, _is_stream_map_key)
    if name == "batch_config" and isinstance(value, dict):
        value = nested(value)
    if isinstance(struct := _plain(kind), type) and issubclass(struct, msgspec.Struct):
        return _keys(name, struct, value, of=name)
    try:
        converted = _typed(value, kind)
    except msgspec.ValidationError as error:
        msg = f"{name}: {_rule(error, kind)}"
        raise SettingsError(msg) from None
    if (checked := _ADDRESSES.get(name)) is not None:
        return checked(converted.strip())
    return converted


def _typed(value: t.Any, kind: t.Any) -> t.Any:
    """Convert a value; text stays exactly as it is where text is wanted."""
    if isinstance(value, str):
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            value = value.strip()
            words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
            value = words.get(value.lower(), value)
    return msgspec.convert(value, kind, strict=False)


def _plain(kind: t.Any) -> t.Any:
    """A type without what is said about it, and without what may stand in its place."""
    while not isinstance(kind, type) and (parts := t.get_args(kind)):
        kind = parts[0]
    return kind


_S = t.TypeVar("_S", bound=msgspec.Struct)


def _keys(name: str, struct: type[_S], value: t.Any, *, of: str) -> _S:
    """Give an object with keys of its own its type.

    Raises:
        SettingsError: With a message for each fault.
    """
    if not isinstance(value, dict):
        msg = f"{name}: must be an object"
        raise SettingsError(msg)
    given = {key: leaf for key, leaf in value.items() if leaf is not None and leaf != ""}
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    faults = []
    for key in given.keys() - fields.keys():
        near = nearest(key, fields)
        hint = f"did you mean {near}?" if near else f"known are {_listed(fields)}"
        faults.append(f"{name}.{key}: is no key of {of}; {hint}")
    missing = [key for key, field in fields.items() if field.required and key not in given]
    faults += [f"{name}.{key}: is required" for key in missing]
    types = {key: field.type for key, field in fields.items()}
    converted, found = _converted(f"{name}.", types, given)
    if faults := faults + found:
        raise SettingsError.combine(map(SettingsError, sorted(faults)))
    return struct(**converted)


def _is_text(value: str) -> bool:
    """Whether UTF-8 can carry a value, and a path can hold it."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as for bytes that are no UTF-8
        return False


def _converted(
    prefix: str, types: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any]
) -> tuple[dict[str, t.Any], list[str]]:
    """Give each known one of some settings its type; return them and a message for each fault."""
    values: dict[str, t.Any] = {}
    faults: list[str] = []
    for name in types.keys() & given.keys():
        try:
            values[name] = _convert(prefix + name, types[name], given[name])
        except SettingsError as error:
            faults += map(str, error.faults)
    return values, faults


def _object(value: object) -> object:
    """An object setting's value; in the environment it is JSON."""
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return value
    return value


def _rule(error: msgspec.ValidationError, kind: t.Any) -> str:
    """What msgspec says of a value, in a user's words and without the value."""
    if choices := getattr(_plain(kind), "__members__", None):
        return f"must be one of {', '.join(member.value for member in choices.values())}"
    text = re.sub(r" - at `.*`$", "", str(error))
    for theirs, ours in (
        (r"^Expected `(.*?)`(?:, got `(.*)`)", r"must be of type \1, not \2"),
        (r"^Expected `(.*?)` (>=|<=) (\d+)", r"must be \2 \3"),
        (r"\bint\b", "integer"),
        (r"\bstr\b", "text"),
        (r"\bbool\b", "boolean"),
        (r" \| unset", ""),
    ):
        text = re.sub(theirs, ours, text)
    return text


def _data_center(value: object) -> str:
    """Normalise `1`, `01`, `DC-01`, `dc01`, `101` to one of `DATA_CENTERS`; never guess."""
    match = re.fullmatch(r"(?:dc[-_ ]?)?0*([1-9]\d*)", str(value).strip(), re.IGNORECASE)
    number = match.group(1).zfill(2) if match and isinstance(value, (str, int)) else ""
    if number not in DATA_CENTERS:
        msg = (
            f"data_center: must be one of {', '.join(DATA_CENTERS)}; there is no default, since "
            "the wrong one is another region"
        )
        raise SettingsError(msg)
    return number


def _faults(settings: Settings) -> Iterator[str]:
    """Yield a message for each rule that top-level settings break."""
    if not re.fullmatch(r"[!-9;-~]+", settings.workspace_id):
        yield "workspace_id: must be ASCII without spaces or a colon"
    if not re.fullmatch(r"[!-~]+", settings.data_api_key):
        yield "data_api_key: must be ASCII without spaces"
    if not settings.partner.strip():
        yield "partner: must not be blank"
    if settings.on_reject is OnReject.SKIP and settings.rejects_path is UNSET:
        yield "on_reject: skip needs rejects_path, so that no row is lost"
    rejects, report = settings.rejects_path, settings.report_path
    if rejects and report and os.path.realpath(rejects) == os.path.realpath(report):
        yield "report_path: is the file of rejects_path, whose rows the report would replace"
    batches = settings.batch_config
    if batches is not UNSET and batches.storage is not UNSET and not batches.storage.root.strip():
        yield "batch_config.storage.root: must not be blank"
    if settings.flattening_enabled and settings.flattening_max_depth is UNSET:
        yield "flattening_enabled: needs flattening_max_depth"


def _stream_mappings(value: object) -> tuple[dict[str, StreamMapping], list[str]]:
    """Read `cohorts`; return the mappings and a message for each fault."""
    value = _object(value)
    if not isinstance(value, dict):
        what = "is not valid JSON" if isinstance(value, str) else "must be an object"
        return {}, [f"cohorts: {what}: stream → mapping"]
    mappings: dict[str, StreamMapping] = {}
    faults: list[str] = []
    for stream, said in by_stream(value, _is_mapping_key).items():
        keys = {} if said is None else said
        try:
            mappings[stream] = _keys(
                f"cohorts.{stream}", StreamMapping, keys, of="a cohort's mapping"
            )
        except SettingsError as error:
            faults += map(str, error.faults)
    return mappings, sorted(faults)


def _is_mapping_key(inner: str, leaf: object) -> bool:
    return not isinstance(leaf, dict) and (leaf is not None or inner in MAPPING_KEYS)


def _is_stream_map_key(inner: str, leaf: object) -> bool:
    """Whether a dotted name in `stream_maps` ends in a property; a null alone drops a stream."""
    return inner.startswith("__") or (
        leaf is not None and not isinstance(leaf, dict) and leaf != "__NULL__"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
