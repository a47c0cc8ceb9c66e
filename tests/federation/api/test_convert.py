"""Messages and values: whatever goes one way comes back, and the short way to a target says what the long one says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.types import (
    Deployment,
    DeploymentStatus,
    Engine,
    Model,
    Node,
    PrivacyLevel,
    Reach,
    Region,
    RegionStatus,
    ServingProfile,
)
from federation.api.convert import decisions, resources
from federation.api.convert.targets import target_bytes, target_to
from federation.api.convert.times import duration, seconds_of, timestamp, unix_seconds_of
from federation.v1 import routing_pb2
from policies.types import (
    Candidate,
    Choice,
    Code,
    Decision,
    Explain,
    Outcome,
    Phase,
    Result,
    RouteRequest,
    Scores,
    Stage,
)

FIGURES = st.floats(allow_nan=False, allow_infinity=False, width=64)
SECONDS = st.one_of(st.none(), st.floats(0, 1e10, allow_nan=False))
SCORES = st.builds(Scores, *[FIGURES] * 6)


@given(FIGURES, SCORES, SECONDS, SECONDS, st.one_of(st.none(), FIGURES), st.booleans(), st.sampled_from(["", "m-fp8"]))
def test_the_short_way_to_a_target_says_what_the_long_one_says(
    score: float,
    scores: Scores,
    latency: float | None,
    first_token: float | None,
    cost: float | None,
    via_gateway: bool,
    served: str,
) -> None:
    choice = Choice(
        region_id="eu-west-1",
        node_id="n",
        model_id="m",
        deployment="eu-west-1/n/m",
        served_model_name=served,
        endpoint="http://n:1",
        via_gateway=via_gateway,
        estimated_latency_seconds=latency,
        estimated_time_to_first_token_seconds=first_token,
        estimated_cost_usd=cost,
        score=score,
        scores=scores,
        substitution_differences=("version 1, not 2",) if via_gateway else (),
    )

    long = routing_pb2.RouteTarget(
        node_id="" if via_gateway else "n",
        region_id="eu-west-1",
        deployment="eu-west-1/n/m",
        model_id="m",
        served_model_name=served or "m",
        endpoint="http://n:1",
        via_gateway=via_gateway,
        estimated_latency=None if latency is None else duration(latency),
        estimated_time_to_first_token=None if first_token is None else duration(first_token),
        estimated_cost_usd=cost,
        score=score,
        scores=routing_pb2.Scores(
            latency=scores.latency,
            throughput=scores.throughput,
            cost=scores.cost,
            locality=scores.locality,
            health=scores.health,
            total=scores.total,
        ),
        substitution_differences=choice.substitution_differences,
    )

    assert target_to(choice) == long
    assert target_bytes(choice) == long.SerializeToString()


CHOICES = st.builds(
    Choice,
    region_id=st.sampled_from(["eu-west-1", "", "r" * 63]),
    node_id=st.sampled_from(["n", "ñ"]),
    model_id=st.just("m"),
    deployment=st.sampled_from(["eu-west-1/n/m", "d" * 400]),
    served_model_name=st.sampled_from(["", "m-fp8"]),
    endpoint=st.sampled_from(["", "http://n:1"]),
    via_gateway=st.booleans(),
    estimated_latency_seconds=SECONDS,
    estimated_time_to_first_token_seconds=SECONDS,
    earliest_time_to_first_token_seconds=SECONDS,
    latest_time_to_first_token_seconds=SECONDS,
    estimated_cost_usd=st.one_of(st.none(), FIGURES),
    score=FIGURES,
    scores=SCORES,
    substitution_differences=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)
COUNTS = st.integers(0, (1 << 31) - 1)
DECISIONS = st.builds(
    Decision,
    decision_id=st.text(max_size=40),
    target=CHOICES,
    alternatives=st.lists(CHOICES, max_size=2).map(tuple),
    reasoning=st.one_of(st.text(max_size=20), st.just("r" * 5_000)),
    policy_id=st.sampled_from(["balanced", ""]),
    policy_revision=st.integers(0, 1 << 40),
    strategy=st.sampled_from(["predicted", ""]),
    stages=st.lists(st.builds(Stage, st.text(max_size=3), st.text(max_size=3), COUNTS), max_size=3).map(tuple),
    considered=COUNTS,
    rejected=st.dictionaries(st.sampled_from(["PRIVACY", "DRAINING", "TENANT"]), COUNTS),
    table_revision=st.integers(0, (1 << 63) - 1),
    table_age_seconds=st.floats(0, 1e12),
    catalog_age_seconds=st.one_of(st.just(0.0), st.floats(0, 1e12)),
    stale_regions=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    panic=st.booleans(),
    valid_for_seconds=st.sampled_from([5.0, 0.0, 0.25]),
    decide_time=st.floats(0, 4e9),
    rule=st.text(max_size=3),
)


@given(DECISIONS)
def test_decisions_are_written_as_protobuf_would_write_them(decision: Decision) -> None:
    plain = decisions.decision_to(decision)

    encoded = decisions.decision_encoded(decision)

    assert encoded == plain.SerializeToString(deterministic=True)


def test_decisions_with_candidates_are_written_whole() -> None:
    choice = Choice("r", "n", "m", "r/n/m", "m", "http://n:1")
    decision = Decision(
        *("d-1", choice, (), "", "balanced", 1, "best", (), 1, {}, 1, 0.0, (), False, 5.0, 1.5),
        candidates=(Candidate(choice),),
    )

    found = routing_pb2.RouteDecision.FromString(decisions.decision_encoded(decision))

    assert len(found.candidates) == 1
    assert found == decisions.decision_to(decision)


def test_a_target_tells_when_its_first_token_is_to_be_expected() -> None:
    choice = Choice(
        *("r", "n", "m", "r/n/m", "m", "http://n:1"),
        earliest_time_to_first_token_seconds=0.25,
        latest_time_to_first_token_seconds=1.5,
    )

    target = target_to(choice)

    assert seconds_of(target.earliest_time_to_first_token) == 0.25
    assert seconds_of(target.latest_time_to_first_token) == 1.5


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -1.0])
def test_an_estimate_that_is_none_is_absent(unknown: float) -> None:
    choice = Choice("r", "n", "m", "r/n/m", "", "", estimated_latency_seconds=unknown, estimated_cost_usd=math.nan)

    target = target_to(choice)

    assert not target.HasField("estimated_latency")
    assert not target.HasField("estimated_cost_usd")


@given(st.floats(0, 1e9, allow_nan=False))
def test_times_come_back_to_the_nanosecond(seconds: float) -> None:
    assert seconds_of(duration(seconds)) == pytest.approx(seconds, abs=2e-9, rel=1e-12)
    assert unix_seconds_of(timestamp(seconds)) == pytest.approx(seconds, abs=2e-9, rel=1e-12)


def test_a_request_with_nothing_said_has_the_documented_defaults() -> None:
    request = decisions.request_from(routing_pb2.RouteRequest(model_id="m"))

    assert request == RouteRequest(model_id="m")
    assert (request.privacy_level, request.cost_tolerance, request.max_alternatives, request.explain) == (
        PrivacyLevel.INTERNAL,
        50.0,
        None,
        Explain.SUMMARY,
    )


def test_a_zero_that_was_said_is_not_an_absence() -> None:
    message = routing_pb2.RouteRequest(model_id="m", max_alternatives=0)
    message.qos.cost_tolerance = 0.0
    message.qos.min_throughput = 0.0
    message.prompt.input_tokens = 0

    request = decisions.request_from(message)

    assert (request.max_alternatives, request.cost_tolerance, request.input_tokens) == (0, 0.0, 0)
    assert request.min_throughput_tokens_per_second == 0.0


def test_a_request_comes_back_as_it_was() -> None:
    request = RouteRequest(
        model_id="m",
        capability="generate",
        adapter="a",
        request_id="r",
        origin_region="eu",
        origin_zone="a",
        tenant_id="t",
        session_id="s",
        priority=-3,
        labels={"app": "chat"},
        max_latency_seconds=2.5,
        max_time_to_first_token_seconds=0.25,
        min_throughput_tokens_per_second=10.0,
        privacy_level=PrivacyLevel.RESTRICTED,
        prefer_gpu=True,
        cost_tolerance=7.0,
        max_price_usd_per_million_tokens=3.0,
        input_tokens=100,
        max_output_tokens=50,
        prefix_hashes=(1, 2**64 - 1),
        prefix_block_tokens=16,
        only_regions=("eu", "us"),
        exclude_regions=("ap",),
        jurisdictions=("EU",),
        exclude_nodes=("eu/n",),
        node_labels=(("rack", "7"),),
        allow_substitutes=True,
        policy_id="p",
        max_alternatives=1,
        explain=Explain.FULL,
    )

    assert decisions.request_from(decisions.request_to(request)) == request


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("result", [None, *Result])
def test_an_outcome_comes_back_as_it_was(phase: Phase, result: Result | None) -> None:
    outcome = Outcome("d-1", 2, phase, result, "r", "n", "m", 1e9, 1.5, 0.25, 10, 0, 7)

    assert decisions.outcome_from(decisions.outcome_to(outcome)) == outcome
    assert decisions.outcome_from(decisions.outcome_to(Outcome("d-1"))) == Outcome("d-1")


def test_every_rejection_has_its_code_on_the_wire() -> None:
    assert {routing_pb2.RejectionCode.Value(name) for name in decisions.CODE_TO.values()} == {
        code.value for code in Code
    }


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize("status", list(DeploymentStatus))
@pytest.mark.parametrize("privacy", [None, *PrivacyLevel])
def test_a_node_comes_back_as_it_was(engine: Engine, status: DeploymentStatus, privacy: PrivacyLevel | None) -> None:
    node = Node(
        "eu",
        "n",
        "http://n:1",
        engine,
        zone="a",
        accelerator="H100",
        accelerator_count=8,
        privacy_level=privacy,
        labels={"rack": "7"},
        price_usd_per_hour=0.0,
        lease_seconds=0.0,
        etag="e",
        deployments=(
            Deployment(
                "eu",
                "n",
                "m",
                served_model_name="m-fp8",
                capabilities=("generate",),
                price_usd_per_million_input_tokens=1.0,
                price_usd_per_million_output_tokens=0.0,
                max_concurrency=4,
                weight=0.0,
                adapters=("lora",),
                tenant_ids=("t",),
                profile=ServingProfile(0.001, 0.1, 30.0, 8, 100_000),
                status=status,
            ),
            Deployment("eu", "n", "m2"),
        ),
    )

    message = resources.node_to(node)

    assert resources.node_from(message, message.deployments) == node


@pytest.mark.parametrize("reach", list(Reach))
@pytest.mark.parametrize("status", list(RegionStatus))
def test_a_region_comes_back_as_it_was(reach: Reach, status: RegionStatus) -> None:
    region = Region("eu", "aws", ("DE", "EU"), 0.0, -1.5, reach, "https://eu", status, 0.0, {"us": 0.08}, etag="e")

    assert resources.region_from(resources.region_to(region)) == region
    assert resources.region_from(resources.region_to(Region("eu"))) == Region("eu")


def test_a_model_comes_back_as_it_was() -> None:
    model = Model("m", "llama", "3", "fp8", 8192, "text", "t", ("generate",), ("n",), "class", etag="e")

    assert resources.model_from(resources.model_to(model)) == model
    assert resources.model_from(resources.model_to(Model("m"))) == Model("m")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (2.0**63, "9999-12-31T23:59:59Z"),
        (-(2.0**63), "0001-01-01T00:00:00Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
        (1.5, "1970-01-01T00:00:01.500Z"),
    ],
)
def test_a_time_that_no_timestamp_can_tell_is_its_first_or_last(seconds: float, told: str) -> None:
    assert timestamp(seconds).ToJsonString() == told
