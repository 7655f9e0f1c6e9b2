"""Numbers, names and times in readable form."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as ``1 request``; the default plural adds an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_size(size: int) -> str:
    """Return a number of bytes in the most suitable unit."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= 0.99995 * bytes_:  # 1,000.0 of the unit below
            return f"{size / bytes_:,.1f} {unit}"
    return format_count(size, "byte")


def format_minutes(minutes: float) -> str:
    """Return a duration as exactly as it can be predicted."""
    if minutes < 1:
        return "less than a minute"
    tenths = f"{minutes:,.1f}".removesuffix(".0")
    return f"{tenths} {'minute' if tenths == '1' else 'minutes'}"


def format_age(seconds: float) -> str:
    """Return how long ago something was, in the largest unit that fits."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{format_count(int(seconds // length), unit)} ago"
    return "just now"


def printable(text: str) -> str:
    """Return a name on one line, whatever characters it contains."""
    return "".join(character if character.isprintable() else " " for character in text)


def shorten(text: str, width: int) -> str:
    """Return a name that fits a column of a table."""
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def iso_utc(seconds: float, timespec: str = "milliseconds") -> str:
    """Return a time, in seconds since 1970, as ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def utc_now() -> str:
    """Return the current time as `iso_utc` does."""
    return iso_utc(time.time())
