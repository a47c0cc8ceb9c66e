"""Prices at an hour, by committed capacity, and by region pair."""

from __future__ import annotations

import pytest

from catalog.types import PriceBand
from federation.routing.prices import factor
from tests.builders import a_deployment, a_node, a_region, a_request, a_router, a_table

NIGHT = PriceBand(start_minute=22 * 60, end_minute=6 * 60, factor=0.5)
# 5 January 1970, a Monday, at midnight.
MONDAY = 4 * 86_400.0


@pytest.mark.parametrize(("hour", "expected"), [(23, 0.5), (5.99, 0.5), (6, 1.0), (12, 1.0), (22, 0.5)])
def test_a_band_over_midnight_holds_on_both_sides_of_it(hour: float, expected: float) -> None:
    assert factor([NIGHT], MONDAY + hour * 3600) == expected


def test_a_band_belongs_to_the_day_on_which_it_starts() -> None:
    monday_night = PriceBand(22 * 60, 6 * 60, 0.5, weekdays=(0,))

    assert factor([monday_night], MONDAY + 23 * 3600) == 0.5
    assert factor([monday_night], MONDAY + 29 * 3600) == 0.5
    assert factor([monday_night], MONDAY + 5 * 3600) == 1.0


def test_the_first_band_that_holds_counts() -> None:
    assert factor([PriceBand(0, 0, 2.0), NIGHT], MONDAY + 23 * 3600) == 2.0


def test_committed_capacity_costs_nothing_until_it_is_used_up() -> None:
    node = a_node("eu/a", [a_deployment(committed_concurrency=2)])
    router = a_router(a_table(node))

    costs = [router.route(a_request(), 1.0).target.estimated_cost_usd for _ in range(3)]

    assert costs[:2] == [0.0, 0.0]
    assert costs[2] == pytest.approx((500 * 1.0 + 100 * 2.0) / 1e6)


def test_the_price_of_a_region_pair_goes_before_the_region_s() -> None:
    us = a_region("us", egress_price_usd_per_gb=0.09, egress_prices_usd_per_gb={"eu": 0.02})
    router = a_router(a_table(a_node("us/a"), regions=[us, a_region("eu"), a_region("ap")]))

    near = router.route(a_request(origin_region="eu"), 1.0).target.estimated_cost_usd
    far = router.route(a_request(origin_region="ap"), 1.0).target.estimated_cost_usd

    assert near is not None
    assert far is not None
    assert far - near == pytest.approx(0.07 * 100 * 200 / 1e9)
