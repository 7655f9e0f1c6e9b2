"""The guard of new cohorts: nothing is sent unless MoEngage knows enough of their users."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import CohortError, LedgerError, TargetError
from target_moengage_cohort.core.membership import SyncMode

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

CountUsers: t.TypeAlias = "t.Callable[[Sequence[Sequence[str]]], Sequence[int]]"
"""Returns how many users MoEngage knows of each list of user IDs, of which there are at most five.

It raises a `TargetError` if they cannot be counted.
"""

MOST_COUNTED = 1_000
"""How many members of a cohort to count at most."""
_MOST_GROUPS = 5  # of a query
_MOST_CHARACTERS = 48_000  # of a group, so that a query of five stays within 262,144
_CONTRADICTION = (
    "MoEngage counts more users than there are user IDs, so id_attribute does not identify users"
)

T = t.TypeVar("T")


class MatchGuard:
    """Counts the users of new cohorts. Without `count` it applies to none.

    Once the monthly quota is used up, nothing more is counted.
    """

    def __init__(self, count: CountUsers | None = None) -> None:
        self._count = count
        self._quota_error: TargetError | None = None

    def applies(self, mapping: StreamMapping) -> bool:
        """Return whether the new cohorts of a stream are counted."""
        is_set = mapping.min_match_percent > 0 and mapping.sync_mode is not SyncMode.REMOVE
        return is_set and self._count is not None

    def errors(
        self, samples: Mapping[SyncedCohort, Sequence[Member]]
    ) -> Iterator[tuple[SyncedCohort, CohortError]]:
        """Yield the cohorts that nothing may be sent for, each with the reason.

        `samples` are members to add. A cohort without any passes, because nothing is added to it.
        """
        counted: list[tuple[SyncedCohort, list[str]]] = []
        for cohort, members in samples.items():
            if uids := user_ids(members):
                counted.append((cohort, uids))
            elif members:
                yield cohort, _unknown(cohort, "its members have no user IDs")
        for start in range(0, len(counted), _MOST_GROUPS):
            yield from self._errors(counted[start : start + _MOST_GROUPS])

    def _errors(
        self, samples: Sequence[tuple[SyncedCohort, list[str]]]
    ) -> Iterator[tuple[SyncedCohort, CohortError]]:
        try:
            if self._quota_error is not None:
                raise self._quota_error
            known = t.cast("CountUsers", self._count)([uids for _, uids in samples])
        except LedgerError:  # of the limit that hosts share
            raise
        except TargetError as error:
            if error.code == "quota_exceeded":
                self._quota_error = error
            for cohort, _ in samples:
                yield cohort, _unknown(cohort, str(error))
            return
        for (cohort, uids), users in zip(samples, known, strict=True):
            if users > len(uids):
                yield cohort, _unknown(cohort, _CONTRADICTION)
            elif is_too_low(users, len(uids), cohort.mapping.min_match_percent):
                yield cohort, _too_low(cohort, users, len(uids))


def is_too_low(known: int, counted: int, percent: int) -> bool:
    """Return whether fewer than so many percent of the counted users are known."""
    return 100 * known < percent * counted


def spread(items: Iterable[T], most: int) -> list[T]:
    """Return at most so many items, which are evenly spaced, so that no part is left out."""
    every = [*items]
    count = min(most, len(every))
    return [every[number * len(every) // count] for number in range(count)]


def user_ids(members: Sequence[Member]) -> list[str]:
    """Return the user IDs of members, as far as a group of a query has room for them."""
    uids: list[str] = []
    characters = 0
    for uid in dict.fromkeys(member.uid for member in members if member.uid is not None):
        characters += len(uid) + 3  # with quotes and a comma
        if characters > _MOST_CHARACTERS and uids:
            break
        uids.append(uid)
    return uids


def _too_low(cohort: SyncedCohort, known: int, counted: int) -> CohortError:
    msg = (
        f"{cohort.where}: MoEngage knows {known:,} of {counted:,} user IDs of the new cohort "
        f"{cohort.cohort.cohort_id!r}, which is less than min_match_percent "
        f"({cohort.mapping.min_match_percent}), so nothing is sent for it. Check uid_column, "
        "workspace_id, data_center and id_attribute, or lower min_match_percent"
    )
    return CohortError("match_too_low", msg)


def _unknown(cohort: SyncedCohort, reason: str) -> CohortError:
    msg = (
        f"{cohort.where}: nothing is sent for the new cohort {cohort.cohort.cohort_id!r}, "
        f"because its users could not be counted: {reason}. To send it without a count, set "
        "min_match_percent to 0"
    )
    return CohortError("match_unknown", msg)
