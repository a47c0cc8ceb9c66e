"""What is known of a deployment's health at one moment, as the monitor tells and the table keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Grade(Enum):
    """How well a node does, with its worth as a score."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    UNHEALTHY = "unhealthy"
    LOADING = "loading"

    @property
    def worth(self) -> float:
        return WORTH[self]


WORTH = {Grade.HEALTHY: 1.0, Grade.DEGRADED: 0.5, Grade.UNKNOWN: 0.3, Grade.UNHEALTHY: 0.0, Grade.LOADING: 0.0}


class CircuitState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitView:
    """A circuit as others see it; `retry_at` is when the first trial may run (monotonic seconds, 0: not open)."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    opens_total: int = 0
    retry_at: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentHealth:
    """What is known of one deployment and its node. None is unknown, never zero. Times are monotonic seconds."""

    grade: Grade = Grade.UNKNOWN
    # Why it has this grade, in words ("3 probes failed: connection refused").
    reason: str = ""
    # A probe passed since it was registered, and the engine listed the model: without, it is NOT_READY.
    ready: bool = False
    # The health score, 0..1: worth of the grade × slow start, aged toward the worth of UNKNOWN. Circuits that are
    # open and ejections do not lower it; they are filters.
    score: float = 0.3
    circuit: CircuitView = CircuitView()
    # When it last came back from being out, monotonic seconds; -inf: it never was.
    recovered_at: float = float("-inf")
    ejected_until: float = 0.0
    error_ratio: float | None = None
    latency_p50_seconds: float | None = None
    latency_p99_seconds: float | None = None
    # Of recent outcomes, rising at once and falling slowly.
    latency_peak_seconds: float | None = None
    # Engine-wide; node figures stand at each of the node's deployments.
    throughput_tokens_per_second: float | None = None
    running_requests: float | None = None
    queue_depth: float | None = None
    kv_cache_utilization: float | None = None
    gpu_utilization: float | None = None
    # Learned slowly from outcomes and metric pages.
    prefill_seconds_per_token: float | None = None
    min_time_to_first_token_seconds: float | None = None
    decode_tokens_per_second: float | None = None
    # When each signal last came ("probe", "metrics", "load", "outcome").
    signal_times: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    last_check_time: float = 0.0  # Unix seconds; 0: never probed.
