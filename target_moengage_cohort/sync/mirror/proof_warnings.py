"""Warnings of what a mirror does, or leaves, without proof that its input is complete."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.settings import Removals
from target_moengage_cohort.sync.mirror.completeness import Proof
from target_moengage_cohort.sync.mirror.guard import WAYS_TO_PROOF, Disposition

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.mirror.recorder import StreamPlan
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

logger = logging.getLogger(__name__)


def warn_of_unproven(stream: str, plan: StreamPlan, proof: Proof) -> None:
    """Warn, once for a stream, of removals that its plan makes without proof."""
    if proof.is_proof:
        return
    removals = {
        each.ledger.entry.cohort_id: counts.removals - counts.approved
        for each in plan.cohorts
        if each.decision.removals is Disposition.DELIVERED
        and (counts := plan.difference.counts[each.ledger.number]).removals > counts.approved
    }
    if not removals:
        return
    first, extra = next(iter(removals)), {"code": "removals_without_proof", "stream": stream}
    where = f"{len(removals):,} cohorts"
    if len(removals) == 1:
        where, extra["cohort_id"] = f"cohort {first!r}", first
    logger.warning(
        "stream %r: sending %s from %s without proof that the input is complete. The input of a "
        "failed tap would look the same. %s. To withhold such removals, set removals: proven",
        stream,
        format_count(sum(removals.values()), "removal"),
        where,
        WAYS_TO_PROOF,
        extra=extra,
    )


def warn_of_rejected(cohorts: Sequence[SyncedCohort]) -> None:
    """Warn of cohorts of which rows were rejected: only they are incomplete."""
    for cohort in cohorts:
        if cohort.lacks_rows:
            logger.warning(
                "cohort %r: %s rejected, so its input is not complete: no members are removed "
                "from it, and no STATE is written. Fix the rows, or exclude them from the query",
                cohort.cohort.cohort_id,
                format_count(cohort.rejected, "row was", "rows were"),
                extra={
                    "code": "incomplete_after_rejects",
                    "stream": cohort.mapping.stream,
                    "cohort_id": cohort.cohort.cohort_id,
                },
            )


def warn_of_unsealed(mapping: StreamMapping, desired: Mapping[str, int], proof: Proof) -> None:
    """Warn of a one_time stream's cohorts that are not finished, given their numbers of members."""
    if mapping.sync_mode is not SyncMode.ONE_TIME:
        return
    empty = [cohort_id for cohort_id, count in desired.items() if not count]
    extra = {"stream": mapping.stream} | ({"cohort_id": empty[0]} if len(empty) == 1 else {})
    if empty or not desired:
        logger.warning(
            "stream %r: not finished, because the input contains no members for %s. A later run "
            "populates it. If it should have members, check the query",
            mapping.stream,
            f"cohort {empty[0]!r}" if len(empty) == 1 else "its cohorts",
            extra=extra | {"code": "one_time_empty"},
        )
    if proof is Proof.END_OF_INPUT and mapping.removals is not Removals.DEFERRED:
        logger.warning(
            "stream %r: its members were added, but nothing proves that its input is complete, "
            "so the stream is not finished: later runs also add members. %s",
            mapping.stream,
            WAYS_TO_PROOF,
            extra={"stream": mapping.stream, "code": "one_time_not_sealed"},
        )
