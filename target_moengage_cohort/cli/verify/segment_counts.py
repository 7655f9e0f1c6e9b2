"""Asks MoEngage how many members of a cohort's samples are in its segment."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.cli.verify.verification import Result, Unknown, blank, undecided
from target_moengage_cohort.core.errors import TargetError
from target_moengage_cohort.moengage.analytics import Analytics
from target_moengage_cohort.moengage.filters import FilterGroup, all_of, attribute_in, in_segment
from target_moengage_cohort.moengage.segments import Segments

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.cli.verify.sampled_cohort import SampledCohort
    from target_moengage_cohort.moengage.calls import Send

_OF_THIS_QUERY = {"query_failed", "query_not_found", "query_pending"}
"""Errors that do not affect other queries, and that a later query may not have."""
_PASSING = {*_OF_THIS_QUERY, "rate_limited"}


class SegmentCounts:
    """Counts samples in their segments, one query for each cohort.

    ``wait`` waits for a number of seconds, and returns whether the command is to end instead.
    """

    def __init__(self, send: Send, id_attribute: str, wait: Callable[[float], bool]) -> None:
        self._segments, self._analytics = Segments(send), Analytics(send, id_attribute)
        self._id_attribute, self._wait = id_attribute, wait
        self._ids: dict[str, str] = {}  # of the segments, by their names
        self.stopped_by: Unknown | None = None  # why no other query would be answered

    def resume(self) -> None:
        """Ask again if what stopped the queries passes with time."""
        if self.stopped_by is not None and self.stopped_by.is_passing:
            self.stopped_by = None

    def result(self, cohort: SampledCohort) -> Result:
        """Return what MoEngage says about a cohort; never raise a `TargetError`."""
        if self.stopped_by is not None:
            return undecided(blank(cohort.entry), self.stopped_by)
        try:
            counts = self._counts(cohort)
        except TargetError as error:
            reason = Unknown(error.code, str(error), error.code in _PASSING, error.exit_code)
            if error.code not in _OF_THIS_QUERY:
                self.stopped_by = reason
            return undecided(blank(cohort.entry), reason)
        if isinstance(counts, Unknown):
            return undecided(blank(cohort.entry), counts)
        return cohort.result(iter(counts))

    def _counts(self, cohort: SampledCohort) -> tuple[int, ...] | Unknown:
        name = cohort.entry.name
        if name not in self._ids:
            found = [each.id for each in self._segments.list(name) if each.name == name and each.id]
            if len(found) != 1:
                return _UNLISTED
            (self._ids[name],) = found
        groups = [*_groups(cohort, self._ids[name], self._id_attribute)]
        return self._analytics.users(groups, self._wait)


_UNLISTED = Unknown(
    "segment_not_listed",
    "MoEngage lists no segment with this name. The segment may not exist yet, may be archived, or "
    "may be of a kind that MoEngage does not list. Look for it in the dashboard",
    is_passing=True,
)


def _groups(cohort: SampledCohort, segment_id: str, id_attribute: str) -> Iterator[FilterGroup]:
    """Yield the groups that `SampledCohort.result` takes the numbers of."""
    segment = in_segment(segment_id, cohort.entry.name)
    yield all_of(segment)
    for uids, _ in (cohort.members, cohort.removed):
        if uids:
            known = attribute_in(id_attribute, uids)
            yield all_of(known)
            yield all_of(segment, known)
