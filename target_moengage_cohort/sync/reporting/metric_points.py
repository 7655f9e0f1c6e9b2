"""A run's numbers as the METRIC points of Singer's SDK, for those who collect its logs."""

from __future__ import annotations

import os
import typing as t
from collections import Counter
from datetime import datetime

from target_moengage_cohort.moengage.cohort_sync import COHORT_SYNC_PATH

if t.TYPE_CHECKING:
    from target_moengage_cohort.sync.reporting.report import Report


def log_points(report: Report, batches: int) -> None:
    """Log the points of a run that has read so many BATCH messages.

    Only if the SDK's configuration of logs is asked for: a plain log is for people.
    """
    if "SINGER_SDK_LOG_CONFIG" not in os.environ:
        return
    from singer_sdk import metrics  # noqa: PLC0415 - imported by then, and slow otherwise

    records = Counter[str]()
    for cohort in report.cohorts:
        records[cohort.stream] += cohort.records
    metric, tag = metrics.Metric, metrics.Tag
    status = metrics.Status.FAILED if report.status == "failed" else metrics.Status.SUCCEEDED
    began, ended = map(datetime.fromisoformat, (report.started_at, report.finished_at))
    points: list[tuple[str, metrics.Metric, float, dict[metrics.Tag, str]]] = [
        ("counter", metric.RECORD_COUNT, count, {tag.STREAM: stream})
        for stream, count in records.items()
    ]
    if batches:
        points.append(("counter", metric.BATCH_COUNT, batches, {}))
    endpoint = {tag.ENDPOINT: COHORT_SYNC_PATH}
    points.append(("counter", metric.HTTP_REQUEST_COUNT, report.requests, endpoint))
    seconds = (ended - began).total_seconds()
    points.append(("timer", metric.SYNC_DURATION, seconds, {tag.STATUS: status.value}))
    for kind, name, value, tags in points:
        named = {key.value: text for key, text in tags.items()} | {"pid": os.getpid()}
        metrics.log(metrics.get_metrics_logger(), metrics.Point(kind, name, value, named))
