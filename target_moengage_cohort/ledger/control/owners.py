"""The stream and the name that a cohort must keep."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import MismatchError, RowError

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.ledger.records import CohortEntry


def check_owner(entry: CohortEntry, cohort: Cohort, stream: str) -> None:
    """Raise the error for rows of a cohort by a stream or name that it does not have."""
    if entry.is_retired:
        reason = (
            f"the cohort {entry.cohort_id!r} was retired (moengage-cohort ledger retire); remove "
            "it from the input or the mapping, or use another cohort_id and cohort_name"
        )
        raise RowError("cohort_retired", reason, entry.cohort_id)
    if entry.stream != stream:
        reason = (
            f"the ledger of cohort {entry.cohort_id!r} belongs to stream "
            f"{entry.stream!r}; to let {stream!r} populate the cohort from now on, run: "
            f"{suggest('ledger', 'reassign', entry.cohort_id, stream)}"
        )
        raise MismatchError("cohort_of_other_stream", f"cohorts.{stream}", reason)
    if entry.name != cohort.name:
        reason = (
            f"the ledger of cohort {cohort.cohort_id!r} has the name "
            f"{entry.name!r}, not {cohort.name!r}; to rename the cohort, run: "
            f"{suggest('ledger', 'rename', cohort.cohort_id, cohort.name)}"
        )
        raise MismatchError("cohort_renamed", f"cohorts.{stream}.cohort_name", reason)
