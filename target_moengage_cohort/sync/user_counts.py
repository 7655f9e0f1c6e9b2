"""Counts the users that MoEngage knows, by a query of the Analytics API."""

from __future__ import annotations

import itertools
import typing as t

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.moengage.analytics import Analytics, QueryState
from target_moengage_cohort.moengage.filters import all_of, attribute_in

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.ports import Timing
    from target_moengage_cohort.moengage.filters import FilterGroup
    from target_moengage_cohort.sync.segment_directory import Sending

LONGEST_SECONDS = 300.0
"""How long to wait for the result of a query."""
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # between looks at a query, then the longest
_LONGEST_PAUSE = 15.0


class UserCounts:
    """Counts users by queries, each of one to five groups, and waits for their results."""

    def __init__(
        self, sending: Sending, id_attribute: str, interrupt: Interrupt, timing: Timing
    ) -> None:
        self._sending = sending
        self._id_attribute = id_attribute
        self._interrupt, self._timing = interrupt, timing

    def known(self, samples: Sequence[Sequence[str]]) -> tuple[int, ...]:
        """Return how many users have one of the user IDs of each list; see `CountUsers`."""
        return self.count([all_of(attribute_in(self._id_attribute, uids)) for uids in samples])

    def count(self, groups: Sequence[FilterGroup]) -> tuple[int, ...]:
        """Return the number of users of each group."""
        with self._sending() as send:
            analytics = Analytics(send, self._id_attribute)
            request_id = analytics.count(groups)
            self._wait(analytics, request_id)
            return analytics.results(request_id, len(groups))

    def _wait(self, analytics: Analytics, request_id: str) -> None:
        """Wait until a query has succeeded; raise a `TryAgainError` if it does not."""
        deadline = self._timing.clock() + LONGEST_SECONDS
        for pause in _pauses():
            status = analytics.status(request_id)
            if status.state is QueryState.SUCCESSFUL:
                return
            if status.state is QueryState.FAILED:
                msg = f"MoEngage's query failed: {status.failure_reason or 'without a reason'}"
                raise TryAgainError("query_failed", msg)
            if self._timing.clock() + pause > deadline:
                msg = f"MoEngage's query had no result within {LONGEST_SECONDS:,.0f} s"
                raise TryAgainError("query_slow", msg)
            if self._interrupt.wait(pause):
                raise TryAgainError("interrupted", "the run was interrupted")


def _pauses() -> Iterator[float]:
    return itertools.chain(_PAUSES, itertools.repeat(_LONGEST_PAUSE))
