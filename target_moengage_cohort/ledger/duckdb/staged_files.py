"""Rows in columns that are staged: of files that stay, the hashes only.

A copy of all identifiers would take most of the memory and time of a snapshot, whose difference
needs few of them. So these are read again.
"""

from __future__ import annotations

import itertools
import typing as t

import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.ledger.duckdb.columnar_rows import opened
from target_moengage_cohort.ledger.duckdb.row_table import NO_TEXT

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.column_files import ColumnarRows
    from target_moengage_cohort.ledger.duckdb.instance import Engine, Row
    from target_moengage_cohort.ledger.duckdb.result_tables import Tables
    from target_moengage_cohort.ledger.duckdb.row_table import RowTable

_CHANGED = "it has changed since it was first read"


class StagedRows(msgspec.Struct, frozen=True):
    """Rows of one cohort in columns, and their place in the staging."""

    rows: ColumnarRows
    types: Mapping[str, str]
    cohort: int
    first: int  # the number of the first row
    count: int
    has_absent: bool
    version: list[tuple[int, int]]  # of the files when their facts were found

    @property
    def last(self) -> int:
        """Return the number of the last row."""
        return self.first + self.count - 1


def insert(parts: Iterable[StagedRows], engine: Engine, table: RowTable) -> None:
    """Insert rows that follow each other; an `InputError` names those that cannot be read."""
    for rows, group in _groups(parts):
        constants = {"cohort": str(group[0].cohort)}
        if rows.stays:
            constants |= {"uid": NO_TEXT, "anonymous_id": NO_TEXT}
        if not any(each.has_absent for each in group):
            constants["present"] = "TRUE"
        h, cursor = engine.hash_sql("uid", "anonymous_id"), engine.cursor()
        try:
            with opened(cursor, rows, group[0].types) as source:
                _check_unchanged(group)
                inserted = table.insert(cursor, f"({source.select()})", h, constants)
        except InputError:
            if len(group) == 1:
                raise
            for each in group:  # so that the error names the right one
                insert([each], engine, table)
        else:
            _check_unchanged(group)
            if inserted != sum(each.count for each in group):
                raise rows.unreadable(_CHANGED)


def _check_unchanged(group: Sequence[StagedRows]) -> None:
    for each in group:
        if each.rows.version() != each.version:
            raise each.rows.unreadable(_CHANGED)


def identify(parts: Sequence[StagedRows], engine: Engine, tables: Tables) -> str:
    """Make a table of the identifiers of those rows to send that are rows of files, by number."""
    named = tables.new("named")
    cursor = engine.cursor()
    columns = "rid BIGINT, uid VARCHAR, anonymous_id VARCHAR, is_same BOOLEAN"
    cursor.execute(f"CREATE TABLE {named} ({columns})")
    same = f"{engine.hash_sql('uid', 'anonymous_id')} = h"
    sent = tables.additions
    if tables.resent:
        sent = f"(SELECT rid, h FROM {sent} UNION SELECT rid, h FROM {tables.resent})"
    for rows, group in _groups(parts):
        first, last = group[0].first, group[-1].last
        added = f"(SELECT rid, h FROM {sent} WHERE rid BETWEEN {first} AND {last})"
        cursor = engine.cursor()
        with opened(cursor, rows, group[0].types) as source:
            read = source.identifiers([each.first for each in group])
            cursor.execute(
                f"INSERT INTO {named} SELECT rid, uid, anonymous_id, {same}"
                f" FROM ({read}) JOIN {added} USING (rid) ORDER BY rid"
            )
            query = (
                f"SELECT min(rid) FROM {added} ANTI JOIN (FROM {named} WHERE is_same) USING (rid)"
            )
            ((other,),) = cursor.execute(query).fetchall()
        if other is not None:
            raise next(each for each in group if other <= each.last).rows.unreadable(_CHANGED)
    return named


def sample(parts: Iterable[StagedRows], engine: Engine, most: int) -> list[Row]:
    """Return the hash, uid and anonymous_id of some rows that add members, the lowest hashes."""
    found = []
    h = engine.hash_sql("uid", "anonymous_id")
    for rows, group in _groups(parts):
        cursor = engine.cursor()
        with opened(cursor, rows, group[0].types) as source:
            found += cursor.execute(
                f"SELECT {h} AS h, uid, anonymous_id FROM ({source.select()}) WHERE present"
                f" ORDER BY h LIMIT {most}"
            ).fetchall()
    return found


def _groups(parts: Iterable[StagedRows]) -> Iterator[tuple[ColumnarRows, list[StagedRows]]]:
    """Yield parts that follow each other and are alike, as one source of rows."""
    group: list[StagedRows] = []
    for part in parts:
        if group and not _continues(group[-1], part):
            yield _joined(group), group
            group = []
        group.append(part)
    if group:
        yield _joined(group), group


def _continues(before: StagedRows, part: StagedRows) -> bool:
    """Return whether a part follows another one without a gap, in files with the same columns."""
    return (
        part.rows.stays
        and before.rows.stays
        and part.first == before.last + 1
        and (part.cohort, part.types, part.rows.columns)
        == (before.cohort, before.types, before.rows.columns)
    )


def _joined(group: Sequence[StagedRows]) -> ColumnarRows:
    if len(group) == 1:
        return group[0].rows
    paths = itertools.chain.from_iterable(each.rows.rows for each in group)
    return msgspec.structs.replace(group[0].rows, rows=tuple(paths))
