"""Conversion of raw values to the types that are declared; no error quotes a value."""

from __future__ import annotations

import difflib
import enum
import re
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.settings.addresses import api_url, data_center
from target_moengage_cohort.settings.forms import OBJECTS, one_form

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Fields: t.TypeAlias = Mapping[str, msgspec.structs.FieldInfo]

_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "text",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def fields_of(struct: type[msgspec.Struct], *, without: Iterable[str] = ()) -> Fields:
    """Return a struct's fields by their names."""
    return {each.name: each for each in msgspec.structs.fields(struct) if each.name not in without}


def convert_object(
    where: str, fields: Fields, raw: t.Any, faults: list[TargetError], *, complete: bool = True
) -> dict[str, t.Any]:
    """Return the converted keys of the object at a path, which is empty for all settings.

    `faults` gets an error for each wrong or unknown key; and for each missing one without a
    default, if the object must be `complete`.
    """
    if not isinstance(raw, dict):
        faults.append(_type_error(where, dict, raw))
        return {}
    # Meltano passes on keys without a value as null or "".
    raw = {key: value for key, value in raw.items() if value is not None and value != ""}
    values = {}
    for name, field in fields.items():
        path = f"{where}.{name}".removeprefix(".")
        if name in raw:
            try:
                values[name] = _convert(path, field.type, raw[name])
            except SettingsError as error:
                faults += error.faults
        elif field.required and complete:
            faults.append(SettingsError("required", f"{path}: is required"))
    for key in sorted(raw.keys() - fields.keys()):
        nearest = nearest_name(key, fields)
        hint = f"did you mean {nearest!r}?" if nearest else f"the keys are {', '.join(fields)}"
        faults.append(SettingsError("unknown_key", f"{where}: unknown key {key!r}; {hint}"))
    return values


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to a mistyped one, if one is similar."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.75)), None)


def closest_name(name: str, names: Iterable[str]) -> tuple[str, float]:
    """Return the most similar name, whatever its case and separators, and how similar: 0 to 1."""

    def similarity(other: str) -> float:
        one, two = (re.sub("[^a-z0-9]", "", each.lower()) for each in (name, other))
        return difflib.SequenceMatcher(None, one, two).ratio()

    best = max(sorted(names), key=similarity)
    return best, similarity(best)


def _convert(where: str, annotation: t.Any, raw: t.Any) -> t.Any:
    """Return a value in the type of its field."""
    if where == "data_center":
        return data_center(raw)
    if where in OBJECTS:
        raw = one_form(where, raw)
    if isinstance(raw, str) and re.search("[\0\ud800-\udfff]", raw):  # neither path nor UTF-8
        raise SettingsError("invalid_value", f"{where}: contains invalid characters")
    kind, limits = _type_of(annotation)
    if issubclass(kind, msgspec.Struct):
        faults: list[TargetError] = []
        values = convert_object(where, fields_of(kind), raw, faults)
        SettingsError.raise_any(faults)
        return kind(**values)
    value = _convert_plain(where, kind, raw)
    if limits.ge is not None and value < limits.ge:
        raise SettingsError("invalid_value", f"{where}: must be at least {limits.ge}")
    if limits.le is not None and value > limits.le:
        raise SettingsError("invalid_value", f"{where}: must be at most {limits.le}")
    if where == "api_url":
        return api_url(value.strip())
    return value.strip() if where == "ledger_uri" else value


def _convert_plain(where: str, kind: type, raw: t.Any) -> t.Any:
    """Return text as it is, and anything else also from text, as the environment has it."""
    text = raw.strip() if isinstance(raw, str) and kind is not str else raw
    if isinstance(raw, str) and kind is bool:
        text = _WORDS.get(text.lower(), text)
    try:
        return msgspec.convert(text, kind, strict=False)
    except ValueError:
        raise _type_error(where, kind, raw) from None


def _type_of(annotation: t.Any) -> tuple[type, Meta]:
    """Return the type in an annotation such as ``Annotated[int, Meta(ge=0)] | None``."""
    limits = Meta()
    while (origin := t.get_origin(annotation)) not in {None, dict}:
        annotation, *extras = t.get_args(annotation)
        if origin is t.Annotated:
            (limits,) = extras
    return origin or annotation, limits


def _type_error(where: str, kind: type, raw: t.Any) -> SettingsError:
    rule = f"{_NAMES.get(kind)}, not {_NAMES.get(type(raw), type(raw).__name__)}"
    if issubclass(kind, enum.Enum):
        rule = f"one of {', '.join(kind)}"
    return SettingsError("invalid_value", f"{where}: must be {rule}")
