"""What the monitor keeps: one record per node and one per deployment. Only the monitor changes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from types import MappingProxyType

from catalog.types import Deployment, Node, ServingProfile
from federation.health.engines.page import EngineMetrics
from federation.health.learning import SpeedLearner
from policies.circuit import Circuit, Closed
from policies.health import DeploymentHealth, Grade
from policies.windows import LatencyWindow, Pace, PeakEwma, RatioWindow


@dataclass(frozen=True, slots=True)
class Probe:
    """What one health check found."""

    node: str
    ok: bool
    latency_seconds: float
    # What the engine lists; None where it cannot list.
    models: frozenset[str] | None = None
    # Short and for people ("connection refused", "HTTP 503"); empty when ok.
    error: str = ""
    # It answers, and says that it is not ready yet. That is loading before its first pass, and a failure after it.
    loading: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What a heartbeat tells. None is unknown."""

    running_requests: float | None = None
    queue_depth: float | None = None
    kv_cache_utilization: float | None = None
    gpu_utilization: float | None = None
    throughput_tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's health for people. None is unknown; ages in seconds."""

    name: str
    region_id: str
    node_id: str
    grade: Grade
    reason: str
    # Of the last minute, from outcomes of all deployments together, else from probes.
    latency_p50_seconds: float | None = None
    latency_p99_seconds: float | None = None
    time_to_first_token_p50_seconds: float | None = None
    throughput_tokens_per_second: float | None = None
    running_requests: float | None = None
    queue_depth: float | None = None
    kv_cache_utilization: float | None = None
    gpu_utilization: float | None = None
    error_ratio: float | None = None
    # (model_id, health), in the order of the registration.
    deployments: tuple[tuple[str, DeploymentHealth], ...] = ()
    last_check_time: float = 0.0  # Unix seconds; 0: never probed.
    signal_ages: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    # An operator's word, as monotonic seconds; 0: none.
    ejected_until: float = 0.0


@lru_cache(4_096)
def _names(model_id: str, served_model_name: str, adapters: tuple[str, ...]) -> frozenset[str]:
    """What an engine may list a deployment as; one set for all deployments that say the same."""
    return frozenset(name for name in (model_id, served_model_name, *adapters) if name)


class Told:
    """What outcomes said of one deployment. Most of a large fleet is silent, so it is made with the first of them."""

    __slots__ = ("latency", "latency_peak", "learner", "outcomes", "pace")

    def __init__(self, window_seconds: float) -> None:
        self.outcomes = RatioWindow(window_seconds)
        self.latency = LatencyWindow()
        self.latency_peak = PeakEwma()
        self.pace = Pace()
        self.learner = SpeedLearner()


# What those share of which nothing was told; nobody adds to it.
NOTHING_TOLD = Told(30.0)
NO_LOAD = Load()
NO_METRICS = EngineMetrics()
CLOSED = Closed()
NEVER = -inf


class DeploymentRecord:
    """Everything known of one deployment beyond its node."""

    __slots__ = (
        "_told",
        "circuit",
        "circuit_reason",
        "doubted",
        "ejected_until",
        "ejection_epoch",
        "ejection_reason",
        "ejections",
        "epoch",
        "failing_reporter",
        "first_token_at",
        "forgiven_at",
        "health",
        "listed",
        "look_at",
        "model_id",
        "name",
        "names",
        "node",
        "opens_total",
        "outcome_at",
        "profile",
        "quantiles",
        "quantiles_at",
        "ramp_since",
        "rendered_at",
        "seen_unlisted",
        "spoiled",
        "stable_until",
        "suspicion",
        "suspicion_at",
        "window_seconds",
    )

    def __init__(
        self,
        name: str,
        deployment: Deployment,
        node: NodeRecord,
        window_seconds: float,
        spoiled: dict[DeploymentRecord, None],
    ) -> None:
        """`spoiled` takes those whose last rendering is no longer true."""
        self.spoiled = spoiled
        self.name = name
        self.model_id = deployment.model_id
        self.node = node
        self.names: frozenset[str] = frozenset()
        self.profile = ServingProfile()
        self.circuit: Circuit = CLOSED
        self.circuit_reason = ""
        self.opens_total = 0
        # How often it opened, closed or was reset, and was ejected or restored: over all replicas, see sharing.py.
        self.epoch = 0
        self.ejection_epoch = 0
        # Sole reporter of the failures in a row ("": nobody identified, "*": several).
        self.failing_reporter = ""
        # Its circuit would be open, but one reporter alone says so and the probe passed.
        self.doubted = False
        self._told = NOTHING_TOLD
        self.window_seconds = window_seconds
        self.quantiles: tuple[float | None, ...] = (None, None)
        self.quantiles_at = NEVER
        self.first_token_at = NEVER
        self.outcome_at = NEVER
        self.suspicion = 1.0
        self.suspicion_at = 0.0
        self.listed = False
        # A probe passed and did not list it: it will be cold when it comes.
        self.seen_unlisted = False
        self.ejected_until = 0.0
        self.ejections = 0
        # When earlier ejections no longer lengthen the next one.
        self.forgiven_at = inf
        self.ejection_reason = ""
        # When the slow start began.
        self.ramp_since = NEVER
        # The last rendering, and while it is true.
        self.health: DeploymentHealth | None = None
        self.rendered_at = NEVER
        self.stable_until = NEVER
        # When the view looks at it again by itself.
        self.look_at = inf
        self.describe(deployment)

    def hear(self) -> None:
        """An outcome comes: from here on it has windows of its own."""
        if self._told is NOTHING_TOLD:
            self._told = Told(self.window_seconds)

    @property
    def outcomes(self) -> RatioWindow:
        return self._told.outcomes

    @property
    def latency(self) -> LatencyWindow:
        return self._told.latency

    @property
    def latency_peak(self) -> PeakEwma:
        return self._told.latency_peak

    @property
    def pace(self) -> Pace:
        return self._told.pace

    @property
    def learner(self) -> SpeedLearner:
        return self._told.learner

    def forget_latency(self) -> None:
        """What was slow before says nothing of now."""
        if self._told is not NOTHING_TOLD:
            self._told.latency.clear()
            self._told.latency_peak = PeakEwma()
        self.quantiles = (None, None)

    def spoil(self) -> None:
        """Its figures are others than were rendered."""
        self.health = None
        self.spoiled[self] = None

    def describe(self, deployment: Deployment) -> None:
        """Takes over what a registration may change without starting anew."""
        self.names = _names(deployment.model_id, deployment.served_model_name, deployment.adapters)
        self.profile = deployment.profile


class NodeRecord:
    """Everything known of one node."""

    __slots__ = (
        "deployments",
        "ejected_until",
        "ejection_epoch",
        "end_to_end",
        "error",
        "failed",
        "fresh_at",
        "grade",
        "known_grade",
        "last_check_time",
        "load",
        "load_at",
        "loading",
        "metrics",
        "metrics_at",
        "models",
        "overloaded",
        "passed",
        "passed_ever",
        "probe_at",
        "probe_latency",
        "probe_seconds",
        "reason",
        "spec",
        "throughput",
        "time_per_token",
        "time_to_first_token",
        "timer_at",
        "unhealthy",
    )

    def __init__(self, spec: Node) -> None:
        self.spec = spec
        self.deployments: dict[str, DeploymentRecord] = {}
        # Probes in a row.
        self.passed = 0
        self.failed = 0
        self.passed_ever = False
        self.unhealthy = False
        self.loading = False
        self.error = ""
        self.models: frozenset[str] | None = None
        self.probe_at = NEVER
        self.last_check_time = 0.0
        self.probe_latency = PeakEwma()
        # Of the last probes, about a minute.
        self.probe_seconds: tuple[float, ...] = ()
        # The last good sign: a passed probe, or an answer.
        self.fresh_at = NEVER
        self.load = NO_LOAD
        self.load_at = NEVER
        self.overloaded = False
        self.metrics = NO_METRICS
        self.metrics_at = NEVER
        # Between the last two pages.
        self.throughput: float | None = None
        self.time_to_first_token: float | None = None
        self.time_per_token: float | None = None
        self.end_to_end: tuple[float | None, float | None] = (None, None)
        self.ejected_until = 0.0
        self.ejection_epoch = 0
        # `known_grade` is what the last signals said, `grade` the same or UNKNOWN when they are old.
        self.known_grade = Grade.UNKNOWN
        self.grade = Grade.UNKNOWN
        self.reason = "not probed yet"
        self.timer_at = inf

    def pass_probe(self, probe: Probe, now: float, healthy_after: int) -> bool:
        """Counts a passed probe; True where it ended being unhealthy."""
        self.passed += 1
        self.failed = 0
        self.passed_ever = True
        self.loading = False
        self.error = ""
        self.fresh_at = now
        self.models = probe.models
        self.probe_latency.observe(probe.latency_seconds, now)
        self.probe_seconds = (*self.probe_seconds[-5:], probe.latency_seconds)
        recovered = self.unhealthy and self.passed >= healthy_after
        self.unhealthy = self.unhealthy and not recovered
        return recovered

    def fail_probe(self, probe: Probe, unhealthy_after: int) -> None:
        """Counts a failed probe. Before its first pass an engine that answers "not yet" loads, however long."""
        self.passed = 0
        self.failed += 1
        self.loading = probe.loading
        self.error = probe.error
        if self.failed >= unhealthy_after and (self.passed_ever or not probe.loading):
            self.unhealthy = True


class PoolRecord:
    """All deployments of one model, and which of them lately had outcomes."""

    __slots__ = ("active", "look_at", "members")

    def __init__(self) -> None:
        self.members: dict[str, DeploymentRecord] = {}
        self.active: set[DeploymentRecord] = set()
        self.look_at = NEVER
