"""The unconfirmed requests: each is one row with its members until it is folded in."""

from __future__ import annotations

import threading
import typing as t

import msgspec

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.records import RequestState

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Action
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.records import FoldedCohort

_FETCHED = 64  # requests of up to 128 KB


REFUSED_DOUBT = "remove_refused"
"""The action of an unconfirmed member that was refused alone: remove it; it was reported."""

_NEXT = "UPDATE store SET last_request = last_request + ? RETURNING last_request"
_INSERT = (
    "INSERT INTO requests (number, cohort, state, action, count, members) VALUES (?, ?, ?, ?, ?, ?)"
)


class JournaledRequest(msgspec.Struct, frozen=True):
    """A request that is not folded yet, without its members."""

    number: int
    cohort: int
    state: str
    action: str
    count: int


class Requests:
    """The requests of a stream's cohorts; for all threads.

    Attributes:
        answered_members: The members of the requests that `journal_to_fold` has not returned.
    """

    def __init__(self, control: Control, stream: str) -> None:
        self._control = control
        self._database = control.database
        self._stream = stream
        self._lock = threading.Lock()
        self._in_flight: dict[int, int] = {}  # requests and their members
        self._ended: set[int] = set()  # requests whose answers no longer matter
        self.answered_members = 0
        self.are_to_fold = False

    def add(self, cohort: int, action: Action, members: bytes, count: int, *latest: int) -> int:
        """Record a request that is about to leave; return its number, which is never reused.

        `members` is a JSON array; `latest` are the cohort's timestamp and revision from now on.
        """
        number = self._insert(RequestState.SENT, cohort, action.value, members, count, *latest)
        with self._lock:
            self._in_flight[number] = count
        return number

    def add_refused_doubt(self, cohort: int, member: bytes, *latest: int) -> None:
        """Record that an unconfirmed member was refused alone, as a request that gets no answer."""
        members = b"[%b]" % member
        self._insert(RequestState.UNANSWERED, cohort, REFUSED_DOUBT, members, 1, *latest)
        with self._lock:
            self.answered_members += 1
            self.are_to_fold = True

    def _insert(
        self,
        state: RequestState,
        cohort: int,
        action: str,
        members: bytes,
        count: int,
        *latest: int,
    ) -> int:
        with self._database.change(state.name.lower()) as transaction:
            self._control.write_new(transaction)
            ((number,),) = transaction.run(_NEXT, [1])
            values = [number, cohort, state, action, count, members.decode()]
            transaction.run(_INSERT, values)
            query = "UPDATE cohorts SET last_timestamp = ?, revision = ? WHERE number = ?"
            transaction.run(query, [*latest, cohort])
        self._control.note_committed(request=number)
        return int(number)

    def add_marks(self, cohorts: Sequence[int]) -> dict[int, int]:
        """Record that the members of cohorts are about to change without a request.

        Return a number for each, to be the mark of the members' file once they are changed.
        """
        with self._database.change("mark") as transaction:
            self._control.write_new(transaction)
            ((last,),) = transaction.run(_NEXT, [len(cohorts)])
            numbers = dict(zip(cohorts, range(last - len(cohorts) + 1, last + 1), strict=True))
            state = RequestState.REFUSED
            rows = [(number, cohort, state, "", 0, "[]") for cohort, number in numbers.items()]
            transaction.run_many(_INSERT, rows)
            transaction.run_many(
                "UPDATE cohorts SET revision = revision + 1 WHERE number = ?",
                [(cohort,) for cohort in cohorts],
            )
        self._control.note_committed(request=last)
        return numbers

    def answer(self, number: int, state: RequestState) -> None:
        """Record the answer of a request in flight."""
        msg = f"the ledger {self._database.place} has no pending request {number}; run again"
        unknown = LedgerError("unknown_request", msg)
        with self._lock:
            if number not in self._in_flight:
                raise unknown
        with self._database.change(state.name.lower()) as transaction:
            if not transaction.run(
                "UPDATE requests SET state = ? WHERE number = ? AND state = ? RETURNING number",
                [state, number, RequestState.SENT],
            ):
                raise unknown
            if state is RequestState.ACCEPTED:
                self._control.changes.add_request(transaction, number)
        with self._lock:
            self.answered_members += self._in_flight.pop(number, 0)
            self.are_to_fold = True

    @property
    def are_in_flight(self) -> bool:
        """Whether any was not answered before the end, or has not been yet."""
        return bool(self._in_flight or self._ended)

    def end(self) -> None:
        """Count the requests in flight as unanswered."""
        with self._lock:
            self.are_to_fold |= bool(self._in_flight)
            self._ended.update(self._in_flight)
            self._in_flight.clear()

    def journal_to_fold(self) -> list[JournaledRequest]:
        """Return all requests but those in flight, each of which is the latest of its cohort."""
        with self._lock:
            self.are_to_fold, self.answered_members = False, 0
            ended = {*self._ended}
        # What is in flight is known from control alone: other threads send and answer meanwhile.
        sent = RequestState.SENT
        return [each for each in self.journal() if each.state != sent or each.number in ended]

    def journal(self) -> list[JournaledRequest]:
        """Return the requests in their order."""
        query = (
            "SELECT r.number, r.cohort, r.state, r.action, r.count FROM requests r"
            " JOIN cohorts c ON c.number = r.cohort WHERE c.partner = ? AND c.stream = ?"
            " ORDER BY r.number"
        )
        rows = self._database.rows(query, [self._control.partner, self._stream])
        return [JournaledRequest(*row) for row in rows]

    def members(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], list[str]]]:
        """Yield the members of requests, as JSON arrays with the requests' numbers."""
        for start in range(0, len(numbers), _FETCHED):
            some = numbers[start : start + _FETCHED]
            marks = ", ".join("?" * len(some))
            query = f"SELECT number, members FROM requests WHERE number IN ({marks})"
            rows = self._database.rows(query, some)
            yield [number for number, _ in rows], [members for _, members in rows]

    def note_folded(self, cohorts: Sequence[FoldedCohort]) -> None:
        """Record that the members' file has the requests up to each cohort's mark."""
        with self._database.change("folded") as transaction:
            transaction.run_many(
                "UPDATE cohorts SET mark = ?, accepted = ?, digest = ?, in_doubt = ?, base = ?"
                " WHERE number = ?",
                [(*each.row, each.number) for each in cohorts],
            )
            transaction.run_many(
                "DELETE FROM requests WHERE cohort = ? AND number <= ?",
                [(each.number, each.mark) for each in cohorts],
            )
