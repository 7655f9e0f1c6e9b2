"""Who joins a new cohort is sent while the rows are still being read.

Of a cohort that nobody is in, every row is an addition, whatever follows; so a first sync need not
wait for the end of its input. What is left then, and nothing else, is a matter of the difference.
"""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action

if t.TYPE_CHECKING:
    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.ledger.duckdb.staging import Staging
    from target_moengage_cohort.sync.cohorts import SyncedCohort

_ROWS_AT_ONCE = 100_000


class HeadStart:
    """The head start of one cohort, whose stream feeds no other.

    Args:
        staging: Has the rows.
        destination: The cohort; nobody is accepted or in doubt.
        dispatcher: Delivers changes.
    """

    def __init__(self, staging: Staging, destination: SyncedCohort, dispatcher: Dispatcher) -> None:
        self._staging = staging
        self._destination = destination
        self._dispatcher = dispatcher
        self._position = 0  # what was staged before it is sent
        self._is_over = False

    def advance(self) -> None:
        """Send what has been staged, as far as that does not mean to wait.

        Raises:
            TargetError: A request has failed for good, or the ledger.
        """
        while self._position < self._staging.rows and self._dispatcher.has_room:
            # After a deletion the last row of a member has to be known.
            if self._is_over or self._staging.has_absent:
                return
            end = min(self._position + _ROWS_AT_ONCE, self._staging.rows)
            members = self._staging.new_members(self._position, end)
            self._position = end
            change = self._destination.change
            self._dispatcher.submit([change(Action.ADD, member) for member in members])

    def end(self) -> bool:
        """Wait until what left is accepted, and take back what did not; ``False`` if interrupted.

        Raises:
            TargetError: A request has failed for good.
        """
        self._is_over = True
        cohort_id = self._destination.cohort.cohort_id
        self._dispatcher.take_back(cohort_id)
        is_done = self._dispatcher.finish(cohort_id)
        lane = self._dispatcher.lanes.get(cohort_id)
        self._destination.settlement.sent_before = 0 if lane is None else lane.added
        return is_done
