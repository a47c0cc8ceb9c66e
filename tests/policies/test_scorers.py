"""Scores: straight lines through a policy's fixed points, and beyond them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from catalog.types import ServingProfile
from policies.pipeline import clip, evaluate
from policies.policy import Line, Policy, Weights
from policies.pool import FloatArray, Load, Pool
from policies.prediction import Ask, Prediction, predict
from policies.registry import BUILT_IN
from policies.scorers import Cost, Gpu, Health, Latency, Locality, Throughput, cost_weight, points
from tests.builders import (
    WELL,
    a_deployment,
    a_load,
    a_node,
    a_region,
    a_request,
    a_table,
    an_ask,
    by_node,
    evaluated,
)

LATENCY = Line(good=0.0, poor=5.0)
THROUGHPUT = Line(good=100.0, poor=20.0)


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        (LATENCY, 0.0, 1.0),
        (LATENCY, 5.0, 0.0),
        (LATENCY, 2.5, 0.5),
        (LATENCY, 10.0, -1.0),
        (LATENCY, 50.0, -9.0),
        (THROUGHPUT, 100.0, 1.0),
        (THROUGHPUT, 20.0, 0.0),
        (THROUGHPUT, 60.0, 0.5),
        (THROUGHPUT, 180.0, 2.0),
        (THROUGHPUT, 0.0, -0.25),
    ],
)
def test_a_line_goes_through_its_two_points_and_on_beyond_both(line: Line, value: float, expected: float) -> None:
    assert points(line, np.array([value]))[0] == pytest.approx(expected)


def seen(**columns: float) -> Prediction:
    """A prediction for one candidate; what is not given is zero."""
    names = ("round_trip", "at_node", "time_to_first_token", "throughput", "latency", "cost", "token_cost")
    return Prediction(**{name: np.array([columns.get(name, 0.0)]) for name in names})


ONE = a_table(a_node("eu/a"))
POLICY = Policy(latency=LATENCY, throughput=THROUGHPUT, cost=Line(good=0.0, poor=0.1))


@pytest.mark.parametrize(
    ("scorer", "column", "values"),
    [
        (Latency(), "time_to_first_token", {0.0: 1.0, 5.0: 0.0, 2.5: 0.5, 7.5: -0.5}),
        (Throughput(), "throughput", {100.0: 1.0, 20.0: 0.0, 140.0: 1.5, 0.0: -0.25}),
        (Cost(), "cost", {0.0: 1.0, 0.1: 0.0, 0.05: 0.5, 0.3: -2.0}),
    ],
    ids=["latency", "throughput", "cost"],
)
def test_each_scorer_follows_its_line_in_its_unit(
    scorer: Callable[[Ask, Pool, Prediction], FloatArray], column: str, values: dict[float, float]
) -> None:
    ask = an_ask(ONE, policy=POLICY)

    found = {value: float(scorer(ask, ONE.pool, seen(**{column: value}))[0]) for value in values}

    assert found == pytest.approx(values)


def test_an_unknown_price_stands_at_the_poor_point() -> None:
    ask = an_ask(ONE, policy=POLICY)

    assert Cost()(ask, ONE.pool, seen(cost=float("nan")))[0] == 0.0


def test_health_is_what_the_table_says() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": replace(WELL, score=0.35)})

    assert Health()(an_ask(table), table.pool, seen()).tolist() == [1.0, 0.35]


def test_gpu_is_scored_only_for_requests_that_prefer_one() -> None:
    table = a_table(a_node("eu/cpu", accelerator="", accelerator_count=0), a_node("eu/gpu"))

    found = evaluated(table, a_request(prefer_gpu=True))

    assert Gpu()(an_ask(table), table.pool, seen()).tolist() == [0.0, 1.0]
    assert found.weights["gpu"] == 1.0
    assert "gpu" not in evaluated(table).weights


# Locality


def localities(policy: Policy | None = None, **request: Any) -> dict[str, float]:
    table = a_table(
        a_node("eu/same-zone", zone="a"),
        a_node("eu/same-region", zone="b"),
        a_node("eu/no-zone"),
        a_node("near/a", zone="a"),
        a_node("far/a"),
        a_node("beyond/a"),
        regions=[
            a_region("eu", jurisdictions=("DE", "EU"), round_trip_seconds={"near": 0.03, "far": 0.3, "beyond": 0.6}),
            a_region("near", jurisdictions=("FR", "EU")),
            a_region("far", jurisdictions=("US",)),
            a_region("beyond", jurisdictions=()),
        ],
    )
    ask = an_ask(table, a_request(**request), policy)
    return by_node(table, Locality()(ask, table.pool, predict(ask, table.pool, Load.idle(len(table.pool)))))


def test_locality_is_one_in_the_zone_just_less_in_the_region_and_falls_with_the_round_trip() -> None:
    found = localities(origin_zone="a")

    assert found == pytest.approx(
        {
            "eu/same-zone": 1.0,
            "eu/same-region": 0.95,
            "eu/no-zone": 0.95,
            "near/a": 0.95 * 0.9,
            "far/a": 0.0,
            "beyond/a": -0.95,
        }
    )


def test_a_zone_of_another_region_is_not_ours_by_its_name() -> None:
    found = localities(origin_zone="a", origin_region="near")

    assert found["near/a"] == 1.0
    assert found["eu/same-zone"] < 0.95


def test_an_origin_without_a_zone_is_in_none() -> None:
    assert localities()["eu/no-zone"] == localities()["eu/same-zone"] == pytest.approx(0.95)


def test_a_jurisdiction_of_the_origin_earns_the_policys_bonus_and_an_unknown_one_does_not() -> None:
    plain, bonus = localities(), localities(Policy(jurisdiction_bonus=0.2))

    gained = {name: bonus[name] - plain[name] for name in plain}
    assert gained == pytest.approx(
        {"eu/same-zone": 0.2, "eu/same-region": 0.2, "eu/no-zone": 0.2, "near/a": 0.2, "far/a": 0.0, "beyond/a": 0.0}
    )


def test_an_origin_that_we_do_not_know_shares_its_law_with_nobody() -> None:
    found = localities(Policy(jurisdiction_bonus=0.2), origin_region="elsewhere")

    assert found == pytest.approx(localities(origin_region="elsewhere"))


# The composite


def test_the_composite_is_the_weighted_mean() -> None:
    weights = Weights(latency=3.0, throughput=0.5, cost=2.0, locality=0.25, health=1.0)
    table = a_table(a_node("eu/a"), a_node("us/b"), health={"us/b": replace(WELL, score=0.5)})

    found = evaluated(table, policy=Policy(weights=weights, throughput=THROUGHPUT))

    for place in range(2):
        parts = {name: float(column[place]) for name, column in found.points.items()}
        mean = sum(getattr(weights, name) * part for name, part in parts.items()) / weights.total
        assert found.total[place] == pytest.approx(mean)


def test_what_orders_is_not_clipped_as_what_is_shown_is() -> None:
    table = a_table(a_node("eu/late"), a_node("eu/later"))
    load = a_load(table, wait={"eu/late": 20.0, "eu/later": 40.0})

    found = evaluated(table, policy=Policy(min_score=0.0), load=load)

    late, later = found.points["latency"].tolist()
    assert later < late < 0.0
    assert clip(late) == clip(later) == 0.0
    assert found.order.tolist() == [0, 1]


def test_a_weight_of_zero_leaves_a_score_out() -> None:
    table = a_table(a_node("eu/a"), a_node("us/b"), regions=[a_region("us", round_trip_seconds={"eu": 0.2})])
    only_health = Weights(latency=0.0, throughput=0.0, cost=0.0, locality=0.0, health=1.0)

    assert evaluated(table, policy=Policy(weights=only_health)).total.tolist() == [1.0, 1.0]


# Cost tolerance


@pytest.mark.parametrize(("tolerance", "factor"), [(0.0, 2.0), (25.0, 1.5), (50.0, 1.0), (75.0, 0.5), (100.0, 0.0)])
def test_the_weight_of_the_price_falls_in_a_straight_line_with_tolerance(tolerance: float, factor: float) -> None:
    assert cost_weight(3.0, tolerance) == pytest.approx(3.0 * factor)


def test_cost_tolerance_acts_continuously_and_in_one_direction() -> None:
    table = a_table(
        a_node("eu/cheap-slow", [a_deployment(profile=ServingProfile(0.002, 0.05, 50.0, 32))]),
        a_node(
            "eu/dear-fast",
            [a_deployment(price_usd_per_million_input_tokens=40.0, price_usd_per_million_output_tokens=80.0)],
        ),
    )
    steps = np.linspace(0.0, 100.0, 401)

    gaps = []
    for tolerance in steps.tolist():
        found = evaluated(table, a_request(input_tokens=2_000, cost_tolerance=tolerance))
        gaps.append((float(found.total[1] - found.total[0])) * sum(found.weights.values()))

    assert gaps[0] < 0.0 < gaps[-1], "the dear one loses where price counts and wins where it does not"
    moves = np.diff(gaps)
    assert (moves > 0).all()
    assert moves.max() < 3 * moves.min(), "no step is a cliff"


def test_where_nothing_that_is_weighed_matters_nobody_is_too_bad() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"))
    only_cost = Policy(weights=Weights(latency=0.0, throughput=0.0, cost=1.0, locality=0.0, health=0.0))

    found = evaluated(table, a_request(cost_tolerance=100.0), only_cost)

    assert found.order.tolist() == [0, 1]


# What is not known


@pytest.mark.parametrize(
    "known_worst",
    [
        pytest.param(
            {"price_usd_per_million_input_tokens": 0.01, "price_usd_per_million_output_tokens": 0.01}, id="price"
        ),
        pytest.param({"profile": ServingProfile(0.0004, 0.09, 30.0, 32)}, id="speed"),
    ],
)
def test_who_keeps_silent_never_beats_an_ordinary_one_that_tells(known_worst: dict[str, Any]) -> None:
    silent = {name: (ServingProfile() if name == "profile" else None) for name in known_worst}
    table = a_table(
        a_node("eu/a-silent", [a_deployment(**silent)]), a_node("eu/b-tells", [a_deployment(**known_worst)])
    )

    found = evaluated(table)

    assert by_node(table, found.total)["eu/b-tells"] > by_node(table, found.total)["eu/a-silent"]


class Absent:
    """A scorer of another package that knows nothing of anybody."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return np.where(pool.row == 0, np.nan, 0.5)


def test_not_a_number_from_another_packages_scorer_never_looks_good() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"))
    registry = BUILT_IN.extend({"theirs": Absent()}, {}, {})
    policy = Policy(extra_scorers=MappingProxyType({"theirs": 1.0}))

    found = evaluate(an_ask(table, policy=policy), table.pool, Load.idle(2), registry)

    assert not np.isnan(found.total).any()
    assert found.order.tolist() == [1, 0]
    assert found.points["theirs"].tolist() == [0.0, 0.5]
