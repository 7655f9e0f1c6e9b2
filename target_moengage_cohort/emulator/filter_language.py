"""Filters: which are valid, and which users pass them."""

from __future__ import annotations

import typing as t

import msgspec

from .problems import Problem, invalid

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .people import User
    from .problems import Family
    from .segment_options import SegmentOptions

ANONYMOUS_ID = "moe_anonymous_id"
ALL_USERS = "moe_all_users"
MAX_LENGTH = 262_144
_TEXT_TESTS: dict[str, Callable[[str, list[str]], bool]] = {
    "in": lambda own, values: own in values,
    "is": lambda own, values: [own] == values,
    "contains": lambda own, values: any(each in own for each in values),
    "containsInTheFollowing": lambda own, values: any(each in own for each in values),
    "startsWithInTheFollowing": lambda own, values: own.startswith(tuple(values)),
    "endsWithInTheFollowing": lambda own, values: own.endswith(tuple(values)),
    "exists": lambda _own, _values: True,
}
_OPERATORS = {
    "string": _TEXT_TESTS.keys(),
    "double": {"in", "lessThan", "greaterThan", "between", "exists"},
}


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Filters of which a user must pass all or any."""

    filter_operator: t.Literal["and", "or"]
    filters: list[dict[str, t.Any]]


class _Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filter_type: str
    name: str
    data_type: t.Literal["string", "double"]
    category: str
    operator: str
    negate: bool = False
    value: t.Any = None
    case_sensitive: bool = True


class _Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filter_type: str
    id: str
    name: str = ""


class _Nested(Group, frozen=True, forbid_unknown_fields=True):
    filter_type: str = "nested_filters"


_KINDS: dict[object, type] = {
    "user_attributes": _Attribute,
    "custom_segments": _Segment,
    "nested_filters": _Nested,
}
Parsed = _Attribute | _Segment | _Nested


def segment_ids(group: Group) -> Iterator[str]:
    """Yield the ids of the segments in a group, those of inner groups included."""
    for raw in group.filters:
        if raw.get("filter_type") == "custom_segments":
            yield raw["id"]
        elif raw.get("filter_type") == "nested_filters":
            yield from segment_ids(Group(raw["filter_operator"], raw["filters"]))


class Language:
    """Parses filters as strictly as MoEngage documents them, and evaluates them.

    Args:
        options: The emulator's options.
        members: Returns the users of a segment; None if it does not exist.
        everyone: Returns all users.
    """

    def __init__(
        self,
        options: SegmentOptions,
        members: Callable[[str], set[User] | None],
        everyone: Callable[[], set[User]],
    ) -> None:
        self._options = options
        self._members = members
        self._everyone = everyone

    def check(self, group: Group, family: Family) -> None:
        """Raise the `Problem` of a group that is invalid, or names an unknown segment."""
        if len(msgspec.json.encode(group)) > MAX_LENGTH:
            raise invalid(family, "filters", f"longer than {MAX_LENGTH} characters")
        self._check(group, family)

    def _check(self, group: Group, family: Family) -> None:
        if not group.filters:
            raise invalid(family, "filters", "must not be empty")
        for raw in group.filters:
            parsed = _parse(raw, family)
            if isinstance(parsed, _Nested):
                self._check(parsed, family)
            elif isinstance(parsed, _Attribute):
                self._check_attribute(parsed, family)
            elif parsed.id != ALL_USERS and self._members(parsed.id) is None:
                raise invalid(family, "id", "no such segment", parsed.id)

    def _check_attribute(self, attribute: _Attribute, family: Family) -> None:
        if attribute.operator not in _OPERATORS[attribute.data_type]:
            raise invalid(family, "operator", "not valid for this data type", attribute.operator)
        values = _values(attribute)
        if (attribute.operator == "exists") == (attribute.value is not None):
            raise invalid(family, "value", "is required, but not allowed with the operator exists")
        kinds = (str,) if attribute.data_type == "string" else (int, float)
        if not all(isinstance(each, kinds) for each in values):
            raise invalid(family, "value", f"must be of data type {attribute.data_type}")
        if len(values) > (self._options.most_filter_values or len(values)):
            raise invalid(family, "value", "has too many values")

    def users(self, group: Group) -> set[User]:
        """Return the users who pass a group that was checked."""
        passing = [self._passing(_parse(raw, "v3")) for raw in group.filters]
        if group.filter_operator == "and":
            return set.intersection(*passing)
        return set().union(*passing)

    def _passing(self, parsed: Parsed) -> set[User]:
        if isinstance(parsed, _Nested):
            return self.users(parsed)
        if isinstance(parsed, _Segment):
            return self._everyone() if parsed.id == ALL_USERS else self._members(parsed.id) or set()
        everyone = self._everyone()
        passing = self._with_attribute(parsed, everyone)
        return everyone - passing if parsed.negate else passing

    def _with_attribute(self, attribute: _Attribute, everyone: set[User]) -> set[User]:
        spaces: dict[str, t.Literal["uid", "anonymous_id"]] = {
            self._options.id_attribute: "uid",
            ANONYMOUS_ID: "anonymous_id",
        }
        space = spaces.get(attribute.name)
        if space is None or attribute.data_type == "double":  # no user has a number
            return set()
        values = _values(attribute)
        if attribute.operator == "in" and attribute.case_sensitive:
            wanted: set[User] = {(space, each) for each in values}
            return wanted & everyone
        test = _TEXT_TESTS[attribute.operator]
        fold = str if attribute.case_sensitive else str.lower
        folded = [fold(each) for each in values]
        return {user for user in everyone if user[0] == space and test(fold(user[1]), folded)}


def _values(attribute: _Attribute) -> list[t.Any]:
    value = attribute.value
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _parse(raw: dict[str, t.Any], family: Family) -> Parsed:
    kind = raw.get("filter_type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise invalid(family, "filter_type", "unknown", kind)
    try:
        return t.cast("Parsed", msgspec.convert(raw, _KINDS[kind]))
    except msgspec.ValidationError as error:
        raise Problem(400, invalid(family, "", "").title, f"filters - {error}") from None
