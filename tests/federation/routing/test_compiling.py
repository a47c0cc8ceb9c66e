"""Columns that follow a catalog change by change are those of the catalog compiled at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from catalog.rolls import Roll, changed
from catalog.snapshot import EMPTY_SNAPSHOT
from catalog.types import Node, PriceBand, Reach, RegionStatus, ServingProfile, Snapshot
from federation.routing.compiled import Compiled
from federation.routing.compiling import INDEXES, NOTHING, compile_catalog, recompile
from federation.routing.seats import Seats
from federation.routing.state import State
from federation.routing.table import Tables, build_table
from policies.errors import NoCandidate
from policies.health import CircuitState, CircuitView, DeploymentHealth, Grade
from policies.pool import COLUMNS
from policies.types import Explain
from tests.builders import MODEL, a_deployment, a_model, a_node, a_region, a_request, a_router, a_snapshot, all_well

REGIONS = ("ap", "eu", "eu-2", "us")
MODELS = ("bge", MODEL, "org/other")
NODES = tuple(f"{region}/{node}" for region in REGIONS for node in ("a", "a-1", "a.b", "b", "c"))
# Numbers that mean only that two rows have the same one.
LABELS = ("zone", "node")


def a_random_node(name: str, rng: Random) -> Node:
    served = [
        a_deployment(
            model_id,
            capabilities=rng.choice([(), ("generate",), ("embed", "code")]),
            price_usd_per_million_input_tokens=rng.choice([None, 1.0, 2.0]),
            profile=ServingProfile(prefill_seconds_per_token=rng.choice([None, 0.0002])),
            max_concurrency=rng.choice([None, 4]),
            adapters=rng.choice([(), ("x",)]),
            tenant_ids=rng.choice([(), (), ("t1", "t2")]),
            price_bands=rng.choice([(), (PriceBand(0, 600, 0.5),)]),
        )
        for model_id in rng.sample([*MODELS, "nobody-knows-it"], rng.randint(1, 3))
    ]
    return a_node(
        name,
        served,
        zone=rng.choice(["", "z1", "z2"]),
        accelerator=rng.choice(["", "H100"]),
        accelerator_count=0,
        draining=rng.random() < 0.2,
        price_usd_per_hour=rng.choice([None, 3.6]),
        labels={"tier": rng.choice(["gold", "tin"]), "node": name},
    )


def set_node(snapshot: Snapshot, rng: Random) -> Snapshot:
    made = {name: a_random_node(name, rng) for name in rng.sample(NODES, rng.randint(1, 4))}
    return replace(snapshot, nodes=after(snapshot.nodes, made))


def drain_node(snapshot: Snapshot, rng: Random) -> Snapshot:
    if not snapshot.nodes:
        return snapshot
    name = rng.choice(sorted(snapshot.nodes))
    node = snapshot.nodes[name]
    return replace(snapshot, nodes=after(snapshot.nodes, {name: replace(node, draining=not node.draining)}))


def remove_node(snapshot: Snapshot, rng: Random) -> Snapshot:
    gone = rng.sample(sorted(snapshot.nodes), min(len(snapshot.nodes), rng.randint(1, 3)))
    return replace(snapshot, nodes=after(snapshot.nodes, {}, gone))


def set_region(snapshot: Snapshot, rng: Random) -> Snapshot:
    name = rng.choice(REGIONS)
    made = a_region(
        name,
        status=rng.choice(list(RegionStatus)),
        reach=rng.choice(list(Reach)),
        ingress_endpoint="https://in",
        round_trip_seconds={"eu": rng.random()},
    )
    imported = frozenset(rng.sample(REGIONS, rng.randint(0, 2)))
    return replace(snapshot, regions=after(snapshot.regions, {name: made}), imported=imported)


def remove_region(snapshot: Snapshot, rng: Random) -> Snapshot:
    return replace(snapshot, regions=after(snapshot.regions, {}, [rng.choice(REGIONS)]))


def set_model(snapshot: Snapshot, rng: Random) -> Snapshot:
    name = rng.choice(MODELS)
    made = a_model(
        name,
        capabilities=rng.choice([(), ("generate",), ("rerank",)]),
        context_window_tokens=rng.choice([None, 8_192]),
        aliases=rng.choice([(), (f"{name}-alias",)]),
    )
    return replace(snapshot, models=after(snapshot.models, {name: made}))


def remove_model(snapshot: Snapshot, rng: Random) -> Snapshot:
    return replace(snapshot, models=after(snapshot.models, {}, [rng.choice(MODELS)]))


CHANGES: tuple[Callable[[Snapshot, Random], Snapshot], ...] = (
    *(set_node, set_node, set_node, drain_node, drain_node, remove_node),
    *(set_region, set_region, remove_region, set_model, set_model, remove_model),
)


def after(values: Mapping[str, Any], made: Mapping[str, Any], gone: Iterable[str] = ()) -> Mapping[str, Any]:
    """The next mapping: of rolls a roll, else one that has no past."""
    if isinstance(values, Roll):
        return values.after(made, gone)
    left = {name: value for name, value in values.items() if name not in frozenset(gone)}
    return {**left, **made}


def meaning(compiled: Compiled) -> dict[str, Any]:
    """Everything that a table reads of the catalog, with nothing but names in it."""
    pool, facts = compiled.pool, compiled.pool.facts
    names = pool.names
    return {
        "names": names,
        "columns": {name: repr(getattr(pool, name).tolist()) for name in COLUMNS if name not in LABELS},
        "zones": [pool.zones[number] for number in pool.zone.tolist()],
        "nodes": [names[pool.node.tolist().index(number)] for number in pool.node.tolist()],
        "places": pool.places,
        "models": pool.models,
        "endpoints": pool.endpoints,
        "facts": {
            name: {value: [names[row] for row in rows] for value, rows in getattr(facts, name).items()}
            for name in INDEXES
        },
        "size": facts.size,
        "deployed": compiled.deployed,
        "status": compiled.status.tolist(),
        "node_names": compiled.node_names,
        "by_model": {name: rows.tolist() for name, rows in compiled.rows_by_model.items()},
        "by_capability": {name: rows.tolist() for name, rows in compiled.rows_by_capability.items()},
        "model_ids": compiled.model_ids,
        "identities": compiled.models,
        "capabilities": compiled.capabilities,
        "rows": compiled.row_of,
        "hour": repr(compiled.hour_price.tolist()),
        "bands": compiled.bands,
        "unplaced": compiled.unplaced,
    }


@pytest.mark.parametrize("rolled", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_any_changes_one_after_the_other_lead_to_the_columns_of_the_whole(seed: int, rolled: bool) -> None:
    rng = Random(seed)
    snapshot = a_snapshot(*(a_random_node(name, rng) for name in NODES[::2]))
    if rolled:
        snapshot = replace(
            snapshot, regions=Roll(snapshot.regions), models=Roll(snapshot.models), nodes=Roll(snapshot.nodes)
        )
    compiled = recompile(NOTHING, EMPTY_SNAPSHOT, snapshot)
    older: list[tuple[Compiled, dict[str, Any]]] = []

    for revision in range(2, 40):
        before = snapshot
        for _ in range(rng.choice([1, 1, 3])):
            snapshot = replace(rng.choice(CHANGES)(snapshot, rng), revision=revision)
        older.append((compiled, meaning(compiled)))
        compiled = recompile(compiled, before, snapshot)

        assert meaning(compiled) == meaning(compile_catalog(snapshot))
    # What was made before is as it was: tables of older revisions are still read.
    assert all(meaning(each) == told for each, told in older)


@pytest.mark.parametrize("seed", range(4))
def test_decisions_do_not_tell_how_the_columns_came_about(seed: int) -> None:
    rng = Random(seed)
    regions, models = [a_region(name) for name in REGIONS], [a_model(name) for name in MODELS]
    snapshot = a_snapshot(*(a_random_node(name, rng) for name in NODES), regions=regions, models=models)
    compiled = compile_catalog(snapshot)
    one, other = a_router(), a_router()

    for step in range(12):
        before, now = snapshot, float(step)
        snapshot = replace(rng.choice(CHANGES[:6])(snapshot, rng), revision=step + 2)
        compiled = recompile(compiled, before, snapshot)
        told = all_well(snapshot)
        one.install(build_table(compiled, told, home_region="eu", now=now))
        other.install(build_table(snapshot, told, home_region="eu", now=now))
        for number in range(6):
            request = a_request(rng.choice(MODELS), origin_region=rng.choice(REGIONS), explain=Explain.FULL)
            assert decided(one, request, now + number / 100) == decided(other, request, now + number / 100)


def decided(router: Any, request: Any, now: float) -> object:
    try:
        decision = router.route(request, now)
    except NoCandidate as refused:
        return refused.reason, str(refused)
    return decision.target, decision.alternatives, decision.reasoning, decision.rejected


def test_what_did_not_change_is_shared() -> None:
    snapshot = a_snapshot(a_node("eu/a"), a_node("eu/b"), a_node("us/c"))
    compiled = compile_catalog(snapshot)

    drained = replace(snapshot, nodes={**snapshot.nodes, "eu/b": replace(snapshot.nodes["eu/b"], draining=True)})
    after_drain = recompile(compiled, snapshot, drained)

    assert after_drain.status is not compiled.status
    shared = [name for name in COLUMNS if getattr(after_drain.pool, name) is getattr(compiled.pool, name)]
    assert set(COLUMNS) - set(shared) == {"status"}
    assert after_drain.pool.facts is compiled.pool.facts
    assert after_drain.row_of is compiled.row_of


def test_an_index_forgets_values_that_nobody_has_any_more() -> None:
    snapshot = a_snapshot(a_node("eu/a"))
    compiled = compile_catalog(snapshot)
    for number in range(1_100):
        before = snapshot
        node = replace(snapshot.nodes["eu/a"], labels={"pod": str(number)})
        snapshot = replace(snapshot, nodes={"eu/a": node})
        compiled = recompile(compiled, before, snapshot)

    assert list(compiled.pool.facts.labels) == [("pod", "1099")]
    assert len(compiled.pool.facts.labels.numbers) < 1_100  # type: ignore[attr-defined]


def test_a_roll_tells_what_differs_from_another_by_their_common_past() -> None:
    first = Roll({"a": 1, "b": 2, "c": 3})
    second = first.after({"a": 4}, ["c"])
    branch = first.after({"b": 5})

    assert changed(first, second) == {"a", "c"}
    assert changed(second, first) == {"a", "c"}
    assert changed(branch, second) == {"a", "b", "c"}
    assert changed(first, Roll({"a": 1, "b": 9})) == {"b", "c"}
    assert first == {"a": 1, "b": 2, "c": 3}
    assert first.after({}, ["x"]) is first
    with pytest.raises(TypeError):
        first["a"] = 2
    assert not changed(second, second)


def test_a_roll_that_went_further_than_it_remembers_is_compared() -> None:
    first = last = Roll({str(number): number for number in range(5)})
    for number in range(200):
        last = last.after({"0": number + 100})

    assert changed(first, last) == {"0"}
    assert np.array_equal(sorted(last), sorted(first))


def a_random_health(rng: Random) -> DeploymentHealth:
    state = rng.choice(list(CircuitState))
    return DeploymentHealth(
        grade=rng.choice(list(Grade)),
        ready=rng.random() < 0.8,
        score=rng.random(),
        circuit=CircuitView(state, retry_at=30.0 if state is CircuitState.OPEN else 0.0),
        recovered_at=rng.choice([float("-inf"), 3.0]),
        ejected_until=rng.choice([0.0, 0.0, 8.0]),
        latency_p50_seconds=rng.choice([None, 0.5]),
        latency_peak_seconds=rng.choice([None, 0.7]),
        prefill_seconds_per_token=rng.choice([None, 0.001]),
        min_time_to_first_token_seconds=rng.choice([None, 0.1]),
        decode_tokens_per_second=rng.choice([None, 40.0]),
        signal_times={kind: rng.random() for kind in ("probe", "load", "outcome") if rng.random() < 0.5},
    )


@pytest.mark.parametrize("seed", range(8))
def test_tables_one_after_the_other_are_those_built_at_once(seed: int) -> None:
    rng = Random(seed)
    snapshot = a_snapshot(*(a_random_node(name, rng) for name in NODES[::2]), regions=[a_region(n) for n in REGIONS])
    compiled, tables, seats = compile_catalog(snapshot), Tables("eu"), Seats(State())
    health: Roll[DeploymentHealth] = Roll()
    before_build, taken = compiled, State()

    for step in range(40):
        before, now = snapshot, step / 3
        if rng.random() < 0.4:
            snapshot = replace(rng.choice(CHANGES)(snapshot, rng), revision=step + 2)
        compiled = recompile(before_build, before, snapshot)
        before_build = compiled
        deployments = sorted(compiled.pool.names)
        told = rng.sample(deployments, min(len(deployments), rng.randint(0, 4)))
        health = health.after(
            {name: a_random_health(rng) for name in told}, rng.sample(sorted(health), len(health) // 9)
        )
        more: Any = {
            "now": now,
            "unix_time": 3_600.0 * step,
            "expired_nodes": rng.sample(NODES, 1),
            "lapsed_regions": rng.sample(REGIONS, rng.randint(0, 1)),
        }
        table = tables.build(compiled, health, **more)
        fresh = build_table(snapshot, dict(health), home_region="eu", **more)

        for name in COLUMNS:
            if name not in LABELS:
                assert repr(getattr(table.pool, name).tolist()) == repr(getattr(fresh.pool, name).tolist()), name
        heard = {kind: times.tolist() for kind, times in table.signals.items() if np.isfinite(times).any()}
        assert heard == {kind: times.tolist() for kind, times in fresh.signals.items() if np.isfinite(times).any()}
        assert (table.stale_regions, table.retry_at) == (fresh.stale_regions, fresh.retry_at)

        slots = seats.follow(table).tolist()
        assert slots == taken.slots_for(table.pool.names, now).tolist()
        assert [seats.name(slot) for slot in slots] == list(table.pool.names)
        free = sorted(set(range(max(slots, default=0) + 20)) - set(slots))
        assert {seats.name(slot) for slot in [*free, -1]} == {""}
        by_node: dict[str, list[tuple[int, int]]] = {node: [] for node in NODES}
        for row, (slot, node) in enumerate(zip(slots, table.compiled.node_names, strict=True)):
            by_node[node].append((row, slot))
        assert {node: seats.of_node(node) for node in by_node} == by_node
