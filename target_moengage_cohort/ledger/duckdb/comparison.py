"""The SQL that compares the staged rows of a stream with the members of its cohorts."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.ledger.duckdb.instance import grown
from target_moengage_cohort.ledger.duckdb.result_tables import Tables, Workspace
from target_moengage_cohort.ledger.records import DiffCounts, LedgerCounts

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from target_moengage_cohort.ledger.duckdb.instance import Cursor
    from target_moengage_cohort.ledger.duckdb.result_tables import Sums

_JOINED = 10_000_000
"""Rows of either side to join at a time; with 50 million in one go the parts that DuckDB spills do
not fit into 256 MB."""

_NOTHING = (0, 0, 0)


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The staged rows to compare, and the facts known about them."""

    cohorts: Sequence[int]  # to compare; other cohorts have no rows
    is_one: bool  # whether neither the rows nor the ledger have any other cohort than the one
    count: int
    has_absent: bool  # whether some row is a non-member's
    has_pairs: bool  # whether some row has both identifiers
    keeps: bool  # whether to remove no members
    known: Mapping[int, LedgerCounts]  # the numbers of each cohort's ledger


class Comparison(Workspace):
    """One comparison of all cohorts, without the work that the data does not need.

    The sizes and digests of large sets are computed from those of their difference, so nothing of
    the stream's size is sorted or made distinct unless all of it differs. No statement has two
    joins, groupings or sorts, because each may take all of the memory limit before it spills. The
    members of a single cohort are joined by their hash alone.
    """

    def __init__(
        self, cursor: Cursor, tables: Tables, rows: Rows, hash_sql: Callable[[str, str], str]
    ) -> None:
        super().__init__(cursor, tables, rows.cohorts[0] if rows.is_one else None)
        self._rows = rows
        self._hash_sql = hash_sql

    def run(self) -> dict[int, DiffCounts]:
        """Fill the tables of the result; return the numbers of each cohort."""
        tables, known = self._tables, self._rows.known
        has_doubts = any(counts.in_doubt for counts in known.values())
        if self._rows.has_absent:
            self._withdraw_absent()
        met = self._meet(sum(counts.accepted.count for counts in known.values()))
        if not (has_doubts or self._count(f"FROM {met}")):
            self._drop_others(set())
            return {cohort: _unchanged(known[cohort]) for cohort in self._rows.cohorts}
        not_accepted = f"FROM {tables.doubts} ANTI JOIN {tables.accepted} USING ({self._keys})"
        strays = self._make("strays", f"SELECT {self._keys} {not_accepted}") if has_doubts else None
        self._find_additions(met, has_doubts=has_doubts)
        new = self._sums(f"FROM {tables.additions} WHERE is_new")
        gone = self._sums(f"FROM {met} WHERE rid IS NULL")
        additions = self._counts(f"FROM {tables.additions}")
        staying = self._find_removals(met, strays)
        dropped = self._drop_linked()
        self._spare_shared()
        removals = self._counts(f"FROM {tables.removals}")
        if len(removals) > 1:
            in_order = f"SELECT * FROM {tables.removals} ORDER BY cohort"
            tables.removals = self._make("in_order", in_order)
        self._drop_others({tables.additions, tables.removals, tables.dropped})
        changes = _Changes(new, gone, additions, removals, staying, dropped)
        return {cohort: _counted(cohort, known[cohort], changes) for cohort in self._rows.cohorts}

    def _present(self, columns: str) -> str:
        """Return SQL for the rows of members: keys, row number and the given columns."""
        return f"(SELECT {self._keys}, rid, {columns} FROM {self._tables.staged} WHERE present)"

    def _withdraw_absent(self) -> None:
        """Mark all rows of a key as absent if its last row is absent."""
        keys = self._keys
        staged = f"(SELECT {keys}, present, rid FROM {self._tables.staged})"
        both = self._make(
            "both",
            f"SELECT {keys} FROM {self._present('NULL')}"
            f" SEMI JOIN (SELECT {keys} FROM {staged} WHERE NOT present) USING ({keys})",
        )
        if not self._count(f"FROM {both}"):
            return
        rows = self._make(
            "contradicting", f"SELECT * FROM {staged} SEMI JOIN {both} USING ({keys})"
        )
        last = self._group("last", "arg_max(present, rid) AS present", f"FROM {rows}")
        on = " AND ".join(f"s.{key} = l.{key}" for key in keys.split(", "))
        self._cursor.execute(
            f"UPDATE {self._tables.stored} SET present = FALSE WHERE rowid IN (SELECT rid"
            f" FROM {self._tables.staged} s JOIN {last} l ON {on}"
            " WHERE s.present AND NOT l.present)"
        )

    def _meet(self, accepted_count: int) -> str:
        """Join the rows with the accepted members once, and keep those that do not match.

        One slice of the hashes is joined after the other. ``rid`` is the staged row, null for an
        accepted member without one. ``known`` is null for a row without an accepted member, else a
        hash of the accepted anonymous id.
        """
        accepted, keys = self._tables.accepted, self._keys
        with_both = f"FROM {accepted} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        compares_pairs = self._rows.has_pairs or self._count(with_both)
        pair, differs = (
            ("hash(anonymous_id)", " OR a.pair <> s.pair") if compares_pairs else ("NULL", "")
        )
        slices = 1 + max(self._rows.count, accepted_count) // _JOINED
        merged = ", ".join(f"coalesce(s.{key}, a.{key}) AS {key}" for key in keys.split(", "))
        on = " AND ".join(f"a.{key} = s.{key}" for key in keys.split(", "))
        return self._make_sliced(
            "met",
            slices,
            f"SELECT {merged}, s.rid, a.pair::UBIGINT AS known"
            f" FROM (FROM {self._present(f'{pair} AS pair')} WHERE {{in_slice}}) s"
            f" FULL JOIN (SELECT {keys}, {pair} AS pair FROM {accepted} WHERE {{in_slice}}) a"
            f" ON {on} WHERE a.h IS NULL OR s.h IS NULL{differs}",
        )

    def _find_additions(self, met: str, *, has_doubts: bool) -> None:
        """Find the last row of each key that is new, changed or unconfirmed."""
        keys = self._keys
        columns = f"{keys}, rid, known, known IS NULL AS is_new, FALSE AS is_doubt"
        rows = f"SELECT {columns} FROM {met} WHERE rid IS NOT NULL"
        if has_doubts:
            doubted = self._make(
                "doubted",
                f"SELECT {keys}, rid FROM {self._present('NULL')}"
                f" SEMI JOIN {self._tables.doubts} USING ({keys})",
            )
            rows += f" UNION ALL SELECT {keys}, rid, NULL, FALSE, TRUE FROM {doubted}"
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
                f"SELECT {keys}, l.rid, is_new"
                f" FROM {found} JOIN {self._latest(found)} l USING ({keys})"
                " WHERE is_new OR is_doubt OR pair <> known",
            )
        # Sorted, because a page of additions is read by a range of rows, cohort by cohort.
        select = (
            f"SELECT {self._cohort} AS cohort, h, rid, is_new FROM {found} ORDER BY cohort, rid"
        )
        self._tables.additions = self._make("additions", select)

    def _latest(self, keys: str) -> str:
        """Make a table of the last row of each key, with a hash of its anonymous id."""
        rows = self._make(
            "rows",
            f"SELECT * FROM {self._present('hash(anonymous_id) AS pair')}"
            f" SEMI JOIN {keys} USING ({self._keys})",
        )
        return self._group("latest", "max(rid) AS rid, arg_max(pair, rid) AS pair", f"FROM {rows}")

    def _find_removals(self, met: str, strays: str | None) -> dict[int, int]:
        """Copy the identifiers of the accepted or unconfirmed members without a row.

        Return the numbers of unconfirmed members that are not accepted and have a row.
        """
        staying: dict[int, int] = {}
        tables, keys = self._tables, self._keys
        columns = f"{self._cohort} AS cohort, h, uid, anonymous_id"
        select = (
            f"SELECT {columns} FROM {tables.accepted}"
            f" SEMI JOIN (SELECT {keys} FROM {met} WHERE rid IS NULL) USING ({keys})"
        )
        if strays:
            absent = f"FROM {strays} ANTI JOIN {self._present('NULL')} USING ({keys})"
            gone = self._make("gone", f"SELECT {keys} {absent}")
            left = self._counts(f"FROM {gone}")
            staying = {
                cohort: count - left.get(cohort, 0)
                for cohort, count in self._counts(f"FROM {strays}").items()
            }
            select += (
                f" UNION ALL SELECT {columns} FROM {tables.doubts} SEMI JOIN {gone} USING ({keys})"
            )
        none = " LIMIT 0" if self._rows.keeps else ""
        tables.removals = self._make("removals", f"SELECT * FROM ({select}){none}")
        return staying

    def _drop_linked(self) -> dict[int, int]:
        """Move the removals whose anonymous id a row with a uid has now to a table of their own."""
        tables = self._tables
        anonymous = f"FROM {tables.removals} WHERE uid IS NULL"
        if not (self._rows.has_pairs and self._count(anonymous)):
            return {}
        former = self._hash_sql("NULL::VARCHAR", "anonymous_id")
        keys = f"{self._prefix}former"
        matches = self._make(
            "matches",
            f"SELECT * FROM (SELECT {self._keys}, rid, {former} AS former"
            f" FROM {self._present('uid, anonymous_id')}"
            " WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL)"
            f" SEMI JOIN (SELECT {self._prefix}h AS former {anonymous})"
            f" USING ({keys})",
        )
        # Only the last row of a key has the anonymous id that counts.
        linked = self._make(
            "linked",
            f"SELECT {self._prefix}former AS h FROM {matches}"
            f" SEMI JOIN {self._latest(matches)} USING (rid)",
        )
        removals = f"FROM {tables.removals}"
        tables.dropped = self._make(
            "dropped",
            f"SELECT * {removals} SEMI JOIN {linked} USING ({self._keys}) WHERE uid IS NULL",
        )
        others = f"{removals} ANTI JOIN {linked} USING ({self._keys})"
        tables.removals = self._make("others", others)
        return self._counts(f"FROM {tables.dropped}")

    def _spare_shared(self) -> None:
        """Clear the anonymous ids in removals that desired members have, which must stay.

        MoEngage tries the uid first, then the anonymous id. So a removal with a uid that it does
        not know would remove the member that has the anonymous id now.
        """
        removals = self._tables.removals
        pairs = f"FROM {removals} WHERE uid IS NOT NULL AND anonymous_id IS NOT NULL"
        if not self._count(pairs):
            return
        keys = f"{self._prefix}anonymous_id"
        staged = f"FROM {self._tables.staged} SEMI JOIN (SELECT {keys} {pairs}) USING ({keys})"
        shared = self._make("shared", f"SELECT DISTINCT {keys} {staged} WHERE present")
        same_cohort = "" if self._rows.is_one else " AND r.cohort = s.cohort"
        self._cursor.execute(
            f"UPDATE {removals} AS r SET anonymous_id = NULL FROM {shared} AS s"
            f" WHERE r.uid IS NOT NULL AND r.anonymous_id = s.anonymous_id{same_cohort}"
        )


def _unchanged(counts: LedgerCounts) -> DiffCounts:
    """Return the numbers of a cohort whose rows are its accepted members."""
    return DiffCounts(
        desired=counts.accepted,
        accepted=counts.accepted,
        base=counts.base,
        unchanged=counts.accepted.count,
    )


class _Changes(t.NamedTuple):
    """What was found for each cohort: numbers of rows, and those with the sums of the hashes."""

    new: dict[int, Sums]
    gone: dict[int, Sums]
    additions: dict[int, int]
    removals: dict[int, int]
    staying: dict[int, int]
    dropped: dict[int, int]


def _counted(cohort: int, known: LedgerCounts, changes: _Changes) -> DiffCounts:
    """Return the numbers of a cohort, given those of its ledger."""
    new, gone = changes.new.get(cohort, _NOTHING), changes.gone.get(cohort, _NOTHING)
    size, *sums = (n - g for n, g in zip(new, gone, strict=True))
    desired = grown(known.accepted, size, sums)
    additions = changes.additions.get(cohort, 0)
    return DiffCounts(
        desired=desired,
        accepted=known.accepted,
        in_doubt=known.in_doubt,
        base=known.base,
        joining=new[0] - changes.staying.get(cohort, 0),
        additions=additions,
        removals=changes.removals.get(cohort, 0),
        unchanged=desired.count - additions,
        dropped=changes.dropped.get(cohort, 0),
    )
