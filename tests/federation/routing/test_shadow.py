"""Shadow policies decide beside the live one and change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from federation.routing.router import Router
from policies.document import compile_policy
from tests.builders import a_deployment, a_node, a_region, a_request, a_router, a_table

CHEAP = a_deployment(price_usd_per_million_input_tokens=0.1, price_usd_per_million_output_tokens=0.2)


def a_world(document: dict[str, Any]) -> Router:
    us = a_region("us", round_trip_seconds={"eu": 0.1})
    router = a_router(a_table(a_node("eu/home"), a_node("us/far", [CHEAP]), regions=[us, a_region("eu")]), policy="p")
    router.install_policies({"p": compile_policy("p", document)})
    return router


def test_a_shadow_tells_what_it_would_have_done_and_is_counted() -> None:
    router = a_world({"shadow_policy": "cost_first"})

    record = router.place(a_request(), 1.0)

    decision = record.render()
    assert decision.target.region_id == "eu"
    assert decision.stages[-1].name == "shadow"
    assert decision.stages[-1].detail.startswith("cost_first would have chosen us/far/llama-3-8b, first token +")
    stats = router.shadows.stats[("p", "cost_first")]
    assert (stats.decisions, stats.elsewhere, stats.refused) == (1, 1, 0)
    assert stats.first_token_seconds > 0.05
    assert stats.cost_usd < 0


def test_a_shadow_claims_nothing() -> None:
    live, alone = a_world({"shadow_policy": "cost_first"}), a_world({})

    for router in (live, alone):
        for _ in range(5):
            router.route(a_request(), 1.0)

    assert (live.state.matrix == alone.state.matrix).all()
    assert live.stats.decisions == alone.stats.decisions == 5
    assert len(live.reservations) == len(alone.reservations) == 5


def test_a_shadow_that_would_refuse_says_why() -> None:
    router = a_world({"shadow_policy": "strict"})
    router.install_policies(
        {**router.policies, "strict": compile_policy("strict", {"bounds": {"max_time_to_first_token_seconds": 0.001}})}
    )

    decision = router.route(a_request(), 1.0)

    assert decision.stages[-1].detail == "strict would have refused it: QOS_VIOLATION"


def test_only_the_sample_is_shadowed() -> None:
    router = a_world({"shadow_policy": "cost_first", "shadow_percent": 25.0})

    for _ in range(400):
        router.reservations.release(router.place(a_request(), 1.0).number)

    assert router.shadows.stats[("p", "cost_first")].decisions == pytest.approx(100, abs=30)


def test_a_rule_shadows_the_requests_that_it_matches() -> None:
    document = {"rules": [{"name": "long", "match": {"min_input_tokens": 1000}, "shadow_policy": "latency_first"}]}
    router = a_world(document)

    router.route(a_request(input_tokens=100), 1.0)
    decision = router.route(a_request(input_tokens=2000), 1.0)

    assert router.shadows.stats[("p", "latency_first")].decisions == 1
    assert decision.stages[-1].detail == "latency_first would have chosen the same"


def test_a_shadow_that_does_not_exist_is_counted_and_harmless() -> None:
    router = a_world({"shadow_policy": "nobody"})

    decision = router.route(a_request(), 1.0)

    assert decision.stages[-1].name == "alternatives"
    assert router.shadows.unknown == {"nobody": 1}
