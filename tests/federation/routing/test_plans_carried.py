"""Plans that outlive their table decide as those that were made for it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from catalog.rolls import Roll
from catalog.types import Node, PriceBand
from federation.routing.compiling import compile_catalog, recompile
from federation.routing.router import Router
from federation.routing.table import Tables
from policies.errors import NoCandidate
from policies.health import DeploymentHealth, Grade
from tests.builders import MODEL, WELL, a_deployment, a_node, a_region, a_request, a_router, a_snapshot, all_well

OTHER = "other"


def a_fleet() -> list[Node]:
    return [
        a_node(
            f"{region}/n{number}",
            [
                a_deployment(
                    model,
                    price_usd_per_million_output_tokens=1.0 + number % 2,
                    price_bands=(PriceBand(0, 12 * 60, 0.5),) if number == 3 else (),
                )
                for model in ((MODEL, OTHER) if number % 4 == 0 else (MODEL,))
            ],
            zone=f"z{number % 2}",
        )
        for region in ("eu", "us")
        for number in range(8)
    ]


def told(router: Router, request: Any, now: float, number: int) -> object:
    try:
        record = router.decide(request, now, number=number)
    except NoCandidate as refused:
        return refused.reason, str(refused)
    ranking = record.plan.ranking
    return (
        record.names(),
        record.rejected,
        record.plan.table is router.table,
        ranking.rows.tolist(),
        ranking.at_best,
        ranking.counts,
        ranking.window,
        record.plan.scalars,
        record.plan.room,
        record.plan.round_trips,
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_that_was_carried_over_is_the_one_that_would_be_made(seed: int) -> None:
    rng = Random(seed)
    trips = {"eu": 0.08, "us": 0.08}
    snapshot = a_snapshot(*a_fleet(), regions=[a_region(name, round_trip_seconds=trips) for name in ("eu", "us")])
    compiled, tables = compile_catalog(snapshot), Tables("eu")
    health: Roll[DeploymentHealth] = Roll(all_well(snapshot))
    names = sorted(health)
    one, other = a_router(), a_router()
    asked = [
        a_request(model, origin_region=origin, input_tokens=tokens, tenant_id=tenant)
        for model in (MODEL, OTHER)
        for origin in ("eu", "us", "ap")
        for tokens in (100, 3_000)
        for tenant in ("", "t")
    ]

    for step in range(25):
        now = float(step)
        match rng.choice(["health", "figures", "drain", "zone", "nothing", "region", "gone"]):
            case "health":
                grade = rng.choice(list(Grade))
                health = health.after({rng.choice(names): replace(WELL, grade=grade, score=rng.random())})
            case "figures":
                name = rng.choice(names)
                health = health.after({name: replace(health[name], latency_p50_seconds=rng.random())})
            case "drain" | "zone" | "region" | "gone" as what:
                before = snapshot
                name = rng.choice(sorted(snapshot.nodes))
                node = snapshot.nodes[name]
                nodes, regions = dict(snapshot.nodes), dict(snapshot.regions)
                match what:
                    case "drain":
                        nodes[name] = replace(node, draining=not node.draining)
                    case "zone":
                        nodes[name] = replace(node, zone=rng.choice(["z0", "z1", "z7"]))
                    case "region":
                        regions["us"] = replace(regions["us"], round_trip_seconds={"eu": rng.random() / 5})
                    case _:
                        del nodes[name]
                snapshot = replace(snapshot, nodes=nodes, regions=regions, revision=step + 2)
                compiled = recompile(compiled, before, snapshot)
        table = tables.build(compiled, health, now=now, unix_time=3_600.0 * step)
        one.install(table)
        other.install(table)
        if rng.random() < 0.5:
            while one.renew_plans(1):
                pass
        # The other one forgets, and makes all anew.
        other.install_policies({})
        for request in rng.sample(asked, 12):
            for number in range(2):
                assert told(one, request, now, number) == told(other, request, now, number)

    planner = one.planner
    assert planner.carried
    assert planner.renewed
    assert planner.built < other.planner.built


def test_what_moved_elsewhere_does_not_make_a_plan_anew() -> None:
    snapshot = a_snapshot(*a_fleet())
    tables, health = Tables("eu"), Roll(all_well(snapshot))
    compiled, router = compile_catalog(snapshot), a_router()
    router.install(tables.build(compiled, health, now=0.0))
    only_there, everywhere = a_request(OTHER), a_request(MODEL)
    for request in (only_there, everywhere):
        router.decide(request, 0.0, number=1)
    built = router.planner.built

    sick = health.after({f"us/n1/{MODEL}": replace(WELL, score=0.4)})
    router.install(tables.build(compiled, sick, now=0.1))
    router.decide(only_there, 0.1, number=2)
    assert router.planner.built == built

    router.decide(everywhere, 0.1, number=3)
    assert router.planner.built == built + 1


def test_plans_that_come_again_are_made_before_they_are_asked_for() -> None:
    snapshot = a_snapshot(*a_fleet())
    tables, health = Tables("eu"), Roll(all_well(snapshot))
    compiled, router = compile_catalog(snapshot), a_router()
    router.install(tables.build(compiled, health, now=0.0))
    router.decide(a_request(MODEL), 0.0, number=1)

    sick = health.after({f"us/n1/{MODEL}": replace(WELL, score=0.4)})
    router.install(tables.build(compiled, sick, now=0.1))

    assert (router.renew_plans(1), router.renew_plans(1)) == (1, 0)
    built = router.planner.built
    record = router.decide(a_request(MODEL), 0.1, number=2)
    assert (router.planner.built, record.plan.table) == (built, router.table)

    # Nobody came for long: it is not made for nobody.
    for second in range(1, 5):
        later = sick.after({f"us/n1/{MODEL}": replace(WELL, score=0.4 + second / 10)})
        router.install(tables.build(compiled, later, now=float(second)))
    assert router.renew_plans(1) == 0


def test_plans_that_nobody_asks_for_are_forgotten() -> None:
    snapshot = a_snapshot(*a_fleet())
    tables, health = Tables("eu"), Roll(all_well(snapshot))
    compiled, router = compile_catalog(snapshot), a_router()
    router.install(tables.build(compiled, health, now=0.0))
    router.decide(a_request(MODEL), 0.0, number=1)
    assert len(router.planner) == 1

    router.install(tables.build(compiled, health, now=100.0))

    assert len(router.planner) == 0
