"""Filters: whom a request refuses, with which code, and in which words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from catalog.types import DeploymentStatus, Engine, PrivacyLevel, RegionStatus, ServingProfile
from policies.filters import MESSAGES, STATIC, explain, narrowed
from policies.health import DeploymentHealth, Grade
from policies.pipeline import reason_for_none
from policies.policy import Bounds, Line, Narrow, Policy, Weights
from policies.types import Code, Rejection
from tests.builders import (
    HALF_OPEN,
    OPEN,
    SICK,
    WELL,
    a_deployment,
    a_load,
    a_model,
    a_node,
    a_region,
    a_request,
    a_table,
    by_node,
    evaluated,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A node `us/x` that the request refuses, beside `eu/ok` which it takes."""

    code: Code
    bound: str = ""
    actual: str = ""
    node: dict[str, Any] = field(default_factory=dict)
    deployment: dict[str, Any] = field(default_factory=dict)
    region: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    health: DeploymentHealth = WELL
    load: dict[str, float] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    # What `eu/ok` needs beside being ordinary, so that the request takes it.
    companion: dict[str, Any] = field(default_factory=dict)
    companion_deployment: dict[str, Any] = field(default_factory=dict)


SLOW = ServingProfile(0.004, 0.05, 10.0, 32)
SILENT = ServingProfile()
UNPRICED = {"price_usd_per_million_input_tokens": None, "price_usd_per_million_output_tokens": None}

CASES = {
    "not probed yet": Case(Code.NOT_READY, health=DeploymentHealth()),
    "the engine loads": Case(Code.NOT_READY, health=replace(WELL, grade=Grade.LOADING)),
    "the deployment loads": Case(Code.NOT_READY, deployment={"status": DeploymentStatus.LOADING}),
    "removed": Case(Code.NOT_READY, deployment={"status": DeploymentStatus.REMOVED}),
    "its region is offline": Case(Code.NOT_READY, region={"status": RegionStatus.OFFLINE}),
    "its lease ended": Case(Code.LEASE_EXPIRED, node={"expired": True}),
    "its node drains": Case(Code.DRAINING, node={"draining": True}),
    "it drains": Case(Code.DRAINING, deployment={"status": DeploymentStatus.DRAINING}),
    "its region drains": Case(Code.DRAINING, region={"status": RegionStatus.DRAINING}),
    "its probes fail": Case(Code.UNHEALTHY, health=SICK),
    "its circuit is open": Case(Code.CIRCUIT_OPEN, health=OPEN),
    "its one trial is under way": Case(Code.CIRCUIT_OPEN, health=HALF_OPEN, load={"trial": 0.0}),
    "it is ejected": Case(Code.EJECTED, health=replace(WELL, ejected_until=60.0)),
    "it is full": Case(
        Code.AT_CAPACITY, "< 4 requests", "4 requests", deployment={"max_concurrency": 4}, load={"in_flight": 4.0}
    ),
    "it is worth too little for what waits there": Case(
        Code.AT_CAPACITY,
        "score >= 0.5 under its load",
        "0.488",
        load={"wait": 10.0},
        policy=Policy(min_score=0.5, weights=Weights(throughput=0.0, locality=0.0)),
    ),
    "it lacks the capability": Case(
        Code.CAPABILITY_MISSING,
        "embed",
        request={"capability": "embed"},
        companion_deployment={"capabilities": ("generate", "embed")},
    ),
    "it lacks the adapter": Case(
        Code.CAPABILITY_MISSING,
        "generate and sql-lora",
        request={"capability": "generate", "adapter": "sql-lora"},
        companion_deployment={"adapters": ("sql-lora",)},
    ),
    "prompt and answer are too long": Case(
        Code.CONTEXT_TOO_LONG,
        "<= 4096 tokens",
        "4097 tokens",
        model={"context_window_tokens": 4_096},
        request={"input_tokens": 4_000, "max_output_tokens": 97, "allow_substitutes": True},
    ),
    "the prompt alone is too long": Case(
        Code.CONTEXT_TOO_LONG,
        "<= 4096 tokens",
        "5000 tokens",
        model={"context_window_tokens": 4_096},
        request={"input_tokens": 5_000, "max_output_tokens": None, "allow_substitutes": True},
    ),
    "its level is too low": Case(
        Code.PRIVACY,
        ">= level 3",
        "level 2",
        request={"privacy_level": PrivacyLevel.CONFIDENTIAL},
        companion={"privacy_level": PrivacyLevel.CONFIDENTIAL},
    ),
    "the policy asks for a higher level than the request": Case(
        Code.PRIVACY,
        ">= level 4",
        "level 3",
        node={"privacy_level": PrivacyLevel.CONFIDENTIAL},
        policy=Policy(bounds=Bounds(min_privacy_level=PrivacyLevel.RESTRICTED)),
        companion={"privacy_level": PrivacyLevel.RESTRICTED},
    ),
    "it is public only": Case(Code.PRIVACY, ">= level 2", "level 1", node={"privacy_level": PrivacyLevel.PUBLIC}),
    "another law": Case(
        Code.JURISDICTION,
        "one of DE, FR",
        "US",
        region={"jurisdictions": ("US",)},
        request={"jurisdictions": ("FR", "DE")},
    ),
    "a law that nobody told": Case(
        Code.JURISDICTION, "one of EU", "", region={"jurisdictions": ()}, request={"jurisdictions": ("EU",)}
    ),
    "the request's law but not the policy's": Case(
        Code.JURISDICTION,
        "one of EU, US and one of EU",
        "US",
        region={"jurisdictions": ("US",)},
        request={"jurisdictions": ("EU", "US")},
        policy=Policy(bounds=Bounds(jurisdictions=("EU",))),
    ),
    "not the origin's law": Case(
        Code.JURISDICTION,
        "one of DE, EU",
        "US",
        region={"jurisdictions": ("US",)},
        policy=Policy(bounds=Bounds(home_jurisdiction=True)),
    ),
    "private to another tenant": Case(
        Code.TENANT, deployment={"tenant_ids": ("acme",)}, request={"tenant_id": "globex"}
    ),
    "private, and the request has no tenant": Case(Code.TENANT, deployment={"tenant_ids": ("acme",)}),
    "an excluded region": Case(Code.REGION_EXCLUDED, "not us", "us", request={"exclude_regions": ("us", "ap")}),
    "not one of the only regions": Case(
        Code.REGION_EXCLUDED, "one of eu, ap", "us", request={"only_regions": ("eu", "ap")}
    ),
    "one of the only regions, and excluded": Case(
        Code.REGION_EXCLUDED, "not us", "us", request={"only_regions": ("eu", "us"), "exclude_regions": ("us",)}
    ),
    "an excluded node": Case(Code.NODE_EXCLUDED, "not us/x", "us/x", request={"exclude_nodes": ("us/x",)}),
    "it lacks one of two labels": Case(
        Code.LABELS,
        "tier=gold, rack=r7",
        node={"labels": {"tier": "gold", "rack": "r8"}},
        request={"node_labels": (("tier", "gold"), ("rack", "r7"))},
        companion={"labels": {"tier": "gold", "rack": "r7", "more": "yes"}},
    ),
    "its answer ends too late": Case(
        Code.LATENCY_BOUND,
        "<= 5000 ms",
        "12.1 s",
        deployment={"profile": SLOW},
        request={"max_latency_seconds": 5.0},
    ),
    "when its answer ends is unknown": Case(
        Code.LATENCY_BOUND,
        "<= 5000 ms",
        deployment={"profile": replace(SLOW, decode_tokens_per_second=None)},
        request={"max_latency_seconds": 5.0},
    ),
    "its first token is too late": Case(
        Code.TTFT_BOUND,
        "<= 1500 ms",
        "2100 ms",
        deployment={"profile": SLOW},
        request={"max_time_to_first_token_seconds": 1.5},
    ),
    "the policy's bound is tighter than the request's": Case(
        Code.TTFT_BOUND,
        "<= 1000 ms",
        "2100 ms",
        deployment={"profile": SLOW},
        request={"max_time_to_first_token_seconds": 3.0},
        policy=Policy(bounds=Bounds(max_time_to_first_token_seconds=1.0)),
    ),
    "its first token is unknown": Case(
        Code.TTFT_BOUND,
        "<= 60.0 s",
        deployment={"profile": SILENT},
        request={"max_time_to_first_token_seconds": 60.0},
    ),
    "it is too slow": Case(
        Code.THROUGHPUT_BOUND,
        ">= 20 tokens/s",
        "10 tokens/s",
        deployment={"profile": SLOW},
        request={"min_throughput_tokens_per_second": 20.0},
    ),
    "its speed is unknown": Case(
        Code.THROUGHPUT_BOUND,
        ">= 1 tokens/s",
        deployment={"profile": SILENT},
        request={"min_throughput_tokens_per_second": 1.0},
    ),
    "it is too dear": Case(
        Code.PRICE_BOUND,
        "<= 5 USD per million tokens",
        "15 USD per million tokens",
        deployment={"price_usd_per_million_input_tokens": 10.0, "price_usd_per_million_output_tokens": 40.0},
        request={"max_price_usd_per_million_tokens": 5.0},
    ),
    "its price is unknown": Case(
        Code.PRICE_BOUND,
        "<= 5 USD per million tokens",
        deployment=UNPRICED,
        request={"max_price_usd_per_million_tokens": 5.0},
    ),
    "its price is half unknown": Case(
        Code.PRICE_BOUND,
        "<= 5 USD per million tokens",
        deployment={"price_usd_per_million_output_tokens": None},
        request={"max_price_usd_per_million_tokens": 5.0},
    ),
    "it is worth too little even idle": Case(
        Code.BELOW_MIN_SCORE,
        ">= 0.5",
        "0.250",
        health=replace(WELL, score=0.25),
        policy=Policy(min_score=0.5, weights=Weights(latency=0.0, throughput=0.0, cost=0.0, locality=0.0)),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_refusal_has_its_code_with_what_was_asked_and_what_was_found(case: Case) -> None:
    other = "other-model" if case.model else "llama-3-8b"
    table = a_table(
        a_node("eu/ok", [a_deployment(**case.companion_deployment)], **case.companion),
        a_node("us/x", [a_deployment(other, **case.deployment)], **case.node),
        regions=[a_region("eu"), a_region("us", round_trip_seconds={"eu": 0.1}, **case.region)],
        models=[
            a_model(equivalence_class="small"),
            *([a_model(other, equivalence_class="small", **case.model)] if case.model else []),
        ],
        health={"us/x": case.health},
    )
    load = a_load(table, **{name: {"us/x": value} for name, value in case.load.items()})

    found = evaluated(table, a_request(**{"input_tokens": 500, **case.request}), case.policy, load)

    codes = by_node(table, found.code)
    assert codes == {"eu/ok": 0, "us/x": case.code.value}
    rejection = explain(case.code, found.ask, found.pool, load, found.seen, float(found.total[1]), 1)
    assert rejection == Rejection(case.code, MESSAGES[case.code], case.bound, case.actual)


def test_every_code_has_words_for_people() -> None:
    assert set(MESSAGES) == set(Code)


def test_every_code_that_deciding_can_give_is_among_the_cases() -> None:
    elsewhere = {Code.MODEL_MISMATCH, Code.RULE, Code.PEER_LEASE_EXPIRED}

    assert {case.code for case in CASES.values()} | elsewhere == set(Code)


# What is not refused


@pytest.mark.parametrize(
    ("node", "request_"),
    [
        ({"privacy_level": PrivacyLevel.RESTRICTED}, {"privacy_level": PrivacyLevel.PUBLIC}),
        ({}, {"privacy_level": PrivacyLevel.INTERNAL}),
        ({"labels": {"a": "1", "b": "2"}}, {"node_labels": (("b", "2"),)}),
        ({}, {"only_regions": ("eu",), "exclude_regions": ("us",)}),
        ({}, {"jurisdictions": ("EU", "US")}),
        ({}, {"exclude_nodes": ("eu/ok-2", "eu/o", "us/ok")}),
    ],
)
def test_who_meets_a_rule_is_not_refused(node: dict[str, Any], request_: dict[str, Any]) -> None:
    table = a_table(a_node("eu/ok", **node))

    assert evaluated(table, a_request(**request_)).code.tolist() == [0]


def test_the_origins_law_binds_where_it_is_unknown_by_refusing_all() -> None:
    table = a_table(a_node("eu/ok"), regions=[a_region("eu", jurisdictions=())])
    sovereign = Policy(bounds=Bounds(home_jurisdiction=True))

    for origin in ("eu", "nowhere"):
        found = evaluated(table, a_request(origin_region=origin), sovereign)
        assert found.code.tolist() == [Code.JURISDICTION.value]
        told = explain(Code.JURISDICTION, found.ask, found.pool, found.load, found.seen, 0.0, 0)
        assert told.bound == "the origin's, which is unknown"


def test_a_private_deployment_takes_its_own_tenants() -> None:
    table = a_table(a_node("eu/a", [a_deployment(tenant_ids=("acme", "initech"))]), a_node("eu/shared"))

    codes = {
        tenant: by_node(table, evaluated(table, a_request(tenant_id=tenant)).code)["eu/a"]
        for tenant in ("acme", "initech", "globex", "", "acm", "ACME")
    }

    refused = Code.TENANT.value
    assert codes == {"acme": 0, "initech": 0, "globex": refused, "": refused, "acm": refused, "ACME": refused}


def test_a_context_window_that_nobody_declared_bounds_nothing() -> None:
    table = a_table(a_node("eu/a"), models=[a_model(context_window_tokens=None)])

    assert evaluated(table, a_request(input_tokens=1_000_000), Policy(min_score=0.0)).code.tolist() == [0]


def test_a_request_that_does_not_tell_its_length_is_not_too_long() -> None:
    table = a_table(a_node("eu/a"), models=[a_model(context_window_tokens=128)])

    assert evaluated(table, a_request(input_tokens=None, max_output_tokens=None)).code.tolist() == [0]


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed", "refused"),
    [
        ("small", "small", True, False),
        ("small", "small", False, True),
        ("small", "large", True, True),
        ("", "", True, True),
    ],
    ids=["declared and allowed", "declared, not allowed", "another class", "no class is no class in common"],
)
def test_another_model_answers_only_where_it_is_declared_equivalent_and_allowed(
    ours: str, theirs: str, allowed: bool, refused: bool
) -> None:
    table = a_table(
        a_node("eu/a", [a_deployment("other")]),
        models=[a_model(equivalence_class=ours), a_model("other", equivalence_class=theirs)],
    )

    codes = evaluated(table, a_request(allow_substitutes=allowed)).code.tolist()

    assert codes == ([Code.MODEL_MISMATCH.value] if refused else [0])


def test_a_bound_holds_at_its_very_value() -> None:
    table = a_table(a_node("eu/a"))
    seen = evaluated(table).seen
    exact = {
        "max_latency_seconds": float(seen.latency[0]),
        "max_time_to_first_token_seconds": float(seen.time_to_first_token[0]),
        "min_throughput_tokens_per_second": float(seen.throughput[0]),
        "max_price_usd_per_million_tokens": float(seen.token_cost[0]) * (1e6 / 600),
    }

    assert evaluated(table, a_request(**exact)).code.tolist() == [0]
    for name, value in exact.items():
        tighter = value * (1 + 1e-9 if name.startswith("min") else 1 - 1e-9)
        assert evaluated(table, a_request(**{name: tighter})).code.tolist() != [0], name


def test_assumptions_order_but_never_satisfy_a_bound() -> None:
    table = a_table(a_node("eu/a", [a_deployment(profile=SILENT, **UNPRICED)]))

    assert evaluated(table).code.tolist() == [0]
    for bound in (
        {"max_latency_seconds": 1e4},
        {"max_time_to_first_token_seconds": 1e4},
        {"min_throughput_tokens_per_second": 0.001},
        {"max_price_usd_per_million_tokens": 1e6},
    ):
        assert evaluated(table, a_request(**bound)).code.tolist() != [0], bound


@pytest.mark.parametrize(
    ("narrow", "kept"),
    [
        (Narrow(regions=("eu*",)), {"eu/a", "eu-2/b"}),
        (Narrow(exclude_regions=("eu*",)), {"us/c"}),
        (Narrow(regions=("*",), exclude_regions=("us",)), {"eu/a", "eu-2/b"}),
        (Narrow(node_labels=(("tier", "gold"),)), {"eu/a"}),
        (Narrow(engines=("sglang", "tgi")), {"us/c"}),
        (Narrow(accelerators=("H*",)), {"eu/a", "eu-2/b"}),
        (Narrow(accelerators=("TPU",)), set()),
        (Narrow(regions=("eu",), node_labels=(("tier", "gold"),), engines=("vllm",)), {"eu/a"}),
        (Narrow(), {"eu/a", "eu-2/b", "us/c"}),
    ],
)
def test_a_narrowing_keeps_who_meets_all_of_it(narrow: Narrow, kept: set[str]) -> None:
    table = a_table(
        a_node("eu/a", labels={"tier": "gold"}),
        a_node("eu-2/b", accelerator="H200"),
        a_node("us/c", engine=Engine.SGLANG, accelerator="MI300X"),
    )

    refused = by_node(table, narrowed(table.pool, narrow))

    assert {name for name, out in refused.items() if not out} == kept


# Which reason is told first


def test_the_first_rule_that_refuses_names_the_reason() -> None:
    order = [code for code, _ in STATIC]

    assert order == [
        Code.MODEL_MISMATCH,
        Code.TENANT,
        Code.CAPABILITY_MISSING,
        Code.PRIVACY,
        Code.JURISDICTION,
        Code.REGION_EXCLUDED,
        Code.NODE_EXCLUDED,
        Code.LABELS,
        Code.CONTEXT_TOO_LONG,
    ]


@pytest.mark.parametrize(
    ("deployment", "request_", "code"),
    [
        ({"max_concurrency": 1}, {"max_price_usd_per_million_tokens": 0.1}, Code.PRICE_BOUND),
        ({"profile": SILENT}, {"max_latency_seconds": 1.0}, Code.LATENCY_BOUND),
        ({"max_concurrency": 1}, {}, Code.UNHEALTHY),
    ],
)
def test_bounds_are_told_before_health_and_health_before_room(
    deployment: dict[str, Any], request_: dict[str, Any], code: Code
) -> None:
    table = a_table(a_node("eu/a", [a_deployment(**deployment)]), health={"eu/a": SICK})

    found = evaluated(table, a_request(**request_), load=a_load(table, in_flight={"eu/a": 1.0}))

    assert found.code.tolist() == [code.value]


def test_a_full_one_that_would_be_too_bad_even_idle_is_told_so() -> None:
    table = a_table(a_node("eu/a", [a_deployment(max_concurrency=1)]), health={"eu/a": replace(WELL, score=0.2)})
    only_health = Policy(min_score=0.5, weights=Weights(latency=0.0, throughput=0.0, cost=0.0, locality=0.0))

    found = evaluated(table, policy=only_health, load=a_load(table, in_flight={"eu/a": 1.0}))

    assert found.code.tolist() == [Code.BELOW_MIN_SCORE.value]


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ({}, "NO_CAPACITY"),
        ({"MODEL_MISMATCH": 3}, "NO_CAPACITY"),
        ({"TENANT": 2}, "UNKNOWN"),
        ({"TENANT": 2, "MODEL_MISMATCH": 1}, "UNKNOWN"),
        ({"PRIVACY": 1}, "PRIVACY_VIOLATION"),
        ({"JURISDICTION": 1}, "PRIVACY_VIOLATION"),
        ({"TENANT": 5, "PRIVACY": 1, "JURISDICTION": 1}, "PRIVACY_VIOLATION"),
        *(
            ({code: 1, "PRIVACY": 4}, "QOS_VIOLATION")
            for code in (
                "CAPABILITY_MISSING",
                "CONTEXT_TOO_LONG",
                "REGION_EXCLUDED",
                "NODE_EXCLUDED",
                "LABELS",
                "LATENCY_BOUND",
                "TTFT_BOUND",
                "THROUGHPUT_BOUND",
                "PRICE_BOUND",
                "BELOW_MIN_SCORE",
                "RULE",
            )
        ),
        *(
            ({code: 1, "PRIVACY": 4, "LABELS": 4}, "ALL_NODES_UNHEALTHY")
            for code in ("NOT_READY", "LEASE_EXPIRED", "UNHEALTHY", "CIRCUIT_OPEN", "EJECTED", "PEER_LEASE_EXPIRED")
        ),
        ({"AT_CAPACITY": 1, "UNHEALTHY": 9, "PRIVACY": 4}, "NO_CAPACITY"),
        ({"DRAINING": 1, "UNHEALTHY": 9}, "NO_CAPACITY"),
    ],
)
def test_where_causes_mix_the_first_class_after_which_nobody_stands_is_the_reason(
    codes: dict[str, int], reason: str
) -> None:
    assert reason_for_none(codes) == reason


# Panic


def test_panic_sets_health_aside_and_no_hard_rule() -> None:
    nodes = [a_node(f"eu/n{i}") for i in range(4)]
    nodes += [a_node("eu/public", privacy_level=PrivacyLevel.PUBLIC), a_node("eu/drains", draining=True)]
    table = a_table(*nodes, health={"eu/n1": SICK, "eu/n2": OPEN, "eu/n3": replace(WELL, ejected_until=9.0)})

    found = evaluated(table)

    assert found.panic
    assert by_node(table, found.code) == {
        "eu/n0": 0,
        "eu/n1": 0,
        "eu/n2": 0,
        "eu/n3": 0,
        "eu/public": Code.PRIVACY.value,
        "eu/drains": Code.DRAINING.value,
    }


@pytest.mark.parametrize(("sick", "panic"), [(1, False), (2, False), (3, True), (4, False)])
def test_panic_is_below_half_of_four_but_not_where_nobody_is_well(sick: int, panic: bool) -> None:
    table = a_table(*(a_node(f"eu/n{i}") for i in range(4)), health={f"eu/n{i}": SICK for i in range(sick)})

    found = evaluated(table)

    assert found.panic is panic
    assert len(found.order) == (4 if panic else 4 - sick)


def test_who_hard_rules_leave_out_does_not_count_toward_panic() -> None:
    sick = {f"us/n{i}": SICK for i in range(8)}
    table = a_table(a_node("eu/a"), *(a_node(name) for name in sick), health=sick)

    found = evaluated(table, a_request(only_regions=("eu",)))

    assert not found.panic
    assert len(found.order) == 1


def test_a_policy_may_set_the_threshold_of_panic() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), a_node("eu/c"), health={"eu/b": SICK, "eu/c": SICK})

    assert not evaluated(table, policy=Policy(panic_threshold=0.0)).panic
    assert evaluated(table, policy=Policy(panic_threshold=0.4)).panic


def test_in_panic_nobody_is_left_out_for_a_low_score() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), a_node("eu/c"), health={"eu/b": SICK, "eu/c": SICK})

    found = evaluated(table, policy=Policy(min_score=0.9, latency=Line(good=0.0, poor=0.01)))

    assert found.panic
    assert found.counts() == {}
