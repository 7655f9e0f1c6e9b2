"""What a run did for each cohort, put together from who read and who sent."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.delivery.lanes import Lane
from target_moengage_cohort.report import CohortReport

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from target_moengage_cohort import settings
    from target_moengage_cohort.sinks import Destination


def cohort_reports(
    destinations: Iterable[Destination],
    lanes: Mapping[str, Lane],
    unplaced: Mapping[settings.Mapping, int],
    *,
    complete: bool,
) -> list[CohortReport]:
    """The report's entries.

    Args:
        destinations: What was read of each cohort.
        lanes: What was sent to a cohort, by its id.
        unplaced: By the mapping of their stream, how many rejected rows named no cohort.
        complete: Whether the input was read to its end, and all of it accepted.
    """
    proof: t.Literal["end_of_input", "no"] = "end_of_input" if complete else "no"
    found = []
    for destination in destinations:
        cohort, mapping = destination.cohort, destination.mapping
        lane = lanes.get(cohort.cohort_id) or Lane(cohort)
        found.append(
            CohortReport(
                cohort_id=cohort.cohort_id,
                cohort_name=cohort.name,
                stream=mapping.stream,
                sync_mode=mapping.sync_mode.value,
                records=destination.records,
                added=lane.added,
                removed=lane.removed,
                unchanged=destination.skipped + lane.merged,
                rejected=destination.rejected,
                in_doubt=lane.in_doubt,
                requests=lane.requests,
                bytes=lane.bytes,
                complete=proof,
            )
        )
    found += [
        CohortReport(
            cohort_id=None,
            cohort_name=None,
            stream=mapping.stream,
            sync_mode=mapping.sync_mode.value,
            records=count,
            rejected=count,
            complete=proof,
        )
        for mapping, count in unplaced.items()
    ]
    return found
