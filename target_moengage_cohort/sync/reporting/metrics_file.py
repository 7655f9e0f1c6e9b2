"""A run's metrics as Prometheus text, for the textfile collector of node_exporter."""

from __future__ import annotations

import logging
import os
import re
import typing as t
from datetime import datetime
from pathlib import Path

from target_moengage_cohort.core.files import replace

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from target_moengage_cohort.sync.reporting.report import CohortReport, Report

logger = logging.getLogger(__name__)

_Samples = dict[tuple[tuple[str, str], ...], float]
_PREFIX = "moengage_cohort_"
_SUCCESS = f"{_PREFIX}last_success_timestamp_seconds"
_HELP = {  # of a run, and then of each of its cohorts
    "last_run_timestamp_seconds": "When the latest run ended.",
    "last_success_timestamp_seconds": "When the latest run that succeeded ended.",
    "last_run_success": (
        "Whether the latest run succeeded: 1, or 0 if it failed or withheld changes."
    ),
    "last_run_exit_code": "Exit code of the latest run.",
    "last_run_duration_seconds": "How long the latest run took.",
    "last_run_requests": "Requests of the latest run, retries included.",
    "last_run_retries": "Retries of the latest run.",
    "last_run_throttled_seconds": "How long the rate limit delayed the latest run.",
    "last_run_warnings": "Warnings of the latest run.",
    "members": "Members of a cohort whose addition was accepted.",
    "last_run_cohort_success": "Whether the latest run succeeded for a cohort.",
    "last_run_read_records": "Records of a cohort that the latest run read.",
    "last_run_added_members": "Members that the latest run added to a cohort.",
    "last_run_removed_members": "Members that the latest run removed from a cohort.",
    "last_run_rejected_records": "Records of a cohort that could not be delivered.",
    "last_run_withheld_removals": "Removals from a cohort that the latest run withheld.",
    "last_run_pending_removals": "Removals from a cohort that await moengage-cohort confirm.",
    "last_run_unconfirmed_members": "Members of a cohort whose last request got no answer.",
}
_FINE = {"succeeded", "sealed"}
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def write(report: Report, path: str, partner: str) -> None:
    """Write the metrics of a run, in place of those before; if that fails, only warn."""
    place = Path(path)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.tmp")  # which no collector reads
    try:
        place, former = place.resolve(), ""
        if place.is_file():
            former = place.read_text(encoding="utf-8", errors="replace")
        replace(place, text(report, partner, former).encode(), unfinished, mode=0o644)
    except (OSError, ValueError) as error:  # such as a null character in the path
        logger.warning(
            "metrics_path: %s cannot be written (%s). Check that its directory is writable and "
            "its disk has free space",
            path,
            getattr(error, "strerror", None) or type(error).__name__,
            extra={"code": "metrics_unwritable"},
        )


def text(report: Report, partner: str, former: str) -> str:
    """Return the metrics of a run; the `former` text has when a run succeeded before."""
    labels = {"partner": report.partner or partner}
    families: dict[str, _Samples] = {name: {} for name in _HELP}
    for name, value in values_of_run(report):
        families[name][tuple(labels.items())] = value
    if report.status != "succeeded":
        before = re.search(f"^{re.escape(_SUCCESS + _shown(labels))} (\\S+)$", former, re.MULTILINE)
        if before is not None:
            families["last_success_timestamp_seconds"][tuple(labels.items())] = float(before[1])
    for cohort in report.cohorts:
        own = labels | {"cohort_id": cohort.cohort_id or "", "stream": cohort.stream}
        for name, value in values_of_cohort(cohort):
            families[name].setdefault(tuple(own.items()), value)
    return "".join(_family(f"{_PREFIX}{name}", families[name], _HELP[name]) for name in _HELP)


def _family(name: str, samples: _Samples, about: str) -> str:
    if not samples:
        return ""
    lines = [f"{name}{_shown(dict(labels))} {value!r}" for labels, value in samples.items()]
    return "\n".join((f"# HELP {name} {about}", f"# TYPE {name} gauge", *lines, ""))


def _shown(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def values_of_run(report: Report) -> Iterator[tuple[str, float]]:
    """Yield the names and values of a run's metrics."""
    began, ended = (
        datetime.fromisoformat(each).timestamp() for each in (report.started_at, report.finished_at)
    )
    yield "last_run_timestamp_seconds", ended
    if report.status == "succeeded":
        yield "last_success_timestamp_seconds", ended
    yield "last_run_success", int(report.status == "succeeded")
    yield "last_run_exit_code", report.exit_code
    yield "last_run_duration_seconds", round(ended - began, 3)
    yield "last_run_requests", report.requests
    yield "last_run_retries", report.retries
    yield "last_run_throttled_seconds", report.throttled_seconds
    yield "last_run_warnings", len(report.warnings)


def values_of_cohort(cohort: CohortReport) -> Iterator[tuple[str, float]]:
    """Yield those of one of its cohorts."""
    if cohort.accepted is not None:
        yield "members", cohort.accepted.count
    yield "last_run_cohort_success", int(cohort.status in _FINE)
    yield "last_run_read_records", cohort.records
    yield "last_run_added_members", cohort.added
    yield "last_run_removed_members", cohort.removed
    yield "last_run_rejected_records", cohort.rejected
    yield "last_run_withheld_removals", cohort.removals_withheld
    yield "last_run_pending_removals", cohort.removals_waiting
    yield "last_run_unconfirmed_members", cohort.in_doubt
