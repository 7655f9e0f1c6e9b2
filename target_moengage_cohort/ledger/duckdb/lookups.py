"""What the modes that send single changes ask: who is known, who is in doubt."""

# ruff: noqa: S608 - the names in statements are our own; values are parameters
from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.duckdb.journal import Journal
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Key
    from target_moengage_cohort.ledger.duckdb.connection import LedgerParts
    from target_moengage_cohort.ledger.duckdb.engine import Cursor


class Lookups(Journal):
    """The state that is expected after what a run has queued; called by the reader's thread."""

    def __init__(self, parts: LedgerParts) -> None:
        super().__init__(parts)
        self._queue = f"memory.q{self._file.name}"
        self._has_queue = False
        self._position = 0

    def known(self, members: Sequence[Member]) -> dict[Key, Expected]:
        """Say of members what is expected after everything that was queued in this run.

        A key that is not in the answer was never seen.

        Raises:
            LedgerError: DuckDB or the disk refuses it.
        """
        found: dict[Key, Expected] = {}
        # What a run has put into the journal was queued before, so with a queue the journal, which
        # grows, need not be read.
        with self._unjudged() if self._has_queue else self.tables() as (cursor, s):
            given, parameters = self._given(members)
            cursor.execute(f"CREATE TEMP TABLE asked AS SELECT h, i FROM {given}", parameters)
            sources = {  # the later ones know better
                f"{s}.removed": f"'{Action.REMOVE.value}', NULL, NULL",
                f"{s}.accepted": f"'{Action.ADD.value}', uid, anonymous_id",
                f"{s}.doubts": "NULL, uid, anonymous_id",
            }
            if self._has_queue:
                sources[self._queue] = "action, uid, anonymous_id"
            for table, columns in sources.items():
                order = " ORDER BY position" if table == self._queue else ""
                cursor.execute(f"SELECT i, {columns} FROM {table} JOIN asked USING (h){order}")
                for i, action, uid, anonymous_id in cursor.fetchall():
                    member = None
                    if uid is not None or anonymous_id is not None:
                        member = Member(uid, anonymous_id)
                    found[members[i].key] = Expected(action and Action(action), member)
        return found

    @property
    def _last_folded(self) -> str:
        """The schema of the tables without what this run has put into the journal."""
        return self._schema() if self._read_only else self._tables

    @contextlib.contextmanager
    def _unjudged(self) -> Iterator[tuple[Cursor, str]]:
        """The tables as they were folded last, with a cursor."""
        with self._using(), contextlib.closing(self._engine.cursor()) as cursor:
            yield cursor, self._last_folded

    def queued(self, changes: Sequence[tuple[Action, Member]]) -> None:
        """Take note of changes on their way to a request; the last one of a key wins.

        Raises:
            LedgerError: DuckDB refuses it, or there is no room to spill.
        """
        given, parameters = self._given([member for _, member in changes])
        actions = [action.value for action, _ in changes]
        with self._using() as cursor:
            if not self._has_queue:
                cursor.execute(
                    f"CREATE TABLE {self._queue} (position BIGINT, h UHUGEINT, uid VARCHAR, "
                    "anonymous_id VARCHAR, action VARCHAR)"
                )
                self._has_queue = True
            cursor.execute(
                f"INSERT INTO {self._queue} "
                f"SELECT ? + i, h, uid, anonymous_id, (?::VARCHAR[])[i + 1] FROM {given}",
                [self._position, actions, *parameters],
            )
            self._position += len(changes)

    def doubts(self) -> Iterator[list[tuple[Action, Member]]]:
        """Yield who is in doubt from before this run and was not queued since, in chunks.

        Raises:
            LedgerError: DuckDB refuses it, or there is no room to spill.
        """
        with self._using():
            new = f" ANTI JOIN {self._queue} AS q ON q.h = d.h" if self._has_queue else ""
            columns = "d.action, d.uid, d.anonymous_id"
            rows = self._rows(f"SELECT {columns} FROM {self._last_folded}.doubts AS d{new}")
        return (
            [(Action(action), Member(uid, anonymous_id)) for action, uid, anonymous_id in chunk]
            for chunk in rows
        )
