"""The predicted time to a first token, term by term, and the prices and round trips it stands on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.types import ServingProfile
from policies.policy import Assumptions, Policy
from policies.pool import Load
from policies.prediction import Prediction, great_circle_km, predict
from tests.builders import WELL, a_deployment, a_load, a_node, a_region, a_request, a_table, an_ask

PROFILE = ServingProfile(
    prefill_seconds_per_token=0.001,
    min_time_to_first_token_seconds=0.05,
    decode_tokens_per_second=50.0,
    max_batch_size=32,
)
# 1,000 prompt tokens at 1 ms each; origin and node in one region, 1 ms apart.
REQUEST = a_request(input_tokens=1_000, max_output_tokens=100)


def predicted(load: dict[str, float] | None = None, **node: Any) -> Prediction:
    """What one node in the origin's region would do with REQUEST under a load."""
    deployment = a_deployment(**{"profile": PROFILE, **node})
    table = a_table(a_node("eu/a", [deployment]))
    return predict(
        an_ask(table, REQUEST), table.pool, a_load(table, **{k: {"eu/a": v} for k, v in (load or {}).items()})
    )


def test_the_time_to_a_first_token_is_the_sum_of_its_terms() -> None:
    load = {
        "pending_tokens": 500.0,
        "cached_tokens": 200.0,
        "in_flight": 8.0,
        "running": 16.0,
        "wait": 0.3,
        "suspicion": 2.0,
    }

    seen = predicted(load)

    pending, prefill, slow = 500 * 0.001, (1_000 - 200) * 0.001, 1.0 + 0.5 * 16 / 32
    at_node = 2.0 * ((pending + prefill) * slow + 0.3)
    assert seen.at_node[0] == pytest.approx(at_node, abs=1e-12)
    assert seen.round_trip[0] == pytest.approx(0.001)
    assert seen.time_to_first_token[0] == pytest.approx(0.001 + at_node, abs=1e-12)
    assert seen.throughput[0] == pytest.approx(50.0 / slow)
    assert seen.latency[0] == pytest.approx(0.001 + at_node + 100 * slow / 50.0)


@pytest.mark.parametrize(
    ("load", "seconds"),
    [
        pytest.param({}, 1.0, id="an idle node only prefills"),
        pytest.param({"pending_tokens": 700.0}, 1.7, id="what we sent there and has no first token comes first"),
        pytest.param({"cached_tokens": 400.0}, 0.6, id="cached tokens are not computed"),
        pytest.param({"cached_tokens": 999.0}, 0.05, id="but a first token takes its least time"),
        pytest.param({"in_flight": 16.0}, 1.25, id="half a batch beside it slows by half of the slow-down"),
        pytest.param({"running": 16.0}, 1.25, id="whoever says so, we or the engine"),
        pytest.param({"in_flight": 31.0}, 1.0 + 0.5 * 31 / 32, id="one place is left: no wait for a place"),
        pytest.param({"in_flight": 32.0}, 1.5 + 1 * 256 / 50 / 32, id="none is left: a wait for one to be over"),
        pytest.param({"in_flight": 40.0}, 1.5 + 9 * 256 / 50 / 32, id="behind eight others, a wait for nine"),
        pytest.param({"wait": 0.25}, 1.25, id="what others have waiting is added"),
        pytest.param({"suspicion": 3.0, "wait": 1.0}, 6.0, id="suspicion multiplies all that happens at the node"),
    ],
)
def test_each_term_counts_as_the_formula_says(load: dict[str, float], seconds: float) -> None:
    seen = predicted(load)

    assert seen.at_node[0] == pytest.approx(seconds, abs=1e-9)


def test_suspicion_does_not_multiply_the_road() -> None:
    table = a_table(a_node("us/a"), regions=[a_region("eu", round_trip_seconds={"us": 0.09})])
    ask = an_ask(table)

    calm, doubted = (predict(ask, table.pool, a_load(table, suspicion={"us/a": s})) for s in (1.0, 5.0))

    assert calm.round_trip[0] == doubted.round_trip[0] == pytest.approx(0.09)
    assert doubted.at_node[0] == pytest.approx(5.0 * calm.at_node[0])


def test_what_nobody_declared_or_measured_is_assumed_by_the_policy() -> None:
    assume = Assumptions(
        prefill_seconds_per_token=0.002,
        min_time_to_first_token_seconds=0.3,
        decode_tokens_per_second=10.0,
        max_batch_size=4,
    )
    table = a_table(a_node("eu/a", [a_deployment(profile=ServingProfile())]))
    long, short = (
        predict(
            an_ask(table, a_request(input_tokens=tokens, max_output_tokens=20), Policy(assume=assume)),
            table.pool,
            a_load(table, in_flight={"eu/a": 2.0}),
        )
        for tokens in (1_000, 10)
    )

    assert long.at_node[0] == pytest.approx(1_000 * 0.002 * 1.25)
    assert short.at_node[0] == pytest.approx(0.3 * 1.25)
    assert long.throughput[0] == pytest.approx(10.0 / 1.25)


def test_a_request_that_says_nothing_of_its_prompt_is_taken_to_be_the_policys_usual_one() -> None:
    table = a_table(a_node("eu/a", [a_deployment(profile=PROFILE)]))

    ask = an_ask(table, a_request(input_tokens=None, max_output_tokens=None))

    assert (ask.input_tokens, ask.output_tokens) == (512, 256)
    assert predict(ask, table.pool, Load.idle(1)).at_node[0] == pytest.approx(0.512)


def test_a_declared_profile_is_believed_before_a_learned_one_which_fills_its_gaps() -> None:
    half = ServingProfile(prefill_seconds_per_token=0.001)
    learned = replace(
        WELL, prefill_seconds_per_token=0.5, min_time_to_first_token_seconds=0.2, decode_tokens_per_second=25.0
    )

    pool = a_table(a_node("eu/a", [a_deployment(profile=half)]), health={"eu/a": learned}).pool

    assert (pool.prefill[0], pool.least[0], pool.decode[0]) == (0.001, 0.2, 25.0)


# Round trips


def round_trip(*, origin: str = "eu", **regions: dict[str, Any]) -> float:
    """Seconds from the origin to a node in `us`."""
    table = a_table(a_node("us/a"), regions=[a_region(name, **fields) for name, fields in regions.items()])
    ask = an_ask(table, a_request(origin_region=origin))
    return float(ask.round_trip[table.pool.place[0]])


FRANKFURT = {"latitude": 50.1, "longitude": 8.7}
VIRGINIA = {"latitude": 38.9, "longitude": -77.4}


def test_within_a_region_a_round_trip_is_a_millisecond() -> None:
    assert round_trip(origin="us", us={}) == pytest.approx(0.001)


@pytest.mark.parametrize("measured_by", ["eu", "us"])
def test_a_round_trip_that_either_side_measured_is_believed(measured_by: str) -> None:
    other = {"eu": "us", "us": "eu"}[measured_by]
    fields: dict[str, dict[str, Any]] = {"eu": FRANKFURT, "us": VIRGINIA}
    fields[measured_by] = {**fields[measured_by], "round_trip_seconds": {other: 0.088}}

    assert round_trip(**fields) == pytest.approx(0.088)


def test_an_origin_that_is_no_region_of_ours_is_believed_where_the_far_side_measured_it() -> None:
    assert round_trip(origin="branch-office", us={"round_trip_seconds": {"branch-office": 0.031}}) == pytest.approx(
        0.031
    )


def test_a_round_trip_that_nobody_measured_is_estimated_from_the_distance() -> None:
    seconds = round_trip(eu=FRANKFURT, us=VIRGINIA)

    # 6,550 km of great circle; real ones between the two are about 90 to 105 ms.
    assert 0.085 < seconds < 0.115


def test_the_distance_is_that_of_a_sphere() -> None:
    quarter = great_circle_km(0.0, 0.0, 0.0, 90.0)

    assert quarter == pytest.approx(6371.0 * np.pi / 2)
    assert great_circle_km(10.0, 20.0, 10.0, 20.0) == 0.0
    assert great_circle_km(90.0, 0.0, -90.0, 77.0) == pytest.approx(6371.0 * np.pi)


@pytest.mark.parametrize(
    "fields", [{}, {"eu": FRANKFURT}, {"us": VIRGINIA}, {"eu": {"latitude": 50.1}, "us": VIRGINIA}]
)
def test_without_coordinates_on_both_sides_a_long_round_trip_is_assumed(fields: dict[str, Any]) -> None:
    assert round_trip(**{"eu": {}, "us": {}, **fields}) == pytest.approx(0.25)


# Prices


def cost(load: dict[str, float] | None = None, **changes: Any) -> float:
    return float(predicted(load, **changes).cost[0])


def test_a_price_is_input_output_and_cached_tokens() -> None:
    priced = {
        "price_usd_per_million_input_tokens": 3.0,
        "price_usd_per_million_output_tokens": 15.0,
        "price_usd_per_million_cached_tokens": 0.3,
    }

    assert cost(**priced) == pytest.approx((1_000 * 3 + 100 * 15) / 1e6)
    assert cost({"cached_tokens": 600.0}, **priced) == pytest.approx((400 * 3 + 600 * 0.3 + 100 * 15) / 1e6)


def test_without_a_price_for_cached_tokens_they_cost_as_much_as_others() -> None:
    assert cost({"cached_tokens": 600.0}) == pytest.approx((1_000 * 1 + 100 * 2) / 1e6)


def test_a_free_deployment_costs_nothing_and_an_unpriced_one_is_unknown() -> None:
    free = {"price_usd_per_million_input_tokens": 0.0, "price_usd_per_million_output_tokens": 0.0}

    assert cost(**free) == 0.0
    assert np.isnan(cost(price_usd_per_million_input_tokens=None, price_usd_per_million_output_tokens=None))


@pytest.mark.parametrize("missing", ["input", "output"])
def test_half_a_price_is_not_taken_for_a_low_one(missing: str) -> None:
    assert np.isnan(cost(**{f"price_usd_per_million_{missing}_tokens": None}))


def test_half_a_price_is_enough_for_a_request_that_has_none_of_the_other_half() -> None:
    embedder = a_deployment(profile=PROFILE, price_usd_per_million_output_tokens=None)
    table = a_table(a_node("eu/a", [embedder]))

    seen = predict(an_ask(table, a_request(input_tokens=1_000, max_output_tokens=0)), table.pool, Load.idle(1))

    assert seen.cost[0] == pytest.approx(1_000 * 1 / 1e6)


def test_an_unpriced_deployment_takes_its_share_of_its_nodes_hour() -> None:
    bare = a_deployment(
        profile=PROFILE, price_usd_per_million_input_tokens=None, price_usd_per_million_output_tokens=None
    )
    table = a_table(a_node("eu/a", [bare], price_usd_per_hour=7.2))

    seen = predict(an_ask(table, REQUEST), table.pool, Load.idle(1))

    # 0.002 USD a second: a second of prefill, and 100 tokens at 50 a second in one of 16 places of a half full batch.
    assert seen.cost[0] == pytest.approx(0.002 * 1_000 * 0.001 + 0.002 * 100 / 50 / 16)


def test_a_nodes_hour_says_nothing_where_its_speed_is_unknown() -> None:
    bare = a_deployment(
        profile=ServingProfile(), price_usd_per_million_input_tokens=None, price_usd_per_million_output_tokens=None
    )
    table = a_table(a_node("eu/a", [bare], price_usd_per_hour=7.2))

    assert np.isnan(predict(an_ask(table, REQUEST), table.pool, Load.idle(1)).cost[0])


@pytest.mark.parametrize(
    ("price", "paid"), [(0.02, 0.02), (None, 0.09), (0.0, 0.0)], ids=["its price", "unknown: assumed", "free"]
)
def test_an_answer_pays_for_leaving_its_region(price: float | None, paid: float) -> None:
    table = a_table(a_node("us/a"), a_node("eu/b"), regions=[a_region("us", egress_price_usd_per_gb=price)])

    seen = predict(an_ask(table, REQUEST), table.pool, Load.idle(2))

    eu, us = (seen.cost - seen.token_cost).tolist()
    assert eu == 0.0
    assert us == pytest.approx(paid * 100 * 200 / 1e9)
