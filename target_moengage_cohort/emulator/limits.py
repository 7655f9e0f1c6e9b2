"""Rolling windows: how many requests came in the last minute, and whether one more may."""

from __future__ import annotations

import math
from collections import deque

WINDOW_SECONDS = 60.0


class RollingWindow:
    """Counts events in the last so many seconds; one that is exactly so old is out.

    Args:
        seconds: The width of the window.
    """

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self.seconds = seconds
        self.largest = 0
        self._moments: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count an event at this moment, which is not before any that was counted already."""
        self._moments.append(now)
        self.largest = max(self.largest, self.count(now))

    def count(self, now: float) -> int:
        """Say how many events are in the window that ends now."""
        while self._moments and now - self._moments[0] >= self.seconds:
            self._moments.popleft()
        return len(self._moments)

    def until_one_leaves(self, now: float) -> float:
        """Say in how many seconds the oldest event leaves the window; 0 if it is empty."""
        return self._moments[0] + self.seconds - now if self.count(now) else 0.0


class RateLimit:
    """MoEngage's limit of requests a minute; a request that is refused doesn't count.

    Args:
        requests: How many are admitted in any rolling 60 seconds.
    """

    def __init__(self, requests: int) -> None:
        self._limit = requests
        self._window = RollingWindow()

    def admit(self, now: float) -> bool:
        """Count a request at this moment, unless the window is full.

        Returns:
            Whether it is within the limit.
        """
        if self._window.count(now) >= self._limit:
            return False
        self._window.add(now)
        return True

    def used(self, now: float) -> int:
        """Say how many requests in the window that ends now were admitted."""
        return self._window.count(now)

    def headers(self, now: float, wall: float) -> dict[str, str]:
        """Say how much is left, as MoEngage's answers do.

        Args:
            now: The monotonic clock, in seconds.
            wall: Seconds since the epoch at the same moment.

        Returns:
            The three headers. `x-ratelimit-reset` is the first whole second at which a request
            that was counted has left the window, so that whoever waits for it is admitted.
        """
        return {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(self._limit - self.used(now)),
            "x-ratelimit-reset": str(math.ceil(wall + self._window.until_one_leaves(now))),
        }
