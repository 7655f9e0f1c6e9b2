"""The plans of mirrors: decided when the input has ended, then delivered or kept for later.

A plan that is not delivered is in the ledger before any request of it leaves, so that no STATE
covers a plan that is not settled, pending or withheld.
"""

from __future__ import annotations

import hashlib
import logging
import typing as t
from collections import deque

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.settings import Removals
from target_moengage_cohort.sync.mirror.completeness import Proof
from target_moengage_cohort.sync.mirror.guard import Decision, Disposition, Rules, decide
from target_moengage_cohort.sync.mirror.proof_warnings import (
    warn_of_rejected,
    warn_of_unproven,
    warn_of_unsealed,
)
from target_moengage_cohort.sync.mirror.recorder import CohortPlan, Recorder, StreamPlan

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import DiffCounts
    from target_moengage_cohort.ledger.snapshot import Difference, Staging
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.mirror.completeness import Completeness
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

logger = logging.getLogger(__name__)

_MOST_PLANS = 32  # under way, so that streams overlap and memory stays bounded


class StagedStream(msgspec.Struct, frozen=True, kw_only=True):
    """A mirror's stream whose input has ended."""

    mapping: StreamMapping
    staging: Staging
    completeness: Completeness
    proof: Proof


class _UnderWay(msgspec.Struct, frozen=True):
    """A stream's plan that is being delivered, and its cohorts by the numbers of their ledgers."""

    plan: StreamPlan
    cohorts: dict[int, SyncedCohort]


class Settlement:
    """Settles the plans of a run's mirrors."""

    def __init__(
        self,
        context: RunContext,
        cohorts: Cohorts,
        delivery: Delivery,
        store: LedgerStore,
        recorder: Recorder,
    ) -> None:
        self.store = store
        self._context = context
        self._cohorts = cohorts
        self._delivery = delivery
        self._recorder = recorder
        self._streams: list[StagedStream] = []
        self._under_way: deque[_UnderWay] = deque()

    def begin(self, stream: StagedStream) -> bool:
        """Decide the plans of a stream's cohorts, and submit them; ``False`` if interrupted."""
        self._streams.append(stream)
        populated = self._populated(stream)
        if self._context.interrupt.is_set():
            return False
        if not populated:
            if not self._cohorts.of_stream(stream.mapping.stream):
                warn_of_unsealed(stream.mapping, {}, stream.proof)
            return True
        plan = self._decide(stream, populated)
        self._recorder.keep(plan)
        cohorts = {ledger.number: cohort for cohort, ledger in populated}
        for part in plan.cohorts:
            cohort = cohorts[part.ledger.number]
            _warn(cohort, part.decision, rejected=cohort.rejected or stream.completeness.rejected)
        warn_of_unproven(stream.mapping.stream, plan, stream.proof)
        desired = {
            each.ledger.entry.cohort_id: plan.difference.counts[each.ledger.number].desired.count
            for each in plan.cohorts
        }
        warn_of_unsealed(stream.mapping, desired, stream.proof)
        self._under_way.append(_UnderWay(plan, cohorts))
        if not self._submit(self._under_way[-1]):
            return False
        return len(self._under_way) < _MOST_PLANS or self._finish_oldest()

    def finish(self) -> bool:
        """Wait until all plans are delivered; return ``False`` if the run was interrupted."""
        while self._under_way:
            if not self._finish_oldest():
                return False
        for stream in self._streams:
            stream.staging.close()
        return True

    def _populated(self, stream: StagedStream) -> list[tuple[SyncedCohort, CohortLedger]]:
        """Return the cohorts that a stream populates or has populated, unless they are finished."""
        mapping = stream.mapping
        if rejected := stream.completeness.rejected:
            logger.warning(
                "stream %r: %s rejected, so its input is not complete: no members are "
                "removed, and no STATE is written. Fix the rows, or exclude them from the query",
                mapping.stream,
                format_count(rejected, "row was", "rows were"),
                extra={"code": "incomplete_after_rejects", "stream": mapping.stream},
            )
        if mapping.cohort is None:
            self._cohorts.meet_vanished(mapping)
            warn_of_rejected(self._cohorts.of_stream(mapping.stream))
        return [
            (cohort, cohort.ledger)
            for cohort in self._cohorts.of_stream(mapping.stream)
            if cohort.ledger is not None and not cohort.result.is_sealed
        ]

    def _decide(
        self, stream: StagedStream, populated: Sequence[tuple[SyncedCohort, CohortLedger]]
    ) -> StreamPlan:
        """Compare the rows with the ledgers of all cohorts, and decide for each."""
        rules = _rules(stream)
        ledgers = [ledger for _, ledger in populated]
        of_stream = ledgers[0].stream
        difference = of_stream.difference(
            stream.staging,
            ledgers,
            keeps=rules.seals,
            defers=rules.deferred,
            exclusive=bool(stream.mapping.exclusive),
            on_difference=self._delivery.prepare,
        )
        self._cohorts.row_warnings.count("outvoted", stream.mapping.stream, difference.outvoted)
        parts = []
        for cohort, ledger in populated:
            if cohort.error is not None:  # its rows are compared, and nothing comes of that
                continue
            counts = difference.counts[ledger.number]
            decision = decide(counts, rules, Proof.NO if cohort.lacks_rows else stream.proof)
            kept = self._undelivered(cohort, ledger, difference, decision)
            _note_result(cohort, counts, decision, kept)
            was_read = cohort.records > 0 or decision.removals is not Disposition.LEFT
            parts.append(CohortPlan(ledger, decision, kept, counts.approved > 0, was_read))
        return StreamPlan(of_stream, difference, parts)

    def _undelivered(
        self,
        cohort: SyncedCohort,
        ledger: CohortLedger,
        difference: Difference,
        decision: Decision,
    ) -> list[Plan]:
        """Return the parts of a cohort's plan that are not delivered now."""
        mapping, differs = cohort.mapping, difference.counts[ledger.number]
        parts = []
        for kind, disposition in (
            (PlanKind.WAITING, Disposition.WAITING),
            (PlanKind.WITHHELD, Disposition.WITHHELD),
        ):
            additions = decision.additions is disposition
            removals = decision.removals is disposition
            if not (additions or removals):
                continue
            digest = difference.digest(ledger.number, additions=additions, removals=removals)
            name = f"{cohort.cohort.cohort_id}\n{kind.value}\n{digest}"
            part = Plan(
                plan_id=hashlib.sha256(name.encode()).hexdigest()[:12],
                kind=kind,
                run_id=self._context.run_id,
                stream=mapping.stream,
                made_at=self._context.timing.wall_clock(),
                revision=ledger.revision,
                base=differs.base,
                additions=differs.additions if additions else 0,
                removals=differs.removals - differs.approved if removals else 0,
                leaving=differs.leaving if removals else 0,
                desired=decision.remaining,
                max_removal_percent=mapping.max_removal_percent,
                seals=(
                    mapping.sync_mode is SyncMode.ONE_TIME
                    and decision.additions is Disposition.DELIVERED
                    and differs.desired.count > 0
                ),
            )
            parts.append(part)
        return parts

    def _submit(self, under_way: _UnderWay) -> bool:
        """Submit the changes that may be sent, cohort by cohort; ``False`` if interrupted.

        Removals first, and closed: where one shares an anonymous id with a member to add, or with
        one that turned out to be the same person, the addition must come last.
        """
        plan, latest, latest_action = under_way.plan, None, None
        for number, action, members in plan.changes():
            cohort = under_way.cohorts[number]
            if latest is not None and (latest, latest_action) != (cohort, action):
                self._delivery.close(latest.cohort.cohort_id)  # this part of its plan is complete
            latest, latest_action = cohort, action
            if not self._delivery.submit([cohort.change(action, each) for each in members]):
                return False
            plan.ledger.fold_if_large()
        if latest is not None:
            self._delivery.close(latest.cohort.cohort_id)
        return True

    def _finish_oldest(self) -> bool:
        """Wait until the oldest plan is delivered; return ``False`` if interrupted."""
        under_way = self._under_way.popleft()
        for cohort in under_way.cohorts.values():
            if not self._delivery.finish(cohort.cohort.cohort_id):
                return False
        plan, cohorts = under_way.plan, under_way.cohorts
        delivered = [each for each in plan.cohorts if cohorts[each.ledger.number].error is None]
        self._recorder.finish(msgspec.structs.replace(plan, cohorts=delivered))
        plan.difference.close()
        return True


def _rules(stream: StagedStream) -> Rules:
    mapping = stream.mapping
    return Rules(
        max_removal_percent=mapping.max_removal_percent,
        max_addition_percent=mapping.max_addition_percent,
        deferred=mapping.removals is Removals.DEFERRED,
        needs_proof=mapping.removals is Removals.PROVEN,
        seals=mapping.sync_mode is SyncMode.ONE_TIME,
    )


def _note_result(
    cohort: SyncedCohort, differs: DiffCounts, decision: Decision, kept: Sequence[Plan]
) -> None:
    """Note the outcome of a plan in its cohort's result."""
    result = cohort.result
    result.differs = differs
    result.reason, result.objection = decision.reason, decision.objection
    if decision.removals is Disposition.LEFT:
        result.removals_withheld = differs.removals
        result.is_incomplete = differs.removals > 0
    if decision.removals is Disposition.WITHHELD:
        result.removals_withheld = differs.removals - differs.approved
    if decision.removals is Disposition.WAITING:
        result.removals_waiting = differs.removals
    if decision.additions is Disposition.WITHHELD:
        result.additions_withheld = differs.additions
    for part in kept:
        result.plan_id = part.plan_id


def _warn(cohort: SyncedCohort, decision: Decision, *, rejected: int) -> None:
    """Warn of a plan that is not delivered as a whole."""
    cohort_id = cohort.cohort.cohort_id
    extra = {"stream": cohort.mapping.stream, "cohort_id": cohort_id}
    if decision.objection is not None:
        logger.warning(
            "cohort %r: %s. The guard will withhold the removals when they are confirmed, so check "
            "the tap's log first",
            cohort_id,
            decision.objection,
            extra=extra | {"code": "guard_will_object"},
        )
    if decision.reason is None:
        return
    code, advice = "incomplete_input", "Find out why the input ended early, then run again"
    if rejected:
        advice = "Fix the rows that were rejected"
    if decision.is_withheld:
        code = "plan_withheld"
        advice = (
            "The plan is withheld. If it is intended, release it with: "
            f"{suggest('confirm', '--withheld', str(cohort.result.plan_id))}"
        )
    logger.warning(
        "cohort %r: %s. %s", cohort_id, decision.reason, advice, extra=extra | {"code": code}
    )
