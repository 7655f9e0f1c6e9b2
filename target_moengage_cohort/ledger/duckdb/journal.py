"""Requests and their answers: first in a journal, later folded into the tables."""

# ruff: noqa: S608 - the names in statements are our own; values are parameters
from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.connection import LedgerParts, Store
from target_moengage_cohort.ledger.duckdb.engine import digest, sums_sql
from target_moengage_cohort.ledger.records import LedgerCounts, MemberSet

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Action, Member
    from target_moengage_cohort.ledger.duckdb.engine import Cursor

ALL = 2**62
"""Above every request's number: what is in flight counts as never answered."""

FOLDED_AT_ONCE = 2_000_000
"""Rows of the journal that are folded at a time: more do not always fit into the memory limit."""

DELETED_AT_ONCE = 10_000_000
"""Rows of a table from which one transaction deletes: DuckDB keeps 16 KB in memory, and does not
spill them, for each 2,048 rows among which one was deleted, until they are checkpointed."""


class Journal(Store):
    """What delivery tells the ledger, and what that amounts to."""

    def __init__(self, parts: LedgerParts) -> None:
        super().__init__(parts)
        self._unfolded: set[int] = set()
        self._in_flight: set[int] = set()

    def sent(self, action: Action, members: Sequence[Member], timestamp: int) -> int:
        """Note a request that is about to leave: its members are in doubt when this returns.

        Args:
            action: What it does.
            members: To whom.
            timestamp: Its own, in milliseconds.

        Returns:
            Its number, for `accepted` or `refused`.

        Raises:
            LedgerError: It could not be noted, so it must not leave.
        """
        given, parameters = self._given(list({member.key: member for member in members}.values()))
        with self._using():
            self._unsettle()
            number = self.revision + 1
            with self._change("sent"):
                self._run("INSERT INTO {s}.requests VALUES (?, ?, 'sent')", [number, action.value])
                self._run(
                    f"INSERT INTO {{s}}.journal SELECT ?, h, uid, anonymous_id FROM {given}",
                    [number, *parameters],
                )
                latest = max(self.last_timestamp, timestamp)
                self._write_meta(last_timestamp=latest, revision=number)
            self.last_timestamp, self.revision = latest, number
            self._unfolded.add(number)
            self._in_flight.add(number)
            return number

    def accepted(self, number: int) -> None:
        """Note that MoEngage has accepted a request; durable when this returns.

        Raises:
            LedgerError: Nobody knows whether it was noted.
        """
        self._answered(number, "accepted")

    def refused(self, number: int) -> None:
        """Note that MoEngage has refused a request, so that nothing of it was applied.

        Raises:
            LedgerError: Nobody knows whether it was noted.
        """
        self._answered(number, "refused")

    def _answered(self, number: int, state: str) -> None:
        with self._using():
            if number not in self._in_flight:
                msg = f"the ledger {self._file.path} has no request {number} under way; run again"
                raise LedgerError(msg)
            with self._change(state):
                self._run("UPDATE {s}.requests SET state = ? WHERE number = ?", [state, number])
            self._in_flight.discard(number)

    def fold(self) -> None:
        """Bring the journal into the tables, up to the first request that waits for its answer.

        Raises:
            LedgerError: Nobody knows whether it was done; the next open does it.
        """
        with self._using():
            self._fold(min(self._in_flight, default=ALL))

    def folded(self) -> None:
        """Fold, where the ledger may be changed; `tables` are right in any case."""
        if not self._read_only:
            self.fold()

    def _fold(self, before: int) -> None:
        """Fold the requests with a lower number.

        Whatever part of it was done, folding again from the journal leads to the same tables.
        """
        with self._using():
            for end in self._ends(before):
                self._fold_step(end)
            self._settle()

    def _ends(self, before: int) -> list[int]:
        """Where the steps of a fold end: each time before the request with this number."""
        if all(number >= before for number in self._unfolded):
            return []
        upto = (
            "SELECT number, sum(count(*)) OVER (ORDER BY number) AS rows "
            f"FROM {self._tables}.journal WHERE number < ? GROUP BY number"
        )
        step = f"rows // {FOLDED_AT_ONCE}"
        ends = f"SELECT max(number) + 1 AS last FROM ({upto}) GROUP BY {step} ORDER BY last"
        rows = self._cursor.execute(ends, [before]).fetchall()
        return [*(end for (end,) in rows[:-1]), before]

    def _fold_step(self, before: int) -> None:
        done = {number for number in self._unfolded if number < before}
        self._judge(before)
        for table, rows in schema.FOLDED_AWAY:
            self._thin(table, rows)
        with self._change("fold"):
            self._run_all(schema.FOLD)
            if done == self._unfolded:
                self._run_all(schema.CLEAR_JOURNAL)
            else:
                self._run("DELETE FROM {s}.journal WHERE number < ?", [before])
                self._run("DELETE FROM {s}.requests WHERE number < ?", [before])
        self._cursor.execute(f"DROP SCHEMA {self._folded} CASCADE")
        self._unfolded -= done
        self._in_flight -= done

    def _thin(self, table: str, rows: str) -> None:
        """Delete rows of a large table, all but those that are left to one transaction.

        From the end: a checkpoint may move rows to the front.
        """
        if self._value(f"SELECT count(*) FROM {self._tables}.{table}") <= DELETED_AT_ONCE:
            return
        last = self._value(f"SELECT max(rowid) FROM {self._tables}.{table}")
        for first in reversed(range(DELETED_AT_ONCE, last + 1, DELETED_AT_ONCE)):
            with self._change("thin"):
                self._run(f"DELETE FROM {{s}}.{table} WHERE {rows} AND rowid >= {first}")
            self._checkpoint()

    def _judge(self, before: int) -> None:
        """Say in a table beside the file, per member, what the journal amounts to."""
        self._cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._folded}")
        self._run(schema.VERDICT, [before])

    def _settle(self) -> None:
        """Tell the catalogue once nobody is in doubt any more."""
        if not self.entry.is_settled and not self._unfolded:
            query = f"SELECT count(*) FROM (FROM {self._tables}.doubts LIMIT 1)"
            if not self._value(query):
                self._list(is_settled=True)

    def load(self) -> None:
        """Read the file; fold what an earlier run left in the journal.

        Raises:
            SettingsError: It is not the file we want.
            LedgerError: DuckDB or the disk refuses it.
        """
        super().load()
        with self._using() as cursor:
            rows = cursor.execute(f"SELECT number FROM {self._tables}.requests").fetchall()
            self._unfolded = {number for (number,) in rows}
            if not self._read_only:
                self._fold(ALL)

    def _schema(self) -> str:
        """The schema whose tables are as if folded."""
        if not self._unfolded:
            return self._tables
        self._judge(ALL)
        self._run_all(schema.VIEWS)
        return self._folded

    @contextlib.contextmanager
    def tables(self) -> Iterator[tuple[Cursor, str]]:
        """The tables accepted, doubts and removed, as if folded; other threads wait.

        Yields:
            A cursor, and the schema that the tables are in.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        with self._using(), contextlib.closing(self._engine.cursor()) as cursor:
            yield cursor, self._schema()

    def numbers(self) -> LedgerCounts:
        """What the ledger holds, as if folded.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        self.folded()
        with self.tables() as (cursor, s):
            sums = f"SELECT count(*), {sums_sql('h')} FROM {s}.accepted"
            ((count, high, low),) = cursor.execute(sums).fetchall()
            doubts = (
                f"SELECT count(*), count(*) FILTER (h NOT IN (SELECT a.h FROM {s}.accepted AS a "
                f"SEMI JOIN {s}.doubts AS d ON d.h = a.h)) FROM {s}.doubts"
            )
            ((in_doubt, beside),) = cursor.execute(doubts).fetchall()
        counted = MemberSet(count, digest(int(high), int(low)))
        return LedgerCounts(accepted=counted, in_doubt=in_doubt, base=count + beside)
