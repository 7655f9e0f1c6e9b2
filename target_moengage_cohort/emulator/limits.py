"""Rolling windows, and the limit of requests per minute."""

from __future__ import annotations

import math
from collections import deque

WINDOW_SECONDS = 60.0


class RollingWindow:
    """Counter of the events in a rolling window; an event exactly as old as the window is out.

    Args:
        seconds: The width of the window.
    """

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self.seconds = seconds
        self.largest = 0
        self._moments: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count an event, which must not be earlier than the events counted before."""
        self._moments.append(now)
        self.largest = max(self.largest, self.count(now))

    def count(self, now: float) -> int:
        """Return the number of events in the window that ends now."""
        while self._moments and now - self._moments[0] >= self.seconds:
            self._moments.popleft()
        return len(self._moments)

    def until_one_leaves(self, now: float) -> float:
        """Return the seconds until the oldest event leaves the window; 0 if it is empty."""
        return self._moments[0] + self.seconds - now if self.count(now) else 0.0


class RateLimit:
    """MoEngage's limit of requests per minute; a refused request does not count.

    Args:
        requests: The number admitted in any rolling 60 seconds.
    """

    def __init__(self, requests: int) -> None:
        self._limit = requests
        self._window = RollingWindow()

    def admit(self, now: float) -> bool:
        """Count a request, unless the window is full.

        Returns:
            Whether it is within the limit.
        """
        if self._window.count(now) >= self._limit:
            return False
        self._window.add(now)
        return True

    def used(self, now: float) -> int:
        """Return the number of admitted requests in the window that ends now."""
        return self._window.count(now)

    def headers(self, now: float, wall: float) -> dict[str, str]:
        """Return the rate-limit headers of an answer.

        Args:
            now: The monotonic clock, in seconds.
            wall: Seconds since the epoch at the same moment.

        Returns:
            The three headers. `x-ratelimit-reset` is the first whole second at which a counted
            request has left the window, so a client that waits for it is admitted.
        """
        return {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(self._limit - self.used(now)),
            "x-ratelimit-reset": str(math.ceil(wall + self._window.until_one_leaves(now))),
        }
