"""Streams whose members are not kept: the timestamps of their requests, and no doubts."""

from __future__ import annotations

import threading
import typing as t

import msgspec

from target_moengage_cohort.ledger.control.new_cohorts import check_owner
from target_moengage_cohort.ledger.records import RequestState

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Action, Cohort
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.records import CohortEntry

_AHEAD = 5_000  # milliseconds, so that few requests wait for a transaction


class MemberlessStream:
    """The latest timestamp of a stream's requests; for all threads.

    Control has one that no request exceeds. After a crash it is ahead of the latest request by some
    seconds, which delays no request: timestamps rise from there.
    """

    def __init__(self, control: Control, name: str) -> None:
        self._control = control
        self._name = name
        self._lock = threading.Lock()
        self.latest = self._reserved = control.fact(name, "last_timestamp") or 0
        self._in_flight = 0
        self._members: dict[int, tuple[Action, bytes]] = {}  # in flight, by cohort, if to be kept

    def open(self, cohort: Cohort, *, held: bool) -> MemberlessCohort:
        """Return one of its cohorts, created if it is new; see `LedgerStore.open`."""
        entry = self._control.entry(cohort.cohort_id)
        created = entry is None
        if entry is None:
            entry = self._control.new.add(cohort, self._name, held=held, is_partial=True)
        check_owner(entry, cohort, self._name)
        if entry.description != cohort.description and not self._control.database.read_only:
            entry = self._control.describe(entry, description=cohort.description)
        return MemberlessCohort(self, entry, created)

    def sent(self, cohort: int, action: Action, members: bytes, timestamp: int) -> None:
        """Record the timestamp of a request that is about to leave, and its cohort if it is new."""
        if self._control.changes.are_kept:
            self._members[cohort] = action, members
        with self._lock:
            self._control.write_new()
            if timestamp > self._reserved:
                self._reserved = timestamp + _AHEAD
                self._control.note_stream(self._name, last_timestamp=self._reserved)
            self.latest = max(self.latest, timestamp)
            self._in_flight += 1

    def answered(self, cohort: int, state: RequestState) -> None:
        """Count a request as answered."""
        if (sent := self._members.pop(cohort, None)) and state is RequestState.ACCEPTED:
            self._control.changes.add(cohort, *sent)
        with self._lock:
            self._in_flight -= 1

    @property
    def has_requests_in_flight(self) -> bool:
        """Whether any request of this run may still reach MoEngage."""
        return self._in_flight > 0

    def check_lease(self) -> None:
        """See `CohortLedger.check_lease`."""
        self._control.database.check_lease()

    def close(self) -> None:
        """Record the timestamp of the latest request."""
        if self._reserved != self.latest:
            self._control.note_stream(self._name, last_timestamp=self.latest)


class MemberlessCohort(msgspec.Struct, frozen=True):
    """The `CohortRecord` of a cohort whose members are not kept.

    Its requests leave no doubts. After a crash the tap sends their rows again, because no STATE
    that covers them was written.
    """

    stream: MemberlessStream
    entry: CohortEntry
    created: bool

    @property
    def last_timestamp(self) -> int:
        """The latest timestamp of its stream, in milliseconds; 0 if there was none."""
        return self.stream.latest

    def sent(self, action: Action, members: bytes, _count: int, timestamp: int) -> int:
        """Record the timestamp; see `CohortLedger.sent`."""
        self.stream.sent(self.entry.number, action, members, timestamp)
        return 0

    def check_lease(self) -> None:
        """See `CohortLedger.check_lease`."""
        self.stream.check_lease()

    def answered(self, _number: int, state: RequestState) -> None:
        """Record that it is no longer in flight, and its members if changes are kept."""
        self.stream.answered(self.entry.number, state)
