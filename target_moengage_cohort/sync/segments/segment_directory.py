"""The names of the segments in MoEngage, as far as it lists them."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import EXAMPLE_CSV, suggest
from target_moengage_cohort.core.errors import LedgerError, TargetError
from target_moengage_cohort.moengage.segments import Segments

if t.TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.moengage.calls import Send
    from target_moengage_cohort.settings import StreamMapping

    Sending: t.TypeAlias = t.Callable[[], AbstractContextManager[Send]]

logger = logging.getLogger(__name__)


class SegmentDirectory:
    """The names of all segments, requested from MoEngage once, when first needed.

    It may not list cohorts, or the request may be disabled, so a missing name may be taken.

    Attributes:
        listed: The names, once MoEngage has listed them; none until then.
        failure: Why it could not be asked, if it could not.
    """

    def __init__(self, sending: Sending | None = None) -> None:
        self._sending = sending
        self.listed: frozenset[str] = frozenset()
        self.failure: TargetError | None = None

    def names(self) -> frozenset[str]:
        """Return the names; none if the request is disabled, or fails."""
        if (sending := self._sending) is None:
            return self.listed
        self._sending = None
        try:
            with sending() as send:
                self.listed = frozenset(segment.name for segment in Segments(send).list())
        except LedgerError:  # of the limit that hosts share
            raise
        except TargetError as error:
            self.failure = error
            logger.warning(
                "could not check whether MoEngage already has segments with the names of new "
                "cohorts: %s",
                error,
                extra={"code": "segments_unknown"},
            )
        return self.listed


def taken_name(cohort: Cohort, mapping: StreamMapping) -> str:
    """Return why a new cohort cannot have the name of a segment, as a clause."""
    words = ["adopt", cohort.cohort_id, "--csv", EXAMPLE_CSV]
    if mapping.cohort is None:
        words += ["--stream", mapping.stream, "--name", cohort.name]
    return (
        f"the new cohort {cohort.cohort_id!r} has the name {cohort.name!r} of a segment that "
        "MoEngage already has, so MoEngage would drop its members without an error; choose "
        "another name. If that segment is this cohort and its ledger was lost, import its "
        f"members: {suggest(*words)}"
    )
