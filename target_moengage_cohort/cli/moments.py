"""Times on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
MOMENT = "a date or time in UTC (2026-11-30T08:00), or an age such as 90m, 26h or 7d"


def span(text: str) -> int | None:
    """Return the seconds of a span such as 26h, if the text is one."""
    match = re.fullmatch(r"(\d+)([smhdw])", text, re.ASCII)
    return None if match is None else int(match[1]) * UNITS[match[2]]


def moment(text: str, now: float) -> float:
    """Return a time, in seconds since 1970, that is given as a time or as an age.

    Raise a `ValueError` if it is neither. Times without an offset are in UTC.
    """
    if (seconds := span(text)) is not None:
        return max(0.0, now - seconds)
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
