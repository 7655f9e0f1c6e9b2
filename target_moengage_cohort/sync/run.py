"""One run: a tap's messages in, accepted changes and covered STATE out, a report at the end.

Whatever ends the run, what was read before it is delivered if that is still possible, and STATE
never passes a row that was neither accepted nor durably rejected.
"""

from __future__ import annotations

import logging
import typing as t
from datetime import UTC, datetime

from target_moengage_cohort.core.errors import (
    InputError,
    InternalError,
    LedgerError,
    TargetError,
    anonymous_traceback,
)
from target_moengage_cohort.delivery.attempts import Callbacks, Timing
from target_moengage_cohort.delivery.checkpoints import Checkpoints
from target_moengage_cohort.delivery.dispatcher import Dispatcher
from target_moengage_cohort.ledger.records import RunEntry
from target_moengage_cohort.moengage.answers import Answer, Outcome
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.sync import report as reports
from target_moengage_cohort.sync.accounts import cohort_reports
from target_moengage_cohort.sync.changes.outbox import Changes
from target_moengage_cohort.sync.cohorts import Cohorts
from target_moengage_cohort.sync.intake import Intake
from target_moengage_cohort.sync.mirror.guard import Proof
from target_moengage_cohort.sync.mirror.settlement import Snapshots
from target_moengage_cohort.sync.progress import Progress
from target_moengage_cohort.sync.rejections import Rejections, row_of

if t.TYPE_CHECKING:
    from collections import Counter

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.core.membership import Action, Cohort, Member
    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.ledger import Ledger, Ledgers
    from target_moengage_cohort.settings import Config, Mapping
    from target_moengage_cohort.sync.cohorts import Settlement
    from target_moengage_cohort.sync.intake import Transform

logger = logging.getLogger(__name__)


class Run:
    """Reads messages and has them delivered; `read`, then `finish`.

    Attributes:
        is_abandoned: Whether something still waited, in vain, when the run was finished.
        destinations: The cohorts that it met.
        report: What it did, once it is finished.

    Args:
        loaded: The configuration.
        attempt: Sends one request body once.
        pace: Permits to start a request.
        write_state: Writes one STATE to where the run's caller keeps it.
        interrupt: Ends the run early.
        ledgers: The ledgers of the destination; read-only for a dry run.
        transform: What the SDK does to records; ``None`` reads them the fast way.
        timing: Clocks and jitter.

    Raises:
        SettingsError: A file that the settings name cannot be used.
    """

    def __init__(
        self,
        loaded: Config,
        *,
        attempt: t.Callable[[bytes], Answer],
        pace: Pace | None,
        write_state: t.Callable[[bytes], None],
        interrupt: Interrupt,
        ledgers: Ledgers,
        transform: Transform | None = None,
        timing: Timing | None = None,
    ) -> None:
        settings = loaded.settings
        timing = timing or Timing()
        self._loaded = loaded
        self._settings = settings
        self._interrupt = interrupt
        self._write_state = write_state
        self._pace = pace
        self._tap_exit: t.Callable[[], int | None] | None = None
        self._ledgers = ledgers
        self._started_at = _now()
        self._input_ended = self._complete = False
        self._error: TargetError | None = None
        self.is_abandoned = False
        self.report: reports.Report | None = None
        if isinstance(settings.report_path, str):
            reports.check(settings.report_path)
        self._rejections = Rejections(settings, ledgers.run_id)
        self._checkpoints = Checkpoints()
        self.destinations = Cohorts(settings, self._open_ledger)
        self._dispatcher = Dispatcher(
            settings,
            callbacks=Callbacks(_accept if settings.dry_run else attempt, self._emit, self._reject),
            pace=None if settings.dry_run else pace,
            checkpoints=self._checkpoints,
            interrupt=interrupt,
            timing=timing,
            ledgers={} if settings.dry_run else self.destinations.ledgers,
        )
        self._changes = Changes(self.destinations, self._dispatcher)
        self._snapshots = Snapshots(
            ledgers,
            self.destinations,
            self._dispatcher,
            interrupt=interrupt,
            clock=timing.wall_clock,
            dry_run=settings.dry_run,
        )
        self._intake = Intake(
            loaded,
            transform,
            destinations=self.destinations,
            dispatcher=self._dispatcher,
            changes=self._changes,
            snapshots=self._snapshots,
            rejections=self._rejections,
            begin=self._begin_stream,
        )
        self._progress = Progress(
            self._dispatcher.totals,
            lambda: self._intake.lines,
            self._dispatcher.backlog,
            self._intake.sinks,
            settings.requests_per_minute,
        )

    def read(self, source: t.IO[t.Any]) -> None:
        """Read an input to its end, or until interrupted.

        Raises:
            TargetError: It cannot be read on, or a request has failed for good; what was read
                before is delivered if that is possible, and the run is finished.
        """
        self._dispatcher.start()
        self._progress.start()
        try:
            self._intake.read(source, self._interrupt)
        except TargetError as error:
            self._error = error
            self.finish()
        except Exception as error:  # noqa: BLE001 - what was read can be delivered all the same
            self._error = InternalError(anonymous_traceback(error))
            self.finish()
        else:
            self._input_ended = not self._interrupt.is_set()

    @property
    def counts(self) -> Counter[str]:
        """How many messages of each type were read."""
        return self._intake.counts

    def finish(self, tap_exit: t.Callable[[], int | None] | None = None) -> None:
        """Have everything delivered that was read, and report.

        Args:
            tap_exit: Waits for the tap, if we started it ourselves, and gives its exit code;
                ``None`` if interrupted.

        Raises:
            TargetError: What ended the run.
        """
        self._tap_exit = tap_exit
        try:
            if not isinstance(self._error, LedgerError):  # after which nothing more is sent
                self._changes.submit()
                self._judge_input()
                drained = self._settle()
                self._complete = drained and self._input_ended and self._error is None
                self._warn_of_absent()
        except TargetError as error:
            self._error = self._error or error
        except Exception as error:  # noqa: BLE001 - the ledgers must be closed, and the run reported
            self._error = self._error or InternalError(anonymous_traceback(error))
        self.is_abandoned = not self._dispatcher.stop()
        self._error = self._error or self._dispatcher.failure
        if self._pace is not None and not self.is_abandoned:
            self._pace.close()
        for close in (self._rejections.close, self._close_ledgers):
            try:
                close()
            except TargetError as error:
                self._error = self._error or error
        self._progress.stop()
        self._report()
        if self._error is not None:
            raise self._error

    def _judge_input(self) -> None:
        """Find what shows that each snapshot is complete, or that the input is not."""
        if not self._input_ended or self._error is not None:
            return
        snapshots = self._snapshots.by_stream.values()
        try:
            code = 0 if self._tap_exit is None else self._tap_exit()
            if code is None:  # interrupted
                self._input_ended = False
                return
            if code:
                how = f"with exit code {code}" if code > 0 else f"by signal {-code}"
                msg = f"the tap ended {how}, so nobody is removed; see its messages, run again"
                raise InputError(msg)  # noqa: TRY301 - as the checks below
            for snapshot in snapshots:
                snapshot.completeness.check()
        except InputError as error:
            self._error = error  # what was read is delivered all the same
            return
        for snapshot in snapshots:
            snapshot.proof = snapshot.completeness.proof(
                tap_succeeded=self._tap_exit is not None, version_is_fresh=snapshot.is_fresh
            )

    def _warn_of_absent(self) -> None:
        """Tell of streams that a complete input should have had: nothing else shows it."""
        absent = self._intake.absent if self._complete else []
        if absent:
            names = ", ".join(map(repr, absent))
            logger.warning(
                "%s %s is in cohorts, but the input has nothing of it; its cohort stays as it was. "
                "See that the tap selects it, and that its user may read it",
                "the stream" if len(absent) == 1 else "each of the streams",
                names,
            )

    def _settle(self) -> bool:
        """Have all of it accepted, and the snapshots settled; ``False`` if interrupted."""
        if self._input_ended and self._error is None:
            mappings = (sink.mapping for sink in self._intake.sinks.values())
            self._changes.repeat_doubts(
                self._ledgers, [mapping for mapping in mappings if not mapping.is_snapshot]
            )
        if not (self._snapshots.settle() and self._dispatcher.drain()):
            return False
        for snapshot in self._snapshots.by_stream.values():
            if snapshot.proof is not Proof.NO:
                self._dispatcher.release(snapshot.mapping.stream)
        return self._dispatcher.drain()

    def _begin_stream(self, mapping: Mapping) -> None:
        """Make void what waits from an earlier run of a stream, before anything is sent."""
        if self._settings.dry_run:
            return
        if mapping.is_snapshot or self._ledgers.has_begun(mapping.stream):
            self._ledgers.begin(mapping.stream)

    def _open_ledger(self, cohort: Cohort, mapping: Mapping) -> Ledger | None:
        """The ledger of a cohort that has one, or that needs one."""
        # By the stream's own mapping, also for rows of a mirror that are replayed.
        is_snapshot = self._loaded.mapping(mapping.stream).is_snapshot
        ledgers, needed = self._ledgers, is_snapshot or self._settings.ledger_folder
        if not (needed or ledgers.has(cohort.cohort_id)):
            return None
        ledger = ledgers.open(cohort, mapping.stream)
        if ledger.created and not self._settings.dry_run:
            logger.warning(
                "cohort %r: no ledger was found, so a new and empty one was made in %s: nobody is "
                "known to have been accepted. In a container, keep that folder on a volume "
                "(ledger_uri), or every run starts like this",
                cohort.cohort_id,
                ledgers.folder,
            )
        self._progress.keep(ledgers, self._started_at)
        return ledger

    def _close_ledgers(self) -> None:
        """Note in each ledger what was done, and close them all.

        Raises:
            LedgerError: One cannot be written.
        """
        self._cohorts = self._cohort_reports()
        try:
            for entry in self._cohorts if not self._settings.dry_run else ():
                ledger = self.destinations.ledgers.get(entry.cohort_id or "")
                if ledger is not None:
                    settlement = self.destinations.by_id[ledger.entry.cohort_id].settlement
                    ledger.note_run(
                        RunEntry(
                            run_id=self._ledgers.run_id,
                            started_at=self._started_at,
                            finished_at=_now(),
                            status=self._ended([settlement]),
                            sync_mode=entry.sync_mode,
                            complete=entry.complete,
                            records=entry.records,
                            added=entry.added,
                            removed=entry.removed,
                        )
                    )
        finally:
            self._progress.forget()
            self._ledgers.close()

    def _reject(
        self, cohort: Cohort, action: Action, member: Member, reason: str
    ) -> TargetError | None:
        """Keep a member whom MoEngage refuses as a row; or say that this ends the run."""
        where = f"a member of the cohort {cohort.cohort_id!r}"
        if self._settings.on_reject is OnReject.FAIL:
            return InputError(
                f"{where} cannot be delivered: {reason}; with on_reject skip and a rejects_path "
                "the others are delivered, and the file tells who it is"
            )
        destination = self.destinations.by_id[cohort.cohort_id]
        destination.settlement.refused.add(member.key)
        schema, row = row_of(cohort, destination.mapping, action, member)
        self._rejections.append(schema, row, reason, lambda what: f"{where}: {what}")
        return None

    def _emit(self, value: bytes) -> None:
        if self._settings.dry_run:
            return
        self._rejections.sync()
        self._write_state(value)

    @property
    def _status(self) -> t.Literal["succeeded", "failed", "withheld", "dry_run"]:
        return self._ended(known.settlement for known in self.destinations.by_id.values())

    def _ended(
        self, settlements: t.Iterable[Settlement]
    ) -> t.Literal["succeeded", "failed", "withheld", "dry_run"]:
        """How the run ended for some cohorts."""
        if self._error is not None or not self._complete:
            return "failed"
        if self._settings.dry_run:
            return "dry_run"
        withheld = any(each.removals_withheld or each.additions_withheld for each in settlements)
        return "withheld" if withheld else "succeeded"

    def _cohort_reports(self) -> list[reports.CohortReport]:
        proofs = {stream: snapshot.proof for stream, snapshot in self._snapshots.by_stream.items()}
        unplaced = self._rejections.unplaced
        return cohort_reports(
            self.destinations.by_id.values(),
            self._dispatcher.lanes,
            {self._intake.sinks[stream].mapping: count for stream, count in unplaced.items()},
            proofs if self._complete else {},
            otherwise=self._proof_of_changes,
        )

    @property
    def _proof_of_changes(self) -> Proof:
        if not self._complete:
            return Proof.NO
        return Proof.END_OF_INPUT if self._tap_exit is None else Proof.TAP_EXIT

    def _report(self) -> None:
        settings, totals = self._settings, self._dispatcher.totals
        self.report = reports.Report(
            run_id=self._ledgers.run_id,
            started_at=self._started_at,
            finished_at=_now(),
            status=self._status,
            requests=totals.requests,
            retries=totals.retries,
            throttled_seconds=round(totals.throttled_seconds, 1),
            cohorts=self._cohorts,
        )
        logger.info("%s", reports.summary(self.report, settings.requests_per_minute))
        if isinstance(settings.report_path, str):
            try:
                reports.write(self.report, settings.report_path)
            except TargetError as error:
                self._error = self._error or error


def _accept(_body: bytes) -> Answer:
    """A dry run's MoEngage."""
    return Answer(Outcome.ACCEPTED, "not sent")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
