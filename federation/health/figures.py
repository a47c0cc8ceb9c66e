"""From records to what others read: evidence for a grade, the health of a deployment, the status of a node."""

from __future__ import annotations

from math import inf
from types import MappingProxyType

from federation.config import HealthSettings
from federation.health.engines.page import EngineMetrics
from federation.health.grading import Evidence
from federation.health.records import DeploymentRecord, Load, NodeRecord, NodeStatus
from policies.ageing import QUEUE_HALF_LIFE_SECONDS, aged_score, aged_suspicion, decay, overdue, ramp
from policies.circuit import Closed, HalfOpen, Open
from policies.health import WORTH, CircuitState, CircuitView, DeploymentHealth, Grade
from policies.windows import merged_quantiles

# A load figure that was not told for this long is unknown: six heartbeats or probes were missed.
LOAD_SECONDS = 60.0
# How old quantiles and other figures of a deployment with traffic may be.
FIGURES_SECONDS = 1.0
# How old a score may be while it rises or ages: under 1 % of the ramp.
MOVING_SECONDS = 0.25
# Outcomes under which a share of failures is chance.
MIN_OUTCOMES = 20
_NO_TIMES: MappingProxyType[str, float] = MappingProxyType({})
_CLOSED = CircuitView()
_NO_LOAD = Load()


def freshest(node: NodeRecord, now: float) -> Load:
    """Load from the heartbeat or the metrics page: of each figure what is newer and tells it, unknown when too old."""
    load: Load | EngineMetrics = node.load if now - node.load_at <= LOAD_SECONDS else _NO_LOAD
    page: Load | EngineMetrics = node.metrics if now - node.metrics_at <= LOAD_SECONDS else _NO_LOAD
    a, b = (load, page) if node.load_at >= node.metrics_at else (page, load)
    if page is _NO_LOAD:
        return node.load if load is not _NO_LOAD else _NO_LOAD
    tokens = a.throughput_tokens_per_second
    if tokens is None:
        tokens = b.throughput_tokens_per_second
    return Load(
        b.running_requests if a.running_requests is None else a.running_requests,
        b.queue_depth if a.queue_depth is None else a.queue_depth,
        b.kv_cache_utilization if a.kv_cache_utilization is None else a.kv_cache_utilization,
        b.gpu_utilization if a.gpu_utilization is None else a.gpu_utilization,
        node.throughput if tokens is None else tokens,
    )


def take_metrics(node: NodeRecord, metrics: EngineMetrics, now: float) -> bool:
    """Takes a page over, with what happened since the one before. False: it told nothing, so the old one ages on."""
    if metrics == EngineMetrics():
        return False
    before, elapsed = node.metrics, now - node.metrics_at
    node.metrics, node.metrics_at = metrics, now
    tokens, earlier = metrics.generation_tokens_total, before.generation_tokens_total
    # A counter that fell was reset: what was generated since then took an unknown time.
    known = tokens is not None and earlier is not None and tokens >= earlier and elapsed > 0.0
    node.throughput = (tokens - earlier) / elapsed if known and tokens is not None and earlier is not None else None
    first = metrics.time_to_first_token
    if first is not None and before.time_to_first_token is not None:
        node.time_to_first_token = first.since(before.time_to_first_token).quantile(0.5)
    per_token = metrics.time_per_output_token
    if per_token is not None and before.time_per_output_token is not None:
        mean = per_token.since(before.time_per_output_token).mean
        if mean:
            known_mean = node.time_per_token
            node.time_per_token = mean if known_mean is None else known_mean + 0.2 * (mean - known_mean)
    whole = metrics.end_to_end
    if whole is not None and before.end_to_end is not None:
        added = whole.since(before.end_to_end)
        node.end_to_end = (added.quantile(0.5), added.quantile(0.99))
    return True


def evidence(node: NodeRecord, health: HealthSettings, now: float) -> Evidence:
    """What a node's grade rests on now."""
    suspicion, bad, total = 1.0, 0, 0
    unlisted, listed = "", False
    load, load_age = freshest(node, now), now - max(node.load_at, node.metrics_at)
    for record in node.deployments.values():
        if record.suspicion > 1.0:
            suspicion = max(suspicion, aged_suspicion(record.suspicion, now - record.suspicion_at))
        record.outcomes.expire(now)
        bad += record.outcomes.bad
        total += record.outcomes.total
        listed = listed or record.listed
        unlisted = unlisted or ("" if record.listed else record.model_id)
    return Evidence(
        probed=node.passed_ever or node.failed > 0,
        passed_ever=node.passed_ever,
        unhealthy=node.unhealthy,
        loading=node.loading,
        passed=node.passed,
        failed=node.failed,
        error=node.error,
        unlisted="" if listed else unlisted,
        probe_latency_seconds=node.probe_latency.value,
        suspicion=suspicion,
        error_ratio=bad / total if total >= MIN_OUTCOMES else None,
        queue_depth=_fading(load.queue_depth, load_age, health),
        kv_cache_utilization=_fading(load.kv_cache_utilization, load_age, health),
        age_seconds=now - node.fresh_at,
    )


def _fading(value: float | None, age_seconds: float, health: HealthSettings) -> float | None:
    """A load figure for a grade: as told while it is told regularly, soon nothing after that."""
    if value is None:
        return None
    return decay(value, 0.0, overdue(age_seconds, health.probe_interval_seconds), QUEUE_HALF_LIFE_SECONDS)


def render(record: DeploymentRecord, health: HealthSettings, now: float) -> DeploymentHealth:
    """The health of a deployment now; remembered, with the time until which it stays true."""
    node = record.node
    traffic = now - record.outcome_at <= LOAD_SECONDS
    due = not 0.0 <= now - record.quantiles_at < FIGURES_SECONDS
    if due and (traffic or record.quantiles[0] is not None):
        record.quantiles = record.latency.quantiles((0.5, 0.99), now)
        record.quantiles_at = now
    quantiles = record.quantiles if record.quantiles[0] is not None else node.end_to_end
    shown = node.grade
    reason = node.reason
    if shown in (Grade.HEALTHY, Grade.DEGRADED, Grade.UNKNOWN) and node.passed_ever and not record.listed:
        shown, reason = Grade.LOADING, f"model {record.model_id!r} is not listed"
    load = freshest(node, now)
    score, moving = _score(record, shown, health, now)
    ejected_until = max(record.ejected_until, node.ejected_until)
    learner = record.learner
    decode = learner.decode_tokens_per_second
    if decode is None and node.time_per_token:
        decode = 1.0 / node.time_per_token
    rendered = record.health = DeploymentHealth(
        grade=shown,
        reason=reason,
        ready=node.passed_ever and record.listed,
        score=score,
        circuit=circuit_view(record),
        recovered_at=record.ramp_since,
        ejected_until=ejected_until,
        error_ratio=record.outcomes.ratio(MIN_OUTCOMES, now) if traffic else None,
        latency_p50_seconds=quantiles[0],
        latency_p99_seconds=quantiles[1],
        latency_peak_seconds=record.latency_peak.value,
        throughput_tokens_per_second=load.throughput_tokens_per_second,
        running_requests=load.running_requests,
        queue_depth=load.queue_depth,
        kv_cache_utilization=load.kv_cache_utilization,
        gpu_utilization=load.gpu_utilization,
        prefill_seconds_per_token=learner.prefill_seconds_per_token,
        min_time_to_first_token_seconds=learner.min_time_to_first_token_seconds,
        decode_tokens_per_second=decode,
        signal_times=_times(node, record),
        last_check_time=node.last_check_time,
    )
    record.rendered_at = now
    record.stable_until = _stable_until(record, moving, traffic, health, now)
    return rendered


def _score(record: DeploymentRecord, shown: Grade, health: HealthSettings, now: float) -> tuple[float, bool]:
    """Worth of the last known grade × slow start, aged; and whether it moves by itself."""
    node = record.node
    known = shown if shown is Grade.LOADING else node.known_grade
    rising = ramp(record.ramp_since, now, health.slow_start_seconds)
    fresh = WORTH[known] * rising
    score = aged_score(fresh, now - node.fresh_at, health.probe_interval_seconds)
    ageing = score < fresh and score > WORTH[Grade.UNKNOWN] + 0.005
    return score, fresh > 0.0 and (rising < 1.0 or ageing)


def _stable_until(record: DeploymentRecord, moving: bool, traffic: bool, health: HealthSettings, now: float) -> float:
    if moving:
        return now + MOVING_SECONDS
    if traffic:
        return now + FIGURES_SECONDS
    node = record.node
    until = node.fresh_at + 2.0 * health.probe_interval_seconds
    if until < now:
        until = inf  # it has aged to the end
    if now <= node.load_at + LOAD_SECONDS < until:
        until = node.load_at + LOAD_SECONDS
    if now <= node.metrics_at + LOAD_SECONDS < until:
        until = node.metrics_at + LOAD_SECONDS
    return until


def circuit_view(record: DeploymentRecord) -> CircuitView:
    match record.circuit:
        case Closed(failures=0) if record.opens_total == 0:
            return _CLOSED
        case Closed(failures):
            return CircuitView(CircuitState.CLOSED, failures, record.opens_total, 0.0, record.circuit_reason)
        case Open(until, _, failures):
            return CircuitView(CircuitState.OPEN, failures, record.opens_total, until, record.circuit_reason)
        case HalfOpen():
            return CircuitView(CircuitState.HALF_OPEN, 0, record.opens_total, 0.0, record.circuit_reason)


def _times(node: NodeRecord, record: DeploymentRecord | None) -> MappingProxyType[str, float]:
    times = {}
    if node.probe_at > -inf:
        times["probe"] = node.probe_at
    if node.metrics_at > -inf:
        times["metrics"] = node.metrics_at
    if node.load_at > -inf:
        times["load"] = node.load_at
    outcome_at = record.outcome_at if record else max((r.outcome_at for r in node.deployments.values()), default=-inf)
    if outcome_at > -inf:
        times["outcome"] = outcome_at
    return MappingProxyType(times) if times else _NO_TIMES


def status(node: NodeRecord, health: HealthSettings, now: float) -> NodeStatus:
    """A node for people, with everything that is known of it now."""
    records = node.deployments.values()
    quantiles = merged_quantiles((record.latency for record in records), (0.5, 0.99), now)
    if quantiles[0] is None:
        probes = sorted(node.probe_seconds)
        quantiles = (probes[len(probes) // 2], probes[-1]) if probes else (None, None)
    load = freshest(node, now)
    return NodeStatus(
        name=node.spec.name,
        region_id=node.spec.region_id,
        node_id=node.spec.node_id,
        grade=node.grade,
        reason=node.reason,
        latency_p50_seconds=quantiles[0],
        latency_p99_seconds=quantiles[1],
        time_to_first_token_p50_seconds=node.time_to_first_token if now - node.metrics_at <= LOAD_SECONDS else None,
        throughput_tokens_per_second=load.throughput_tokens_per_second,
        running_requests=load.running_requests,
        queue_depth=load.queue_depth,
        kv_cache_utilization=load.kv_cache_utilization,
        gpu_utilization=load.gpu_utilization,
        error_ratio=evidence(node, health, now).error_ratio,
        deployments=tuple((record.model_id, render(record, health, now)) for record in records),
        last_check_time=node.last_check_time,
        signal_ages=MappingProxyType({name: now - at for name, at in _times(node, None).items()}),
        ejected_until=node.ejected_until,
    )
