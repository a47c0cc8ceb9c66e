"""What WatchFleet tells: which nodes changed their grade, circuits, ejections or drain since the step before.

Changes are found once for all watchers, and only while there are any.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from catalog import rolls
from catalog.types import Node, Snapshot
from policies.health import DeploymentHealth

# Nobody reads a screen faster, and a fleet that flaps costs a watcher at most four messages a second.
STEP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Step:
    """Names of nodes that changed and of nodes that are gone."""

    changed: frozenset[str]
    removed: frozenset[str]


@dataclass(slots=True, eq=False)
class _Watcher:
    """What one watcher was not told yet: however slow it is, at most every node once."""

    changed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class FleetWatch:
    """`step` is called with the newest view again and again; watchers get what differs."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._health: Mapping[str, DeploymentHealth] = MappingProxyType({})
        self._nodes: Mapping[str, Node] = MappingProxyType({})
        self._stepped_at = float("-inf")

    def __len__(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def step(self, snapshot: Snapshot, health: Mapping[str, DeploymentHealth], now: float) -> None:
        """Tells watchers what changed, at most every STEP_SECONDS."""
        if not self._watchers or now - self._stepped_at < STEP_SECONDS:
            return
        self._stepped_at = now
        changed = _changed_health(self._health, health) | _changed_nodes(self._nodes, snapshot.nodes)
        removed = {name for name in rolls.changed(self._nodes, snapshot.nodes) if name not in snapshot.nodes}
        changed &= snapshot.nodes.keys()
        self._health, self._nodes = health, snapshot.nodes
        if not changed and not removed:
            return
        for watcher in self._watchers:
            watcher.changed = (watcher.changed - removed) | changed
            watcher.removed = (watcher.removed - changed) | removed
            watcher.woken.set()

    @asynccontextmanager
    async def watching(
        self, snapshot: Snapshot, health: Mapping[str, DeploymentHealth]
    ) -> AsyncIterator[AsyncIterator[Step]]:
        """Steps from here on; the caller has told everything up to now."""
        if not self._watchers:
            self._health, self._nodes = health, snapshot.nodes
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield _steps(watcher)
        finally:
            self._watchers.discard(watcher)


async def _steps(watcher: _Watcher) -> AsyncIterator[Step]:
    while True:
        await watcher.woken.wait()
        watcher.woken.clear()
        step = Step(frozenset(watcher.changed), frozenset(watcher.removed))
        watcher.changed.clear()
        watcher.removed.clear()
        yield step


def _changed_health(before: Mapping[str, DeploymentHealth], after: Mapping[str, DeploymentHealth]) -> set[str]:
    found: set[str] = set()
    for name in rolls.changed(before, after):
        earlier, health = before.get(name), after.get(name)
        if health is not None and (earlier is None or _shown(earlier) != _shown(health)):
            found.add(name[: name.index("/", name.index("/") + 1)])
    return found


def _shown(health: DeploymentHealth) -> tuple[object, ...]:
    circuit = health.circuit
    return health.grade, health.ready, circuit.state, circuit.opens_total, health.ejected_until


def _changed_nodes(before: Mapping[str, Node], after: Mapping[str, Node]) -> set[str]:
    return {
        name
        for name in rolls.changed(before, after)
        if (node := after.get(name)) is not None
        and ((earlier := before.get(name)) is None or _told_of(earlier) != _told_of(node))
    }


def _told_of(node: Node) -> tuple[object, ...]:
    return node.draining, node.deployments
