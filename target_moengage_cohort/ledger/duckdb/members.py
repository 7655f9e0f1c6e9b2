"""The members of a stream's cohorts, in a DuckDB file; for one thread at a time."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import exists
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql
from target_moengage_cohort.ledger.duckdb.members_file import MembersFile, make_tables
from target_moengage_cohort.ledger.records import (
    EMPTY_SET,
    NO_MEMBERS,
    FoldedCohort,
    LedgerCounts,
    MemberSet,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, Engine
    from target_moengage_cohort.ledger.duckdb.members_file import Owner

CHUNK = 10_000
"""The most members in a list that an iterator yields."""

DELETED_ROWS = 10_000_000
"""Rows of a table from which one transaction may delete: DuckDB keeps 16 KB in memory, and does not
spill them, for each 2,048 rows among which one was deleted, until they are checkpointed."""


class Members(MembersFile):
    """The tables of a stream's members, and an in-memory schema ``folded``."""

    def __init__(self, engine: Engine, path: Path, owner: Owner, step: Step) -> None:
        super().__init__(engine, path, owner, step)
        self.exists = exists(path)  # a read-only store without it has empty tables
        self.schema = self.name if self.exists else f"memory.{self.name}"
        self.folded = f"memory.f{self.name}"
        self.may_have_removed = True  # whether the table `removed` may have rows
        self._failure: LedgerError | None = None
        self._is_closed = False
        with self._translated():
            self.cursor = engine.cursor()

    def open(self, _cohorts: Sequence[int]) -> None:
        """Have the members of some cohorts, which are all that the stream has.

        Attach the file, created if it is missing, and finish a `forget` that was interrupted.
        """
        with self.using() as cursor:
            if not self.exists and self.engine.read_only:
                cursor.execute(f"CREATE SCHEMA {self.schema}")
                make_tables(cursor, self.schema)
                return
            if not self.exists:
                self._create()
                self.exists, self.schema = True, self.name
            self.engine.attach(self)
            is_rewritten = self._check(cursor)
            if not self.engine.read_only:
                self._remove_leftovers()
                if not is_rewritten:
                    self.rewrite()

    @contextlib.contextmanager
    def using(self) -> Iterator[Cursor]:
        """Lock other threads out, keep the file attached, and fail for good at the first error."""
        with self.lock:
            if self._failure is not None:
                raise self._failure.again()
            if self._is_closed:
                msg = f"the ledger {self.place} was closed; run again"
                raise LedgerError("ledger_unusable", msg)
            self.pins += 1
            try:
                with self._translated():
                    if self.exists:
                        self.engine.attach(self)
                    yield self.cursor
            except LedgerError as error:
                self._failure = error  # it is unknown what was recorded
                raise
            finally:
                self.pins -= 1

    @contextlib.contextmanager
    def change(self, name: str, *, moves: bool = False) -> Iterator[Cursor]:
        """Change the tables in one transaction, durable when this ends.

        If it `moves` rows, the stream that a cohort belongs to is all that changes.
        """
        with self.using() as cursor:
            cursor.execute("BEGIN")
            try:
                with contextlib.nullcontext() if moves else self._elsewhere(name):
                    yield cursor
                self._step(f"{name}: before commit")
                cursor.execute("COMMIT")
            except BaseException:
                msg = f"the ledger {self.place} was abandoned after an error; run again"
                self._failure = LedgerError("ledger_unusable", msg)
                with contextlib.suppress(Exception):
                    cursor.execute("ROLLBACK")
                raise
            self._step(f"{name}: committed")

    def _elsewhere(self, _name: str) -> contextlib.AbstractContextManager[object]:
        """Make the same change in another place, before it is durable here."""
        return contextlib.nullcontext()

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Execute a statement with the schemas ``{s}`` and ``{v}``; return its number of rows."""
        self.cursor.execute(statement.format(s=self.schema, v=self.folded), values)
        rows = self.cursor.fetchall()
        return int(rows[0][0]) if rows else 0

    def sparing(self) -> contextlib.AbstractContextManager[None]:
        """Need no rows of accepted and removed members meanwhile but those that were fetched."""
        return contextlib.nullcontext()

    def fetch(self, hashes: str, values: Sequence[object] = ()) -> None:
        """Have the rows of members with some hashes; `hashes` is SQL for these, as ``h``."""

    def check_counts(self) -> None:
        """Raise the error for members that are not as many as recorded; a file is always whole."""

    def are_filled(self, *tables: str) -> list[bool]:
        """Return which tables have any row, or had one when they were opened."""
        exist = ", ".join(f"EXISTS (FROM {{s}}.{table})" for table in tables)
        return list(self.rows(f"SELECT {exist}")[0])

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[t.Any, ...]]:
        """Return all rows of a query with the schemas: a half-read result keeps the file open."""
        with self.using() as cursor:
            text = query.format(s=self.schema, v=self.folded)
            return cursor.execute(text, values).fetchall()

    def checkpoint(self) -> None:
        """Free what DuckDB keeps for deleted rows; the file must have no half-read result."""
        self.cursor.execute(f"CHECKPOINT {self.schema}")

    def thin(self, table: str, using: str, condition: str) -> None:
        """Delete rows of a large table, except for as many as one transaction can delete.

        It starts at the end, because a checkpoint may move rows to the front. `using` is another
        table with its alias; the condition joins it to ``old``.
        """
        ((count, last),) = self.rows(f"SELECT count(*), max(rowid) FROM {{s}}.{table}")
        if count <= DELETED_ROWS:
            return
        for first in reversed(range(DELETED_ROWS, last + 1, DELETED_ROWS)):
            with self.change("thin"):
                rows = f"{condition} AND old.rowid >= {first}"
                self.run(f"DELETE FROM {{s}}.{table} AS old USING {using} WHERE {rows}")
            self.checkpoint()

    # Reading

    def sized(self, cohorts: Sequence[int], tables: str = "{s}") -> dict[int, LedgerCounts]:
        """Count the members of some cohorts; no entry for a cohort without any."""
        accepted = self.rows(
            f"SELECT cohort, count(*), {sums_sql('h')} FROM {tables}.accepted"
            " WHERE cohort IN (SELECT unnest(?::INTEGER[])) GROUP BY cohort",
            [list(cohorts)],
        )
        sets = {cohort: MemberSet(count, digest(*sums)) for cohort, count, *sums in accepted}
        doubted = self.rows(
            "SELECT d.cohort, count(*), count(*) FILTER (a.h IS NULL)"
            f" FROM {tables}.doubts d LEFT JOIN {tables}.accepted a"
            " ON a.cohort = d.cohort AND a.h = d.h"
            " WHERE d.cohort IN (SELECT unnest(?::INTEGER[])) GROUP BY d.cohort",
            [list(cohorts)],
        )
        doubts = {cohort: numbers for cohort, *numbers in doubted}
        counts = {}
        for cohort in sets.keys() | doubts.keys():
            members, (in_doubt, others) = sets.get(cohort, EMPTY_SET), doubts.get(cohort, (0, 0))
            counts[cohort] = LedgerCounts(members, in_doubt, members.count + others)
        return counts

    def _sizes(self, cohorts: Sequence[int]) -> dict[int, LedgerCounts]:
        """Count the members of some cohorts after a change, before it is committed."""
        return self.sized(cohorts)

    def marks(self) -> dict[int, FoldedCohort]:
        """Return the cohorts of the file, each with its mark and its numbers."""
        rows = self.rows("SELECT cohort, mark, accepted, digest, in_doubt, base FROM {s}.marks")
        return {
            cohort: FoldedCohort(cohort, mark, LedgerCounts(MemberSet(*accepted), in_doubt, base))
            for cohort, mark, *accepted, in_doubt, base in rows
        }

    def write_marks(self, marks: dict[int, int]) -> list[FoldedCohort]:
        """Count some cohorts and write that with their marks, within a change."""
        if not marks:
            return []
        sizes = self._sizes(list(marks))
        folded = [
            FoldedCohort(each, mark, sizes.get(each, NO_MEMBERS)) for each, mark in marks.items()
        ]
        self.run("DELETE FROM {s}.marks WHERE cohort IN (SELECT unnest(?::INTEGER[]))", [[*marks]])
        columns = zip(*((each.number, *each.row) for each in folded), strict=True)
        kinds = ("INTEGER", "BIGINT", "BIGINT", "VARCHAR", "BIGINT", "BIGINT")
        values = ", ".join(f"unnest(?::{kind}[])" for kind in kinds)
        self.run(f"INSERT INTO {{s}}.marks SELECT {values}", [list(each) for each in columns])
        return folded

    def chunks(self, query: str, values: Sequence[object] = ()) -> Iterator[list[t.Any]]:
        """Yield a query's rows as of now, in chunks; later changes do not show."""
        with self.using():
            cursor = self.engine.cursor()
            text = query.format(s=self.schema, v=self.folded)
            cursor.execute(f"CREATE TEMP TABLE rows AS {text}", values)
            cursor.execute("FROM rows")

        def read() -> Iterator[list[t.Any]]:
            with contextlib.closing(cursor), self._translated():
                while rows := cursor.fetchmany(CHUNK):
                    yield rows

        return read()

    def members(self, query: str, values: Sequence[object] = ()) -> Iterator[list[Member]]:
        """Yield the members of a query for uid and anonymous_id, in chunks."""
        rows = self.chunks(query, values)
        return ([Member(uid, anonymous_id) for uid, anonymous_id in chunk] for chunk in rows)

    # Changing

    def rewrite(self) -> None:
        """Rewrite the file without the bytes of deleted rows."""
        with self.using():
            self._replace()

    def drop_removals(self, query: str) -> None:
        """Count removals that are kept no longer, within a change; see `DROP_REMOVALS`.

        `query` is SQL for their number in each cohort.
        """
        for statement in schema.DROP_REMOVALS:
            self.run(statement.replace("%s", query))

    def drop_cohorts(self, cohorts: Iterable[int]) -> None:
        """Delete everything of some cohorts, which are another stream's."""
        numbers = list(cohorts)
        with self.change("drop cohorts", moves=True):
            for table in schema.COHORT_TABLES:
                query = f"DELETE FROM {{s}}.{table} WHERE cohort IN (SELECT unnest(?::INTEGER[]))"
                self.run(query, [numbers])

    def close(self) -> None:
        """Release the file in whatever state it is."""
        with self.lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self.cursor.close()
                with self._translated():
                    self.engine.detach(self)
            except LedgerError:
                if self._failure is None:  # else the caller has had the first error
                    raise

    @property
    def has_failed(self) -> bool:
        """Whether an error has made the file unusable."""
        return self._failure is not None
