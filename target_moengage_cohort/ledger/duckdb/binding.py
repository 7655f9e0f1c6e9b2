"""Columns of values, bound to statements as JSON texts."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.membership import Member

_SLICE = 4_096
"""The most values to bind as one text."""

_encode = msgspec.json.Encoder().encode


class Column(t.NamedTuple):
    """A column to bind."""

    name: str
    kind: str  # its type in DuckDB
    constant: str  # SQL of the value of all rows if there are no values
    values: Sequence[t.Any] | None  # one for each row


def bound(columns: Sequence[Column]) -> tuple[str, list[list[str]]]:
    """Return SQL that selects columns, in the order of their values, and its parameters.

    Text is faster to bind than a list, whose elements are converted one by one, and DuckDB unnests
    many short lists in a third of the time of a long one.
    """
    sources = ", ".join(
        f"{column.constant} AS {column.name}"
        if column.values is None
        else f"""unnest(from_json({column.name}, '["{column.kind}"]')) AS {column.name}"""
        for column in columns
    )
    with_values = [column for column in columns if column.values is not None]
    slices = ", ".join(f"unnest(?::VARCHAR[]) AS {column.name}" for column in with_values)
    values = [_slices(t.cast("Sequence[t.Any]", column.values)) for column in with_values]
    table = f" FROM (SELECT {slices})" if slices else ""
    return f"(SELECT {sources}{table})", values


def bound_members(
    members: Sequence[Member], cohorts: Sequence[int] = (0,), actions: Sequence[str] | None = None
) -> tuple[str, list[list[str]]]:
    """Return likewise SQL for members: cohort, uid, anonymous_id and action, which may be null.

    `cohorts` has the number of each member's cohort, or that of all.
    """
    is_one = len({*cohorts}) == 1
    anonymous_ids = [member.anonymous_id for member in members]
    values = anonymous_ids if any(anonymous_ids) else None
    return bound(
        [
            Column("cohort", "INTEGER", str(cohorts[0]), None if is_one else cohorts),
            Column("uid", "VARCHAR", "NULL", [member.uid for member in members]),
            Column("anonymous_id", "VARCHAR", "NULL::VARCHAR", values),
            Column("action", "VARCHAR", "NULL::VARCHAR", actions),
        ]
    )


def _slices(column: Sequence[t.Any]) -> list[str]:
    starts = range(0, len(column), _SLICE)
    return [_encode(column[start : start + _SLICE]).decode() for start in starts]
