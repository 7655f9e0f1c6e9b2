"""The new cohorts of a run, which are created only if they are not too many."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import CohortError

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort


class Admission:
    """Holds new cohorts, and creates all of them or none."""

    def __init__(self, store: LedgerStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._room: int | None = None
        self._is_exceeded = False
        self.held: dict[str, SyncedCohort] = {}  # those that wait, by id
        # For each stream with too many, one that stands for all further ones: memory is bounded.
        self.refused: dict[str, SyncedCohort] = {}

    def hold(self, cohort: SyncedCohort) -> None:
        """Hold a new cohort; refuse it and all others that are held if they are too many."""
        if self._room is None:
            self._room = self._limit - self._store.recent_cohorts()
        cohort.is_held = True
        self.held[cohort.cohort.cohort_id] = cohort
        if self._is_exceeded or len(self.held) > self._room:
            self._is_exceeded = True
            self._refuse(max(0, self._room))

    def _refuse(self, room: int) -> None:
        held, self.held = self.held, {}
        for cohort in held.values():
            stream = cohort.mapping.stream
            msg = (
                f"stream {stream!r}: its new cohorts are too many: max_new_cohorts is "
                f"{self._limit:,} in 7 days, which leaves {room:,}. Nothing is sent for any of "
                "them, because MoEngage never frees a name. Check cohort_id_column, or raise "
                "max_new_cohorts"
            )
            cohort.fail(CohortError("too_many_new_cohorts", msg))
            self.refused.setdefault(stream, cohort)

    def admit(self, cohorts: Iterable[SyncedCohort]) -> None:
        """Create cohorts that are held; those that another run was faster to create fail alone."""
        admitted = {each.cohort.cohort_id: each for each in cohorts}
        errors = self._store.admit(admitted) if admitted else {}
        for cohort_id, cohort in admitted.items():
            del self.held[cohort_id]
            cohort.is_held = False
            if (error := errors.get(cohort_id)) is not None:
                cohort.fail(CohortError(error.code, f"{cohort.where}: {error.reason}"))
        self._room = (self._room or 0) - len(admitted)
