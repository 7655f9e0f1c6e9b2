"""Whose turn it is: the lanes of all cohorts, each one cohort's way to MoEngage; pure.

Lanes take turns: one gets in line when it has a closed body, or when an open one has waited for
`flush_seconds`. A lane that was claimed is out of the game until it is released, so that the
requests of one cohort go one after the other. Memory is bounded by closing open bodies, the
largest first.
"""

from __future__ import annotations

import heapq
import itertools
import typing as t
from collections import deque
from contextlib import contextmanager

import msgspec

from target_moengage_cohort.delivery.packing import Body, CohortBuffer, Envelope, iso_timestamp

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.membership import Change, Cohort
    from target_moengage_cohort.settings import Settings

OPEN_WEIGHT_LIMIT = 96 << 20


class Lane:
    """One cohort's way to MoEngage, and what went along it.

    Attributes:
        cohort: The cohort.
        added: Members whose addition was accepted.
        removed: Members whose removal was accepted.
        merged: Changes that a later one of the same member replaced before it left.
        in_doubt: Members of requests that were sent, but that nobody knows the answer to.
        rejected: Members whom MoEngage has refused alone.
        refused: Requests that MoEngage has refused for their content.
        requests: Requests started.
        bytes: Bytes of their bodies.
        buffer: What waits; ``None`` while nothing waits or is under way.
        known: Whether an earlier run has left a ledger of it.
        claimed: Whether a sender has it.
        taken: Whether that sender has taken a body.
        last_timestamp: The latest request's, in milliseconds since 1970.
    """

    __slots__ = (
        "added",
        "buffer",
        "bytes",
        "claimed",
        "cohort",
        "in_doubt",
        "known",
        "last_timestamp",
        "merged",
        "queued",
        "refused",
        "rejected",
        "removed",
        "requests",
        "scheduled",
        "taken",
    )

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.added = self.removed = self.merged = 0
        self.in_doubt = self.requests = self.bytes = 0
        self.rejected = self.refused = 0
        self.buffer: CohortBuffer | None = None
        self.known = self.claimed = self.taken = self.queued = self.scheduled = False
        self.last_timestamp = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return self.buffer is None


class Request(msgspec.Struct, frozen=True, eq=False):
    """A body on its way; ``data`` is the same at every attempt, its timestamp included."""

    lane: Lane
    body: Body
    data: bytes


class Lanes:
    """The lanes of all cohorts.

    Attributes:
        by_id: Every cohort's lane, by its id.
        limit: The largest body, in bytes; see `lower_limit`.
        closed_weight: About how many bytes of memory the closed bodies take.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.by_id: dict[str, Lane] = {}
        self.limit = settings.max_payload_bytes
        self.closed_weight = 0
        self._open_weight = 0
        self._active: set[Lane] = set()
        self._ready: deque[Lane] = deque()
        self._due: list[tuple[float, int, Lane]] = []
        self._serial = itertools.count()

    @property
    def backlog(self) -> int:
        """About how many requests it takes to send what waits."""
        return len(self._active) + self.closed_weight // self.limit

    def put(self, change: Change, epoch: int, now: float) -> bool:
        """Take a change; see `CohortBuffer.put`."""
        cohort = change.cohort
        lane = self.by_id.get(cohort.cohort_id)
        if lane is None:
            lane = self.by_id[cohort.cohort_id] = Lane(cohort)
        buffer = lane.buffer
        if buffer is None:
            envelope = Envelope(cohort, self._settings.partner, self._settings.send_timestamp)
            buffer = lane.buffer = CohortBuffer(envelope, self.limit)
            self._active.add(lane)
        open_weight, closed_weight = buffer.open_weight, buffer.closed_weight
        new = buffer.put(change, epoch, now)
        if not new:
            lane.merged += 1
        self._open_weight += buffer.open_weight - open_weight
        if buffer.closed_weight != closed_weight:
            self.closed_weight += buffer.closed_weight - closed_weight
            self._enqueue(lane)
        if not lane.scheduled:
            self._schedule(lane)
        return new

    def relieve(self) -> None:
        """Where open bodies take too much memory, close the largest until half of it is free."""
        if self._open_weight <= OPEN_WEIGHT_LIMIT:
            return
        weights = {lane: lane.buffer.open_weight for lane in self._active if lane.buffer}
        for lane in sorted(weights, key=weights.__getitem__, reverse=True):
            if self._open_weight <= OPEN_WEIGHT_LIMIT // 2:
                break
            self._close(lane)

    def close_all(self) -> None:
        """Let everything leave as soon as it can: no more changes will join what waits."""
        for lane in self._active:
            self._close(lane)

    def close(self, cohort_id: str) -> None:
        """Let what waits for one cohort leave as soon as it can."""
        if (lane := self.by_id.get(cohort_id)) is not None:
            self._close(lane)

    def take_back(self, cohort_id: str) -> list[int]:
        """Drop the open changes of one cohort, unless they are all that a sender is to take.

        Returns:
            The epochs of their records.
        """
        lane = self.by_id.get(cohort_id)
        if lane is None or lane.buffer is None:
            return []
        waits_for_body = lane.queued or (lane.claimed and not lane.taken)
        if waits_for_body and not lane.buffer.has_closed:
            return []
        with self._weighed(lane.buffer):
            epochs = lane.buffer.take_back()
        if lane.buffer.is_empty and not lane.claimed:
            lane.buffer = None
            self._active.discard(lane)
        return epochs

    def claim(self, now: float) -> Lane | None:
        """Claim the lane whose turn it is, if it is any lane's."""
        while (due := self.due_at()) is not None and due <= now:
            opened_at, _, lane = heapq.heappop(self._due)
            lane.scheduled = False
            if lane.claimed or lane.queued or lane.buffer is None:
                continue  # its release schedules it again
            if lane.buffer.opened_at == opened_at:
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
        """When the next open body may have waited long enough, or ``None``."""
        return self._due[0][0] + self._settings.flush_seconds if self._due else None

    def take(self, lane: Lane, now: float, milliseconds: int) -> Request:
        """Take a claimed lane's next body, now that it may leave.

        Args:
            lane: The lane.
            now: The time on the clock of `put`.
            milliseconds: The time since 1970; the timestamp rises even where this does not.
        """
        buffer = t.cast("CohortBuffer", lane.buffer)
        with self._weighed(buffer):
            body = t.cast("Body", buffer.take(now - self._settings.flush_seconds))
        lane.taken = True
        lane.last_timestamp = max(milliseconds, lane.last_timestamp + 1)
        timestamp = iso_timestamp(lane.last_timestamp)
        return Request(lane, body, buffer.envelope.body(body.action, timestamp, body.members))

    def release(self, lane: Lane) -> None:
        """Let a claimed lane take its turn again, if it still holds anything."""
        lane.claimed = lane.taken = False
        if lane.buffer is not None and lane.buffer.is_empty:
            lane.buffer = None
            self._active.discard(lane)
            return
        if lane.buffer is not None and lane.buffer.has_closed:
            self._enqueue(lane)
        if not lane.scheduled:
            self._schedule(lane)

    def lower_limit(self, request: Request) -> bool:
        """Lower the limit after a request that was too large, and take its body back.

        What waits is split as it is taken.

        Returns:
            Whether the limit was lowered; not if the request was from before it was lowered.
        """
        lowered = len(request.data) <= self.limit
        if lowered:
            self.limit = len(request.data) * 3 // 4
            for lane in self._active:
                if lane.buffer is not None:
                    lane.buffer.limit = self.limit
        buffer = t.cast("CohortBuffer", request.lane.buffer)
        with self._weighed(buffer):
            buffer.put_back(request.body)
        return lowered

    def divide(self, request: Request, *, singly: bool) -> None:
        """Take back the body of a claimed lane's request in parts that go next.

        Args:
            request: It has several members.
            singly: Whether each member is a part; else there are two.
        """
        buffer = t.cast("CohortBuffer", request.lane.buffer)
        with self._weighed(buffer):
            buffer.put_parts(request.body.singles() if singly else request.body.halves())

    def _close(self, lane: Lane) -> None:
        if lane.buffer is not None:
            with self._weighed(lane.buffer):
                lane.buffer.close_all()
            self._enqueue(lane)

    def _enqueue(self, lane: Lane) -> None:
        """Let a lane that has something to send get in line, unless it is or was claimed."""
        if not (lane.queued or lane.claimed):
            lane.queued = True
            self._ready.append(lane)

    def _schedule(self, lane: Lane) -> None:
        """Note when a lane's open bodies will have waited long enough."""
        if lane.buffer is not None and (opened_at := lane.buffer.opened_at) is not None:
            lane.scheduled = True
            heapq.heappush(self._due, (opened_at, next(self._serial), lane))

    @contextmanager
    def _weighed(self, buffer: CohortBuffer) -> Iterator[None]:
        """Keep the sums of weights right while a buffer changes."""
        self._open_weight -= buffer.open_weight
        self.closed_weight -= buffer.closed_weight
        yield
        self._open_weight += buffer.open_weight
        self.closed_weight += buffer.closed_weight
