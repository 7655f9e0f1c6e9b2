"""A cohort of a run, with its counts and results."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import CohortError, InputError, RowError
from target_moengage_cohort.core.membership import Action, Change, Cohort, Key, Member

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import CohortLedger
    from target_moengage_cohort.ledger.records import DiffCounts
    from target_moengage_cohort.settings import StreamMapping


class SettlementResult(msgspec.Struct):
    """The outcome of a mirror's plan for one cohort, for the report.

    Attributes:
        differs: The difference between input and ledger, in numbers.
        reason: Why not everything was delivered.
        objection: Why the guard will withhold the waiting removals once they are confirmed.
        is_sealed: Whether the cohort is finished, so that nothing is sent.
        sent_before: Members of this run that were accepted before the plan was made.
        refused: Members of this run that MoEngage has refused.
    """

    differs: DiffCounts | None = None
    removals_waiting: int = 0
    removals_withheld: int = 0
    additions_withheld: int = 0
    plan_id: str | None = None
    reason: str | None = None
    objection: str | None = None
    is_sealed: bool = False
    sent_before: int = 0
    refused: set[Key] = msgspec.field(default_factory=set)

    @property
    def is_withheld(self) -> bool:
        """Whether any part of the plan is withheld."""
        return bool(self.removals_withheld or self.additions_withheld)


class SyncedCohort(msgspec.Struct, eq=False):
    """A cohort that a stream populates, with counts of its records.

    Attributes:
        capacity: Bytes that a request has for its members.
        number: Its number in the store.
        ledger: Its ledger; ``None`` if the members of its stream are not kept.
        records: Records read.
        rejected: Records among them that could not be delivered.
        skipped: Records among them that asked for no change.
        error: Why nothing is sent for it, if so.
        is_held: Whether it is new, and not created yet.
        is_closed: Whether its rows are dropped: it is sealed, or has an error.
    """

    cohort: Cohort
    mapping: StreamMapping
    capacity: int
    number: int = 0
    ledger: CohortLedger | None = None
    records: int = 0
    rejected: int = 0
    skipped: int = 0
    result: SettlementResult = msgspec.field(default_factory=SettlementResult)
    error: CohortError | None = None
    is_held: bool = False
    is_closed: bool = False

    @property
    def where(self) -> str:
        """Its stream, for messages."""
        return f"cohorts.{self.mapping.stream}"

    def fail(self, error: CohortError) -> None:
        """Send nothing for the cohort, and drop its rows."""
        self.error, self.is_held, self.is_closed = error, False, True

    def change(self, action: Action, member: Member) -> Change:
        """Return a change of this cohort for a member from a ledger or a staging.

        Raises:
            InputError: A request has no room for the member any longer.
        """
        try:
            member.check_size(self.capacity)
        except RowError as error:
            msg = (
                f"cohort {self.cohort.cohort_id!r}: {error.reason}. The member was accepted when "
                "requests had more room: raise max_payload_bytes again"
            )
            raise InputError("member_too_large", msg) from None
        return Change(self.cohort, action, member)
