"""Rules: what matches, which one wins, and what its actions change."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from policies.policy import Match, Narrow, Policy, Rule, Split, Weights
from policies.rules import Effect, apply, first_match, matches
from policies.types import RouteRequest
from tests.builders import a_request

# A Wednesday, 14:30 UTC.
WEDNESDAY = datetime(2024, 5, 15, 14, 30, tzinfo=UTC).timestamp()


def holds(match: Match, *, at: float = WEDNESDAY, utilization: float | None = None, **request: Any) -> bool:
    return matches(match, a_request(**request), at, utilization)


@pytest.mark.parametrize(
    ("match", "request_", "expected"),
    [
        (Match(), {}, True),
        (Match(models=("llama-3-8b",)), {}, True),
        (Match(models=("llama-*",)), {}, True),
        (Match(models=("mistral-*", "*-8b")), {}, True),
        (Match(models=("LLAMA-*",)), {}, False),
        (Match(models=("mistral-*",)), {}, False),
        (Match(capabilities=("embed", "rerank")), {"capability": "rerank"}, True),
        (Match(capabilities=("embed",)), {"capability": "generate"}, False),
        (Match(capabilities=("embed",)), {}, False),
        (Match(tenants=("acme-*",)), {"tenant_id": "acme-eu"}, True),
        (Match(tenants=("acme-*",)), {"tenant_id": "globex"}, False),
        (Match(tenants=("acme-*",)), {}, False),
        (Match(origins=("eu-*",)), {"origin_region": "eu-west-1"}, True),
        (Match(origins=("eu-*",)), {"origin_region": "us-east-1"}, False),
        (Match(labels={"team": "search"}), {"labels": {"team": "search", "env": "prod"}}, True),
        (Match(labels={"team": "search", "env": "prod"}), {"labels": {"team": "search"}}, False),
        (Match(min_input_tokens=500), {"input_tokens": 500}, True),
        (Match(min_input_tokens=501), {"input_tokens": 500}, False),
        (Match(max_input_tokens=500), {"input_tokens": 500}, True),
        (Match(max_input_tokens=499), {"input_tokens": 500}, False),
        (Match(min_input_tokens=0), {"input_tokens": None}, False),
        (Match(max_input_tokens=10_000), {"input_tokens": None}, False),
        (Match(min_priority=1), {"priority": 1}, True),
        (Match(max_priority=-1), {"priority": 0}, False),
        (Match(models=("llama-*",), tenants=("acme",)), {"tenant_id": "acme"}, True),
        (Match(models=("llama-*",), tenants=("acme",)), {"tenant_id": "globex"}, False),
    ],
)
def test_all_that_a_match_sets_must_hold(match: Match, request_: dict[str, Any], expected: bool) -> None:
    assert holds(match, **request_) is expected


@pytest.mark.parametrize(
    ("utilization", "expected"), [(0.79, False), (0.8, True), (0.9, True), (0.91, False), (None, False)]
)
def test_measured_load_is_matched_only_where_it_is_known(utilization: float | None, expected: bool) -> None:
    assert holds(Match(min_utilization=0.8, max_utilization=0.9), utilization=utilization) is expected


@pytest.mark.parametrize(
    ("window", "clock", "expected"),
    [
        ((540, 1_020), "08:59", False),
        ((540, 1_020), "09:00", True),
        ((540, 1_020), "16:59", True),
        ((540, 1_020), "17:00", False),
        ((1_320, 360), "21:59", False),
        ((1_320, 360), "22:00", True),
        ((1_320, 360), "00:00", True),
        ((1_320, 360), "05:59", True),
        ((1_320, 360), "06:00", False),
        ((0, 1_440), "23:59", True),
    ],
)
def test_a_window_of_the_day_includes_its_start_and_may_wrap_over_midnight(
    window: tuple[int, int], clock: str, expected: bool
) -> None:
    hour, minute = map(int, clock.split(":"))
    at = datetime(2024, 5, 15, hour, minute, 30, tzinfo=UTC).timestamp()

    assert holds(Match(day_minutes=window), at=at) is expected


@pytest.mark.parametrize("day", range(7))
def test_weekdays_count_from_monday(day: int) -> None:
    at = datetime(2024, 5, 13 + day, 23, 59, tzinfo=UTC).timestamp()

    assert [number for number in range(7) if holds(Match(weekdays=(number,)), at=at)] == [day]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("request.input_tokens > 400 && request.tenant_id == ''", True),
        ("request.labels.team == 'search'", False),
        ("has(request.labels.team) || now.weekday == 2", True),
        ("fleet.utilization > 0.1", False),
        ("request.model_id.startsWith('llama')", True),
        ("request.input_tokens", False),
    ],
)
def test_an_expression_that_cannot_be_computed_for_a_request_does_not_hold(expression: str, expected: bool) -> None:
    assert holds(Match(expression=expression)) is expected


def test_the_first_match_wins() -> None:
    rules = (
        Rule("never", Match(models=("none",))),
        Rule("first", Match(models=("llama-*",))),
        Rule("second", Match()),
    )

    found = first_match(rules, a_request(), WEDNESDAY, None)

    assert found is not None
    assert found.name == "first"
    assert first_match(rules[:1], a_request(), WEDNESDAY, None) is None


def applied(*rules: Rule, request: RouteRequest | None = None, seed: int = 0, policy: Policy | None = None) -> Effect:
    return apply(
        replace(policy or Policy(), rules=rules),
        request or a_request(),
        unix_time=WEDNESDAY,
        utilization=None,
        seed=seed,
    )


def test_without_a_match_policy_and_request_stay_as_they_are() -> None:
    request = a_request()

    effect = applied(Rule("none", Match(models=("none",)), refuse="no"), request=request)

    assert effect.request is request
    assert (effect.rule, effect.narrow, effect.part, effect.refusal) == ("", (), -1, "")
    assert effect.policy.weights == Weights()


def test_a_rule_changes_the_weights_it_names_and_the_picker() -> None:
    effect = applied(Rule("fast", weights=MappingProxyType({"latency": 9.0}), picker="least_latency"))

    assert effect.policy.weights == replace(Weights(), latency=9.0)
    assert effect.policy.picker == "least_latency"
    assert effect.rule == "fast"


def test_a_rule_narrows_and_a_drawn_part_narrows_further() -> None:
    eu, gold = Narrow(regions=("eu",)), Narrow(node_labels=(("tier", "gold"),))

    effect = applied(Rule("both", narrow=eu, split=(Split(100.0, gold),)))

    assert effect.narrow == (eu, gold)
    assert effect.part == 0


def test_a_rule_refuses_in_its_own_words() -> None:
    assert applied(Rule("closed", refuse="maintenance until 16:00")).refusal == "maintenance until 16:00"


def test_a_rule_rewrites_the_model_of_a_request_that_allows_substitutes_to_that_one_alone() -> None:
    rule = Rule("newer", rewrite_model="llama-3.1-8b")

    allowed, forbidden = (applied(rule, request=a_request(allow_substitutes=a)).request for a in (True, False))

    assert (allowed.model_id, allowed.allow_substitutes) == ("llama-3.1-8b", False)
    assert forbidden.model_id == "llama-3-8b"


def test_a_request_for_a_capability_has_no_model_to_rewrite() -> None:
    request = RouteRequest(capability="generate", allow_substitutes=True)

    assert applied(Rule("newer", rewrite_model="llama-3.1-8b"), request=request).request == request


# Splits

CANARY = Rule("canary", split=(Split(20.0, Narrow(regions=("new",))), Split(30.0, Narrow(regions=("newer",)))))


def test_a_split_gives_each_part_its_share_and_the_rest_goes_on() -> None:
    parts = Counter(applied(CANARY, request=a_request(request_id=f"r{number}")).part for number in range(5_000))

    assert parts[0] == pytest.approx(1_000, rel=0.1)
    assert parts[1] == pytest.approx(1_500, rel=0.1)
    assert parts[-1] == pytest.approx(2_500, rel=0.1)


def test_requests_without_any_name_are_split_by_chance() -> None:
    parts = Counter(applied(CANARY, request=a_request(tenant_id="acme"), seed=seed).part for seed in range(5_000))

    assert parts[0] == pytest.approx(1_000, rel=0.1)
    assert parts[1] == pytest.approx(1_500, rel=0.1)


def test_a_session_stays_in_its_part() -> None:
    for session in range(50):
        parts = {
            applied(CANARY, request=a_request(session_id=f"s{session}", request_id=f"r{n}"), seed=n).part
            for n in range(20)
        }
        assert len(parts) == 1


def test_two_splits_draw_independently() -> None:
    other = replace(CANARY, name="another")

    both = Counter(
        (applied(CANARY, request=r).part == 0, applied(other, request=r).part == 0)
        for r in (a_request(request_id=f"r{n}") for n in range(5_000))
    )

    assert both[(True, True)] == pytest.approx(5_000 * 0.04, rel=0.25)


def test_a_part_may_rewrite_the_model() -> None:
    rule = Rule("canary", rewrite_model="all", split=(Split(100.0, model_id="new"),))

    assert applied(rule, request=a_request(allow_substitutes=True)).request.model_id == "new"
