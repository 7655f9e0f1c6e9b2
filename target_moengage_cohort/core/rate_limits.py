"""Rate limits as values: so many requests in each of several rolling windows."""

from __future__ import annotations

import typing as t

import msgspec

MARGIN_SECONDS = 2.0
"""How much longer a window is than MoEngage's: requests that start within more than so many
seconds may arrive within them."""

COHORT_SYNC = "cohort_sync"
"""The name of the limit of the Cohort Sync API."""


class Span(t.NamedTuple):
    """A rolling window."""

    requests: int
    seconds: float


class RateLimit(msgspec.Struct, frozen=True):
    """A limit that all requests of one name share, whichever process starts them."""

    name: str
    spans: tuple[Span, ...]

    @property
    def longest(self) -> float:
        """The seconds for which a start counts."""
        return max(span.seconds for span in self.spans)


class SharedWindow(t.Protocol):
    """A rate limit that several hosts share: so many starts in each of its windows of time."""

    def acquire(self, count: int = 1) -> float:
        """Take so many permits, or return the seconds until there may be as many."""

    def give_back(self, count: int) -> None:
        """Give back so many of the permits that were taken last."""

    def hold(self, seconds: float) -> None:
        """Give no permit for so long."""

    def close(self) -> None:
        """Free what it uses; there are no permits from then on."""


def rate_limit(
    name: str, *, second: int = 0, minute: int = 0, hour: int = 0, day: int = 0
) -> RateLimit:
    """Return the limit for each second, minute, hour and day; 0 means unlimited."""
    widths = ((second, 1), (minute, 60), (hour, 3_600), (day, 86_400))
    spans = (Span(most, width + MARGIN_SECONDS) for most, width in widths if most)
    return RateLimit(name, tuple(spans))
