"""Members that are recorded as accepted without a request; in bounded memory."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.duckdb.members import Members

_GROUPED = 2_000_000
"""Rows to group at a time, as in a comparison."""


def collect(table: Members, chunks: Iterable[Sequence[Member]]) -> str:
    """Collect members in memory, each once with its last identifiers; return the view's name."""
    rows, latest = "memory.adopted_rows", "memory.adopted"
    with table.using() as cursor:
        columns = "(position BIGINT, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)"
        cursor.execute(f"CREATE OR REPLACE TABLE {rows} {columns}")
        cursor.execute(f"CREATE OR REPLACE TABLE {latest} (h UHUGEINT, position BIGINT)")
    position = 0
    for chunk in chunks:
        rows_sql, values = table.members_sql(chunk)
        select = f"SELECT {position} + i, h, uid, anonymous_id FROM {rows_sql}"
        with table.using() as cursor:
            cursor.execute(f"INSERT INTO {rows} {select}", values)
        position += len(chunk)
    slices = 1 + position // _GROUPED
    with table.using() as cursor:
        for number in range(slices):
            part = f"WHERE (h >> 64)::UBIGINT % {slices} = {number} GROUP BY h"
            cursor.execute(f"INSERT INTO {latest} SELECT h, max(position) FROM {rows} {part}")
        cursor.execute(
            f"CREATE OR REPLACE VIEW {rows}_once AS FROM {rows} SEMI JOIN {latest} USING (position)"
        )
    return f"{rows}_once"


def adopt(table: Members, cohort: int, source: str) -> None:
    """Record the members in a table as accepted by a cohort, within a change.

    Only what differs is deleted: DuckDB keeps deleted rows in memory until the change ends.
    """
    same = f"old.cohort = {cohort} AND old.h = a.h"
    for name in ("doubts", "removed", "aliases"):
        table.run(f"DELETE FROM {{s}}.{name} AS old USING {source} AS a WHERE {same}")
    differs = "old.anonymous_id IS DISTINCT FROM a.anonymous_id"
    former = table.engine.hash_sql("NULL::VARCHAR", "old.anonymous_id")
    table.run(
        f"CREATE OR REPLACE TEMP TABLE formers AS SELECT {cohort} AS cohort, {former} AS h,"
        f" old.uid, old.anonymous_id FROM {{s}}.accepted AS old JOIN {source} AS a"
        f" ON {same} AND {differs}"
        " WHERE old.uid IS NOT NULL AND old.anonymous_id IS NOT NULL"
    )
    table.run(f"DELETE FROM {{s}}.accepted AS old USING {source} AS a WHERE {same} AND {differs}")
    table.run(
        f"INSERT INTO {{s}}.accepted SELECT {cohort}, h, uid, anonymous_id FROM {source} AS a"
        f" ANTI JOIN (SELECT h FROM {{s}}.accepted WHERE cohort = {cohort}) AS old USING (h)"
    )
    table.run(
        "INSERT INTO {s}.aliases FROM (FROM formers ANTI JOIN {s}.accepted USING (cohort, h))"
        " ANTI JOIN {s}.aliases USING (cohort, h, uid)"
    )
