"""One run: a tap's messages in, accepted changes and covered STATE out, a report at the end.

Whatever ends the run, what was read before it is delivered if that is still possible, and STATE
never passes a row that was neither accepted nor durably rejected.
"""

from __future__ import annotations

import logging
import typing as t
import uuid
from collections import Counter
from datetime import datetime, timezone

from target_moengage_cohort import report as reports
from target_moengage_cohort.accounts import cohort_reports
from target_moengage_cohort.checkpoints import Checkpoints
from target_moengage_cohort.delivery.answers import Answer, Outcome
from target_moengage_cohort.delivery.dispatcher import Dispatcher, Timing
from target_moengage_cohort.errors import (
    InputError,
    InternalError,
    MissingKeyError,
    MissingKeyRowError,
    RecordBeforeSchemaError,
    RowError,
    SettingsError,
    TargetError,
    anonymous_traceback,
)
from target_moengage_cohort.progress import Progress
from target_moengage_cohort.reader import ActivateVersion, Reader, Record, Schema, State
from target_moengage_cohort.rejects import RejectsFile
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.sinks import Destinations, Sink

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.delivery.pace import Pace
    from target_moengage_cohort.interrupts import Interrupt
    from target_moengage_cohort.membership import Change
    from target_moengage_cohort.reader import Message
    from target_moengage_cohort.settings import Loaded

logger = logging.getLogger(__name__)

_CHANGES_AT_ONCE = 2_000
_REJECTS_LOGGED = 10  # of each reason


class Transform(t.Protocol):
    """What happens to streams and whole records before they are mapped to cohorts."""

    def schema(self, message: Schema) -> Sequence[Schema]:
        """The streams that a stream becomes."""

    def record(
        self, stream: str, record: dict[str, t.Any]
    ) -> Sequence[tuple[str, dict[str, t.Any] | RowError]]:
        """The records that a record becomes, each with its stream, or why it cannot."""


class Run:
    """Reads messages and has them delivered; `read`, then `finish`.

    Attributes:
        counts: How many messages of each type were read.
        is_abandoned: Whether something still waited, in vain, when the run was finished.

    Args:
        loaded: The configuration.
        attempt: Sends one request body once.
        pace: Permits to start a request.
        write_state: Writes one STATE to where the run's caller keeps it.
        interrupt: Ends the run early.
        transform: What the SDK does to records; ``None`` reads them the fast way.
        timing: Clocks and jitter.

    Raises:
        SettingsError: A file that the settings name cannot be used.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        attempt: t.Callable[[bytes], Answer],
        pace: Pace | None,
        write_state: t.Callable[[bytes], None],
        interrupt: Interrupt,
        transform: Transform | None = None,
        timing: Timing | None = None,
    ) -> None:
        settings = loaded.settings
        self._loaded = loaded
        self._settings = settings
        self._interrupt = interrupt
        self._transform = transform
        self._write_state = write_state
        self._pace = pace
        self._run_id = str(uuid.uuid4())
        self._started_at = _now()
        self._reader = Reader()
        self._destinations = Destinations(settings)
        self._sinks: dict[str, Sink] = {}
        self._schemas: dict[str, Schema] = {}
        self._changes: list[Change] = []
        self._unplaced: Counter[str] = Counter()  # rejected rows that name no cohort
        self._reasons: Counter[str] = Counter()
        self._input_ended = self._complete = False
        self._error: TargetError | None = None
        self.counts: Counter[str] = Counter()
        self.is_abandoned = False
        self._rejects = None
        if isinstance(settings.report_path, str):
            reports.check(settings.report_path)
        if isinstance(settings.rejects_path, str) and not settings.dry_run:
            self._rejects = RejectsFile(settings.rejects_path, self._run_id)
        self._dispatcher = Dispatcher(
            settings,
            attempt=_accept if settings.dry_run else attempt,
            pace=None if settings.dry_run else pace,
            checkpoints=Checkpoints(),
            emit=self._emit,
            interrupt=interrupt,
            timing=timing or Timing(),
        )
        self._progress = Progress(
            self._dispatcher.totals,
            lambda: self._reader.number,
            self._dispatcher.backlog,
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
            self._refuse_own_rejects(source)
            for message in self._reader.messages(source, self._interrupt):
                if message is None:
                    self._submit()
                else:
                    self._take(message)
        except TargetError as error:
            self._error = error
            self.finish()
        except Exception as error:  # noqa: BLE001 - what was read can be delivered all the same
            self._error = InternalError(anonymous_traceback(error))
            self.finish()
        else:
            self._input_ended = not self._interrupt.is_set()

    def finish(self) -> None:
        """Have everything delivered that was read, and report.

        Raises:
            TargetError: What ended the run.
        """
        try:
            self._submit()
            drained = self._dispatcher.drain()
            self._complete = drained and self._input_ended and self._error is None
        except TargetError as error:
            self._error = self._error or error
        self.is_abandoned = not self._dispatcher.stop()
        if self._pace is not None and not self.is_abandoned:
            self._pace.close()
        for reason, count in self._reasons.items():
            if count > _REJECTS_LOGGED:
                logger.warning("%d rows in all were rejected: %s", count, reason)
        try:
            if self._rejects is not None:
                self._rejects.close()
        except TargetError as error:
            self._error = self._error or error
        self._progress.stop()
        self._report()
        if self._error is not None:
            raise self._error

    def _take(self, message: Message) -> None:
        if isinstance(message, Record):
            self.counts["RECORD"] += 1
            self._take_record(message)
        elif isinstance(message, State):
            self.counts["STATE"] += 1
            self._submit()
            if message.value.translate(None, b" \t\r\n") not in {b"{}", b"null"}:
                self._dispatcher.state(message.value)
        elif isinstance(message, Schema):
            self.counts["SCHEMA"] += 1
            self._take_schema(message)
        elif isinstance(message, ActivateVersion):
            self.counts["ACTIVATE_VERSION"] += 1

    def _take_schema(self, message: Schema) -> None:
        if self._schemas.get(message.stream) == message:
            return
        self._schemas[message.stream] = message
        streams = [message] if self._transform is None else self._transform.schema(message)
        for stream in streams:
            sink = Sink(
                self._loaded.mapping(stream.stream),
                stream.schema["properties"],
                stream.key_properties,
                self._destinations,
            )
            self._sinks[stream.stream] = sink
            if self._transform is None:
                self._reader.expect(stream.stream, sink.columns, sink.keys)

    def _take_record(self, message: Record) -> None:
        stream = message.stream
        if stream not in self._schemas:
            what = f"a RECORD of the stream {stream!r} came before its SCHEMA"
            raise RecordBeforeSchemaError(self._reader.where(what))
        if self._transform is None:
            faults = [self._change(stream, message.record)]
        else:
            outputs = self._transform.record(stream, self._reader.record())
            faults = [self._change_whole(alias, record) for alias, record in outputs]
        if found := [fault for fault in faults if fault is not None]:
            self._reject(stream, found)

    def _change_whole(self, stream: str, record: dict[str, t.Any] | RowError) -> RowError | None:
        sink = self._sinks[stream]
        if isinstance(record, RowError):
            sink.count_rejected(record)
            self._place(stream, record)
            return record
        return self._change(stream, sink.row(record))

    def _change(self, stream: str, row: t.Any) -> RowError | None:
        """Turn a row into a change; return why it cannot be delivered, if it cannot."""
        try:
            change = self._sinks[stream].change(row)
        except RowError as error:
            self._place(stream, error)
            return error
        if change is not None:
            self._changes.append(change)
            if len(self._changes) >= _CHANGES_AT_ONCE:
                self._submit()
        return None

    def _place(self, stream: str, error: RowError) -> None:
        if error.cohort_id is None:
            self._unplaced[stream] += 1

    def _submit(self) -> None:
        if self._changes:
            changes, self._changes = self._changes, []
            self._dispatcher.submit(changes)

    def _reject(self, stream: str, faults: Sequence[RowError]) -> None:
        """Reject the latest row, once, whatever number of streams it became."""
        reason = "; ".join(dict.fromkeys(fault.reason for fault in faults))
        if self._settings.on_reject is OnReject.FAIL:
            what = f"a row of the stream {stream!r} cannot be delivered: {reason}"
            advice = "; mend it, or set on_reject to skip and give a rejects_path"
            lacks_key = any(isinstance(fault, MissingKeyRowError) for fault in faults)
            kind = MissingKeyError if lacks_key else InputError
            raise kind(self._reader.where(what + advice))
        self._reasons[reason] += 1
        if self._reasons[reason] <= _REJECTS_LOGGED:
            logger.warning("line %d: row rejected: %s", self._reader.number, reason)
        if self._rejects is not None:
            self._rejects.append(self._schemas[stream], self._reader.record(), reason)

    def _emit(self, value: bytes) -> None:
        if self._settings.dry_run:
            return
        if self._rejects is not None:
            self._rejects.sync()
        self._write_state(value)

    def _refuse_own_rejects(self, source: t.IO[t.Any]) -> None:
        """Refuse to read the file that rejected rows are appended to: it would have no end."""
        try:
            descriptor = source.fileno()
        except OSError:
            return
        if self._rejects is not None and self._rejects.is_file(descriptor):
            msg = (
                "rejects_path: is the file that is being read; rename that file before you "
                "replay it, so that rows which are rejected again go to a new one"
            )
            raise SettingsError(msg)

    def _report(self) -> None:
        settings = self._settings
        failed = self._error is not None or not self._complete
        totals = self._dispatcher.totals
        report = reports.Report(
            run_id=self._run_id,
            started_at=self._started_at,
            finished_at=_now(),
            status="failed" if failed else "dry_run" if settings.dry_run else "succeeded",
            requests=totals.requests,
            retries=totals.retries,
            throttled_seconds=round(totals.throttled_seconds, 1),
            cohorts=cohort_reports(
                self._destinations.by_id.values(),
                self._dispatcher.lanes,
                {self._sinks[stream].mapping: count for stream, count in self._unplaced.items()},
                complete=self._complete,
            ),
        )
        logger.info("%s", reports.summary(report, settings.requests_per_minute))
        if isinstance(settings.report_path, str):
            try:
                reports.write(report, settings.report_path)
            except TargetError as error:
                self._error = self._error or error


def _accept(_body: bytes) -> Answer:
    """A dry run's MoEngage."""
    return Answer(Outcome.ACCEPTED, "not sent")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
