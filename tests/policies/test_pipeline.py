"""The plain pipeline: order, affinity, trials, alternatives, and terms that add up."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from policies import pipeline
from policies.pipeline import Domains, Evaluation, Selection, alternatives, choose, differences, evaluate, terms
from policies.policy import Line, Policy
from policies.pool import BoolArray, Identity, Load, Pool
from policies.prediction import Ask
from policies.presets import PRESETS
from policies.registry import BUILT_IN
from policies.types import Code
from tests.builders import (
    HALF_OPEN,
    WELL,
    a_load,
    a_model,
    a_node,
    a_region,
    a_request,
    a_table,
    an_ask,
    by_node,
    evaluated,
)


def chosen(found: Evaluation, *, session: str = "", wanted: int = 3, picker: str = "best", seed: int = 0) -> Selection:
    slot = -1
    if session:
        (slot,) = [place for place, name in enumerate(found.pool.names) if name.startswith(f"{session}/")]
    pool = replace(found.pool, slot=np.arange(len(found.pool)))
    selected = choose(
        replace(found, pool=pool), BUILT_IN, picker=picker, seed=seed, key="k", session_slot=slot, wanted=wanted
    )
    assert selected is not None
    return selected


def names(found: Evaluation, selected: Selection) -> list[str]:
    return [found.pool.names[place].rpartition("/")[0] for place in (selected.target, *selected.alternatives)]


# Order


def test_candidates_stand_in_the_order_of_their_composites_and_ties_by_name() -> None:
    table = a_table(a_node("eu/d-busy"), a_node("eu/c"), a_node("eu/b"), a_node("eu/a"), a_node("ap/far"))

    found = evaluated(table, load=a_load(table, pending_tokens={"eu/d-busy": 500.0}))

    assert [table.compiled.node_names[place] for place in found.order] == [
        "eu/a",
        "eu/b",
        "eu/c",
        "eu/d-busy",
        "ap/far",
    ]
    assert (np.diff(found.total[found.order]) <= 0.0).all()


def test_nobody_is_eligible_where_all_are_refused() -> None:
    table = a_table(a_node("eu/a"))

    found = evaluated(table, a_request(exclude_regions=("eu",)))

    assert choose(found, BUILT_IN, picker="best", seed=0, key="", session_slot=-1, wanted=3) is None
    assert found.counts() == {"REGION_EXCLUDED": 1}


def test_terms_of_a_candidate_add_up_to_its_total() -> None:
    table = a_table(a_node("eu/a"), a_node("us/b"), health={"us/b": replace(WELL, score=0.4)})
    found = evaluated(table, a_request(prefer_gpu=True, cost_tolerance=13.0))

    for place in range(2):
        told = terms(found, place, {"probe": 3.0, "load": 1.0})

        assert sum(term.contribution for term in told) == pytest.approx(float(found.total[place]), abs=1e-12)
        assert [term.name for term in told] == ["latency", "throughput", "cost", "locality", "health", "gpu"]
        for term in told:
            assert term.contribution == pytest.approx(term.weight * term.points / sum(found.weights.values()))
    assert {term.name: term.unit for term in told}["latency"] == "s"


# Sessions


def test_a_session_stays_with_its_deployment_though_another_is_better() -> None:
    table = a_table(a_node("eu/a"), a_node("us/b"))

    selected = chosen(found := evaluated(table), session="us/b")

    assert names(found, selected) == ["us/b", "eu/a"]
    assert selected.by == "session"


@pytest.mark.parametrize(("score", "stays"), [(1.0, True), (0.75, True), (0.74, False), (0.5, False)])
def test_a_session_leaves_a_deployment_that_is_not_of_the_best_grade(score: float, stays: bool) -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": replace(WELL, score=score)})

    selected = chosen(found := evaluated(table), session="eu/b")

    assert names(found, selected)[0] == ("eu/b" if stays else "eu/a")
    assert selected.by == ("session" if stays else "picker")


def test_a_session_leaves_a_deployment_that_may_not_take_it() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"))

    selected = chosen(found := evaluated(table, a_request(exclude_nodes=("eu/b",))), session="eu/b")

    assert names(found, selected) == ["eu/a"]


# Trials


def test_a_half_open_circuit_gets_one_trial_and_is_never_an_alternative() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), a_node("eu/c"), health={"eu/b": HALF_OPEN})
    free, taken = (evaluated(table, load=a_load(table, trial={"eu/b": slots})) for slots in (1.0, 0.0))

    first, second = chosen(free), chosen(taken)

    assert names(free, first) == ["eu/b", "eu/a", "eu/c"]
    assert first.by == "trial"
    assert names(taken, second) == ["eu/a", "eu/c"]
    assert by_node(table, taken.code)["eu/b"] == Code.CIRCUIT_OPEN.value


def test_a_session_is_nobodys_trial() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN})

    selected = chosen(found := evaluated(table), session="eu/a")

    assert names(found, selected)[0] == "eu/a"


def test_a_session_takes_the_trial_where_nobody_else_is_left() -> None:
    table = a_table(a_node("eu/b"), health={"eu/b": HALF_OPEN})

    assert chosen(evaluated(table), session="eu/b").by == "trial"


def test_a_trial_obeys_the_requests_bounds() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN})

    selected = chosen(found := evaluated(table, a_request(exclude_nodes=("eu/b",))))

    assert names(found, selected) == ["eu/a"]


@pytest.mark.parametrize("picker", sorted(BUILT_IN.pickers))
def test_no_picker_ever_takes_one_that_is_refused(picker: str) -> None:
    table = a_table(*(a_node(f"eu/n{i}") for i in range(8)), health={"eu/n3": HALF_OPEN})
    barred = ("eu/n0", "eu/n5")
    found = evaluated(table, a_request(exclude_nodes=barred), load=a_load(table, trial={"eu/n3": 0.0}))

    taken = {name for seed in range(200) for name in names(found, chosen(found, picker=picker, seed=seed))}

    assert not taken & {*barred, "eu/n3"}


# Alternatives

#                  node zone region
PLACES = {
    "eu/a1": (0, 0, 0),
    "eu/a2": (1, 0, 0),
    "eu/b1": (2, 1, 0),
    "eu/b2": (3, 1, 0),
    "eu/c1": (4, 2, 0),
    "us/a1": (5, 3, 1),
    "us/a2": (6, 3, 1),
    "ap/a1": (7, 4, 2),
}
DOMAINS = Domains(*(list(column) for column in zip(*PLACES.values(), strict=True)))


def picked(target: str, order: str, wanted: int) -> list[str]:
    index = list(PLACES)
    return [
        index[place]
        for place in alternatives(index.index(target), [index.index(name) for name in order.split()], DOMAINS, wanted)
    ]


@pytest.mark.parametrize(
    ("order", "wanted", "expected"),
    [
        ("eu/a1 eu/a2 eu/b1 eu/b2 eu/c1", 3, ["eu/b1", "eu/c1", "eu/a2"]),
        ("eu/a1 eu/b1 us/a1 eu/c1 ap/a1", 3, ["eu/b1", "us/a1", "eu/c1"]),
        ("eu/a1 eu/a2 eu/b1 eu/c1 us/a1 us/a2 ap/a1", 2, ["eu/b1", "us/a1"]),
        ("eu/a1 eu/a2 eu/b1 us/a1", 1, ["us/a1"]),
        ("eu/a1 eu/b1", 3, ["eu/b1"]),
        ("eu/a1", 3, []),
        ("eu/a1 eu/b1 us/a1", 0, []),
        ("eu/a1 us/a1 us/a2", 3, ["us/a1", "us/a2"]),
        (
            "eu/a1 eu/a2 eu/b1 eu/b2 eu/c1 us/a1 us/a2 ap/a1",
            16,
            ["eu/b1", "eu/c1", "us/a1", "ap/a1", "eu/a2", "eu/b2", "us/a2"],
        ),
    ],
    ids=[
        "zones not used yet come first, then other nodes of used ones",
        "in the order of their worth",
        "the last of a region gives its place to another region",
        "one alternative is of another region where there is one",
        "fewer where there are no more",
        "none but the target",
        "none wanted",
        "two of one zone where there is no other",
        "all there are",
    ],
)
def test_alternatives_come_from_other_failure_domains_first(order: str, wanted: int, expected: list[str]) -> None:
    assert picked("eu/a1", order, wanted) == expected


def test_another_deployment_of_the_targets_node_is_no_alternative() -> None:
    twins = Domains([0, 0, 1], [0, 0, 0], [0, 0, 0])

    assert alternatives(0, [0, 1, 2], twins, 3) == (2,)


# Substitutes


def test_a_substitute_tells_how_it_differs_field_by_field() -> None:
    asked = Identity("llama-3-8b", "llama", "3", "fp16", 8_192, "tiktoken", "small")
    got = replace(asked, model_id="llama-3-8b-q4", quantization="int4", tokenizer="")

    assert differences(asked, got) == (
        "model_id: llama-3-8b -> llama-3-8b-q4",
        "quantization: fp16 -> int4",
        "tokenizer: tiktoken -> unknown",
    )
    assert differences(asked, asked) == ()


# Other packages


def odd_rows(ask: Ask, pool: Pool) -> BoolArray:
    """A filter of another package: refuses every second one."""
    return pool.row % 2 == 1


def test_a_filter_of_another_package_refuses_as_a_rule_does() -> None:
    table = a_table(*(a_node(f"eu/n{i}") for i in range(4)))
    registry = BUILT_IN.extend({}, {"odd": odd_rows}, {})

    found = evaluate(an_ask(table, policy=Policy(extra_filters=("odd",))), table.pool, Load.idle(4), registry)

    assert found.counts() == {"RULE": 2}


def test_a_rules_narrowing_is_a_hard_rule() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"))
    narrow = np.array([True, False])

    found = evaluate(an_ask(table), table.pool, Load.idle(2), BUILT_IN, narrow)

    assert by_node(table, found.code) == {"eu/a": Code.RULE.value, "eu/b": 0}


def test_a_scorer_of_another_package_weighs_in() -> None:
    def last_first(ask: Ask, pool: Pool, seen: object) -> np.ndarray:
        return pool.row.astype(np.float64)

    table = a_table(a_node("eu/a"), a_node("eu/b"), regions=[a_region("eu")])
    registry = BUILT_IN.extend({"theirs": last_first}, {}, {})
    policy = Policy(extra_scorers=MappingProxyType({"theirs": 3.0}))

    found = evaluate(an_ask(table, policy=policy), table.pool, Load.idle(2), registry)

    assert found.order.tolist() == [1, 0]
    assert sum(t.contribution for t in terms(found, 1, {})) == pytest.approx(float(found.total[1]))


# The least score


@pytest.mark.parametrize("policy", PRESETS.values(), ids=PRESETS.keys())
def test_an_idle_fleet_refuses_no_prompt_for_its_length(policy: Policy) -> None:
    table = a_table(a_node("eu/a"), a_node("us/b"), models=[a_model(context_window_tokens=None)])
    long = a_request(input_tokens=1_000_000, max_output_tokens=100_000)

    assert evaluated(table, long, policy).counts() == evaluated(table, a_request(input_tokens=512), policy).counts()


def test_what_waits_at_a_node_counts_alike_for_prompts_of_any_length() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), models=[a_model(context_window_tokens=None)])
    load = a_load(table, wait={"eu/a": 30.0, "eu/b": 5.0})

    found = [evaluated(table, a_request(input_tokens=tokens), load=load) for tokens in (512, 5_000, 500_000)]

    assert [each.counts() for each in found] == [{"AT_CAPACITY": 1}] * 3
    assert len({float(each.standing[0]) for each in found}) == 1


def test_cached_tokens_and_shorter_requests_never_stand_lower() -> None:
    table = a_table(a_node("eu/a"), models=[a_model(context_window_tokens=None)])

    def standing(tokens: int, answer: int, cached: float) -> float:
        load = a_load(table, wait={"eu/a": 4.0}, cached_tokens={"eu/a": cached})
        request = a_request(input_tokens=tokens, max_output_tokens=answer)
        ask = an_ask(table, request, Policy("cost_first", cost=Line(0.0, 0.01)))
        return float(pipeline.standing(ask, table.pool, load, BUILT_IN)[0])

    by_cache = [standing(9_000, 256, cached) for cached in (0.0, 4_000.0, 8_700.0, 8_999.0)]
    by_length = [standing(tokens, tokens, 0.0) for tokens in (1_000_000, 512, 256, 100, 1)]

    assert by_cache == sorted(by_cache)
    assert by_length == sorted(by_length)
