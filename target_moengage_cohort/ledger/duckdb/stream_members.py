"""Lookups of a stream's members, for the modes that send single changes, and changes of them."""

from __future__ import annotations

import contextlib
import itertools
import typing as t

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.control.requests import REFUSED_DOUBT
from target_moengage_cohort.ledger.duckdb import folding
from target_moengage_cohort.ledger.duckdb.binding import Column, bound, bound_members
from target_moengage_cohort.ledger.records import Expected, RefusedDoubt
from target_moengage_cohort.ledger.stream_ledger import StreamLedger

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.core.membership import Key
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.requests import JournaledRequest
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.snapshot import CohortMembers
    from target_moengage_cohort.ledger.stream_ledger import NumberedChange, NumberedKey

_GONE = f"'{Action.REMOVE.value}', NULL, NULL"


class StreamMembers(StreamLedger):
    """The part of a `StreamLedger` that knows members, but no plans and comparisons.

    Attributes:
        table: The tables of the members.
        queue: The table of the changes that this run has queued; "" if there are none.
    """

    def __init__(self, name: str, control: Control, members: Members) -> None:
        super().__init__(name, control)
        self.table = members
        self.queue = ""
        self._position = 0  # in the queue
        self._is_shown = False  # whether the views are there, of a store that must not fold

    @property
    def tables(self) -> str:
        """The schema of the tables accepted, doubts, removed and aliases, as if folded."""
        return self.table.folded if self._is_shown else self.table.schema

    def refuse_doubt(self, cohort: int, member: Member, *latest: int) -> RefusedDoubt | None:
        """See `StreamLedger.refuse_doubt`."""
        h = self.table.engine.hash_sql("uid", "anonymous_id")
        key = (
            f"SELECT cohort, {h} AS h FROM (SELECT ?::INTEGER AS cohort, ?::VARCHAR AS uid,"
            " ?::VARCHAR AS anonymous_id)"
        )
        values = [cohort, member.uid, member.anonymous_id]
        with self.table.sparing():
            self.table.fetch(key, values)
            found = self.table.rows(
                f"SELECT d.action FROM {{s}}.doubts AS d JOIN ({key})"
                f" USING (cohort, h) WHERE d.action <> '{Action.ADD.value}' OR NOT EXISTS"
                # An addition that is sent again, of an accepted member, was not one of these.
                " (SELECT 1 FROM {s}.accepted AS a WHERE a.cohort = d.cohort AND a.h = d.h)",
                values,
            )
        if not found:
            return None
        if found == [(REFUSED_DOUBT,)]:
            return RefusedDoubt.KNOWN
        self.requests.add_refused_doubt(cohort, member.encode(), *latest)
        return RefusedDoubt.NEW

    # Looking up; for the reader's thread

    def known(
        self, cohorts: Sequence[int], members: Sequence[Member]
    ) -> dict[NumberedKey, Expected]:
        """See `StreamLedger.known`.

        All that was requested since the tables were folded last was queued before, so with a queue
        they need not be as if folded.
        """
        found = self._look_up(*bound_members(members, cohorts), "cohort, h")
        return {(cohort, members[i].key): expected for i, cohort, expected in found}

    def known_anywhere(self, members: Sequence[Member]) -> Iterator[tuple[int, Key, Expected]]:
        """See `StreamLedger.known_anywhere`."""
        for i, cohort, expected in self._look_up(*bound_members(members), "h"):
            yield cohort, members[i].key, expected

    def _look_up(
        self, source: str, values: Sequence[object], keys: str
    ) -> Iterator[tuple[int, int, Expected]]:
        """Yield position, cohort and what is expected of members; later ones win."""
        schema = self.tables
        # An alias is not a member of its own, even if it is still accepted as the one that it was;
        # but then it moves with its uid. The removal of it may be that of its uid.
        aliases = {f"{schema}.aliases": _GONE}
        accepted = {f"{schema}.accepted": f"'{Action.ADD.value}', t.uid, t.anonymous_id"}
        sources = {
            f"{schema}.removed": _GONE,
            **(aliases | accepted if keys == "h" else accepted | aliases),
            f"{schema}.doubts": "NULL, t.uid, t.anonymous_id",
        }
        if self.queue:
            sources[self.queue] = "t.action, t.uid, t.anonymous_id"
        found = []
        with self.table.sparing(), self.table.using() as cursor:
            h = self.table.engine.hash_sql("uid", "anonymous_id")
            columns = f"cohort, {h} AS h, uid, anonymous_id, row_number() OVER () - 1 AS i"
            asked = f"SELECT {columns} FROM {source}"
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE asked AS {asked}", values)
            self.table.fetch("SELECT h FROM asked")
            for table, columns in sources.items():
                order = " ORDER BY position" if table == self.queue else ""
                matches = f"FROM {table} AS t JOIN asked USING ({keys})"
                cursor.execute(f"SELECT i, t.cohort, {columns} {matches}{order}")
                found.append(cursor.fetchall())
        for i, cohort, action, uid, anonymous_id in itertools.chain.from_iterable(found):
            is_known = uid is not None or anonymous_id is not None
            member = Member(uid, anonymous_id) if is_known else None
            yield i, cohort, Expected(action and Action(action), member)

    def elsewhere(self) -> list[int]:
        """See `StreamLedger.elsewhere`."""
        accepted = f"{self.tables}.accepted"
        new = f"SELECT i, h FROM asked ANTI JOIN {accepted} USING (cohort, h)"
        with self.table.sparing():
            rows = self.table.rows(f"SELECT i FROM ({new}) SEMI JOIN {accepted} USING (h)")
        return [i for (i,) in rows]

    def queued(self, changes: Sequence[NumberedChange]) -> None:
        """See `StreamLedger.queued`."""
        source, values = bound_members(
            [member for _, _, member in changes],
            [cohort for cohort, _, _ in changes],
            [action.value for _, action, _ in changes],
        )
        h = self.table.engine.hash_sql("uid", "anonymous_id")
        columns = f"{self._position} + row_number() OVER (), cohort, {h}, uid, anonymous_id, action"
        self._insert(f"SELECT {columns} FROM {source}", values, len(changes))

    def queue_known(self, actions: Sequence[Action]) -> None:
        """See `StreamLedger.queue_known`."""
        is_one = len({*actions}) == 1
        values = None if is_one else [action.value for action in actions]
        source, bindings = bound([Column("action", "VARCHAR", f"'{actions[0].value}'", values)])
        joined = "CROSS JOIN" if is_one else "POSITIONAL JOIN"
        columns = f"{self._position} + i, cohort, h, uid, anonymous_id, action"
        self._insert(f"SELECT {columns} FROM asked {joined} {source}", bindings, len(actions))

    def _insert(self, select: str, values: Sequence[object], count: int) -> None:
        """Insert rows into the queue, which later rows follow."""
        with self.table.sparing(), self.table.using() as cursor:
            if not self.queue:
                self.queue = f"memory.q{self.table.name}"
                cursor.execute(
                    f"CREATE TABLE {self.queue} (position BIGINT, cohort INTEGER, h UHUGEINT,"
                    " uid VARCHAR, anonymous_id VARCHAR, action VARCHAR)"
                )
            cursor.execute(f"INSERT INTO {self.queue} {select}", values)
            self._position += count

    # Changing

    def _fold(self, journal: Sequence[JournaledRequest]) -> None:
        for number, folded in folding.fold(self.table, self.requests, journal).items():
            self.by_number[number].note_folded(folded)

    @contextlib.contextmanager
    def changing(self, name: str, cohorts: Sequence[int]) -> Iterator[None]:
        """Change the members of some cohorts without a request, in one transaction.

        As for requests, control knows that the file may be ahead until the numbers are the same.
        """
        marks = self.requests.add_marks(cohorts)
        with self.table.change(name):
            yield
            folded = self.table.write_marks(marks)
        self.requests.note_folded(folded)
        for each in folded:
            ledger = self.by_number[each.number]
            ledger.note_folded(each)
            ledger.revision += 1

    def doubt(
        self, cohorts: Sequence[int], members: str = "", values: Sequence[object] = ()
    ) -> None:
        """Mark the accepted members of cohorts as unconfirmed, unless they are already.

        `members` is SQL for the cohort and the hash of those that are meant, in place of all.
        """
        chosen = "WHERE cohort IN (SELECT unnest(?::INTEGER[]))"
        with self.changing("doubt", cohorts):
            chosen += f") SEMI JOIN ({members}) USING (cohort, h" if members else ""
            self.table.run(
                "INSERT INTO {s}.doubts SELECT cohort, h, uid, anonymous_id,"
                f" '{Action.ADD.value}' FROM (FROM {{s}}.accepted {chosen})"
                " ANTI JOIN {s}.doubts USING (cohort, h)",
                [cohorts, *values],
            )

    # Approvals

    def end_spent_approvals(self) -> None:
        """Delete the approvals of which no member is left.

        A run or a command that was killed had used them, and not noted that yet. Otherwise they
        would allow the same removals again once the members are back.
        """
        if not (approved := self.plans.approved([*self.by_number])):
            return
        present = " UNION ALL ".join(
            f"SELECT cohort, h FROM {{s}}.{table}" for table in ("accepted", "doubts", "aliases")
        )
        query = f"SELECT DISTINCT cohort FROM ({self.removals_sql(approved)}) SEMI JOIN ({present})"
        left = {cohort for (cohort,) in self.table.rows(f"{query} USING (cohort, h)")}
        for cohort in approved.keys() - left:
            self.drop_plan(cohort, approved[cohort])

    def removals_sql(self, plans: Mapping[int, str]) -> str:
        """Return SQL for cohort and hash of the removals of plans, by their cohorts."""
        if not plans:
            return ""
        h = self.table.engine.hash_sql("uid", "anonymous_id")
        chosen = ", ".join(f"({cohort}, '{plan_id}')" for cohort, plan_id in plans.items())
        return (
            f"SELECT cohort, {h} AS h FROM {self.table.schema}.plan_members WHERE action ="
            f" '{Action.REMOVE.value}' AND (cohort, plan_id) IN ({chosen})"
        )

    # Aliases. MoEngage may have merged an anonymous member and a uid that it has seen together, or
    # not: so an alias is removed as a member of its own, and its uid is sent again afterwards.

    def has_aliases(self) -> bool:
        """See `StreamLedger.has_aliases`."""
        with self.table.sparing():
            return bool(self.table.rows(f"SELECT 1 FROM {self.tables}.aliases LIMIT 1"))

    def link(self, cohorts: Sequence[int], members: str) -> None:
        """Turn the anonymous members in a table into aliases of the uids accepted with their ids.

        Where that was accepted since the last fold, folding has done so.
        """
        table = self.table
        with self.changing("link", cohorts):
            table.run(
                "CREATE OR REPLACE TEMP TABLE owned AS SELECT m.cohort, m.h, a.uid, m.anonymous_id"
                f" FROM {members} AS m JOIN {{s}}.accepted AS a ON a.cohort = m.cohort"
                " AND a.anonymous_id = m.anonymous_id AND a.uid IS NOT NULL"
            )
            others = "ANTI JOIN {s}.aliases USING (cohort, h, uid)"
            table.run(f"INSERT INTO {{s}}.aliases FROM owned {others}")
            for name in ("accepted", "doubts"):
                same = "o.cohort = old.cohort AND o.h = old.h"
                table.run(f"DELETE FROM {{s}}.{name} AS old USING owned AS o WHERE {same}")

    def stale_aliases(self) -> tuple[list[int], Iterator[CohortMembers]]:
        """See `StreamLedger.stale_aliases`."""
        self.fold()
        schema, found = self.tables, f"memory.stale_{self.table.name}"
        # An alias that is accepted was added before its uid; one in doubt was added afterwards.
        counted = f"SELECT DISTINCT cohort FROM {schema}.accepted SEMI JOIN {schema}.aliases"
        twice = [number for (number,) in self.table.rows(f"{counted} USING (cohort, h)")]
        if twice and not self.read_only:
            with self.changing("link", twice):
                same = "l.cohort = old.cohort AND l.h = old.h"
                self.table.run(
                    f"DELETE FROM {{s}}.accepted AS old USING {{s}}.aliases AS l WHERE {same}"
                )
        live = (
            f"SELECT cohort, anonymous_id FROM {schema}.accepted WHERE uid IS NOT NULL"
            f" UNION ALL SELECT cohort, anonymous_id FROM {schema}.doubts"
            f" WHERE action = '{Action.ADD.value}'"
        )
        aliases = f"FROM {schema}.aliases"
        chosen = f"SELECT DISTINCT cohort, h, anonymous_id {aliases} ANTI JOIN ({live})"
        self.table.rows(f"CREATE OR REPLACE TABLE {found} AS {chosen} USING (cohort, anonymous_id)")
        numbers = [number for (number,) in self.table.rows(f"SELECT DISTINCT cohort FROM {found}")]
        if numbers and not self.read_only:
            if self.queue:  # all of it was answered and folded; else it would hide the doubts
                self.table.rows(f"DELETE FROM {self.queue}")
            h = self.table.engine.hash_sql("uid", "NULL::VARCHAR")
            owners = f"SELECT cohort, {h} AS h {aliases} SEMI JOIN {found} USING (cohort, h)"
            # An anonymous member of its own comes after a uid with its id again.
            h = self.table.engine.hash_sql("NULL::VARCHAR", "anonymous_id")
            ids = f"FROM {schema}.accepted SEMI JOIN ({owners}) USING (cohort, h)"
            self.doubt(numbers, f"{owners} UNION ALL SELECT cohort, {h} AS h {ids}")
        chunks = self.table.chunks(f"SELECT cohort, anonymous_id FROM {found} ORDER BY cohort")
        return numbers, (
            (cohort, [Member(None, anonymous_id) for _, anonymous_id in rows])
            for chunk in chunks
            for cohort, rows in itertools.groupby(chunk, lambda row: row[0])
        )
