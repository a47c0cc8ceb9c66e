"""Round trips that nobody declared or measured, bounded by the answers that came over them."""

from __future__ import annotations

import json

import pytest

from federation.cli.records import explanation
from federation.routing.replay import replay
from federation.routing.roads import WINDOW_SECONDS, Roads
from federation.routing.router import Router
from policies.registry import BUILT_IN
from policies.types import Candidate, Explain, Outcome, Phase, Result
from tests.builders import a_node, a_region, a_request, a_router, a_table

# The builders' nodes need 50 ms to a first token at the least; nothing is known of the way to the other region, for
# which the policy assumes 250 ms.
LEAST = 0.05
REQUEST = a_request(only_regions=("us",))


def answered(router: Router, first: float, now: float, *, phases: tuple[Phase, ...] = (Phase.FINISHED,)) -> None:
    """One request to the other region, with its time to the first token at the caller."""
    decision = router.route(REQUEST, now)
    for phase in phases:
        router.report(
            Outcome(decision.decision_id, phase=phase, result=Result.OK, time_to_first_token_seconds=first), now
        )


def told(router: Router, now: float) -> Candidate:
    """The other region's candidate, once a table was built."""
    router.install(router.table)
    return next(each for each in router.candidates(REQUEST, now).candidates if each.choice.region_id == "us")


def road(candidate: Candidate) -> float:
    """Its round trip in milliseconds."""
    value = next(term.value for term in candidate.terms if term.name == "locality")
    assert value is not None
    return value


def a_pair(**us: object) -> Router:
    table = a_table(a_node("eu/a"), a_node("us/b"), regions=[a_region("us", **us)])
    return a_router(table)


def test_answers_bound_a_road_that_was_only_assumed() -> None:
    router = a_pair()
    before = told(router, 0.0)
    for number, first in enumerate((0.9, 0.16, 0.13, 0.15, 0.13)):
        answered(router, first, 10.0 * number)

    after = told(router, 45.0)

    assert road(before) == 250.0
    assert "road" not in before.signal_ages
    assert road(after) == pytest.approx(100.0)
    assert after.signal_ages["road"] == pytest.approx(5.0)


def test_late_answers_never_make_a_road_longer() -> None:
    router = a_pair()
    for number in range(9):
        answered(router, 1.5, 10.0 * number)

    assert road(told(router, 90.0)) == 250.0


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"round_trip_seconds": {"eu": 0.2}}, 200.0), ({"round_trip_seconds": {"elsewhere": 0.2}}, 80.0)],
)
def test_a_road_that_was_declared_or_measured_stands(known: dict[str, object], expected: float) -> None:
    router = a_pair(**known)
    for number in range(5):
        answered(router, 0.08 + LEAST, 10.0 * number)

    assert road(told(router, 50.0)) == pytest.approx(expected)


def test_two_answers_that_were_measured_wrong_move_nothing() -> None:
    router = a_pair()
    for number, first in enumerate((0.0, 0.001, 0.13, 0.14, 0.2)):
        answered(router, first, 10.0 * number)

    assert road(told(router, 50.0)) == pytest.approx(80.0)


def test_an_answer_counts_once_though_its_end_repeats_it() -> None:
    router = a_pair()
    answered(router, 0.06, 0.0, phases=(Phase.FIRST_TOKEN, Phase.FINISHED))
    answered(router, 0.06, 1.0, phases=(Phase.FIRST_TOKEN, Phase.FINISHED))

    assert road(told(router, 2.0)) == 250.0


def test_failures_and_other_nodes_answers_say_nothing_of_the_road() -> None:
    router = a_pair()
    for number in range(6):
        decision = router.route(REQUEST, float(number))
        elsewhere = {"region_id": "eu", "node_id": "a", "model_id": decision.target.model_id} if number % 2 else {}
        result = Result.OK if number % 2 else Result.SERVER_ERROR
        router.report(
            Outcome(decision.decision_id, result=result, time_to_first_token_seconds=0.06, **elsewhere), float(number)
        )

    assert road(told(router, 10.0)) == 250.0


def test_a_road_that_became_longer_is_bounded_anew_after_two_windows() -> None:
    roads = Roads()
    for number in range(10):
        roads.heard("eu", "us", 0.08, float(number))
    for number in range(1, 70):
        roads.heard("eu", "us", 0.12, 10.0 * number)
        bound, heard = roads.bounds("eu", ("us",))["us"]
        assert heard == 10.0 * number
        assert bound == (0.08 if 10.0 * number < 2 * WINDOW_SECONDS else 0.12)


def test_a_decision_over_such_a_road_is_replayed_and_explained_as_it_was() -> None:
    router = a_pair()
    for number in range(4):
        answered(router, 0.13, 10.0 * number)
    router.install(router.table)

    record = router.place(a_request(explain=Explain.FULL), 50.0)
    line = json.loads(record.to_json())
    for number in range(4):
        answered(router, 0.07, 60.0 + number)
    router.install(router.table)

    assert replay(line).identical
    found = {each.target.deployment: each for each in explanation(line, BUILT_IN).decision.candidates}
    far = found["us/b/llama-3-8b"].signal_ages
    assert far["road"].ToSeconds() == 20
    assert "road" not in found["eu/a/llama-3-8b"].signal_ages
