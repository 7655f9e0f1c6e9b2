"""The exit codes of runs, and the errors of runs that have delivered all that they could."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import InputError, WithheldError
from target_moengage_cohort.settings.declared import OnWithheld

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.settings import Settings, StreamMapping
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.reporting.report import CohortReport, Status
    from target_moengage_cohort.sync.streams import Streams

DONE, FAILED, WITHHELD = 0, 1, 3
_SIGNAL = 128  # plus its number
_SYNCED = {"succeeded", "sealed"}
_ORDER = (2, FAILED, 4, WITHHELD, DONE)


def exit_code(
    status: Status, error: TargetError | None, signal: int | None, releasable: int
) -> int:
    """Return the exit code of a run with a status, and the error or signal that ended it.

    `releasable` is that of a run that only withholds what `confirm` can release.
    """
    if signal is not None:
        return _SIGNAL + signal
    if error is not None:
        return error.exit_code
    if status == "withheld":
        return releasable
    return FAILED if status == "failed" else DONE


def error_of_some(
    cohorts: Cohorts, streams: Streams, missing: Iterable[InputError | None]
) -> TargetError | None:
    """Return the error of the streams and cohorts that failed alone, if there are any.

    `missing` are the errors of the streams without input that have one.
    """
    incomplete = streams.incomplete
    errors: list[TargetError] = [*cohorts.errors, *streams.failed.values()]
    errors = [each for each in errors if not isinstance(each, WithheldError)]
    errors += [*incomplete.values(), *filter(None, missing)]
    cut = [each.mapping for each in cohorts.by_id.values() if each.result.is_incomplete]
    errors += [incomplete_input(each) for each in cut if each.stream not in incomplete]
    return worst(errors) if errors else None


def has_unreleasable(cohorts: Cohorts, streams: Streams) -> bool:
    """Return whether a stream or a cohort is withheld as a whole: no `confirm` releases that."""
    failed = streams.failed.values()
    return cohorts.has_withheld or any(isinstance(each, WithheldError) for each in failed)


def synced_streams(streams: Streams, entries: Iterable[CohortReport]) -> dict[str, set[str]]:
    """Return the streams that a complete run has synced, each with its cohorts that it has not.

    Pending removals are not synced yet; replayed rows are not a sync.
    """
    if streams.has_replay:
        return {}
    left = {*streams.incomplete, *streams.failed}
    synced: dict[str, set[str]] = {name: set() for name in streams.by_name if name not in left}
    for each in entries:
        held = each.removals_waiting or each.removals_withheld
        if each.stream in synced and (held or each.status not in _SYNCED):
            synced[each.stream].add(each.cohort_id or "")
    return synced


def worst(errors: Sequence[TargetError]) -> TargetError:
    """Return one error for several, with the exit code that comes before the others'."""
    first = min(errors, key=lambda error: _ORDER.index(error.exit_code))
    return type(first)(first.code, "; ".join(dict.fromkeys(map(str, errors))))


def withheld_exit(settings: Settings) -> int:
    """Return the exit code if all that is withheld are plans that `confirm` can release."""
    return DONE if settings.on_withheld is OnWithheld.WARN else WITHHELD


def incomplete_input(mapping: StreamMapping) -> InputError:
    """Return the error of a mirror of which removals were left out."""
    msg = (
        f"stream {mapping.stream!r}: its input is not complete, so no members were removed; see "
        "the warnings above"
    )
    return InputError("incomplete_input", msg)
