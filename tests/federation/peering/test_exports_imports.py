"""What is told to whom, and what becomes of it on the other side: leases, privacy, law, models of the same name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.types import PrivacyLevel, Reach, Snapshot
from federation.peering.exports import (
    PART_WEIGHT,
    ExportRules,
    difference,
    export_rules,
    export_view,
    snapshot_of,
)
from federation.peering.imports import KEEP_SECONDS, Imports
from federation.peering.loads import FarLoads
from federation.peering.messages import DeploymentReport, Identity, NodeReport, Replacement, View
from federation.peering.reports import Reporter
from federation.peering.session import Applied
from federation.routing.router import Router
from federation.routing.table import build_table
from policies.errors import NoCandidate
from policies.health import CircuitState, CircuitView, DeploymentHealth, Grade
from policies.types import Decision, Explain
from tests.builders import MODEL, WELL, a_deployment, a_model, a_node, a_region, a_request, a_router, a_snapshot

EU = Identity("eu", ("eu", "eu-2"), "life-1", ("DE", "EU"))
US = Identity("us", ("us",), "life-1", ("US",))
OURS = a_snapshot(a_node("us/a", owner="us"), regions=[a_region("us", jurisdictions=("US",), owner="us")])
READY = DeploymentReport(MODEL, grade=Grade.HEALTHY, ready=True, score=1.0)


def imported(
    view: View | None = None, report: DeploymentReport = READY, at: float = 0.0, identity: Identity = EU
) -> Imports:
    """What a peer told, with one report for all of its deployments."""
    view = view or a_view()
    imports = Imports()
    imports.met(identity, 30.0, at)
    whole = Replacement(view.revision, True, view.regions, view.models, view.nodes)
    imports.apply(identity.region_id, whole, Applied(identity.incarnation, view.revision), at)
    reports = [
        NodeReport(node.name, tuple(replace(report, model_id=each.model_id) for each in node.deployments))
        for node in view.nodes.values()
    ]
    imports.told(identity.region_id, reports, at)
    return imports


def a_view(privacy: PrivacyLevel | None = PrivacyLevel.RESTRICTED, **region: object) -> View:
    node = a_node("eu/n", owner="eu", privacy_level=privacy)
    eu = replace(a_region("eu", owner="eu"), **region)
    return View(4, {"eu": eu}, {MODEL: a_model(owner="eu")}, {"eu/n": node})


def decide(imports: Imports, now: float = 0.0, own: Snapshot = OURS, well: bool = False, **request: object) -> Decision:
    return a_decider(imports, now, own, well).route(a_request(**{"origin_region": "us", **request}), now)


def a_decider(imports: Imports, now: float, own: Snapshot = OURS, well: bool = False) -> Router:
    """A router of region us whose own nodes are not ready, unless they are well."""
    merged = imports.merged(own, "us")
    here = {each.name: WELL for node in own.nodes.values() for each in node.deployments} if well else {}
    table = build_table(
        merged, imports.overlaid(merged, here, now), home_region="us", now=now, lapsed_regions=imports.lapsed_regions()
    )
    return a_router(table)


def reasons(imports: Imports, now: float = 0.0, **request: object) -> dict[str, str]:
    """Why no candidate is left, by deployment."""
    router = a_decider(imports, now)
    found = router.candidates(a_request(**{"origin_region": "us", "explain": Explain.FULL, **request}), now)
    return {c.choice.deployment: "" if c.rejection is None else c.rejection.code.name for c in found.candidates}


# What is told.


def test_only_what_is_owned_is_told_so_that_nobody_passes_on_an_import():
    merged = imported().merged(OURS, "us")

    view = export_view(merged, US, EU, ExportRules())

    assert sorted(view.nodes) == ["us/a"]
    assert sorted(view.regions) == ["us"]


@pytest.mark.parametrize(
    ("models", "withhold", "law", "told"),
    [
        ((), (), (), ["open", "secret"]),
        (("op*",), (), ("US",), ["open"]),
        ((), ("sec*@US",), ("US",), ["open"]),
        ((), ("sec*@US",), ("DE", "EU"), ["open", "secret"]),
        ((), ("sec*@US",), (), ["open"]),
        (("other",), (), (), []),
    ],
)
def test_rules_say_which_models_are_told_to_whom(
    models: tuple[str, ...], withhold: tuple[str, ...], law: tuple[str, ...], told: list[str]
):
    node = a_node("us/a", [a_deployment("open"), a_deployment("secret")], owner="us")

    view = export_view(a_snapshot(node), US, replace(EU, jurisdictions=law), export_rules(models, withhold))

    assert sorted(view.models) == told
    assert [d.model_id for each in view.nodes.values() for d in each.deployments] == told


def test_a_large_view_is_told_in_parts_that_make_it_up_again():
    nodes = [a_node(f"us/n{number:04}", owner="us") for number in range(PART_WEIGHT * 2 + 1)]
    view = export_view(a_snapshot(*nodes), US, EU, ExportRules())

    parts = snapshot_of(view)

    assert [part.complete for part in parts] == [False, False, True]
    assert [part.part for part in parts] == [0, 1, 2]
    assert [node for part in parts for node in part.nodes] == nodes


def test_a_difference_names_what_is_new_changed_and_gone():
    before = export_view(a_snapshot(a_node("us/a", owner="us"), a_node("us/b", owner="us")), US, EU, ExportRules())
    changed = a_node("us/b", owner="us", draining=True)
    after = export_view(a_snapshot(changed, a_node("us/c", owner="us"), revision=9), US, EU, ExportRules())

    (delta,) = difference(before, after)

    assert (delta.from_revision, delta.to_revision) == (1, 9)
    assert [node.name for node in delta.nodes] == ["us/b", "us/c"]
    assert delta.removed_nodes == ("us/a",)


def test_reports_are_made_anew_only_where_health_changed():
    reporter = Reporter()
    nodes = OURS.nodes
    health = {f"us/a/{MODEL}": WELL}

    first = reporter.reports(nodes, health, frozenset(), 0.0)["us/a"]
    again = reporter.reports(nodes, dict(health), frozenset(), 9.0)["us/a"]
    ended = reporter.reports(nodes, health, frozenset({"us/a"}), 9.0)["us/a"]

    assert again is first
    assert not ended.deployments[0].ready
    assert ended.reason == "its lease ended without a heartbeat"


# What becomes of it.


def test_an_imported_node_is_routed_to_like_any_other():
    decision = decide(imported())

    assert decision.target.deployment == f"eu/n/{MODEL}"
    assert not decision.target.via_gateway


def test_the_target_is_the_ingress_where_the_region_says_so():
    decision = decide(imported(a_view(reach=Reach.GATEWAY, ingress_endpoint="https://in.eu.example")))

    assert (decision.target.via_gateway, decision.target.endpoint) == (True, "https://in.eu.example")
    assert decision.target.node_id == ""


@pytest.mark.parametrize(
    ("declared", "asked", "code"),
    [
        (None, PrivacyLevel.PUBLIC, ""),
        (None, PrivacyLevel.INTERNAL, "PRIVACY"),
        (PrivacyLevel.CONFIDENTIAL, PrivacyLevel.CONFIDENTIAL, ""),
        (PrivacyLevel.CONFIDENTIAL, PrivacyLevel.RESTRICTED, "PRIVACY"),
    ],
)
def test_an_import_serves_the_privacy_that_its_owner_declared_and_without_only_public(
    declared: PrivacyLevel | None, asked: PrivacyLevel, code: str
):
    assert reasons(imported(a_view(declared)), privacy_level=asked)[f"eu/n/{MODEL}"] == code


@pytest.mark.parametrize(("law", "code"), [(("DE", "EU"), ""), (("US",), "JURISDICTION"), ((), "JURISDICTION")])
def test_residency_goes_by_what_the_owner_declared_and_fails_closed(law: tuple[str, ...], code: str):
    found = reasons(imported(a_view(jurisdictions=law)), jurisdictions=("EU",))

    assert found[f"eu/n/{MODEL}"] == code


def test_an_import_fades_with_age_and_leaves_with_the_lease_and_comes_back_with_the_next_word():
    imports = imported()
    merged = imports.merged(OURS, "us")
    name = f"eu/n/{MODEL}"

    scores = [imports.overlaid(merged, {}, age)[name].score for age in (0.0, 10.0, 29.0)]
    assert imports.tick(29.9) == ()
    assert imports.tick(30.0) == ("eu",)
    after = reasons(imports, now=30.0)

    assert 1.0 == scores[0] > scores[1] > scores[2] > 0.3
    assert after[name] == "PEER_LEASE_EXPIRED"
    with pytest.raises(NoCandidate):
        decide(imports, now=30.0)

    imports.heard("eu", 31.0)
    assert decide(imports, now=31.0).target.deployment == name


def test_what_was_imported_is_forgotten_long_after_its_lease():
    imports = imported()
    imports.tick(30.0)

    imports.tick(30.0 + KEEP_SECONDS)

    assert imports.merged(OURS, "us") is OURS


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (replace(READY, grade=Grade.UNHEALTHY), "UNHEALTHY"),
        (replace(READY, ready=False), "NOT_READY"),
        (replace(READY, ejected_seconds=60.0), "EJECTED"),
        (replace(READY, circuit=CircuitView(CircuitState.OPEN), retry_after_seconds=9.0), "CIRCUIT_OPEN"),
        (replace(READY, circuit=CircuitView(CircuitState.HALF_OPEN)), "CIRCUIT_OPEN"),
    ],
)
def test_the_owners_word_on_health_counts(report: DeploymentReport, code: str):
    assert reasons(imported(report=report))[f"eu/n/{MODEL}"] == code


def test_a_circuit_that_outcomes_opened_here_counts_whatever_the_owner_says():
    imports = imported()
    merged = imports.merged(OURS, "us")
    opened = DeploymentHealth(circuit=CircuitView(CircuitState.OPEN, 5, 1, 30.0, "5 failures in a row"))

    laid = imports.overlaid(merged, {f"eu/n/{MODEL}": opened}, 0.0)[f"eu/n/{MODEL}"]

    assert laid.circuit is opened.circuit
    assert laid.grade is Grade.HEALTHY


def test_models_that_differ_are_different_models_to_failover():
    own = a_snapshot(
        a_node("us/a", owner="us"),
        regions=[a_region("us", owner="us")],
        models=[a_model(quantization="fp8", equivalence_class="chat", owner="us")],
    )
    theirs = replace(a_view(), models={MODEL: a_model(quantization="int4", equivalence_class="chat", owner="eu")})
    imports = imported(theirs)

    with pytest.raises(NoCandidate):
        decide(imports, own=own)
    substitute = decide(imports, own=own, allow_substitutes=True).target

    assert substitute.model_id == f"{MODEL}@eu"
    assert substitute.served_model_name == MODEL
    assert any("quantization" in each for each in substitute.substitution_differences)


def test_a_measured_round_trip_goes_before_what_regions_declare_and_small_changes_are_no_news():
    imports = imported(a_view(round_trip_seconds={"us": 9.0}))
    imports.measured("eu", 0.090)
    version = imports.catalog_version
    imports.measured("eu", 0.095)

    merged = imports.merged(OURS, "us")

    assert imports.catalog_version == version
    assert merged.regions["us"].round_trip_seconds["eu"] == 0.090
    assert merged.regions["eu"].round_trip_seconds["us"] == 0.090


def test_nodes_that_did_not_change_stay_the_same_values_over_a_delta():
    imports = imported()
    before = imports.merged(OURS, "us").nodes["eu/n"]
    delta = Replacement(5, False, nodes={"eu/m": a_node("eu/m", owner="eu")})

    imports.apply("eu", delta, Applied("life-1", 5), 1.0)

    merged = imports.merged(OURS, "us")
    assert merged.nodes["eu/n"] is before
    assert sorted(merged.nodes) == ["eu/m", "eu/n", "us/a"]
    assert merged.imported == {"eu"}


def test_a_peer_that_comes_back_after_its_lease_counts_for_little_at_first():
    imports = imported(at=0.0)
    imports.tick(31.0)
    imports.heard("eu", 40.0)
    health = {"eu/n/llama-3-8b": WELL}
    merged = imports.merged(OURS, "us")

    def score(now: float) -> float:
        imports.heard("eu", now)
        return imports.overlaid(merged, health, now)["eu/n/llama-3-8b"].score

    assert [score(now) for now in (40.0, 70.0, 100.0, 160.0)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_the_load_of_far_nodes_is_told_at_once_and_again_while_it_stands():
    imports = imported(at=0.0)
    told: list[tuple[str, float | None, float | None]] = []
    loads = FarLoads(imports, lambda node, running, queue, now: told.append((node, running, queue)))
    loads.step(0.0)
    told.clear()

    imports.told("eu", [NodeReport("eu/n", (READY,), running_requests=8.0, queue_depth=3.0)], 1.0)
    for step in range(3):
        loads.step(1.0 + step / 10)
    busy = len(told)
    imports.tick(40.0)
    loads.step(40.0)
    loads.step(40.1)

    assert set(told) == {("eu/n", 8.0, 3.0)}
    assert busy == 4
    assert len(told) == busy
