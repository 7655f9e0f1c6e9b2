"""Assignment of changes to requests, by encoded bytes; pure.

The changes of a cohort wait in two open bodies, one for each action. A member is in at most one of
them, with its last change. A body is closed when its next member would not fit. It is never changed
again then. Closed bodies leave in the order in which they were closed.
"""

from __future__ import annotations

import itertools
import typing as t
from collections import deque

import msgspec

from target_moengage_cohort.core.membership import Action, Change, Key, Member

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.moengage.cohort_sync import Envelope

_BODY_OVERHEAD_BYTES = 2_000  # of memory, in addition to its members
_MEMBER_OVERHEAD_BYTES = 320  # a dict's slot, a key, a payload and a tuple, as CPython keeps them
_SEVERAL_KEYS: tuple[str] = ("",)  # equals no member's key
_ADD = Action.ADD
_encode = msgspec.json.Encoder().encode  # as `Member.encode`
_decode_members = msgspec.json.Decoder(list[Member]).decode
_split_members = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Body(msgspec.Struct, frozen=True):
    """A closed body: the members of one request."""

    action: Action
    members: bytes  # encoded, separated by commas
    count: int
    epochs: tuple[int, ...]  # for each member, that of the record that its acceptance settles
    is_doubted: bool = False  # whether a request with these members may have been applied

    @property
    def weight(self) -> int:
        """Approximate bytes of memory that it takes."""
        return len(self.members) + 8 * self.count + _BODY_OVERHEAD_BYTES

    def decode(self) -> list[Member]:
        """Return the members."""
        return _decode_members(b"[%b]" % self.members)

    def singles(self) -> list[Body]:
        """Split it into bodies of one member each."""
        pairs = zip(self._encoded(), self.epochs, strict=True)
        return [self._part(member, 1, (epoch,)) for member, epoch in pairs]

    def split(self, room: int) -> tuple[Body, Body]:
        """Split it in two, in order, the first with as many members as `room` bytes hold.

        It has at least one.
        """
        members = self._encoded()
        ends = itertools.accumulate(len(member) + 1 for member in members)
        count = max(1, sum(1 for end in ends if end - 1 <= room))
        first, rest = (b",".join(part) for part in (members[:count], members[count:]))
        return (
            self._part(first, count, self.epochs[:count]),
            self._part(rest, self.count - count, self.epochs[count:]),
        )

    def _part(self, members: bytes, count: int, epochs: tuple[int, ...]) -> Body:
        return Body(self.action, members, count, epochs, self.is_doubted)

    def _encoded(self) -> list[bytes]:
        return [*map(bytes, _split_members(b"[%b]" % self.members))]


class _OpenBody(msgspec.Struct, eq=False):
    """The changes of one action; more may join them, and each may still be replaced."""

    action: Action
    overhead: int
    size: int  # at first without the comma that the first member does not have before it
    entries: dict[Key, tuple[bytes, int]] = msgspec.field(default_factory=dict)
    anonymous_ids: dict[str, Key] = msgspec.field(default_factory=dict)  # with their member's key
    opened_at: float = 0.0
    serial: int = 0

    @property
    def weight(self) -> int:
        """Approximate bytes of memory that it takes while it has any member."""
        members = len(self.entries) + len(self.anonymous_ids)
        payloads = self.size - self.overhead + 1
        return _BODY_OVERHEAD_BYTES + payloads + _MEMBER_OVERHEAD_BYTES * members


class Budget(msgspec.Struct):
    """The limit of a body, and the memory of all of them; the buffers of all cohorts share it.

    The limit may be lowered at any time; waiting bodies are then split when they are taken.
    """

    limit: int  # bytes of the largest body
    open_weight: int = 0  # approximate bytes of memory that the open bodies take
    closed_weight: int = 0  # the same of the closed bodies


class CohortBuffer:
    """The changes of one cohort that have not left yet; `envelope` is what is around them."""

    def __init__(self, envelope: Envelope, budget: Budget) -> None:
        self.envelope = envelope
        self._budget = budget
        self._overheads = {action: envelope.overhead(action) for action in Action}
        self._adds, self._removes = map(self._empty, (Action.ADD, Action.REMOVE))
        self.closed: deque[Body] = deque()  # in the order in which they leave
        self._parts = 0  # parts of one refused body; they are the first closed bodies
        self._serial = itertools.count()

    @property
    def open_weight(self) -> int:
        """Approximate bytes of memory that the open bodies take."""
        return sum(body.weight for body in self._waiting())

    @property
    def is_empty(self) -> bool:
        """Whether no change waits at all."""
        return not (self.closed or self._adds.entries or self._removes.entries)

    @property
    def opened_at(self) -> float | None:
        """When the oldest open body got its first change, on the clock of `put`."""
        return min((body.opened_at for body in self._waiting()), default=None)

    def put(self, change: Change, epoch: int, now: float) -> bool:
        """Add a change, whose encoded member must fit into a body by itself.

        Return whether it settles its own record; ``False`` if it replaced an earlier change of the
        same member and took over the epoch of that one's record.
        """
        member, budget = change.member, self._budget
        # Per member; so properties and methods of it are spelled out.
        uid, anonymous_id = member.uid, member.anonymous_id
        key: Key = uid if uid is not None else member.key
        payload = _encode(member)
        if change.action is _ADD:
            body, other = self._adds, self._removes
        else:
            body, other = self._removes, self._adds
        if anonymous_id is not None and other.anonymous_ids.get(anonymous_id, key) != key:
            other = self._close(other)  # perhaps the same person; it must leave first
        if (old := body.entries.get(key)) is not None:
            grown = len(payload) - len(old[0])
            if body.size + grown <= budget.limit:
                body.entries[key] = (payload, old[1])
                body.size += grown
                budget.open_weight += grown
                if anonymous_id is not None:
                    self._note_anonymous_id(body, anonymous_id, key)
                return False
        place = body if old is not None else other
        if (replaced := place.entries.get(key)) is not None:
            self._drop(place, key)
            epoch = replaced[1]
        cost = len(payload) + 1
        if body.size + cost > budget.limit:
            body = self._close(body)
        if not body.entries:
            body.opened_at = now
            body.serial = next(self._serial)
            budget.open_weight += _BODY_OVERHEAD_BYTES
        body.entries[key] = (payload, epoch)
        body.size += cost
        budget.open_weight += cost + _MEMBER_OVERHEAD_BYTES
        if anonymous_id is not None:
            self._note_anonymous_id(body, anonymous_id, key)
        return replaced is None

    def _note_anonymous_id(self, body: _OpenBody, anonymous_id: str, key: Key) -> None:
        earlier = body.anonymous_ids.get(anonymous_id)
        if earlier is None:
            self._budget.open_weight += _MEMBER_OVERHEAD_BYTES
        body.anonymous_ids[anonymous_id] = key if earlier in {None, key} else _SEVERAL_KEYS

    def _drop(self, body: _OpenBody, key: Key) -> None:
        self._budget.open_weight -= body.weight
        payload, _ = body.entries.pop(key)
        body.size -= len(payload) + 1
        if body.entries:
            self._budget.open_weight += body.weight
        else:
            body.anonymous_ids.clear()

    def close_all(self) -> None:
        """Close the open bodies, the older one first."""
        for body in self._waiting():
            self._close(body)

    def take(self, opened_before: float) -> Body | None:
        """Remove and return the next body: the first closed one, else the older open one.

        An open body that has waited long enough is closed, too, and queues behind the closed
        ones; otherwise a rare change would wait forever. It keeps growing if the last closed
        body has the same action, because it would follow that one anyway.
        """
        for open_body in self._waiting():
            follows = self.closed and self.closed[-1].action is open_body.action
            if self.closed and (open_body.opened_at > opened_before or follows):
                break  # a later one must not overtake it
            self._close(open_body)
        if not self.closed:
            return None
        body = self.closed.popleft()
        self._budget.closed_weight -= body.weight
        is_part = self._parts > 0
        self._parts -= is_part
        room = self._budget.limit - self._overheads[body.action]
        if len(body.members) > room and body.count > 1:
            body, rest = body.split(room)
            self.put_back(rest)
            self._parts += is_part
        return body

    def clear(self) -> list[int]:
        """Drop all changes; return the epochs of their records."""
        self.close_all()
        epochs = [epoch for body in self.closed for epoch in body.epochs]
        self._budget.closed_weight -= sum(body.weight for body in self.closed)
        self.closed.clear()
        self._parts = 0
        return epochs

    def put_back(self, body: Body) -> None:
        """Make a body the next one."""
        self.closed.appendleft(body)
        self._budget.closed_weight += body.weight

    def put_parts(self, parts: Sequence[Body]) -> None:
        """Make the parts of the latest body the next ones, after other parts of the same body.

        No two parts share a member, so their order is free. Queueing them last visits every part
        of a body early, so its many good members are found soon, wherever the bad ones are.
        """
        for part in parts:
            self.closed.insert(self._parts, part)
            self._parts += 1
            self._budget.closed_weight += part.weight

    def _waiting(self) -> list[_OpenBody]:
        """Return the open bodies that have changes, the older one first."""
        waiting = [body for body in (self._adds, self._removes) if body.entries]
        return sorted(waiting, key=lambda body: body.serial)

    def _close(self, body: _OpenBody) -> _OpenBody:
        """Close an open body, and return the empty one that replaces it."""
        if body.entries:
            payloads, epochs = zip(*body.entries.values(), strict=True)
            closed = Body(body.action, b",".join(payloads), len(payloads), epochs)
            self.closed.append(closed)
            self._budget.closed_weight += closed.weight
            self._budget.open_weight -= body.weight
        return self._renew(body)

    def _renew(self, body: _OpenBody) -> _OpenBody:
        fresh = self._empty(body.action)
        if body.action is _ADD:
            self._adds = fresh
        else:
            self._removes = fresh
        return fresh

    def _empty(self, action: Action) -> _OpenBody:
        overhead = self._overheads[action]
        return _OpenBody(action, overhead, overhead - 1)
