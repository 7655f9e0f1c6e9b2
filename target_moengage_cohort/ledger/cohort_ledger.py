"""The ledger of one cohort: what each engine does in its way, and what is in control."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import RowError, SettingsError
from target_moengage_cohort.ledger.control.new_cohorts import check_owner
from target_moengage_cohort.ledger.records import PlanKind, RefusedDoubt

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Action, Cohort, Member
    from target_moengage_cohort.ledger.control.memberless import MemberlessCohort
    from target_moengage_cohort.ledger.records import (
        CohortEntry,
        FoldedCohort,
        LedgerCounts,
        Plan,
        RequestState,
    )
    from target_moengage_cohort.ledger.samples import Samples
    from target_moengage_cohort.ledger.snapshot import Observation
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger

CohortRecord: t.TypeAlias = "CohortLedger | MemberlessCohort"
"""The record of a cohort's requests, whether its members are kept or not."""


class CohortLedger(t.Protocol):
    """The ledger of one cohort, a part of its stream's.

    Delivery records a request before it leaves, and its answer. The requests of a cohort never
    overlap.
    """

    stream: StreamLedger
    entry: CohortEntry  # with its numbers as of the last fold
    number: int  # in the store
    created: bool  # by this store
    exists: bool  # a read-only store does not create it
    last_timestamp: int  # the latest request's or later, in milliseconds; 0 without any
    revision: int  # rises with every request and every other change that makes plans outdated

    def __init__(self, stream: StreamLedger, entry: CohortEntry, *, created: bool) -> None:
        self.stream = stream
        self.entry = entry
        self.number = entry.number
        self.created = created
        self.exists = entry.number > 0
        self.last_timestamp = entry.last_timestamp
        self.revision = entry.revision

    @property
    def is_sealed(self) -> bool:
        """Whether this one_time cohort is finished."""
        return self.entry.is_sealed

    def check(self, cohort: Cohort, stream: str) -> None:
        """Check that stream and name are the ones that the ledger has; record a description."""
        check_owner(self.entry, cohort, stream)
        if self.entry.description != cohort.description and not self.stream.read_only:
            self._describe(description=cohort.description)

    # Requests; these methods are for all threads

    def sent(self, action: Action, members: bytes, count: int, timestamp: int) -> int:
        """Record a request that is about to leave; return its number.

        `members` is the JSON array of its members, of which no two have the same key; `timestamp`
        is in milliseconds since 1970. They are unconfirmed from then on. After an error the request
        must not leave.
        """
        timestamp, revision = max(self.last_timestamp, timestamp), self.revision + 1
        number = self.stream.requests.add(self.number, action, members, count, timestamp, revision)
        self.last_timestamp, self.revision = timestamp, revision
        return number

    def check_lease(self) -> None:
        """Raise a `LedgerError` unless the stream is this run's until an attempt ends.

        To be called right before each attempt at a request.
        """
        self.stream.control.database.check_lease()

    def answered(self, number: int, state: RequestState) -> None:
        """Record the outcome of a request; durable on return."""
        self.stream.requests.answer(number, state)

    # Members

    def numbers(self) -> LedgerCounts:
        """Return how many members the ledger has, after all requests that were answered."""
        self.stream.fold()
        return self.entry.counts

    def doubts(self, *, refused: bool = True) -> Iterator[list[tuple[Action, Member]]]:
        """Yield the changes that earlier runs left unconfirmed and this run has not queued.

        The removals of members who were refused alone are among them only if `refused`. Removals
        come first, since one of an anonymous id may be that of its uid. Members with a uid come
        before anonymous ones, since they would turn those into aliases afterwards.
        """

    def refuse_doubt(self, member: Member) -> RefusedDoubt | None:
        """Note, from any thread, that a member was refused alone; `None` if it was confirmed."""
        revision = self.revision + 1
        doubt = self.stream.refuse_doubt(self.number, member, self.last_timestamp, revision)
        if doubt is RefusedDoubt.NEW:
            self.revision = revision
        return doubt

    def members(self) -> Iterator[list[Member]]:
        """Yield the members that are accepted or unconfirmed, in chunks."""

    def accepted(self) -> Iterator[list[Member]]:
        """Yield the accepted members without an unconfirmed removal, in chunks."""

    def aliases(self) -> Iterator[list[Member]]:
        """Yield the anonymous members that came with a uid, and do not count as members."""

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Return the members, aliases included, that share an identifier with these."""

    def samples(self, size: int, seed: str) -> Samples:
        """Draw random samples of at most so many members each; equal seeds draw the same."""

    def kept_removals(self) -> Iterator[list[Member]]:
        """Yield some of the latest removals of members that were not added again, in chunks."""

    def observe(self, chunks: Iterable[Sequence[tuple[Action, Member]]]) -> Observation:
        """Compare the ledger with an observed membership; the last row of a member counts."""

    def doubt_all(self) -> int:
        """Mark every accepted member as unconfirmed, to be sent again; return their number."""
        self.stream.fold()
        self.stream.doubt([self.number])
        if self.is_sealed:
            self._describe(is_sealed=0)
        return self.entry.counts.accepted.count

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Record members as accepted without sending them; return how many were not before."""

    def note_folded(self, folded: FoldedCohort) -> None:
        """Take over the numbers after a change of the members."""
        changes = {"mark": folded.mark, "counts": folded.counts}
        self.entry = msgspec.structs.replace(self.entry, **changes)

    # Facts

    def seal(self) -> None:
        """Record that a one_time cohort is finished."""
        self._describe(is_sealed=1)

    def retire(self) -> None:
        """Mark the cohort as retired, so that no run populates it; its name stays reserved."""
        self._describe(is_retired=1)

    def rename(self, name: str) -> None:
        """Give the cohort another name."""
        control = self.stream.control
        try:
            control.new.check_name(msgspec.structs.replace(self.entry.cohort, name=name))
        except RowError as error:
            raise SettingsError(error.code, error.reason) from None
        self._describe(name=name, revision=self.revision + 1)

    def reassign(self, stream: str) -> None:
        """Assign the cohort to another stream, which has taken over its members."""
        latest = self.last_timestamp  # in the former stream
        self._describe(stream=stream, revision=self.revision + 1, last_timestamp=latest)

    def _describe(self, **facts: object) -> None:
        self.entry = self.stream.control.describe(self.entry, **facts)
        self.revision = max(self.revision, self.entry.revision)

    # Plans

    def plans(self) -> list[Plan]:
        """Return the plans, the oldest first."""
        return self.stream.plans.of_cohorts([self.number]).get(self.number, [])

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members that a plan adds, or those that it removes, in chunks."""

    def doubt_resent(self, plan_id: str) -> None:
        """Mark the accepted members that a plan adds as unconfirmed, before its removals leave."""

    def renew_plan(self, plan_id: str) -> None:
        """Mark a plan as up to date with the ledger as it is now."""
        self._replace(plan_id, revision=self.revision)

    def withhold_plan(self, plan_id: str) -> None:
        """Turn a pending plan into a withheld one."""
        self._replace(plan_id, kind=PlanKind.WITHHELD)

    def drop_plans(self, plan_id: str | None = None) -> None:
        """Delete plans with their members: all, or only the one with an id; end approvals."""
        self.stream.drop_plan(self.number, plan_id, ends_approvals=True)

    def _replace(self, plan_id: str, **changes: object) -> None:
        plans = [plan for plan in self.plans() if plan.plan_id == plan_id]
        changed = [msgspec.structs.replace(plan, **changes) for plan in plans]
        self.stream.plans.keep([(self.number, plan) for plan in changed])
