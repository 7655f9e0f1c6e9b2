"""The parts that all commands share: configuration, ledgers, signals and exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import random
import signal
import sys
import time
import typing as t
import uuid

import click
import msgspec

from target_moengage_cohort import settings
from target_moengage_cohort.cli.operator_report import OperatorReport
from target_moengage_cohort.cli.target_command import log_level
from target_moengage_cohort.cli.terminal import complain
from target_moengage_cohort.core.errors import (
    BusyError,
    SettingsError,
    TargetError,
    TryAgainError,
    anonymous_traceback,
)
from target_moengage_cohort.core.interrupts import Interrupt, TerminationSignals, raising_at_sigint
from target_moengage_cohort.core.warning_log import WarningLog
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.moving import Opener
from target_moengage_cohort.settings import sources
from target_moengage_cohort.sync.reporting.final_report import FinalReport
from target_moengage_cohort.sync.reporting.report import ReportHead

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.interface import LedgerStore

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
_SIGNAL = 128  # plus its number


class SessionTiming(msgspec.Struct, frozen=True):
    """A command's clock and patience; tests pass their own as click's `Context.obj`."""

    clock: Callable[[], float] = time.time
    busy_seconds: float = 30.0  # the wait for a ledger that another process has open
    step: Step = lambda _name: None
    wait: Callable[[Interrupt, float], bool] = Interrupt.wait
    random: Callable[[], float] = random.SystemRandom().random  # draws samples


class Session:
    """One execution of a command."""

    def __init__(
        self, config: settings.Config, timing: SessionTiming, final: FinalReport | None = None
    ) -> None:
        self.config = config
        self.settings = config.settings
        self.report = OperatorReport(config)
        self._final = final  # none if the command writes no report
        if final is not None:
            final.take(config.settings)
        own = ReportHead(str(uuid.uuid4()), WarningLog(), config.settings)
        self.head = own if final is None else final.head
        self.clock = timing.clock  # seconds since 1970
        self.interrupt = Interrupt()  # set by a signal; ends every wait
        self.stopped_by: int | None = None  # the signal that ended the command
        self.is_abandoned = False  # whether a thread waits for an answer that is not needed
        self._busy_seconds, self.step = timing.busy_seconds, timing.step
        self.random = timing.random
        # Waits for a number of seconds, and returns whether the command is to end instead.
        self.wait = functools.partial(timing.wait, self.interrupt)
        self.store: LedgerStore | None = None  # that `ledgers` has opened

    @contextlib.contextmanager
    def ledgers(self, *, read_only: bool = False, is_patient: bool = True) -> Iterator[LedgerStore]:
        """Open the destination's ledgers; inside the block, a signal only sets `interrupt`.

        Ask for confirmation outside the block: Ctrl-C would not end a prompt inside it. Only if it
        `is_patient`, wait for a ledger that another process has open.
        """
        with (
            self.opener(is_patient=is_patient) as opener,
            opener.open(self.settings, read_only=read_only) as self.store,
        ):
            yield self.store

    @contextlib.contextmanager
    def opener(self, *, is_patient: bool = True) -> Iterator[Opener]:
        """Yield what opens the ledgers of several places; otherwise see `ledgers`."""
        with TerminationSignals(self.interrupt) as signals:
            try:
                opened = functools.partial(
                    open_store,
                    run_id=self.head.run_id,
                    wait=self.interrupt.wait,
                    step=self.step,
                    clock=self.clock,
                    busy_seconds=self._busy_seconds if is_patient else 0.0,
                )
                yield Opener(opened, self.interrupt.is_set)
            finally:
                self.store = None
                self.stopped_by = self.stopped_by or signals.received

    def end(self, code: int) -> int:
        """End every wait; return the exit code, which is the signal's if one ended the command."""
        self.interrupt.set()  # else a signal that comes late would set it once it is closed
        self.interrupt.close()
        if self.stopped_by is not None:
            code = _SIGNAL + self.stopped_by
            complain(f"stopped by {signal.Signals(self.stopped_by).name}")
        if self._final is not None:
            report = self.report
            if self.stopped_by is not None:
                self._final.error = None  # work that a person's signal left undone is not an error
            self._final.end(code, report.run, status=report.status, **report.results)
        if self.is_abandoned:  # Python's normal exit would wait for its thread
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code

    def note_error(self, error: TargetError) -> None:
        """Note for the report an error that the command has printed."""
        if self._final is not None:
            self._final.note(error)

    def check_interrupt(self) -> None:
        """Raise `TryAgainError` if a signal came, in work that must not end half-done."""
        if self.interrupt.signal is not None:
            raise TryAgainError("interrupted", "stopped before it finished; run the command again")

    def refuse_dry_run(self) -> None:
        """Raise `SettingsError` if the configuration forbids changes."""
        if self.settings.dry_run:
            msg = "dry_run is set, but this command makes changes; unset dry_run first"
            raise SettingsError("dry_run", msg)


def configured(work: Callable[..., int | None], *, reports: bool = False) -> Callable[..., t.Any]:
    """Give a command ``--config`` and a `Session` for it; it returns its exit code, or ``None``.

    A command that `reports` writes the report that the settings ask for, however it ends.
    """

    @click.option(
        "--config",
        "raw",
        multiple=True,
        required=True,
        type=click.Path(readable=False),  # for completion; the reader's own errors say more
        metavar="FILE|ENV",
        help="Configuration file, or ENV to read environment variables. May be repeated; later "
        "values win.",
        callback=lambda _context, _parameter, value: sources.read(value) if value else {},
    )
    @functools.wraps(work)
    def run(*, raw: dict[str, t.Any], **parameters: t.Any) -> None:
        context = click.get_current_context()
        _log_on_stderr(context)
        session: Session | None = None
        final = FinalReport(raw, is_run=context.info_name == "run") if reports else None
        try:
            with raising_at_sigint():
                config = settings.load(raw)
                config.warn(logger)
                timing = context.find_object(SessionTiming) or SessionTiming()
                session = Session(config, timing, final)
                code = work(session, **parameters) or DONE
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - see `explain`
            code = explain(error, session)
            if final is not None:
                final.note(error)
        if session is not None:
            code = session.end(code)
        elif final is not None:
            final.end(code)
        context.exit(code)

    return run


reporting = functools.partial(configured, reports=True)
"""As `configured`, for commands that send or change what is accepted."""


def explain(error: BaseException, session: Session | None) -> int:
    """Print an error, without text that may quote an identifier; return the exit code."""
    cause = error.__context__ if isinstance(error, click.Abort) else error
    if isinstance(cause, KeyboardInterrupt):
        return _SIGNAL + signal.SIGINT
    if isinstance(error, click.Abort):
        complain("canceled; nothing was changed")
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        complain("cannot write to standard output: no space left on the device")
        with contextlib.suppress(OSError, ValueError):  # or Python tries it again as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif not isinstance(error, TargetError):
        complain(anonymous_traceback(error))
    elif not (isinstance(error, BusyError) and session and session.stopped_by):
        for fault in error.faults:  # but none if a signal ended the wait for a ledger
            complain(str(fault))
    return error.exit_code if isinstance(error, TargetError) else FAILED


def _log_on_stderr(context: click.Context) -> None:
    """Show the package's log lines on standard error until the command ends."""
    package, handler = logging.getLogger("target_moengage_cohort"), logging.StreamHandler()
    context.call_on_close(functools.partial(package.setLevel, package.level))
    context.call_on_close(functools.partial(package.removeHandler, handler))
    package.addHandler(handler)
    level = logging.getLevelNamesMapping()[log_level()]
    handler.setLevel(level)
    package.setLevel(min(level, logging.WARNING))  # the report has warnings that the log leaves out


def show_errors_only() -> None:
    """Show no more log lines of a lower level, until the command ends."""
    for handler in logging.getLogger("target_moengage_cohort").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def show(result: t.Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result as JSON, or else its lines of text."""
    json = msgspec.json.format(msgspec.json.encode(result))
    click.echo(json if as_json else "\n".join(lines))
