"""The outcome of a run for each of its streams, as alerts have it."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, WithheldError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.sync.outcome import incomplete_input
from target_moengage_cohort.sync.reporting.alert_states import State, StreamOutcome, is_turnover

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.errors import InputError, TargetError
    from target_moengage_cohort.settings import Config
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.reporting.report import CohortReport
    from target_moengage_cohort.sync.streams import Streams
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

_SUMS = ("records", "added", "removed", "rejected", "removals_withheld")
_PAUSED = "stream_paused"
_MISSING = "the tap sent nothing for it"


class RunFacts(msgspec.Struct, frozen=True):
    """A run that has ended, but for its report; `error` is what ended it before its time."""

    streams: Streams
    cohorts: Cohorts
    reports: Sequence[CohortReport]
    missing: Mapping[str, InputError | None]
    error: TargetError | None
    is_complete: bool


def stream_outcomes(
    facts: RunFacts, config: Config, known: Collection[str]
) -> Iterator[StreamOutcome]:
    """Yield the outcome for each stream whose state the run knows.

    An error before any stream is met concerns those that are configured, or else those `known`. A
    busy or paused stream has no news, and neither have an interrupted run and replayed rows.
    """
    is_over = facts.is_complete or facts.error is not None
    if isinstance(facts.error, BusyError) or not is_over or facts.streams.has_replay:
        return
    met = [*facts.streams.by_name, *facts.streams.failed.keys() - facts.streams.by_name.keys()]
    if not met and facts.error is not None:  # as a missing stream of an input without any
        met = [*(config.mappings or known)]
    for stream in met:
        if (outcome := _outcome(facts, stream, config.settings.alert_turnover_percent)) is not None:
            own = [each for each in facts.reports if each.stream == stream]
            sums = {name: sum(getattr(each, name) for each in own) for name in _SUMS}
            cohort_id = outcome.cohort_id or _only_cohort(config, stream)
            yield msgspec.structs.replace(outcome, cohort_id=cohort_id, **sums)
    is_told = State.MISSING_INPUT.value in config.settings.notified_events
    for stream, fails in facts.missing.items():  # a failed run is reported in any case
        yield StreamOutcome(
            stream=stream,
            cohort_id=_only_cohort(config, stream),
            state=State.FAILED if fails and not is_told else State.MISSING_INPUT,
            code="stream_without_input",
            reason=_MISSING,
            command=suggest("check"),
        )


def _only_cohort(config: Config, stream: str) -> str | None:
    cohort = config.mapping(stream).cohort
    return None if cohort is None else cohort.cohort_id


def _outcome(facts: RunFacts, stream: str, percent: int | None) -> StreamOutcome | None:
    alone = facts.streams.failed.get(stream)
    if isinstance(alone, BusyError):
        return None
    error = facts.error or facts.streams.incomplete.get(stream) or alone
    cohorts = [each for each in facts.cohorts.all if each.mapping.stream == stream]
    failed = [each for each in cohorts if each.error or each.result.is_incomplete]
    errors = [(each, each.error or incomplete_input(each.mapping)) for each in failed]
    found = [*([(None, error)] if error is not None else []), *errors]
    found.sort(key=lambda each: isinstance(each[1], WithheldError))  # failures come first
    if found and found[0][1].code == _PAUSED:
        return None
    for cohort, error in found:
        return _with_error(stream, error, cohort)
    if (plan := _withheld_plan(stream, cohorts)) is not None:
        return plan
    if any(each.result.removals_waiting for each in cohorts):
        return None  # `confirm` reports their outcome
    return _turnover(facts, stream, percent)


def _with_error(stream: str, error: TargetError, cohort: SyncedCohort | None) -> StreamOutcome:
    state = State.WITHHELD if isinstance(error, WithheldError) else State.FAILED
    return StreamOutcome(
        stream=stream,
        state=state,
        cohort_id=None if cohort is None else cohort.cohort.cohort_id,
        code=error.code,
        reason=str(error),
        command=suggest("check" if state is State.FAILED else "status"),
    )


def _withheld_plan(stream: str, cohorts: Sequence[SyncedCohort]) -> StreamOutcome | None:
    for cohort in cohorts:
        if cohort.result.is_withheld:
            return StreamOutcome(
                stream=stream,
                state=State.WITHHELD,
                cohort_id=cohort.cohort.cohort_id,
                code="plan_withheld",
                reason=cohort.result.reason,
                command=suggest("confirm", "--withheld", str(cohort.result.plan_id)),
            )
    return None


def _turnover(facts: RunFacts, stream: str, percent: int | None) -> StreamOutcome:
    """Return the outcome of a stream of which everything was delivered."""
    for each in facts.reports:
        if each.stream != stream or each.accepted is None:
            continue
        before = facts.cohorts.by_id[each.cohort_id or ""].base
        # Of those that were sent, some may have been there: after resync, or after a lost answer.
        added = min(each.added, max(each.accepted.count - before + each.removed, 0))
        if is_turnover(added=added, removed=each.removed, before=before, percent=percent):
            share = (added + each.removed) / before
            return StreamOutcome(
                stream=stream,
                state=State.TURNOVER,
                cohort_id=each.cohort_id,
                code="turnover",
                reason=f"{share:.0%} of {format_count(before, 'member')} changed ({added:,} added, "
                f"{each.removed:,} removed), more than alert_turnover_percent {percent}",
                command=suggest("status"),
            )
    return StreamOutcome(stream=stream, state=State.OK, command=suggest("status"))
