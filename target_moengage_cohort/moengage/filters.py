"""Filters of the Segments and the Analytics API, built from values; pure."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterable

Filter: t.TypeAlias = dict[str, t.Any]
"""A filter as MoEngage documents it, as JSON."""

MOST_VALUES = 1_000
"""How many values to give a filter at most: how many MoEngage takes is open."""


class FilterGroup(msgspec.Struct, frozen=True):
    """Filters of which a user must pass all (`and`) or any (`or`)."""

    filter_operator: t.Literal["and", "or"]
    filters: tuple[Filter, ...]


def all_of(*filters: Filter) -> FilterGroup:
    """Return the group of users who pass all filters."""
    return FilterGroup("and", filters)


def attribute_in(attribute: str, values: Iterable[str]) -> Filter:
    """Return the filter for users whose text attribute is one of some values, to the letter."""
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
