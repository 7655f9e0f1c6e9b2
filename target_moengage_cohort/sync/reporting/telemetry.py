"""A run's trace and metrics for an OpenTelemetry collector, by the standard variables."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import typing as t
from datetime import datetime

from target_moengage_cohort import NAME, package_version
from target_moengage_cohort.sync.reporting.metrics_file import values_of_cohort, values_of_run

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from target_moengage_cohort.sync.reporting.report import Report

logger = logging.getLogger(__name__)

_MOST_SECONDS = 4.0  # with the rest of the end less than 5
_MOST_EVENTS = 100
_SIGNALS = ("TRACES", "METRICS")


def export(report: Report, partner: str) -> None:
    """Send a run's trace and metrics, if a collector is named; take a few seconds at most.

    A failure is only a warning.
    """
    wanted = [*filter(_is_wanted, _SIGNALS)]
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    failures: list[str] = []
    arguments = (report, partner, wanted, failures)
    # A daemon: the process ends without it if the collector does not answer.
    thread = threading.Thread(target=_export, args=arguments, name="telemetry", daemon=True)
    with contextlib.suppress(KeyboardInterrupt):  # the run is over, so its exit code stays
        thread.start()
        thread.join(_MOST_SECONDS)
    if thread.is_alive():
        failures = [f"no answer within {_MOST_SECONDS:.0f} s"]
    if failures:
        logger.warning(
            "the run's traces and metrics did not all reach the OpenTelemetry collector (%s). "
            "Check the variables OTEL_EXPORTER_OTLP_…, and check that the collector accepts "
            "OTLP over HTTP",
            "; ".join(failures),
            extra={"code": "telemetry_not_sent"},
        )


def _is_wanted(signal: str) -> bool:
    """Return whether the standard variables name a collector for traces or metrics."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    is_off = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none"
    return any(map(os.environ.get, names)) and not is_off


def _export(report: Report, partner: str, wanted: Sequence[str], failures: list[str]) -> None:
    # The library logs tracebacks, and addresses, which may have a secret.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    try:
        if "TRACES" in wanted and not _send_spans(_spans(report, partner)):
            failures.append("traces were refused")
        if "METRICS" in wanted and not _send_metrics(_metrics(report, partner)):
            failures.append("metrics were refused")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        logger.info(
            "nothing is sent to the OpenTelemetry collector, because its library is not installed: "
            "pip install 'target-moengage-cohort[otel]'",
            extra={"code": "missing_extra"},
        )
    except Exception as error:  # noqa: BLE001 - the run is over; its text may have an address
        failures.append(type(error).__name__)


def _resource() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    own = Resource({"service.name": NAME, "service.version": package_version()})
    return own.merge(OTELResourceDetector().detect())


def _spans(report: Report, partner: str) -> Sequence[ReadableSpan]:
    """Return the span of a run, below the one in `TRACEPARENT`; none if that is not sampled."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415
        InMemorySpanExporter,
    )
    from opentelemetry.trace import StatusCode  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    carrier = {name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
    span = provider.get_tracer(NAME, package_version()).start_span(
        "sync cohorts",
        context=TraceContextTextMapPropagator().extract(carrier),
        start_time=_nanoseconds(report.started_at),
    )
    for name, value in _attributes(report, partner).items():
        span.set_attribute(f"moengage_cohort.{name}", value)
    for warning in report.warnings[:_MOST_EVENTS]:
        names = {"stream": warning.stream, "cohort_id": warning.cohort_id}
        facts = {name: text for name, text in names.items() if text is not None}
        span.add_event(warning.code, facts, _nanoseconds(report.finished_at))
    if report.status == "failed":
        code = "interrupted" if report.error is None else report.error.code
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR, code)
    span.end(_nanoseconds(report.finished_at))
    return kept.get_finished_spans()


def _attributes(report: Report, partner: str) -> dict[str, str | float]:
    facts: dict[str, str | float] = {
        "partner": report.partner or partner,
        "run_id": report.run_id,
        "status": report.status,
        "cohorts": len(report.cohorts),
        "added": sum(each.added for each in report.cohorts),
        "removed": sum(each.removed for each in report.cohorts),
    }
    facts.update(values_of_run(report))
    return facts


def _send_spans(spans: Sequence[ReadableSpan]) -> bool:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return not spans or OTLPSpanExporter().export(spans).name == "SUCCESS"


def _metrics(report: Report, partner: str) -> MetricsData | None:
    """Return the values of a run and its cohorts, under the names that `metrics_path` has."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)
    meter = provider.get_meter(NAME, package_version())
    labels = {"partner": report.partner or partner}
    for name, value in values_of_run(report):
        meter.create_gauge(f"moengage_cohort.{name}").set(value, labels)
    for cohort in report.cohorts:
        own = labels | {"cohort_id": cohort.cohort_id or "", "stream": cohort.stream}
        for name, value in values_of_cohort(cohort):
            meter.create_gauge(f"moengage_cohort.{name}").set(value, own)
    return reader.get_metrics_data()


def _send_metrics(data: MetricsData | None) -> bool:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )

    return data is None or OTLPMetricExporter().export(data).name == "SUCCESS"


def _nanoseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1_000) * 1_000_000
