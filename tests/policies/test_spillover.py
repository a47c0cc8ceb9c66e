"""Envoy's published tables, and how shares follow room, at what pace, and by which draw."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import compile_policy, json_schema, to_document
from policies.errors import InvalidPolicy
from policies.policy import Spillover
from policies.spillover import Level, braked, cause, drawn, holds, panicking, priority_load, shares, tier_of

SPILL = Spillover()
LEVELS = st.lists(
    st.builds(
        Level,
        healthy=st.floats(0, 1),
        places=st.floats(0, 1000),
        ours=st.floats(0, 1000),
        others=st.floats(0, 1000),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(
    ("healthy", "loads"),
    [
        ((100, 100), (100, 0)),
        ((72, 100), (100, 0)),
        ((71, 100), (99, 1)),
        ((50, 100), (70, 30)),
        ((25, 100), (35, 65)),
        ((0, 100), (0, 100)),
        ((100, 100, 100), (100, 0, 0)),
        ((72, 72, 100), (100, 0, 0)),
        ((71, 71, 100), (99, 1, 0)),
        ((50, 50, 100), (70, 30, 0)),
        ((25, 100, 100), (35, 65, 0)),
        ((25, 25, 100), (35, 35, 30)),
        ((25, 25, 20), (36, 36, 28)),
        ((20, 30), (40, 60)),
        ((0, 0), (100, 0)),
    ],
)
def test_loads_are_those_of_envoys_tables_of_priority_levels(healthy: tuple[int, ...], loads: tuple[int, ...]):
    assert priority_load([each / 100 for each in healthy], 1.4) == loads


@pytest.mark.parametrize(
    ("healthy", "loads", "panic"),
    [
        ((72, 72), (100, 0), (False, False)),
        ((71, 71), (99, 1), (False, False)),
        # The page prints 50/50 and 25/75 for these two, against its own formula and its other tables.
        ((50, 60), (70, 30), (False, False)),
        ((25, 100), (35, 65), (False, False)),
        ((25, 25), (50, 50), (True, True)),
        ((5, 65), (7, 93), (True, False)),
    ],
)
def test_panic_is_that_of_envoys_table(healthy: tuple[int, ...], loads: tuple[int, ...], panic: tuple[bool, ...]):
    found = [each / 100 for each in healthy]

    assert priority_load(found, 1.4) == loads
    assert panicking(found, 1.4, 0.5) == panic


def test_without_a_threshold_nobody_panics():
    assert panicking([0.0, 0.1], 1.4, 0.0) == (False, False)


def test_home_comes_first_then_globs_in_their_order_then_the_rest():
    order = ("home_first", "eu-*")

    assert [tier_of(order, region, "us-1") for region in ("us-1", "eu-2", "ap-1")] == [0, 1, 2]
    assert tier_of(("eu-*", "us-1"), "us-1", "us-1") == 1


def test_work_stays_at_home_while_home_has_room():
    assert shares([Level(1.0, 100, ours=89), Level(1.0, 100)], SPILL) == (1.0, 0.0)


def test_what_home_has_no_room_for_goes_on_and_what_others_have_there_counts():
    # 90 of 100 places may be used.
    assert shares([Level(1.0, 100, ours=120), Level(1.0, 100)], SPILL) == pytest.approx((0.75, 0.25))
    assert shares([Level(1.0, 100, ours=90, others=45), Level(1.0, 100)], SPILL) == pytest.approx((0.5, 0.5))


def test_the_room_at_the_destination_is_checked():
    levels = [Level(1.0, 100, ours=180), Level(1.0, 100, others=80), Level(1.0, 1000)]

    assert shares(levels, SPILL) == pytest.approx((90 / 180, 10 / 180, 80 / 180))


def test_health_gives_way_where_only_the_unwell_tier_has_room():
    levels = [Level(0.5, 100, ours=80), Level(1.0, 10)]

    home, away = shares(levels, SPILL)

    assert away == pytest.approx(9 / 80)
    assert home == pytest.approx(71 / 80)


def test_what_fits_nowhere_is_spread_by_room():
    assert shares([Level(1.0, 100, ours=400), Level(1.0, 300)], SPILL) == pytest.approx((0.25, 0.75))


def test_nobody_anywhere_is_a_matter_of_the_first_tier():
    assert shares([Level(0.0, 0, ours=3), Level(0.0, 0)], SPILL) == (1.0, 0.0)


@given(LEVELS)
def test_shares_add_up_and_drive_nobody_above_the_room_while_all_fits(levels: list[Level]):
    found = shares(levels, SPILL)
    demand = sum(level.ours for level in levels)
    most = holds(levels, SPILL)

    assert sum(found) == pytest.approx(1.0)
    assert min(found) >= -1e-9
    if demand > 0 and sum(most) >= 1.0:
        assert all(share <= cap + 1e-6 for share, cap in zip(found, most, strict=True))


def test_a_shift_that_nothing_forces_takes_its_time():
    target, most = (0.7, 0.3), (2.0, 2.0)

    after = [braked((1.0, 0.0), target, most, seconds, SPILL)[0] for seconds in (0.0, 6.0, 12.0, 60.0)]

    assert after == pytest.approx([1.0, 0.95, 0.9, 0.7])


def test_work_leaves_at_once_where_there_is_no_room_for_it():
    assert braked((1.0, 0.0), (0.0, 1.0), (0.0, 2.0), 1.0, SPILL) == (0.0, 1.0)
    assert braked((1.0, 0.0), (0.7, 0.3), (0.8, 2.0), 1.0, SPILL) == pytest.approx((0.8, 0.2))


def test_work_comes_back_over_the_time_of_failback():
    after = [braked((0.0, 1.0), (1.0, 0.0), (2.0, 2.0), seconds, SPILL)[0] for seconds in (12.0, 60.0, 120.0)]

    assert after == pytest.approx([0.1, 0.5, 1.0])


def test_small_changes_are_not_made_but_all_may_come_home():
    assert braked((0.72, 0.28), (0.70, 0.30), (2.0, 2.0), 60.0, SPILL) == pytest.approx((0.72, 0.28))
    assert braked((0.97, 0.03), (1.0, 0.0), (2.0, 2.0), 60.0, SPILL) == pytest.approx((1.0, 0.0))


@given(LEVELS, LEVELS, st.floats(0, 300))
def test_braked_shares_are_shares_and_never_above_the_room_of_the_tiers_before(
    before: list[Level], after: list[Level], seconds: float
):
    size = min(len(before), len(after))
    had, target = shares(before[:size], SPILL), shares(after[:size], SPILL)
    most = holds(after[:size], SPILL)

    found = braked(had, target, most, seconds, SPILL)

    assert sum(found) == pytest.approx(1.0)
    assert min(found) >= -1e-9
    if size > 1:
        assert found[0] <= max(most[0], target[0]) + 1e-6


def test_draws_have_the_shares_and_repeat():
    split = (0.7, 0.2, 0.1)

    found = [drawn(split, seed * 7919) for seed in range(20_000)]

    assert [found.count(tier) / len(found) for tier in range(3)] == pytest.approx(split, abs=0.02)
    assert found[:50] == [drawn(split, seed * 7919) for seed in range(50)]


def test_more_for_a_tier_moves_only_what_it_gains():
    tiers = [[drawn((share, 1.0 - share), seed) for seed in range(500)] for share in (0.5, 0.6, 0.9)]

    for less, more in pairwise(tiers):
        assert all(two <= one for one, two in zip(less, more, strict=True))


def test_causes_are_told():
    sick = [Level(0.5, 50), Level(1.0, 50)]
    full = [Level(1.0, 100, ours=120), Level(1.0, 50)]
    well = [Level(1.0, 100, ours=1), Level(1.0, 50)]

    assert cause(sick, 0, SPILL, 0.5, 0.7) == "50% of its capacity is healthy"
    assert cause(full, 0, SPILL, 0.5, 0.7) == "120 of its 100 places are taken"
    assert cause(well, 0, SPILL, 0.5, 0.7) == "its work comes back step by step, 70% by now"
    assert "cannot bear the rest" in cause([Level(0.1, 5), Level(0.1, 5)], 0, SPILL, 0.5, 0.5)


def test_a_document_names_one_order_or_a_list():
    one = compile_policy("p", {"spillover": {"region_order": "home_first"}})
    many = compile_policy("p", {"spillover": {"region_order": ["home_first", "eu-*"], "failback_seconds": 30}})

    assert one.spillover == Spillover()
    assert many.spillover == replace(SPILL, region_order=("home_first", "eu-*"), failback_seconds=30.0)
    assert compile_policy("p", to_document(many)) == many
    order = json_schema()["properties"]["spillover"]["properties"]["region_order"]
    assert {"type": "string"} in order["anyOf"]


@pytest.mark.parametrize(
    ("spillover", "path"),
    [
        ({"region_order": []}, "spillover.region_order"),
        ({"region_order": ["a", "a"]}, "spillover.region_order[1]"),
        ({"region_order": [""]}, "spillover.region_order[0]"),
        ({"overprovisioning": 0.9}, "spillover.overprovisioning"),
        ({"hysteresis": 2}, "spillover.hysteresis"),
        ({"max_shift_per_minute": 0}, "spillover.max_shift_per_minute"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused_with_its_path(spillover: dict[str, object], path: str):
    with pytest.raises(InvalidPolicy) as error:
        compile_policy("p", {"spillover": spillover})

    assert [where for where, _ in error.value.violations] == [path]
