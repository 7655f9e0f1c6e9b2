"""Which changes go into which request, by encoded bytes; pure.

The changes of a cohort wait in two open bodies, one for each action. A member stands in at most
one of them, with its last change. A body is closed when its next member would not fit, and is
then never changed again; closed bodies leave in the order in which they were closed.
"""

from __future__ import annotations

import typing as t
from collections import Counter, deque
from datetime import datetime, timezone

import msgspec

from target_moengage_cohort.membership import Action, Cohort

if t.TYPE_CHECKING:
    from target_moengage_cohort.membership import Change, Key

_MEMBER_OVERHEAD_BYTES = 320  # a dict's slot, a key, a payload and a tuple, as CPython keeps them
_BODY_OVERHEAD_BYTES = 1_000
_TIMESTAMP = "2026-11-22T04:00:00.123Z"  # every timestamp is as long as this one

_encode = msgspec.json.Encoder().encode
_ADD = Action.ADD


class Envelope(msgspec.Struct, frozen=True):
    """What surrounds the members in each request body of one cohort.

    Attributes:
        cohort: The cohort.
        partner: The ``partner`` field.
        send_timestamp: Whether bodies have a ``timestamp`` field.
    """

    cohort: Cohort
    partner: str
    send_timestamp: bool

    def body(self, action: Action, timestamp: str, members: bytes) -> bytes:
        """Put a request body together.

        Args:
            action: What the request does with its members.
            timestamp: ISO 8601 in UTC with milliseconds, as `iso_timestamp` makes it.
            members: Encoded members, separated by commas.

        Returns:
            Compact JSON in UTF-8.
        """
        cohort = self.cohort
        head: dict[str, t.Any] = {"action": action, "partner": self.partner}
        if self.send_timestamp:
            head["timestamp"] = timestamp
        parameters = {"cohort_name": cohort.name, "cohort_id": cohort.cohort_id}
        if cohort.description is not None:
            parameters["cohort_description"] = cohort.description
        return b'%b,"parameters":%b,"members":[%b]}}' % (
            _encode(head)[:-1],
            _encode(parameters)[:-1],
            members,
        )

    @property
    def overhead(self) -> int:
        """The bytes of a body without its members, of the action that takes more of them."""
        return max(len(self.body(action, _TIMESTAMP, b"")) for action in Action)


def iso_timestamp(milliseconds: int) -> str:
    """Format milliseconds since 1970 as the API's ``timestamp``: ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


class Body(msgspec.Struct, frozen=True):
    """A closed body: the members of one request, encoded.

    Attributes:
        action: What the request does with them.
        members: Encoded members, separated by commas.
        count: How many members.
        epochs: How many records of which epoch its acceptance settles.
    """

    action: Action
    members: bytes
    count: int
    epochs: dict[int, int]

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self.members) + _BODY_OVERHEAD_BYTES

    def halves(self) -> tuple[Body, Body]:
        """Split it in two, in order; the second half's acceptance settles the records of both."""
        members = msgspec.json.decode(b"[%b]" % self.members, type=list[msgspec.Raw])
        middle = self.count // 2
        first, second = (b",".join(half) for half in (members[:middle], members[middle:]))
        return (
            Body(self.action, first, middle, {}),
            Body(self.action, second, self.count - middle, self.epochs),
        )


class _OpenBody:
    """The changes of one action that may still grow in number, or be replaced."""

    __slots__ = ("action", "entries", "opened_at", "size")

    def __init__(self, action: Action, overhead: int) -> None:
        self.action = action
        self.entries: dict[Key, tuple[bytes, int]] = {}
        self.size = overhead - 1  # the first member has no comma before it
        self.opened_at = 0.0


class CohortBuffer:
    """The changes of one cohort that were not handed over yet.

    Args:
        envelope: What surrounds the members.
        limit: The largest body, in bytes.

    Attributes:
        limit: May be lowered at any time; what waits is then split as it is taken.
        open_weight: About how many bytes of memory the open bodies take.
        closed_weight: The same for the closed ones.
    """

    def __init__(self, envelope: Envelope, limit: int) -> None:
        self.envelope = envelope
        self.limit = limit
        self.open_weight = 0
        self.closed_weight = 0
        self._overhead = envelope.overhead
        self._adds = _OpenBody(Action.ADD, self._overhead)
        self._removes = _OpenBody(Action.REMOVE, self._overhead)
        self._closed: deque[Body] = deque()

    @property
    def has_closed(self) -> bool:
        """Whether a closed body waits."""
        return bool(self._closed)

    @property
    def is_empty(self) -> bool:
        """Whether no change waits at all."""
        return not (self._closed or self._adds.entries or self._removes.entries)

    @property
    def opened_at(self) -> float | None:
        """When the oldest open body got its first change, on the clock of `put`."""
        return min((body.opened_at for body in self._waiting()), default=None)

    def put(self, change: Change, epoch: int, now: float) -> bool:
        """Take a change; the last one of a member wins.

        Args:
            change: Its payload must fit into a body by itself.
            epoch: The epoch of its record.
            now: The time, for `opened_at`.

        Returns:
            Whether the change stands for its own record; ``False`` if it replaced an older
            change, whose record's epoch it took over.
        """
        key, payload = change.key, change.payload
        if change.action is _ADD:
            body, other = self._adds, self._removes
        else:
            body, other = self._removes, self._adds
        if (old := body.entries.get(key)) is not None:
            grown = len(payload) - len(old[0])
            if body.size + grown <= self.limit:
                body.entries[key] = (payload, old[1])
                body.size += grown
                self.open_weight += grown
                return False
        place = body if old is not None else other
        if (replaced := place.entries.pop(key, None)) is not None:
            cost = len(replaced[0]) + 1
            place.size -= cost
            self.open_weight -= cost + _MEMBER_OVERHEAD_BYTES
            epoch = replaced[1]
        cost = len(payload) + 1
        if body.size + cost > self.limit:
            body = self._close(body)
        if not body.entries:
            body.opened_at = now
        body.entries[key] = (payload, epoch)
        body.size += cost
        self.open_weight += cost + _MEMBER_OVERHEAD_BYTES
        return replaced is None

    def close_all(self) -> None:
        """Close the open bodies, the older one first."""
        for body in self._waiting():
            self._close(body)

    def take(self) -> Body | None:
        """Hand over the body that goes next: the first closed one, else the older open one."""
        if not self._closed:
            if not (waiting := self._waiting()):
                return None
            self._close(waiting[0])
        body = self._closed.popleft()
        self.closed_weight -= body.weight
        while self._overhead + len(body.members) > self.limit and body.count > 1:
            body, rest = body.halves()
            self.put_back(rest)
        return body

    def put_back(self, body: Body) -> None:
        """Let a body go next after all, or what it is split into."""
        self._closed.appendleft(body)
        self.closed_weight += body.weight

    def _waiting(self) -> list[_OpenBody]:
        """The open bodies that hold changes, the older one first."""
        waiting = [body for body in (self._adds, self._removes) if body.entries]
        return sorted(waiting, key=lambda body: body.opened_at)

    def _close(self, body: _OpenBody) -> _OpenBody:
        """Close an open body, and return the empty one that takes its place."""
        if body.entries:
            payloads, epochs = zip(*body.entries.values(), strict=True)
            closed = Body(body.action, b",".join(payloads), len(payloads), Counter(epochs))
            self._closed.append(closed)
            self.closed_weight += closed.weight
            self.open_weight -= len(closed.members) + 1 + _MEMBER_OVERHEAD_BYTES * closed.count
        fresh = _OpenBody(body.action, self._overhead)
        if body.action is _ADD:
            self._adds = fresh
        else:
            self._removes = fresh
        return fresh
