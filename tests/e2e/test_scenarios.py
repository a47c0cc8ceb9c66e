"""The six stories that every router must be able to tell, and a few facts, over real gRPC and real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.edge.client import Client
from federation.v1 import catalog_pb2, fleet_pb2, policy_pb2, routing_pb2, types_pb2
from tests.e2e.world import World, a_world, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]

MODEL = "llama-3-8b"
NEARLY_EMPTY = "vllm:kv_cache_usage_perc 0.1\n"
# Over the 95 % above which a node counts as degraded; it says nothing of a queue.
NEARLY_FULL = "vllm:kv_cache_usage_perc 0.99\n"
CHEAP = {"price_usd_per_million_input_tokens": 0.1, "price_usd_per_million_output_tokens": 0.1}
DEAR = {"price_usd_per_million_input_tokens": 90.0, "price_usd_per_million_output_tokens": 90.0}
FLAKY, STEADY = f"local/flaky/{MODEL}", f"local/steady/{MODEL}"
WITHOUT_STEADY = {"placement": {"exclude_nodes": ["local/steady"]}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


async def first_of(world: World, **request: Any) -> str:
    return next(iter(await world.candidates(MODEL, **request)))


# Happy path


async def test_happy_path_a_registered_node_answers_the_prompt_and_its_outcome_is_remembered(world: World) -> None:
    engine = await world.node("local/gpu-1", MODEL)

    answer = await world.gateway.send(MODEL, request_id="r-1", origin={"region_id": "local"})

    assert answer.attempts == ((f"local/gpu-1/{MODEL}", 200),)
    assert engine.served == 1
    decision = answer.decision
    assert (decision.target.endpoint, decision.target.served_model_name) == (engine.url, MODEL)
    assert decision.policy_id == "balanced"
    assert f"local/gpu-1/{MODEL}" in decision.reasoning
    told = await world.client.routing.GetDecision(routing_pb2.GetDecisionRequest(decision_id=decision.decision_id))
    assert told.request.request_id == "r-1"
    assert [(each.attempt, each.result) for each in told.outcomes] == [(0, routing_pb2.OUTCOME_RESULT_OK)]


async def test_one_healthy_node_is_chosen_also_by_capability_alone(world: World) -> None:
    await world.node("local/gpu-1", "speech-1", deployment={"capabilities": ["transcribe"]})

    decision = await world.route("", capability="transcribe")

    assert decision.target.deployment == "local/gpu-1/speech-1"


async def test_a_known_model_or_capability_without_a_node_has_no_capacity(world: World) -> None:
    await world.client.catalog.RegisterModel(
        catalog_pb2.RegisterModelRequest(model={"model_id": MODEL, "capabilities": ["rerank"]})
    )

    by_model = await world.until_refused(MODEL, "NO_CAPACITY")
    by_capability = await world.refusal("", capability="rerank")

    for error in (by_model, by_capability):
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
        assert error.retry_after_seconds
        assert "register" in error.message


async def test_what_was_registered_a_moment_ago_is_never_called_unknown(world: World) -> None:
    for number in range(20):
        model = {"model_id": f"model-{number}", "capabilities": [f"custom:skill-{number}"]}
        policy = {"policy_id": f"mine-{number}", "document_json": "{}"}
        await world.client.catalog.RegisterModel(catalog_pb2.RegisterModelRequest(model=model))
        by_model = await world.refusal(f"model-{number}")
        by_capability = await world.refusal("", capability=f"custom:skill-{number}")
        await world.client.policy.PutPolicy(policy_pb2.PutPolicyRequest(policy=policy))
        by_policy = await world.refusal(f"model-{number}", policy_id=f"mine-{number}")

        # Callers give up on NOT_FOUND.
        for error in (by_model, by_capability, by_policy):
            assert error.reason in ("NO_CAPACITY", "ALL_NODES_UNHEALTHY"), error
            assert error.retry_after_seconds


async def test_all_three_of_three_candidates_are_told_best_first(world: World) -> None:
    for name, price in (("a", 30.0), ("b", 1.0), ("c", 20.0)):
        prices = {"price_usd_per_million_input_tokens": price, "price_usd_per_million_output_tokens": price}
        await world.node(f"local/{name}", MODEL, deployment=prices)

    found = await world.candidates(MODEL)

    assert [name.split("/")[1] for name in found] == ["b", "c", "a"]
    assert all(candidate.eligible for candidate in found.values())
    totals = [candidate.total for candidate in found.values()]
    assert totals == sorted(totals, reverse=True)


async def test_a_node_with_45_ms_beats_one_with_120_ms_when_all_else_is_equal(world: World) -> None:
    for name, millis in (("slow", 120), ("fast", 45)):
        profile = {"min_time_to_first_token": {"nanos": millis * 1_000_000}, "prefill_seconds_per_token": 0.0}
        await world.node(f"local/{name}", MODEL, deployment={"profile": profile})

    decisions = [await world.route(MODEL) for _ in range(20)]

    assert {decision.target.node_id for decision in decisions} == {"fast"}
    assert {decision.alternatives[0].node_id for decision in decisions} == {"slow"}
    # Its least time, and a round trip within the region.
    assert decisions[0].target.estimated_time_to_first_token.ToMilliseconds() == 46


# Retry success


async def test_retry_success_the_alternative_answers_and_the_decision_tells_of_both_attempts(world: World) -> None:
    flaky = await world.node("local/flaky", MODEL, zone="a", deployment=CHEAP)
    steady = await world.node("local/steady", MODEL, zone="b", deployment=DEAR)
    flaky.status = 500

    answer = await world.gateway.send(MODEL)

    assert answer.attempts == ((FLAKY, 500), (STEADY, 200))
    assert (flaky.served, steady.served) == (0, 1)
    told = await world.client.routing.GetDecision(
        routing_pb2.GetDecisionRequest(decision_id=answer.decision.decision_id)
    )
    assert [(each.attempt, each.phase, each.result) for each in told.outcomes] == [
        (0, routing_pb2.OUTCOME_PHASE_FINISHED, routing_pb2.OUTCOME_RESULT_SERVER_ERROR),
        (1, routing_pb2.OUTCOME_PHASE_STARTED, routing_pb2.OUTCOME_RESULT_UNSPECIFIED),
        (1, routing_pb2.OUTCOME_PHASE_FINISHED, routing_pb2.OUTCOME_RESULT_OK),
    ]
    # The same reports again, as after a lost answer, count once.
    again = await world.client.routing.ReportOutcomes(
        routing_pb2.ReportOutcomesRequest(
            outcomes=[
                routing_pb2.Outcome(
                    decision_id=answer.decision.decision_id, attempt=each.attempt, phase=each.phase, result=each.result
                )
                for each in told.outcomes
            ]
        )
    )
    assert (again.accepted, again.repeated_reports) == (0, 3)
    # What failed is trusted less now, before any probe said so, and no room is held there any more.
    candidates = await world.candidates(MODEL)
    waits = {name: each.target.estimated_time_to_first_token.ToSeconds() for name, each in candidates.items()}
    health = await world.client.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest())
    assert candidates[FLAKY].target.estimated_time_to_first_token.ToMilliseconds() > 2 * (
        candidates[STEADY].target.estimated_time_to_first_token.ToMilliseconds()
    ), waits
    assert [deployment.in_flight for node in health.nodes for deployment in node.deployments] == [0, 0]


# Circuit breaker trip


async def test_circuit_breaker_trip_five_failures_open_a_circuit_and_others_go_on(tmp_path: Path) -> None:
    async with a_world(tmp_path, env={"FAIRWAY_CIRCUIT__OPEN_SECONDS": "60"}) as world:
        flaky = await world.node("local/flaky", MODEL)
        await world.node("local/steady", MODEL)
        flaky.status = 500

        for count in range(1, 6):
            assert (await world.circuit("flaky")).state == fleet_pb2.CIRCUIT_STATE_CLOSED, f"before failure {count}"
            assert (await world.gateway.send(MODEL, **WITHOUT_STEADY)).attempts == ((FLAKY, 500),)
        opened = await world.circuit("flaky")
        await world.until_rejected(FLAKY, "CIRCUIT_OPEN")
        error = await world.refusal(MODEL, **WITHOUT_STEADY)
        answers = {(await world.gateway.send(MODEL)).by for _ in range(10)}
        reset = await world.client.fleet.ResetCircuit(fleet_pb2.ResetCircuitRequest(region_id="local", node_id="flaky"))
        await world.until_rejected(FLAKY, "")

        assert (opened.state, opened.opens_total) == (fleet_pb2.CIRCUIT_STATE_OPEN, 1)
        assert "5 failures in a row" in opened.reason
        assert 30 < opened.retry_after.ToSeconds() <= 66
        # Only the circuit tells: its probes pass all the time.
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "ALL_NODES_UNHEALTHY")
        assert error.metadata["rejected_CIRCUIT_OPEN"] == "1"
        assert error.retry_after_seconds == 30.0
        assert answers == {STEADY}
        assert [entry.circuit.state for entry in reset.circuits] == [fleet_pb2.CIRCUIT_STATE_CLOSED]


async def test_a_half_open_circuit_takes_one_trial_at_a_time_and_closes_after_three_apart(world: World) -> None:
    flaky = await world.node("local/flaky", MODEL)
    await world.node("local/steady", MODEL)
    flaky.status = 500
    for _ in range(5):
        await world.gateway.send(MODEL, **WITHOUT_STEADY)
    await world.until_rejected(FLAKY, "CIRCUIT_OPEN")
    flaky.status = 200
    await world.until_rejected(FLAKY, "")

    flaky.open_for_answers.clear()
    trial = asyncio.create_task(world.gateway.send(MODEL, **WITHOUT_STEADY))
    await until(lambda: flaky.asked == 6)
    state = (await world.circuit("flaky")).state
    second = await world.refusal(MODEL, **WITHOUT_STEADY)
    meanwhile = await world.route(MODEL)
    flaky.open_for_answers.set()
    answers = [await trial]
    answers += [await world.gateway.send(MODEL, **WITHOUT_STEADY) for _ in range(2)]

    assert state == fleet_pb2.CIRCUIT_STATE_HALF_OPEN
    assert (second.reason, second.metadata["rejected_CIRCUIT_OPEN"]) == ("ALL_NODES_UNHEALTHY", "1")
    assert meanwhile.target.deployment == STEADY
    assert not meanwhile.alternatives
    assert [answer.by for answer in answers] == [FLAKY] * 3

    async def closed() -> bool:
        await world.gateway.send(MODEL, **WITHOUT_STEADY)
        return (await world.circuit("flaky")).state == fleet_pb2.CIRCUIT_STATE_CLOSED

    # Only those count that are some time apart.
    await until(closed)
    # What failed before is no reason to leave it out now.
    await world.until_rejected(FLAKY, "")


async def test_a_failed_trial_opens_the_circuit_again_for_twice_as_long(world: World) -> None:
    flaky = await world.node("local/flaky", MODEL)
    flaky.status = 500
    for _ in range(5):
        await world.gateway.send(MODEL)
    await world.until_rejected(FLAKY, "CIRCUIT_OPEN")
    await world.until_rejected(FLAKY, "")

    await world.gateway.send(MODEL)
    circuit = await world.circuit("flaky")

    assert (circuit.state, circuit.opens_total) == (fleet_pb2.CIRCUIT_STATE_OPEN, 2)
    # The first time it was open for 1.1 s at most, jitter included.
    assert 1.1 < circuit.retry_after.ToNanoseconds() / 1e9 <= 2.2


# Multi-region routing


async def test_multi_region_routing_each_origin_stays_near_and_moves_when_its_region_is_gone(world: World) -> None:
    apart = {"seconds": 0, "nanos": 90_000_000}
    await world.region("eu", jurisdictions=["DE", "EU"], round_trips={"us": apart})
    await world.region("us", jurisdictions=["US"], round_trips={"eu": apart})
    german = await world.node("eu/gpu-1", MODEL)
    american = await world.node("us/gpu-1", MODEL)
    from_eu, from_us = {"origin": {"region_id": "eu"}}, {"origin": {"region_id": "us"}}

    near = [(await world.gateway.send(MODEL, **origin)).by for origin in (from_eu, from_us)]
    plan = await world.route(MODEL, **from_eu)
    await german.close()
    await world.until_rejected(f"eu/gpu-1/{MODEL}", "UNHEALTHY")
    moved = await world.gateway.send(MODEL, **from_eu)
    at_home = await world.refusal(MODEL, **from_eu, placement={"only_regions": ["eu"]})
    by_law = await world.refusal(MODEL, **from_eu, placement={"jurisdictions": ["EU"]})
    await german.open()
    await world.until_rejected(f"eu/gpu-1/{MODEL}", "")
    back = await world.gateway.send(MODEL, **from_eu, placement={"jurisdictions": ["EU"]})

    assert near == [f"eu/gpu-1/{MODEL}", f"us/gpu-1/{MODEL}"]
    assert [target.region_id for target in plan.alternatives] == ["us"]
    assert plan.target.scores.locality > plan.alternatives[0].scores.locality
    nearer = plan.alternatives[0].estimated_time_to_first_token.ToMilliseconds()
    assert nearer - plan.target.estimated_time_to_first_token.ToMilliseconds() == pytest.approx(89, abs=20)
    assert moved.by == f"us/gpu-1/{MODEL}"
    assert american.served == 2
    assert at_home.reason == by_law.reason == "ALL_NODES_UNHEALTHY"
    assert at_home.metadata["rejected_REGION_EXCLUDED"] == by_law.metadata["rejected_JURISDICTION"] == "1"
    assert back.by == f"eu/gpu-1/{MODEL}"


# Privacy routing


async def test_privacy_routing_a_prompt_reaches_only_nodes_of_its_level(world: World) -> None:
    level = types_pb2.PrivacyLevel
    await world.node("local/public", MODEL, deployment=CHEAP, privacy_level=level.PRIVACY_LEVEL_PUBLIC)
    await world.node("local/plain", MODEL, deployment=DEAR)
    vault = await world.node("local/vault", MODEL, deployment=DEAR, privacy_level=level.PRIVACY_LEVEL_CONFIDENTIAL)

    def of(name: str) -> dict[str, Any]:
        return {"qos": {"privacy_level": level.Value(f"PRIVACY_LEVEL_{name}")}}

    public = await world.route(MODEL, **of("PUBLIC"))
    unsaid = await world.route(MODEL)
    confidential = await world.route(MODEL, **of("CONFIDENTIAL"))
    restricted = await world.refusal(MODEL, **of("RESTRICTED"))
    await vault.close()
    nobody = await world.until_refused(MODEL, "ALL_NODES_UNHEALTHY", **of("CONFIDENTIAL"))

    assert public.target.node_id == "public"
    # A prompt of which nothing is said is internal.
    assert unsaid.target.node_id in ("plain", "vault")
    assert unsaid.rejected == {"PRIVACY": 1}
    assert confidential.target.node_id == "vault"
    assert not confidential.alternatives
    assert confidential.rejected == {"PRIVACY": 2}
    assert (restricted.code, restricted.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRIVACY_VIOLATION")
    assert restricted.metadata["rejected_PRIVACY"] == "3"
    # Two healthy nodes stand idle beside it, and stay so.
    assert nobody.metadata["rejected_PRIVACY"] == "2"
    assert nobody.metadata["rejected_UNHEALTHY"] == "1"


# Graceful degradation


async def test_graceful_degradation_degraded_ranks_lower_unhealthy_leaves_and_all_come_back(world: World) -> None:
    a, b = [await world.node(f"local/{name}", MODEL) for name in ("a", "b")]
    on_a, on_b = f"local/a/{MODEL}", f"local/b/{MODEL}"

    a.metrics, b.metrics = NEARLY_FULL, NEARLY_EMPTY
    await world.until_state("a", "degraded")
    await until(lambda: _is_first(world, on_b))
    ranked = await world.candidates(MODEL)
    while_degraded = {(await world.gateway.send(MODEL)).by for _ in range(10)}

    b.health = 503
    await world.until_rejected(on_b, "UNHEALTHY")
    only_one = await world.gateway.send(MODEL)

    await a.close()
    nobody = await world.until_refused(MODEL, "ALL_NODES_UNHEALTHY")

    b.health, a.metrics = 200, NEARLY_EMPTY
    await a.open()
    for name in ("a", "b"):
        await world.until_state(name, "healthy")
    await world.until_rejected(on_a, "")
    await world.until_rejected(on_b, "")
    again = await world.gateway.send(MODEL)

    assert [candidate.eligible for candidate in ranked.values()] == [True, True]
    scores = {name: candidate.target.scores.health for name, candidate in ranked.items()}
    assert scores[on_b] > scores[on_a] > 0
    assert while_degraded == {on_b}
    assert only_one.by == on_a
    assert (nobody.code, nobody.metadata["rejected_UNHEALTHY"]) == (grpc.StatusCode.UNAVAILABLE, "2")
    assert nobody.retry_after_seconds
    assert again.by in (on_a, on_b)
    # Without a restart.
    assert world.process.popen.poll() is None


async def _is_first(world: World, deployment: str) -> bool:
    return await first_of(world) == deployment


async def test_a_client_with_its_default_deadline_is_told_the_reason_and_not_that_time_is_over(world: World) -> None:
    engine = await world.node("local/a", MODEL)
    await engine.close()
    await world.until_refused(MODEL, "ALL_NODES_UNHEALTHY")

    async with Client(world.process.address) as client:
        world.client = client
        error = await world.until_refused(MODEL, "ALL_NODES_UNHEALTHY")

    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "ALL_NODES_UNHEALTHY")
    assert error.retry_after_seconds == 5.0
