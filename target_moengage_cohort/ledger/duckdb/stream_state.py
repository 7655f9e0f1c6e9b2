"""A stream's requests in control and members in a file, without its single cohorts."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.cohort_record import RequestState
from target_moengage_cohort.ledger.control.plans import Plans
from target_moengage_cohort.ledger.control.requests import REFUSED_DOUBT, Requests
from target_moengage_cohort.ledger.duckdb import folding
from target_moengage_cohort.ledger.duckdb.lookups import Lookups
from target_moengage_cohort.ledger.records import RefusedDoubt

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.requests import JournaledRequest
    from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBCohortLedger
    from target_moengage_cohort.ledger.duckdb.members import Members

_MOST_UNFOLDED = 4_000_000
"""Members of requests in control beyond which `fold_if_large` folds."""


class StreamState:
    """The requests and the members of a stream, and the way from the ones to the others."""

    def __init__(self, name: str, control: Control, members: Members) -> None:
        self.name = name
        self.control = control
        self.table = members
        self.requests = Requests(control)
        self.plans = Plans(control)
        self.lookups = Lookups(members)
        self.by_number: dict[int, DuckDBCohortLedger] = {}
        self.read_only = control.database.read_only
        self._lock = threading.Lock()
        self._in_flight: dict[int, int] = {}  # requests and their members
        self._ended: set[int] = set()  # requests whose answers no longer matter
        self._is_shown = False  # whether the views are there, of a store that must not fold
        self._answered = 0  # members of the requests to fold
        self._has_answers = False

    # Requests; these methods are for all threads

    def send(self, cohort: int, action: Action, members: bytes, count: int, *latest: int) -> int:
        """Record a request that is about to leave; return its number."""
        number = self.requests.add(cohort, action, members, count, *latest)
        with self._lock:
            self._in_flight[number] = count
        return number

    def answer(self, number: int, state: RequestState) -> None:
        """Record a request's answer."""
        with self._lock:
            is_ours = number in self._in_flight
        if not is_ours:
            msg = f"the ledger of stream {self.name!r} has no pending request {number}; run again"
            raise LedgerError("unknown_request", msg)
        self.requests.answer(number, state)
        with self._lock:
            self._answered += self._in_flight.pop(number, 0)
            self._has_answers = True

    def end_requests(self) -> None:
        """See `LedgerStore.end_requests`."""
        with self._lock:
            self._has_answers |= bool(self._in_flight)
            self._ended.update(self._in_flight)
            self._in_flight.clear()

    def refuse_doubt(self, cohort: int, member: Member, *latest: int) -> RefusedDoubt | None:
        """Note that a member was refused alone, if an earlier run left it in doubt."""
        h = self.table.engine.hash_sql("uid", "anonymous_id")
        found = self.table.rows(
            f"SELECT d.action FROM {{s}}.doubts AS d JOIN (SELECT cohort, {h} AS h FROM (SELECT"
            " ?::INTEGER AS cohort, ?::VARCHAR AS uid, ?::VARCHAR AS anonymous_id))"
            " USING (cohort, h)",
            [cohort, member.uid, member.anonymous_id],
        )
        if not found:
            return None
        if found == [(REFUSED_DOUBT,)]:
            return RefusedDoubt.KNOWN
        self.requests.add_refused_doubt(cohort, member.encode(), *latest)
        with self._lock:
            self._answered += 1
            self._has_answers = True
        return RefusedDoubt.NEW

    # Folding

    @property
    def tables(self) -> str:
        """The schema of the tables accepted, doubts and removed, as if folded."""
        return self.table.folded if self._is_shown else self.table.schema

    def fold(self) -> None:
        """See `StreamLedger.fold`; a request in flight is the latest of its cohort."""
        if self.read_only or not self._has_answers:
            return
        with self._lock:
            self._has_answers, self._answered = False, 0
            ended = {*self._ended}
        # What is in flight is told from control alone: other threads send and answer meanwhile.
        journal = self.requests.of_stream(self.name)
        try:
            sent = RequestState.SENT
            self._fold([each for each in journal if each.state != sent or each.number in ended])
        except BaseException:
            self._has_answers = True
            raise

    def fold_if_large(self) -> None:
        """See `StreamLedger.fold_if_large`."""
        if self._answered >= _MOST_UNFOLDED:
            self.fold()

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

    # Plans

    def drop_plan(self, cohort: int, plan_id: str | None, *, ends_approvals: bool = False) -> None:
        """Delete a cohort's plans, or the one with an id; then its members. See `Plans.drop`."""
        self.plans.drop([(cohort, plan_id)], ends_approvals=ends_approvals)
        self.drop_plan_members([cohort], plan_id)

    def replace_plans(self, cohorts: Sequence[int]) -> None:
        """See `StreamLedger.replace_plans`."""
        if not self.read_only:
            for cohort, plan_id in self.plans.replace(cohorts):
                self.drop_plan_members([cohort], plan_id)

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

    def drop_plan_members(self, cohorts: Sequence[int], plan_id: str | None) -> None:
        """Delete the members of plans that control does not have."""
        chosen = "WHERE cohort IN (SELECT unnest(?::INTEGER[])) AND plan_id = coalesce(?, plan_id)"
        if self.table.rows(
            f"SELECT 1 FROM {{s}}.plan_members {chosen} LIMIT 1", [cohorts, plan_id]
        ):
            with self.table.change("drop plan members"):
                self.table.run(f"DELETE FROM {{s}}.plan_members {chosen}", [cohorts, plan_id])
