"""Health, circuits and load, and their messages."""

from __future__ import annotations

from collections.abc import Callable

from catalog.types import Node
from federation.api.convert.times import duration, optional_duration, timestamp
from federation.health.records import Load, NodeStatus
from federation.v1 import catalog_pb2, fleet_pb2
from policies.health import CircuitState, CircuitView, DeploymentHealth, Grade

STATE_TO = {each: f"HEALTH_STATE_{each.name}" for each in Grade}
CIRCUIT_TO = {each: f"CIRCUIT_STATE_{each.name}" for each in CircuitState}
LOAD_FIELDS = (
    "running_requests",
    "queue_depth",
    "kv_cache_utilization",
    "gpu_utilization",
    "throughput_tokens_per_second",
)


def load_from(message: catalog_pb2.NodeLoad) -> Load:
    has = message.HasField
    return Load(
        running_requests=message.running_requests if has("running_requests") else None,
        queue_depth=message.queue_depth if has("queue_depth") else None,
        kv_cache_utilization=message.kv_cache_utilization if has("kv_cache_utilization") else None,
        gpu_utilization=message.gpu_utilization if has("gpu_utilization") else None,
        throughput_tokens_per_second=(
            message.throughput_tokens_per_second if has("throughput_tokens_per_second") else None
        ),
    )


def circuit_to(circuit: CircuitView, now: float) -> fleet_pb2.Circuit:
    opened = circuit.state is CircuitState.OPEN
    return fleet_pb2.Circuit(
        state=CIRCUIT_TO[circuit.state],
        failures=circuit.failures,
        opens_total=circuit.opens_total,
        retry_after=duration(max(0.0, circuit.retry_at - now)) if opened else None,
        reason=circuit.reason,
    )


def state_of(node: Node | None, grade: Grade) -> str:
    """The state's name on the wire: what an operator said comes before what was measured."""
    return "HEALTH_STATE_DRAINING" if node is not None and node.draining else STATE_TO[grade]


def state_name(node: Node, grade: Grade) -> str:
    """The same as a word, for counts."""
    return "draining" if node.draining else grade.value


def deployment_to(
    model_id: str, health: DeploymentHealth, load: tuple[int, int], node_ejected_until: float, now: float
) -> fleet_pb2.DeploymentHealth:
    """`load` is what this replica has in flight there: requests, and prompt tokens without a first token."""
    ejected_until = max(health.ejected_until, node_ejected_until)
    return fleet_pb2.DeploymentHealth(
        model_id=model_id,
        circuit=circuit_to(health.circuit, now),
        ejected=ejected_until > now,
        ejected_for=duration(ejected_until - now) if ejected_until > now else None,
        error_ratio=health.error_ratio,
        in_flight=max(0, int(load[0])),
        pending_prompt_tokens=max(0, int(load[1])),
    )


def node_health_to(
    node: Node | None, status: NodeStatus, load_of: Callable[[str], tuple[int, int]], now: float
) -> fleet_pb2.NodeHealth:
    return fleet_pb2.NodeHealth(
        region_id=status.region_id,
        node_id=status.node_id,
        state=state_of(node, status.grade),
        latency_p50=optional_duration(status.latency_p50_seconds),
        latency_p99=optional_duration(status.latency_p99_seconds),
        throughput_tokens_per_second=status.throughput_tokens_per_second,
        running_requests=status.running_requests,
        queue_depth=status.queue_depth,
        kv_cache_utilization=status.kv_cache_utilization,
        gpu_utilization=status.gpu_utilization,
        error_ratio=status.error_ratio,
        deployments=[
            deployment_to(model_id, health, load_of(f"{status.name}/{model_id}"), status.ejected_until, now)
            for model_id, health in status.deployments
        ],
        last_check_time=timestamp(status.last_check_time) if status.last_check_time else None,
        signal_ages={name: duration(age) for name, age in status.signal_ages.items()},
        reason=status.reason,
    )
