"""Traces and metrics for an OpenTelemetry collector."""

import sys
import time

import pytest

from target_moengage_cohort.sync.reporting import telemetry
from tests.support.collector import Collector, plain
from tests.support.reports import report
from tests.support.singer import config, finish, lines, record, schema, start

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TIMES = {"started_at": "2027-01-15T08:00:00.000Z", "finished_at": "2027-01-15T08:01:30.500Z"}
DATA = lines(schema("vip"), record("vip", uid="planted-1"), record("vip", uid="planted-2"))
PREFIX = "moengage_cohort"


@pytest.fixture
def collector():
    with Collector() as running:
        yield running


def variables(collector, **others):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | others


def test_a_run_is_a_span_with_metrics(tmp_path, emulator, collector):
    """A run is a span of the trace in TRACEPARENT, with its times, numbers and warnings, and its
    metrics have the values of each cohort; no identifier and no key is in them."""
    settings = config(emulator, ledger_uri=str(tmp_path / "ledger"), partner="acme")
    parent = {"TRACEPARENT": f"00-{TRACE}-{PARENT}-01", "OTEL_RESOURCE_ATTRIBUTES": "team=crm"}
    ended = finish(start(tmp_path, settings, **variables(collector, **parent)), DATA)
    assert 0 == ended.code, ended.stderr
    ((resource, span),) = collector.spans
    assert ("target-moengage-cohort", "crm") == (resource["service.name"], resource["team"])
    assert (TRACE, PARENT) == (span.trace_id.hex(), span.parent_span_id.hex())
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60 * 10**9
    attributes = plain(span.attributes)
    assert ("succeeded", 2, 1) == tuple(
        attributes[f"{PREFIX}.{name}"] for name in ("status", "added", "last_run_requests")
    )
    assert ["ledger_created"] == [event.name for event in span.events]
    assert 1 == collector.values[f"{PREFIX}.last_run_success", "acme"]
    assert 2 == collector.values[f"{PREFIX}.members", "acme", "vip", "vip"]
    sent = b"".join(collector.bodies)
    assert b"planted" not in sent
    assert settings["data_api_key"].encode() not in sent


def test_a_failed_run_is_an_error(collector, monkeypatch):
    """The span of a failed run has the status of an error, with its code; without TRACEPARENT it
    begins a trace, and OTEL_SERVICE_NAME names the service."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    monkeypatch.delenv("TRACEPARENT", raising=False)
    telemetry.export(report(**TIMES, status="failed", exit_code=1), "acme")
    ((resource, span),) = collector.spans
    assert "nightly" == resource["service.name"]
    assert (2, "interrupted", b"") == (span.status.code, span.status.message, span.parent_span_id)
    assert 90_500_000_000 == span.end_time_unix_nano - span.start_time_unix_nano
    assert 0 == collector.values[f"{PREFIX}.last_run_success", "acme"]
    assert {"Bearer token"} == {each["authorization"] for each in collector.headers}


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2),
        ({"OTEL_SDK_DISABLED": "true"}, 0),
        ({"OTEL_TRACES_EXPORTER": "none"}, 1),
        ({"OTEL_METRICS_EXPORTER": "none"}, 1),
        ({"TRACEPARENT": f"00-{TRACE}-{PARENT}-00"}, 1),  # not sampled
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, 0),
    ],
)
def test_the_standard_variables_decide(collector, monkeypatch, settings, count):
    """What is sent is what the standard variables ask for."""
    for name, value in variables(collector, **settings).items():
        monkeypatch.setenv(name, value)
    telemetry.export(report(**TIMES), "acme")
    assert count == len(collector.received)


def test_a_collector_that_hangs(tmp_path, emulator):
    """A collector that never answers delays a run by 5 seconds at most; the exit code stays, and a
    warning is logged."""
    with Collector(hangs=True) as collector:
        began = time.monotonic()
        plainly = finish(start(tmp_path, config(emulator)), DATA)
        usual = time.monotonic() - began
        began = time.monotonic()
        ended = finish(start(tmp_path, config(emulator), **variables(collector)), DATA)
        assert usual + 5 > time.monotonic() - began
        assert (0, 0) == (plainly.code, ended.code)
        assert 1 == len(collector.received)
    assert "no answer within" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("status", [400, 503, None])
def test_a_collector_that_refuses(monkeypatch, caplog, status):
    """A collector that refuses, or is not there, is a warning without its address."""
    with Collector(status or 200) as refusing:
        url = "http://127.0.0.1:1" if status is None else refusing.url
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        telemetry.export(report(**TIMES), "acme")
    assert ["telemetry_not_sent"] == [each.code for each in caplog.records]
    assert "127.0.0.1" not in caplog.text


def test_without_the_library(monkeypatch, caplog):
    """Without the extra, the log says what to install."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    caplog.set_level("INFO")
    telemetry.export(report(**TIMES), "acme")
    assert ["missing_extra"] == [each.code for each in caplog.records]
    assert "pip install 'target-moengage-cohort[otel]'" in caplog.text


def test_a_dry_run_sends_nothing(tmp_path, emulator, collector):
    """A dry run is in no trace and no metric."""
    settings = config(emulator, dry_run=True)
    assert 0 == finish(start(tmp_path, settings, **variables(collector)), DATA).code
    assert [] == collector.received
