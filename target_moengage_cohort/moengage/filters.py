"""Filters of the Segments and the Analytics API, built from values; pure."""

from __future__ import annotations

import difflib
import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Filter: t.TypeAlias = dict[str, t.Any]
"""A filter as MoEngage documents it, as JSON."""

MOST_VALUES = 1_000
"""How many values to give a filter at most: how many MoEngage takes is open."""


class FilterGroup(msgspec.Struct, frozen=True):
    """Filters of which a user must pass all (`and`) or any (`or`)."""

    filter_operator: t.Literal["and", "or"]
    filters: tuple[Filter, ...]


Group: t.TypeAlias = FilterGroup | dict[str, t.Any]
"""A group, or the JSON of one, whose fields that are not documented are kept."""


def all_of(*filters: Filter) -> FilterGroup:
    """Return the group of users who pass all filters."""
    return FilterGroup("and", filters)


def attribute_in(attribute: str, values: Iterable[str]) -> Filter:
    """Return the filter for users whose text attribute is exactly one of some values."""
    return {
        "filter_type": "user_attributes",
        "name": attribute,
        "data_type": "string",
        "category": "Tracked Custom Attribute",
        "operator": "in",
        "negate": False,
        "value": [*values],
        "case_sensitive": True,
    }


def attribute_exists(attribute: str) -> Filter:
    """Return the filter for users who have a text attribute."""
    having = attribute_in(attribute, ())
    return {key: having[key] for key in having if key != "value"} | {"operator": "exists"}


def in_segment(segment_id: str, name: str) -> Filter:
    """Return the filter for users in a segment; MoEngage looks at its id only."""
    return {"filter_type": "custom_segments", "id": segment_id, "name": name}


_SHOWN = ("name", "id", "created_time", "updated_time", "type", "source", "description")
_FIELDS = ("included_filters", "excluded_filters", *_SHOWN)
_KINDS = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
_GROUP = '{"filter_operator": "and", "filters": [...]}'


def filter_faults(content: t.Any) -> Iterator[str]:
    """Yield what is wrong with the fields of decoded JSON that has a segment's filters.

    It may have the other fields that MoEngage shows of a segment. No fault quotes a value.
    """
    if not isinstance(content, dict):
        yield _expected("the file", "an object", content, f'{{"included_filters": {_GROUP}}}')
        return
    for key in content.keys() - {*_FIELDS}:
        near = difflib.get_close_matches(key, _FIELDS, 1)
        if near:
            yield f"unknown field {key!r}; did you mean {near[0]!r}?"
        else:
            yield f"unknown field; remove all but {', '.join(_FIELDS)}"
    for name in _FIELDS[:2]:
        if name in content:
            yield from _group_faults(name, content[name])
        elif name == _FIELDS[0]:
            yield f'{name}: is missing; enter "{name}": {_GROUP}'


def _group_faults(name: str, group: t.Any) -> Iterator[str]:
    if group is None and name != _FIELDS[0]:
        return
    if not isinstance(group, dict):
        yield _expected(name, "an object", group, f'"{name}": {_GROUP}')
        return
    if group.get("filter_operator") not in ("and", "or"):
        what = 'must be "and" or "or"' if "filter_operator" in group else "is missing"
        remedy = '"filter_operator": "and", or "filter_operator": "or"'
        yield f"{name}.filter_operator: {what}; enter {remedy}"
    filters = group.get("filters")
    if "filters" not in group:
        yield f'{name}.filters: is missing; enter "filters": [...]'
    elif not isinstance(filters, list):
        yield _expected(f"{name}.filters", "a list", filters, '"filters": [...]')
    else:
        wrong = (number for number, each in enumerate(filters) if not isinstance(each, dict))
        if (number := next(wrong, None)) is not None:  # the first one: there may be a million
            where = f"{name}.filters, item {number + 1:,}"
            yield _expected(where, "an object", filters[number], '{"filter_type": ...}')


def _expected(where: str, kind: str, found: t.Any, remedy: str) -> str:
    found_kind = _KINDS.get(type(found), "a number")
    return f"{where}: must be {kind}, not {found_kind}; enter {remedy}"
