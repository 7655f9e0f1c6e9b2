"""The streams of a run that are whole cohorts: staged as they come, settled when they have ended.

A plan that is not delivered at once is in the ledger before any request of it leaves, so that no
STATE passes it that is not settled, waiting or withheld.
"""

from __future__ import annotations

import hashlib
import logging
import typing as t
from collections import defaultdict, deque

import msgspec

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action, SyncMode
from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.settings.keys import Removals
from target_moengage_cohort.singer.messages import DELETED_AT
from target_moengage_cohort.sync.mirror.guard import Decision, Disposition, Rules, decide
from target_moengage_cohort.sync.mirror.head_start import HeadStart
from target_moengage_cohort.sync.mirror.mirror_sink import Snapshot

if t.TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.ledger import Ledger, Ledgers
    from target_moengage_cohort.ledger.duckdb.difference import Difference
    from target_moengage_cohort.settings import Mapping
    from target_moengage_cohort.sync.cohorts import Cohorts, SyncedCohort

logger = logging.getLogger(__name__)

_COHORTS_AT_ONCE = 32  # plans under way, so that cohorts overlap and memory stays bounded


class _UnderWay(msgspec.Struct, frozen=True):
    """A plan that is being delivered."""

    destination: SyncedCohort
    ledger: Ledger
    difference: Difference
    decision: Decision
    kept: tuple[str, ...]


class Snapshots:
    """All snapshot streams of a run.

    Args:
        ledgers: The ledgers of the destination.
        destinations: The cohorts of the run.
        dispatcher: Delivers changes.
        interrupt: Ends the run early.
        clock: Seconds since 1970.
        dry_run: Whether the ledgers must stay as they are.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        destinations: Cohorts,
        dispatcher: Dispatcher,
        *,
        interrupt: Interrupt,
        clock: t.Callable[[], float],
        dry_run: bool,
    ) -> None:
        self._ledgers = ledgers
        self._destinations = destinations
        self._dispatcher = dispatcher
        self._interrupt = interrupt
        self._clock = clock
        self._dry_run = dry_run
        self._by_source: defaultdict[str, list[Snapshot]] = defaultdict(list)
        self.by_stream: dict[str, Snapshot] = {}

    def of(self, mapping: Mapping, source: str) -> Snapshot:
        """The snapshot of a stream, made when it is met first.

        Raises:
            SettingsError: Two of the tap's streams would become one snapshot.
        """
        snapshot = self.by_stream.get(mapping.stream)
        if snapshot is not None and snapshot.source != source:
            msg = (
                f"stream_maps: the streams {snapshot.source!r} and {source!r} both become "
                f"{mapping.stream!r}, which is a {mapping.sync_mode.value}: nothing could show "
                "that all of it has come; make them one query"
            )
            raise SettingsError(msg)
        if snapshot is None:
            snapshot = Snapshot(mapping, source, self._ledgers.staging())
            self.by_stream[mapping.stream] = snapshot
            self._by_source[source].append(snapshot)
        return snapshot

    def give_head_start(self, mapping: Mapping, columns: Container[str]) -> None:
        """Let a stream's rows leave as they come, if its cohort is new and no row can say no.

        Args:
            mapping: The stream's.
            columns: Those of its schema.
        """
        snapshot = self.by_stream[mapping.stream]
        can_say_no = mapping.membership_column is not None or DELETED_AT in columns
        if self._dry_run or mapping.cohort is None or can_say_no:
            return
        destination = self._destinations.of(mapping.cohort, mapping)
        ledger = destination.ledger
        is_new = ledger is not None and not ledger.numbers().base
        if is_new and not destination.settlement.is_sealed and snapshot.head_start is None:
            snapshot.head_start = HeadStart(snapshot.staging, destination, self._dispatcher)

    def pause(self) -> None:
        """Make use of a time without input."""
        for snapshot in self.by_stream.values():
            snapshot.pause()

    def of_source(self, source: str) -> list[Snapshot]:
        """The snapshots that come from one of the tap's streams."""
        return self._by_source[source]

    def read(self, source: str, version: t.Any, count: int = 1) -> None:
        """Note that one of the tap's streams has sent records of one version."""
        for snapshot in self.of_source(source):
            completeness = snapshot.completeness
            if completeness.read(version, count) and type(version) is int:
                fresh = self._ledgers.use_version(snapshot.mapping.stream, version)
                snapshot.is_fresh = snapshot.is_fresh and fresh

    def settle(self) -> bool:
        """Have the plans of all cohorts delivered, or put where they wait.

        Returns:
            Whether that was done; not if the run was interrupted.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        under_way: deque[_UnderWay] = deque()
        for snapshot in self.by_stream.values():
            if snapshot.head_start is not None and not snapshot.head_start.end():
                return False
            for destination, ledger in self._fed(snapshot):
                if self._interrupt.is_set():
                    return False
                under_way.append(self._begin(snapshot, destination, ledger))
                if len(under_way) >= _COHORTS_AT_ONCE and not self._end(under_way.popleft()):
                    return False
        for plan in under_way:
            if not self._end(plan):
                return False
        for snapshot in self.by_stream.values():
            version = snapshot.completeness.version
            if snapshot.proof.is_proof and version is not None:
                self._ledgers.finish_version(snapshot.mapping.stream, version)
            snapshot.staging.close()
        return True

    def _fed(self, snapshot: Snapshot) -> list[tuple[SyncedCohort, Ledger]]:
        """The cohorts that a stream, of which all has come, feeds or has fed."""
        snapshot.flush()
        mapping = snapshot.mapping
        if rejected := snapshot.completeness.rejected:
            logger.warning(
                "stream %r: %d rows were rejected, so its input is not complete: nobody is "
                "removed, and no STATE is written. Mend them, or leave them out of the query",
                mapping.stream,
                rejected,
            )
        if mapping.cohort is None:
            self._meet_vanished(mapping)
        return [
            (destination, destination.ledger)
            for destination in self._destinations.of_stream(mapping.stream)
            if destination.ledger is not None and not destination.settlement.is_sealed
        ]

    def _meet_vanished(self, mapping: Mapping) -> None:
        """Meet the cohorts that the stream has fed before, and of which it has no row now."""
        for entry in self._ledgers.entries():
            if entry.stream == mapping.stream and entry.cohort_id not in self._destinations.by_id:
                self._destinations.of_entry(entry, mapping)

    def _begin(self, snapshot: Snapshot, destination: SyncedCohort, ledger: Ledger) -> _UnderWay:
        """Work out one cohort's plan, and send of it what may be sent."""
        mapping = snapshot.mapping
        seals = mapping.sync_mode is SyncMode.ONE_TIME
        difference = snapshot.staging.difference(ledger, destination.number, keeps=seals)
        rules = Rules(
            max_removal_percent=mapping.max_removal_percent,
            # Of a cohort that was new the first members may have left by now.
            max_addition_percent=(
                None if snapshot.head_start is not None else mapping.max_addition_percent
            ),
            deferred=mapping.removals is Removals.DEFERRED,
            seals=seals,
        )
        decision = decide(difference.differs, rules, snapshot.proof)
        settlement = destination.settlement
        settlement.differs, settlement.reason = difference.differs, decision.reason
        settlement.objection = decision.objection
        if decision.removals in {Disposition.WITHHELD, Disposition.LEFT}:
            settlement.removals_withheld = difference.differs.removals
        if decision.removals is Disposition.WAITING:
            settlement.removals_waiting = difference.differs.removals
        if decision.additions is Disposition.WITHHELD:
            settlement.additions_withheld = difference.differs.additions
        plans = self._plans(destination, difference, decision, ledger.revision)
        if not self._dry_run:
            ledger.drop_plans(PlanKind.WAITING)
            if decision.removals is not Disposition.LEFT:
                ledger.drop_plans(PlanKind.WITHHELD)
            for plan in plans:
                self._ledgers.begin(plan.stream)  # another run may have begun, but not got in
                ledger.keep(
                    plan,
                    difference,
                    additions=plan.additions > 0,
                    removals=plan.removals > 0,
                )
        self._warn(snapshot, destination, decision)
        # Removals first: where one shares an anonymous id with a member who joins, or who turned
        # out to be the same person, the addition must have the last word.
        if decision.removals is Disposition.DELIVERED:
            self._submit(destination, Action.REMOVE, difference.removals())
        if decision.additions is Disposition.DELIVERED:
            self._submit(destination, Action.ADD, difference.additions())
        self._dispatcher.close(destination.cohort.cohort_id)  # the plan is whole
        kept = tuple(plan.plan_id for plan in plans)
        return _UnderWay(destination, ledger, difference, decision, kept)

    def _plans(
        self, destination: SyncedCohort, difference: Difference, decision: Decision, revision: int
    ) -> list[Plan]:
        """The parts of a plan that are not delivered now."""
        mapping, differs = destination.mapping, difference.differs
        seals = mapping.sync_mode is SyncMode.ONE_TIME
        fates = (decision.additions, decision.removals)
        halves = {
            PlanKind.WAITING: [fate is Disposition.WAITING for fate in fates],
            PlanKind.WITHHELD: [fate is Disposition.WITHHELD for fate in fates],
        }
        plans = []
        for kind, (additions, removals) in halves.items():
            if not (additions or removals):
                continue
            digest = difference.digest(additions=additions, removals=removals)
            told = f"{destination.cohort.cohort_id}\n{kind.value}\n{digest}"
            plan = Plan(
                plan_id=hashlib.sha256(told.encode()).hexdigest()[:12],
                kind=kind,
                run_id=self._ledgers.run_id,
                stream=mapping.stream,
                made_at=self._clock(),
                revision=revision,
                base=differs.base,
                additions=differs.additions if additions else 0,
                removals=differs.removals if removals else 0,
                desired=decision.remaining,
                max_removal_percent=mapping.max_removal_percent,
                seals=seals and decision.additions is Disposition.DELIVERED,
            )
            plans.append(plan)
            destination.settlement.plan_id = plan.plan_id
        return plans

    def _warn(self, snapshot: Snapshot, destination: SyncedCohort, decision: Decision) -> None:
        cohort_id, plan_id = destination.cohort.cohort_id, destination.settlement.plan_id
        if decision.objection is not None:
            logger.warning(
                "cohort %r: %s; the guard will withhold them when they are confirmed, so look at "
                "the tap's messages first",
                cohort_id,
                decision.objection,
            )
        if decision.reason is None:
            return
        advice = "see what cut the input short, and run it again"
        if snapshot.completeness.rejected:
            advice = "mend the rows that were rejected"
        if Disposition.WITHHELD in {decision.additions, decision.removals}:
            advice = (
                "withheld; if it is right, override the guard with: moengage-cohort confirm "
                f"--withheld {plan_id} --config …"
            )
        logger.warning("cohort %r: %s; %s", cohort_id, decision.reason, advice)

    def _submit(
        self, destination: SyncedCohort, action: Action, chunks: Iterable[Sequence[Member]]
    ) -> None:
        refused = frozenset(destination.settlement.refused)  # as far as a head start went
        for chunk in chunks:
            left = [member for member in chunk if member.key not in refused]
            changes = [destination.change(action, member) for member in left]
            if not self._dispatcher.submit(changes):
                break  # `_end` will notice

    def _end(self, plan: _UnderWay) -> bool:
        """Wait until a plan is delivered, and note what follows; ``False`` if interrupted."""
        if not self._dispatcher.finish(plan.destination.cohort.cohort_id):
            return False
        ledger, decision = plan.ledger, plan.decision
        if not self._dry_run:
            ledger.fold()
            if decision.additions is Disposition.DELIVERED:
                ledger.drop_linked(plan.difference)
            if decision.removals is not Disposition.LEFT:
                ledger.clear_removed()
            for plan_id in plan.kept:
                ledger.renew_plan(plan_id)
            if decision.seals:
                ledger.seal()
        plan.difference.close()
        return True
