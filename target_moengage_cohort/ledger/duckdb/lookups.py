"""Lookups of single members, for the modes that send single changes."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.duckdb.journal import Journal
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Key
    from target_moengage_cohort.ledger.duckdb.connection import LedgerParts


class Lookups(Journal):
    """The state that is expected after the changes queued so far; for the reader's thread."""

    def __init__(self, parts: LedgerParts) -> None:
        super().__init__(parts)
        self._queue = f"memory.q{self._file.name}"
        self._has_queue = False
        self._position = 0

    def known(self, members: Sequence[Member]) -> dict[Key, Expected]:
        """See `CohortLedger.known`."""
        expected: dict[Key, Expected] = {}
        # All that is in the journal was queued before, so with a queue the journal, which grows,
        # need not be read.
        with self.tables(has_journal=not self._has_queue) as (cursor, s):
            rows_sql, parameters = self._members_sql(members)
            cursor.execute(f"CREATE TEMP TABLE asked AS SELECT h, i FROM {rows_sql}", parameters)
            sources = {  # later ones win
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
                    is_known = uid is not None or anonymous_id is not None
                    member = Member(uid, anonymous_id) if is_known else None
                    expected[members[i].key] = Expected(action and Action(action), member)
        return expected

    def queued(self, changes: Sequence[tuple[Action, Member]]) -> None:
        """See `CohortLedger.queued`."""
        rows_sql, parameters = self._members_sql([member for _, member in changes])
        actions = [action.value for action, _ in changes]
        with self._using() as cursor:
            if not self._has_queue:
                cursor.execute(
                    f"CREATE TABLE {self._queue} (position BIGINT, h UHUGEINT, uid VARCHAR, "
                    "anonymous_id VARCHAR, action VARCHAR)"
                )
                self._has_queue = True
            rows = f"SELECT ? + i, h, uid, anonymous_id, (?::VARCHAR[])[i + 1] FROM {rows_sql}"
            values = [self._position, actions, *parameters]
            cursor.execute(f"INSERT INTO {self._queue} {rows}", values)
            self._position += len(changes)

    def doubts(self) -> Iterator[list[tuple[Action, Member]]]:
        """See `CohortLedger.doubts`."""
        with self.tables(has_journal=False) as (_, s):
            new = f" ANTI JOIN {self._queue} AS q ON q.h = d.h" if self._has_queue else ""
            rows = self._rows(f"SELECT d.action, d.uid, d.anonymous_id FROM {s}.doubts AS d{new}")
        return (
            [(Action(action), Member(uid, anonymous_id)) for action, uid, anonymous_id in chunk]
            for chunk in rows
        )
