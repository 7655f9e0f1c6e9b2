"""Lookups of single members, for the modes that send single changes."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.control.requests import REFUSED_DOUBT
from target_moengage_cohort.ledger.duckdb.binding import Column, bound
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.interface import NumberedChange, NumberedKey


class Lookups:
    """The state that is expected after the changes queued so far; for the reader's thread."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._queue = f"memory.q{members.file.name}"
        self._has_queue = False
        self._position = 0

    def known(
        self, cohorts: Sequence[int], members: Sequence[Member], schema: str
    ) -> dict[NumberedKey, Expected]:
        """Return what is expected of members in their cohorts, of those met before.

        `schema` has the tables to look into. All that was requested since they were folded last was
        queued before, so with a queue they need not be as if folded.
        """
        expected: dict[NumberedKey, Expected] = {}
        sources = {  # later ones win
            f"{schema}.removed": f"'{Action.REMOVE.value}', NULL, NULL",
            # Not a member of its own; the removal of it may be that of its uid.
            f"{schema}.aliases": f"'{Action.REMOVE.value}', NULL, NULL",
            f"{schema}.accepted": f"'{Action.ADD.value}', t.uid, t.anonymous_id",
            f"{schema}.doubts": "NULL, t.uid, t.anonymous_id",
        }
        if self._has_queue:
            sources[self._queue] = "t.action, t.uid, t.anonymous_id"
        with self._members.using() as cursor:
            source, values = _rows(cohorts, members)
            h = self._members.engine.hash_sql("uid", "anonymous_id")
            columns = f"cohort, {h} AS h, uid, anonymous_id, row_number() OVER () - 1 AS i"
            asked = f"SELECT {columns} FROM {source}"
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE asked AS {asked}", values)
            for table, columns in sources.items():
                order = " ORDER BY position" if table == self._queue else ""
                matches = f"FROM {table} AS t JOIN asked USING (cohort, h)"
                cursor.execute(f"SELECT i, {columns} {matches}{order}")
                for i, action, uid, anonymous_id in cursor.fetchall():
                    is_known = uid is not None or anonymous_id is not None
                    member = Member(uid, anonymous_id) if is_known else None
                    key = cohorts[i], members[i].key
                    expected[key] = Expected(action and Action(action), member)
        return expected

    def queued(self, changes: Sequence[NumberedChange]) -> None:
        """Note changes on their way to a request; a member's last one counts."""
        source, values = _rows(
            [cohort for cohort, _, _ in changes],
            [member for _, _, member in changes],
            [action.value for _, action, _ in changes],
        )
        h = self._members.engine.hash_sql("uid", "anonymous_id")
        columns = f"{self._position} + row_number() OVER (), cohort, {h}, uid, anonymous_id, action"
        self._insert(f"SELECT {columns} FROM {source}", values, len(changes))

    def queue_asked(self, actions: Sequence[Action]) -> None:
        """Note likewise a change of each member that `known` was asked for last."""
        is_one = len({*actions}) == 1
        values = None if is_one else [action.value for action in actions]
        source, bindings = bound([Column("action", "VARCHAR", f"'{actions[0].value}'", values)])
        joined = "CROSS JOIN" if is_one else "POSITIONAL JOIN"
        columns = f"{self._position} + i, cohort, h, uid, anonymous_id, action"
        self._insert(f"SELECT {columns} FROM asked {joined} {source}", bindings, len(actions))

    def _insert(self, select: str, values: Sequence[object], count: int) -> None:
        """Insert rows into the queue, which later rows follow."""
        with self._members.using() as cursor:
            if not self._has_queue:
                cursor.execute(
                    f"CREATE TABLE {self._queue} (position BIGINT, cohort INTEGER, h UHUGEINT,"
                    " uid VARCHAR, anonymous_id VARCHAR, action VARCHAR)"
                )
                self._has_queue = True
            cursor.execute(f"INSERT INTO {self._queue} {select}", values)
            self._position += count

    def drop_queue(self) -> None:
        """Forget the queued changes, all of which were answered and folded."""
        if self._has_queue:
            with self._members.using() as cursor:
                cursor.execute(f"DELETE FROM {self._queue}")

    def doubts(self, cohort: int, schema: str) -> Iterator[list[tuple[Action, Member]]]:
        """Yield the changes that earlier runs left unconfirmed and this run has not queued.

        `schema` has the tables to look into.
        """
        new = ""
        if self._has_queue:
            new = f" ANTI JOIN {self._queue} AS q ON q.cohort = d.cohort AND q.h = d.h"
        query = f"SELECT action, uid, anonymous_id FROM {schema}.doubts AS d{new} WHERE cohort = ?"
        rows = self._members.chunks(query, [cohort])
        return (
            [(_action(action), Member(uid, anonymous_id)) for action, uid, anonymous_id in chunk]
            for chunk in rows
        )


def _action(text: str) -> Action:
    return Action.REMOVE if text == REFUSED_DOUBT else Action(text)


def _rows(
    cohorts: Sequence[int], members: Sequence[Member], actions: Sequence[str] | None = None
) -> tuple[str, list[list[str]]]:
    one_cohort = len({*cohorts}) == 1
    anonymous_ids = [member.anonymous_id for member in members]
    values = anonymous_ids if any(anonymous_ids) else None
    return bound(
        [
            Column("cohort", "INTEGER", str(cohorts[0]), None if one_cohort else cohorts),
            Column("uid", "VARCHAR", "NULL", [member.uid for member in members]),
            Column("anonymous_id", "VARCHAR", "NULL::VARCHAR", values),
            Column("action", "VARCHAR", "NULL::VARCHAR", actions),
        ]
    )
