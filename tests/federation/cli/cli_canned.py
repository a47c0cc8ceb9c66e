"""A small fleet as a control plane would tell it, for servicers that answer with it."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from federation.v1 import fleet_pb2, policy_pb2, routing_pb2, types_pb2

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
QWEN = "qwen2.5-72b"
DECISION_ID = "r1a2b3-0000002a"
DECIDED_AT = Timestamp(seconds=1_767_323_045)


def seconds(value: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(round(value * 1e9))
    return made


REGIONS = (
    types_pb2.Region(
        region_id="ap-northeast-1", provider="aws", jurisdictions=["JP"], owner="ap-northeast-1", revision=3, etag="r3",
        egress_price_usd_per_gb=0.114,
    ),
    types_pb2.Region(
        region_id="eu-west-1", provider="aws", jurisdictions=["IE", "EU"], owner="eu-west-1", revision=7, etag="r7",
        egress_price_usd_per_gb=0.09, round_trips={"us-east-1": seconds(0.072), "ap-northeast-1": seconds(0.211)},
    ),
    types_pb2.Region(
        region_id="us-east-1", provider="on-prem", jurisdictions=["US"], owner="us-east-1", revision=2, etag="r2",
        reach=types_pb2.REACH_GATEWAY, ingress_endpoint="https://us.example",
        status=types_pb2.REGION_STATUS_DRAINING,
    ),
)  # fmt: skip

MODELS = (
    types_pb2.Model(
        model_id=LLAMA, family="llama", version="3.1", quantization="fp8", context_window_tokens=131_072,
        capabilities=["generate", "code"], aliases=["llama-8b"], equivalence_class="chat-8b", owner="eu-west-1",
        revision=4, etag="m4",
    ),
    types_pb2.Model(
        model_id=QWEN, family="qwen", version="2.5", quantization="awq-int4", context_window_tokens=32_768,
        capabilities=["generate"], owner="eu-west-1", revision=5, etag="m5",
    ),
)  # fmt: skip


def deployment(region: str, node: str, model: str, **more: object) -> types_pb2.Deployment:
    return types_pb2.Deployment(
        region_id=region, node_id=node, model_id=model, price_usd_per_million_input_tokens=0.18,
        price_usd_per_million_output_tokens=0.59, max_concurrency=64, status=types_pb2.DEPLOYMENT_STATUS_READY, **more,
    )  # fmt: skip


def node(region: str, name: str, *models: str, **more: object) -> types_pb2.Node:
    values: dict[str, object] = {
        "zone": f"{region}a",
        "endpoint": f"http://10.0.{len(region)}.{len(name)}:8000",
        "engine": types_pb2.ENGINE_VLLM,
        "accelerator": "H100",
        "accelerator_count": 8,
        "privacy_level": types_pb2.PRIVACY_LEVEL_CONFIDENTIAL,
        "labels": {"team": "search", "tier": "gold"},
        "price_usd_per_hour": 31.2,
        "lease_duration": seconds(30),
        "owner": region,
        "generation": 2,
        "revision": 11,
        "etag": "n11",
    }
    values |= more
    return types_pb2.Node(
        region_id=region, node_id=name, deployments=[deployment(region, name, model) for model in models], **values
    )


NODES = (
    node("ap-northeast-1", "gpu-1", LLAMA, lease_expired=True, privacy_level=types_pb2.PRIVACY_LEVEL_PUBLIC),
    node("eu-west-1", "gpu-7", LLAMA, QWEN),
    node("eu-west-1", "gpu-8", LLAMA, draining=True, accelerator="L4", accelerator_count=1),
    node("us-east-1", "cpu-1", QWEN, engine=types_pb2.ENGINE_OPENAI, accelerator="", accelerator_count=0),
)

DEPLOYMENTS = tuple(each for one in NODES for each in one.deployments)

OPEN = fleet_pb2.Circuit(
    state=fleet_pb2.CIRCUIT_STATE_OPEN, failures=5, opens_total=2, retry_after=seconds(42), reason="5 failures in a row"
)
CLOSED = fleet_pb2.Circuit(state=fleet_pb2.CIRCUIT_STATE_CLOSED)


def health(
    region: str, name: str, state: int, *deployments: fleet_pb2.DeploymentHealth, **more: object
) -> fleet_pb2.NodeHealth:
    return fleet_pb2.NodeHealth(region_id=region, node_id=name, state=state, deployments=deployments, **more)  # type: ignore[arg-type]


HEALTH = (
    health(
        "ap-northeast-1", "gpu-1", fleet_pb2.HEALTH_STATE_UNHEALTHY,
        fleet_pb2.DeploymentHealth(model_id=LLAMA, circuit=OPEN),
        reason="3 probes failed: connection refused", signal_ages={"probe": seconds(0.8)}, error_ratio=0.31,
    ),
    health(
        "eu-west-1", "gpu-7", fleet_pb2.HEALTH_STATE_HEALTHY,
        fleet_pb2.DeploymentHealth(model_id=LLAMA, circuit=CLOSED, in_flight=6, pending_prompt_tokens=812),
        fleet_pb2.DeploymentHealth(model_id=QWEN, circuit=CLOSED, in_flight=2),
        latency_p50=seconds(0.183), latency_p99=seconds(1.92), throughput_tokens_per_second=1843.2, running_requests=8,
        queue_depth=0, kv_cache_utilization=0.41, gpu_utilization=0.88, error_ratio=0.004,
        signal_ages={"probe": seconds(3.2), "metrics": seconds(1.1), "load": seconds(0.4)},
    ),
    health(
        "eu-west-1", "gpu-8", fleet_pb2.HEALTH_STATE_DRAINING,
        fleet_pb2.DeploymentHealth(model_id=LLAMA, circuit=CLOSED, ejected=True, ejected_for=seconds(240)),
        signal_ages={"probe": seconds(61)}, reason="an operator drains it",
    ),
    health(
        "us-east-1", "cpu-1", fleet_pb2.HEALTH_STATE_UNKNOWN,
        fleet_pb2.DeploymentHealth(model_id=QWEN, circuit=CLOSED), reason="nothing fresh is known",
    ),
)  # fmt: skip

CIRCUITS = (
    fleet_pb2.CircuitEntry(region_id="ap-northeast-1", node_id="gpu-1", model_id=LLAMA, circuit=OPEN),
    fleet_pb2.CircuitEntry(region_id="eu-west-1", node_id="gpu-7", model_id=LLAMA, circuit=CLOSED),
)

BUDGETS = (
    fleet_pb2.TenantBudget(
        tenant_id="acme", policy_id="gold", period=fleet_pb2.BUDGET_PERIOD_DAY, limit_usd=250.0, spent_usd=31.7,
        reset_time=Timestamp(seconds=1_767_398_400), when_exhausted=fleet_pb2.WHEN_EXHAUSTED_DEMOTE,
    ),
    fleet_pb2.TenantBudget(
        tenant_id="acme", policy_id="gold", period=fleet_pb2.BUDGET_PERIOD_MONTH, limit_usd=4_000.0,
        spent_usd=4_000.21, reset_time=Timestamp(seconds=1_769_904_000),
        when_exhausted=fleet_pb2.WHEN_EXHAUSTED_DEMOTE,
    ),
    fleet_pb2.TenantBudget(
        policy_id="gold", period=fleet_pb2.BUDGET_PERIOD_DAY, limit_usd=1.0,
        reset_time=Timestamp(seconds=1_767_398_400), when_exhausted=fleet_pb2.WHEN_EXHAUSTED_REFUSE,
    ),
)  # fmt: skip

PEERS = (
    fleet_pb2.Peer(
        region_id="eu-west-1", replica_id="eu-west-1.0b6c2d91", address="http://10.0.0.12:50051", lag=seconds(0.06),
        state=fleet_pb2.LINK_STATE_UP, role=fleet_pb2.PEER_ROLE_SIBLING, age=seconds(4_000),
    ),
    fleet_pb2.Peer(
        region_id="us-east-1", address="us.example:50051", state=fleet_pb2.LINK_STATE_UP, imported_revision=41,
        exported_revision=57, lag=seconds(0.4), lease_left=seconds(29.6), imported_nodes=1, exported_nodes=2,
        round_trip=seconds(0.072), role=fleet_pb2.PEER_ROLE_DIALED,
    ),
    fleet_pb2.Peer(address="ap.example:50051", state=fleet_pb2.LINK_STATE_DOWN, reason="connection refused"),
)  # fmt: skip

FLEET = fleet_pb2.GetFleetResponse(
    regions=[
        fleet_pb2.RegionSummary(
            region_id="ap-northeast-1", nodes=1, nodes_by_state={"unhealthy": 1}, deployments=1,
            available_deployments=0, imported=True, round_trip=seconds(0.24),
            round_trip_source=fleet_pb2.ROUND_TRIP_SOURCE_MEASURED,
        ),
        fleet_pb2.RegionSummary(
            region_id="eu-west-1", nodes=2, nodes_by_state={"healthy": 1, "draining": 1}, deployments=3,
            available_deployments=2, round_trip=seconds(0.001), round_trip_source=fleet_pb2.ROUND_TRIP_SOURCE_LOCAL,
        ),
        fleet_pb2.RegionSummary(
            region_id="us-east-1", nodes=1, nodes_by_state={"unknown": 1}, deployments=1, available_deployments=1,
            imported=True,
        ),
    ],
    models=[
        fleet_pb2.ModelSummary(model_id=LLAMA, deployments=3, available_deployments=1, panic=True),
        fleet_pb2.ModelSummary(model_id=QWEN, deployments=2, available_deployments=2),
    ],
    revision=57, table_age=seconds(0.31), decisions_total=120_417, version="0.1.0", home_region_id="eu-west-1",
)  # fmt: skip


def target(
    region: str, name: str, score: float, *, ttft: float, latency: float, cost: float, scores: tuple[float, ...]
) -> routing_pb2.RouteTarget:
    parts = dict(zip(("latency", "throughput", "cost", "locality", "health"), scores, strict=True))
    return routing_pb2.RouteTarget(
        node_id=name, region_id=region, deployment=f"{region}/{name}/{LLAMA}", model_id=LLAMA, served_model_name=LLAMA,
        endpoint=f"http://{name}.{region}.example:8000", estimated_time_to_first_token=seconds(ttft),
        estimated_latency=seconds(latency), estimated_cost_usd=cost, score=score,
        scores=routing_pb2.Scores(total=score, **parts),
    )  # fmt: skip


def terms(*values: tuple[str, float | None, str, float, float, float | None]) -> list[routing_pb2.Term]:
    """Terms whose contributions add up: (name, value, unit, points, weight, age)."""
    whole = sum(weight for _, _, _, _, weight, _ in values)
    made = []
    for name, value, unit, points, weight, age in values:
        contribution = weight * points / whole
        term = routing_pb2.Term(
            name=name, value=value, unit=unit, points=points, weight=weight, contribution=contribution
        )
        if age is not None:
            term.age.CopyFrom(seconds(age))
        made.append(term)
    return made


def candidate(to: routing_pb2.RouteTarget, parts: list[routing_pb2.Term], **ages: float) -> routing_pb2.Candidate:
    return routing_pb2.Candidate(
        target=to, eligible=True, terms=parts, total=sum(term.contribution for term in parts),
        signal_ages={name: seconds(age) for name, age in ages.items()},
    )  # fmt: skip


GPU_7 = target(
    "eu-west-1", "gpu-7", 0.977214, ttft=0.184, latency=2.31, cost=0.00031, scores=(0.96, 0.84, 1.0, 1.0, 0.98)
)
GPU_2 = target(
    "eu-central-1", "gpu-2", 0.948429, ttft=0.236, latency=2.44, cost=0.00034, scores=(0.95, 0.81, 1.0, 0.93, 0.93)
)
US_1 = target("us-east-1", "gpu-1", 0.5, ttft=3.4, latency=8.2, cost=0.00029, scores=(0.32, 0.84, 1.0, 0.76, 0.5))
AP_1 = target("ap-northeast-1", "gpu-1", 0.0, ttft=0.5, latency=2.9, cost=0.00029, scores=(0.9, 0.84, 1.0, 0.3, 0.0))

CANDIDATES = (
    candidate(
        GPU_7,
        terms(
            ("latency", 0.184, "s", 0.9632, 1.0, 1.1), ("throughput", 84.2, "tokens/s", 0.842, 0.1, None),
            ("cost", 0.00031, "USD", 0.9969, 1.0, None), ("locality", 0.4, "ms", 1.0, 0.1, None),
            ("health", 0.98, "", 0.98, 2.0, 3.2),
        ),
        probe=3.2, metrics=1.1,
    ),
    candidate(
        GPU_2,
        terms(
            ("latency", 0.236, "s", 0.9528, 1.0, 2.4), ("throughput", 81.0, "tokens/s", 0.81, 0.1, None),
            ("cost", 0.00034, "USD", 0.9966, 1.0, None), ("locality", 21.0, "ms", 0.93, 0.1, None),
            ("health", 0.93, "", 0.93, 2.0, 6.1),
        ),
        probe=6.1,
    ),
    routing_pb2.Candidate(
        target=AP_1,
        rejection=routing_pb2.Rejection(
            code=routing_pb2.REJECTION_CODE_UNHEALTHY, message="its probes fail",
        ),
    ),
    routing_pb2.Candidate(
        target=US_1,
        rejection=routing_pb2.Rejection(
            code=routing_pb2.REJECTION_CODE_TTFT_BOUND,
            message="predicted time to the first token is over the bound, or unknown", bound="<= 2 s", actual="3.4 s",
        ),
    ),
)  # fmt: skip

DECISION = routing_pb2.RouteDecision(
    decision_id=DECISION_ID, target=GPU_7, alternatives=[GPU_2],
    reasoning=(
        f"Chose eu-west-1/gpu-7/{LLAMA}: first token in 184 ms, 0.00031 USD. It beat eu-central-1/gpu-2 by 52 ms. "
        "2 of 4 left out: 1 TTFT_BOUND, 1 UNHEALTHY."
    ),
    policy_id="balanced", strategy="predicted", candidates_considered=4, rejected={"TTFT_BOUND": 1, "UNHEALTHY": 1},
    stages=[
        routing_pb2.Stage(name="rules", detail="no rule matched", remaining=4),
        routing_pb2.Stage(name="filters", detail="rejected: 1 TTFT_BOUND, 1 UNHEALTHY", remaining=2),
        routing_pb2.Stage(name="picker", detail="predicted drew two of 2 as good as the best", remaining=1),
    ],
    table_revision=57, table_age=seconds(0.31), valid_for=seconds(5), decide_time=DECIDED_AT,
)  # fmt: skip

REQUEST = routing_pb2.RouteRequest(
    model_id=LLAMA, origin=routing_pb2.Origin(region_id="eu-west-1"),
    qos=routing_pb2.QualityOfService(max_time_to_first_token=seconds(2)),
)  # fmt: skip

OUTCOMES = (
    routing_pb2.Outcome(
        decision_id=DECISION_ID, phase=routing_pb2.OUTCOME_PHASE_FINISHED, result=routing_pb2.OUTCOME_RESULT_OK,
        latency=seconds(2.5), time_to_first_token=seconds(0.21),
    ),
)  # fmt: skip

POLICIES = (
    policy_pb2.Policy(policy_id="balanced", preset=True, document_json="{}"),
    policy_pb2.Policy(
        policy_id="eu-only",
        revision=9,
        etag="p9",
        document_json='{"min_score":0.2,"picker":"best"}',
        create_time=DECIDED_AT,
    ),
)
