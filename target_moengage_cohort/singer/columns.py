"""Rows of one stream as columns, for the many rows in which nothing is unusual; pure.

Such a row is *plain*: its identifiers are of the type in the schema, it is not deleted, and it has
its keys. msgspec checks that while it decodes. A row that is not plain makes its whole chunk be
taken row by row, by the rules of `RowMapper`, which also knows why a row is rejected. So nothing is
decided twice, and unusual rows take more time but are still correct.
"""

from __future__ import annotations

import itertools
import operator
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.deletions import Spellings, is_deletion_role
from target_moengage_cohort.core.membership import is_padded, largest_size
from target_moengage_cohort.singer.decoding import UNDECODABLE, attributes, is_decodable_column
from target_moengage_cohort.singer.lines import count_lines

if t.TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from collections.abc import Set as AbstractSet

LONGEST = 1_000
"""Characters of the longest identifier in a plain row."""

Text = t.Annotated[str, Meta(min_length=1, max_length=LONGEST)]
_TYPES: dict[str, t.Any] = {"membership": bool, "expected_count": int}
_SCALARS = {"integer", "string"}


class NotPlainError(Exception):
    """A chunk contains a row that is not plain: take it row by row."""


class RowLayout(msgspec.Struct, frozen=True, eq=False):
    """The columns to read of a stream's rows.

    Keys are columns that must be present. Those without a role are attributes ``key_0``, ``key_1``
    and so on.
    """

    columns: Mapping[str, str]  # role → column; no two roles share a column
    keys: Sequence[str]
    plain: PlainRows | None = None  # ``None`` if all rows are taken row by row
    optional: frozenset[str] = frozenset()  # roles whose columns rows may lack


class Columns(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Plain rows; each list has one item per row, or is ``None`` if the stream has no such column.

    A cohort is its id and name; the name is ``None`` if the id is the name.
    """

    count: int  # of the rows
    uids: list[str | None]
    anonymous_ids: list[str | None] | None = None
    present: list[bool] | None = None  # whether each is a member; ``None``: all are
    cohorts: list[tuple[str, str | None]] | None = None
    expected_counts: AbstractSet[int] | None = None  # the different ones
    padded: int = 0  # rows whose identifiers begin or end with white space

    def fit(self, room: float) -> bool:
        """Return whether each member fits into a request with so many bytes for members."""
        has_both = self.anonymous_ids is not None
        if largest_size(LONGEST, has_both=has_both) <= room:  # which saves looking at each row
            return True
        texts = filter(None, itertools.chain(self.uids, self.anonymous_ids or ()))
        return largest_size(max(map(len, texts), default=0), has_both=has_both) <= room


def plain_rows(
    columns: Mapping[str, str],
    keys: Sequence[str],
    properties: Mapping[str, t.Any],
    required: Container[str] = (),
) -> PlainRows | None:
    """Return a decoder for a stream's plain rows; ``None`` if row by row is better.

    All plain rows have the columns of the `required` roles, even if their values may be null.
    """
    json_types = {role: _json_types(properties.get(column)) for role, column in columns.items()}
    is_plain = "boolean" in (json_types.get("membership") or {"boolean"})
    if not (is_plain and all(map(is_decodable_column, (*columns.values(), *keys)))):
        return None
    identifiers = columns.keys() & {"uid", "anonymous_id"}
    numbers = {each for each in identifiers if json_types[each] & _SCALARS == {"integer"}}
    types = {role: _TYPES.get(role, Text) for role in columns} | dict.fromkeys(numbers, int)
    optional = set(filter(is_deletion_role, columns))
    types |= dict.fromkeys(optional, None)
    if len(identifiers) > 1:
        optional |= identifiers
        types |= {role: types[role] | None for role in identifiers}
    names = attributes(columns, keys)
    optional -= {role for role in optional if role in required or columns[role] in keys}
    fields: list[t.Any] = [
        (name, types.get(name, t.Any), *([None] if name in optional else [])) for name in names
    ]
    row = msgspec.defstruct("PlainRow", fields, rename=names, kw_only=True, gc=False)
    roles = [role for role in columns if not is_deletion_role(role)]
    decode_lines = msgspec.json.Decoder(row).decode_lines
    return PlainRows(row, decode_lines, Spellings(columns).corrected, roles, numbers)


def _json_types(schema: t.Any) -> set[str]:
    """Return the JSON types that a column's schema names, as far as that is evident."""
    if not isinstance(schema, dict):
        return set()
    named, variants = schema.get("type"), schema.get("anyOf")
    types = {each for each in (named if isinstance(named, list) else [named]) if type(each) is str}
    return types.union(*map(_json_types, variants if isinstance(variants, list) else []))


class PlainRows(msgspec.Struct, frozen=True, eq=False):
    """Decodes plain rows."""

    row: type[msgspec.Struct]
    decode_lines: Callable[[bytes], list[t.Any]]  # that are rows
    corrected: Callable[[bytes], bytes]  # returns lines with the names that are expected
    roles: Sequence[str]  # whose values differ
    numbers: AbstractSet[str]  # the roles of identifiers that are whole numbers

    def take(self, rows: Sequence[t.Any]) -> Columns:
        """Put decoded rows into columns; raise `NotPlainError` if one is not plain after all."""
        values: dict[str, list[t.Any]] = {
            role: list(map(operator.attrgetter(role), rows)) for role in self.roles
        }
        for role in self.numbers:
            values[role] = [None if value is None else str(value) for value in values[role]]
            refuse_long(values[role])
        cohorts, expected = values.get("cohort_id"), values.get("expected_count")
        if cohorts is not None:
            cohorts = list(zip(cohorts, values.get("cohort_name", [None] * len(rows)), strict=True))
        return assemble(
            values.get("uid", [None] * len(rows)),
            values.get("anonymous_id"),
            present=values.get("membership"),
            cohorts=cohorts,
            expected_counts=None if expected is None else set(expected),
        )


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

    It raises `NotPlainError` if a row has no identifier; `refuse_long` finds those that are long.
    """
    if anonymous_ids is None:
        texts, is_nameless = t.cast("list[str]", uids), not all(uids)
    else:
        texts = [*filter(None, itertools.chain(uids, anonymous_ids))]
        is_nameless = (None, None) in zip(uids, anonymous_ids, strict=True)
    if is_nameless:
        raise NotPlainError
    padded = 0
    if [*map(str.strip, texts)] != texts:
        rows = zip(uids, anonymous_ids or itertools.repeat(None), strict=False)
        padded = sum(any(text and is_padded(text) for text in row) for row in rows)
    return Columns(
        count=len(uids),
        uids=uids,
        anonymous_ids=anonymous_ids,
        present=present,
        cohorts=cohorts,
        expected_counts=expected_counts,
        padded=padded,
    )


def refuse_long(texts: Sequence[str | None]) -> None:
    """Raise `NotPlainError` if an identifier is longer than those of plain rows."""
    if max(map(len, filter(None, texts)), default=0) > LONGEST:
        raise NotPlainError
