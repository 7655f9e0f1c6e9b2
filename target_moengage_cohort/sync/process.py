"""A run on one input: as the target's process with signals and exit codes, or for an embedder."""

from __future__ import annotations

import logging
import os
import signal
import sys
import typing as t
import uuid

import msgspec

from target_moengage_cohort import NAME, package_version, settings, version
from target_moengage_cohort.core.errors import SettingsError, TargetError, anonymous_traceback
from target_moengage_cohort.core.interrupts import Interrupt, Patience, TerminationSignals
from target_moengage_cohort.core.warning_log import WarningLog
from target_moengage_cohort.delivery.delivery import dry_link, live_link
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import sources
from target_moengage_cohort.singer.lines import discard
from target_moengage_cohort.singer.writer import NoRejects, RejectsFile, write_state
from target_moengage_cohort.sync.context import Endpoints, RunContext
from target_moengage_cohort.sync.mirror.recorder import NullRecorder, Recorder
from target_moengage_cohort.sync.reporting import report as reports
from target_moengage_cohort.sync.reporting.final_report import FinalReport
from target_moengage_cohort.sync.reporting.report import ReportHead
from target_moengage_cohort.sync.run import Run
from target_moengage_cohort.sync.segments.api_endpoints import api_endpoints

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Config, Settings
    from target_moengage_cohort.singer.stream_maps import StreamMaps
    from target_moengage_cohort.sync.change_list import ListChanges

logger = logging.getLogger(NAME)

_BUSY_SECONDS = 30.0  # to wait for a rejects file that another process has locked


def open_run(
    config: Config,
    interrupt: Interrupt,
    store: LedgerStore,
    head: ReportHead,
    list_changes: ListChanges | None = None,
) -> Run:
    """Put a run together, if what the settings name can be used; a dry run's store is read-only.

    A dry run gives the changes of all members to `list_changes`.
    """
    if config.settings.report_path is not None:
        reports.check(config.settings.report_path)
    _log_start(config.settings, store, head)
    context = RunContext(head, config, interrupt, Timing())
    endpoints = endpoints_of(context, store)
    if list_changes is not None:
        from target_moengage_cohort.sync.change_list import ListingRecorder  # noqa: PLC0415

        recorder = ListingRecorder(store, list_changes)
        link = recorder.listing(endpoints.link)
        endpoints = msgspec.structs.replace(endpoints, recorder=recorder, link=link)
    return Run(context, endpoints)


def _log_start(settings: Settings, store: LedgerStore, head: ReportHead) -> None:
    """Log where a run sends what it reads; the key is left out."""
    logging.getLogger(__name__).info(  # `moengage-cohort run` shows that one, too
        "%s %s, %srun %s: workspace %r at %s, partner %r, ledger %s",
        NAME,
        package_version(),
        "dry " if settings.dry_run else "",
        head.run_id,
        settings.workspace_id,
        settings.base_url,
        settings.partner,
        store.place,
        extra={"code": "started"},
    )


def endpoints_of(context: RunContext, store: LedgerStore) -> Endpoints:
    """Return the endpoints of a run; only this function asks whether it is a dry run."""
    settings = context.settings
    record_mapper = record_mapper_of(settings)  # first, because it may refuse the settings
    if settings.dry_run:
        return Endpoints(
            store=store,
            recorder=NullRecorder(store),
            link=dry_link(context.interrupt),
            write_state=lambda _value: None,
            rejects=NoRejects(),
            record_mapper=record_mapper,
            apis=api_endpoints(context, store),
        )
    path, patience = settings.rejects_path, Patience(context.interrupt.wait, _BUSY_SECONDS)
    return Endpoints(
        store=store,
        recorder=Recorder(store),
        link=live_link(settings, context.interrupt, store),
        write_state=write_state,
        rejects=NoRejects() if path is None else RejectsFile(path, store.run_id, patience),
        record_mapper=record_mapper,
        apis=api_endpoints(context, store),
    )


def record_mapper_of(settings: Settings) -> StreamMaps | None:
    """Return the SDK's stream maps if the settings ask for them; the SDK is slow to import."""
    if not settings.transforms_records:
        return None
    from target_moengage_cohort.singer.stream_maps import StreamMaps  # noqa: PLC0415

    return StreamMaps(settings, logger)


class Sync:
    """A run that is put together when it begins to read; `read`, then `finish`."""

    def __init__(self, config: Config, head: ReportHead | None = None) -> None:
        self.interrupt = Interrupt()
        self.run: Run | None = None
        self._config = config
        settings = config.settings
        self._head = head or ReportHead(str(uuid.uuid4()), WarningLog(), settings)

    def read(self, source: t.IO[t.Any] | None) -> Run:
        """Read an input, or standard input, as `Run.read`; return the run."""
        source = source or sys.stdin
        if source is None or sys.stdout is None:
            msg = (
                "standard input and standard output must be open; connect each to a pipe or a file"
            )
            raise SettingsError("standard_streams_closed", msg)
        store = open_store(
            self._config.settings,
            run_id=self._head.run_id,
            wait=self.interrupt.wait,
            read_only=self._config.settings.dry_run,
        )
        self.run = open_run(self._config, self.interrupt, store, self._head)
        self.run.read(source)
        return self.run

    def finish(self) -> None:
        """Deliver everything that was read, as `Run.finish`."""
        if self.run is not None:
            self.run.finish()


def run(raw: dict[str, t.Any], *, from_environment: bool, source: t.IO[str] | None) -> None:
    """Run as the target's process: exit 0, 1, 3, 4, or 128 + a signal's number.

    Settings `from_environment` are added to the raw ones, and win. Without a source, standard input
    is read.
    """
    os.umask(0o077)  # every file that we create is its owner's alone
    if logger.isEnabledFor(logging.DEBUG):  # looking a version up takes time
        logger.debug("%s", version())
    raw = raw | sources.from_environment() if from_environment else sources.add_misspellings(raw)
    final = FinalReport(raw, is_run=True)
    config = _load(raw, source, final)
    final.take(config.settings)
    sync = Sync(config, final.head)
    with TerminationSignals(sync.interrupt) as signals:
        code = _complete(sync, source, final, signals)
        if signals.received is not None:
            name = signal.Signals(signals.received).name
            logger.warning(
                "stopped by %s; the next run resumes from the last STATE",
                name,
                extra={"code": "interrupted"},
            )
            code = 128 + signals.received
    final.end(code, None if sync.run is None else sync.run.report)
    # If a thread still waits, Python's own way to exit would wait for it.
    if sync.run is not None and sync.run.is_abandoned:
        logging.shutdown()
        os._exit(code)
    _close_stdout()
    if code:
        sys.exit(code)


def _load(raw: dict[str, t.Any], source: t.IO[str] | None, final: FinalReport) -> Config:
    """Return the configuration; if it is refused, log and report that, and exit."""
    try:
        config = settings.load(raw)
    except SettingsError as error:
        interrupt = Interrupt()
        with TerminationSignals(interrupt) as signals:
            discard(source or sys.stdin, interrupt.is_set)
        for fault in error.faults:
            logger.error("%s", fault, extra={"code": fault.code})  # noqa: TRY400 - no traceback
        code = error.exit_code if signals.received is None else 128 + signals.received
        final.note(error)
        final.end(code)
        sys.exit(code)
    config.warn(logger)
    return config


def _complete(
    sync: Sync, source: t.IO[str] | None, final: FinalReport, signals: TerminationSignals
) -> int:
    """Read an input and have it delivered; return the exit code.

    If that fails, the reason is logged last: the tap is allowed to end first.
    """

    def let_tap_end() -> None:
        discard(source or sys.stdin, lambda: signals.received is not None)

    try:
        run = sync.read(source)
        counts = run.counts
        logger.debug(
            "Reader '%s' completed processing %d lines of input (%d schemas, %d records, "
            "%d batch manifests, %d state messages, %d activate version messages).",
            NAME,
            sum(counts.values()),
            *(counts[kind] for kind in ("SCHEMA", "RECORD", "BATCH", "STATE", "ACTIVATE_VERSION")),
        )
        run.finish()
    except TargetError as error:
        final.note(error)
        let_tap_end()
        logger.error("%s", error, extra={"code": error.code})  # noqa: TRY400 - no traceback
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - its text may quote an identifier
        final.note(error)
        let_tap_end()
        extra = {"code": "internal_error"}
        logger.error("%s", anonymous_traceback(error), extra=extra)  # noqa: TRY400
        return 1
    return run.exit_code


def _close_stdout() -> None:
    """Flush standard output now, because Python would do so with a traceback at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
