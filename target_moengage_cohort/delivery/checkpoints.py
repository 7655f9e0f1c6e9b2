"""Which STATE is covered: bookkeeping between records read and changes accepted; pure.

STATE messages divide the input into epochs: a record belongs to the epoch of the next STATE.
A STATE is covered when no record of its epoch or of an earlier one is open. A record is open until
its change, or a later one that replaced it, is accepted (promise 1).
"""

from __future__ import annotations

import typing as t
from collections import deque

if t.TYPE_CHECKING:
    from collections.abc import Mapping

HELD_BYTES_LIMIT = 4 << 20
_FEWEST_HELD = 2


class Checkpoints:
    """Counts open records per epoch and returns the newest STATE that is covered."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # epochs in rising order: only the current one is added
        self._states: deque[tuple[int, bytes]] = deque()
        self.epoch = 0  # of a record that is read now
        self._holds: dict[str, int] = {}
        self.held_bytes = 0  # the length of all STATE that waits

    @property
    def has_open(self) -> bool:
        """Whether any record is open."""
        return bool(self._open)

    @property
    def has_covered(self) -> bool:
        """Whether `take` would return a STATE."""
        return bool(self._states) and self._states[0][0] < self._oldest_open

    @property
    def _oldest_open(self) -> int:
        return min(next(iter(self._open), self.epoch), *self._holds.values(), self.epoch)

    def open(self, count: int = 1) -> None:
        """Open ``count`` records of the current epoch."""
        self._open[self.epoch] = self._open.get(self.epoch, 0) + count

    def hold(self, stream: str, epoch: int | None = None) -> None:
        """Hold back STATE from now on, for a stream whose records are settled all together.

        From an earlier `epoch` it is held back only if one of its records is open.
        """
        self._holds.setdefault(stream, self.epoch if epoch is None else epoch)  # the first counts

    def release(self, stream: str) -> None:
        """Stop holding back STATE for a stream."""
        self._holds.pop(stream, None)

    def settle(self, counts: Mapping[int, int]) -> None:
        """Close records, counted by their epoch."""
        for epoch, count in counts.items():
            left = self._open[epoch] - count
            if left:
                self._open[epoch] = left
            else:
                del self._open[epoch]

    def state(self, value: bytes) -> None:
        """Add a STATE message; ``value`` is its value as it was read."""
        nothing_new = self.epoch not in self._open and self.epoch not in self._holds.values()
        if self._states and nothing_new:
            # Nothing was opened since the last one: both get covered together, so keep the newer.
            self.held_bytes -= len(self._states.pop()[1])
        self._states.append((self.epoch, value))
        self.held_bytes += len(value)
        self.epoch += 1
        while self.held_bytes > HELD_BYTES_LIMIT and len(self._states) > _FEWEST_HELD:
            # Drop one between the oldest and the newest: those two still allow progress, and a
            # later one takes its place.
            self.held_bytes -= len(self._states[-2][1])
            del self._states[-2]

    def take(self) -> bytes | None:
        """Remove and return the newest covered STATE; ``None`` if there is none."""
        newest = None
        while self.has_covered:
            newest = self._states.popleft()[1]
            self.held_bytes -= len(newest)
        return newest
