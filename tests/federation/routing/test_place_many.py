"""A batch of requests is placed as they would be one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.config import RoutingSettings
from federation.routing.decisions import Record
from federation.routing.ring import DecisionLog
from federation.routing.router import Router
from federation.routing.runs import Run
from policies.errors import NoCandidate
from policies.policy import Budget, Policy, Shed, ShedStep, Spillover
from policies.types import Outcome, Phase, Result, RouteRequest
from tests.builders import a_node, a_request, a_router, a_table
from tests.fleets import a_priced_fleet, plain_kinds, random_fleet, random_policy, random_request, stir

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


def one_by_one(router: Router, requests: Sequence[RouteRequest], now: float) -> list[Record | NoCandidate]:
    placed: list[Record | NoCandidate] = []
    for request in requests:
        try:
            placed.append(router.place(request, now))
        except NoCandidate as error:
            placed.append(error)
    return placed


def told(placed: Sequence[Record | NoCandidate]) -> list[object]:
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


def in_runs(seed: int, size: int, *, stirred: bool) -> tuple[int, int, int]:
    """Compares runs with one after the other; answers how many a run decided, of them anew, and how many it could not.

    The last batch is compared whole, the others by what they leave behind.
    """
    fleet = a_priced_fleet(seed, size)
    policy = Policy("random", picker="power_of_two", min_score=(0.0, 0.1, 0.4)[seed % 3])
    single, many = (fleet.router(policy, seed=seed) for _ in range(2))
    counts = [0, 0, 0]
    for router in (single, many):
        if stirred:
            stir(router, seed, fleet.health)
    for batch in range(4):
        now, requests = 0.03 * batch, plain_kinds(seed, 80)
        one, placed = one_by_one(single, requests, now), many.place_many(requests, now)
        for place, part in enumerate(placed.parts):
            counts[2] += isinstance(part, Record)
            if isinstance(part, Run):
                counts[0] += 1
                counts[1] += place - part.begin in part.anew
        if batch == 3:
            assert told(one) == told(placed)
        records = [each for each in one if isinstance(each, Record)]
        for record in records[::5]:
            outcome = Outcome(record.decision_id, phase=Phase.FINISHED, result=Result.OK, latency_seconds=0.4)
            assert single.report(outcome, now) == many.report(outcome, now)
            assert many.decision(record.decision_id).entry() == record.entry()
        assert np.array_equal(single.state.matrix, many.state.matrix)
        assert single.stats == many.stats
        assert single.state.mean_tokens == many.state.mean_tokens
    kept = [r.number for r in single.ring.newest(200)]
    assert kept == [r.number for r in many.ring.newest(200)]
    assert len(single.reservations) == len(many.reservations)
    for tick in range(60):
        single.sweep(1.0 + tick)
        many.sweep(1.0 + tick)
    assert np.array_equal(single.state.matrix, many.state.matrix)
    return counts[0], counts[1], counts[2]


@pytest.mark.parametrize("stirred", [False, True], ids=["idle", "loaded"])
def test_pairs_that_are_compared_together_are_those_compared_one_after_the_other(stirred: bool) -> None:
    seen = np.array([in_runs(seed, (30, 200, 400, 1_200)[seed % 4], stirred=stirred) for seed in range(16)])

    together, anew, alone = seen.sum(axis=0).tolist()
    assert together - anew > 200
    assert anew > 500
    assert alone > 300


def test_a_logged_batch_logs_what_one_after_the_other_logs(tmp_path: Path) -> None:
    logs = [DecisionLog(tmp_path / name, 0.2, 1 << 26, Random(3).random) for name in ("single", "many")]
    nodes = [a_node(f"eu/n{number}", zone="abc"[number % 3]) for number in range(120)]
    routers = []
    for log in logs:
        router = Router(RoutingSettings(), replica="r1", seed=7, wall=lambda: 1.7e9, log=log)
        router.install_policies({"random": Policy("random", picker="power_of_two")})
        router.install(a_table(*nodes))
        routers.append(router)
    requests = [a_request(policy_id="random", input_tokens=300 + number % 50) for number in range(150)]

    for _ in range(2):
        one_by_one(routers[0], requests, 0.0)
        placed = routers[1].place_many(requests, 0.0)

    for log in logs:
        log.close()
    single, many = ((tmp_path / name).read_text().splitlines() for name in ("single", "many"))
    assert len(single) > 30
    assert single == many
    assert sum(isinstance(part, Run) for part in placed.parts) > 90


def test_decisions_of_a_batch_leave_the_ring_with_their_batch() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number}") for number in range(100))), decisions_kept=50)
    router.install_policies({"random": Policy("random", picker="power_of_two")})
    requests = [a_request(policy_id="random")] * 40

    placed = [record for _ in range(3) for record in router.place_many(requests, 0.0) if isinstance(record, Record)]

    assert len(router.ring) == 50
    assert router.ring.newest(99) == placed[-50:]
    assert all(router.ring.get(record.number) is record for record in placed[-50:])
    assert router.ring.get(0) is None


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
