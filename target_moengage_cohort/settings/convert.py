"""Conversion of one raw value, or of one object's keys, to the types that are declared."""

from __future__ import annotations

import difflib
import enum
import typing as t
from functools import partial

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import api_url, data_center

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Fields: t.TypeAlias = Mapping[str, msgspec.structs.FieldInfo]

_ADDRESSES: dict[str, Callable[[str], str]] = {"api_url": api_url, "ledger_uri": str}
_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "text",
    list: "an array",
    dict: "an object",
}
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}

invalid = partial(SettingsError, "invalid_value")
conflict = partial(SettingsError, "conflicting_settings")


def fields_of(struct: type[msgspec.Struct], *, without: Iterable[str] = ()) -> Fields:
    """Return a struct's fields by their names."""
    return {each.name: each for each in msgspec.structs.fields(struct) if each.name not in without}


def required_names(fields: Fields) -> list[str]:
    """Return the names of the fields without a default."""
    return [name for name, field in fields.items() if field.required]


def drop_blanks(raw: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the keys that are set: Meltano passes on settings without a value as null or ""."""
    return {key: value for key, value in raw.items() if value is not None and value != ""}


def convert_fields(
    fields: Fields, raw: Mapping[str, t.Any], prefix: str = "", *, required: Iterable[str] = ()
) -> tuple[dict[str, t.Any], list[SettingsError]]:
    """Return the converted values of the fields that are set, and a fault for each wrong field."""
    values: dict[str, t.Any] = {}
    faults: list[SettingsError] = []
    for name in fields.keys() & raw.keys():
        try:
            values[name] = _convert(prefix + name, fields[name].type, raw[name])
        except SettingsError as error:
            faults += error.faults
    missing = [
        SettingsError("required", f"{prefix}{name}: is required")
        for name in required
        if name not in raw
    ]
    return values, [*missing, *sorted(faults, key=str)]


def convert_object(
    where: str, fields: Fields, raw: t.Any, *, required: Iterable[str] = ()
) -> dict[str, t.Any]:
    """Return the converted keys of an object that may have no other keys.

    The `SettingsError` has a fault for each wrong key.
    """
    if not isinstance(raw, dict):
        raise _type_error(where, dict, raw)
    raw = drop_blanks(raw)
    values, faults = convert_fields(fields, raw, f"{where}.", required=required)
    for key in sorted(raw.keys() - fields.keys()):
        nearest = nearest_name(key, fields)
        hint = f"did you mean {nearest!r}?" if nearest else f"the keys are {', '.join(fields)}"
        faults.append(SettingsError("unknown_key", f"{where}: unknown key {key!r}; {hint}"))
    if faults:
        raise SettingsError.combine(faults)
    return values


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to a mistyped one, if one is similar."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)), None)


def _convert(where: str, annotation: t.Any, raw: t.Any) -> t.Any:
    """Return a value in the type of its field; no error quotes the value, which may be a secret."""
    if where == "data_center":
        return data_center(raw)
    if isinstance(raw, str) and not _is_text(raw):
        raise SettingsError("invalid_value", f"{where}: contains invalid characters")
    kind, limits = _type_of(annotation)
    if issubclass(kind, msgspec.Struct):
        fields = fields_of(kind)
        return kind(**convert_object(where, fields, raw, required=required_names(fields)))
    if issubclass(kind, enum.Enum):
        return _convert_choice(where, kind, raw)
    try:
        value = _convert_plain(kind, raw)
    except ValueError:
        raise _type_error(where, kind, raw) from None
    if limits.ge is not None and value < limits.ge:
        raise SettingsError("invalid_value", f"{where}: must be at least {limits.ge}")
    if limits.le is not None and value > limits.le:
        raise SettingsError("invalid_value", f"{where}: must be at most {limits.le}")
    check = _ADDRESSES.get(where)
    return value if check is None else check(value.strip())


def _type_of(annotation: t.Any) -> tuple[type, Meta]:
    """Return the type in an annotation such as ``Annotated[int, Meta(ge=0)] | None``."""
    limits = Meta()
    while (origin := t.get_origin(annotation)) not in {None, dict}:
        annotation, *extras = t.get_args(annotation)
        if origin is t.Annotated:
            (limits,) = extras
    return origin or annotation, limits


def _convert_choice(where: str, choices: type[enum.Enum], raw: t.Any) -> enum.Enum:
    for choice in choices:
        if isinstance(raw, str) and raw.strip() == choice.value:
            return choice
    values = ", ".join(choice.value for choice in choices)
    raise SettingsError("invalid_value", f"{where}: must be one of {values}")


def _convert_plain(kind: type, raw: t.Any) -> t.Any:
    """Return text as it is, and anything else also from text, as the environment has it."""
    if kind is str:
        if not isinstance(raw, str):
            raise ValueError
        return raw
    if isinstance(raw, str):
        raw = raw.strip()
        raw = _WORDS.get(raw.lower(), raw) if kind is bool else raw
    return msgspec.convert(raw, kind, strict=False)


def _type_error(where: str, kind: type, raw: t.Any) -> SettingsError:
    actual = _NAMES.get(type(raw), "null" if raw is None else type(raw).__name__)
    return invalid(f"{where}: must be {_NAMES[kind]}, not {actual}")


def _is_text(value: str) -> bool:
    """Whether a value can be encoded in UTF-8 and be part of a path."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which Python makes of invalid UTF-8
        return False
