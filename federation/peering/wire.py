"""Messages of peering.proto and their values. What a peer sends is outside input: ValueError names what is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

from catalog.types import Model, Node, Region
from federation.api.convert import resources
from federation.api.convert.health import CIRCUIT_TO, STATE_TO
from federation.api.convert.times import duration, optional_duration, seconds_of, unix_seconds_of
from federation.peering.messages import (
    Ack,
    DeploymentReport,
    Goodbye,
    Heartbeat,
    Hello,
    Identity,
    Message,
    NodeReport,
    Summary,
    Update,
)
from federation.v1 import fleet_pb2, types_pb2
from federation.v1 import peering_pb2 as pb
from policies.health import CircuitState, CircuitView, Grade

GRADE_FROM = {fleet_pb2.HealthState.Value(name): grade for grade, name in STATE_TO.items()}
CIRCUIT_FROM = {fleet_pb2.CircuitState.Value(name): state for state, name in CIRCUIT_TO.items()}


def request_to(message: Message) -> pb.ExchangeRequest:
    """As the side says it that opened the stream."""
    return pb.ExchangeRequest(**_to(message))  # type: ignore[arg-type]  # one field of the oneof


def response_to(message: Message) -> pb.ExchangeResponse:
    """As the side says it that accepted the stream."""
    return pb.ExchangeResponse(**_to(message))  # type: ignore[arg-type]


def _to(message: Message) -> dict[str, object]:
    match message:
        case Hello(identity, incarnation, revision, lease):
            return {
                "hello": pb.PeerHello(
                    region_id=identity.region_id,
                    owned_regions=identity.owned_regions,
                    incarnation=identity.incarnation,
                    jurisdictions=identity.jurisdictions,
                    version=identity.version,
                    applied_incarnation=incarnation,
                    applied_revision=revision,
                    lease_duration=duration(lease),
                )
            }
        case Update(from_revision=None):
            return {
                "snapshot": pb.PeerSnapshot(
                    revision=message.to_revision,
                    part=message.part,
                    complete=message.complete,
                    regions=map(resources.region_to, message.regions),
                    models=map(resources.model_to, message.models),
                    nodes=map(resources.node_to, message.nodes),
                )
            }
        case Update():
            return {
                "delta": pb.PeerDelta(
                    from_revision=message.from_revision,
                    to_revision=message.to_revision,
                    part=message.part,
                    complete=message.complete,
                    regions=map(resources.region_to, message.regions),
                    models=map(resources.model_to, message.models),
                    nodes=map(resources.node_to, message.nodes),
                    removed_regions=message.removed_regions,
                    removed_models=message.removed_models,
                    removed_nodes=message.removed_nodes,
                )
            }
        case Summary(sequence, reports):
            return {"health": pb.PeerHealth(sequence=sequence, nodes=map(_report_to, reports))}
        case Ack(revision):
            return {"ack": pb.PeerAck(applied_revision=revision)}
        case Heartbeat():
            return {
                "heartbeat": pb.PeerHeartbeat(
                    sequence=message.sequence,
                    echo=message.echo,
                    revision=message.told_revision,
                    applied_revision=message.applied_revision,
                    health_sequence=message.told_summary,
                )
            }
        case Goodbye(reason, refused):
            return {"goodbye": pb.PeerGoodbye(reason=reason, refused=refused)}


def message_from(message: pb.ExchangeRequest | pb.ExchangeResponse) -> Message:
    """The value of a message. ValueError where it has none that is known here."""
    match message.WhichOneof("message"):
        case "hello":
            return _hello_from(message.hello)
        case "snapshot":
            told = message.snapshot
            return Update(
                None,
                told.revision,
                told.part,
                told.complete,
                regions=tuple(map(_region_from, told.regions)),
                models=tuple(map(_model_from, told.models)),
                nodes=tuple(map(_node_from, told.nodes)),
            )
        case "delta":
            delta = message.delta
            return Update(
                delta.from_revision,
                delta.to_revision,
                delta.part,
                delta.complete,
                regions=tuple(map(_region_from, delta.regions)),
                models=tuple(map(_model_from, delta.models)),
                nodes=tuple(map(_node_from, delta.nodes)),
                removed_regions=tuple(delta.removed_regions),
                removed_models=tuple(delta.removed_models),
                removed_nodes=tuple(delta.removed_nodes),
            )
        case "health":
            return Summary(message.health.sequence, tuple(map(_report_from, message.health.nodes)))
        case "ack":
            return Ack(message.ack.applied_revision)
        case "heartbeat":
            beat = message.heartbeat
            return Heartbeat(beat.sequence, beat.echo, beat.revision, beat.applied_revision, beat.health_sequence)
        case "goodbye":
            return Goodbye(message.goodbye.reason, message.goodbye.refused)
        case _:
            raise ValueError("a message without content, or of a kind that is not known here; upgrade the older side")


def _hello_from(hello: pb.PeerHello) -> Hello:
    identity = Identity(
        hello.region_id,
        tuple(hello.owned_regions),
        hello.incarnation,
        tuple(hello.jurisdictions),
        hello.version[:63],
    )
    if not identity.region_id or not identity.incarnation or identity.region_id not in identity.owned_regions:
        raise ValueError("a hello needs region_id, incarnation and owned_regions with that region among them")
    lease = seconds_of(hello.lease_duration) if hello.HasField("lease_duration") else 30.0
    if lease <= 0.0:
        raise ValueError(f"lease_duration {lease:g} s must be more than 0")
    return Hello(identity, hello.applied_incarnation, hello.applied_revision, lease)


def _region_from(message: types_pb2.Region) -> Region:
    return replace(resources.region_from(message), owner=message.owner, revision=message.revision)


def _model_from(message: types_pb2.Model) -> Model:
    return replace(resources.model_from(message), owner=message.owner, revision=message.revision)


def _node_from(message: types_pb2.Node) -> Node:
    return replace(
        resources.node_from(message, message.deployments),
        draining=message.draining,
        expired=message.lease_expired,
        owner=message.owner,
        generation=message.generation,
        revision=message.revision,
        create_time=unix_seconds_of(message.create_time) if message.HasField("create_time") else 0.0,
    )


def _report_to(report: NodeReport) -> pb.ExportedHealth:
    return pb.ExportedHealth(
        node=report.node,
        deployments=map(_deployment_to, report.deployments),
        running_requests=report.running_requests,
        queue_depth=report.queue_depth,
        kv_cache_utilization=report.kv_cache_utilization,
        reason=report.reason,
    )


def _deployment_to(report: DeploymentReport) -> pb.ExportedDeploymentHealth:
    circuit = report.circuit
    return pb.ExportedDeploymentHealth(
        model_id=report.model_id,
        state=STATE_TO[report.grade],
        ready=report.ready,
        score=report.score,
        circuit=fleet_pb2.Circuit(
            state=CIRCUIT_TO[circuit.state],
            failures=circuit.failures,
            opens_total=circuit.opens_total,
            retry_after=duration(report.retry_after_seconds) if report.retry_after_seconds else None,
            reason=circuit.reason,
        ),
        ejected_for=duration(report.ejected_seconds) if report.ejected_seconds else None,
        latency_p50=optional_duration(report.latency_p50_seconds),
        prefill_seconds_per_token=report.prefill_seconds_per_token,
        min_time_to_first_token=optional_duration(report.min_time_to_first_token_seconds),
        decode_tokens_per_second=report.decode_tokens_per_second,
    )


def _report_from(message: pb.ExportedHealth) -> NodeReport:
    return NodeReport(
        message.node,
        tuple(map(_deployment_from, message.deployments)),
        running_requests=_figure(message, "running_requests"),
        queue_depth=_figure(message, "queue_depth"),
        kv_cache_utilization=_figure(message, "kv_cache_utilization"),
        reason=message.reason,
    )


def _figure(
    message: pb.ExportedHealth | pb.ExportedDeploymentHealth, field: str, over: float = -1e-300
) -> float | None:
    """A figure that is told and can be true: finite, and more than `over`."""
    value = float(getattr(message, field)) if message.HasField(field) else math.nan
    return value if over < value < math.inf else None


def _deployment_from(message: pb.ExportedDeploymentHealth) -> DeploymentReport:
    has, circuit = message.HasField, message.circuit
    return DeploymentReport(
        message.model_id,
        # What a newer owner calls it is not known here, and counts as unknown.
        grade=GRADE_FROM.get(message.state, Grade.UNKNOWN),
        ready=message.ready,
        score=min(1.0, max(0.0, message.score)),
        circuit=CircuitView(
            CIRCUIT_FROM.get(circuit.state, CircuitState.CLOSED),
            circuit.failures,
            circuit.opens_total,
            reason=circuit.reason,
        ),
        retry_after_seconds=seconds_of(circuit.retry_after),
        ejected_seconds=seconds_of(message.ejected_for),
        latency_p50_seconds=seconds_of(message.latency_p50) if has("latency_p50") else None,
        prefill_seconds_per_token=_figure(message, "prefill_seconds_per_token"),
        min_time_to_first_token_seconds=(
            seconds_of(message.min_time_to_first_token) if has("min_time_to_first_token") else None
        ),
        # Times are divided by it.
        decode_tokens_per_second=_figure(message, "decode_tokens_per_second", over=0.0),
    )
