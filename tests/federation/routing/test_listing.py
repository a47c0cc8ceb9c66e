"""Candidates are told when they are read, and the same whichever way."""

from __future__ import annotations

from random import Random

import pytest

from policies.types import RouteRequest
from tests.fleets import random_fleet, random_policy, stir


@pytest.mark.parametrize("seed", range(5))
def test_pages_of_candidates_are_parts_of_the_whole(seed: int) -> None:
    rng = Random(seed)
    fleet = random_fleet(rng, 60)
    router = fleet.router(random_policy(rng), seed=seed)
    stir(router, seed)
    found = router.candidates(RouteRequest(model_id="small", policy_id="random"), 0.0).candidates

    whole = tuple(found)

    assert len(whole) == len(found) > 3
    assert found[0:3] + found[3 : len(found)] == whole
    assert (found[-1], found[len(found) :]) == (whole[-1], ())
    eligible = [candidate.eligible for candidate in whole]
    assert eligible == sorted(eligible, reverse=True)
    rejected = [candidate.choice.deployment for candidate in whole if not candidate.eligible]
    assert rejected == sorted(rejected)


def test_a_page_tells_what_was_when_the_list_was_made() -> None:
    rng = Random(1)
    fleet = random_fleet(rng, 10)
    router = fleet.router(random_policy(rng), seed=1)
    found = router.candidates(RouteRequest(model_id="small", policy_id="random"), 0.0).candidates
    before = [(each.total, each.terms) for each in found]

    stir(router, 1)

    assert [(each.total, each.terms) for each in found] == before
