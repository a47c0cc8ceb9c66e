"""What is written straight from a record says what its rendered decision says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.types import Reach
from federation.api.convert.decisions import decision_to
from federation.api.convert.records import RecordWriter
from federation.api.convert.runs import RunWriter
from federation.routing.decisions import Record
from federation.routing.router import Router
from federation.routing.runs import Run
from federation.v1 import routing_pb2
from policies.document import compile_policy
from policies.errors import NoCandidate
from policies.policy import Bounds
from policies.types import Explain
from tests.builders import a_deployment, a_model, a_node, a_region, a_request, a_router, a_table
from tests.fleets import a_priced_fleet, plain_kinds, random_fleet, random_policy, random_request, stir


def assert_written_as_told(writer: RecordWriter, record: Record) -> routing_pb2.RouteDecision:
    written = routing_pb2.RouteDecision.FromString(writer.encoded(record))
    assert written == decision_to(record.render())
    return written


NO_BOUNDS: dict[str, Any] = {
    "model_id": "small",
    "capability": "",
    "max_latency_seconds": None,
    "max_time_to_first_token_seconds": None,
    "min_throughput_tokens_per_second": None,
    "max_price_usd_per_million_tokens": None,
    "prefer_gpu": False,
}


@given(st.integers(0, 2**48))
@settings(max_examples=300, deadline=None)
def test_every_decision_is_written_as_it_would_be_told(seed: int) -> None:
    rng = Random(seed)
    fleet = random_fleet(rng, rng.choice([1, 8, 25, 70, 120]))
    # Most of them without what needs the whole pipeline.
    walks = rng.random() < 0.8
    pickers = ["predicted", "best", "power_of_two"]
    policy = random_policy(rng, **{"bounds": Bounds(), "picker": rng.choice(pickers)} if walks else {})
    router = fleet.router(policy, seed=seed)
    stir(router, seed, fleet.health)
    for slot in router.state.slots.values():
        router.state.spread.observe(slot, rng.uniform(0.3, 3.0))
    writer = RecordWriter()

    for number in range(12):
        with suppress(NoCandidate):
            record = router.place(random_request(rng, **NO_BOUNDS if walks else {}), 0.01 * number)
            assert_written_as_told(writer, record)


def a_pair(document: dict[str, Any]) -> Router:
    reach = {"reach": Reach.GATEWAY, "ingress_endpoint": "https://us"}
    us = a_region("us", round_trip_seconds={"eu": 0.1}, **reach)
    table = a_table(
        a_node("eu/home", [a_deployment("a")]),
        a_node("us/far", [a_deployment("b")]),
        regions=[a_region("eu"), us],
        models=[a_model("a", equivalence_class="x"), a_model("b", equivalence_class="x", version="2")],
    )
    router = a_router(table, policy="p")
    router.install_policies({"p": compile_policy("p", document)})
    return router


@pytest.mark.parametrize(
    "document",
    [{}, {"shadow_policy": "cost_first"}, {"shed": {"full_wait_seconds": 5.0}}, {"picker": "best"}],
    ids=["plain", "shadow", "shed", "best"],
)
@pytest.mark.parametrize("explain", list(Explain))
@pytest.mark.parametrize("forwarded", [False, True])
def test_what_few_decisions_have_is_written_too(document: dict[str, Any], explain: Explain, forwarded: bool) -> None:
    router = a_pair(document)
    request = a_request("b", allow_substitutes=True, explain=explain, forwarded=forwarded)

    written = assert_written_as_told(RecordWriter(), router.place(request, 1.0))

    assert len(written.alternatives) == 1
    ways = [written.target.via_gateway, written.alternatives[0].via_gateway]
    assert sorted(ways) == [False, not forwarded]
    differences = [*written.target.substitution_differences, *written.alternatives[0].substitution_differences]
    assert differences[0] == "model_id: b -> a"


def test_a_wait_of_minutes_and_a_table_that_changed_are_written() -> None:
    router, writer = a_pair({"min_score": 0.0}), RecordWriter()
    assert_written_as_told(writer, router.place(a_request("a"), 1.0))
    for slot in router.state.slots.values():
        router.state.wait[slot] = 600.0
        router.state.touch(slot)

    written = assert_written_as_told(writer, router.place(a_request("a"), 1.0))
    router.install(a_table(a_node("eu/other", [a_deployment("a")])))
    after = assert_written_as_told(writer, router.place(a_request("a"), 400.0))

    assert written.target.estimated_time_to_first_token.seconds > 500
    assert after.target.node_id == "other"
    assert after.table_age.seconds == 400


@pytest.mark.parametrize("seed", range(12))
def test_decisions_of_a_run_are_written_as_they_would_be_told(seed: int) -> None:
    fleet = a_priced_fleet(seed, (30, 200, 400, 1_200)[seed % 4])
    router = fleet.router(compile_policy("random", {"picker": "power_of_two"}), seed=seed)
    stir(router, seed, fleet.health)
    for slot in router.state.slots.values():
        router.state.spread.observe(slot, 0.3 + slot % 7)
    requests = [replace(r, max_alternatives=0, explain=Explain.NONE) for r in plain_kinds(seed, 60)]
    records = RecordWriter()
    writer = RunWriter(records)

    router.place_many(requests, 0.0)
    placed = router.place_many(requests, 0.02)
    written = {run.begin + at: told for run, ats in placed.runs() for at, told in writer.encoded(run, ats).items()}
    for slot in router.state.slots.values():
        router.state.spread.observe(slot, 3.0)

    told_by_a_run = sum(isinstance(part, Run) for part in placed.parts)
    assert len(written) >= told_by_a_run // 2
    assert told_by_a_run or seed % 4 == 0
    for place, encoded in written.items():
        record = placed[place]
        assert isinstance(record, Record)
        result = routing_pb2.RouteBatchResponse.FromString(encoded).results[0]
        assert result.decision == decision_to(record.render())
        assert result.decision == routing_pb2.RouteDecision.FromString(records.encoded(record))
