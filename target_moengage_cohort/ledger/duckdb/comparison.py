"""The SQL that compares the staged rows of a stream with the members of its cohorts."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.duckdb.differing_parts import DifferingParts
from target_moengage_cohort.ledger.duckdb.instance import grown
from target_moengage_cohort.ledger.records import DiffCounts, LedgerCounts

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.ledger.duckdb.result_tables import Sums

_JOINED = 4_000_000
"""Rows of either side to join at a time; with 50 million in one go the parts that DuckDB spills do
not fit into 256 MB, and with 10 million not next to the copy of as many members on a server."""

_NOTHING = (0, 0, 0)


class Comparison(DifferingParts):
    """One comparison of all cohorts, without the work that the data does not need.

    The sizes and digests of large sets are computed from those of their difference, so nothing of
    the stream's size is sorted or made distinct unless all of it differs. No statement has two
    large joins, groupings or sorts, because each may take all of the memory limit before it
    spills. The members of a single cohort are joined by their hash alone.
    """

    counts: Mapping[int, DiffCounts]
    outvoted = 0  # rows whose member a later row has in another cohort

    def run(self) -> None:
        """Fill the tables of the result, and count the changes of each cohort."""
        known = self.options.known
        self.counts = {cohort: _counted(counts) for cohort, counts in known.items()}
        has_doubts = any(counts.in_doubt for counts in known.values())
        if self.options.exclusive and not self._rows.is_one:
            self._withdraw_moved()
        if self._rows.has_absent:
            self._withdraw_absent()
        if self._is_same() and not (has_doubts or self._has_aliases):
            self._drop_others(set())
            return
        met = self._meet(sum(counts.accepted.count for counts in known.values()))
        if not (has_doubts or self._has_aliases or self._sizes[met]):
            self._drop_others(set())
            return
        self.options.on_difference()
        not_accepted = f"FROM {self._doubts} ANTI JOIN {self._accepted} USING ({self._keys})"
        strays = self._make("strays", f"SELECT {self._keys} {not_accepted}") if has_doubts else None
        self._find_additions(met, has_doubts=has_doubts)
        new = self._sums(f"FROM {self.additions} WHERE is_new")
        gone = self._sums(f"FROM {met} WHERE rid IS NULL")
        numbers = {"additions": self._counts(f"FROM {self.additions}")}
        numbers["staying"] = self._find_removals(met, strays)
        numbers["linked"] = self._keep_linked()
        resent = self._find_resent()
        numbers["removals"] = self._counts(f"FROM {self.removals}")
        numbers["approved"], numbers["leaving"] = self._count_leaving(resent)
        if len(numbers["removals"]) > 1:
            in_order = f"SELECT * FROM {self.removals} ORDER BY cohort"
            self.removals = self._make("in_order", in_order)
        self._drop_others({self.additions, self.removals, self.approved, self.linked, self.resent})
        self.counts = {
            cohort: _counted(
                counts,
                new.get(cohort, _NOTHING),
                gone.get(cohort, _NOTHING),
                **{name: each.get(cohort, 0) for name, each in numbers.items()},
            )
            for cohort, counts in known.items()
        }

    def _withdraw_moved(self) -> None:
        """Mark the rows of a member as absent that name another cohort than its last one does."""
        moved = self._make_sliced(
            "moved",
            self._slices(self._rows.count),
            "SELECT h, arg_max(cohort, rid) AS last"
            f" FROM (SELECT h, cohort, rid FROM {self.staged} WHERE present) WHERE {{in_slice}}"
            " GROUP BY h HAVING min(cohort) <> max(cohort)",
        )
        if self._sizes[moved]:
            table = self._rows.table
            table.store(self._cursor, "present")
            outvoted = (
                f"FROM {self.staged} s JOIN {moved} m ON s.h = m.h"
                " WHERE s.present AND s.cohort <> m.last"
            )
            self.outvoted = self._count(outvoted)
            self._cursor.execute(
                f"UPDATE {table.stored} SET present = FALSE WHERE rowid IN (SELECT rid {outvoted})"
            )

    def _withdraw_absent(self) -> None:
        """Mark all rows of a key as absent if its last row is absent."""
        keys = self._keys
        staged = f"(SELECT {keys}, present, rid FROM {self.staged})"
        both = self._make(
            "both",
            f"SELECT {keys} FROM {self._present('NULL')}"
            f" SEMI JOIN (SELECT {keys} FROM {staged} WHERE NOT present) USING ({keys})",
        )
        if not self._sizes[both]:
            return
        rows = self._make(
            "contradicting", f"SELECT * FROM {staged} SEMI JOIN {both} USING ({keys})"
        )
        last = self._group("last", "arg_max(present, rid) AS present", f"FROM {rows}")
        on = " AND ".join(f"s.{key} = l.{key}" for key in keys.split(", "))
        self._cursor.execute(
            f"UPDATE {self._rows.table.stored} SET present = FALSE WHERE rowid IN (SELECT rid"
            f" FROM {self.staged} s JOIN {last} l ON {on}"
            " WHERE s.present AND NOT l.present)"
        )

    def _meet(self, accepted_count: int) -> str:
        """Join the rows with the accepted members once, and keep those that do not match.

        Parts that are the same are left out. One slice of the hashes is joined after the other.
        ``rid`` is the staged row, null for an accepted member without one. ``known`` is null for a
        row without an accepted member, else a hash of the accepted anonymous id.
        """
        keys = self._keys
        pair, differs = (
            ("hash(anonymous_id)", " OR a.pair <> s.pair") if self._compares_pairs else ("NULL", "")
        )
        slices = 1 + self._joined_rows(accepted_count) // _JOINED
        present = self._present(f"{pair} AS pair")
        members = f"(SELECT {keys}, {pair} AS pair FROM {self._accepted})"
        merged = ", ".join(f"coalesce(s.{key}, a.{key}) AS {key}" for key in keys.split(", "))
        on = " AND ".join(f"a.{key} = s.{key}" for key in keys.split(", "))
        return self._make_sliced(
            "met",
            slices,
            f"SELECT {merged}, s.rid, a.pair::UBIGINT AS known"
            f" FROM (FROM {self._unequal(present)} WHERE {{in_slice}}) s"
            f" FULL JOIN (FROM {self._unequal(members)} WHERE {{in_slice}}) a"
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
                f" SEMI JOIN {self._doubts} USING ({keys})",
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
        self.additions = self._make("additions", select)

    def _find_removals(self, met: str, strays: str | None) -> dict[int, int]:
        """Copy the identifiers of the accepted or unconfirmed members without a row.

        Return the numbers of unconfirmed members that are not accepted and have a row.
        """
        staying: dict[int, int] = {}
        keys = self._keys
        columns = f"{self._cohort} AS cohort, h, uid, anonymous_id, FALSE AS is_alias"
        select = (
            f"SELECT {columns} FROM {self._accepted}"
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
                f" UNION ALL SELECT {columns} FROM {self._doubts} SEMI JOIN {gone} USING ({keys})"
            )
        none = " LIMIT 0" if self.options.keeps else ""
        self.removals = self._make("removals", f"SELECT * FROM ({select}){none}")
        if self._has_aliases and not self.options.keeps:
            aliases = f"FROM {self._aliases} ANTI JOIN {self._present('NULL')} USING ({keys})"
            absent = self._make("absent", f"SELECT DISTINCT {keys}, anonymous_id {aliases}")
            self._cursor.execute(
                f"INSERT INTO {self.removals} SELECT {self._cohort}, h, NULL, anonymous_id, TRUE"
                f" FROM {absent} ANTI JOIN {self.removals} USING ({keys})"
            )
        return staying


def _counted(
    known: LedgerCounts,
    new: Sums = _NOTHING,
    gone: Sums = _NOTHING,
    *,
    additions: int = 0,
    staying: int = 0,
    **others: int,
) -> DiffCounts:
    """Return the numbers of a cohort, given those of its ledger; by default nothing differs."""
    size, *sums = (n - g for n, g in zip(new, gone, strict=True))
    desired = grown(known.accepted, size, sums)
    return DiffCounts(
        desired=desired,
        accepted=known.accepted,
        in_doubt=known.in_doubt,
        base=known.base,
        joining=new[0] - staying,
        additions=additions,
        unchanged=desired.count - additions,
        **others,
    )
