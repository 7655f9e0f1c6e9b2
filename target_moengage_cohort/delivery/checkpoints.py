"""Which STATE is covered: pure bookkeeping between records read and changes accepted.

STATE messages cut the input into epochs: a record belongs to the epoch of the next STATE.
A STATE is covered when no record of its epoch or of an earlier one is open, that is, still
waits to be accepted or to be superseded by an accepted change (promise 1 of the design).
"""

from __future__ import annotations

import typing as t
from collections import deque

if t.TYPE_CHECKING:
    from collections.abc import Mapping


HELD_BYTES_LIMIT = 4 << 20
_FEWEST_HELD = 2


class Checkpoints:
    """Counts open records per epoch and hands out the newest STATE that is covered.

    Attributes:
        held_bytes: The length of the STATE that waits. Where it would pass `HELD_BYTES_LIMIT`,
            all but the oldest and the newest may be left out: a later one serves for them.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # epochs in rising order: only the current one is added
        self._states: deque[tuple[int, bytes]] = deque()
        self._epoch = 0
        self._holds: dict[str, int] = {}
        self.held_bytes = 0

    @property
    def has_open(self) -> bool:
        """Whether any record still waits to be accepted."""
        return bool(self._open)

    @property
    def has_covered(self) -> bool:
        """Whether `take` would give a STATE."""
        return bool(self._states) and self._states[0][0] < self._oldest_open

    @property
    def _oldest_open(self) -> int:
        return min(next(iter(self._open), self._epoch), *self._holds.values(), self._epoch)

    @property
    def epoch(self) -> int:
        """The epoch that a record read now belongs to."""
        return self._epoch

    def open(self, count: int = 1) -> None:
        """Note that ``count`` records of the current epoch wait for an acceptance."""
        self._open[self._epoch] = self._open.get(self._epoch, 0) + count

    def hold(self, stream: str) -> None:
        """Let no STATE from now on be covered until a stream is released; the first call counts.

        It is for streams of which no record is settled before all of them are.
        """
        self._holds.setdefault(stream, self._epoch)

    def release(self, stream: str) -> None:
        """Let a stream that was held hold nothing back any more."""
        self._holds.pop(stream, None)

    def settle(self, counts: Mapping[int, int]) -> None:
        """Note that records, counted by their epoch, need no waiting for any more."""
        for epoch, count in counts.items():
            left = self._open[epoch] - count
            if left:
                self._open[epoch] = left
            else:
                del self._open[epoch]

    def state(self, value: bytes) -> None:
        """Note a STATE message; ``value`` is its value as it was read."""
        nothing_new = self._epoch not in self._open and self._epoch not in self._holds.values()
        if self._states and nothing_new:
            # Nothing open since the last one: both get covered together, and the newer serves.
            self.held_bytes -= len(self._states.pop()[1])
        self._states.append((self._epoch, value))
        self.held_bytes += len(value)
        self._epoch += 1
        while self.held_bytes > HELD_BYTES_LIMIT and len(self._states) > _FEWEST_HELD:
            # One between the oldest and the newest: those two still tell of progress.
            self.held_bytes -= len(self._states[-2][1])
            del self._states[-2]

    def take(self) -> bytes | None:
        """Take the newest covered STATE that was not taken yet, if there is one."""
        oldest_open = self._oldest_open
        newest = None
        while self._states and self._states[0][0] < oldest_open:
            newest = self._states.popleft()[1]
            self.held_bytes -= len(newest)
        return newest
