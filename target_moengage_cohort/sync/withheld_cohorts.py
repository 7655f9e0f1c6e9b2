"""The cohorts of a fan-out that are withheld as a whole: a name, an owner or a size is wrong."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import MismatchError, RowError, SettingsError, WithheldError
from target_moengage_cohort.sync.synced_cohort import SyncedCohort

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.settings import StreamMapping

logger = logging.getLogger(__name__)

_NAMES = {"cohort_renamed", "invalid_cohort_name", "duplicate_cohort_name", "no_room_for_members"}
_OWNERS = {"cohort_of_other_stream", "cohort_of_other_partner"}
WITHHOLDS = _NAMES | _OWNERS
"""The codes of errors for which one cohort of many is withheld, and the others continue."""


class WithheldCohorts:
    """Stand-ins for cohorts that cannot be opened, so that their rows are read and dropped."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity  # of a request: no member is refused for its size
        self._cohorts: dict[tuple[str, str], SyncedCohort] = {}

    @property
    def cohorts(self) -> Iterable[SyncedCohort]:
        """All of them."""
        return self._cohorts.values()

    def get(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort | None:
        """Return a stream's cohort if it is withheld."""
        return self._cohorts.get((mapping.stream, cohort.cohort_id)) if self._cohorts else None

    def add(
        self, cohort: Cohort, mapping: StreamMapping, error: RowError | SettingsError
    ) -> SyncedCohort:
        """Withhold a cohort for an error, and warn of that."""
        synced = SyncedCohort(cohort, mapping, self._capacity)
        synced.fail(withheld_error(cohort, mapping, error))
        self._cohorts[mapping.stream, cohort.cohort_id] = synced
        return synced


def withheld_error(
    cohort: Cohort, mapping: StreamMapping, error: RowError | SettingsError
) -> WithheldError:
    """Return the error for which a cohort is withheld, and warn of it."""
    column, value = mapping.cohort_id_column, cohort.cohort_id
    if error.code in _NAMES and mapping.cohort_name_column is not None:
        column, value = mapping.cohort_name_column, cohort.name
    reason = error.reason if isinstance(error, RowError | MismatchError) else str(error)
    message = (
        f"stream {mapping.stream!r}: the cohort {cohort.cohort_id!r} is withheld, and the others "
        f"continue: the column {column!r} contains {value!r}, and {reason}. No STATE covers its "
        "rows"
    )
    extra = {"code": error.code, "stream": mapping.stream, "cohort_id": cohort.cohort_id}
    logger.warning("%s", message, extra=extra)
    return WithheldError(error.code, message)


def two_names(synced: SyncedCohort) -> RowError:
    """Return the error of a cohort with another name than this one's in the same run."""
    reason = (
        f"other rows of this run have the name {synced.cohort.name!r}; give all rows of a cohort "
        "the same name"
    )
    return RowError("cohort_renamed", reason)


def other_owner(synced: SyncedCohort) -> RowError:
    """Return the error of a cohort that another stream of the same run populates."""
    cohort_id, owner = synced.cohort.cohort_id, synced.mapping.stream
    reason = (
        f"the stream {owner!r} populates that cohort; remove it from one of the streams. To "
        f"change its stream, see: {suggest('ledger', 'reassign', cohort_id, owner)}"
    )
    return RowError("cohort_of_other_stream", reason)
