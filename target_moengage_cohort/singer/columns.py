"""Rows of one stream taken column by column, where each of them says nothing unusual; pure.

Such a row is *plain*: its identifiers are of the type that the schema tells, it is not deleted,
and it has its keys. msgspec checks all of that while it decodes. One row that is not plain makes
its whole chunk be read row by row, by the rules of `Sink`, which also know why a row is rejected;
so nothing is decided twice, and what is unusual costs time instead of correctness.
"""

from __future__ import annotations

import operator
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.membership import largest_size

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

LONGEST = 1_000
"""Characters of an identifier; whatever is longer is not plain."""

Text = t.Annotated[str, Meta(min_length=1)]


class Columns(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Plain rows; every list has one item for each row.

    Attributes:
        count: How many rows.
        uids: Their uids.
        anonymous_ids: Their anonymous ids; ``None`` if the stream has none.
        present: Whether each is a member; ``None``: all are.
        cohorts: The id and the name of the cohort of each, as its columns have them, the name
            ``None`` where the id is the name; ``None`` if the stream feeds one cohort.
        expected_counts: The different row counts that they tell; ``None`` if they tell none.
        largest: No member takes more bytes in a request.
    """

    count: int
    uids: list[str | None]
    anonymous_ids: list[str | None] | None = None
    present: list[bool] | None = None
    cohorts: list[tuple[str, str | None]] | None = None
    expected_counts: AbstractSet[int] | None = None
    largest: int


def kinds(columns: Mapping[str, str], properties: Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    """What msgspec is to expect of each role's column in a plain row.

    Args:
        columns: Role → column.
        properties: The columns of the stream's schema.

    Returns:
        Role → type, or ``None`` if rows of this stream are better looked at one by one.
    """
    found: dict[str, t.Any] = {}
    optional = {"uid", "anonymous_id"} <= columns.keys()
    for role, column in columns.items():
        types = _types(properties.get(column))
        if role in {"uid", "anonymous_id"}:
            kind = int if "integer" in types and "string" not in types else Text
            found[role] = kind | None if optional else kind
        elif role == "membership":
            if "boolean" not in types:
                return None
            found[role] = bool
        elif role == "expected_count":
            found[role] = int
        else:
            found[role] = None if role == "deleted_at" else Text
    return found


def _types(schema: t.Any) -> set[str]:
    """The JSON types that a column's schema names, as far as that can be seen."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    found = (
        {named} if isinstance(named, str) else {each for each in _list(named) if type(each) is str}
    )
    for choice in _list(schema.get("anyOf")):
        found |= _types(choice)
    return found


def _list(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else []


class PlainRows:
    """Decodes plain rows.

    Args:
        kinds: Role → type, from `kinds`.
        columns: Role → column.
        keys: Columns that must be there.

    Attributes:
        row: The struct type of a row; `take` takes a list of them.
    """

    def __init__(
        self, kinds: Mapping[str, t.Any], columns: Mapping[str, str], keys: Sequence[str]
    ) -> None:
        required: list[t.Any] = []
        optional: list[t.Any] = []
        for role, kind in kinds.items():
            may_lack = kind is None or type(None) in t.get_args(kind)
            if may_lack and columns[role] not in keys:
                optional.append((role, kind, None))
            else:
                required.append((role, kind))
        names = {role: columns[role] for role in kinds}
        mapped = set(names.values())
        for number, key in enumerate(key for key in keys if key not in mapped):
            required.append((f"key_{number}", t.Any))
            names[f"key_{number}"] = key
        self.row = msgspec.defstruct("PlainRow", required + optional, rename=names, gc=False)
        self._roles = kinds.keys()
        self._numbers = {role for role, kind in kinds.items() if int in (kind, *t.get_args(kind))}

    def take(self, rows: Sequence[t.Any]) -> Columns | None:
        """Put decoded rows into columns; ``None`` if one of them is not plain after all."""
        roles = self._roles
        return assemble(
            self._identifiers("uid", rows),
            self._identifiers("anonymous_id", rows) if "anonymous_id" in roles else None,
            present=[row.membership for row in rows] if "membership" in roles else None,
            cohorts=self._cohorts(rows) if "cohort_id" in roles else None,
            expected_counts=(
                {row.expected_count for row in rows} if "expected_count" in roles else None
            ),
        )

    def _identifiers(self, role: str, rows: Sequence[t.Any]) -> list[str | None]:
        if role not in self._roles:
            return [None] * len(rows)
        values = list(map(operator.attrgetter(role), rows))
        if role in self._numbers:
            return [None if value is None else str(value) for value in values]
        return values

    def _cohorts(self, rows: Sequence[t.Any]) -> list[tuple[str, str | None]]:
        if "cohort_name" in self._roles:
            return [(row.cohort_id, row.cohort_name) for row in rows]
        return [(row.cohort_id, None) for row in rows]


def assemble(
    uids: list[str | None],
    anonymous_ids: list[str | None] | None,
    *,
    present: list[bool] | None,
    cohorts: list[tuple[str, str | None]] | None,
    expected_counts: AbstractSet[int] | None,
) -> Columns | None:
    """Put columns together; ``None`` if a row has no identifier, or one has a very long one.

    Args:
        uids: See `Columns`; none of the texts is empty.
        anonymous_ids: Likewise.
        present: See `Columns`.
        cohorts: See `Columns`.
        expected_counts: See `Columns`.
    """
    if anonymous_ids is None:
        if None in uids:
            return None
        longest = _longest(uids)
    else:
        if (None, None) in zip(uids, anonymous_ids, strict=True):
            return None
        longest = max(_longest(uids), _longest(anonymous_ids))
    if longest > LONGEST:
        return None
    return Columns(
        count=len(uids),
        uids=uids,
        anonymous_ids=anonymous_ids,
        present=present,
        cohorts=cohorts,
        expected_counts=expected_counts,
        largest=largest_size(longest, has_both=anonymous_ids is not None),
    )


def _longest(values: Sequence[str | None]) -> int:
    if None in values:
        return max((len(value) for value in values if value is not None), default=0)
    return max(map(len, t.cast("Sequence[str]", values)), default=0)
