"""Which changes go into which request, by encoded bytes; pure.

The changes of a cohort wait in two open bodies, one for each action. A member stands in at most
one of them, with its last change. A body is closed when its next member would not fit, and is
then never changed again; closed bodies leave in the order in which they were closed.
"""

from __future__ import annotations

import itertools
import typing as t
from collections import deque
from datetime import UTC, datetime

import msgspec

from target_moengage_cohort.core.membership import Action, Cohort, Member

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.membership import Change, Key

_MEMBER_OVERHEAD_BYTES = 320  # a dict's slot, a key, a payload and a tuple, as CPython keeps them
_BODY_OVERHEAD_BYTES = 2_000
_SEVERAL_KEYS: tuple[str] = ("",)  # equals no member's key
_TIMESTAMP = "2026-11-22T04:00:00.123Z"  # every timestamp is as long as this one

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(list[Member]).decode
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

    def overhead(self, action: Action) -> int:
        """The bytes of a body without its members."""
        return len(self.body(action, _TIMESTAMP, b""))


def iso_timestamp(milliseconds: int) -> str:
    """Format milliseconds since 1970 as the API's ``timestamp``: ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


class Body(msgspec.Struct, frozen=True):
    """A closed body: the members of one request, encoded.

    Attributes:
        action: What the request does with them.
        members: Encoded members, separated by commas.
        count: How many members.
        epochs: For each member, the epoch of the record that its acceptance settles.
    """

    action: Action
    members: bytes
    count: int
    epochs: tuple[int, ...]

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self.members) + 8 * self.count + _BODY_OVERHEAD_BYTES

    def decode(self) -> list[Member]:
        """The members, as they were before they were encoded."""
        return _decode_members(b"[%b]" % self.members)

    def halves(self) -> list[Body]:
        """Split it in two, of about the same size; it has several members."""
        return [*self.split(len(self.members) // 2)]

    def singles(self) -> list[Body]:
        """Split it into bodies of one member each."""
        rest, found = self, []
        while rest.count > 1:
            first, rest = rest.split(0)
            found.append(first)
        return [*found, rest]

    def split(self, room: int) -> tuple[Body, Body]:
        """Split it in two, in order, the first as large as it may be.

        Args:
            room: The most bytes for the members of the first one, which has at least one.

        Returns:
            The two.
        """
        members = msgspec.json.decode(b"[%b]" % self.members, type=list[msgspec.Raw])
        ends = itertools.accumulate(len(bytes(member)) + 1 for member in members)
        count = max(1, sum(1 for end in ends if end - 1 <= room))
        first, rest = (b",".join(part) for part in (members[:count], members[count:]))
        return (
            Body(self.action, first, count, self.epochs[:count]),
            Body(self.action, rest, self.count - count, self.epochs[count:]),
        )


class _OpenBody:
    """The changes of one action that may still grow in number, or be replaced."""

    __slots__ = ("action", "anonymous_ids", "entries", "opened_at", "overhead", "serial", "size")

    def __init__(self, action: Action, overhead: int) -> None:
        self.action = action
        self.overhead = overhead
        self.entries: dict[Key, tuple[bytes, int]] = {}
        self.anonymous_ids: dict[str, Key] = {}  # under which key each one came
        self.size = overhead - 1  # the first member has no comma before it
        self.opened_at = 0.0
        self.serial = 0

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes, while it holds anything."""
        members = len(self.entries) + len(self.anonymous_ids)
        payloads = self.size - self.overhead + 1
        return _BODY_OVERHEAD_BYTES + payloads + _MEMBER_OVERHEAD_BYTES * members


class CohortBuffer:
    """The changes of one cohort that were not handed over yet.

    Args:
        envelope: What surrounds the members.
        limit: The largest body, in bytes.

    Attributes:
        limit: May be lowered at any time; what waits is then split as it is taken.
        open_weight: About how many bytes of memory the open bodies take.
        closed_weight: About how many bytes of memory the closed bodies take.
    """

    def __init__(self, envelope: Envelope, limit: int) -> None:
        self.envelope = envelope
        self.limit = limit
        self.open_weight = 0
        self.closed_weight = 0
        self._adds = _OpenBody(Action.ADD, envelope.overhead(Action.ADD))
        self._removes = _OpenBody(Action.REMOVE, envelope.overhead(Action.REMOVE))
        self._closed: deque[Body] = deque()
        self._parts = 0  # of one body that was refused; they come first
        self._serial = itertools.count()

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
            change: Its encoded member must fit into a body by itself.
            epoch: The epoch of its record.
            now: The time, for `opened_at`.

        Returns:
            Whether the change stands for its own record; ``False`` if it replaced an older
            change, whose record's epoch it took over.
        """
        member = change.member
        key, payload, anonymous_id = member.key, member.encode(), member.anonymous_id
        if change.action is _ADD:
            body, other = self._adds, self._removes
        else:
            body, other = self._removes, self._adds
        if anonymous_id is not None and other.anonymous_ids.get(anonymous_id, key) != key:
            other = self._close(other)  # perhaps the same person's: it must go first
        if (old := body.entries.get(key)) is not None:
            grown = len(payload) - len(old[0])
            if body.size + grown <= self.limit:
                body.entries[key] = (payload, old[1])
                body.size += grown
                self.open_weight += grown
                self._note_anonymous_id(body, member)
                return False
        place = body if old is not None else other
        if (replaced := place.entries.get(key)) is not None:
            self._drop(place, key)
            epoch = replaced[1]
        cost = len(payload) + 1
        if body.size + cost > self.limit:
            body = self._close(body)
        if not body.entries:
            body.opened_at = now
            body.serial = next(self._serial)
            self.open_weight += _BODY_OVERHEAD_BYTES
        body.entries[key] = (payload, epoch)
        body.size += cost
        self.open_weight += cost + _MEMBER_OVERHEAD_BYTES
        self._note_anonymous_id(body, member)
        return replaced is None

    def _note_anonymous_id(self, body: _OpenBody, member: Member) -> None:
        """Remember under which key an anonymous id stands in a body."""
        anonymous_id, key = member.anonymous_id, member.key
        if anonymous_id is not None:
            known = body.anonymous_ids.get(anonymous_id)
            if known is None:
                self.open_weight += _MEMBER_OVERHEAD_BYTES
            body.anonymous_ids[anonymous_id] = key if known in {None, key} else _SEVERAL_KEYS

    def _drop(self, body: _OpenBody, key: Key) -> None:
        """Take a change back out of an open body."""
        self.open_weight -= body.weight
        payload, _ = body.entries.pop(key)
        body.size -= len(payload) + 1
        if body.entries:
            self.open_weight += body.weight
        else:
            body.anonymous_ids.clear()

    def close_all(self) -> None:
        """Close the open bodies, the older one first."""
        for body in self._waiting():
            self._close(body)

    def take(self, opened_before: float) -> Body | None:
        """Hand over the body that goes next: the first closed one, else the older open one.

        An open body that has waited long enough gets in line behind what is closed by now, so
        that a rare change does not wait for ever; one that will follow what is closed of its own
        action anyway goes on growing.

        Args:
            opened_before: What was opened until then has waited long enough.
        """
        for open_body in self._waiting():
            follows = self._closed and self._closed[-1].action is open_body.action
            if self._closed and (open_body.opened_at > opened_before or follows):
                break  # nor does a later one overtake it
            self._close(open_body)
        if not self._closed:
            return None
        body = self._closed.popleft()
        self.closed_weight -= body.weight
        is_part = self._parts > 0
        self._parts -= is_part
        overhead = (self._adds if body.action is _ADD else self._removes).overhead
        if overhead + len(body.members) > self.limit and body.count > 1:
            body, rest = body.split(self.limit - overhead)
            self.put_back(rest)
            self._parts += is_part
        return body

    def take_back(self) -> list[int]:
        """Drop what is in no closed body; return the epochs of its records."""
        epochs = []
        for body in self._waiting():
            epochs += [epoch for _, epoch in body.entries.values()]
            self.open_weight -= body.weight
            self._renew(body)
        return epochs

    def put_back(self, body: Body) -> None:
        """Let a body go next after all, or what it is split into."""
        self._closed.appendleft(body)
        self.closed_weight += body.weight

    def put_parts(self, parts: Sequence[Body]) -> None:
        """Let the parts of the latest body go next, behind other parts of the same one.

        They have no member in common, so their order is free; and so the many good members of a
        body are soon found, wherever the bad ones stand.
        """
        for part in parts:
            self._closed.insert(self._parts, part)
            self._parts += 1
            self.closed_weight += part.weight

    def _waiting(self) -> list[_OpenBody]:
        """The open bodies that hold changes, the older one first."""
        waiting = [body for body in (self._adds, self._removes) if body.entries]
        return sorted(waiting, key=lambda body: body.serial)

    def _close(self, body: _OpenBody) -> _OpenBody:
        """Close an open body, and return the empty one that takes its place."""
        if body.entries:
            payloads, epochs = zip(*body.entries.values(), strict=True)
            closed = Body(body.action, b",".join(payloads), len(payloads), epochs)
            self._closed.append(closed)
            self.closed_weight += closed.weight
            self.open_weight -= body.weight
        return self._renew(body)

    def _renew(self, body: _OpenBody) -> _OpenBody:
        """Put an empty open body in the place of one, and return it."""
        fresh = _OpenBody(body.action, body.overhead)
        if body.action is _ADD:
            self._adds = fresh
        else:
            self._removes = fresh
        return fresh
