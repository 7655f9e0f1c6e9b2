"""The cohorts of a run: their streams, their ledgers, and the counts and results of each."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import (
    CohortError,
    InputError,
    RowError,
    SettingsError,
    WithheldError,
)
from target_moengage_cohort.core.membership import Action, Cohort, SyncMode, cohort_name_fault
from target_moengage_cohort.moengage.cohort_sync import Envelope
from target_moengage_cohort.sync.admission import Admission
from target_moengage_cohort.sync.exclusions import Exclusions
from target_moengage_cohort.sync.paused_streams import PausedStreams
from target_moengage_cohort.sync.row_warnings import RowWarnings
from target_moengage_cohort.sync.segments.known_cohorts import warn_of_known
from target_moengage_cohort.sync.synced_cohort import SyncedCohort
from target_moengage_cohort.sync.withheld_cohorts import (
    WITHHOLDS,
    WithheldCohorts,
    other_owner,
    two_names,
    withheld_error,
)

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger, CohortRecord
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.context import Endpoints, RunContext
    from target_moengage_cohort.sync.reporting.progress import Progress

logger = logging.getLogger(__name__)

_SMALLEST_MEMBER_BYTES = len(b'{"uid":"1"}')


class Cohorts:
    """All cohorts of a run. No two streams populate one, and no two have the same name."""

    def __init__(self, context: RunContext, endpoints: Endpoints, progress: Progress) -> None:
        self._context = context
        self._store, self._apis = endpoints.store, endpoints.apis
        self._progress = progress
        self._names: dict[str, str] = {}
        self._with_members: set[str] = set()  # the streams whose members are kept
        self.by_id: dict[str, SyncedCohort] = {}
        self.ledgers: dict[str, CohortLedger] = {}  # by the cohort's id, likewise
        self.records: dict[str, CohortRecord] = {}  # where requests are recorded, likewise
        self.admission = Admission(self._store, context.settings.max_new_cohorts, self._apis)
        self.row_warnings = RowWarnings()
        self.exclusions = Exclusions(context.settings.exclude_path)
        self._paused = PausedStreams(self._store, are_dropped=endpoints.recorder.remembers)
        self.taken_streams: list[str] = []  # whose lease the run has
        self.exclusive_streams: set[str] = set()  # whose members each belong to one cohort
        self.unsent_streams: set[str] = set()  # of which a cohort has an error, or was held
        self.withheld = WithheldCohorts(context.settings.max_payload_bytes)
        self.submit: t.Callable[[], None] = lambda: None  # passes on what was read before

    def of_stream(self, stream: str) -> list[SyncedCohort]:
        """Return the cohorts that a stream populates, as far as they were met."""
        return [cohort for cohort in self.by_id.values() if cohort.mapping.stream == stream]

    def name_of(self, cohort_id: str, mapping: StreamMapping) -> str:
        """Return the name of a cohort that no column names: the ledger's, or else its id."""
        unnamed = Cohort(cohort_id, cohort_id)
        met = self.by_id.get(cohort_id) or self.withheld.get(unnamed, mapping)
        if met is not None:
            return met.cohort.name
        entry = self._store.entry(cohort_id)
        return cohort_id if entry is None else entry.name

    def meet(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort:
        """Return a stream's cohort; open its ledger when it is met first.

        Raise a `SettingsError` if another stream populates it, and a `RowError` if its name is
        invalid or not the one that it had, or if it was retired.
        """
        if (withheld := self.withheld.get(cohort, mapping)) is not None:
            return withheld
        synced = self.by_id.get(cohort.cohort_id)
        fans_out = mapping.cohort is None
        if synced is None:
            try:
                return self._add(cohort, mapping)
            except (RowError, SettingsError) as error:
                if not (fans_out and error.code in WITHHOLDS):
                    raise
                self.unsent_streams.add(mapping.stream)
                return self.withheld.add(cohort, mapping, error)
        if synced.mapping.stream != mapping.stream and fans_out:
            self.unsent_streams.add(mapping.stream)
            return self.withheld.add(cohort, mapping, other_owner(synced))
        if synced.mapping.stream != mapping.stream:
            msg = (
                f"cohorts: the streams {synced.mapping.stream!r} and {mapping.stream!r} both "
                f"populate the cohort {cohort.cohort_id!r}; merge the streams, or give each its "
                "own cohort"
            )
            raise SettingsError("duplicate_cohort", msg)
        if synced.cohort.name != cohort.name:
            self._withhold(synced, cohort)
        return synced

    def _withhold(self, synced: SyncedCohort, renamed: Cohort) -> None:
        """Send nothing more for a cohort that has two names in one run."""
        if synced.error is not None:
            return
        self.submit()  # what was read of it before is not lost
        self.admission.held.pop(renamed.cohort_id, None)
        self.unsent_streams.add(synced.mapping.stream)
        synced.fail(withheld_error(renamed, synced.mapping, two_names(synced)))

    def take_lease(self, stream: str) -> None:
        """Take a stream's lease; open its members if they are kept.

        Raise a `WithheldError` if the stream is paused, and a `BusyError` if another run has it.
        """
        self._paused.check(stream)
        self._store.take(stream)
        self.taken_streams.append(stream)
        self._progress.publish(self._store)
        # The stream's own mapping decides, even for rows of a mirror that are replayed.
        mapping = self._context.config.mapping(stream)
        warn_of_known(self._store.entries(stream), mapping, self._context.config.mappings)
        if mapping.exclusive:
            self.exclusive_streams.add(stream)
        has_uri = self._context.settings.ledger_uri is not None
        if mapping.is_snapshot or has_uri or self._store.has_members(stream):
            self._with_members.add(stream)
            self._store.stream(stream)
        self._apis.unarchive(mapping)

    def meet_vanished(self, mapping: StreamMapping) -> None:
        """Meet the cohorts that a stream populated before and has no rows of now."""
        self.meet_known(mapping, lambda entry: entry.cohort_id not in self.by_id)

    def ledger_of(self, stream: str) -> StreamLedger | None:
        """Return a stream's ledger, if its cohorts may have members there."""
        return self._store.stream(stream) if self._store.has_members(stream) else None

    def meet_known(self, mapping: StreamMapping, is_meant: t.Callable[[CohortEntry], bool]) -> None:
        """Meet some of the cohorts that a stream has populated before."""
        for entry in self._store.entries(mapping.stream):
            if not entry.is_retired and is_meant(entry):
                try:
                    self.meet(entry.cohort, mapping)
                except RowError as error:
                    msg = (
                        f"cohorts: the stream {mapping.stream!r} has populated the cohort "
                        f"{entry.cohort_id!r} before, but now {error.reason}. Restore its previous "
                        "mapping; or, to empty that cohort for good, run: "
                        f"{suggest('ledger', 'retire', entry.cohort_id)}"
                    )
                    raise SettingsError(error.code, msg) from None

    def refusal(self, cohort: Cohort) -> WithheldError | None:
        """Return why nothing more may be sent for a cohort, if its stream is paused by now."""
        return self._paused.refusal(self.by_id[cohort.cohort_id].mapping.stream)

    def fail(self, cohort: Cohort, error: CohortError) -> TargetError | None:
        """Drop what comes of a cohort that is refused; called with delivery's lock held.

        Return the error that ends the run if no other cohort is configured.
        """
        self.by_id[cohort.cohort_id].fail(error)
        configured = [mapping.cohort for mapping in self._context.config.mappings.values()]
        others = (each for each in configured if not (each and self._has_failed(each)))
        if isinstance(error, WithheldError) or not configured or next(others, ...) is not ...:
            return None
        return InputError(error.code, str(error))

    def _has_failed(self, cohort: Cohort) -> bool:
        synced = self.by_id.get(cohort.cohort_id)
        return synced is not None and synced.error is not None

    @property
    def errors(self) -> list[CohortError]:
        """The errors of single cohorts that are not withheld."""
        errors = (each.error for each in self.by_id.values())
        return [each for each in errors if each and not isinstance(each, WithheldError)]

    @property
    def all(self) -> list[SyncedCohort]:
        """All cohorts, those that are withheld among them."""
        return [*self.by_id.values(), *self.withheld.cohorts]

    @property
    def has_withheld(self) -> bool:
        """Whether a cohort is withheld as a whole."""
        return any(isinstance(each.error, WithheldError) for each in self.all)

    @property
    def unsettled_streams(self) -> set[str]:
        """The streams of which some rows are neither delivered nor a part of a plan."""
        return {each.mapping.stream for each in self.all if each.error or each.lacks_rows}

    def _add(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort:
        stream = mapping.stream
        is_new = not self._store.has(cohort.cohort_id)
        if is_new and stream in self.admission.refused:
            return self.admission.refused[stream]
        synced = SyncedCohort(cohort, mapping, self._capacity(cohort))
        try:
            self._open(synced, held=is_new)
        except RowError as error:
            if error.code != "name_taken":
                raise
            synced.fail(CohortError(error.code, f"{synced.where}: {error.reason}"))
        else:
            self._names[cohort.name] = cohort.cohort_id
        self.by_id[cohort.cohort_id] = synced
        if is_new and synced.error is None:
            self.admission.hold(synced)
            is_counted = self._apis.match_guard.applies(mapping)  # at the end of the input
            if mapping.cohort is not None and synced.is_held and not is_counted:
                self.admission.admit([synced])  # the mapping names it
        if synced.is_held or synced.error is not None:
            self.unsent_streams.add(stream)
        return synced

    def _open(self, synced: SyncedCohort, *, held: bool) -> None:
        cohort, mapping = synced.cohort, synced.mapping
        record: CohortRecord
        if mapping.stream in self._with_members:
            record = synced.ledger = self._store.open(cohort, mapping.stream, held=held)
            self.ledgers[cohort.cohort_id] = synced.ledger
            synced.base = synced.ledger.entry.counts.base
            if mapping.sync_mode is SyncMode.ONE_TIME:
                synced.result.is_sealed = synced.is_closed = synced.ledger.is_sealed
        else:
            record = self._store.open_without_members(cohort, mapping.stream, held=held)
        self.records[cohort.cohort_id] = record
        synced.number = record.entry.number

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
