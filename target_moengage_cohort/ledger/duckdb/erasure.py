"""Erasure of users from a stream's members: no byte of their identifiers is left."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.ledger.duckdb.binding import bound_members
from target_moengage_cohort.ledger.duckdb.schema import MEMBER_TABLES

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.duckdb.instance import Cursor
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.stream_members import StreamMembers


def cohorts_with(stream: StreamMembers, members: Sequence[Member]) -> set[int]:
    """Return the cohorts with rows of these members; see `StreamLedger.cohorts_with`."""
    with _given(stream.table, members):
        return _cohorts(stream.table, _conditions(stream.table), stream.tables)


def erase(stream: StreamMembers, members: Sequence[Member]) -> set[int]:
    """Erase members, and return the cohorts that had any; see `StreamLedger.forget`."""
    table = stream.table
    with _given(table, members):
        conditions = _conditions(table)
        had = _cohorts(table, conditions, "{s}")
        with stream.changing("forget", sorted(had)):
            where = dict(conditions)["kept_removals"]
            erased = f"SELECT cohort, count(*) AS number FROM {{s}}.kept_removals WHERE {where}"
            table.drop_removals(f"{erased} GROUP BY cohort")
            for name, where in conditions:
                table.run(f"DELETE FROM {{s}}.{name} WHERE {where}")
            table.run("UPDATE {s}.meta SET is_rewritten = FALSE")
    table.rewrite()
    return had


@contextlib.contextmanager
def _given(table: Members, members: Sequence[Member]) -> Iterator[Cursor]:
    """Have the members in a table of their own meanwhile."""
    source, values = bound_members(members)
    with table.using() as cursor:
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE forgotten AS FROM {source}", values)
        yield cursor
        cursor.execute("DROP TABLE forgotten")


def _conditions(table: Members) -> list[tuple[str, str]]:
    """Return the tables that have rows of members, each with the condition for those given."""
    hash_sql = table.engine.hash_sql
    hashes = f"unnest([{hash_sql('uid', 'NULL')}, {hash_sql('NULL', 'anonymous_id')}])"
    same = (
        "uid IN (SELECT uid FROM forgotten WHERE uid IS NOT NULL) OR anonymous_id IN"
        " (SELECT anonymous_id FROM forgotten WHERE anonymous_id IS NOT NULL)"
    )
    named = ("accepted", "doubts", "aliases", "plan_members", "kept_removals")
    return [
        *((name, same) for name in named),
        ("removed", f"h IN (SELECT {hashes} FROM forgotten)"),
    ]


def _cohorts(table: Members, conditions: Sequence[tuple[str, str]], schema: str) -> set[int]:
    had: set[int] = set()
    for name, where in conditions:
        of = schema if name in MEMBER_TABLES else "{s}"  # no view shows the others
        rows = table.rows(f"SELECT DISTINCT cohort FROM {of}.{name} WHERE {where}")
        had |= {cohort for (cohort,) in rows}
    return had
