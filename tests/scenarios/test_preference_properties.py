"""What a team may rely on when it turns one knob: more patience, a lower bound, a larger weight.

Over random fleets, and over random policies and presets; an example that fails is its seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.routing.router import Router
from policies.errors import NoCandidate
from policies.policy import Policy, Weights
from policies.presets import PRESETS
from policies.types import Candidate, Choice, RouteRequest
from tests.fleets import Fleet, random_fleet, random_policy, random_request, stir

SEEDS = st.integers(0, 2**48)
MANY = settings(max_examples=400, deadline=None)
AXES = [field.name for field in fields(Weights)]
NOISE = 1e-9


class Turned:
    """One drawn fleet and request, decided twice: before and after something about it was turned."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.fleet: Fleet = random_fleet(rng, rng.choice([2, 5, 12, 40]), calm=rng.random() < 0.5)
        preset = replace(rng.choice(list(PRESETS.values())), policy_id="random")
        drawn = preset if rng.random() < 0.5 else random_policy(rng, rules=())
        # The policy's whole order is looked at, and not a draw from it.
        self.policy = replace(drawn, picker="best")
        # Sessions stay where they are, whatever is turned.
        self.request = random_request(rng, session_id="", max_price_usd_per_million_tokens=None)

    def router(self, policy: Policy | None = None) -> Router:
        router = self.fleet.router(policy or self.policy, seed=self.seed)
        stir(router, self.seed, self.fleet.health)
        return router


def ranked(router: Router, request: RouteRequest) -> list[Candidate]:
    """The eligible candidates, best first; none where the model is unknown."""
    try:
        return [each for each in router.candidates(request, 0.0).candidates if each.eligible]
    except NoCandidate:
        return []


def chosen(router: Router, request: RouteRequest) -> Choice | None:
    try:
        return router.decide(request, 0.0, number=0).render().target
    except NoCandidate:
        return None


def cheaper_and_slower(new: Choice, old: Choice) -> bool:
    """By what was told; a price that nobody knows is neither cheap nor dear."""
    if new.estimated_cost_usd is None or old.estimated_cost_usd is None:
        return False
    first, before = new.estimated_time_to_first_token_seconds, old.estimated_time_to_first_token_seconds
    assert first is not None
    assert before is not None
    return new.estimated_cost_usd < old.estimated_cost_usd - 1e-12 and first > before + NOISE


@given(SEEDS)
@MANY
def test_raising_the_cost_tolerance_never_picks_something_cheaper_and_slower(seed: int) -> None:
    turned = Turned(seed)
    low, high = sorted(turned.rng.sample(range(101), 2))
    router = turned.router()
    careful, lavish = (replace(turned.request, cost_tolerance=float(tolerance)) for tolerance in (low, high))

    first, then = ranked(router, careful), ranked(router, lavish)
    targets = chosen(router, careful), chosen(router, lavish)

    if first and then:
        assert not cheaper_and_slower(then[0].choice, first[0].choice)
    if targets[0] is not None and targets[1] is not None:
        assert not cheaper_and_slower(targets[1], targets[0])


@given(SEEDS)
@MANY
def test_where_no_least_score_is_asked_for_patience_never_picks_anything_cheaper(seed: int) -> None:
    turned = Turned(seed)
    low, high = sorted(turned.rng.sample([0.0, 10.0, 50.0, 90.0, 100.0], 2))
    router = turned.router(replace(turned.policy, min_score=0.0))
    first, then = (ranked(router, replace(turned.request, cost_tolerance=tolerance)) for tolerance in (low, high))
    if not first or not then:
        return
    before, after = first[0].choice.estimated_cost_usd, then[0].choice.estimated_cost_usd

    # To the score, a price that nobody knows stands at the poor point.
    poor = turned.policy.cost.poor
    assert (poor if after is None else after) >= (poor if before is None else before) - NOISE


@given(SEEDS)
@MANY
def test_lowering_the_highest_price_never_adds_a_candidate(seed: int) -> None:
    turned = Turned(seed)
    low, high = sorted(turned.rng.uniform(0.0, 30.0) for _ in range(2))
    router = turned.router()

    strict, lax = (
        {each.choice.deployment for each in ranked(router, asked)}
        for asked in (replace(turned.request, max_price_usd_per_million_tokens=price) for price in (low, high))
    )

    assert strict <= lax
    stands = turned.policy.bounds.max_price_usd_per_million_tokens
    bounded = replace(
        turned.policy.bounds, max_price_usd_per_million_tokens=low if stands is None else min(low, stands)
    )
    by_policy = {
        each.choice.deployment for each in ranked(turned.router(replace(turned.policy, bounds=bounded)), turned.request)
    }
    assert by_policy <= {each.choice.deployment for each in ranked(router, turned.request)}


def points(candidate: Candidate, axis: str) -> float:
    return next(term.points for term in candidate.terms if term.name == axis)


def place(name: str, candidates: list[Candidate], among: set[str]) -> int:
    """How many of some candidates are before one."""
    order = [each.choice.deployment for each in candidates if each.choice.deployment in among]
    return order.index(name)


@given(SEEDS, st.sampled_from(AXES))
@MANY
def test_raising_a_weight_never_lowers_the_rank_of_who_leads_on_that_axis(seed: int, axis: str) -> None:
    turned = Turned(seed)
    weight: float = getattr(turned.policy.weights, axis)
    raised = weight * turned.rng.choice([1.1, 2.0, 10.0]) + turned.rng.choice([0.0, 0.5, 5.0])
    heavier: Mapping[str, float] = {axis: raised}
    router = turned.router()
    other = turned.router(replace(turned.policy, weights=replace(turned.policy.weights, **heavier)))

    before, after = ranked(router, turned.request), ranked(other, turned.request)

    # `min_score` is a bar for the whole mean: where nobody is good on an axis, its weight may put some under it.
    both = {each.choice.deployment for each in before} & {each.choice.deployment for each in after}
    left = [each for each in before if each.choice.deployment in both]
    if not left:
        return
    best = max(points(each, axis) for each in left)
    for leader in [each.choice.deployment for each in left if points(each, axis) == best]:
        equals = {each.choice.deployment for each in left if points(each, axis) == best} - {leader}
        assert place(leader, after, both - equals) <= place(leader, before, both - equals)


@pytest.mark.parametrize("axis", AXES)
def test_the_leader_of_an_axis_leads_where_only_that_axis_counts(axis: str) -> None:
    found = 0
    for seed in range(60):
        turned = Turned(seed)
        alone = replace(turned.policy, weights=replace(Weights(0.0, 0.0, 0.0, 0.0, 0.0), **{axis: 1.0}), min_score=0.0)
        request = replace(turned.request, cost_tolerance=50.0, prefer_gpu=False)
        candidates = ranked(turned.router(alone), request)
        if candidates:
            found += 1
            assert points(candidates[0], axis) == max(points(each, axis) for each in candidates)
    assert found > 20
