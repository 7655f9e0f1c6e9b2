"""The cohorts of a run: their streams, their ledgers, and the counts and results of each."""

from __future__ import annotations

import logging
import typing as t

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
from target_moengage_cohort.moengage.cohort_sync import Envelope

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.interface import CohortLedger, LedgerStore, StreamLedger
    from target_moengage_cohort.ledger.records import CohortEntry, DiffCounts
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.progress import Progress

logger = logging.getLogger(__name__)

_SMALLEST_MEMBER_BYTES = len(b'{"uid":"1"}')


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
        number: The number of its ledger; 0 without one.
        records: Records read.
        rejected: Records among them that could not be delivered.
        skipped: Records among them that asked for no change.
    """

    cohort: Cohort
    mapping: StreamMapping
    capacity: int
    number: int
    ledger: CohortLedger | None
    records: int = 0
    rejected: int = 0
    skipped: int = 0
    result: SettlementResult = msgspec.field(default_factory=SettlementResult)

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


class Cohorts:
    """All cohorts of a run. No two streams populate one, and no two have the same name.

    Attributes:
        by_id: The cohorts, by their id.
        ledgers: Their ledgers, by the cohort's id.
    """

    def __init__(self, context: RunContext, store: LedgerStore, progress: Progress) -> None:
        self._context = context
        self._store = store
        self._progress = progress
        self._names: dict[str, str] = {}
        self.by_id: dict[str, SyncedCohort] = {}
        self.ledgers: dict[str, CohortLedger] = {}
        self._streams_created: set[str] = set()

    def of_stream(self, stream: str) -> list[SyncedCohort]:
        """Return the cohorts that a stream populates, as far as they were met."""
        return [cohort for cohort in self.by_id.values() if cohort.mapping.stream == stream]

    def meet(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort:
        """Return a stream's cohort; open its ledger when it is met first.

        Raises:
            SettingsError: Another stream populates the cohort.
            RowError: The cohort's name is invalid, or not the one that it had, or the cohort was
                retired.
        """
        synced = self.by_id.get(cohort.cohort_id)
        if synced is None:
            return self._add(cohort, mapping)
        if synced.mapping.stream != mapping.stream:
            msg = (
                f"cohorts: the streams {synced.mapping.stream!r} and {mapping.stream!r} both "
                f"populate the cohort {cohort.cohort_id!r}; make them one stream, or give each a "
                "cohort of its own"
            )
            raise SettingsError("duplicate_cohort", msg)
        if synced.cohort.name != cohort.name:
            reason = f"cohort {cohort.cohort_id!r} had another name in this run"
            raise RowError("cohort_renamed", reason, cohort.cohort_id)
        return synced

    def take_lease(self, stream: str) -> None:
        """Take a stream's lease, if its cohorts have members in the ledger or will have them.

        Raises:
            BusyError: Another run holds it.
        """
        if self._keeps_members(stream) or self._store.has_members(stream):
            self._store.stream(stream)

    def meet_vanished(self, mapping: StreamMapping) -> None:
        """Meet the cohorts that a stream populated before and has no rows of now."""
        self._meet_known(mapping, lambda entry: entry.cohort_id not in self.by_id)

    def meet_unsettled(self, mapping: StreamMapping) -> None:
        """Meet the cohorts of a stream that an earlier run may have left with doubts."""
        self._meet_known(mapping, lambda entry: not entry.is_settled)

    def meet_numbered(self, mapping: StreamMapping, numbers: Sequence[int]) -> None:
        """Meet the cohorts of a stream whose ledgers have some numbers."""
        if numbers:
            wanted = {*numbers}
            self._meet_known(mapping, lambda entry: entry.number in wanted)

    def ledger_of(self, stream: str) -> StreamLedger | None:
        """Return a stream's ledger, if its cohorts may have members there."""
        return self._store.stream(stream) if self._store.has_members(stream) else None

    def _meet_known(
        self, mapping: StreamMapping, is_meant: t.Callable[[CohortEntry], bool]
    ) -> None:
        for entry in self._store.entries():
            if entry.stream == mapping.stream and not entry.is_retired and is_meant(entry):
                try:
                    self.meet(entry.cohort, mapping)
                except RowError as error:
                    msg = (
                        f"cohorts: the stream {mapping.stream!r} has populated the cohort "
                        f"{entry.cohort_id!r} before, and now {error.reason}. Restore its former "
                        "mapping, or run: moengage-cohort ledger rename, or ledger reassign"
                    )
                    raise SettingsError(error.code, msg) from None

    def _add(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort:
        capacity = self._capacity(cohort)
        ledger = self._open_ledger(cohort, mapping)
        number = 0
        if ledger is not None:
            number, self.ledgers[cohort.cohort_id] = ledger.number, ledger
        self._names[cohort.name] = cohort.cohort_id
        synced = SyncedCohort(cohort, mapping, capacity, number, ledger)
        if mapping.sync_mode is SyncMode.ONE_TIME and ledger is not None:
            synced.result.is_sealed = ledger.is_sealed
        self.by_id[cohort.cohort_id] = synced
        return synced

    def _capacity(self, cohort: Cohort) -> int:
        """Return how many bytes a request of a cohort has for members, if its name is valid."""
        if fault := cohort_name_fault(cohort.name):
            reason = f"the name of the cohort {cohort.cohort_id!r} {fault}"
            raise RowError("invalid_cohort_name", reason)
        if (other := self._names.get(cohort.name)) is not None:
            reason = f"the cohort {cohort.cohort_id!r} has the name of the cohort {other!r}"
            raise RowError("duplicate_cohort_name", reason)
        settings = self._context.settings
        envelope = Envelope(cohort, settings.partner, settings.send_timestamp)
        capacity = settings.max_payload_bytes - max(envelope.overhead(action) for action in Action)
        if capacity < _SMALLEST_MEMBER_BYTES:
            reason = (
                f"the name and description of the cohort {cohort.cohort_id!r} leave no room for "
                "members (max_payload_bytes)"
            )
            raise RowError("no_room_for_members", reason)
        return capacity

    def _keeps_members(self, stream: str) -> bool:
        # The stream's own mapping decides, even for rows of a mirror that are replayed.
        is_snapshot = self._context.config.mapping(stream).is_snapshot
        return is_snapshot or self._context.settings.ledger_uri is not None

    def _open_ledger(self, cohort: Cohort, mapping: StreamMapping) -> CohortLedger | None:
        """Open the ledger of a cohort that has one, or that needs one."""
        if not (self._keeps_members(mapping.stream) or self._store.has(cohort.cohort_id)):
            return None
        ledger = self._store.open(cohort, mapping.stream)
        if ledger.created:
            # A fan-out may have a thousand new cohorts; one warning tells all there is to know.
            is_first = mapping.stream not in self._streams_created
            self._streams_created.add(mapping.stream)
            logger.log(
                logging.WARNING if is_first else logging.INFO,
                "cohort %r: no ledger found; created a new one in %s. This is expected on a "
                "cohort's first run. Otherwise the previous ledger was lost: every member is sent "
                "again, and members that have left will not be removed. In a container, keep this "
                "directory on a volume (ledger_uri)",
                cohort.cohort_id,
                self._store.place,
                extra={"code": "ledger_created", "cohort_id": cohort.cohort_id},
            )
        self._progress.publish(self._store)
        return ledger
