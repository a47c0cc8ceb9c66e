"""CPU of a new table: after a change of health, after a change of the catalog, and for no reason but its age."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from catalog.rolls import Roll, roll
from catalog.snapshot import rolled
from catalog.types import Node, Snapshot
from federation.routing.compiling import compile_catalog, recompile
from federation.routing.table import Table, Tables
from policies.health import DeploymentHealth
from tests.bench.deciding import a_fleet
from tests.bench.measure import Result, Scope, held, seconds
from tests.builders import WELL, all_well

# Deployments or nodes that change at once.
CHANGED = 100


def rebuild(snapshot: Snapshot, changed: int = CHANGED) -> Callable[[], Table]:
    """A table after other scores of some deployments, once a call."""
    compiled, tables = compile_catalog(snapshot), Tables("r0")
    health: Roll[DeploymentHealth] = Roll(all_well(snapshot))
    tables.build(compiled, health, now=1.0)
    views = itertools.cycle(
        [
            health.after({name: replace(WELL, score=score) for name in list(health)[:changed]})
            for score in (0.5, 0.6, 0.7)
        ]
    )
    return lambda: tables.build(compiled, next(views), now=1.0)


def recompiled(snapshot: Snapshot, change: Callable[[Node], Node | None]) -> Callable[[], object]:
    """Columns after a change of some nodes, once a call; None takes a node away."""
    before = rolled(snapshot)
    compiled = compile_catalog(before)
    made = {name: change(before.nodes[name]) for name in list(before.nodes)[:CHANGED]}
    news = {name: node for name, node in made.items() if node is not None}
    after = replace(before, nodes=roll(before.nodes).after(news, made.keys() - news.keys()))
    return lambda: recompile(compiled, before, after)


def run(scope: Scope) -> Iterator[Result]:
    """New tables, at the two largest sizes."""
    for size in scope.fleets[-2:]:
        snapshot, _ = a_fleet(size)
        of = f"{size:,} deployments"
        whole = seconds(lambda s=snapshot: compile_catalog(s), 3)  # type: ignore[misc]
        yield Result(f"compiling a catalog of {of}", whole * 1000, "ms CPU")
        drained = seconds(recompiled(snapshot, lambda node: replace(node, draining=True)), 5)
        yield Result(f"following {CHANGED} drained nodes, {of}", drained * 1000, "ms CPU")
        gone = seconds(recompiled(snapshot, lambda node: None), 5)
        yield Result(f"following {CHANGED} nodes that are gone, {of}", gone * 1000, "ms CPU")
        build, most = rebuild(snapshot), 1e-6 * size
        assert build().pool.health.tolist().count(1.0) == size - min(CHANGED, size)
        took = seconds(build, 6)
        yield held(
            scope,
            f"rebuild after a change of health, {of}",
            took * 1000,
            "ms CPU",
            f"<= {most * 1000:.0f} ms",
            took <= most,
        )
        aged = seconds(rebuild(snapshot, 0), 6)
        yield Result(f"rebuild for its age alone, {of}", aged * 1000, "ms CPU")
