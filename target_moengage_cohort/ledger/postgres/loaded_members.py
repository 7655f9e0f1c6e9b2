"""A copy of a stream's members in DuckDB, loaded from a server as far as it is needed."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.ledger.duckdb import members as all_members
from target_moengage_cohort.ledger.duckdb.instance import digest, translated
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.duckdb.members_file import make_tables
from target_moengage_cohort.ledger.postgres import copying, server_tables
from target_moengage_cohort.ledger.records import NO_MEMBERS, LedgerCounts, MemberSet

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, Engine
    from target_moengage_cohort.ledger.duckdb.members_file import Owner
    from target_moengage_cohort.ledger.postgres.bulk import Bulk

FEWEST = 200_000
"""Accepted members of a cohort from which on single ones are looked up on the server."""
MOST_PERCENT = 10
"""Looked-up members, of those accepted, beyond which it is faster to copy all."""
_AT_A_TIME = 10_000

_IDENTIFIERS = {"cohort": "INTEGER", "uid": "VARCHAR", "anonymous_id": "VARCHAR"}
_LOADED = {
    "accepted": _IDENTIFIERS,  # their hashes are computed here, which takes less than to copy them
    "removed": {"cohort": "INTEGER", "h": "VARCHAR"},
    "doubts": {**_IDENTIFIERS, "action": "VARCHAR"},
    "aliases": _IDENTIFIERS,
    "plan_members": {"plan_id": "VARCHAR", "action": "VARCHAR", **_IDENTIFIERS},
    "kept_removals": {**_IDENTIFIERS, "number": "BIGINT"},
    "dropped_removals": {"cohort": "INTEGER", "number": "BIGINT"},
    "marks": {
        "cohort": "INTEGER",
        "mark": "BIGINT",
        "accepted": "BIGINT",
        "digest": "VARCHAR",
        "in_doubt": "BIGINT",
        "base": "BIGINT",
    },
}
"""The columns that are copied from the server, with DuckDB's types."""

_LARGE = ("accepted", "removed")
"""The tables whose rows can be looked up one by one; the others are always copied."""

COLUMNS = {
    table: [column.split()[0] for column in columns.split(", ")]
    for table, columns in server_tables.MEMBERS.items()
}


class LoadedMembers(Members):
    """`Members` in a temporary file, with the rows of a server.

    A copy in memory would spill, but DuckDB then has too little memory for the joins of 50 million.

    The large tables of a large cohort have, at first, only the rows of the members that were looked
    up. Whatever needs more copies the rest first.
    """

    options = "TYPE duckdb, RECOVERY_MODE no_wal_writes"  # no crash is survived

    def __init__(
        self, engine: Engine, directory: Path, owner: Owner, step: Step, bulk: Bulk
    ) -> None:
        self._directory = directory
        super().__init__(engine, directory, owner, step)
        self.path = directory / f"{self.name}.duckdb"
        self.place = bulk.place
        self.exists = True
        self.schema = self.name
        self._bulk = bulk
        self._cohorts: Sequence[int] = ()
        self._filled: dict[str, bool] = {}
        self._sparing = 0  # the uses under way that look members up
        self._accepted = 0  # the accepted members of the cohort of which only a part is here
        self._looked_up = 0
        self._is_counted = False  # whether the members must be as many as recorded
        self._before: dict[int, LedgerCounts] = {}  # the sizes of that part before a change
        self._found = f"memory.k{self.name}"  # the hashes that were looked up

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return translated(self._directory)

    @property
    def _is_partial(self) -> bool:
        return self._accepted > 0

    def open(self, cohorts: Sequence[int]) -> None:
        """Copy the members of some cohorts; those of a large one when they are needed."""
        self._cohorts = cohorts
        with self.using() as cursor:
            make_tables(cursor, self.schema)
            if not cohorts:
                return
            with self._bulk.reading():
                exist = (f"EXISTS (SELECT 1 FROM {table} {self._chosen})" for table in _LOADED)
                looks = f"SELECT EXISTS (SELECT 1 FROM requests {self._chosen}), {', '.join(exist)}"
                ((unfolded, *filled),) = self._bulk.channel.run(looks, copying.SILENT_SECONDS)
                self._filled = dict(zip(_LOADED, filled, strict=True))
                for table in {*_LOADED} - {*_LARGE}:
                    self._load(cursor, table)
                ((accepted,),) = cursor.execute(
                    f"SELECT coalesce(max(accepted), 0) FROM {self.schema}.marks"
                ).fetchall()
                # A fold that was interrupted may have thinned: the sizes are not those recorded.
                is_thinned = unfolded and accepted > all_members.DELETED_ROWS
                if len(cohorts) == 1 and accepted >= FEWEST and not is_thinned:
                    self._accepted = accepted
                    cursor.execute(f"CREATE OR REPLACE TABLE {self._found} (h UHUGEINT)")
                else:
                    self._load_large(cursor)

    def are_filled(self, *tables: str) -> list[bool]:
        """See `Members.are_filled`."""
        return [self._filled.get(table, False) for table in tables]

    @contextlib.contextmanager
    def sparing(self) -> Iterator[None]:
        """See `Members.sparing`."""
        with self.lock:
            self._sparing += 1
            try:
                yield
            finally:
                self._sparing -= 1

    @contextlib.contextmanager
    def using(self) -> Iterator[Cursor]:
        """See `Members.using`; have all rows unless the use is sparing."""
        with super().using() as cursor:
            if self._is_partial and not self._sparing:
                self._load_rest(cursor)
            yield cursor

    def fetch(self, hashes: str, values: Sequence[object] = ()) -> None:
        """See `Members.fetch`."""
        if not self._is_partial:
            return
        with self.sparing(), self.using() as cursor:
            text = hashes.format(s=self.schema, v=self.folded)
            new = f"SELECT DISTINCT h FROM ({text}) WHERE h IS NOT NULL"
            cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE wanted AS FROM ({new}) ANTI JOIN {self._found}"
                " USING (h)",
                values,
            )
            wanted = cursor.execute("SELECT h::UUID::VARCHAR FROM wanted").fetchall()
            self._looked_up += len(wanted)
            if self._looked_up * 100 > self._accepted * MOST_PERCENT:
                self._load_rest(cursor)
                return
            with self._bulk.reading():
                for start in range(0, len(wanted), _AT_A_TIME):
                    some = ",".join(h for (h,) in wanted[start : start + _AT_A_TIME])
                    for table in _LARGE:
                        self._load(cursor, table, f"AND h = ANY ('{{{some}}}'::UUID[])")
            cursor.execute(f"INSERT INTO {self._found} FROM wanted")

    def thin(self, table: str, using: str, condition: str) -> None:
        """See `Members.thin`; have all rows first.

        The sizes of a part are those recorded and the change since, which a fold does not record
        until it has thinned.
        """
        if self._is_partial:
            ((count,),) = self.rows(f"SELECT count(*) FROM {{s}}.{table}")
            if count > all_members.DELETED_ROWS:
                with self.using() as cursor:
                    self._load_rest(cursor)
        super().thin(table, using, condition)

    def _load_rest(self, cursor: Cursor) -> None:
        """Copy the large tables as they are on the server, in place of what is there."""
        for table in _LARGE:  # cohorts that were added since are whole
            cursor.execute(f"DELETE FROM {self.schema}.{table} {self._chosen}")
        self._filled |= dict.fromkeys(_LARGE, True)  # this run may have filled them
        with self._bulk.reading():
            self._load_large(cursor)
        self._accepted = 0

    def _load_large(self, cursor: Cursor) -> None:
        for table in _LARGE:
            self._load(cursor, table)
        if self._is_counted:
            self._check_counts(cursor)

    def check_counts(self) -> None:
        """See `Members.check_counts`; members that are copied later are counted then."""
        self._is_counted = True
        with self.sparing(), self.using() as cursor:
            if not self._is_partial:
                self._check_counts(cursor)

    def _check_counts(self, cursor: Cursor) -> None:
        marks, accepted = f"{self.schema}.marks", f"{self.schema}.accepted"
        ((total, differing),) = cursor.execute(
            f"SELECT coalesce(sum(m.accepted), 0), count(*) FILTER"
            f" (coalesce(m.accepted, 0) <> coalesce(a.accepted, 0)) FROM {marks} AS m FULL JOIN"
            f" (SELECT cohort, count(*) AS accepted FROM {accepted} GROUP BY cohort) AS a"
            f" USING (cohort) {self._chosen}"
        ).fetchall()
        # Of more, a crash may leave fewer until the next fold, which is then repeated.
        if differing and total <= all_members.DELETED_ROWS:
            fault = "does not have as many members as it has recorded"
            raise self.mismatch(fault)

    @property
    def _chosen(self) -> str:
        return f"WHERE cohort IN ({','.join(map(str, self._cohorts))})"

    def _load(self, cursor: Cursor, table: str, condition: str = "") -> None:
        if not self._filled[table]:
            return
        columns = _LOADED[table]
        query = f"SELECT {', '.join(columns)} FROM {table} {self._chosen} {condition}"
        pipe = self._directory / f"{self.name}.{table}"
        with copying.copied_out(self._bulk.channel, query, columns, pipe) as source:
            cursor.execute(f"INSERT INTO {self.schema}.{table} {self._select(table, source)}")

    def _select(self, table: str, source: str) -> str:
        """Return SQL that makes the rows of a table from those that were copied."""
        hashes = {
            "accepted": self.engine.hash_sql("uid", "anonymous_id"),
            "doubts": self.engine.hash_sql("uid", "anonymous_id"),
            "aliases": self.engine.hash_sql("NULL::VARCHAR", "anonymous_id"),
            "kept_removals": self.engine.hash_sql("uid", "anonymous_id"),
            "removed": "h::UUID::UHUGEINT",
        }
        columns = ", ".join(hashes[table] if column == "h" else column for column in COLUMNS[table])
        texts = [column for column in copying.TEXTS if column in _LOADED[table]]
        if not texts:
            return f"SELECT {columns} FROM {source}"
        decoded = ", ".join(f"{copying.decoded_sql(text)} AS {text}" for text in texts)
        return f"SELECT {columns} FROM (SELECT * REPLACE ({decoded}) FROM {source})"

    # Sizes

    def _note_sizes(self) -> None:
        """Note the sizes before a change, if only a part of the members is here."""
        self._before = self.sized(self._cohorts) if self._is_partial else {}

    def _sizes(self, cohorts: Sequence[int]) -> dict[int, LedgerCounts]:
        """Return the sizes of cohorts, from those recorded and the change of the part here."""
        now = self.sized(cohorts)
        if not self._is_partial:
            return now
        known = self.marks()
        return now | {
            cohort: _moved(
                known[cohort].counts,
                self._before.get(cohort, NO_MEMBERS),
                now.get(cohort, NO_MEMBERS),
            )
            for cohort in cohorts
            if cohort in self._cohorts  # all of those that were added since are here
        }


def _moved(known: LedgerCounts, before: LedgerCounts, now: LedgerCounts) -> LedgerCounts:
    """Return the numbers of a set, of a part of which the numbers have changed."""
    total, part, new = known.accepted, before.accepted, now.accepted
    low = sum(sign * int(each.digest, 16) for sign, each in ((1, total), (-1, part), (1, new)))
    members = MemberSet(total.count - part.count + new.count, digest(0, low))
    in_doubt = known.in_doubt - before.in_doubt + now.in_doubt
    return LedgerCounts(members, in_doubt, known.base - before.base + now.base)
