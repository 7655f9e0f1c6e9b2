"""The warning of removals that were made without proof that the input is complete."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.sync.mirror.guard import WAYS_TO_PROOF, Disposition

if t.TYPE_CHECKING:
    from target_moengage_cohort.sync.mirror.completeness import Proof
    from target_moengage_cohort.sync.mirror.recorder import StreamPlan

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
        "stream %r: %s of %s without proof that the input is complete; after a tap that failed the "
        "input would look the same. %s. To have such removals withheld, set removals: proven",
        stream,
        format_count(sum(removals.values()), "removal"),
        where,
        WAYS_TO_PROOF,
        extra=extra,
    )
