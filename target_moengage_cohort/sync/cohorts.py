"""The cohorts of a run: which stream feeds each, what was read of it, and what became of it."""

from __future__ import annotations

import typing as t
from collections import Counter

import msgspec

from target_moengage_cohort.core.errors import InputError, RowError, SettingsError
from target_moengage_cohort.core.membership import (
    Action,
    Change,
    Cohort,
    Key,
    Member,
    SyncMode,
    cohort_name_fault,
)
from target_moengage_cohort.delivery.packing import Envelope

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.ledger.records import CohortEntry, DiffCounts
    from target_moengage_cohort.settings import Mapping, Settings

_SMALLEST_MEMBER_BYTES = len(b'{"uid":"1"}')


class Settlement(msgspec.Struct):
    """What became of a snapshot's plan for one cohort, for the report.

    Attributes:
        differs: The snapshot compared with the ledger.
        removals_waiting: Removals that wait for `confirm`.
        removals_withheld: Removals that are held back.
        additions_withheld: Additions that are held back.
        plan_id: What a person confirms.
        reason: Why not everything was delivered.
        objection: What the guard will say against removals that wait, once they are confirmed.
        is_sealed: Whether the cohort is finished with: nothing is sent.
        sent_before: Members of this run who were accepted before the plan was made.
        refused: Members of this run whom MoEngage has refused.
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


class SyncedCohort(msgspec.Struct, eq=False):
    """A cohort that a stream feeds, and what was read of it.

    Attributes:
        cohort: The cohort.
        mapping: The stream's mapping.
        capacity: The largest encoded member that fits into a request, in bytes.
        number: Which of the stream's cohorts it is, from 0.
        ledger: The cohort's ledger, if it has one.
        records: Records read.
        rejected: Records among them that could not be delivered.
        skipped: Records among them that asked for no change.
        settlement: What became of a snapshot's plan.
    """

    cohort: Cohort
    mapping: Mapping
    capacity: int
    number: int
    ledger: Ledger | None
    records: int = 0
    rejected: int = 0
    skipped: int = 0
    settlement: Settlement = msgspec.field(default_factory=Settlement)

    def change(self, action: Action, member: Member) -> Change:
        """A change of this cohort, of a member whom a ledger or a staging has kept.

        Raises:
            InputError: A request has no room for the member any more.
        """
        try:
            member.check_size(self.capacity)
        except RowError as error:
            msg = (
                f"the cohort {self.cohort.cohort_id!r}: {error.reason}; it was accepted when there "
                "was more room, so raise max_payload_bytes again"
            )
            raise InputError(msg) from None
        return Change(self.cohort, action, member)


class Cohorts:
    """All cohorts of a run: no two streams feed one, and no two share a name.

    Args:
        settings: The run's settings.
        ledger: Opens a cohort's ledger, if it has one or needs one.

    Attributes:
        by_id: The destinations, by the cohort's id.
        ledgers: Their ledgers, by the cohort's id.
    """

    def __init__(
        self, settings: Settings, ledger: t.Callable[[Cohort, Mapping], Ledger | None]
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._names: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self.by_id: dict[str, SyncedCohort] = {}
        self.ledgers: dict[str, Ledger] = {}

    def of_entry(self, entry: CohortEntry, mapping: Mapping) -> SyncedCohort:
        """The destination for a cohort that a stream has fed before.

        Raises:
            SettingsError: It cannot be the same cohort any more.
        """
        try:
            return self.of(entry.cohort, mapping)
        except RowError as error:
            msg = (
                f"cohorts: the stream {mapping.stream!r} has fed the cohort {entry.cohort_id!r} "
                f"before, and now {error.reason}; give it back what it had, or use "
                "moengage-cohort ledger rename or reassign"
            )
            raise SettingsError(msg) from None

    def of_stream(self, stream: str) -> list[SyncedCohort]:
        """The destinations that a stream feeds, as far as they were met."""
        return [known for known in self.by_id.values() if known.mapping.stream == stream]

    def of(self, cohort: Cohort, mapping: Mapping) -> SyncedCohort:
        """The destination for a stream's cohort, made when it is met first.

        Raises:
            SettingsError: Another stream feeds the cohort.
            RowError: The cohort's name is not fit for MoEngage, or not the one it had.
        """
        known = self.by_id.get(cohort.cohort_id)
        if known is None:
            return self._new(cohort, mapping)
        if known.mapping.stream != mapping.stream:
            msg = (
                f"cohorts: the streams {known.mapping.stream!r} and {mapping.stream!r} both feed "
                f"the cohort {cohort.cohort_id!r}; make them one stream, or give each its own"
            )
            raise SettingsError(msg)
        if known.cohort.name != cohort.name:
            reason = f"cohort {cohort.cohort_id!r} had another name in this run"
            raise RowError("cohort_renamed", reason, cohort.cohort_id)
        return known

    def _new(self, cohort: Cohort, mapping: Mapping) -> SyncedCohort:
        if fault := cohort_name_fault(cohort.name):
            reason = f"the name of the cohort {cohort.cohort_id!r} {fault}"
            raise RowError(reason)
        if (other := self._names.get(cohort.name)) is not None:
            reason = f"the cohort {cohort.cohort_id!r} has the name of the cohort {other!r}"
            raise RowError(reason)
        settings = self._settings
        envelope = Envelope(cohort, settings.partner, settings.send_timestamp)
        capacity = settings.max_payload_bytes - max(envelope.overhead(action) for action in Action)
        if capacity < _SMALLEST_MEMBER_BYTES:
            reason = (
                f"the name and description of the cohort {cohort.cohort_id!r} leave no room for "
                "members (max_payload_bytes)"
            )
            raise RowError(reason)
        ledger = self._ledger(cohort, mapping)
        if ledger is not None:
            self.ledgers[cohort.cohort_id] = ledger
        self._names[cohort.name] = cohort.cohort_id
        number = self._numbers[mapping.stream]
        self._numbers[mapping.stream] += 1
        destination = SyncedCohort(cohort, mapping, capacity, number, ledger)
        if mapping.sync_mode is SyncMode.ONE_TIME and ledger is not None:
            destination.settlement.is_sealed = ledger.is_sealed
        self.by_id[cohort.cohort_id] = destination
        return destination
