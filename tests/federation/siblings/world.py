"""Replicas of one region in virtual time: the real monitor, router and siblings, with wires that a test may cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from catalog.memory import MemoryStore
from catalog.types import Node, Replica
from federation.config import CircuitSettings, HealthSettings, RoutingSettings
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.health.records import Probe
from federation.leases import LeaseKeeper
from federation.logs import get
from federation.peering.link import Link
from federation.peering.messages import Close, Send
from federation.routing.compiling import compile_catalog
from federation.routing.decisions import Record
from federation.routing.router import Reported, Router
from federation.routing.table import build_table
from federation.siblings.exchange import Siblings
from federation.siblings.messages import Life, Message
from federation.siblings.session import Session
from federation.siblings.telling import Telling
from policies.circuit import Circuit
from policies.types import Outcome, Result
from tests.builders import MODEL, a_node, a_request, a_snapshot

STEP_SECONDS = 0.1
# What a message takes: it is there within the step in which it was said.
WAY_SECONDS = 0.01


@dataclass
class End:
    """One end of a wire: what a `Link` is to its carrier, without the stream."""

    session: Session
    address: str
    opened_here: bool
    inbox: list[tuple[float, Message]] = field(default_factory=list)
    reason: str = ""
    was_up: bool = False

    def end(self, reason: str) -> None:
        self.session.end(reason)
        self.reason = reason


class One:
    """One replica, wired as `federation/app.py` wires it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.me = Life(f"eu.{name}", f"life-{name}")
        chance = Random(f"{world.seed}{name}")
        self.telling = Telling()
        self.monitor = Monitor(
            HealthSettings(),
            CircuitSettings(),
            rng=Random(chance.random()),
            wall=lambda: 1.7e9 + world.now,
            on_probe=lambda probe: None if self.telling.is_hearing else self.telling.probe(probe),
            on_metrics=self.telling.metrics,
        )
        self.router = Router(
            RoutingSettings(),
            replica=self.me.replica_id,
            seed=chance.getrandbits(64),
            wall=lambda: 1.7e9 + world.now,
            on_outcome=self._witnessed,
            on_suspicion=self.monitor.observe_suspicion,
        )
        self.monitor.on_slow_start = self.router.trust
        store = MemoryStore("home", clock=lambda: 1.7e9 + world.now)
        feed = CatalogFeed(store, log=get(), monotonic=world.clock)
        feed.snapshot = world.snapshot
        self.leases = LeaseKeeper(
            store,
            feed,
            log=get(),
            monotonic=world.clock,
            wall=world.clock,
            elsewhere=lambda node, holder: self.siblings.elsewhere(node, holder),
        )
        self.prober = Prober(
            self.monitor,
            http=cast(Any, None),
            settings=HealthSettings(),
            clock=world.clock,
            rng=chance,
            ours=lambda node: self.siblings.ours(node),
        )
        self.siblings = Siblings(
            self.me,
            address=lambda: name,
            store=store,
            telling=self.telling,
            monitor=self.monitor,
            router=self.router,
            leases=self.leases,
            prober=self.prober,
            tls=None,
            log=get(),
            rng=chance,
            monotonic=world.clock,
        )
        self.monitor.sync(world.snapshot, world.now)
        self.prober.sync(world.snapshot)
        self.leases.sync()
        for node in world.snapshot.nodes:
            self.passes(node)
        self.tick()

    def _witnessed(self, deployment: str, outcome: Outcome, now: float) -> None:
        self.telling.outcome(deployment, outcome)
        self.monitor.observe_outcome(deployment, outcome, now)

    def tick(self) -> None:
        """What the installer does ten times a second."""
        now = self.world.now
        self.monitor.tick(now)
        self.router.sweep(now)
        compiled = compile_catalog(self.world.snapshot)
        self.router.install(build_table(compiled, self.monitor.view(now), home_region="eu", now=now))
        self.siblings.share_trials(now)

    # Short words for what happens at it.

    def passes(self, node: str) -> None:
        self.monitor.observe_probe(Probe(node, True, 0.01, frozenset({MODEL})), self.world.now)

    def route(self, **request: Any) -> Record:
        return self.router.place(a_request(**request), self.world.now)

    def told(self, result: Result, deployment: str = f"eu/n1/{MODEL}", decision: str = "") -> Reported:
        """A gateway reports to this replica."""
        region_id, node_id, model_id = deployment.split("/", 2)
        outcome = Outcome(
            decision, result=result, region_id=region_id, node_id=node_id, model_id=model_id, latency_seconds=0.5
        )
        return self.siblings.report(outcome, self.world.now)

    def circuit(self, deployment: str = f"eu/n1/{MODEL}") -> Circuit:
        return self.monitor._deployments[deployment].circuit

    def opens(self, deployment: str = f"eu/n1/{MODEL}") -> int:
        return self.monitor.deployment(deployment, self.world.now).circuit.opens_total


class World:
    """Replicas, all of them linked after `link`; `loses` is the chance of a message to vanish."""

    def __init__(self, names: str = "ab", nodes: int = 3, *, seed: int = 1) -> None:
        self.seed = seed
        self.now = 1_000.0
        self.chance = Random(seed)
        self.snapshot = a_snapshot(*(self._node(f"eu/n{number + 1}") for number in range(nodes)))
        self.ends: dict[tuple[str, str], End] = {}
        self.cut: set[frozenset[str]] = set()
        self.loses = 0.0
        self.repeats = 0.0
        self.delay = WAY_SECONDS
        self.replicas = {name: One(self, name) for name in names}
        self.read_database()

    def _node(self, name: str) -> Node:
        return a_node(name, lease_seconds=30.0)

    def clock(self) -> float:
        return self.now

    def __getitem__(self, name: str) -> One:
        return self.replicas[name]

    def read_database(self) -> None:
        """Everybody beats, and reads who does."""
        listed = [Replica(one.me.replica_id, one.name, one.me.incarnation, int(self.now)) for one in self.all]
        for one in self.all:
            one.siblings.members.read(listed, self.now)

    @property
    def all(self) -> list[One]:
        return list(self.replicas.values())

    def kill(self, name: str) -> None:
        """It is gone, with its wires; the others see their streams break."""
        del self.replicas[name]
        for pair in [pair for pair in self.ends if name in pair]:
            self._broken(pair)

    def _broken(self, pair: tuple[str, str]) -> None:
        end = self.ends.pop(pair)
        end.session.end("the wire broke")
        if pair[0] in self.replicas:
            self[pair[0]].siblings._released(cast(Link[Session], end))

    def link(self) -> World:
        """Dials whatever has no link and is not cut, as replicas do again and again."""
        for one in self.all:
            for other in self.all:
                pair = (one.name, other.name)
                if (
                    one.me.replica_id < other.me.replica_id
                    and frozenset(pair) not in self.cut
                    and pair not in self.ends
                ):
                    here = Session(
                        one.me,
                        now=self.now,
                        incarnation_of=one.siblings.members.incarnation_of,
                        expected=other.me,
                    )
                    there = Session(other.me, now=self.now, incarnation_of=other.siblings.members.incarnation_of)
                    self.ends[pair] = End(here, other.name, True)
                    self.ends[pair[::-1]] = End(there, one.name, False)
                    self._carry(pair, here.open())
        return self

    def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> World:
        """Time passes in steps of a pulse; `each` happens in every one."""
        for _ in range(round(seconds / STEP_SECONDS)):
            self.now = round(self.now + STEP_SECONDS, 6)
            each()
            for one in self.all:
                one.tick()
            for pair, end in list(self.ends.items()):
                carrier = self[pair[0]].siblings
                self._carry(pair, end.session.tick(self.now))
                self._carry(pair, carrier.offer(cast(Link[Session], end), self.now))
            self._deliver()
            for pair in [pair for pair, end in self.ends.items() if end.session.closed]:
                if pair in self.ends:
                    self._broken(pair)
                if pair[::-1] in self.ends:
                    self._broken(pair[::-1])
        return self

    def _deliver(self) -> None:
        for pair in list(self.ends):
            end = self.ends.get(pair)
            if end is None:
                continue
            due = [message for at, message in end.inbox if at <= self.now + WAY_SECONDS]
            end.inbox = [(at, message) for at, message in end.inbox if at > self.now + WAY_SECONDS]
            for message in due:
                self._carry(pair, end.session.receive(message, self.now))

    def _carry(self, pair: tuple[str, str], effects: tuple[Any, ...]) -> None:
        end, carrier = self.ends[pair], self[pair[0]].siblings
        for effect in effects:
            match effect:
                case Send(message):
                    times = 0 if self.chance.random() < self.loses else 1 + (self.chance.random() < self.repeats)
                    if frozenset(pair) not in self.cut and pair[::-1] in self.ends:
                        self.ends[pair[::-1]].inbox += [(self.now + self.delay, message)] * times
                case Close(reason):
                    end.reason = reason
                case _:
                    objection = carrier.carry(cast(Link[Session], end), effect, self.now)
                    if objection:
                        end.end(objection)
