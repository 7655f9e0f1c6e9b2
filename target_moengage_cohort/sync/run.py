"""One run: a tap's messages in, accepted changes and covered STATE out, a report at the end.

Whatever ends the run, the input before that is delivered if still possible, and STATE never
covers a row that was neither accepted nor durably rejected.
"""

from __future__ import annotations

import logging
import os
import socket
import typing as t

from target_moengage_cohort.core.errors import (
    InputError,
    LedgerError,
    TargetError,
    known_error,
)
from target_moengage_cohort.delivery.delivery import Delivery
from target_moengage_cohort.delivery.ports import Callbacks, CohortCounts
from target_moengage_cohort.ledger.records import RunProgress
from target_moengage_cohort.sync.aftermath import note_outcome
from target_moengage_cohort.sync.cohorts import Cohorts
from target_moengage_cohort.sync.intake import Intake
from target_moengage_cohort.sync.mirror.bookmarks import read_state
from target_moengage_cohort.sync.mirror.completeness import Proof, check_tap_exit
from target_moengage_cohort.sync.missing_streams import find_missing, report_missing
from target_moengage_cohort.sync.outcome import (
    FAILED,
    WITHHELD,
    error_of_some,
    exit_code,
    has_unreleasable,
    withheld_exit,
)
from target_moengage_cohort.sync.rejections import Rejections
from target_moengage_cohort.sync.reporting import report as reports
from target_moengage_cohort.sync.reporting.metric_points import log_points
from target_moengage_cohort.sync.reporting.past_run import last_run
from target_moengage_cohort.sync.reporting.progress import Progress
from target_moengage_cohort.sync.reporting.summary import summary
from target_moengage_cohort.sync.segments.segment_limit import warn_of_segments
from target_moengage_cohort.sync.stream_outcomes import RunFacts
from target_moengage_cohort.sync.streams import Streams

if t.TYPE_CHECKING:
    from target_moengage_cohort.sync.context import Endpoints, RunContext

logger = logging.getLogger(__name__)

TapExit: t.TypeAlias = "t.Callable[[], int | None]"
"""Waits for a tap that we started ourselves; gives its exit code, or ``None`` if interrupted."""


class Run:
    """Reads messages and has them delivered; `read`, then `finish`."""

    def __init__(self, context: RunContext, endpoints: Endpoints) -> None:
        self._context = context
        context.head.warnings.start()
        self._endpoints = endpoints
        settings = context.settings
        self._is_reading = True
        self._progress = Progress(
            self._measure, lambda: self._delivery.outlook, lambda: self._is_reading
        )
        self.cohorts = Cohorts(context, endpoints, self._progress)
        self._rejections = Rejections(settings.on_reject, endpoints.rejects, self.cohorts)
        self._delivery = Delivery(
            settings,
            endpoints.link,
            Callbacks(
                self._emit, self._rejections.reject_member, self.cohorts.fail, self.cohorts.refusal
            ),
            interrupt=context.interrupt,
            timing=context.timing,
            ledgers=self.cohorts.records if endpoints.recorder.remembers else {},
        )
        self._streams = Streams(context, self.cohorts, self._delivery, endpoints)
        self._intake = Intake(context, self._streams, self._rejections, endpoints.record_mapper)
        self.counts = self._intake.counts
        self._input_ended = self._is_complete = False
        self._error: TargetError | None = None
        self._missing: dict[str, InputError | None] = {}  # streams, each with its error if it fails
        self.is_abandoned = False  # whether a thread was still waiting at the end
        self.report: reports.Report | None = None  # once the run is finished
        self._cohort_reports: list[reports.CohortReport] = []
        self._alerts: list[reports.AlertReport] = []

    @property
    def exit_code(self) -> int:
        """The exit code of the process, once the run is finished."""
        return FAILED if self.report is None else self.report.exit_code

    def read(self, source: t.IO[t.Any]) -> None:
        """Read an input to its end, or until interrupted.

        Raise a `TargetError` if it cannot be read on, or a request has failed for good. What was
        read before is then delivered if that is possible, and the run is finished.
        """
        self._delivery.start()
        self._progress.start()
        try:
            self._rejections.refuse_own_file(source)
            self._intake.read(source)
        except Exception as error:  # noqa: BLE001 - the input so far can still be delivered
            self._error = known_error(error)
            self.finish()
        else:
            self._input_ended = not self._context.interrupt.is_set()

    def finish(self, tap_exit: TapExit | None = None) -> None:
        """Deliver everything that was read, and report; raise the `TargetError` that ended the run.

        Without `tap_exit` we did not start the tap.
        """
        self._is_reading = False
        try:
            if not isinstance(self._error, LedgerError):  # after which nothing more is sent
                self._settle(tap_exit)
        except Exception as error:  # noqa: BLE001 - ledgers must be closed, and the run reported
            self._error = self._error or known_error(error)
        self.is_abandoned = not self._delivery.stop()
        self._error = self._error or self._delivery.failure
        for close in (self._rejections.close, self._close_ledgers, self._intake.close):
            try:
                close()
            except Exception as error:  # noqa: BLE001 - likewise
                self._error = self._error or known_error(error)
        self._progress.stop()
        of_some = self._error_of_some()
        self._report(self._error or of_some)
        self._context.head.warnings.stop()
        if ends_with := self._error or of_some:
            raise ends_with

    def _settle(self, tap_exit: TapExit | None) -> None:
        """Deliver everything that was read; complete the run if the input is whole."""
        self._streams.submit()
        self._prove(tap_exit)
        is_settled = self._streams.settle()
        self._is_complete = is_settled and self._input_ended and self._error is None
        if self._is_complete:
            self._find_missing()
            if self._streams.drops_last_state and not self._streams.incomplete:
                logger.warning(
                    "the last STATE of the input is not written, because the tap would omit "
                    "rows of a mirror, or of the stream that it was reading; the next run "
                    "starts from the previous STATE again",
                    extra={"code": "state_withheld"},
                )
        self._warn_of_segments()

    def _prove(self, tap_exit: TapExit | None) -> None:
        """Find what proves that each stream is complete, or that the input is not."""
        if not self._input_ended or self._error is not None:
            return
        try:
            if tap_exit is not None:
                code = tap_exit()
                if code is None:  # interrupted
                    self._input_ended = False
                    return
                check_tap_exit(code)
            self._streams.prove(tap_succeeded=tap_exit is not None)
        except InputError as error:
            self._error = error  # the input so far is still delivered

    def _measure(self) -> RunProgress:
        totals = self._delivery.totals
        return RunProgress(
            run_id=self._context.run_id,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=self._context.started_at,
            streams=[*self.cohorts.taken_streams],
            records=self._intake.lines,
            accepted=totals.accepted,
            requests=totals.requests,
        )

    def _find_missing(self) -> None:
        """Find the streams that a complete input should have had: nothing else shows it."""
        met = {*self._streams.by_name, *self._streams.failed}
        on_missing = self._context.settings.on_missing_stream
        missing = find_missing(self._streams.absent(), met, self._endpoints.store)
        self._missing = {stream: report_missing(stream, on_missing) for stream in missing}

    def _emit(self, value: bytes) -> None:
        self._endpoints.rejects.sync()
        state = read_state(value)
        self._streams.note_state(state, is_written=False)
        self._endpoints.store.check_lease()  # rows that need no change may be another run's by now
        self._endpoints.write_state(value)
        self._streams.note_state(state, is_written=True)

    def _close_ledgers(self) -> None:
        """Note the outcome in each ledger, and close them all."""
        try:
            self._endpoints.store.end_requests()
            self._cohort_reports = self._report_cohorts()
            entries = {
                cohort.number: last_run(
                    entry,
                    self._context.head,
                    self._status_of(entry.stream, is_withheld=cohort.result.is_withheld),
                )
                for entry in self._cohort_reports
                if (cohort := self.cohorts.by_id.get(entry.cohort_id or "")) is not None
                if not (cohort.is_held or cohort.error)
            }
            report = self._make_report(self._error or self._error_of_some())
            streams = [*self._streams.by_name, *self._streams.failed]
            bases = {cohort_id: each.base for cohort_id, each in self.cohorts.by_id.items()}
            self._endpoints.recorder.note_run(report, streams, bases, entries)
            known = (self._missing, self._error, self._is_complete)
            facts = RunFacts(self._streams, self.cohorts, self._cohort_reports, *known)
            self._alerts = note_outcome(self._context, self._endpoints, facts)
        finally:
            self._progress.withdraw()
            self._endpoints.store.close()

    def _warn_of_segments(self) -> None:
        """Warn of too many cohorts; a dry run counts those that it would create."""
        cohorts = self.cohorts.by_id.values()
        dry = sum(each.number < 0 and each.error is None for each in cohorts)
        listed = len(self._endpoints.apis.directory.listed)
        created = self.cohorts.admission.created if listed else 0
        warn_of_segments(self._endpoints.store.count_cohorts() + dry, listed + created)

    def _report_cohorts(self) -> list[reports.CohortReport]:
        sinks, entries = self._streams.by_name, []
        for cohort in self.cohorts.by_id.values():
            counts = self._delivery.counts(cohort.cohort.cohort_id)
            proof = Proof.NO if cohort.lacks_rows else self._proof_of(cohort.mapping.stream)
            status = reports.cohort_status(cohort, self._status_of(cohort.mapping.stream))
            entries.append(reports.report_cohort(cohort, counts, proof, status))
        for cohort in self.cohorts.withheld.cohorts:
            proof = self._proof_of(cohort.mapping.stream)
            entries.append(reports.report_cohort(cohort, CohortCounts(), proof, "withheld"))
        for stream, count in self._rejections.unplaced.items():
            mapping, proof = sinks[stream].rows.mapping, self._proof_of(stream)
            entries.append(reports.report_unplaced(mapping, count, proof, self._status()))
        mappings = self._context.config.mappings
        entries += [reports.report_missing(mappings[stream]) for stream in self._missing]
        return entries

    def _proof_of(self, stream: str) -> Proof:
        sink = self._streams.by_name.get(stream)
        return sink.proof if sink is not None and self._is_complete else Proof.NO

    def _status_of(self, stream: str, *, is_withheld: bool = False) -> reports.Status:
        is_incomplete = stream in self._streams.incomplete
        return "failed" if is_incomplete else self._status(is_withheld=is_withheld)

    def _status(self, *, is_withheld: bool = False) -> reports.Status:
        if self._error is not None or not self._is_complete:
            return "failed"
        if self._context.settings.dry_run:
            return "dry_run"
        return "withheld" if is_withheld else "succeeded"

    def _error_of_some(self) -> TargetError | None:
        return error_of_some(self.cohorts, self._streams, self._missing.values())

    def _make_report(self, ends_with: TargetError | None) -> reports.Report:
        settings, totals = self._context.settings, self._delivery.totals
        has_withheld = has_unreleasable(self.cohorts, self._streams)
        is_withheld = has_withheld or any(each.result.is_withheld for each in self.cohorts.all)
        releasable = WITHHELD if has_withheld else withheld_exit(settings)
        status = "failed" if ends_with else self._status(is_withheld=is_withheld)
        return self._context.head.report(
            status,
            exit_code(status, ends_with, self._context.interrupt.signal, releasable),
            ends_with,
            requests=totals.requests,
            retries=totals.retries,
            throttled_seconds=round(totals.throttled_seconds, 1),
            alerts=self._alerts,
            cohorts=self._cohort_reports,
        )

    def _report(self, ends_with: TargetError | None) -> None:
        settings, self.report = self._context.settings, self._make_report(ends_with)
        for line in summary(self.report, settings.requests_per_minute):
            logger.info("%s", line.text, extra=line.extra)
        log_points(self.report, self.counts["BATCH"])
        if settings.report_path is not None:
            try:
                reports.write(self.report, settings.report_path)
            except TargetError as error:
                self._error = self._error or error
