"""From the outcome of a run to the alerts to send; pure."""

from __future__ import annotations

import enum
import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ALL = 100


class State(enum.StrEnum):
    """The state of a stream after a run."""

    OK = "ok"
    FAILED = "failed"
    WITHHELD = "withheld"
    MISSING_INPUT = "missing_input"
    TURNOVER = "turnover"


RECOVERED = "recovered"
"""The event of a stream that is ok again; those of the other states have their names."""


class StreamOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a stream after a run, and why."""

    stream: str
    state: State
    cohort_id: str | None = None  # if it is about one
    code: str | None = None
    reason: str | None = None
    command: str | None = None  # what to type next
    records: int = 0
    added: int = 0
    removed: int = 0
    rejected: int = 0
    removals_withheld: int = 0


class Event(msgspec.Struct, frozen=True):
    """A change of state that streams have in common."""

    name: str
    outcomes: list[StreamOutcome]


def changes(
    outcomes: Iterable[StreamOutcome], reported: Mapping[str, str | None], told: frozenset[str]
) -> tuple[dict[str, str], list[Event]]:
    """Return what is reported of each stream that changed, and the events, at most one of a kind.

    A state that is not `told` is not reported, so nothing recovers from it either.
    """
    states: dict[str, str] = {}
    events: dict[str, list[StreamOutcome]] = {}
    for outcome in outcomes:
        before = reported.get(outcome.stream) or State.OK.value
        is_ok = outcome.state is State.OK
        if outcome.state.value == before or not (is_ok or outcome.state.value in told):
            continue
        states[outcome.stream] = outcome.state.value
        name = RECOVERED if is_ok else outcome.state.value
        if name in told:
            events.setdefault(name, []).append(outcome)
    return states, [Event(name, some) for name, some in events.items()]


def is_turnover(*, added: int, removed: int, before: int, percent: int | None) -> bool:
    """Return whether more of a cohort's members came and went than the setting allows."""
    return percent is not None and before > 0 and (added + removed) * _ALL > before * percent
