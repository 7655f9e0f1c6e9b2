"""Which cohort is next: the lanes of all cohorts, each a queue of one cohort's requests; pure.

Lanes take turns. A lane queues when it has a closed body, or when an open one has waited for
`flush_seconds`. A claimed lane does not queue before it is released, so the requests of one cohort
leave one after the other. Memory is bounded by closing open bodies, the largest first.
"""

from __future__ import annotations

import heapq
import itertools
import typing as t
from collections import deque

import msgspec

from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.delivery.packing import Body, Budget, CohortBuffer
from target_moengage_cohort.delivery.ports import CohortCounts
from target_moengage_cohort.moengage.cohort_sync import Envelope

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Change, Cohort
    from target_moengage_cohort.settings import Settings

OPEN_WEIGHT_LIMIT = 96 << 20


class Lane(msgspec.Struct, eq=False):
    """One cohort's queue of requests, and the counts of those that left it."""

    cohort: Cohort
    counts: CohortCounts = msgspec.field(default_factory=CohortCounts)
    refused: int = 0  # requests that MoEngage has refused for their content
    buffer: CohortBuffer | None = None  # only while changes wait or are under way
    has_failed: bool = False  # whether its changes are dropped
    claimed: bool = False  # whether a sender has the lane
    taken: bool = False  # whether that sender has taken a body
    queued: bool = False  # whether the lane waits for a sender
    scheduled: bool = False  # whether it is known when its open bodies will have waited long enough
    last_timestamp: int = 0  # the latest request's, in milliseconds since 1970

    @property
    def has_accepted(self) -> bool:
        """Whether any request of this run was accepted."""
        return self.counts.added > 0 or self.counts.removed > 0

    @property
    def doubted(self) -> int:
        """Number of waiting members that a refused request has left unconfirmed."""
        closed = () if self.buffer is None else self.buffer.closed
        return sum(body.count for body in closed if body.is_doubted)


class Request(msgspec.Struct, eq=False):
    """A body that left its lane; ``data`` and its timestamp are the same at every attempt."""

    lane: Lane
    body: Body
    data: bytes
    is_doubted: bool  # whether an attempt, or one of a request that had its members, may be applied

    def doubted_body(self) -> Body:
        """Return the body, so that parts of it are doubted if this request is."""
        return msgspec.structs.replace(self.body, is_doubted=self.is_doubted)


class Lanes:
    """The lanes of all cohorts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.by_id: dict[str, Lane] = {}  # by the cohort's id
        self.budget = Budget(settings.max_payload_bytes)
        self._active: set[Lane] = set()
        self._ready: deque[Lane] = deque()
        self._due: list[tuple[float, int, Lane]] = []
        self._serial = itertools.count()

    @property
    def backlog(self) -> int:
        """Approximate number of requests that the waiting changes take."""
        return len(self._active) + self.budget.closed_weight // self.budget.limit

    def put(self, change: Change, epoch: int, now: float) -> bool:
        """Add a change; see `CohortBuffer.put`."""
        cohort = change.cohort
        lane = self.by_id.get(cohort.cohort_id)
        if lane is None:
            lane = self.by_id[cohort.cohort_id] = Lane(cohort)
        if lane.has_failed:
            return False
        buffer = lane.buffer
        if buffer is None:
            envelope = Envelope(cohort, self._settings.partner, self._settings.send_timestamp)
            buffer = lane.buffer = CohortBuffer(envelope, self.budget)
            self._active.add(lane)
        new = buffer.put(change, epoch, now)
        if not new:
            lane.counts.merged += 1
        if buffer.closed:
            self._enqueue(lane)
        if not lane.scheduled:
            self._schedule(lane)
        return new

    def relieve(self) -> None:
        """If open bodies take too much memory, close the largest until half of it is free."""
        if self.budget.open_weight <= OPEN_WEIGHT_LIMIT:
            return
        weights = {lane: lane.buffer.open_weight for lane in self._active if lane.buffer}
        for lane in sorted(weights, key=weights.__getitem__, reverse=True):
            if self.budget.open_weight <= OPEN_WEIGHT_LIMIT // 2:
                break
            self._close(lane)

    def close_all(self) -> None:
        """Close every open body, so that all of them leave as soon as possible."""
        for lane in self._active:
            self._close(lane)

    def close(self, cohort_id: str) -> None:
        """Close the open bodies of one cohort, so that they leave as soon as possible."""
        if (lane := self.by_id.get(cohort_id)) is not None:
            self._close(lane)

    def fail(self, lane: Lane) -> list[int]:
        """Drop the changes of a claimed lane, and all that come; return the records' epochs."""
        lane.has_failed = True
        return t.cast("CohortBuffer", lane.buffer).clear()

    def claim(self, now: float) -> Lane | None:
        """Claim and return the next lane; ``None`` if no lane has a body that may leave."""
        while (due := self.due_at()) is not None and due <= now:
            opened_at, _, lane = heapq.heappop(self._due)
            lane.scheduled = False
            if lane.buffer is not None and lane.buffer.opened_at == opened_at:
                self._enqueue(lane)
            else:
                self._schedule(lane)
        if not self._ready:
            return None
        lane = self._ready.popleft()
        lane.queued = False
        lane.claimed = True
        return lane

    def due_at(self) -> float | None:
        """Return when the next open body may have waited long enough, or ``None``."""
        return self._due[0][0] + self._settings.flush_seconds if self._due else None

    def take(self, lane: Lane, now: float, milliseconds: int) -> Request:
        """Remove a claimed lane's next body, and return it as a request.

        Its timestamp rises even if ``milliseconds``, the time since 1970, does not.
        """
        buffer = t.cast("CohortBuffer", lane.buffer)
        body = t.cast("Body", buffer.take(now - self._settings.flush_seconds))
        lane.taken = True
        lane.last_timestamp = max(milliseconds, lane.last_timestamp + 1)
        timestamp = iso_utc(lane.last_timestamp / 1000)
        data = buffer.envelope.body(body.action, timestamp, body.members)
        return Request(lane, body, data, body.is_doubted)

    def release(self, lane: Lane) -> None:
        """Queue a lane that is no longer being served, if it still has changes."""
        lane.claimed = lane.taken = False
        buffer = t.cast("CohortBuffer", lane.buffer)
        if buffer.is_empty:
            lane.buffer = None
            self._active.discard(lane)
            return
        if buffer.closed:
            self._enqueue(lane)
        if not lane.scheduled:
            self._schedule(lane)

    def lower_limit(self, request: Request) -> bool:
        """Take back a request that was too large; return whether this lowers the limit.

        It does not if the request was built before the limit was last lowered.
        """
        t.cast("CohortBuffer", request.lane.buffer).put_back(request.doubted_body())
        if len(request.data) > self.budget.limit:
            return False
        self.budget.limit = len(request.data) * 3 // 4
        return True

    def _close(self, lane: Lane) -> None:
        if lane.buffer is not None:
            lane.buffer.close_all()
            self._enqueue(lane)

    def _enqueue(self, lane: Lane) -> None:
        """Queue a lane that has a body to send, unless it is queued or claimed."""
        if not (lane.queued or lane.claimed):
            lane.queued = True
            self._ready.append(lane)

    def _schedule(self, lane: Lane) -> None:
        """Record when a lane's open bodies will have waited long enough."""
        if lane.buffer is not None and (opened_at := lane.buffer.opened_at) is not None:
            lane.scheduled = True
            heapq.heappush(self._due, (opened_at, next(self._serial), lane))
