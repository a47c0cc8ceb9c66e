"""What routers tell each other of their pending tokens: it counts like ours, for a moment, and is never told on."""

from __future__ import annotations

import math

import pytest

from federation.routing.router import Router
from federation.routing.siblings import FORGET_SECONDS, MAX_AGE_SECONDS
from policies.types import Outcome, Phase, Result
from tests.builders import MODEL, a_node, a_request, a_router, a_table

NAMES = tuple(f"eu/n{i}/{MODEL}" for i in range(2))
BUSY, IDLE = NAMES


def a_pair(**settings: object) -> Router:
    return a_router(a_table(a_node("eu/n0"), a_node("eu/n1")), **settings)


def pending(router: Router, name: str) -> float:
    return router.state.pending[router.state.slots[name]]


def test_what_a_sibling_has_waiting_sends_requests_elsewhere() -> None:
    router = a_pair()

    router.siblings.hear("b", {BUSY: 50_000.0}, 0.1, now=1.0)

    for _ in range(5):
        assert router.place(a_request(input_tokens=100), 1.0).names()[0] == IDLE


def test_it_counts_in_the_prediction_and_not_among_our_own() -> None:
    router = a_pair()
    before = {each.choice.deployment: each.choice for each in router.candidates(a_request(), 1.0).candidates}

    router.siblings.hear("b", {BUSY: 8_000.0}, 0.0, now=1.0)

    after = {each.choice.deployment: each.choice for each in router.candidates(a_request(), 1.0).candidates}
    later = [
        after[n].estimated_time_to_first_token_seconds - before[n].estimated_time_to_first_token_seconds for n in NAMES
    ]
    assert later[0] > 0.1
    assert later[1] == 0.0
    assert router.load_of(BUSY) == (0, 0)
    assert router.siblings.tell() == {}


def test_a_sum_takes_the_place_of_its_senders_last_and_adds_to_others() -> None:
    router = a_pair()

    router.siblings.hear("b", {BUSY: 1_000.0, IDLE: 70.0}, 0.0, now=1.0)
    router.siblings.hear("c", {BUSY: 500.0}, 0.0, now=1.0)
    router.siblings.hear("b", {BUSY: 200.0}, 0.0, now=1.0)

    assert pending(router, BUSY) == pytest.approx(700.0)
    assert pending(router, IDLE) == 0.0


@pytest.mark.parametrize("age", [MAX_AGE_SECONDS + 0.01, 20.0, math.inf, math.nan])
def test_a_sum_that_is_old_when_it_comes_is_not_used(age: float) -> None:
    router = a_pair()
    router.siblings.hear("b", {BUSY: 300.0}, 0.0, now=1.0)

    assert not router.siblings.hear("b", {BUSY: 9_000.0}, age, now=1.0)

    assert pending(router, BUSY) == pytest.approx(300.0)


def test_a_silent_siblings_sums_fade_and_are_gone_soon() -> None:
    router = a_pair()
    router.siblings.hear("b", {BUSY: 1_000.0}, 0.0, now=1.0)

    seen = []
    for step in range(1, 15):
        router.sweep(1.0 + step / 10)
        seen.append(pending(router, BUSY))

    assert seen == sorted(seen, reverse=True)
    assert seen[4] == pytest.approx(1_000.0 * 0.5**0.5)
    assert pending(router, BUSY) == 0.0
    assert len(router.siblings) == 0
    assert FORGET_SECONDS < 1.4


def test_our_own_stay_while_theirs_come_and_go() -> None:
    router = a_pair()
    record = router.place(a_request(input_tokens=400), 1.0)
    ours = record.names()[0]

    router.siblings.hear("b", dict.fromkeys(NAMES, 3000.0), 0.0, now=1.0)

    assert router.siblings.tell() == {ours: pytest.approx(400.0)}
    assert pending(router, ours) == pytest.approx(3_400.0)
    done = Outcome(record.decision_id, 0, Phase.FINISHED, Result.OK, time_to_first_token_seconds=0.1)
    router.report(done, 1.1)
    assert router.siblings.tell() == {}
    router.siblings.hear("b", {}, 0.0, now=1.2)
    assert {pending(router, name) for name in NAMES} == {0.0}


def test_deployments_that_are_not_known_here_are_passed_over() -> None:
    router = a_pair()

    assert router.siblings.hear("b", {"mars/n9/m": 5.0, BUSY: -3.0, IDLE: math.nan}, 0.0, now=1.0)

    assert router.state.theirs[router.state.slots[BUSY]] == 0.0
    assert router.state.matrix.sum() == router.state.matrix[[4, 6]].sum()
