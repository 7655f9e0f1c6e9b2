"""The new cohorts of a run, which are created only after all checks pass."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import CohortError
from target_moengage_cohort.sync.segments.segment_directory import taken_name

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.sync.context import ApiEndpoints
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

Sample: t.TypeAlias = (
    "t.Callable[[Sequence[SyncedCohort]], Mapping[SyncedCohort, Sequence[Member]]]"
)
"""Returns some of the members that are to be added to new cohorts."""


class Admission:
    """Holds new cohorts, and creates all of them or none if they are too many.

    Others whose name MoEngage has, or whose users it does not know, fail alone.
    """

    def __init__(self, store: LedgerStore, limit: int, apis: ApiEndpoints) -> None:
        self._store = store
        self._limit = limit
        self._apis = apis
        self._room: int | None = None
        self._is_exceeded = False
        self.created = 0
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
                f"stream {stream!r}: too many new cohorts: max_new_cohorts allows "
                f"{self._limit:,} in 7 days, of which {room:,} are left. Nothing is sent for any "
                "of them, because MoEngage never frees a name. Check cohort_id_column, or raise "
                "max_new_cohorts"
            )
            cohort.fail(CohortError("too_many_new_cohorts", msg))
            self.refused.setdefault(stream, cohort)

    def admit(self, cohorts: Sequence[SyncedCohort], sample: Sample | None = None) -> None:
        """Create cohorts that are held; one that MoEngage cannot take fails alone.

        So does one that another run was faster to create. Without a `sample` no users are counted.
        """
        if cohorts:
            self._check_names(cohorts)
        if sample is not None:
            self._count_users(cohorts, sample)
        admitted = {each.cohort.cohort_id: each for each in cohorts if each.error is None}
        errors = self._store.admit(admitted) if admitted else {}
        for cohort_id, cohort in admitted.items():
            if (error := errors.get(cohort_id)) is not None:
                self._fail(cohort, CohortError(error.code, f"{cohort.where}: {error.reason}"))
            else:
                del self.held[cohort_id]
                cohort.is_held = False
        self.created += len(admitted) - len(errors)
        self._room = (self._room or 0) - len(admitted)

    def _check_names(self, cohorts: Sequence[SyncedCohort]) -> None:
        names = self._apis.directory.names()
        for each in cohorts:
            if each.cohort.name in names:
                reason = taken_name(each.cohort, each.mapping)
                self._fail(each, CohortError("name_taken", f"{each.where}: {reason}"))

    def _count_users(self, cohorts: Sequence[SyncedCohort], sample: Sample) -> None:
        guard = self._apis.match_guard
        counted = [each for each in cohorts if each.error is None and guard.applies(each.mapping)]
        for cohort, error in guard.errors(sample(counted)) if counted else ():
            self._fail(cohort, error)

    def _fail(self, cohort: SyncedCohort, error: CohortError) -> None:
        del self.held[cohort.cohort.cohort_id]
        cohort.fail(error)
