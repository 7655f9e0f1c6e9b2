"""Requests and their answers: first in a journal, later folded into the tables."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.connection import Connection, LedgerParts
from target_moengage_cohort.ledger.duckdb.instance import digest, sums_sql
from target_moengage_cohort.ledger.records import LedgerCounts, MemberSet

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Action, Member
    from target_moengage_cohort.ledger.duckdb.instance import Cursor

ALL = 2**62
"""Above every request's number: requests in flight count as unanswered."""

FOLDED_ROWS = 2_000_000
"""Rows of the journal to fold at a time: more do not always fit into the memory limit."""

DELETED_ROWS = 10_000_000
"""Rows of a table from which one transaction may delete: DuckDB keeps 16 KB in memory, and does not
spill them, for each 2,048 rows among which one was deleted, until they are checkpointed."""


class Journal(Connection):
    """The `RequestLedger`, and what it has as if folded."""

    def __init__(self, parts: LedgerParts) -> None:
        super().__init__(parts)
        self._unfolded: set[int] = set()
        self._in_flight: set[int] = set()

    def sent(self, action: Action, members: Sequence[Member], timestamp: int) -> int:
        """See `RequestLedger.sent`."""
        distinct = {member.key: member for member in members}
        rows_sql, parameters = self._members_sql(list(distinct.values()))
        rows = f"SELECT ?, h, uid, anonymous_id FROM {rows_sql}"
        with self._using():
            self._unsettle()
            number = self.revision + 1
            with self._change("sent"):
                self._run("INSERT INTO {s}.requests VALUES (?, ?, 'sent')", [number, action.value])
                self._run(f"INSERT INTO {{s}}.journal {rows}", [number, *parameters])
                latest = max(self.last_timestamp, timestamp)
                self._write_meta(last_timestamp=latest, revision=number)
            self.last_timestamp, self.revision = latest, number
            self._unfolded.add(number)
            self._in_flight.add(number)
            return number

    def accepted(self, number: int) -> None:
        """Record that MoEngage accepted a request; durable on return."""
        self._answered(number, "accepted")

    def refused(self, number: int) -> None:
        """Record that MoEngage refused a request; durable on return."""
        self._answered(number, "refused")

    def _answered(self, number: int, state: str) -> None:
        with self._using():
            if number not in self._in_flight:
                msg = f"the ledger {self._file.path} has no pending request {number}; run again"
                raise LedgerError("unknown_request", msg)
            with self._change(state):
                self._run("UPDATE {s}.requests SET state = ? WHERE number = ?", [state, number])
            self._in_flight.discard(number)

    def fold(self) -> None:
        """Fold the journal into the tables, up to the first unanswered request."""
        with self._using():
            self._fold(min(self._in_flight, default=ALL))

    def folded(self) -> None:
        """Fold unless the ledger is read-only; `tables` are correct in any case."""
        if not self._read_only:
            self.fold()

    def _fold(self, before: int) -> None:
        """Fold the requests with a lower number.

        If it is interrupted, folding again from the journal leads to the same tables.
        """
        with self._using():
            for end in self._ends(before):
                self._fold_step(end)
            self._settle()

    def _ends(self, before: int) -> list[int]:
        """Return the request numbers before which the steps of a fold end."""
        if all(number >= before for number in self._unfolded):
            return []
        upto = (
            "SELECT number, sum(count(*)) OVER (ORDER BY number) AS rows "
            f"FROM {self._tables}.journal WHERE number < ? GROUP BY number"
        )
        step = f"rows // {FOLDED_ROWS}"
        ends = f"SELECT max(number) + 1 AS last FROM ({upto}) GROUP BY {step} ORDER BY last"
        rows = self._cursor.execute(ends, [before]).fetchall()
        return [*(end for (end,) in rows[:-1]), before]

    def _fold_step(self, before: int) -> None:
        done = {number for number in self._unfolded if number < before}
        self._sum_up(before)
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
        """Delete rows of a large table, except for as many as one transaction can delete.

        It starts at the end, because a checkpoint may move rows to the front.
        """
        if self._value(f"SELECT count(*) FROM {self._tables}.{table}") <= DELETED_ROWS:
            return
        last = self._value(f"SELECT max(rowid) FROM {self._tables}.{table}")
        for first in reversed(range(DELETED_ROWS, last + 1, DELETED_ROWS)):
            with self._change("thin"):
                self._run(f"DELETE FROM {{s}}.{table} WHERE {rows} AND rowid >= {first}")
            self._checkpoint()

    def _sum_up(self, before: int) -> None:
        """Sum up the journal per member in a table in memory."""
        self._cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._folded}")
        self._run(schema.SUMMARY, [before])

    def _settle(self) -> None:
        """Update the catalog's entry once no member is unconfirmed."""
        if not self.entry.is_settled and not self._unfolded:
            query = f"SELECT count(*) FROM (FROM {self._tables}.doubts LIMIT 1)"
            if not self._value(query):
                self._list(is_settled=True)

    def load(self) -> None:
        """Read the file, and fold the journal that an earlier run left."""
        super().load()
        with self._using() as cursor:
            rows = cursor.execute(f"SELECT number FROM {self._tables}.requests").fetchall()
            self._unfolded = {number for (number,) in rows}
            if not self._read_only:
                self._fold(ALL)

    def _schema(self) -> str:
        """Return the schema whose tables are as if folded."""
        if not self._unfolded:
            return self._tables
        self._sum_up(ALL)
        self._run_all(schema.VIEWS)
        return self._folded

    @contextlib.contextmanager
    def tables(self, *, has_journal: bool = True) -> Iterator[tuple[Cursor, str]]:
        """Lock the tables accepted, doubts and removed; yield a cursor and their schema.

        They are as if folded, or as they were folded last if they need not have this run's journal.
        """
        with self._using(), contextlib.closing(self._engine.cursor()) as cursor:
            yield cursor, self._schema() if has_journal or self._read_only else self._tables

    def numbers(self) -> LedgerCounts:
        """Return how many members the ledger has."""
        self.folded()
        with self.tables() as (cursor, s):
            sums = f"SELECT count(*), {sums_sql('h')} FROM {s}.accepted"
            ((count, high, low),) = cursor.execute(sums).fetchall()
            doubts = (
                f"SELECT count(*), count(*) FILTER (h NOT IN (SELECT a.h FROM {s}.accepted AS a "
                f"SEMI JOIN {s}.doubts AS d ON d.h = a.h)) FROM {s}.doubts"
            )
            ((in_doubt, not_accepted),) = cursor.execute(doubts).fetchall()
        counted = MemberSet(count, digest(int(high), int(low)))
        return LedgerCounts(accepted=counted, in_doubt=in_doubt, base=count + not_accepted)
