"""The members of a stream as Parquet files, one for each table that has any.

They have the identifiers, and not their hashes, which a copy computes again. So the digests of a
copy show whether it has the same members.
"""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.duckdb.instance import quoted

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from target_moengage_cohort.ledger.duckdb.instance import Engine
    from target_moengage_cohort.ledger.duckdb.members import Members

_LOW = "18446744073709551615::UHUGEINT"
_DUMPED = {
    "accepted": "cohort, uid, anonymous_id",
    "doubts": "cohort, uid, anonymous_id, action",
    # Parquet has no integers of 128 bits.
    "removed": f"cohort, (h >> 64)::UBIGINT AS high, (h & {_LOW})::UBIGINT AS low",
    "aliases": "cohort, uid, anonymous_id",
    "plan_members": "cohort, plan_id, action, uid, anonymous_id",
    "kept_removals": "cohort, uid, anonymous_id, number",
    "dropped_removals": "cohort, number",
}


def dump(members: Members, directory: Path) -> Iterator[Path]:
    """Write the tables to files; yield each, the first one even if its table is empty."""
    for table, columns in _DUMPED.items():
        path = directory / f"{table}.parquet"
        with members.using() as cursor:
            if table != "accepted" and not members.rows(f"SELECT 1 FROM {{s}}.{table} LIMIT 1"):
                continue
            rows = f"SELECT {columns} FROM {members.schema}.{table}"
            options = "(FORMAT parquet, COMPRESSION zstd)"
            cursor.execute(f"COPY ({rows}) TO {quoted(str(path))} {options}")
        with members.lock:
            members.engine.detach(members)  # its blocks would stay in memory
        yield path
        path.unlink()


def restore(members: Members, paths: Iterable[Path], marks: Mapping[int, int]) -> None:
    """Fill the tables of a new file; `marks` are those of all cohorts of the stream."""
    members.open([])
    selects = _restored(members.engine)
    for path in paths:
        table = path.stem
        with members.change(f"restore {table}"):
            rows = f"SELECT {selects[table]} FROM read_parquet(?)"
            members.run(f"INSERT INTO {{s}}.{table} {rows}", [str(path)])
    with members.change("restore marks"):
        members.write_marks(dict(marks))


def _restored(engine: Engine) -> dict[str, str]:
    h = engine.hash_sql("uid", "anonymous_id")
    of_alias = engine.hash_sql("NULL::VARCHAR", "anonymous_id")
    return {
        **_DUMPED,
        "accepted": f"cohort, {h}, uid, anonymous_id",
        "doubts": f"cohort, {h}, uid, anonymous_id, action",
        "removed": "cohort, (high::UHUGEINT << 64) | low::UHUGEINT",
        "aliases": f"cohort, {of_alias}, uid, anonymous_id",
        "kept_removals": f"cohort, {h}, uid, anonymous_id, number",
    }
