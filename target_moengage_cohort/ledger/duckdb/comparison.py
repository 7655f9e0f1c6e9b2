"""The SQL that compares a cohort's staged rows with its ledger."""

from __future__ import annotations

import itertools
import typing as t

import msgspec

from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql
from target_moengage_cohort.ledger.records import DiffCounts, MemberSet

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.ledger.duckdb.instance import Cursor

    Sums = tuple[int, int, int]

_SLICE = 2_000_000
"""Rows to group at a time. DuckDB's grouping spills, but 10 million rows in one go sometimes exceed
a memory limit of 256 MB."""

_JOINED = 10_000_000
"""Rows of either side to join at a time; with 50 million in one go the parts that DuckDB spills do
not fit into 256 MB."""


_ids = itertools.count(1)


class Tables:
    """The names of the tables that are compared, and of those with the result."""

    def __init__(self, staging: str, ledger: str) -> None:
        self.staged = f"{staging}.staged"  # the rows of all cohorts
        self.accepted = f"{ledger}.accepted"
        self.doubts = f"{ledger}.doubts"
        self.additions = ""  # hash, row in `staged`, whether the member is not accepted yet
        self.removals = ""  # hash and identifiers
        self.dropped = ""  # likewise, of members to delete without a removal; missing without any
        self.made: list[str] = []  # to drop in the end
        self._staging = staging

    def new(self, name: str) -> str:
        """Return a unique table name."""
        self.made.append(f"{self._staging}.{name}_{next(_ids)}")
        return self.made[-1]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The staged rows to compare, and the facts known about them."""

    cohort: int | None  # the cohort's number, or ``None`` if all rows are its own
    has_absent: bool  # whether some row is a non-member's
    has_pairs: bool  # whether some row has both identifiers
    keeps: bool  # whether to remove no members


class Comparison:
    """One comparison, without the work that the data does not need.

    The sizes and digests of large sets are computed from those of their difference, so nothing of
    the cohort's size is sorted or made distinct unless all of it differs. No statement has two
    joins, groupings or sorts, because each may take all of the memory limit before it spills.
    """

    def __init__(
        self, cursor: Cursor, tables: Tables, rows: Rows, hash_sql: Callable[[str, str], str]
    ) -> None:
        self._cursor = cursor
        self._tables = tables
        self._rows = rows
        self._hash_sql = hash_sql
        self._own = "TRUE" if rows.cohort is None else f"cohort = {rows.cohort}"

    def run(self) -> DiffCounts:
        """Fill the tables of the result."""
        tables = self._tables
        accepted = self._sums(f"FROM {tables.accepted}")
        in_doubt = self._count(f"FROM {tables.doubts}")
        if self._rows.has_absent:
            self._withdraw_absent()
        met = self._meet(accepted[0])
        not_accepted = f"SELECT h FROM {tables.doubts} ANTI JOIN {tables.accepted} USING (h)"
        strays = self._make("strays", not_accepted) if in_doubt else None
        self._find_additions(met, has_doubts=bool(in_doubt))
        new = self._sums(f"FROM {tables.additions} WHERE is_new")
        gone = self._sums(f"FROM {met} WHERE rid IS NULL")
        desired = tuple(a - g + n for a, g, n in zip(accepted, gone, new, strict=True))
        additions = self._count(f"FROM {tables.additions}")
        staying = self._find_removals(met, strays)
        dropped = self._drop_linked()
        self._spare_shared()
        differs = DiffCounts(
            desired=MemberSet(desired[0], digest(*desired[1:])),
            accepted=MemberSet(accepted[0], digest(*accepted[1:])),
            in_doubt=in_doubt,
            base=accepted[0] + (self._count(f"FROM {strays}") if strays else 0),
            joining=new[0] - staying,
            additions=additions,
            removals=self._count(f"FROM {tables.removals}"),
            unchanged=desired[0] - additions,
            dropped=dropped,
        )
        results = {tables.additions, tables.removals, tables.dropped}
        for table in [made for made in tables.made if made not in results]:
            self._cursor.execute(f"DROP TABLE {table}")
            tables.made.remove(table)
        return differs

    def _present(self, columns: str) -> str:
        """Return SQL for the rows of members: hash, row number and the given columns."""
        return (
            f"(SELECT h, rowid AS rid, {columns} FROM {self._tables.staged}"
            f" WHERE {self._own} AND present)"
        )

    def _withdraw_absent(self) -> None:
        """Mark all rows of a key as absent if its last row is absent."""
        staged = f"(SELECT h, present, rowid AS rid FROM {self._tables.staged} WHERE {self._own})"
        both = self._make(
            "both",
            f"SELECT h FROM {self._present('NULL')}"
            f" SEMI JOIN (SELECT h FROM {staged} WHERE NOT present) USING (h)",
        )
        if not self._count(f"FROM {both}"):
            return
        rows = self._make("contradicting", f"SELECT * FROM {staged} SEMI JOIN {both} USING (h)")
        last = self._group("last", "arg_max(present, rid) AS present", f"FROM {rows}")
        self._cursor.execute(
            f"UPDATE {self._tables.staged} SET present = FALSE"
            f" WHERE {self._own} AND present AND h IN (SELECT h FROM {last} WHERE NOT present)"
        )

    def _meet(self, accepted_count: int) -> str:
        """Join the rows with the accepted members once, and keep those that do not match.

        One slice of the hashes is joined after the other. ``rid`` is the staged row, null for an
        accepted member without one. ``known`` is null for a row without an accepted member, else a
        hash of the accepted anonymous id.
        """
        accepted = self._tables.accepted
        with_both = f"FROM {accepted} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        compares_pairs = self._rows.has_pairs or self._count(with_both)
        pair = "hash(anonymous_id)" if compares_pairs else "0::UBIGINT"
        staged = f"SELECT count(*) FROM {self._tables.staged}"
        ((staged_count,),) = self._cursor.execute(staged).fetchall()
        slices = 1 + max(staged_count, accepted_count) // _JOINED
        return self._make_sliced(
            "met",
            slices,
            f"SELECT coalesce(s.h, a.h) AS h, s.rid, a.pair AS known"
            f" FROM (FROM {self._present(f'{pair} AS pair')} WHERE {{in_slice}}) s"
            f" FULL JOIN (SELECT h, {pair} AS pair FROM {accepted} WHERE {{in_slice}}) a"
            " ON a.h = s.h WHERE a.h IS NULL OR s.h IS NULL OR a.pair <> s.pair",
        )

    def _find_additions(self, met: str, *, has_doubts: bool) -> None:
        """Find the last row of each key that is new, changed or unconfirmed."""
        columns = "h, rid, known, known IS NULL AS is_new, FALSE AS is_doubt"
        rows = f"SELECT {columns} FROM {met} WHERE rid IS NOT NULL"
        if has_doubts:
            doubted = self._make(
                "doubted",
                f"SELECT h, rid FROM {self._present('NULL')}"
                f" SEMI JOIN {self._tables.doubts} USING (h)",
            )
            rows += f" UNION ALL SELECT h, rid, NULL, FALSE, TRUE FROM {doubted}"
        found = self._group(
            "found",
            "max(rid) AS rid, max(known) AS known, bool_or(is_new) AS is_new,"
            " bool_or(is_doubt) AS is_doubt",
            rows,
        )
        if self._rows.has_pairs:
            # Of two rows of a key, the first may differ from what is accepted and the last not.
            found = self._make(
                "confirmed",
                f"SELECT h, l.rid, is_new FROM {found} JOIN {self._latest(found)} l USING (h)"
                " WHERE is_new OR is_doubt OR pair <> known",
            )
        # Sorted, because then a page of additions needs a small part of the rows.
        select = f"SELECT h, rid, is_new FROM {found} ORDER BY rid"
        self._tables.additions = self._make("additions", select)

    def _latest(self, keys: str) -> str:
        """Make a table of the last row of each key, with a hash of its anonymous id."""
        rows = self._make(
            "rows",
            f"SELECT * FROM {self._present('hash(anonymous_id) AS pair')}"
            f" SEMI JOIN {keys} USING (h)",
        )
        return self._group("latest", "max(rid) AS rid, arg_max(pair, rid) AS pair", f"FROM {rows}")

    def _find_removals(self, met: str, strays: str | None) -> int:
        """Copy the identifiers of the accepted or unconfirmed members without a row.

        Return the number of unconfirmed members that are not accepted and have a row.
        """
        staying = 0
        tables = self._tables
        select = (
            f"SELECT h, uid, anonymous_id FROM {tables.accepted}"
            f" SEMI JOIN (SELECT h FROM {met} WHERE rid IS NULL) USING (h)"
        )
        if strays:
            absent = f"FROM {strays} ANTI JOIN {self._present('NULL')} USING (h)"
            gone = self._make("gone", f"SELECT h {absent}")
            staying = self._count(f"FROM {strays}") - self._count(f"FROM {gone}")
            select += (
                f" UNION ALL SELECT h, uid, anonymous_id FROM {tables.doubts}"
                f" SEMI JOIN {gone} USING (h)"
            )
        none = " LIMIT 0" if self._rows.keeps else ""
        tables.removals = self._make("removals", f"{select}{none}")
        return staying

    def _drop_linked(self) -> int:
        """Move the removals whose anonymous id a row with a uid has now to a table of their own."""
        tables = self._tables
        anonymous = f"FROM {tables.removals} WHERE uid IS NULL"
        if not (self._rows.has_pairs and self._count(anonymous)):
            return 0
        former = self._hash_sql("NULL::VARCHAR", "anonymous_id")
        matches = self._make(
            "matches",
            f"SELECT * FROM (SELECT h, rid, {former} AS former"
            f" FROM {self._present('uid, anonymous_id')}"
            " WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL)"
            f" SEMI JOIN (SELECT h AS former {anonymous}) USING (former)",
        )
        # Only the last row of a key has the anonymous id that counts.
        linked = self._make(
            "linked",
            f"SELECT former AS h FROM {matches} SEMI JOIN {self._latest(matches)} USING (rid)",
        )
        matched = f"{anonymous} AND h IN (SELECT h FROM {linked})"
        tables.dropped = self._make("dropped", f"SELECT * {matched}")
        others = f"FROM {tables.removals} ANTI JOIN {linked} USING (h)"
        tables.removals = self._make("others", others)
        return self._count(f"FROM {tables.dropped}")

    def _spare_shared(self) -> None:
        """Clear the anonymous ids in removals that desired members have, which must stay.

        MoEngage tries the uid first, then the anonymous id. So a removal with a uid that it does
        not know would remove the member that has the anonymous id now.
        """
        removals = self._tables.removals
        pairs = f"FROM {removals} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        if not self._count(pairs):
            return
        shared = self._make(
            "shared",
            f"SELECT anonymous_id FROM {self._present('anonymous_id')}"
            f" SEMI JOIN (SELECT anonymous_id {pairs}) USING (anonymous_id)",
        )
        self._cursor.execute(
            f"UPDATE {removals} SET anonymous_id = NULL"
            f" WHERE uid IS NOT NULL AND anonymous_id IN (SELECT anonymous_id FROM {shared})"
        )

    def _make(self, name: str, select: str) -> str:
        table = self._tables.new(name)
        self._cursor.execute(f"CREATE TABLE {table} AS {select}")
        return table

    def _group(self, name: str, aggregates: str, rows: str) -> str:
        """Make a table of rows grouped by hash, one slice of the hashes after the other."""
        slices = 1 + self._count(f"FROM ({rows})") // _SLICE
        select = f"SELECT h, {aggregates} FROM ({rows}) WHERE {{in_slice}} GROUP BY h"
        return self._make_sliced(name, slices, select)

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
            self._cursor.execute(f"INSERT INTO {table} {other}")
        return table

    def _count(self, source: str) -> int:
        return self._sums(source)[0]

    def _sums(self, source: str) -> Sums:
        """Return the number of rows and the two sums of their hashes."""
        row = self._cursor.execute(f"SELECT count(*), {sums_sql('h')} {source}").fetchone()
        return t.cast("Sums", row)
