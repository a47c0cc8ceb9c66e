"""Policies as documents: what is read, what is refused with which words, and that nothing is lost on the way."""

from __future__ import annotations

import json
import random
import tomllib
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from catalog.types import PrivacyLevel
from policies.document import compile_policy, json_schema, to_document
from policies.errors import InvalidPolicy
from policies.pickers import best
from policies.policy import (
    Bounds,
    Budget,
    Line,
    Match,
    Narrow,
    Policy,
    Rule,
    Share,
    Shed,
    ShedStep,
    Split,
    Weights,
    WhenExhausted,
)
from policies.presets import PRESETS
from policies.registry import BUILT_IN
from tests.fleets import random_policy

FULL = Policy(
    policy_id="full",
    revision=7,
    description="Everything is set.",
    weights=Weights(latency=2.0, cost=0.0),
    latency=Line(good=0.1, poor=9.0),
    bounds=Bounds(max_latency_seconds=9.0, min_privacy_level=PrivacyLevel.CONFIDENTIAL, jurisdictions=("EU",)),
    picker="best",
    max_candidates=3,
    rules=(
        Rule(
            "night",
            Match(
                models=("llama-*",), labels=MappingProxyType({"team": "a"}), day_minutes=(1_320, 360), weekdays=(5, 6)
            ),
            narrow=Narrow(regions=("eu-*",), node_labels=(("tier", "gold"), ("rack", "r=7"))),
            weights=MappingProxyType({"cost": 9.0}),
            picker="weighted_random",
        ),
        Rule("canary", split=(Split(5.0, Narrow(engines=("sglang",)), model_id="new"), Split(5.0))),
        Rule("closed", Match(expression="request.priority < 0"), refuse="no room for batch work"),
    ),
    budgets=(Budget(("acme", "lab-*"), 5.0, 100.5, WhenExhausted.DEMOTE), Budget(("*",), usd_per_month=0.0)),
    shares=(Share(("acme",), 3.0), Share(("*",))),
    shed=Shed((ShedStep(-1, 0.5), ShedStep(9, 0.75)), full_utilization=0.9),
    extra_scorers=MappingProxyType({}),
)


def violations(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidPolicy) as caught:
        compile_policy("p", document)
    return dict(caught.value.violations)


# Reading


def test_an_empty_document_is_the_default_policy() -> None:
    assert compile_policy("p", {}, 3) == Policy(policy_id="p", revision=3)


def test_a_document_says_only_what_differs() -> None:
    policy = compile_policy("p", {"weights": {"cost": 4}, "cost": {"good": 0, "poor": 0.01}, "picker": "best"})

    assert policy.weights == replace(Weights(), cost=4.0)
    assert policy.cost == Line(0.0, 0.01)
    assert policy.picker == "best"
    assert policy.latency == Policy().latency


def test_toml_yaml_and_json_say_the_same() -> None:
    toml = """
        picker = "best"
        [bounds]
        min_privacy_level = "restricted"
        [[rules]]
        name = "night"
        match = { models = ["llama-*"], day_minutes = [1320, 360] }
        narrow = { node_labels = { tier = "gold" } }
    """
    text = """
        picker: best
        bounds: {min_privacy_level: RESTRICTED}
        rules:
          - name: night
            match: {models: [llama-*], day_minutes: [1320, 360]}
            narrow: {node_labels: [[tier, gold]]}
    """
    as_json = (
        '{"picker":"best","bounds":{"min_privacy_level":"restricted"},"rules":[{"name":"night",'
        '"match":{"models":["llama-*"],"day_minutes":[1320,360]},"narrow":{"node_labels":{"tier":"gold"}}}]}'
    )

    found = [compile_policy("p", doc) for doc in (tomllib.loads(toml), yaml.safe_load(text), json.loads(as_json))]

    assert found[0] == found[1] == found[2]
    assert found[0].bounds.min_privacy_level is PrivacyLevel.RESTRICTED
    assert found[0].rules[0].narrow == Narrow(node_labels=(("tier", "gold"),))


def test_an_empty_table_of_shedding_is_the_default_one_and_shares_imply_it() -> None:
    assert compile_policy("p", {}).shedding is None
    assert compile_policy("p", {"shed": {}}).shedding == Shed()
    assert compile_policy("p", {"shares": [{"tenants": ["*"]}]}).shedding == Shed()


def test_null_is_silence_where_a_bound_may_be_absent_and_wrong_elsewhere() -> None:
    assert compile_policy("p", {"bounds": {"max_latency_seconds": None}}).bounds == Bounds()
    assert violations({"picker": None}) == {"picker": "must be a string, not nothing"}


# Round trips


@pytest.mark.parametrize("policy", [*PRESETS.values(), FULL, Policy()], ids=lambda p: p.policy_id)
def test_a_policy_comes_back_from_its_document_as_it_was(policy: Policy) -> None:
    document = json.loads(json.dumps(to_document(policy)))

    assert compile_policy(policy.policy_id, document, policy.revision) == policy


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_any_policy_comes_back_from_its_document_as_it_was(seed: int) -> None:
    policy = random_policy(random.Random(seed))

    assert compile_policy(policy.policy_id, json.loads(json.dumps(to_document(policy))), policy.revision) == policy


@pytest.mark.parametrize("policy", [*PRESETS.values(), FULL, Policy()], ids=lambda p: p.policy_id)
def test_written_documents_meet_their_published_schema(policy: Policy) -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)

    Draft202012Validator(schema).validate(json.loads(json.dumps(to_document(policy))))


@pytest.mark.parametrize(
    "document",
    [
        {"pickr": "best"},
        {"weights": {"cost": -1}},
        {"max_candidates": 2.5},
        {"rules": [{"match": {}}]},
        {"rules": [{"name": "r", "match": {"day_minutes": [1]}}]},
        {"rules": [{"name": "r", "match": {"day_minutes": [1, 2, 3]}}]},
        {"bounds": {"min_privacy_level": "secret"}},
        {"rules": [{"name": "r", "narrow": {"node_labels": [["only-a-key"]]}}]},
    ],
)
def test_schema_and_program_refuse_alike(document: Any) -> None:
    assert not Draft202012Validator(json_schema()).is_valid(document)
    assert violations(document)


# Refusals


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"pickr": "best"}, "pickr", "unknown key; did you mean 'picker'?"),
        (
            {"weights": {"speed": 1}},
            "weights.speed",
            "unknown key; known are latency, throughput, cost, locality, health",
        ),
        ({"policy_id": "mine"}, "policy_id", "unknown key"),
        ({"weights": [1]}, "weights", "must be a table, not list '[1]'"),
        ({"weights": {"cost": -1}}, "weights.cost", "must be within 0 and 1e+06, not -1.0"),
        ({"weights": {"cost": float("nan")}}, "weights.cost", "must be within 0 and 1e+06, not nan"),
        ({"weights": {"cost": float("inf")}}, "weights.cost", "must be within 0 and 1e+06, not inf"),
        ({"weights": {"cost": True}}, "weights.cost", "must be a number, not bool 'True'"),
        ({"weights": {"cost": "1"}}, "weights.cost", "must be a number, not str '1'"),
        ({"max_candidates": 2.5}, "max_candidates", "must be a whole number, not float '2.5'"),
        ({"max_candidates": 0}, "max_candidates", "must be within 1 and 1000, not 0"),
        ({"prefix_affinity": 1}, "prefix_affinity", "must be true or false, not int '1'"),
        ({"min_score": 1.5}, "min_score", "must be within 0 and 1, not 1.5"),
        ({"description": "x" * 5_000}, "description", "must have at most 4096 characters, not 5000"),
        ({"latency": {"good": 0.0}}, "latency.poor", "is needed"),
        ({"latency": {"good": 5.0, "poor": 0.0}}, "latency", "good must be below poor, not 5 and 0"),
        ({"cost": {"good": 1.0, "poor": 1.0}}, "cost", "good must be below poor, not 1 and 1"),
        ({"throughput": {"good": 0.0, "poor": 9.0}}, "throughput", "good must be above poor, not 0 and 9"),
        ({"picker": "fastest"}, "picker", "must be one of best, consistent_hash, hot_cold"),
        ({"bounds": {"min_privacy_level": "secret"}}, "bounds.min_privacy_level", "must be one of public, internal"),
        ({"bounds": {"jurisdictions": "EU"}}, "bounds.jurisdictions", "must be a list, not str 'EU'"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "rules[1].name", "must be set and be the only one of its name"),
        ({"rules": [{"match": {}}]}, "rules[0].name", "is needed"),
        ({"rules": [{"name": "a", "picker": "x"}]}, "rules[0].picker", "must be one of"),
        (
            {"rules": [{"name": "a", "weights": {"speed": 1.0}}]},
            "rules[0].weights.speed",
            "unknown key; known are cost",
        ),
        (
            {"rules": [{"name": "a", "split": [{"percent": 60}, {"percent": 50}]}]},
            "rules[0].split",
            "the percentages add up to more than 100",
        ),
        (
            {"rules": [{"name": "a", "match": {"weekdays": [7]}}]},
            "rules[0].match.weekdays[0]",
            "must be within 0 and 6",
        ),
        ({"rules": [{"name": "a", "match": {"day_minutes": [1]}}]}, "rules[0].match.day_minutes", "must have 2 items"),
        (
            {"rules": [{"name": "a", "match": {"expression": "1 +"}}]},
            "rules[0].match.expression",
            "is not an expression",
        ),
        ({"rules": [{"name": f"r{i}"} for i in range(257)]}, "rules", "must have at most 256 items, not 257"),
        ({"budgets": [{"usd_per_day": 1}]}, "budgets[0].tenants", "is needed"),
        ({"budgets": [{"tenants": [], "usd_per_day": 1}]}, "budgets[0].tenants", 'must name a tenant, or all by "*"'),
        ({"budgets": [{"tenants": ["a"]}]}, "budgets[0]", "needs usd_per_day or usd_per_month, or both"),
        (
            {"budgets": [{"tenants": ["a"], "usd_per_day": 1, "when_exhausted": "wait"}]},
            "budgets[0].when_exhausted",
            "must be one of refuse, demote, not 'wait'",
        ),
        ({"budgets": [{"tenants": ["a"], "usd_per_day": -1}]}, "budgets[0].usd_per_day", "must be within 0 and 1e+09"),
        ({"shares": [{"tenants": []}]}, "shares[0].tenants", 'must name a tenant, or all by "*"'),
        ({"shares": [{"tenants": ["a"], "weight": 0}]}, "shares[0].weight", "must be within 0.001 and 1e+06"),
        ({"shed": {"steps": []}}, "shed.steps", "must hold a step; leave `shed` out to shed nothing"),
        (
            {"shed": {"steps": [{"up_to_priority": 0, "from_utilization": 0.5}] * 2}},
            "shed.steps[1]",
            "must have a higher up_to_priority and a higher from_utilization than the step before it",
        ),
        (
            {"shed": {"full_utilization": 0.9}},
            "shed.full_utilization",
            "must be above the last step's from_utilization",
        ),
        (
            {"weights": dict.fromkeys(("latency", "throughput", "cost", "locality", "health"), 0.0)},
            "weights",
            "must not all be 0: nothing would be preferred",
        ),
    ],
)
def test_each_mistake_is_told_with_its_path_and_the_way_out(document: Any, path: str, message: str) -> None:
    found = violations(document)

    assert message in found[path]


def test_all_mistakes_are_told_at_once() -> None:
    found = violations({"picker": "x", "weights": {"cost": -1}, "typo": 1, "rules": [{"name": ""}]})

    assert set(found) == {"picker", "weights.cost", "typo", "rules[0].name"}


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "r", "weights": dict.fromkeys(("latency", "throughput", "cost", "locality", "health"), 0.0)},
    ],
)
def test_a_rule_may_not_take_all_weights_away_either(rule: dict[str, Any]) -> None:
    assert "rules[0].weights" in violations({"rules": [rule]})


@pytest.mark.parametrize("document", [None, [], "balanced", 7])
def test_what_is_no_table_is_no_policy(document: Any) -> None:
    assert "document" in violations(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(sorted(json_schema()["properties"])) | st.text(max_size=5), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_it_is_a_policy_or_an_account_of_what_is_wrong(document: Any) -> None:
    told: tuple[tuple[str, str], ...] = ()
    try:
        policy = compile_policy("p", document)
    except InvalidPolicy as error:
        told = error.violations
    else:
        assert compile_policy("p", to_document(policy)) == policy

    assert all(path and message for path, message in told)


# Other packages


def test_a_picker_of_another_package_may_be_named_where_it_is_registered() -> None:
    document = {"picker": "theirs"}

    assert compile_policy("p", document, registry=BUILT_IN.extend({}, {}, {"theirs": best})).picker == "theirs"
    assert "picker" in violations(document)


def test_the_registry_refuses_a_name_that_is_taken() -> None:
    with pytest.raises(ValueError, match="'best' is already registered; give the plug-in another name"):
        BUILT_IN.extend({}, {}, {"best": BUILT_IN.pickers["best"]})
