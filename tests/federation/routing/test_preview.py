"""What another policy, other prices or the loss of a region would change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federation.routing.preview import Preview, TokenPrice, WhatIf, decide_again, preview
from federation.routing.router import Router
from policies.document import compile_policy
from policies.presets import PRESETS
from tests.builders import a_deployment, a_node, a_region, a_request, a_router, a_table

DEAR = a_deployment(price_usd_per_million_input_tokens=5.0, price_usd_per_million_output_tokens=10.0)
CHEAP = a_deployment(price_usd_per_million_input_tokens=0.1, price_usd_per_million_output_tokens=0.2)
US = a_region("us", round_trip_seconds={"eu": 0.1}, jurisdictions=("US",))


def a_world(**settings: Any) -> Router:
    """A dear node at home, and a cheap one 100 ms away under other law."""
    table = a_table(a_node("eu/dear", [DEAR]), a_node("us/cheap", [CHEAP]), regions=[US, a_region("eu")])
    return a_router(table, **settings)


def records(router: Router, count: int, **changes: Any) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        record = router.place(a_request(**changes), 1.0)
        found.append(json.loads(record.to_json()))
        router.reservations.release(record.number)
    return found


def test_nothing_changes_under_the_same_policy() -> None:
    logged = records(a_world(), 20)

    told = preview(logged, WhatIf(policy=PRESETS["balanced"]))

    assert (told.decisions, told.moved, told.refused, told.violations) == (20, 0, 0, 0)
    assert told.cost_after == pytest.approx(told.cost_before)
    assert told.first_after == pytest.approx(told.first_before)


def test_a_policy_that_goes_for_the_price_moves_requests_and_tells_what_it_saves() -> None:
    logged = records(a_world(), 10)

    told = preview(logged, WhatIf(policy=PRESETS["cost_first"]))

    assert told.moved == 10
    assert told.regions_after == {"us": 10}
    assert told.cost_after < told.cost_before / 10
    assert told.first_after > told.first_before
    assert {again.before.deployment.split("/")[0] for again in told.changes} == {"eu"}


def test_without_a_region_its_requests_go_elsewhere_or_nowhere() -> None:
    logged = records(a_world(), 3) + records(a_world(), 2, jurisdictions=("EU",))

    told = preview(logged, WhatIf(without_regions=frozenset({"eu"})))

    assert (told.moved, told.refused, told.violations) == (3, 2, 0)
    assert {again.reason for again in told.changes if again.after is None} == {"ALL_NODES_UNHEALTHY"}


def test_a_price_table_changes_what_requests_cost_and_where_they_go() -> None:
    logged = records(a_world(), 5)

    told = preview(logged, WhatIf(prices=(TokenPrice("eu/*", input=500.0, output=500.0),)))

    assert told.moved == 5


def test_a_rule_that_refuses_is_counted_as_refused() -> None:
    policy = compile_policy("p", {"rules": [{"name": "none", "match": {"models": ["llama*"]}, "refuse": "closed"}]})

    told = preview(records(a_world(), 2), WhatIf(policy=policy))

    assert told.refused == 2
    assert told.changes[0].reason == "REFUSED_BY_RULE"


def test_a_target_that_breaks_a_hard_rule_is_told_as_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the new target is its own: a broken filter does not blind it."""
    from policies import filters

    [record] = records(a_world(), 1, jurisdictions=("EU",))
    lax = tuple((code, rule) for code, rule in filters.STATIC if rule is not filters.jurisdiction)
    monkeypatch.setattr(filters, "STATIC", lax)

    again = decide_again(record, WhatIf(policy=PRESETS["cost_first"]))

    assert again.violations == ("us/cheap/llama-3-8b: jurisdiction",)


def test_a_preview_changes_nothing_that_routes() -> None:
    router = a_world()
    logged = records(router, 3)
    before = router.state.matrix.copy(), dict(router.state.sessions), router.stats.decisions

    preview(logged, WhatIf(policy=replace(PRESETS["cost_first"], picker="round_robin")))

    after = router.state.matrix.copy(), dict(router.state.sessions), router.stats.decisions
    assert np.array_equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_figures_of_no_decisions_are_nothing() -> None:
    assert Preview().figures()["cost"] == (0.0, 0.0)
