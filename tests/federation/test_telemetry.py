"""Durations and spans: the names and boundaries that others expect, and nothing at all where nobody asked."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from federation.config import TelemetrySettings
from federation.telemetry import LATENCY_BOUNDARIES, Family, Histogram, Kind, Telemetry, finish

METHOD = "federation.v1.RoutingService/Route"
SAMPLED = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
NOT_SAMPLED = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


def a_telemetry(sample: float = 1.0, **parts: Any) -> Telemetry:
    settings = TelemetrySettings(trace_sample=sample)
    return Telemetry(settings, region="local", version="1", rng=Random(1), **parts)


def test_a_histogram_counts_what_is_up_to_each_boundary() -> None:
    histogram = Histogram()

    for seconds in (0.0, 0.000_01, 0.000_011, 1.0, 1_000.0):
        histogram.observe(seconds)

    assert histogram.counts[0] == 1
    assert histogram.counts[1] == 1
    assert histogram.counts[2] == 1
    assert histogram.counts[LATENCY_BOUNDARIES.index(1.0)] == 1
    assert histogram.counts[-1] == 1
    assert histogram.count == 5
    assert histogram.total == pytest.approx(1_001.000_021)


def test_calls_are_exported_under_their_standard_name_with_the_boundaries_of_grpc() -> None:
    reader = InMemoryMetricReader()
    telemetry = a_telemetry(metric_reader=reader)

    telemetry.observe_call(METHOD, "OK", 0.000_02)
    telemetry.observe_call(METHOD, "NOT_FOUND", 0.3)

    (metric,) = metrics(reader)
    assert (metric.name, metric.unit) == ("rpc.server.call.duration", "s")
    points = {dict(point.attributes)["rpc.response.status_code"]: point for point in metric.data.data_points}
    assert dict(points["OK"].attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
    }
    assert dict(points["NOT_FOUND"].attributes)["error.type"] == "NOT_FOUND"
    assert tuple(points["OK"].explicit_bounds) == LATENCY_BOUNDARIES
    telemetry.close()


def test_own_counts_are_read_by_the_collector_when_it_asks() -> None:
    reader = InMemoryMetricReader()
    telemetry = a_telemetry(metric_reader=reader)
    counts = {"a": 1}
    telemetry.export(
        [Family("probe", Kind.COUNTER, "Probes.", ("outcome",), lambda: [((key,), n) for key, n in counts.items()])]
    )

    counts["a"] = 5

    (metric,) = metrics(reader)
    (point,) = metric.data.data_points
    assert (metric.name, point.value, dict(point.attributes)) == ("probe", 5, {"outcome": "a"})
    telemetry.close()


def test_without_a_collector_there_are_no_spans() -> None:
    assert a_telemetry(sample=1.0).span(METHOD, (SAMPLED,)) is None


def test_whoever_called_decides_about_the_span() -> None:
    exporter = InMemorySpanExporter()
    never = a_telemetry(sample=0.0, span_exporter=exporter)
    always = a_telemetry(sample=1.0, span_exporter=InMemorySpanExporter())

    span = never.span(METHOD, (SAMPLED,))

    assert span is not None
    finish(span, "OK", None)
    assert never.span(METHOD, ()) is None
    assert always.span(METHOD, (NOT_SAMPLED,)) is None
    never.close()
    (told,) = exporter.get_finished_spans()
    assert told.parent is not None
    assert told.parent.span_id == 0xB7AD6B7169203331
    assert told.name == METHOD
    always.close()


@pytest.mark.parametrize(("status", "failed"), [("OK", False), ("NOT_FOUND", False), ("INTERNAL", True)])
def test_only_what_is_the_servers_fault_is_an_error_of_its_span(status: str, failed: bool) -> None:
    exporter = InMemorySpanExporter()
    telemetry = a_telemetry(span_exporter=exporter)
    span = telemetry.span(METHOD, None)
    assert span is not None

    finish(span, status, ValueError("x"))

    telemetry.close()
    (told,) = exporter.get_finished_spans()
    assert told.attributes is not None
    assert told.attributes["rpc.response.status_code"] == status
    assert (told.status.status_code is StatusCode.ERROR) is failed
    assert told.attributes.get("error.type") == ("ValueError" if failed else None)


def test_about_the_configured_share_of_calls_is_sampled() -> None:
    telemetry = a_telemetry(sample=0.1, span_exporter=InMemorySpanExporter())

    sampled = sum(telemetry.span(METHOD, None) is not None for _ in range(1_000))

    assert 60 < sampled < 140
    telemetry.close()


def metrics(reader: InMemoryMetricReader) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    return [metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics]
