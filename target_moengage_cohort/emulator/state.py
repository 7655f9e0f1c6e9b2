"""The emulator without its sockets: requests, decisions, the log and the totals."""

from __future__ import annotations

import copy
import itertools
import threading
import typing as t
from collections import Counter, deque
from email.utils import formatdate
from hashlib import blake2b

from . import responses, rules
from .apis import Apis
from .faults import Faults
from .limits import RateLimit, RollingWindow
from .model import (
    CohortSummary,
    CohortSync,
    Incoming,
    Member,
    Refusal,
    Reply,
    RequestRecord,
    Totals,
)
from .registry import Registry
from .workspace import Key, Workspace

if t.TYPE_CHECKING:
    from .faults import FaultsView
    from .model import Fault
    from .options import Options

SERVER_ERROR = 500
_REASON_LENGTH = 200  # an error quotes the wrong value, which may be of any length


class State:
    """The state of one emulator. Its methods may be called from any thread.

    Args:
        options: The emulator's options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._changed = threading.Condition(threading.RLock())
        self.apis = Apis(options, self._changed)
        self.reset()

    def reset(self) -> None:
        """Clear everything: cohorts, log, totals, faults and the rate limit's window."""
        options = self.options
        with self._changed:
            self._faults = Faults()
            registry = Registry(options.max_cohorts, options.archive_seconds)
            self._workspace = Workspace(options, registry)
            self.apis.reset(self._workspace, registry)
            self._rate = RateLimit(options.requests_per_minute)
            self._arrivals = RollingWindow()
            self._log: deque[RequestRecord] = deque(maxlen=options.log_size)
            self._unanswered: dict[int, RequestRecord] = {}
            self._busy: Counter[Key] = Counter()
            self._answers: Counter[str] = Counter()
            self._requests = self._bytes = self._members = 0
            self._overlapped = self._most_unanswered = 0

    # Requests ----------------------------------------------------------------------------

    def receive(self, incoming: Incoming) -> Reply:
        """Process a request to the Cohort Sync API and return its answer.

        The change is applied now. The caller calls `answered` when the answer leaves.
        """
        with self._changed:
            now, wall = self.options.clock.monotonic(), self.options.clock.wall()
            record = self._enter(incoming, now, wall)
            refusal = rules.check_credentials(incoming, self.options)
            error = refusal or self._apply(incoming, record)
            self._changed.notify_all()
            headers = responses.JSON | self._rate.headers(now, wall) | self._date(wall)
            return self._reply(record, error, headers)

    def answered(self, record: RequestRecord | None, *, has_left: bool = False) -> None:
        """Record that the answer to a request leaves now.

        Args:
            record: The request's entry in the log, from its reply.
            has_left: Whether the client had closed the connection before.
        """
        with self._changed:
            if record is None or self._unanswered.get(record.number) is not record:
                return
            del self._unanswered[record.number]
            record.answered = self.options.clock.monotonic()
            if has_left:
                record.status = None
            if record.partner is not None and record.cohort_id is not None:
                self._busy[record.partner, record.cohort_id] -= 1
            self._answers[str(record.status or "none")] += 1
            self._changed.notify_all()

    def log_in(self, incoming: Incoming) -> Reply:
        """Answer a request that only checks credentials; it is neither limited nor logged."""
        refusal = rules.check_login(incoming, self.options)
        headers = responses.JSON | self._date(self.options.clock.wall())
        if refusal is None:
            return Reply(None, 200, headers, responses.KNOWN)
        return Reply(None, refusal.status, headers, responses.failure(refusal, 0))

    @property
    def held(self) -> bool:
        """Whether answers are held back."""
        return self._faults.held

    # Queries -----------------------------------------------------------------------------

    def cohorts(self) -> list[CohortSummary]:
        """Return all cohorts, in the order of their creation."""
        with self._changed:
            return self._workspace.cohorts()

    def members(self, cohort_id: str, partner: str | None = None) -> t.Iterator[Member] | None:
        """Return the current members of a cohort in a stable order, or None if it does not exist.

        Args:
            cohort_id: The cohort.
            partner: Its partner; may be left out if only one uses the identifier.

        Raises:
            LookupError: If several partners have a cohort with this identifier.
        """
        with self._changed:
            cohort = self._workspace.find(cohort_id, partner)
            return cohort.snapshot() if cohort else None

    def users(self) -> dict[str, str]:
        """Return the uid of each anonymous id that was merged with one."""
        with self._changed:
            return dict(self._workspace.users)

    def requests(self, is_selected: t.Callable[[RequestRecord], bool]) -> list[RequestRecord]:
        """Copy the selected entries of the log, in order of arrival."""
        with self._changed:
            return [copy.copy(record) for record in self._log if is_selected(record)]

    def recent(
        self, count: int, is_selected: t.Callable[[RequestRecord], bool]
    ) -> list[RequestRecord]:
        """Copy at most `count` of the selected entries of the log, newest first."""
        with self._changed:
            selected = filter(is_selected, reversed(self._log))
            return [copy.copy(record) for record in itertools.islice(selected, count)]

    def used(self) -> int:
        """Return how many requests of the limit are used up now."""
        with self._changed:
            return self._rate.used(self.options.clock.monotonic())

    def totals(self) -> Totals:
        """Return the sums since the last reset."""
        with self._changed:
            cohorts = self._workspace.cohorts()
            return Totals(
                requests=self._requests,
                answers=dict(sorted(self._answers.items())),
                bytes=self._bytes,
                members_sent=self._members,
                members_held=sum(cohort.members for cohort in cohorts),
                cohorts=len(cohorts),
                late=sum(cohort.late for cohort in cohorts),
                overlapped=self._overlapped,
                most_unanswered=self._most_unanswered,
                largest_window=self._arrivals.largest,
            )

    def wait_until(self, reached: t.Callable[[Totals], bool], timeout: float) -> bool:
        """Block until the totals meet a condition.

        Args:
            reached: The condition; evaluated after every request and every answer.
            timeout: The longest wait in seconds of real time.

        Returns:
            Whether the condition was met in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: reached(self.totals()), timeout)

    def faults(self) -> FaultsView:
        """Return the current faults."""
        with self._changed:
            return self._faults.view()

    # Control -----------------------------------------------------------------------------

    def change_faults(self, change: t.Callable[[Faults], None]) -> None:
        """Change the faults."""
        with self._changed:
            change(self._faults)

    def use_up(self, count: int) -> int:
        """Simulate requests of the workspace's other integrations.

        Returns:
            How many of them were within the limit.
        """
        with self._changed:
            now = self.options.clock.monotonic()
            return sum(self._rate.admit(now) for _ in range(count))

    def apply_late(self, cohort_id: str | None = None, partner: str | None = None) -> int:
        """Apply the changes that are held back, and return their number."""
        with self._changed:
            return self._workspace.apply_late(cohort_id, partner)

    # Decisions ---------------------------------------------------------------------------

    def _enter(self, incoming: Incoming, now: float, wall: float) -> RequestRecord:
        self._requests += 1
        self._bytes += incoming.size
        self._arrivals.add(now)
        digest = blake2b(incoming.body, digest_size=16).hexdigest()
        record = RequestRecord(self._requests, wall, now, incoming.size, digest)
        self._log.append(record)
        self._unanswered[record.number] = record
        self._most_unanswered = max(self._most_unanswered, len(self._unanswered))
        return record

    def _apply(self, incoming: Incoming, record: RequestRecord) -> Refusal | Fault | None:
        """Apply the change of an authenticated request, or return why it fails."""
        sync = rules.parse_sync(incoming, self.options.max_payload_bytes)
        if isinstance(sync, CohortSync):
            self._describe(record, sync)
        if not self._rate.admit(record.arrived):
            return rules.RATE_EXCEEDED
        fault = self._faults.next(record.cohort_id)
        refusal = sync if isinstance(sync, Refusal) else self._faults.poisoned(sync)
        if fault is None and refusal is not None:
            record.fault = None if refusal is sync else "poison"
            return refusal
        if isinstance(sync, CohortSync) and refusal is None:
            failed = fault is not None and (fault.status or 0) >= SERVER_ERROR
            if fault is None or fault.applied or (failed and self.options.late_after):
                arrived = int(record.arrived_at * 1_000_000)
                lost = fault is not None and (failed or fault.status is None)
                self._workspace.receive(sync, arrived, record, cut_off=lost)
        return fault

    def _describe(self, record: RequestRecord, sync: CohortSync) -> None:
        record.action = sync.action
        record.partner = sync.partner
        record.cohort_id = sync.cohort_id
        record.cohort_name = sync.cohort_name
        record.timestamp = sync.timestamp
        record.members = sync.members
        self._members += sync.members
        key = (sync.partner, sync.cohort_id)
        record.overlapped = self._busy[key] > 0
        self._overlapped += record.overlapped
        self._busy[key] += 1

    def _reply(
        self, record: RequestRecord, error: Refusal | Fault | None, headers: dict[str, str]
    ) -> Reply:
        delay = self._faults.delay()
        if error is None:
            record.status = 200
            return Reply(record, 200, headers, responses.ACCEPTED, delay)
        record.status = error.status
        if isinstance(error, Refusal):
            record.error_type = error.type
            record.reason = None if record.fault else error.message[:_REASON_LENGTH]
            body = responses.failure(error, record.number)
            return Reply(record, error.status, headers, body, delay)
        record.fault = error.kind
        if error.status is None:
            return Reply(record, None, {}, b"", delay)
        refusal = responses.refusal_of(error, error.status)
        record.error_type = refusal.type
        injected = error.body
        body = responses.failure(refusal, record.number) if injected is None else injected.encode()
        headers |= {name.lower(): value for name, value in error.headers.items()}
        return Reply(record, error.status, headers, body, delay)

    @staticmethod
    def _date(wall: float) -> dict[str, str]:
        return {"date": formatdate(wall, usegmt=True)}
