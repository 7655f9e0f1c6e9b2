"""The tables of a comparison, and the SQL that makes and counts them."""

from __future__ import annotations

import itertools
import typing as t

import msgspec

from target_moengage_cohort.ledger.duckdb.instance import sums_sql

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from target_moengage_cohort.ledger.duckdb.instance import Cursor
    from target_moengage_cohort.ledger.duckdb.row_table import RowTable
    from target_moengage_cohort.ledger.records import LedgerCounts

Sums: t.TypeAlias = tuple[int, int, int]
"""A number of rows and the two sums of their hashes."""

_SLICE = 2_000_000
"""Rows to group at a time. DuckDB's grouping spills, but 10 million rows in one go sometimes exceed
a memory limit of 256 MB."""

_ids = itertools.count(1)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The ledgers to compare with, and the options of a comparison."""

    schema: str  # of the tables of the members
    known: Mapping[int, LedgerCounts]  # the numbers of each cohort to compare; others have no rows
    has_others: bool  # whether the ledger has members of cohorts that are not compared
    keeps: bool  # whether to remove no members
    approvals: Mapping[int, str]  # the approved plans, by their cohorts
    approved: str  # SQL for cohort and hash of the removals of these, if there are any
    defers: bool  # whether these are sent with the others, and not by themselves
    exclusive: bool  # whether a member belongs to one cohort, that of its last row
    on_difference: Callable[[], object]  # called as soon as any member is known to differ


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The staged rows to compare, and the facts known about them."""

    catalog: str
    table: RowTable
    is_one: bool  # whether neither the rows nor the ledger have any other cohort than the one
    count: int
    has_absent: bool  # whether some row is a non-member's
    has_pairs: bool  # whether some row has both identifiers


class Tables:
    """The tables of a comparison, made from queries, in slices where the memory limit demands it.

    The members of a single cohort are identified by their hash alone.
    """

    def __init__(
        self, cursor: Cursor, rows: Rows, options: Options, hash_sql: Callable[[str, str], str]
    ) -> None:
        self.options = options
        self.staged = self.identifiers = rows.table.rows
        self.additions = ""  # cohort, hash, row in `staged`, and whether it is not accepted yet
        self.removals = ""  # cohort, hash, identifiers, and whether it is an alias
        self.approved = ""  # likewise, of approved removals that are not in `removals`
        self.linked = ""  # likewise, of members that become aliases; missing without any
        self.resent = ""  # cohort, hash and row, to send after the removals; missing without any
        self.made: list[str] = []  # to drop in the end
        self._sizes: dict[str, int] = {}  # the rows of the tables when they were made
        self._rows = rows
        self._cursor = cursor
        self._hash_sql = hash_sql
        numbers = ", ".join(map(str, options.known))
        compared = {
            table: f"(FROM {options.schema}.{table} WHERE cohort IN ({numbers}))"
            for table in ("accepted", "doubts", "aliases")
        }
        all_members = f"{options.schema}.accepted", f"{options.schema}.doubts"
        self._accepted, self._doubts = (
            (compared["accepted"], compared["doubts"]) if options.has_others else all_members
        )
        self._aliases = compared["aliases"]  # a cohort without any member may have some
        both = f"FROM {self._accepted} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        query = f"SELECT EXISTS (FROM {self._aliases}), EXISTS ({both})"
        ((self._has_aliases, self._has_pairs),) = cursor.execute(query).fetchall()
        self._prefix = "" if rows.is_one else "cohort, "
        self._keys = f"{self._prefix}h"
        self._cohort = f"{numbers}::INTEGER" if rows.is_one else "cohort"

    def new(self, name: str) -> str:
        """Return a unique table name."""
        self.made.append(f"{self._rows.catalog}.{name}_{next(_ids)}")
        return self.made[-1]

    def _make(self, name: str, select: str) -> str:
        table = self.new(name)
        self._sizes[table] = self._changed(f"CREATE TABLE {table} AS {select}")
        return table

    def _group(self, name: str, aggregates: str, rows: str) -> str:
        """Make a table of rows grouped by key, one slice of the hashes after the other."""
        slices = self._slices(self._count(f"FROM ({rows})"))
        keys = self._keys
        select = f"SELECT {keys}, {aggregates} FROM ({rows}) WHERE {{in_slice}} GROUP BY {keys}"
        return self._make_sliced(name, slices, select)

    def _slices(self, count: int) -> int:
        """Return in how many parts to group so many rows."""
        return 1 + count // _SLICE

    def _make_sliced(self, name: str, slices: int, select: str) -> str:
        """Make a table of a select's rows, with ``{in_slice}`` for one slice after the other."""
        first, *others = (
            select.format(
                in_slice=f"(h >> 64)::UBIGINT % {slices} = {number}" if slices > 1 else "TRUE"
            )
            for number in range(slices)
        )
        table = self._make(name, first)
        for other in others:
            self._sizes[table] += self._changed(f"INSERT INTO {table} {other}")
        return table

    def _count(self, source: str) -> int:
        return self._changed(f"SELECT count(*) {source}")

    def _changed(self, statement: str) -> int:
        """Execute a statement whose result is a number of rows."""
        row = self._cursor.execute(statement).fetchone()
        return int(t.cast("tuple[int]", row)[0])

    def _counts(self, source: str) -> dict[int, int]:
        """Return the number of rows of each cohort that has any."""
        query = f"SELECT {self._cohort} AS cohort, count(*) FROM (SELECT * {source}) GROUP BY 1"
        return dict(t.cast("list[tuple[int, int]]", self._cursor.execute(query).fetchall()))

    def _sums(self, source: str) -> dict[int, Sums]:
        """Return the number of rows and the two sums of the hashes of each cohort."""
        sums = f"count(*), {sums_sql('h')} FROM (SELECT * {source})"
        query = f"SELECT {self._cohort} AS cohort, {sums} GROUP BY 1"
        rows = self._cursor.execute(query).fetchall()
        return {cohort: (count, high, low) for cohort, count, high, low in rows}

    def _drop_others(self, results: set[str]) -> None:
        for table in [made for made in self.made if made not in results]:
            self._cursor.execute(f"DROP TABLE {table}")
            self.made.remove(table)
