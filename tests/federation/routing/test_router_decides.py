"""Decisions of a router: whom it takes, what it answers where nobody is left, and how it explains itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from catalog.types import Node, PrivacyLevel, Reach, ServingProfile
from federation.routing.router import Router
from federation.routing.table import Table
from policies.errors import NoCandidate
from policies.policy import Match, Narrow, Policy, Rule, Split
from policies.types import Decision, Explain, RouteRequest
from tests.builders import (
    DEGRADED,
    HALF_OPEN,
    MODEL,
    OPEN,
    SICK,
    WELL,
    a_deployment,
    a_model,
    a_node,
    a_region,
    a_request,
    a_router,
    a_table,
)


def node_of(deployment: str) -> str:
    return "/".join(deployment.split("/")[:2])


def targets(router: Router, count: int, now: float = 0.0, **request: Any) -> Counter[str]:
    """Where so many requests go, each over before the next."""
    found = Counter[str]()
    for _ in range(count):
        record = router.place(a_request(**request), now)
        router.reservations.release(record.number)
        found[node_of(record.names()[0])] += 1
    return found


def refused(router: Router, request: RouteRequest | None = None) -> NoCandidate:
    with pytest.raises(NoCandidate) as raised:
        router.route(request or a_request(), 0.0)
    return raised.value


def ways(decision: Decision) -> list[str]:
    return [node_of(choice.deployment) for choice in (decision.target, *decision.alternatives)]


# Who is taken


def test_one_healthy_node_is_chosen() -> None:
    decision = a_router(a_table(a_node("eu/a"))).route(a_request(), 0.0)

    target = decision.target
    assert (target.region_id, target.node_id, target.model_id) == ("eu", "a", MODEL)
    assert target.endpoint == "http://a.eu:8000"
    assert target.served_model_name == MODEL
    assert decision.alternatives == ()
    assert decision.considered == 1


def test_the_healthy_one_beats_the_degraded_one_and_the_sick_one_is_left_out() -> None:
    table = a_table(
        a_node("eu/a-degraded"),
        a_node("eu/b-healthy"),
        a_node("eu/c-sick"),
        health={"eu/a-degraded": DEGRADED, "eu/c-sick": SICK},
    )
    router = a_router(table)

    assert targets(router, 50) == {"eu/b-healthy": 50}
    assert router.route(a_request(), 0.0).rejected == {"UNHEALTHY": 1}


def test_all_three_of_three_are_candidates() -> None:
    listed = a_router(a_table(a_node("eu/a"), a_node("us/b"), a_node("ap/c"))).candidates(a_request(), 0.0)

    assert len(listed.candidates) == 3
    assert all(candidate.eligible for candidate in listed.candidates)
    assert listed.rejected == {}


@pytest.mark.parametrize("picker", ["best", "predicted", "least_latency"])
def test_of_two_alike_but_for_the_answering_time_of_their_probes_the_faster_is_taken(picker: str) -> None:
    silent = a_deployment(profile=ServingProfile())
    table = a_table(
        a_node("eu/a-120", [silent]),
        a_node("eu/b-45", [silent]),
        health={
            "eu/a-120": replace(WELL, latency_p50_seconds=0.120),
            "eu/b-45": replace(WELL, latency_p50_seconds=0.045),
        },
    )
    router = a_router(table)
    router.install_policies({"p": Policy("p", picker=picker)})

    assert targets(router, 40, policy_id="p", input_tokens=10) == {"eu/b-45": 40}


def test_a_model_is_found_by_its_alias() -> None:
    router = a_router(a_table(a_node("eu/a"), models=[a_model(aliases=("llama",))]))

    assert router.route(a_request("llama"), 0.0).target.model_id == MODEL


def test_a_capability_is_enough() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b", [a_deployment("bge", capabilities=("embed",))]))

    decision = a_router(table).route(RouteRequest(capability="embed"), 0.0)

    assert decision.target.model_id == "bge"


def test_a_capability_that_a_deployment_names_twice_makes_one_candidate() -> None:
    table = a_table(a_node("eu/a", [a_deployment(capabilities=("generate", "generate"))]), a_node("eu/b"))

    listed = a_router(table).candidates(RouteRequest(capability="generate"), 0.0)

    assert len(listed.candidates) == 2


def test_a_target_in_another_region_that_is_reached_by_its_gateway_names_the_ingress() -> None:
    regions = [a_region("ap", reach=Reach.GATEWAY, ingress_endpoint="https://ap.example:443")]
    router = a_router(a_table(a_node("ap/n1"), regions=regions))

    far, near = (router.route(a_request(origin_region=origin), 0.0).target for origin in ("eu", "ap"))

    assert (far.via_gateway, far.node_id, far.endpoint) == (True, "", "https://ap.example:443")
    assert (near.via_gateway, near.node_id, near.endpoint) == (False, "n1", "http://n1.ap:8000")


def test_requests_spread_over_nodes_that_are_alike() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{i}") for i in range(5))))

    for _ in range(200):
        router.route(a_request(), 0.0)

    flying = [router.load_of(f"eu/n{i}/{MODEL}")[0] for i in range(5)]
    assert sum(flying) == 200
    assert max(flying) - min(flying) < 8


# Substitutes and rewrites


def substitutes(**changes: Any) -> Router:
    table = a_table(
        a_node("us/asked"),
        a_node("eu/other", [a_deployment("small-q")]),
        a_node("eu/foreign", [a_deployment("foreign")]),
        models=[
            a_model(equivalence_class="small", quantization="fp16", aliases=("small",)),
            a_model("small-q", equivalence_class="small", quantization="int4"),
            a_model("foreign", equivalence_class="else"),
        ],
        regions=[a_region("us", round_trip_seconds={"eu": 0.2})],
        **changes,
    )
    return a_router(table)


def test_another_model_answers_only_where_the_request_allows_it_and_then_it_is_said() -> None:
    router = substitutes()

    strict, open_ = (router.route(a_request(allow_substitutes=allow), 0.0) for allow in (False, True))

    assert strict.target.model_id == MODEL
    assert strict.target.substitution_differences == ()
    assert open_.target.model_id == "small-q"
    assert open_.target.substitution_differences == (f"model_id: {MODEL} -> small-q", "quantization: fp16 -> int4")
    assert f"It stands in for {MODEL}: model_id: {MODEL} -> small-q" in open_.reasoning


def rewriting(to: str) -> Router:
    router = substitutes()
    router.install_policies({"p": Policy("p", rules=(Rule("newer", Match(models=(MODEL,)), rewrite_model=to),))})
    return router


def test_a_rule_rewrites_to_a_declared_equivalent_and_says_so() -> None:
    decision = rewriting("small-q").route(a_request(policy_id="p", allow_substitutes=True), 0.0)

    assert decision.target.model_id == "small-q"
    assert decision.alternatives == ()
    assert decision.rule == "newer"
    assert "quantization: fp16 -> int4" in decision.target.substitution_differences


@pytest.mark.parametrize(
    ("to", "allowed"), [("small-q", False), ("foreign", True), ("never-registered", True)], ids=str
)
def test_a_rule_cannot_make_a_request_take_what_it_does_not_allow_or_nobody_declared(to: str, allowed: bool) -> None:
    decision = rewriting(to).route(a_request(policy_id="p", allow_substitutes=allowed, max_alternatives=16), 0.0)

    models = {choice.model_id for choice in (decision.target, *decision.alternatives)}
    assert "foreign" not in models
    assert allowed or models == {MODEL}


def test_an_alias_does_not_slip_past_a_rule() -> None:
    router = substitutes()
    rule = Rule("only-eu", Match(models=(MODEL,)), narrow=Narrow(regions=("eu",)))
    router.install_policies({"p": Policy("p", rules=(rule,))})

    for name in (MODEL, "small"):
        assert refused(router, a_request(name, policy_id="p")).rejected == {"RULE": 1}


def test_a_canary_of_another_model_takes_its_share_of_those_who_allow_it_and_leaves_the_others_alone() -> None:
    router = substitutes()
    rule = Rule("canary", Match(models=(MODEL,)), split=(Split(20.0, model_id="small-q"), Split(80.0, model_id=MODEL)))
    router.install_policies({"p": Policy("p", rules=(rule,))})

    def models(allowed: bool) -> Counter[str]:
        requests = (
            a_request(policy_id="p", request_id=f"r{number}", allow_substitutes=allowed) for number in range(500)
        )
        return Counter(router.decide(request, 0.0, number=0).render().target.model_id for request in requests)

    willing, strict = models(True), models(False)

    assert 70 < willing["small-q"] < 130
    assert willing[MODEL] == 500 - willing["small-q"]
    assert strict == {MODEL: 500}


def test_a_canary_takes_its_share_of_requests_that_have_no_names() -> None:
    router = a_router(a_table(a_node("eu/old"), a_node("new/n")))
    old, new = Narrow(regions=("eu",)), Narrow(regions=("new",))
    router.install_policies({"p": Policy("p", rules=(Rule("canary", split=(Split(10.0, new), Split(90.0, old))),))})

    found = targets(router, 2_000, policy_id="p")

    assert found["new/n"] == pytest.approx(200, rel=0.25)


def test_a_rule_refuses_with_its_name_and_words() -> None:
    router = a_router(a_table(a_node("eu/a")))
    router.install_policies({"p": Policy("p", rules=(Rule("closed", refuse="maintenance until 16:00"),))})

    error = refused(router, a_request(policy_id="p"))

    assert error.reason == "REFUSED_BY_RULE"
    assert str(error) == "rule 'closed' of policy 'p' refuses it: maintenance until 16:00"


def test_a_policy_that_does_not_exist_is_told_with_those_that_do() -> None:
    error = refused(a_router(a_table(a_node("eu/a"))), a_request(policy_id="mine"))

    assert error.reason == "POLICY_UNKNOWN"
    assert "'mine' does not exist; there are balanced, cost_first" in str(error)


def test_a_rule_sees_the_measured_load() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("us/b")))
    busy = Rule("busy", Match(min_utilization=0.5), narrow=Narrow(regions=("us",)))
    router.install_policies({"p": Policy("p", rules=(busy,))})

    calm = router.route(a_request(policy_id="p"), 0.0)
    for node in ("eu/a", "us/b"):
        router.observe_load(node, 20.0, 0.0, 0.0)
    loaded = router.route(a_request(policy_id="p"), 0.0)

    assert (calm.target.region_id, calm.rule) == ("eu", "")
    assert (loaded.target.region_id, loaded.rule) == ("us", "busy")


# Nobody is left


def full(name: str, **changes: Any) -> Node:
    return a_node(name, [a_deployment(max_concurrency=0, **changes)])


PUBLIC = {"privacy_level": PrivacyLevel.PUBLIC}


@pytest.mark.parametrize(
    ("table", "request_", "reason", "rejected"),
    [
        pytest.param(
            a_table(a_node("eu/a", [a_deployment("other")]), models=[a_model()]),
            {},
            "NO_CAPACITY",
            {},
            id="known, no node",
        ),
        pytest.param(a_table(full("eu/a")), {}, "NO_CAPACITY", {"AT_CAPACITY": 1}, id="all full"),
        pytest.param(a_table(a_node("eu/a", draining=True)), {}, "NO_CAPACITY", {"DRAINING": 1}, id="draining"),
        pytest.param(
            a_table(a_node("eu/a"), health={"eu/a": SICK}), {}, "ALL_NODES_UNHEALTHY", {"UNHEALTHY": 1}, id="sick"
        ),
        pytest.param(
            a_table(a_node("eu/a"), health={"eu/a": OPEN}), {}, "ALL_NODES_UNHEALTHY", {"CIRCUIT_OPEN": 1}, id="open"
        ),
        pytest.param(
            a_table(a_node("eu/a", expired=True)), {}, "ALL_NODES_UNHEALTHY", {"LEASE_EXPIRED": 1}, id="expired"
        ),
        pytest.param(
            a_table(a_node("eu/a")),
            {"max_time_to_first_token_seconds": 0.001},
            "QOS_VIOLATION",
            {"TTFT_BOUND": 1},
            id="too slow",
        ),
        pytest.param(
            a_table(a_node("eu/a")), {"exclude_nodes": ("eu/a",)}, "QOS_VIOLATION", {"NODE_EXCLUDED": 1}, id="excluded"
        ),
        pytest.param(a_table(a_node("eu/a", **PUBLIC)), {}, "PRIVACY_VIOLATION", {"PRIVACY": 1}, id="privacy"),
        pytest.param(
            a_table(a_node("eu/a"), regions=[a_region("eu", jurisdictions=())]),
            {"jurisdictions": ("EU",)},
            "PRIVACY_VIOLATION",
            {"JURISDICTION": 1},
            id="unknown law",
        ),
        pytest.param(
            a_table(a_node("eu/a", **PUBLIC), a_node("eu/b"), health={"eu/b": SICK}),
            {},
            "ALL_NODES_UNHEALTHY",
            {"PRIVACY": 1, "UNHEALTHY": 1},
            id="privacy and health",
        ),
        pytest.param(
            a_table(a_node("eu/a", **PUBLIC), a_node("eu/b"), full("eu/c"), health={"eu/b": SICK}),
            {},
            "NO_CAPACITY",
            {"PRIVACY": 1, "UNHEALTHY": 1, "AT_CAPACITY": 1},
            id="privacy, health and room",
        ),
        pytest.param(
            a_table(a_node("eu/a", **PUBLIC), a_node("eu/b")),
            {"max_price_usd_per_million_tokens": 0.001},
            "QOS_VIOLATION",
            {"PRIVACY": 1, "PRICE_BOUND": 1},
            id="privacy and a bound",
        ),
        pytest.param(
            a_table(a_node("eu/a"), health={"eu/a": SICK}),
            {"max_price_usd_per_million_tokens": 0.001},
            "QOS_VIOLATION",
            {"PRICE_BOUND": 1},
            id="one that is sick and would be too dear if it were well",
        ),
        pytest.param(
            a_table(a_node("eu/a"), models=[a_model(context_window_tokens=100)], health={"eu/a": SICK}),
            {},
            "QOS_VIOLATION",
            {"CONTEXT_TOO_LONG": 1},
            id="one that is sick and could never hold the prompt",
        ),
        pytest.param(
            a_table(a_node("eu/a", [a_deployment(tenant_ids=("acme",))]), a_node("eu/b", **PUBLIC)),
            {},
            "PRIVACY_VIOLATION",
            {"PRIVACY": 1},
            id="another tenant's and privacy: the tenant's is absent",
        ),
    ],
)
def test_where_nobody_is_left_the_reason_is_the_first_that_explains_it(
    table: Table, request_: dict[str, Any], reason: str, rejected: dict[str, int]
) -> None:
    error = refused(a_router(table), a_request(**request_))

    assert (error.reason, dict(error.rejected)) == (reason, rejected)
    assert (error.retry_after_seconds is not None) is (reason in ("NO_CAPACITY", "ALL_NODES_UNHEALTHY"))
    for code, count in rejected.items():
        assert f"{count} {code}" in str(error)


def test_a_known_capability_without_a_node_has_no_capacity() -> None:
    table = a_table(a_node("eu/a"), models=[a_model("bge", capabilities=("embed",))])

    assert refused(a_router(table), RouteRequest(capability="embed")).reason == "NO_CAPACITY"


def test_what_was_never_registered_is_unknown() -> None:
    router = a_router(a_table(a_node("eu/a")))

    assert refused(router, a_request("gpt-9")).reason == "MODEL_UNKNOWN"
    assert refused(router, RouteRequest(capability="levitate")).reason == "CAPABILITY_UNKNOWN"
    assert refused(router, a_request(capability="levitate")).reason == "CAPABILITY_UNKNOWN"
    assert refused(router, a_request("gpt-9", capability="levitate")).reason in ("MODEL_UNKNOWN", "CAPABILITY_UNKNOWN")


@pytest.mark.parametrize(
    "request_", [a_request("hers"), RouteRequest(capability="custom:hers")], ids=["model", "capability"]
)
def test_what_is_private_to_others_looks_like_what_was_never_registered(request_: RouteRequest) -> None:
    hers = a_deployment("hers", capabilities=("custom:hers",), tenant_ids=("acme",))
    with_hers = a_router(a_table(a_node("eu/a"), a_node("eu/b", [hers], privacy_level=PrivacyLevel.PUBLIC)))
    without = a_router(a_table(a_node("eu/a")))

    for ask in (with_hers.route, with_hers.candidates):
        with pytest.raises(NoCandidate) as raised:
            ask(request_, 0.0)
        there, absent = raised.value, refused(without, request_)
        assert (there.reason, str(there), dict(there.rejected)) == (absent.reason, str(absent), dict(absent.rejected))
        assert there.retry_after_seconds == absent.retry_after_seconds
    assert with_hers.route(replace(request_, tenant_id="acme", privacy_level=PrivacyLevel.PUBLIC), 0.0)


def test_candidates_do_not_show_what_is_private_to_others() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b", [a_deployment(tenant_ids=("acme",))]))
    router = a_router(table)

    strange, hers = (router.candidates(a_request(tenant_id=tenant), 0.0) for tenant in ("globex", "acme"))

    assert [node_of(c.choice.deployment) for c in strange.candidates] == ["eu/a"]
    assert strange.rejected == {}
    assert len(hers.candidates) == 2


def test_decisions_do_not_tell_of_what_is_private_to_others() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b", [a_deployment(tenant_ids=("acme",))]))

    decision = a_router(table).route(a_request(tenant_id="globex", explain=Explain.FULL), 0.0)

    assert decision.rejected == {}
    assert decision.considered == 1
    assert "TENANT" not in decision.reasoning + str(decision.stages)
    assert [node_of(c.choice.deployment) for c in decision.candidates] == ["eu/a"]


def test_without_a_table_the_answer_is_to_try_again() -> None:
    router = a_router()

    error = refused(router)

    assert not router.ready
    assert error.reason == "ALL_NODES_UNHEALTHY"
    assert error.retry_after_seconds == pytest.approx(0.2)


def test_waiting_is_advised_until_the_first_circuit_lets_a_trial_through() -> None:
    table = a_table(a_node("eu/a"), health={"eu/a": replace(OPEN, circuit=replace(OPEN.circuit, retry_at=12.0))})

    assert refused(a_router(table)).retry_after_seconds == pytest.approx(12.0)


# Panic


def test_in_panic_health_no_longer_refuses_and_the_decision_says_so() -> None:
    sick = {f"eu/n{i}": SICK for i in range(3)}
    router = a_router(a_table(a_node("eu/well"), *(a_node(n) for n in sick), health=sick))

    decision = router.route(a_request(), 0.0)

    assert decision.panic
    assert decision.rejected == {}
    assert len(decision.alternatives) == 3
    assert "Too few candidates are healthy, so health was set aside." in decision.reasoning
    assert ways(decision)[0] == "eu/well", "the healthy one is still worth more"


def test_panic_spares_the_few_that_are_left() -> None:
    sick = {f"eu/n{i}": SICK for i in range(3)}
    router = a_router(a_table(a_node("eu/well"), *(a_node(n) for n in sick), health=sick))
    slot = router.state.slots[f"eu/well/{MODEL}"]

    # It has 12 s of work waiting, more than health is worth.
    router.state.await_others(slot, 12.0)

    assert ways(router.route(a_request(), 0.0))[0] in sick


def test_panic_loosens_no_hard_rule() -> None:
    sick = {f"eu/n{i}": SICK for i in range(3)}
    table = a_table(a_node("eu/well"), *(a_node(n) for n in sick), a_node("eu/public", **PUBLIC), health=sick)

    decision = a_router(table).route(a_request(exclude_nodes=("eu/n1",), max_alternatives=16), 0.0)

    assert decision.panic
    assert set(ways(decision)) == {"eu/well", "eu/n0", "eu/n2"}


# Half-open circuits


def test_a_half_open_circuit_gets_one_trial_at_a_time() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN}))

    first, second = (router.place(a_request(), 0.0) for _ in range(2))
    router.reservations.release(first.number)
    third = router.route(a_request(), 0.0)

    assert node_of(first.names()[0]) == "eu/b"
    assert "Tried the recovering" in first.render().reasoning
    assert node_of(second.names()[0]) == "eu/a"
    assert second.rejected == {"CIRCUIT_OPEN": 1}
    assert ways(third)[0] == "eu/b"


def test_a_half_open_circuit_is_never_an_alternative() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), a_node("eu/c"), health={"eu/b": HALF_OPEN}))

    decisions = [router.route(a_request(max_alternatives=16), 0.0) for _ in range(20)]

    assert all("eu/b" not in ways(decision)[1:] for decision in decisions)


def test_a_trial_that_nobody_reports_is_over_in_the_end() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN}))
    router.route(a_request(), 0.0)

    for tick in range(1, 2_000):
        router.sweep(tick / 10)

    assert ways(router.route(a_request(), 200.0))[0] == "eu/b"


# Alternatives


def test_alternatives_are_of_other_zones_and_then_of_another_region() -> None:
    table = a_table(
        a_node("eu/a1", zone="a"),
        a_node("eu/a2", zone="a"),
        a_node("eu/b1", zone="b"),
        a_node("eu/c1", zone="c"),
        a_node("us/a1", zone="a"),
        regions=[a_region("us", round_trip_seconds={"eu": 0.1})],
    )
    router = a_router(table)

    for _ in range(20):
        record = router.place(a_request(max_alternatives=3), 0.0)
        router.reservations.release(record.number)
        decision = record.render()
        target, *others = (decision.target, *decision.alternatives)
        zones = [(choice.region_id, choice.zone) for choice in (target, *others)]
        assert len(set(zones)) == 4
        assert others[-1].region_id == "us"


@pytest.mark.parametrize("wanted", [0, 1, 2, 5, 16])
def test_as_many_alternatives_are_named_as_were_asked_for_and_there_are(wanted: int) -> None:
    router = a_router(a_table(*(a_node(f"eu/n{i}") for i in range(6))))

    decision = router.route(a_request(max_alternatives=wanted), 0.0)

    assert len(decision.alternatives) == min(wanted, 5)
    assert len(set(ways(decision))) == len(ways(decision))


def test_a_request_that_does_not_say_how_many_gets_as_many_as_its_policy_says() -> None:
    nodes = [a_node(f"eu/n{i}") for i in range(6)]
    router = a_router(a_table(*nodes))
    router.install_policies({"few": Policy(policy_id="few", max_alternatives=1)})

    assert len(router.route(a_request(policy_id="few"), 0.0).alternatives) == 1
    assert len(router.route(a_request(policy_id="few", max_alternatives=4), 0.0).alternatives) == 4
    assert len(router.route(a_request(), 0.0).alternatives) == 3


# Explanations


def test_how_much_is_explained_is_the_requests_choice() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("us/b"), a_node("ap/c", **PUBLIC)))

    none, summary, whole = (router.route(a_request(explain=level), 0.0) for level in Explain)

    assert (none.reasoning, none.stages, none.candidates) == ("", (), ())
    assert summary.reasoning
    assert [stage.name for stage in summary.stages] == [
        "rules",
        "filters",
        "scorers",
        "affinity",
        "picker",
        "alternatives",
    ]
    assert summary.candidates == ()
    assert len(whole.candidates) == 3
    (rejection,) = (c.rejection for c in whole.candidates if c.rejection is not None)
    assert (rejection.code.name, rejection.bound, rejection.actual) == ("PRIVACY", ">= level 2", "level 1")
    assert none.rejected == summary.rejected == whole.rejected == {"PRIVACY": 1}


def test_a_decision_says_how_old_and_how_sure_its_inputs_are() -> None:
    stale = replace(WELL, signal_times={"probe": -100.0})
    table = a_table(a_node("eu/a"), a_node("us/b"), health={"us/b": stale}, now=0.0)

    decision = a_router(table).route(a_request(explain=Explain.FULL), 0.7)

    assert decision.table_revision == 1
    assert decision.table_age_seconds == pytest.approx(0.7)
    assert decision.stale_regions == ("us",)
    assert "No probe, metrics page or heartbeat of us is fresh." in decision.reasoning
    ages = {node_of(c.choice.deployment): c.signal_ages for c in decision.candidates}
    assert ages == {"eu/a": {"probe": pytest.approx(0.7)}, "us/b": {"probe": pytest.approx(100.7)}}


def test_a_decision_is_told_from_what_it_read_not_from_what_moved_on() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b")))
    record = router.place(a_request(), 0.0)
    told = record.render(Explain.FULL)

    for _ in range(50):
        router.route(a_request(), 0.0)
    router.install(a_table(a_node("eu/a"), health={"eu/a": SICK}, now=1.0))

    assert router.decision(record.decision_id).render(Explain.FULL) == told


def test_a_rule_shows_up_under_its_name() -> None:
    router = a_router(a_table(a_node("eu/a")))
    router.install_policies({"p": Policy("p", revision=4, rules=(Rule("gold", Match(tenants=("acme",))),))})

    decision = router.route(a_request(policy_id="p", tenant_id="acme"), 0.0)

    assert (decision.rule, decision.policy_id, decision.policy_revision) == ("gold", "p", 4)
    assert decision.reasoning.startswith("Rule 'gold' holds; ")


def test_the_servers_settings_bound_presets_and_not_stored_policies() -> None:
    router = a_router(a_table(a_node("eu/a")), min_score=0.7, max_candidates=2)
    router.install_policies({"p": Policy("p")})

    assert (router.policy("").min_score, router.policy("").max_candidates) == (0.7, 2)
    assert router.policy("p").min_score == 0.1


def test_a_prompt_is_not_refused_for_its_length_by_walk_nor_pipeline() -> None:
    for picker in ("predicted", "least_latency"):
        router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), models=[a_model(context_window_tokens=None)]))
        router.install_policies({"p": Policy("p", picker=picker)})

        record = router.place(a_request(policy_id="p", input_tokens=400_000), 0.0)

        assert record.rejected == {}
        assert record.walked == (picker == "predicted")


# Sessions and prefixes


def test_a_session_stays_where_it_went_for_as_long_as_the_policy_says_from_its_first_use() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{i}") for i in range(6))))
    router.install_policies({"p": Policy("p", session_ttl_seconds=10.0)})

    homes = [ways(router.route(a_request(session_id="s", policy_id="p"), float(now)))[0] for now in range(10)]
    later = {ways(router.route(a_request(session_id="s", policy_id="p"), 10.0 + 10 * n))[0] for n in range(30)}

    assert len(set(homes)) == 1
    assert len(later) > 1, "its end is not put off by use"


def test_sessions_of_other_tenants_or_models_do_not_meet() -> None:
    one, other, third = (
        a_request(session_id="s", tenant_id="acme"),
        a_request(session_id="s", tenant_id="globex"),
        a_request("m2", session_id="s", tenant_id="acme"),
    )

    assert len({one.session_key, other.session_key, third.session_key}) == 3


def test_a_session_leaves_a_deployment_that_degrades_and_stays_where_it_went() -> None:
    nodes = [a_node(f"eu/n{i}") for i in range(6)]
    router = a_router(a_table(*nodes))
    home = ways(router.route(a_request(session_id="s"), 0.0))[0]

    router.install(a_table(*nodes, health={home: DEGRADED}, now=1.0))
    moved = ways(router.route(a_request(session_id="s"), 1.0))[0]
    router.install(a_table(*nodes, now=2.0))
    after = {ways(router.route(a_request(session_id="s"), 2.0 + n))[0] for n in range(20)}

    assert moved != home
    assert after == {moved}, "one that recovered gets new sessions, not those that left it"


def test_the_longest_run_of_prefixes_draws_a_request() -> None:
    slow = a_deployment(profile=ServingProfile(0.001, 0.05, 50.0, 32))
    router = a_router(a_table(*(a_node(f"eu/n{i}", [slow]) for i in range(4))))
    short, long = (router.state.slots[f"eu/n{i}/{MODEL}"] for i in (1, 3))
    router.state.saw_prefixes([11, 12], short)
    router.state.saw_prefixes([11, 12, 13, 14], long)

    record = router.place(a_request(input_tokens=2_600, prefix_hashes=(11, 12, 13, 14, 15)), 0.0)

    assert node_of(record.names()[0]) == "eu/n3"
    assert float(record.load.cached_tokens[record.target]) == 4 * 512
    assert "2048 of them probably cached" in record.render().reasoning


def test_a_policy_may_do_without_prefixes() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b")))
    router.install_policies({"p": Policy("p", prefix_affinity=False)})
    router.state.saw_prefixes([11], router.state.slots[f"eu/a/{MODEL}"])

    record = router.place(a_request(policy_id="p", prefix_hashes=(11,)), 0.0)

    assert not record.load.cached_tokens.any()


def test_a_prefix_that_everybody_shares_does_not_herd() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{i}") for i in range(10))))
    found = Counter[str]()
    running: list[int] = []

    for number in range(2_000):
        record = router.place(a_request(input_tokens=1_500, prefix_hashes=(1, 1_000 + number)), number / 100)
        found[node_of(record.names()[0])] += 1
        running.append(record.number)
        if len(running) > 100:
            router.reservations.release(running.pop(0))

    assert len(found) == 10
    assert max(found.values()) < 2 * 200
    assert min(found.values()) > 200 / 2
