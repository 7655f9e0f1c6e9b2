"""When a request is attempted again: the only place that decides on retries and their waits."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.moengage.answers import Answer, Outcome

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RETRIED = frozenset({Outcome.RETRY, Outcome.RATE_LIMITED})
"""The outcomes after which the same bytes are sent again."""

_LONGEST_BACKOFF_SECONDS = 60


def _exponential() -> Iterator[float]:
    """Yield ever longer waits, in seconds."""
    import backoff  # noqa: PLC0415 - brings asyncio with it, and few requests are repeated

    waits = backoff.expo(max_value=_LONGEST_BACKOFF_SECONDS)
    next(waits)  # the first one only primes it
    yield from waits


class Waits:
    """The waits between the attempts at one request.

    ``jitter`` takes the longest wait and returns the actual one, in seconds.
    """

    def __init__(self, jitter: Callable[[float], float]) -> None:
        self._longest = enumerate(_exponential(), 1)  # numbered by attempt
        self._jitter = jitter

    def after(self, answer: Answer) -> tuple[float, str]:
        """Return the seconds to wait after an answer, and which attempt it was, for messages.

        A 429 uses up no attempt if it says how long to wait.
        """
        asked = answer.wait_seconds
        if answer.outcome is Outcome.RATE_LIMITED:
            return next(self._longest)[1] if asked is None else asked, ""
        number, longest = next(self._longest)
        return max(self._jitter(longest), asked or 0.0), f" (attempt {number})"
