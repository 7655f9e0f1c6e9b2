"""What a run did for each cohort, put together from who read, who sent, and the ledgers."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.delivery.lanes import Lane
from target_moengage_cohort.sync.report import CohortReport

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from target_moengage_cohort import settings
    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.ledger.records import LedgerCounts
    from target_moengage_cohort.sync.cohorts import SyncedCohort
    from target_moengage_cohort.sync.mirror.guard import Proof


def cohort_reports(
    destinations: Iterable[SyncedCohort],
    lanes: Mapping[str, Lane],
    unplaced: Mapping[settings.Mapping, int],
    proofs: Mapping[str, Proof],
    *,
    otherwise: Proof,
) -> list[CohortReport]:
    """The report's entries.

    Args:
        destinations: What was read of each cohort.
        lanes: What was sent to a cohort, by its id.
        unplaced: By the mapping of their stream, how many rejected rows named no cohort.
        proofs: By its stream, what shows that a snapshot was complete.
        otherwise: What shows that the input of another stream was complete.
    """
    found = [
        _cohort_report(
            destination,
            lanes.get(destination.cohort.cohort_id) or Lane(destination.cohort),
            proofs.get(destination.mapping.stream, otherwise),
        )
        for destination in destinations
    ]
    found += [
        CohortReport(
            cohort_id=None,
            cohort_name=None,
            stream=mapping.stream,
            sync_mode=mapping.sync_mode.value,
            records=count,
            rejected=count,
            complete=proofs.get(mapping.stream, otherwise),
        )
        for mapping, count in unplaced.items()
    ]
    return found


def _cohort_report(destination: SyncedCohort, lane: Lane, proof: Proof) -> CohortReport:
    cohort, mapping, settled = destination.cohort, destination.mapping, destination.settlement
    ledger, differs = destination.ledger, settled.differs
    numbers: LedgerCounts | None = None
    if ledger is not None:
        with contextlib.suppress(LedgerError):  # the run has failed with it already
            numbers = ledger.numbers()
    unchanged = destination.skipped + lane.merged
    if differs is not None:  # who left early and is to leave again is in none of the two
        unchanged = max(0, differs.unchanged - settled.sent_before)
    return CohortReport(
        cohort_id=cohort.cohort_id,
        cohort_name=cohort.name,
        stream=mapping.stream,
        sync_mode=mapping.sync_mode.value,
        records=destination.records,
        added=lane.added,
        removed=lane.removed,
        unchanged=unchanged,
        rejected=destination.rejected + lane.rejected,
        removals_waiting=settled.removals_waiting,
        removals_withheld=settled.removals_withheld,
        plan_id=settled.plan_id,
        in_doubt=lane.in_doubt if numbers is None else numbers.in_doubt,
        requests=lane.requests,
        bytes=lane.bytes,
        complete=proof,
        ledger=_used(ledger),
        desired=None if differs is None else differs.desired,
        accepted=None if numbers is None else numbers.accepted,
    )


def _used(ledger: Ledger | None) -> t.Literal["created", "opened", "none"]:
    if ledger is None or not ledger.exists:
        return "none"
    return "created" if ledger.created else "opened"
