"""Records the outcome of a mirror's plans in the ledgers; a dry run writes nothing."""

from __future__ import annotations

import heapq
import logging
import typing as t
from collections import defaultdict

import msgspec

from target_moengage_cohort.core.errors import TargetError
from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.sync.mirror.guard import Decision, Disposition
from target_moengage_cohort.sync.reporting.past_run import past_cohorts, past_run

if t.TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import Plan, RunEntry
    from target_moengage_cohort.ledger.snapshot import CohortMembers, Difference, Part
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger
    from target_moengage_cohort.sync.reporting.report import Report

logger = logging.getLogger(__name__)


class StreamPlan(msgspec.Struct, frozen=True):
    """A stream's plan: the difference of its cohorts, and what is decided for each of them."""

    ledger: StreamLedger
    difference: Difference
    cohorts: Sequence[CohortPlan]

    def changes(self) -> Iterator[tuple[int, Action, list[Member]]]:
        """Yield the changes that may be sent, by cohort, the removals of each first."""
        numbers: defaultdict[str, set[int]] = defaultdict(set)
        for each in self.cohorts:
            for name in each.sent:
                numbers[name].add(each.ledger.number)
        parts = (
            _chosen(self.difference.changes(name), place, numbers[name])
            for name, place in _PLACES.items()
            if numbers[name]
        )
        for number, place, members in heapq.merge(*parts, key=lambda change: change[:2]):
            yield number, Action.ADD if place else Action.REMOVE, members


_PLACES: Mapping[Part, int] = {"approved": 0, "removals": 0, "resent": 1, "additions": 2}
"""The parts of a difference, in the order in which those of a cohort are sent."""


def _chosen(
    changes: Iterator[CohortMembers], place: int, numbers: Container[int]
) -> Iterator[tuple[int, int, list[Member]]]:
    return ((number, place, members) for number, members in changes if number in numbers)


class CohortPlan(msgspec.Struct, frozen=True):
    """The decision on one cohort's part of a plan, and the parts that are not delivered now."""

    ledger: CohortLedger
    decision: Decision
    kept: Sequence[Plan]
    has_approved: bool  # whether some of its removals are approved
    was_read: bool  # whether the input has rows of it, or is complete: older plans are outdated

    @property
    def sent(self) -> list[str]:
        """The parts of the difference that are sent now, by their names in it."""
        additions, removals = self.decision.additions, self.decision.removals
        names = ["approved"] if self.has_approved and removals is not Disposition.LEFT else []
        names += ["removals"] if removals is Disposition.DELIVERED else []
        names += ["resent"] if names else []
        return names + ["additions"] * (additions is Disposition.DELIVERED)


class Recorder:
    """Writes into the ledgers of a destination.

    Attributes:
        remembers: Whether acceptances are in the ledgers.
    """

    remembers = True

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def keep(self, plan: StreamPlan) -> None:
        """Keep the parts of a plan that are not delivered, before any request of it leaves."""
        ledger = plan.ledger
        ledger.replace_plans([each.ledger.number for each in plan.cohorts if each.was_read])
        parts = [(each.ledger, part) for each in plan.cohorts for part in each.kept]
        for stream in {part.stream for _, part in parts}:
            self._store.begin(stream)  # another run may have begun, but found the ledger busy
        ledger.keep(parts, plan.difference)
        resent = [each.ledger for each in plan.cohorts if "resent" in each.sent]
        ledger.doubt_resent(plan.difference, resent)

    def finish(self, plan: StreamPlan) -> None:
        """Note that the rest of a plan was delivered."""
        plan.ledger.settle(
            plan.difference,
            complete=[
                each.ledger
                for each in plan.cohorts
                if each.decision.removals is not Disposition.LEFT
            ],
        )
        for each in plan.cohorts:
            for part in each.kept:
                each.ledger.renew_plan(part.plan_id)
            if each.decision.seals:
                each.ledger.seal()

    def note_run(
        self,
        report: Report,
        streams: Iterable[str],
        bases: Mapping[str, int],
        entries: Mapping[int, RunEntry],
    ) -> None:
        """Record the outcome of a run that has read some streams, in its cohorts, too.

        `bases` has how many members each cohort had before, by its id.
        If that fails, only warn: all that the next run needs is in the ledgers already.
        """
        try:
            run, cohorts = past_run(report, streams, bases), past_cohorts(report, bases)
            self._store.note_run(run, cohorts, entries)
        except TargetError as error:
            if report.error is None or report.error.code != error.code:
                message = "could not record the outcome of this run in the history: %s"
                logger.warning(message, error, extra={"code": "history_not_recorded"})

    def note_synced(self, streams: Mapping[str, Collection[str]]) -> None:
        """Note that streams were synced, each with the ids of its cohorts that were not."""
        self._store.note_synced(streams)


class NullRecorder(Recorder):
    """Writes nothing: a dry run's."""

    remembers = False

    def keep(self, plan: StreamPlan) -> None:
        """Do nothing."""

    def finish(self, plan: StreamPlan) -> None:
        """Do nothing."""

    def note_run(
        self,
        report: Report,
        streams: Iterable[str],
        bases: Mapping[str, int],
        entries: Mapping[int, RunEntry],
    ) -> None:
        """Do nothing."""

    def note_synced(self, streams: Mapping[str, Collection[str]]) -> None:
        """Do nothing."""
