"""The members of one request; pure."""

from __future__ import annotations

import itertools

import msgspec

from target_moengage_cohort.core.membership import Action, Member

BODY_OVERHEAD_BYTES = 2_000
"""Memory that a body takes in addition to its members."""

_decode_members = msgspec.json.Decoder(list[Member]).decode


class Body(msgspec.Struct, frozen=True):
    """A closed body: the members of one request, encoded.

    Attributes:
        action: The action of the request.
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
        """Approximate bytes of memory that it takes."""
        return len(self.members) + 8 * self.count + BODY_OVERHEAD_BYTES

    def decode(self) -> list[Member]:
        """Return the members."""
        return _decode_members(b"[%b]" % self.members)

    def halves(self) -> list[Body]:
        """Split a body of several members into two of about the same size."""
        return [*self.split(len(self.members) // 2)]

    def singles(self) -> list[Body]:
        """Split it into bodies of one member each."""
        return [
            Body(self.action, member, 1, (epoch,))
            for member, epoch in zip(self._encoded(), self.epochs, strict=True)
        ]

    def split(self, room: int) -> tuple[Body, Body]:
        """Split it in two, in order, the first with as many members as ``room`` bytes hold.

        It has at least one.
        """
        members = self._encoded()
        ends = itertools.accumulate(len(member) + 1 for member in members)
        count = max(1, sum(1 for end in ends if end - 1 <= room))
        first, rest = (b",".join(part) for part in (members[:count], members[count:]))
        return (
            Body(self.action, first, count, self.epochs[:count]),
            Body(self.action, rest, self.count - count, self.epochs[count:]),
        )

    def _encoded(self) -> list[bytes]:
        raw = msgspec.json.decode(b"[%b]" % self.members, type=list[msgspec.Raw])
        return [*map(bytes, raw)]
