"""A cohort of a run, with its counts and results."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.errors import CohortError, InputError, RowError
from target_moengage_cohort.core.membership import Action, Change, Cohort, Member

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.records import DiffCounts
    from target_moengage_cohort.settings import StreamMapping


class SettlementResult(msgspec.Struct):
    """The outcome of a mirror's plan for one cohort, for the report."""

    differs: DiffCounts | None = None  # the difference between input and ledger, in numbers
    removals_waiting: int = 0
    removals_withheld: int = 0
    additions_withheld: int = 0
    is_incomplete: bool = False  # whether removals were left out, as the input is not complete
    plan_id: str | None = None
    reason: str | None = None  # why not everything was delivered
    objection: str | None = None  # why the guard will withhold waiting removals once confirmed
    is_sealed: bool = False  # whether the cohort is finished, so that nothing is sent

    @property
    def is_withheld(self) -> bool:
        """Whether any part of the plan is withheld."""
        return self.plan_id is not None and bool(self.removals_withheld or self.additions_withheld)


class SyncedCohort(msgspec.Struct, eq=False):
    """A cohort that a stream populates, with counts of its records."""

    cohort: Cohort
    mapping: StreamMapping
    capacity: int  # bytes that a request has for its members
    number: int = 0  # in the store
    ledger: CohortLedger | None = None  # if the members of its stream are kept
    base: int = 0  # members accepted or unconfirmed before the run, if they are kept
    records: int = 0  # records read
    rejected: int = 0  # records among them that could not be delivered
    excluded: int = 0  # records among them of members who belong to no cohort
    skipped: int = 0  # records among them that asked for no change
    result: SettlementResult = msgspec.field(default_factory=SettlementResult)
    error: CohortError | None = None  # why nothing is sent for it, if so
    is_held: bool = False  # whether it is new, and not created yet
    is_closed: bool = False  # whether its rows are dropped: it is sealed, or has an error

    @property
    def lacks_rows(self) -> bool:
        """Whether a member may be missing from the rows of a mirror, as one was rejected."""
        return self.mapping.is_snapshot and self.rejected > 0

    @property
    def where(self) -> str:
        """Its stream, for messages."""
        return f"cohorts.{self.mapping.stream}"

    def fail(self, error: CohortError) -> None:
        """Send nothing for the cohort, and drop its rows."""
        self.error, self.is_held, self.is_closed = error, False, True

    def change(self, action: Action, member: Member) -> Change:
        """Return a change for a member from a ledger or a staging, if a request has room for it."""
        try:
            member.check_size(self.capacity)
        except RowError as error:
            msg = (
                f"cohort {self.cohort.cohort_id!r}: {error.reason}. The member was accepted when "
                "max_payload_bytes was larger: raise it again"
            )
            raise InputError("member_too_large", msg) from None
        return Change(self.cohort, action, member)
