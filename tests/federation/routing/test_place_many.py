"""A batch of requests is placed as they would be one after the other."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.routing.decisions import Record
from federation.routing.router import Router
from policies.errors import NoCandidate
from policies.policy import Budget, Policy, Shed, ShedStep, Spillover
from policies.types import Outcome, Phase, Result, RouteRequest
from tests.builders import a_node, a_request, a_router, a_table
from tests.fleets import random_fleet, random_policy, random_request, stir

SEEDS = st.integers(0, 2**48)


def a_pair(seed: int, **policy: object) -> tuple[Router, Router]:
    """Two routers over one drawn fleet and policy, stirred alike."""
    rng = Random(seed)
    fleet = random_fleet(rng, rng.choice([3, 15, 70, 90]))
    chosen = random_policy(rng, **policy)
    pair = fleet.router(chosen, seed=seed), fleet.router(chosen, seed=seed)
    for router in pair:
        stir(router, seed, fleet.health)
    return pair


def one_by_one(router: Router, requests: list[RouteRequest], now: float) -> list[Record | NoCandidate]:
    placed: list[Record | NoCandidate] = []
    for request in requests:
        try:
            placed.append(router.place(request, now))
        except NoCandidate as error:
            placed.append(error)
    return placed


def told(placed: list[Record | NoCandidate]) -> list[object]:
    return [
        (each.reason, str(each), each.details) if isinstance(each, NoCandidate) else each.entry() for each in placed
    ]


def kinds(seed: int, count: int) -> list[RouteRequest]:
    """Requests of a few kinds, each several times, mixed."""
    rng = Random(seed)
    few = [random_request(rng, max_alternatives=rng.choice([None, 0, 3, 16])) for _ in range(6)]
    plain = RouteRequest(model_id="small", policy_id="random", input_tokens=300, max_output_tokens=100)
    return [replace(rng.choice([*few, plain]), request_id=f"r{number}") for number in range(count)]


def same(seed: int, **policy: object) -> int:
    """Compares both ways over three batches with reports between them; answers how many were placed."""
    single, many = a_pair(seed, **policy)
    made = 0
    for batch in range(3):
        now = 0.03 * batch
        requests = kinds(seed + batch, 25)
        one, other = one_by_one(single, requests, now), many.place_many(requests, now)
        assert told(one) == told(other)
        records = [each for each in one if isinstance(each, Record)]
        made += len(records)
        for record in records[::3]:
            outcome = Outcome(record.decision_id, phase=Phase.FINISHED, result=Result.OK, latency_seconds=0.4)
            assert single.report(outcome, now) == many.report(outcome, now)
    assert np.array_equal(single.state.matrix, many.state.matrix)
    assert single.stats == many.stats
    assert [r.number for r in single.ring.newest(99)] == [r.number for r in many.ring.newest(99)]
    assert len(single.reservations) == len(many.reservations)
    for tick in range(12):
        single.sweep(1.0 + tick)
        many.sweep(1.0 + tick)
    assert np.array_equal(single.state.matrix, many.state.matrix)
    return made


@given(SEEDS)
@settings(max_examples=12, deadline=None)
def test_a_batch_is_placed_as_one_after_the_other(seed: int) -> None:
    same(seed)


@given(SEEDS, st.sampled_from(["predicted", "power_of_two", "best"]))
@settings(max_examples=12, deadline=None)
def test_a_batch_by_one_of_the_quick_pickers_is_placed_as_one_after_the_other(seed: int, picker: str) -> None:
    same(seed, picker=picker, rules=())


@pytest.mark.parametrize(
    "policy",
    [
        {"shed": Shed((ShedStep(0, 0.1),), 0.5)},
        {"budgets": (Budget(("*",), usd_per_day=0.001),)},
        {"spillover": Spillover()},
    ],
    ids=["shedding", "budgets", "tiers"],
)
def test_a_batch_is_rationed_as_one_after_the_other(policy: dict[str, object]) -> None:
    assert sum(same(seed, rules=(), **policy) for seed in range(12)) > 40


def test_who_cannot_be_placed_says_why_and_the_others_are_placed() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b")))

    placed = router.place_many([a_request(), a_request("nobody-has-it"), a_request(only_regions=("us",))], 0.0)

    assert isinstance(placed[0], Record)
    assert [each.reason for each in placed[1:] if isinstance(each, NoCandidate)] == ["MODEL_UNKNOWN", "QOS_VIOLATION"]
    assert len(router.reservations) == 1


def test_a_batch_is_spread_since_each_sees_what_those_before_it_took() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number}") for number in range(10))))
    router.install_policies({"p": Policy("p", picker="best")})

    placed = router.place_many([a_request(policy_id="p")] * 30, 0.0)

    taken = [record.names()[0] for record in placed if isinstance(record, Record)]
    assert max(taken.count(name) for name in taken) <= 4
