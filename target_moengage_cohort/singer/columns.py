"""Rows of one stream as columns, for the many rows in which nothing is unusual; pure.

Such a row is *plain*: its identifiers are of the type in the schema, it is not deleted, and it has
its keys. msgspec checks that while it decodes. A row that is not plain makes its whole chunk be
taken row by row, by the rules of `RowMapper`, which also knows why a row is rejected. So nothing is
decided twice, and unusual rows take more time but are still correct.
"""

from __future__ import annotations

import operator
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.membership import largest_size
from target_moengage_cohort.singer.decoding import UNDECODABLE, attributes, is_decodable_column
from target_moengage_cohort.singer.lines import count_lines

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

LONGEST = 1_000
"""Characters of the longest identifier in a plain row."""

Text = t.Annotated[str, Meta(min_length=1)]


class NotPlainError(Exception):
    """A chunk contains a row that is not plain: take it row by row."""


class RowLayout(msgspec.Struct, frozen=True):
    """The columns to read of a stream's rows.

    Attributes:
        columns: Role → column; no two roles share a column.
        keys: Columns that must be present. Those without a role are attributes ``key_0``,
            ``key_1`` and so on.
        plain: Decodes plain rows; ``None`` if all rows are taken row by row.
    """

    columns: Mapping[str, str]
    keys: Sequence[str]
    plain: PlainRows | None = None


class Columns(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Plain rows; every list has one item per row.

    Attributes:
        count: The number of rows.
        uids: Their uids.
        anonymous_ids: Their anonymous ids; ``None`` if the stream has none.
        present: Whether each is a member; ``None``: all are.
        cohorts: The id and name of the cohort of each, as in its columns; the name is ``None`` if
            the id is the name. ``None`` if the stream has one cohort.
        expected_counts: The different row counts in them; ``None`` if they have none.
        largest: Upper bound of the bytes that a member takes in a request.
    """

    count: int
    uids: list[str | None]
    anonymous_ids: list[str | None] | None = None
    present: list[bool] | None = None
    cohorts: list[tuple[str, str | None]] | None = None
    expected_counts: AbstractSet[int] | None = None
    largest: int


def plain_rows(
    columns: Mapping[str, str], keys: Sequence[str], properties: Mapping[str, t.Any]
) -> PlainRows | None:
    """Return a decoder for a stream's plain rows; ``None`` if row by row is better.

    ``columns`` and ``keys`` are those of a `RowLayout`, ``properties`` those of the schema.
    """
    if not all(map(is_decodable_column, (*columns.values(), *keys))):
        return None
    types: dict[str, t.Any] = {}
    is_optional = {"uid", "anonymous_id"} <= columns.keys()
    for role, column in columns.items():
        named = _json_types(properties.get(column))
        if role in {"uid", "anonymous_id"}:
            type_ = int if "integer" in named and "string" not in named else Text
            types[role] = type_ | None if is_optional else type_
        elif role == "membership":
            if "boolean" not in named:
                return None
            types[role] = bool
        elif role == "expected_count":
            types[role] = int
        else:
            types[role] = None if role == "deleted_at" else Text
    return PlainRows(types, columns, keys)


def _json_types(schema: t.Any) -> set[str]:
    """Return the JSON types that a column's schema names, as far as that is evident."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    types = {each for each in [named, *_list(named)] if type(each) is str}
    return types.union(*map(_json_types, _list(schema.get("anyOf"))))


def _list(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else []


class PlainRows:
    """Decodes plain rows.

    Args:
        types: Role → the type that msgspec expects.
        columns: Role → column.
        keys: Columns that must be present.

    Attributes:
        row: The struct type of a row.
    """

    def __init__(
        self, types: Mapping[str, t.Any], columns: Mapping[str, str], keys: Sequence[str]
    ) -> None:
        required: list[t.Any] = []
        optional: list[t.Any] = []
        for role, type_ in types.items():
            may_lack = type_ is None or type(None) in t.get_args(type_)
            if may_lack and columns[role] not in keys:
                optional.append((role, type_, None))
            else:
                required.append((role, type_))
        names = attributes(columns, keys)
        required += [(name, t.Any) for name in names if name not in types]
        self.row = msgspec.defstruct("PlainRow", required + optional, rename=names, gc=False)
        self._decode_lines = msgspec.json.Decoder(self.row).decode_lines
        self._roles = types.keys()
        self._numbers = {
            role for role, type_ in types.items() if int in (type_, *t.get_args(type_))
        }

    def decode(self, piece: bytes) -> Columns:
        """Decode lines that are rows; raise `NotPlainError` if any of them is not plain."""
        return self.take(decode_all(self._decode_lines, piece))

    def take(self, rows: Sequence[t.Any]) -> Columns:
        """Put decoded rows into columns; raise `NotPlainError` if one is not plain after all."""
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


def decode_all(decode_lines: Callable[[bytes], list[t.Any]], piece: bytes) -> list[t.Any]:
    """Decode all lines of a piece in one step; raise `NotPlainError` if one is of another type."""
    try:
        decoded = decode_lines(piece)
    except UNDECODABLE:
        raise NotPlainError from None
    # msgspec also accepts JSON on several lines, and several values on one.
    if len(decoded) != count_lines(piece):
        raise NotPlainError
    return decoded


def assemble(
    uids: list[str | None],
    anonymous_ids: list[str | None] | None,
    *,
    present: list[bool] | None,
    cohorts: list[tuple[str, str | None]] | None,
    expected_counts: AbstractSet[int] | None,
) -> Columns:
    """Return the columns of plain rows; no identifier is an empty text.

    Raises:
        NotPlainError: A row has no identifier, or a very long one.
    """
    if anonymous_ids is None:
        if None in uids:
            raise NotPlainError
        longest = _longest(uids)
    else:
        if (None, None) in zip(uids, anonymous_ids, strict=True):
            raise NotPlainError
        longest = max(_longest(uids), _longest(anonymous_ids))
    if longest > LONGEST:
        raise NotPlainError
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
