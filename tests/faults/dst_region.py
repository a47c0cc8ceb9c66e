"""One region of the simulation in `dst.py`: a database that outlives its processes, nodes that keep their leases by
heartbeats, gateways that report, and what must hold of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from catalog.errors import StoreUnavailable
from catalog.memory import MemoryStore
from catalog.types import Node, Region
from policies.types import Outcome
from tests.builders import a_model
from tests.faults.dst_fleet import (
    BEAT_SECONDS,
    HEALTH,
    KEPT_CHANGES,
    NAMES,
    NODE_LEASE_SECONDS,
    REGIONS,
    REPLICAS,
    SETTLED_SECONDS,
    done,
)
from tests.faults.dst_rules import Broken

if TYPE_CHECKING:
    from tests.faults.dst_replica import Replica
    from tests.faults.dst_world import World


@dataclass
class Agent:
    """The process beside a node that sends its heartbeats, to one replica as long as that answers."""

    alive: bool = True
    at: int = 0
    next_at: float = 0.0


class Territory:
    """A region: its database, its nodes, and its replicas."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.rng = Random(world.rng.getrandbits(64))
        self.store = MemoryStore(name, clock=lambda: 1.7e9 + world.now)
        done(self.store.put([Region(name, jurisdictions=REGIONS[name])]))
        done(self.store.put([a_model(owner=name)]))
        self.database_up = True
        # Nodes whose engine answers probes, and those whose engine fails requests all the same.
        self.healthy: set[str] = set()
        self.failing: set[str] = set()
        self.agents: dict[str, Agent] = {}
        # By node: who heard its last heartbeat and since when it hears it, in the world's time; and the last probe.
        self.heard: dict[str, tuple[Replica, float, float]] = {}
        self.probes: dict[str, float] = {}
        # Since when a process in one of its lives has known a node.
        self.known: dict[tuple[str, int, str], float] = {}
        # Reports of gateways that are due, in order: when, and what.
        self.reports: list[tuple[float, Outcome]] = []
        self.replicas: list[Replica] = []

    def living(self) -> list[Replica]:
        return [each for each in self.replicas if each.up and not each.paused]

    def step(self) -> None:
        """Nodes send heartbeats, gateways report, the log is compacted."""
        now = self.world.now
        if self.world.number % 20 == 0:
            done(self.store.compact(KEPT_CHANGES))
        for name, agent in self.agents.items():
            if agent.alive and now >= agent.next_at:
                agent.next_at = now + BEAT_SECONDS
                replica = self.replicas[agent.at]
                if not replica.up or replica.paused:
                    agent.at = (agent.at + 1) % REPLICAS
                elif replica.beat(name):
                    before = self.heard.get(name)
                    since = before[1] if before is not None and before[0] is replica else now
                    self.heard[name] = (replica, since, now)
        while self.reports and self.reports[0][0] <= now and self.living():
            _, outcome = self.reports.pop(0)
            replica = self.rng.choice(self.living())
            replica.siblings.report(outcome, replica.now())

    def change(self) -> None:
        """Somebody registers, drains or removes a node at a replica, where the database takes it."""
        living = self.living()
        if not living:
            return
        replica, name = self.rng.choice(living), f"{self.name}/{self.rng.choice(NAMES)}"
        try:
            replica.change(name)
        except StoreUnavailable:
            self.world.note(self.name, "refused")

    def probed(self, node: str, replica: Replica) -> None:
        """A probe begins: of what all know whose it is, nobody else does it."""
        world = self.world
        before, self.probes[node] = self.probes.get(node, 0.0), world.now
        world.note("probe", node, replica.number)
        # Where ways are so long that news of a probe come as late as the next one, each does well to make sure.
        settled = (
            world.quiet_since is not None and world.now - world.quiet_since > SETTLED_SECONDS and world.delay < 0.2
        )
        recent = world.now - before < HEALTH.probe_interval_seconds
        if settled and recent and not replica.siblings.ours(node):
            world.broken(f"{replica.place}: it probes {node}, which is another replica's")

    def lease_written(self, replica: Replica, node: Node) -> None:
        """The record of a node says that its lease ended, or that it is back: who may write that?"""
        self.world.note("lease", node.name, node.expired, replica.number)
        held = self.heard.get(node.name)
        if not node.expired or held is None or held[0] is replica or not held[0].up or held[0].paused:
            return
        holder, since, last = held
        hears = self.world.linked_for(holder, replica) > 2.0 and self.world.now - since > 2.0
        if hears and self.world.now - last < NODE_LEASE_SECONDS - 0.5 and not self.world.is_cut(holder, replica):
            self.world.broken(f"{replica.place} ends the lease of {node.name}, which {holder.place} hears")

    def check_probes(self) -> None:
        """Somebody probes every node, whatever replicas think of each other."""
        now, up = self.world.now, [each for each in self.replicas if each.up]
        knows = {(each.place, each.lives, name): now for each in up for name in each.prober._nodes}
        self.known = knows | {key: since for key, since in self.known.items() if key in knows}
        for name in self.probes:
            since = [self.known.get((each.place, each.lives, name), now) for each in up]
            known = [each for each in up if not each.paused and now - each.up_since > 5.0]
            if known:
                silent = now - max(self.probes[name], *since, *(each.woken_at for each in known))
                # An interval and a half with its jitter, a way, a look after a start, and two steps.
                if silent > 1.65 * HEALTH.probe_interval_seconds + HEALTH.recheck_interval_seconds + 1.5:
                    raise Broken(f"{self.name}: nobody probed {name} for {silent:.2f} s")
