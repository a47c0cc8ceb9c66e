"""Admission: who is shed, in which order, and what a fair share is."""

from __future__ import annotations

from itertools import pairwise, product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.admission import (
    SLACK,
    Exhausted,
    Standing,
    budgets_of,
    exhausted,
    fair_level,
    kept_of,
    over,
    shed_chance,
    weight_of,
)
from policies.policy import Budget, Policy, Share, Shed, ShedStep, WhenExhausted

SHED = Shed()
PRIORITIES = st.integers(-1_000, 1_000)
USED = st.floats(0.0, 4.0)
SHARES = st.one_of(st.none(), st.floats(0.0, 3.0))


@pytest.mark.parametrize(
    ("priority", "used", "share", "expected"),
    [
        # All but the last step: in a room that is smaller by a twentieth.
        (-5, 0.95 * 0.69, None, 0.0),
        (-5, 0.95 * 0.775, None, 0.5),
        (-1, 0.95 * 0.85, None, 1.0),
        (0, 0.95 * 0.85, None, 0.0),
        (0, 0.95 * 0.90, None, 0.5),
        (0, 0.95 * 0.95, None, 1.0),
        (1, 0.95, None, 0.0),
        (1_000, 0.975, None, 0.5),
        (1_000, 1.0, None, 1.0),
        # Nobody may serve it: another error says so.
        (-5, None, None, 0.0),
        # Above its share: all steps.
        (0, 0.95 * 0.90, 2.0, 0.5),
        (1_000, 0.95, 1.5, 1.0),
        # Up to it: the steps begin again where those of the others end.
        (0, 0.99, 0.98, 0.0),
        # Floods that are held at their shares leave some room above their step free.
        (0, 0.90, 1.0, 0.0),
        (0, (0.9025 + 1.0) / 2, 1.0, 0.49),
        (-1, 0.99, 0.2, 0.0),
        (-1, 1.0 + 0.075, 0.2, 0.5),
        (1_000, 1.3, 0.0, 1.0),
    ],
)
def test_chances_of_being_shed(priority: int, used: float | None, share: float | None, expected: float) -> None:
    assert shed_chance(SHED, Standing(priority, used, share, kept=0.05)) == pytest.approx(expected)


def test_whoever_is_above_the_last_step_is_never_shed() -> None:
    shed = Shed((ShedStep(0, 0.5),), 0.6)

    assert shed_chance(shed, Standing(1, 9.0)) == 0.0
    assert shed_chance(shed, Standing(0, 9.0)) == 1.0


@given(PRIORITIES, PRIORITIES, USED, SHARES)
def test_nobody_is_shed_before_all_of_a_lower_step_are(one: int, two: int, used: float, share: float | None) -> None:
    low, high = min(one, two), max(one, two)

    lower, higher = (shed_chance(SHED, Standing(p, used, share)) for p in (low, high))

    assert lower >= higher
    if share is None and higher > 0.0:
        assert lower == 1.0 or lower == higher


@given(PRIORITIES, USED, USED, SHARES, SHARES)
def test_fuller_pools_and_larger_shares_never_lower_the_chance(
    priority: int, one: float, two: float, less: float | None, more: float | None
) -> None:
    chances = [shed_chance(SHED, Standing(priority, used, less)) for used in sorted((one, two))]
    assert chances[0] <= chances[1] + 1e-12

    if less is not None and more is not None:
        by_share = [shed_chance(SHED, Standing(priority, one, share)) for share in sorted((less, more))]
        assert by_share[0] <= by_share[1] + 1e-12


@pytest.mark.parametrize(("places", "kept"), [(0, 0.25), (1, 0.25), (24, 0.25), (60, 0.1), (120, 0.05), (9_000, 0.05)])
def test_some_places_are_kept_for_tenants_up_to_their_share(places: float, kept: float) -> None:
    assert kept_of(places) == pytest.approx(kept)


@given(PRIORITIES, PRIORITIES, USED, st.floats(0.05, 0.25))
def test_who_is_within_its_share_loses_nothing_before_all_above_theirs_lose_all(
    within: int, above: int, used: float, kept: float
) -> None:
    if shed_chance(SHED, Standing(within, used, 1.0 - SLACK, kept)) > 0.0:
        assert shed_chance(SHED, Standing(above, used, 1.5, kept)) == 1.0


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.floats(0.0, 1e6), st.floats(0.0, 1.0)), min_size=1, max_size=9))
def test_the_level_gives_out_what_was_admitted_less_the_slack(drawn: list[tuple[float, float, float]]) -> None:
    accounts = [(weight, asked, asked * part) for weight, asked, part in drawn]
    admitted = sum(account[2] for account in accounts)

    level = fair_level(accounts)

    if admitted > 1e-6:
        given_out = sum(min(asked, weight * level) for weight, asked, _ in accounts)
        assert given_out == pytest.approx((1.0 - SLACK) * admitted, rel=1e-6)
        # So somebody stands above it, and is the first to be shed.
        assert max(used / (weight * level) for weight, _, used in accounts) > 1.0


def test_a_tenant_that_asks_for_little_leaves_the_rest_to_the_others_by_weight() -> None:
    level = fair_level([(1.0, 10.0, 10.0), (1.0, 900.0, 30.0), (3.0, 900.0, 60.0)])

    assert level == pytest.approx((98.0 - 10.0) / 4.0)


def test_a_lone_tenant_counts_as_above_its_share_so_that_priorities_work_as_ever() -> None:
    assert over(7.0 / fair_level([(1.0, 9.0, 7.0)])) == pytest.approx(1.0)
    assert fair_level([]) == inf
    assert fair_level([(1.0, 5.0, 0.0)]) == 0.0


def test_the_first_share_that_names_a_tenant_is_its_weight() -> None:
    shares = (Share(("acme-*",), 4.0), Share(("acme-test", "*"), 0.5))

    assert [weight_of(shares, name) for name in ("acme-1", "acme-test", "globex")] == [4.0, 4.0, 0.5]
    assert weight_of((), "acme") == weight_of(shares[:1], "globex") == 1.0


# Budgets


@pytest.mark.parametrize(
    ("today", "this_month", "expected"),
    [
        (9.99, 99.0, None),
        (10.0, 10.0, Exhausted("day", 10.0, 10.0, WhenExhausted.REFUSE)),
        (12.0, 150.0, Exhausted("month", 100.0, 150.0, WhenExhausted.REFUSE)),
        (1.0, 100.0, Exhausted("month", 100.0, 100.0, WhenExhausted.REFUSE)),
    ],
)
def test_a_budget_is_spent_when_its_limit_is_reached(
    today: float, this_month: float, expected: Exhausted | None
) -> None:
    budget = Budget(("acme",), usd_per_day=10.0, usd_per_month=100.0)

    assert exhausted([budget], today, this_month) == expected


@pytest.mark.parametrize("turned", [False, True])
def test_a_budget_that_refuses_goes_before_one_that_demotes(turned: bool) -> None:
    budgets = [Budget(("*",), usd_per_day=5.0, when_exhausted=WhenExhausted.DEMOTE), Budget(("*",), usd_per_day=8.0)]
    budgets = budgets[::-1] if turned else budgets

    found = [exhausted(budgets, spent, spent) for spent in (4.0, 5.0, 8.0)]

    assert [each and each.when_exhausted for each in found] == [None, WhenExhausted.DEMOTE, WhenExhausted.REFUSE]


def test_the_budgets_of_all_policies_that_name_a_tenant_hold() -> None:
    one, two = Budget(("a*",), usd_per_day=1.0), Budget(("*",), usd_per_month=2.0)
    policies = [Policy(budgets=(one,)), Policy(budgets=(two, one))]

    assert budgets_of(policies, "acme") == (one, two, one)
    assert budgets_of(policies, "") == (two,)


def test_the_default_steps_rise() -> None:
    for one, two in pairwise(SHED.steps):
        assert one.up_to_priority < two.up_to_priority
        assert one.from_utilization < two.from_utilization
    for priority, used in product((-1, 0, 1), (0.0, 0.5)):
        assert shed_chance(SHED, Standing(priority, used)) == 0.0
