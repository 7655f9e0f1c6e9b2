"""The report of a process that ends before a run could write one, or otherwise than it did."""

from __future__ import annotations

import contextlib
import os
import typing as t
import uuid

import msgspec

from target_moengage_cohort.core.errors import TargetError, known_error
from target_moengage_cohort.core.warning_log import WarningLog
from target_moengage_cohort.sync.reporting import report as reports
from target_moengage_cohort.sync.reporting.report import ReportHead

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.settings import Settings


class FinalReport:
    """The report of a process; it collects warnings from the beginning.

    Args:
        raw: The configuration before it is checked: settings that are refused are reported, too.
        is_run: Whether the process is a run, which has metrics.

    Attributes:
        head: What is known of the process when it begins.
        error: What ended it.
    """

    def __init__(self, raw: Mapping[str, t.Any], *, is_run: bool = False) -> None:
        self._path, self._metrics_path, self._partner = (
            value if isinstance(value := raw.get(name), str) and value else None
            for name in ("report_path", "metrics_path", "partner")
        )
        self._is_run, self._is_dry = is_run, False
        self.head = ReportHead(str(uuid.uuid4()), WarningLog())
        self.head.warnings.start()
        self.error: TargetError | None = None

    def take(self, settings: Settings) -> None:
        """Take the settings, which are valid."""
        self.head = msgspec.structs.replace(self.head, settings=settings)
        self._path = settings.report_path
        self._metrics_path, self._is_dry = settings.metrics_path, settings.dry_run

    def note(self, error: BaseException) -> None:
        """Note what has ended the process; a user's signal is not an error."""
        if isinstance(error, Exception):
            self.error = known_error(error)

    def end(
        self,
        exit_code: int,
        made: reports.Report | None = None,
        *,
        status: reports.Status | None = None,
        **results: t.Any,
    ) -> None:
        """Write the report, unless a run has `made` and written the same; and a run's metrics.

        Stop collecting. Without a status the process has failed, or succeeded with 0. A path that
        cannot be written is not reported: something else has failed before.
        """
        self.head.warnings.stop()
        if self._path is None and not self._is_run:
            return
        is_written = made is not None and made.exit_code == exit_code
        if made is not None:  # unless these are the same, a signal came after the run had ended
            made = msgspec.structs.replace(made, exit_code=exit_code)
        else:
            status = status or ("failed" if exit_code else "succeeded")
            made = self.head.report(status, exit_code, self.error, **results)
        if self._path is not None and not is_written:
            with contextlib.suppress(TargetError, ValueError):  # such as a null character in it
                reports.write(made, self._path)
        if self._is_run and not self._is_dry:
            self._publish(made)

    def _publish(self, report: reports.Report) -> None:
        """Give a run's numbers to those who watch many programs, if they are asked for."""
        if (self._metrics_path or "").endswith(".prom"):  # else it was refused
            from target_moengage_cohort.sync.reporting import metrics_file  # noqa: PLC0415 - rarely set

            metrics_file.write(report, str(self._metrics_path), self._partner or "")
        if any(name.startswith("OTEL_EXPORTER_OTLP_") for name in os.environ):
            from target_moengage_cohort.sync.reporting import telemetry  # noqa: PLC0415 - likewise

            telemetry.export(report, self._partner or "")
