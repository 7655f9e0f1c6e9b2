"""Unarchives cohorts before MoEngage's archiving of unused segments can end their use."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, TargetError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.moengage.api_errors import ApiError
from target_moengage_cohort.moengage.segments import Segments

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.segments.segment_directory import Sending

logger = logging.getLogger(__name__)

_DAY_SECONDS = 86_400.0
_ARCHIVED_AFTER_DAYS = 60
_LONGEST_SECONDS = 30.0  # of a run, however slow MoEngage is


class _Tried:
    """The outcome for each cohort that was tried: it is in one of the lists.

    Attributes:
        absent: Those that MoEngage does not have.
        reason: Why the first one failed.
        is_ended: Whether the last one failed by an error that may be about the others, too.
    """

    def __init__(self) -> None:
        self.unarchived: list[CohortEntry] = []
        self.absent: list[CohortEntry] = []
        self.failed: list[CohortEntry] = []
        self.reason: TargetError | None = None
        self.is_ended = False

    @property
    def count(self) -> int:
        """How many were tried."""
        return len(self.unarchived) + len(self.absent) + len(self.failed)


class Unarchiver:
    """Unarchives the cohorts of a run's streams that are due, within MoEngage's limits.

    It never waits for a permit. What is left is tried by the next run. After an error that is not
    about a single cohort, nothing more is tried in the run; after a call without an answer, nothing
    more of its stream.
    """

    def __init__(self, context: RunContext, store: LedgerStore, sending: Sending) -> None:
        self._interrupt, self._timing = context.interrupt, context.timing
        self._days = context.settings.keep_unarchived_days
        self._store = store
        self._sending = sending
        self._seconds_left = _LONGEST_SECONDS
        self._has_ended = False

    def unarchive(self, mapping: StreamMapping) -> None:
        """Unarchive the cohorts of a stream that are due by the settings.

        Raise a `LedgerError` if that cannot be recorded; no other error ends a run.
        """
        if self._days is None or self._has_ended:
            return
        now = self._timing.wall_clock()
        due = self._store.unarchivals.due(mapping.stream, now - self._days * _DAY_SECONDS)
        if not due:
            return
        entries = {each.number: each for each in self._store.entries(mapping.stream)}
        chosen = [entries[number] for number in due if _is_meant(entries[number], mapping)]
        if not chosen:
            return
        tried = self._try(chosen)
        done = [*tried.unarchived, *tried.absent]
        self._store.unarchivals.note([each.number for each in done], now, done=True)
        self._store.unarchivals.note([each.number for each in tried.failed], now, done=False)
        since = now - _ARCHIVED_AFTER_DAYS * _DAY_SECONDS
        late = [each for each in tried.unarchived if due[each.number] <= since]
        _warn_of_late([each for each in late if each.last_timestamp])  # else nothing was sent to it

    def _try(self, cohorts: Sequence[CohortEntry]) -> _Tried:
        """Try cohorts in their order, and return what became of those that were tried."""
        tried = _Tried()
        began = self._timing.clock()
        with self._sending() as send:
            segments = Segments(send)
            for cohort in cohorts:
                if self._is_over(began) or not self._unarchive(segments, cohort, tried):
                    break
        self._seconds_left -= self._timing.clock() - began
        left = cohorts[tried.count :]
        if left:
            logger.info("%s left to unarchive in the next run", format_count(len(left), "cohort"))
        if tried.absent:
            logger.info(
                "%s: MoEngage has no segment of that name yet. If this goes on, MoEngage may have "
                "dropped it: %s",
                _subject(tried.absent),
                suggest("verify", tried.absent[0].cohort_id),
                extra=_extra("not_there_yet", tried.absent[0]),
            )
        if tried.reason is not None:
            _warn_of_failed([*tried.failed, *(left if tried.is_ended else ())], tried.reason)
        return tried

    def _unarchive(self, segments: Segments, cohort: CohortEntry, tried: _Tried) -> bool:
        """Unarchive a cohort, and return whether to try the next one."""
        try:
            segments.unarchive(cohort.name)
        except LedgerError:
            raise
        except TargetError as error:
            if error.code in {"rate_limited", "interrupted"}:
                self._has_ended = True
                return False
            if error.code == "segment_not_found":
                # One that is not there yet cannot be archived for a long time.
                tried.absent.append(cohort)
                return True
            # It is noted in any case, so that the next run begins with another one.
            tried.failed.append(cohort)
            tried.reason = tried.reason or error
            tried.is_ended = not isinstance(error, ApiError)
            # Without an answer it may be this cohort alone: those of other streams are tried.
            self._has_ended = tried.is_ended and error.code != "retries_exhausted"
            return not tried.is_ended
        tried.unarchived.append(cohort)
        return True

    def _is_over(self, began: float) -> bool:
        """Return whether the run is to end, or has used up its time for this."""
        is_late = self._timing.clock() - began > self._seconds_left
        self._has_ended |= is_late or self._interrupt.is_set()
        return self._has_ended


def _is_meant(entry: CohortEntry, mapping: StreamMapping) -> bool:
    """Return whether a stream's mapping populates a cohort that was sent, or else adopted."""
    fixed, is_there = mapping.cohort, entry.last_timestamp > 0 or entry.counts.base > 0
    return is_there and (fixed is None or fixed.cohort_id == entry.cohort_id)


def _warn_of_failed(cohorts: Sequence[CohortEntry], reason: TargetError) -> None:
    logger.warning(
        "%s: not unarchived: %s. If MoEngage has archived it, no campaign can use it, and "
        "MoEngage may not keep the members that are sent to it. The next run tries again. %s",
        _subject(cohorts),
        reason,
        _how_to_resend(cohorts[0]),
        extra=_extra("unarchive_failed", cohorts[0]),
    )


def _warn_of_late(cohorts: Sequence[CohortEntry]) -> None:
    if cohorts:
        logger.warning(
            "%s: unarchived for the first time in at least %d days. MoEngage may have archived "
            "it in the meantime, and may not have kept the members sent to it then. %s",
            _subject(cohorts),
            _ARCHIVED_AFTER_DAYS,
            _how_to_resend(cohorts[0]),
            extra=_extra("unarchived_late", cohorts[0]),
        )


def _subject(cohorts: Sequence[CohortEntry]) -> str:
    more = f" (and {format_count(len(cohorts) - 1, 'other')})" if len(cohorts) > 1 else ""
    return f"cohort {cohorts[0].cohort_id!r}{more}"


def _how_to_resend(cohort: CohortEntry) -> str:
    if cohort.has_members:
        return f"To send its members again, run: {suggest('resync', cohort.cohort_id)}"
    return "To send its members again, make the tap read all rows again (--full-refresh)"


def _extra(code: str, cohort: CohortEntry) -> dict[str, str]:
    return {"code": code, "stream": cohort.stream, "cohort_id": cohort.cohort_id}
