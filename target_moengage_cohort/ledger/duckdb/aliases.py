"""Anonymous ids that stood beside a uid: what becomes one, and which ones are to be removed.

MoEngage may have merged the two or not; so an alias is removed as a member of its own, and its uid
is sent again afterwards.
"""

from __future__ import annotations

import itertools
import typing as t

from target_moengage_cohort.core.membership import Action, Member

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.duckdb.stream_members import StreamMembers
    from target_moengage_cohort.ledger.snapshot import CohortMembers


def link(stream: StreamMembers, cohorts: Sequence[int], members: str) -> None:
    """Turn the anonymous members in a table into aliases of the uids accepted with their ids.

    Where that was accepted since the last fold, folding has done so.
    """
    table = stream.table
    with stream.changing("link", cohorts):
        table.run(
            "CREATE OR REPLACE TEMP TABLE owned AS SELECT m.cohort, m.h, a.uid, m.anonymous_id"
            f" FROM {members} AS m JOIN {{s}}.accepted AS a ON a.cohort = m.cohort"
            " AND a.anonymous_id = m.anonymous_id AND a.uid IS NOT NULL"
        )
        others = "ANTI JOIN {s}.aliases USING (cohort, h, uid)"
        table.run(f"INSERT INTO {{s}}.aliases FROM owned {others}")
        for name in ("accepted", "doubts"):
            same = "o.cohort = old.cohort AND o.h = old.h"
            table.run(f"DELETE FROM {{s}}.{name} AS old USING owned AS o WHERE {same}")


def stale(stream: StreamMembers) -> tuple[list[int], Iterator[CohortMembers]]:
    """Return the cohorts with aliases that no member has any more, and those aliases by cohort.

    Their uids become unconfirmed, to be sent again.
    """
    schema, found = stream.tables, f"memory.stale_{stream.table.file.name}"
    # An alias that is accepted was added before its uid; one in doubt was added afterwards.
    counted = f"SELECT DISTINCT cohort FROM {schema}.accepted SEMI JOIN {schema}.aliases"
    twice = [number for (number,) in stream.table.rows(f"{counted} USING (cohort, h)")]
    if twice and not stream.read_only:
        with stream.changing("link", twice):
            same = "l.cohort = old.cohort AND l.h = old.h"
            stream.table.run(
                f"DELETE FROM {{s}}.accepted AS old USING {{s}}.aliases AS l WHERE {same}"
            )
    live = (
        f"SELECT cohort, anonymous_id FROM {schema}.accepted WHERE uid IS NOT NULL"
        f" UNION ALL SELECT cohort, anonymous_id FROM {schema}.doubts"
        f" WHERE action = '{Action.ADD.value}'"
    )
    aliases = f"FROM {schema}.aliases"
    chosen = f"SELECT DISTINCT cohort, h, anonymous_id {aliases} ANTI JOIN ({live})"
    stream.table.rows(f"CREATE OR REPLACE TABLE {found} AS {chosen} USING (cohort, anonymous_id)")
    numbers = [number for (number,) in stream.table.rows(f"SELECT DISTINCT cohort FROM {found}")]
    if numbers and not stream.read_only:
        if stream.queue:  # all of it was answered and folded; else it would hide the doubts
            stream.table.rows(f"DELETE FROM {stream.queue}")
        h = stream.table.engine.hash_sql("uid", "NULL::VARCHAR")
        owners = f"SELECT cohort, {h} AS h {aliases} SEMI JOIN {found} USING (cohort, h)"
        stream.doubt(numbers, owners)
    chunks = stream.table.chunks(f"SELECT cohort, anonymous_id FROM {found} ORDER BY cohort")
    return numbers, (
        (cohort, [Member(None, anonymous_id) for _, anonymous_id in rows])
        for chunk in chunks
        for cohort, rows in itertools.groupby(chunk, lambda row: row[0])
    )
