"""What the process tells of itself: counts, durations and spans. The only file that imports OpenTelemetry.

The hot path adds to plain numbers: an increment costs some tens of nanoseconds, an OpenTelemetry counter 6 µs.
`/metrics` and, where a collector is configured, OTLP read these numbers when they are asked. Spans exist only for
sampled calls; without a collector there are none. Labels never name a tenant, a prompt or an endpoint.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from federation.config import ConfigError, TelemetrySettings

# Seconds; gRFC A66. OpenTelemetry's own list starts at 5 ms, where a router that answers in 1 ms shows nothing.
LATENCY_BOUNDARIES: tuple[float, ...] = (
    0.0, 0.000_01, 0.000_05, 0.000_1, 0.000_3, 0.000_6, 0.000_8, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008,
    0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65,
    0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
)  # fmt: skip
RPC_DURATION = "rpc.server.call.duration"
# An exporter that waits longer than this holds up the shutdown of a server whose collector is gone.
EXPORT_TIMEOUT_SECONDS = 5.0


class Histogram:
    """Counts of durations by bucket; `counts[i]` are those up to `LATENCY_BOUNDARIES[i]`, the last one the rest."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDARIES) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCY_BOUNDARIES, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name (counters without `_total`), and how to read its samples, label values beside the number."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class HistogramFamily:
    """A metric whose samples are histograms."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Iterable[tuple[tuple[str, ...], Histogram]]]


Span = trace.Span


class Telemetry:
    """Durations of calls, always; spans and metrics over OTLP, where a collector is configured."""

    def __init__(
        self,
        settings: TelemetrySettings,
        *,
        region: str,
        version: str,
        rng: Random,
        span_exporter: SpanExporter | None = None,
        metric_reader: MetricReader | None = None,
    ) -> None:
        self._sample = settings.trace_sample
        self._rng = rng
        # By (method, status name).
        self.calls: dict[tuple[str, str], Histogram] = {}
        self._attributes: dict[tuple[str, str], dict[str, str]] = {}
        if settings.otlp_endpoint:
            span_exporter, metric_reader = _otlp(settings.otlp_endpoint)
        resource = Resource.create({"service.name": "fairway", "service.version": version, "cloud.region": region})
        self._tracers: TracerProvider | None = None
        self._tracer: trace.Tracer | None = None
        if span_exporter is not None:
            # The share is drawn in `span`, before anything is allocated: a sampled-out SDK span costs 6 µs.
            self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._tracers.add_span_processor(BatchSpanProcessor(span_exporter))
            self._tracer = self._tracers.get_tracer("federation", version)
        self._meters: MeterProvider | None = None
        self._durations = None
        if metric_reader is not None:
            view = View(
                instrument_name=RPC_DURATION, aggregation=ExplicitBucketHistogramAggregation(LATENCY_BOUNDARIES)
            )
            self._meters = MeterProvider([metric_reader], resource=resource, views=[view], shutdown_on_exit=False)
            self._durations = self._meters.get_meter("federation", version).create_histogram(
                RPC_DURATION, unit="s", description="Duration of calls as the server sees them."
            )

    @property
    def tracing(self) -> bool:
        """Whether there is anybody to send spans to."""
        return self._tracer is not None

    def observe_call(self, method: str, status: str, seconds: float) -> None:
        """Counts one finished call; `status` is the name of its status code ("OK")."""
        key = (method, status)
        histogram = self.calls.get(key)
        if histogram is None:
            histogram = self.calls[key] = Histogram()
            self._attributes[key] = _attributes(method, status)
        histogram.observe(seconds)
        if self._durations is not None:
            self._durations.record(seconds, self._attributes[key])

    def span(self, method: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Span | None:
        """A started span for a sampled call, else None. Whoever called us and decided to sample is followed."""
        if self._tracer is None:
            return None
        carrier = {
            key: value
            for key, value in metadata or ()
            if key in ("traceparent", "tracestate") and isinstance(value, str)
        }
        context = TraceContextTextMapPropagator().extract(carrier) if carrier else None
        upstream = trace.get_current_span(context).get_span_context() if context is not None else None
        if upstream is not None and upstream.is_valid:
            if not upstream.trace_flags.sampled:
                return None
        elif self._rng.random() >= self._sample:
            return None
        return self._tracer.start_span(
            method,
            context=context,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )

    def export(self, families: Iterable[Family]) -> None:
        """Has the collector, where there is one, read these families too."""
        if self._meters is None:
            return
        meter = self._meters.get_meter("federation")
        for family in families:
            create = meter.create_observable_counter if family.kind is Kind.COUNTER else meter.create_observable_gauge
            create(family.name, callbacks=[_observing(family)], description=family.help)

    def close(self) -> None:
        """Sends what is left, and ends; blocks for at most the exporters' timeout."""
        if self._tracers is not None:
            self._tracers.shutdown()
        if self._meters is not None:
            self._meters.shutdown(timeout_millis=EXPORT_TIMEOUT_SECONDS * 1e3)


def describe(span: Span | None, attributes: Mapping[str, str | int | float | bool]) -> None:
    """Puts facts on a span; nothing where the call has none."""
    if span is not None:
        span.set_attributes(attributes)


def finish(span: Span, status: str, error: BaseException | None) -> None:
    """Ends a span with the call's status; servers mark only what is their own fault as an error."""
    span.set_attribute("rpc.response.status_code", status)
    if status in SERVER_FAULTS:
        span.set_attribute("error.type", status if error is None else type(error).__qualname__)
        span.set_status(trace.StatusCode.ERROR)
    span.end()


SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def _attributes(method: str, status: str) -> dict[str, str]:
    attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": status}
    return attributes if status == "OK" else {**attributes, "error.type": status}


def _observing(family: Family) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for values, number in family.read():
            yield Observation(number, dict(zip(family.labels, values, strict=True)))

    return observe


def _otlp(endpoint: str) -> tuple[SpanExporter, MetricReader]:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(
            "telemetry.otlp_endpoint is set, but the exporter is not installed; install fairway[otlp], or unset it"
        ) from None
    insecure = not endpoint.startswith("https://")
    spans = OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_SECONDS)
    metrics = OTLPMetricExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_SECONDS)
    return spans, PeriodicExportingMetricReader(metrics, export_timeout_millis=EXPORT_TIMEOUT_SECONDS * 1e3)
