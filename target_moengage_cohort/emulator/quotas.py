"""The limits of the Segments and the Analytics API: rolling windows, and a monthly quota."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from .limits import RollingWindow

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
LIMITS: dict[str, dict[float, int]] = {
    "archive": {MINUTE: 50, HOUR: 200, DAY: 1_000},
    "file": {HOUR: 10, DAY: 100},
    "list": {MINUTE: 50, HOUR: 200, DAY: 1_000},
    "get": {MINUTE: 100, HOUR: 1_000, DAY: 4_000},
    "create": {MINUTE: 50, HOUR: 200, DAY: 1_000},
    "update": {},
    "analytics": {1.0: 5, MINUTE: 15, HOUR: 100},
}
"""How many requests each window has by its seconds; MoEngage documents none for `update`."""


class Quota:
    """One limit; a request that it refuses does not count.

    Args:
        windows: How many requests each window has, by its seconds.
    """

    def __init__(self, windows: dict[float, int]) -> None:
        self._windows = [(RollingWindow(seconds), most) for seconds, most in windows.items()]

    def admit(self, now: float) -> bool:
        """Count a request, unless a window is full; return whether it is within the limit."""
        if any(window.count(now) >= most for window, most in self._windows):
            return False
        for window, _ in self._windows:
            window.add(now)
        return True

    def headers(self, now: float, wall: float) -> dict[str, str]:
        """Return the rate-limit headers of the window that has the least left."""
        if not self._windows:
            return {}
        left = [(most - window.count(now), most, window) for window, most in self._windows]
        remaining, most, window = min(left, key=lambda each: (each[0], -each[2].seconds))
        return {
            "x-ratelimit-limit": str(most),
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-reset": str(math.ceil(wall + window.until_one_leaves(now))),
        }


class MonthlyQuota:
    """The quota of queries; it comes back with each calendar month, in UTC.

    Args:
        most: The maximum per month; None for no quota.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._month = ""
        self._used = 0

    def admit(self, wall: float) -> bool:
        """Count a query unless the quota is used up, and return whether it is within the quota.

        Args:
            wall: Seconds since the epoch.
        """
        month = f"{datetime.fromtimestamp(wall, UTC):%Y-%m}"
        if month != self._month:
            self._month, self._used = month, 0
        if self._most is not None and self._used >= self._most:
            return False
        self._used += 1
        return True
