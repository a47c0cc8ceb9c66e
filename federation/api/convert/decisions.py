"""Requests, decisions, candidates and outcomes, and their messages. All of it is on the hot path."""

from __future__ import annotations

from collections.abc import Mapping

from catalog.types import PrivacyLevel
from federation.api import errors
from federation.api.convert.targets import decision_bytes, target_to
from federation.api.convert.times import (
    duration,
    optional_duration,
    seconds_of,
    timestamp,
    unix_seconds_of,
)
from federation.v1 import routing_pb2
from policies.types import (
    NO_LABELS,
    Candidate,
    Code,
    Decision,
    Explain,
    Outcome,
    Phase,
    Rejection,
    Result,
    RouteRequest,
    Term,
)

PRIVACY_FROM = {0: PrivacyLevel.INTERNAL} | {int(level): level for level in PrivacyLevel}
EXPLAIN_FROM = {0: Explain.SUMMARY, 1: Explain.NONE, 2: Explain.SUMMARY, 3: Explain.FULL}
EXPLAIN_TO = {each: f"EXPLAIN_{each.name}" for each in Explain}
CODE_TO = {each: f"REJECTION_CODE_{each.name}" for each in Code}
PHASE_TO = {each: f"OUTCOME_PHASE_{each.name}" for each in Phase}
PHASE_FROM = {0: Phase.FINISHED} | {routing_pb2.OutcomePhase.Value(v): k for k, v in PHASE_TO.items()}
RESULT_TO = {each: f"OUTCOME_RESULT_{each.name}" for each in Result}
RESULT_FROM: Mapping[int, Result] = {routing_pb2.OutcomeResult.Value(v): k for k, v in RESULT_TO.items()}
DEFAULT_BLOCK_TOKENS = 512
DEFAULT_COST_TOLERANCE = 50.0
DEFAULT_ALTERNATIVES = 3


def request_from(message: routing_pb2.RouteRequest) -> RouteRequest:
    """A checked message as a request, with the defaults that its proto tells."""
    has = message.HasField
    values: dict[str, object] = {}
    if has("qos"):
        qos = message.qos
        values["privacy_level"] = PRIVACY_FROM[qos.privacy_level]
        values["prefer_gpu"] = qos.prefer_gpu
        if qos.HasField("max_latency"):
            values["max_latency_seconds"] = seconds_of(qos.max_latency)
        if qos.HasField("max_time_to_first_token"):
            values["max_time_to_first_token_seconds"] = seconds_of(qos.max_time_to_first_token)
        if qos.HasField("min_throughput"):
            values["min_throughput_tokens_per_second"] = qos.min_throughput
        if qos.HasField("cost_tolerance"):
            values["cost_tolerance"] = qos.cost_tolerance
        if qos.HasField("max_price_usd_per_million_tokens"):
            values["max_price_usd_per_million_tokens"] = qos.max_price_usd_per_million_tokens
    if has("prompt"):
        prompt = message.prompt
        if prompt.HasField("input_tokens"):
            values["input_tokens"] = prompt.input_tokens
        if prompt.HasField("max_output_tokens"):
            values["max_output_tokens"] = prompt.max_output_tokens
        if prompt.prefix_hashes:
            values["prefix_hashes"] = tuple(prompt.prefix_hashes)
            values["prefix_block_tokens"] = prompt.prefix_block_tokens or DEFAULT_BLOCK_TOKENS
    if has("placement"):
        placement = message.placement
        values["only_regions"] = tuple(placement.only_regions)
        values["exclude_regions"] = tuple(placement.exclude_regions)
        values["jurisdictions"] = tuple(placement.jurisdictions)
        values["exclude_nodes"] = tuple(placement.exclude_nodes)
        values["node_labels"] = tuple(sorted(placement.node_labels.items()))
        values["allow_substitutes"] = placement.allow_substitutes
    if has("origin"):
        values["origin_region"] = message.origin.region_id
        values["origin_zone"] = message.origin.zone
    if message.hops:
        values["forwarded"] = True
    if has("max_alternatives"):
        values["max_alternatives"] = message.max_alternatives
    labels = message.labels
    return RouteRequest(
        model_id=message.model_id,
        capability=message.capability,
        adapter=message.adapter,
        request_id=message.request_id,
        tenant_id=message.tenant_id,
        session_id=message.session_id,
        priority=message.priority,
        labels=dict(labels) if labels else NO_LABELS,
        policy_id=message.policy_id,
        explain=EXPLAIN_FROM[message.explain],
        **values,  # type: ignore[arg-type]  # by name above, with the types of the fields
    )


def request_to(request: RouteRequest) -> routing_pb2.RouteRequest:
    return routing_pb2.RouteRequest(
        request_id=request.request_id,
        model_id=request.model_id,
        capability=request.capability,
        adapter=request.adapter,
        origin=routing_pb2.Origin(region_id=request.origin_region, zone=request.origin_zone),
        tenant_id=request.tenant_id,
        session_id=request.session_id,
        priority=request.priority,
        labels=dict(request.labels),
        qos=routing_pb2.QualityOfService(
            max_latency=optional_duration(request.max_latency_seconds),
            max_time_to_first_token=optional_duration(request.max_time_to_first_token_seconds),
            min_throughput=request.min_throughput_tokens_per_second,
            privacy_level=f"PRIVACY_LEVEL_{request.privacy_level.name}",
            prefer_gpu=request.prefer_gpu,
            cost_tolerance=request.cost_tolerance,
            max_price_usd_per_million_tokens=request.max_price_usd_per_million_tokens,
        ),
        prompt=routing_pb2.PromptShape(
            input_tokens=request.input_tokens,
            max_output_tokens=request.max_output_tokens,
            prefix_hashes=request.prefix_hashes,
            prefix_block_tokens=request.prefix_block_tokens,
        ),
        placement=routing_pb2.Placement(
            only_regions=request.only_regions,
            exclude_regions=request.exclude_regions,
            jurisdictions=request.jurisdictions,
            exclude_nodes=request.exclude_nodes,
            node_labels=dict(request.node_labels),
            allow_substitutes=request.allow_substitutes,
        ),
        policy_id=request.policy_id,
        max_alternatives=request.max_alternatives,
        explain=EXPLAIN_TO[request.explain],
    )


def decision_to(decision: Decision) -> routing_pb2.RouteDecision:
    """A decision with as much of its reasons as it carries."""
    message = routing_pb2.RouteDecision(
        decision_id=decision.decision_id,
        target=target_to(decision.target),
        alternatives=[target_to(choice) for choice in decision.alternatives],
        reasoning=decision.reasoning,
        policy_id=decision.policy_id,
        policy_revision=decision.policy_revision,
        strategy=decision.strategy,
        candidates_considered=decision.considered,
        table_revision=decision.table_revision,
        table_age=duration(decision.table_age_seconds),
        catalog_age=duration(decision.catalog_age_seconds),
        panic=decision.panic,
        valid_for=duration(decision.valid_for_seconds),
        decide_time=timestamp(decision.decide_time),
        rule=decision.rule,
    )
    for stage in decision.stages:
        message.stages.add(name=stage.name, detail=stage.detail, remaining=stage.remaining)
    if decision.rejected:
        message.rejected.update(decision.rejected)
    if decision.stale_regions:
        message.stale_regions.extend(decision.stale_regions)
    if decision.candidates:
        message.candidates.extend([candidate_to(candidate) for candidate in decision.candidates])
    return message


def decision_encoded(decision: Decision) -> bytes:
    """A decision as an encoded RouteDecision, the bytes of `decision_to`."""
    return decision_to(decision).SerializeToString() if decision.candidates else decision_bytes(decision)


def candidate_to(candidate: Candidate) -> routing_pb2.Candidate:
    return routing_pb2.Candidate(
        target=target_to(candidate.choice),
        eligible=candidate.eligible,
        rejection=None if candidate.rejection is None else _rejection(candidate.rejection),
        terms=[_term(term) for term in candidate.terms],
        signal_ages={name: duration(age) for name, age in candidate.signal_ages.items()},
        total=candidate.total,
    )


def _rejection(rejection: Rejection) -> routing_pb2.Rejection:
    return routing_pb2.Rejection(
        code=CODE_TO[rejection.code], message=rejection.message, bound=rejection.bound, actual=rejection.actual
    )


def _term(term: Term) -> routing_pb2.Term:
    return routing_pb2.Term(
        name=term.name,
        value=term.value,
        unit=term.unit,
        points=term.points,
        weight=term.weight,
        contribution=term.contribution,
        age=optional_duration(term.age_seconds),
    )


def error_to(status: errors.Status) -> routing_pb2.RouteError:
    """What Route would have failed with, for one request of a batch or a stream."""
    return routing_pb2.RouteError(
        code=status.code.value[0], message=status.message, reason=status.reason, metadata=dict(status.metadata)
    )


def outcome_from(message: routing_pb2.Outcome) -> Outcome:
    has = message.HasField
    return Outcome(
        decision_id=message.decision_id,
        attempt=message.attempt,
        phase=PHASE_FROM[message.phase],
        result=RESULT_FROM.get(message.result),
        region_id=message.region_id,
        node_id=message.node_id,
        model_id=message.model_id,
        event_time=unix_seconds_of(message.event_time) if has("event_time") else None,
        latency_seconds=seconds_of(message.latency) if has("latency") else None,
        time_to_first_token_seconds=seconds_of(message.time_to_first_token) if has("time_to_first_token") else None,
        input_tokens=message.input_tokens if has("input_tokens") else None,
        cached_tokens=message.cached_tokens if has("cached_tokens") else None,
        output_tokens=message.output_tokens if has("output_tokens") else None,
    )


def outcome_to(outcome: Outcome) -> routing_pb2.Outcome:
    return routing_pb2.Outcome(
        decision_id=outcome.decision_id,
        attempt=outcome.attempt,
        region_id=outcome.region_id,
        node_id=outcome.node_id,
        model_id=outcome.model_id,
        phase=PHASE_TO[outcome.phase],
        event_time=None if outcome.event_time is None else timestamp(outcome.event_time),
        result=None if outcome.result is None else RESULT_TO[outcome.result],
        latency=optional_duration(outcome.latency_seconds),
        time_to_first_token=optional_duration(outcome.time_to_first_token_seconds),
        input_tokens=outcome.input_tokens,
        cached_tokens=outcome.cached_tokens,
        output_tokens=outcome.output_tokens,
    )
