"""Delivery's arguments and results."""

from __future__ import annotations

import time
import typing as t

import msgspec

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.moengage.calls import Api

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.errors import CohortError, TargetError
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Action, Cohort, Member
    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.moengage.answers import Answer
    from target_moengage_cohort.moengage.calls import Call

Reject: t.TypeAlias = "t.Callable[[Cohort, Action, Member, str], TargetError | None]"
"""Takes a member that MoEngage refuses, and why; returns the error that ends the run, if any."""


Fail: t.TypeAlias = "t.Callable[[Cohort, CohortError], TargetError | None]"
"""Takes a cohort that MoEngage refuses altogether; returns the error that ends the run, if any."""


Refusal: t.TypeAlias = "t.Callable[[Cohort], CohortError | None]"
"""Returns why nothing more may be sent for a cohort, asked before each request; mostly `None`."""


class Totals(msgspec.Struct):
    """The run's numbers so far, over all cohorts."""

    accepted: int = 0
    requests: int = 0
    refused: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0


class Outlook(msgspec.Struct, frozen=True):
    """What is left to send, as far as it is known."""

    requests_left: int  # approximately, those under way included
    is_lower_bound: bool  # whether more changes wait to be taken
    seconds_to_permit: float  # until the rate limit lets the next request start; 0 if none waits
    seconds_left: float  # until all have been sent


class CohortCounts(msgspec.Struct):
    """The counts of one cohort so far."""

    added: int = 0  # members whose addition was accepted
    removed: int = 0  # members whose removal was accepted
    merged: int = 0  # changes that a later one of the same member replaced before they left
    in_doubt: int = 0  # members of requests that may or may not have been applied
    rejected: int = 0  # members that MoEngage has refused alone
    requests: int = 0  # requests started
    bytes: int = 0  # bytes of their bodies


def _full_jitter(longest: float) -> float:
    import backoff  # noqa: PLC0415 - see `attempts`

    return backoff.full_jitter(longest)


class Timing(msgspec.Struct, frozen=True):
    """Sources of time and chance, in seconds; tests replace them."""

    clock: t.Callable[[], float] = time.monotonic
    wall_clock: t.Callable[[], float] = time.time  # since 1970, for timestamps
    jitter: t.Callable[[float], float] = _full_jitter  # the longest wait -> the actual one


class Callbacks(msgspec.Struct, frozen=True):
    """The functions that delivery calls."""

    emit: t.Callable[[bytes], None]  # writes a covered STATE; in order, by one thread at a time
    reject: Reject
    fail: Fail  # called with the lock held, so it must not wait
    refusal: Refusal = lambda _cohort: None


class NoPace:
    """Permits without a rate limit; only a 429 is waited for."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._held_until = 0.0

    @property
    def seconds_to_permit(self) -> float:
        """How long the next request waits for its permit."""
        return max(0.0, self._held_until - time.monotonic())

    def acquire(self) -> bool:
        """Return whether the run continues, after a wait that a 429 asked for."""
        return not self._interrupt.wait(max(0.0, self._held_until - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Grant no permit for so long, as a 429 asks."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def close(self) -> None:
        """Do nothing."""


class Link(msgspec.Struct, frozen=True):
    """A way to send requests."""

    send: t.Callable[[bytes], Answer]  # sends one body, once
    pace: Pace | NoPace
    prepare: t.Callable[[], object] = lambda: None  # makes the first request faster; never waits


class NoAnswerError(TryAgainError):
    """A call has no final answer.

    Attributes:
        is_doubted: Whether an attempt got no answer. It may have been applied.
    """

    def __init__(self, code: str, message: str, call: Call, *, is_doubted: bool) -> None:
        if is_doubted and call.api is Api.SEGMENTS and call.method != "GET":
            message = (
                f"{message}. An attempt got no answer and may have been applied, so check the "
                "segment in MoEngage first"
            )
        super().__init__(code, message)
        self.is_doubted = is_doubted
