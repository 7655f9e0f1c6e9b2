"""A run on one input: as the target's process with signals and exit codes, or for an embedder."""

from __future__ import annotations

import logging
import os
import signal
import sys
import typing as t
import uuid

from target_moengage_cohort import NAME, settings, version
from target_moengage_cohort.core.errors import SettingsError, TargetError, anonymous_traceback
from target_moengage_cohort.core.interrupts import Interrupt, TerminationSignals
from target_moengage_cohort.ledger import Ledgers
from target_moengage_cohort.settings import sources as configuration
from target_moengage_cohort.sync.wiring import wired

if t.TYPE_CHECKING:
    from collections import Counter

    from target_moengage_cohort.sync.run import Run

logger = logging.getLogger(NAME)


class Sync:
    """A run whose parts are made when it begins to read; `read`, then `finish`.

    Args:
        loaded: The configuration.

    Attributes:
        interrupt: Ends the run early.
    """

    def __init__(self, loaded: settings.Config) -> None:
        self.interrupt = Interrupt()
        self._loaded = loaded
        self._run: Run | None = None

    def read(self, source: t.IO[t.Any] | None) -> Counter[str]:
        """Read an input, or standard input, to its end or until interrupted.

        Returns:
            How many messages of each type were read.

        Raises:
            TargetError: What ended the run early.
        """
        source = source or sys.stdin
        if source is None or sys.stdout is None:
            msg = "standard input and standard output must be open; a pipe or a file will do"
            raise SettingsError(msg)
        ledgers = Ledgers(
            self._loaded.settings,
            run_id=str(uuid.uuid4()),
            wait=self.interrupt.wait,
            read_only=self._loaded.settings.dry_run,
        )
        self._run = wired(self._loaded, self.interrupt, ledgers)
        self._run.read(source)
        return self._run.counts

    def finish(self) -> None:
        """Have everything delivered that was read.

        Raises:
            TargetError: What ended the run.
        """
        if self._run is not None:
            self._run.finish()

    @property
    def exit_code(self) -> int:
        """What a run ends with that has no error to tell."""
        report = self._run.report if self._run is not None else None
        return 0 if report is None else report.exit_code

    @property
    def is_abandoned(self) -> bool:
        """Whether something still waits, in vain, after the run."""
        return self._run is not None and self._run.is_abandoned


def run(given: dict[str, t.Any], *, from_environment: bool, source: t.IO[str] | None) -> None:
    """Run as the target's process: exit 0, 1, 3, 4, or 128 + a signal's number.

    Args:
        given: The raw configuration.
        from_environment: Whether settings from the environment are added to it, and win.
        source: The input; ``None`` is standard input.
    """
    os.umask(0o077)  # whatever file we make is its owner's alone
    logger.info("%s", version())
    sync = Sync(_loaded(given, from_environment=from_environment))
    with TerminationSignals(sync.interrupt) as signals:
        code = _completed(sync, source)
        if signals.received is not None:
            name = signal.Signals(signals.received).name
            logger.warning("stopped by %s; the next run goes on from the last STATE", name)
            code = 128 + signals.received
    if sync.is_abandoned:  # a thread still waits; Python's own way to exit would, too
        logging.shutdown()
        os._exit(code)
    _close_stdout()
    if code:
        sys.exit(code)


def _loaded(given: dict[str, t.Any], *, from_environment: bool) -> settings.Config:
    if from_environment:
        logger.info("Parsing env var for settings config...")
        given = given | configuration.from_environment()
    else:
        logger.info("Skipping parse of env var settings...")
    try:
        loaded = settings.load(given)
    except SettingsError as error:
        for fault in (*error.faults, "Config validation failed"):
            logger.error("%s", fault)  # noqa: TRY400 - a message, and no traceback
        sys.exit(error.exit_code)
    loaded.warn(logger)
    return loaded


def _completed(sync: Sync, source: t.IO[str] | None) -> int:
    """Read an input and have it delivered; say what went wrong, and return the exit code."""
    try:
        counts = sync.read(source)
        logger.info(
            "Reader '%s' completed processing %d lines of input (%d schemas, %d records, "
            "%d batch manifests, %d state messages, %d activate version messages).",
            NAME,
            sum(counts.values()),
            *(counts[kind] for kind in ("SCHEMA", "RECORD", "BATCH", "STATE", "ACTIVATE_VERSION")),
        )
        sync.finish()
    except TargetError as error:
        logger.error("%s", error)  # noqa: TRY400 - a message, and no traceback
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - its text may quote an identifier
        logger.error("%s", anonymous_traceback(error))  # noqa: TRY400
        return 1
    return sync.exit_code


def _close_stdout() -> None:
    """Flush standard output now, since Python would do so with a traceback at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
