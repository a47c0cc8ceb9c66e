"""Policies that ship with the program do what their descriptions promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.types import ServingProfile
from policies.admission import Standing, shed_chance
from policies.pipeline import Evaluation, choose
from policies.policy import Policy, Weights
from policies.presets import PRESETS
from policies.registry import BUILT_IN
from policies.types import Code
from tests.builders import DEGRADED, a_deployment, a_load, a_node, a_region, a_request, a_table, by_node, evaluated

NAMES = {
    "balanced",
    "enterprise_default",
    "latency_first",
    "cost_first",
    "interactive",
    "sovereign",
    "throughput_first",
}


def winner(found: Evaluation) -> str:
    selected = choose(found, BUILT_IN, picker="best", seed=0, key="", session_slot=-1, wanted=0)
    assert selected is not None
    return found.pool.names[selected.target].rpartition("/")[0]


def priced(usd_per_million: float, profile: ServingProfile) -> object:
    return a_deployment(
        price_usd_per_million_input_tokens=usd_per_million,
        price_usd_per_million_output_tokens=usd_per_million,
        profile=profile,
    )


def test_the_presets_are_there_under_their_names() -> None:
    assert set(PRESETS) == NAMES
    assert all(policy.policy_id == name and policy.description for name, policy in PRESETS.items())


def test_balanced_is_the_default_policy() -> None:
    assert replace(PRESETS["balanced"], description="") == Policy()
    assert Policy().weights == Weights(latency=1.0, throughput=0.1, cost=1.0, locality=0.1, health=2.0)
    assert (Policy().latency.good, Policy().latency.poor) == (0.0, 5.0)
    assert (Policy().cost.good, Policy().cost.poor) == (0.0, 0.10)


def test_balanced_gives_a_twentieth_of_a_second_for_a_dollar_per_thousand_requests() -> None:
    policy = PRESETS["balanced"]
    dollar_per_thousand = 0.001

    points = policy.weights.cost * -policy.cost.slope * dollar_per_thousand

    assert points / policy.latency_points_per_second == pytest.approx(0.05)


def test_cost_first_gives_two_seconds_for_a_dollar_per_thousand_requests() -> None:
    policy = PRESETS["cost_first"]

    assert policy.weights.cost * -policy.cost.slope * 0.001 / policy.latency_points_per_second == pytest.approx(2.0)


def test_enterprise_default_counts_health_twice_and_the_rest_alike() -> None:
    assert PRESETS["enterprise_default"].weights == Weights(1.0, 1.0, 1.0, 1.0, 2.0)


FAST_DEAR = priced(20.0, ServingProfile(0.0001, 0.03, 80.0, 32))
SLOW_CHEAP = priced(0.1, ServingProfile(0.002, 0.1, 30.0, 32))
SLOW_START_FAST_STREAM = priced(20.0, ServingProfile(0.002, 0.1, 180.0, 32))


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("latency_first", "eu/fast-dear"),
        ("cost_first", "eu/slow-cheap"),
        ("throughput_first", "eu/fast-stream"),
    ],
)
def test_each_preset_prefers_what_it_is_named_after(preset: str, expected: str) -> None:
    table = a_table(
        a_node("eu/fast-dear", [FAST_DEAR]),
        a_node("eu/slow-cheap", [SLOW_CHEAP]),
        a_node("eu/fast-stream", [SLOW_START_FAST_STREAM]),
    )

    assert winner(evaluated(table, a_request(input_tokens=800, max_output_tokens=200), PRESETS[preset])) == expected


@pytest.mark.parametrize("preset", sorted(NAMES))
def test_under_every_preset_the_healthy_one_beats_its_degraded_twin(preset: str) -> None:
    table = a_table(a_node("eu/a-degraded"), a_node("eu/b-healthy"), health={"eu/a-degraded": DEGRADED})

    assert winner(evaluated(table, policy=PRESETS[preset])) == "eu/b-healthy"


@pytest.mark.parametrize("preset", sorted(NAMES))
def test_under_every_preset_one_that_is_overrun_loses_to_its_idle_twin(preset: str) -> None:
    table = a_table(a_node("eu/a-overrun"), a_node("eu/b-idle"))
    load = a_load(table, wait={"eu/a-overrun": 60.0}, pending_tokens={"eu/a-overrun": 500_000.0})

    assert winner(evaluated(table, policy=PRESETS[preset], load=load)) == "eu/b-idle"


def test_sovereign_never_leaves_the_origins_law() -> None:
    table = a_table(
        a_node("eu/a"),
        a_node("fr/b"),
        a_node("us/c"),
        a_node("unknown/d"),
        regions=[
            a_region("eu", jurisdictions=("DE", "EU")),
            a_region("fr", jurisdictions=("FR", "EU")),
            a_region("us", jurisdictions=("US",)),
            a_region("unknown", jurisdictions=()),
        ],
    )

    codes = by_node(table, evaluated(table, policy=PRESETS["sovereign"]).code)

    foreign = Code.JURISDICTION.value
    assert codes == {"eu/a": 0, "fr/b": 0, "us/c": foreign, "unknown/d": foreign}


def test_interactive_decides_as_balanced_does_and_never_sheds_high_priorities() -> None:
    policy = PRESETS["interactive"]

    assert policy.shed is not None
    assert replace(policy, policy_id="balanced", description="", shed=None) == Policy()
    chances = [
        [shed_chance(policy.shed, Standing(priority, used)) for used in (0.2, 0.6, 1.0)] for priority in (-1, 0, 1)
    ]
    assert chances == [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
