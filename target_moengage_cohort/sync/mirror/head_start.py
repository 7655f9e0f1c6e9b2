"""Members of a new cohort are sent while the rows are still being read.

In a cohort without members every row is an addition, whatever follows; so a first sync need not
wait for the end of its input. The difference at the end covers the rest.
"""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action

if t.TYPE_CHECKING:
    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.ledger.snapshot import Staging
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

_BATCH_ROWS = 100_000


class HeadStart:
    """The head start of one cohort without members, whose stream populates no other."""

    def __init__(self, staging: Staging, cohort: SyncedCohort, delivery: Delivery) -> None:
        self._staging = staging
        self._cohort = cohort
        self._delivery = delivery
        self._sent_rows = 0
        self._is_over = False

    def advance(self) -> None:
        """Send staged rows as far as possible without waiting."""
        while self._sent_rows < self._staging.rows and self._delivery.has_room:
            # After a deletion the last row of a member has to be known.
            if self._is_over or self._staging.has_absent:
                return
            end = min(self._sent_rows + _BATCH_ROWS, self._staging.rows)
            members = self._staging.new_members(self._sent_rows, end)
            self._sent_rows = end
            change = self._cohort.change
            self._delivery.submit([change(Action.ADD, member) for member in members])

    def end(self) -> bool:
        """Wait for the sent rows, and take back the others; return ``False`` if interrupted."""
        self._is_over = True
        cohort_id = self._cohort.cohort.cohort_id
        self._delivery.take_back(cohort_id)
        is_finished = self._delivery.finish(cohort_id)
        self._cohort.result.sent_before = self._delivery.counts(cohort_id).added
        return is_finished
