"""Three regions in virtual time: the real peering, monitor, imports, tables and routers, over a network and clocks
that fail as a seed says.

    python -m tests.faults.dst --seed 17            one run, told
    python -m tests.faults.dst --minutes 60         as many runs of ten virtual minutes as fit, seeds from 1 on

What must hold at every moment, whatever happens: a region is told only by its owner; nobody is sent to a region that
was not heard for a lease; no choice breaks privacy, jurisdiction or tenant; revisions only grow. And in the end, when
the faults are over, everybody shows exactly what its owner has. The same seed makes the same run, to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType
from typing import Any

from catalog.snapshot import apply
from catalog.types import Change, Node, PrivacyLevel, Region, ResourceKind, Snapshot, name_of
from federation import last_known
from federation.config import CircuitSettings, HealthSettings, RoutingSettings
from federation.health.monitor import Monitor
from federation.health.records import Load, Probe
from federation.installer import Installer
from federation.peering import wire
from federation.peering.exports import ExportRules
from federation.peering.link import Link
from federation.peering.messages import Identity, Message
from federation.peering.peers import Exported, Peering
from federation.routing.router import Router
from federation.v1 import peering_pb2
from policies.errors import NoCandidate
from policies.policy import Policy, Spillover
from policies.types import RouteRequest
from tests.builders import MODEL, a_deployment, a_model, a_node

REGIONS = {"ap": ("JP",), "eu": ("DE", "EU"), "us": ("US",)}
LEASE_SECONDS = 5.0
STEP_SECONDS = 0.25
# What an import may be older than its lease: the tick that ends it, and clocks that run apart.
SLACK_SECONDS = 2 * STEP_SECONDS + 0.1
NAMES = tuple(f"n{number}" for number in range(8))
PEERLESS = ExportRules()
HEALTH = HealthSettings(probe_interval_seconds=1.0, unhealthy_after=2, healthy_after=1)
POLICIES = {"tiers": Policy("tiers", spillover=Spillover(failback_seconds=10.0))}


class Broken(AssertionError):
    """An invariant does not hold."""


def born(name: str) -> Node:
    """A node as it is whenever somebody registers it: what hard rules read hangs on its name alone."""
    number = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    deployment = a_deployment(tenant_ids=("acme",) if number % 5 == 0 else (), max_concurrency=50)
    levels = (None, *PrivacyLevel)
    return a_node(name, (deployment,), privacy_level=levels[number % len(levels)], owner=name.split("/")[0])


class Quiet:
    """A log that nobody reads."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **values: None


@dataclass
class Feed:
    """What an installer reads of the catalog's feed and of the leases: the newest snapshot."""

    known: Snapshot
    answered_at: float = 0.0
    version: int = 0

    def sync(self) -> None:
        """Nothing expires here but regions."""

    def snapshot(self) -> Snapshot:
        return self.known

    def ended(self) -> frozenset[str]:
        return frozenset()


class Site:
    """A region: its database, which outlives its process, and its process, which does not."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.rng = Random(world.rng.getrandbits(64))
        self.database = Snapshot(
            1,
            MappingProxyType({name: Region(name, jurisdictions=REGIONS[name], owner=name)}),
            MappingProxyType({MODEL: a_model(owner=name)}),
            MappingProxyType({}),
            MappingProxyType({}),
        )
        self.database_up = True
        self.healthy: set[str] = set()
        self.kept: list[str] = []
        self.kept_at = 0.0
        self.up = False
        self.lives = 0
        # The clock of this machine: where it started, how fast it goes, and how wrong people set it.
        self.offset = self.rng.uniform(0.0, 1e6)
        self.rate = 1.0 + self.rng.uniform(-1e-3, 1e-3)
        self.skew = self.rng.uniform(-300.0, 300.0)
        # By peer: when a word of it arrived last, in the world's time, and what it was allowed beyond the lease.
        self.heard: dict[str, float] = {}
        self.grace = 0.0
        self.applied: dict[tuple[int, str, str], int] = {}
        self.decisions = 0
        self.boot()

    def now(self) -> float:
        return self.offset + self.world.now * self.rate

    def wall(self) -> float:
        return 1.7e9 + self.world.now + self.skew

    def boot(self) -> None:
        """Another life of the process; without its database it starts from what was kept, if anything was."""
        if not self.database_up and not self.kept:
            return
        self.up, self.lives = True, self.lives + 1
        self.grace = 0.0
        now = self.now()
        seed = self.rng.getrandbits(64)
        self.feed = Feed(self.database, now)
        self.monitor = Monitor(HEALTH, CircuitSettings(), rng=Random(seed), wall=self.wall)
        self.router = Router(
            RoutingSettings(decisions_kept=10),
            home_region=self.name,
            replica=f"{self.name}.{self.lives}",
            seed=seed,
            wall=self.wall,
            on_outcome=self.monitor.observe_outcome,
        )
        self.monitor.on_load = self.router.observe_load
        self.peering = Peering(
            Identity(self.name, (self.name,), f"{seed:x}", REGIONS[self.name]),
            peers=tuple(name for name in REGIONS if self.dials(name)),
            rules=PEERLESS,
            lease_seconds=LEASE_SECONDS,
            tls=None,
            exported=lambda: Exported(self.feed.known, self.installer.health, frozenset()),
            log=Quiet(),
            rng=Random(seed),
            monotonic=self.now,
        )
        if self.kept:
            kept = last_known.parsed(self.kept, self.name, 0.0)
            if self.wall() < kept.saved_at:
                self.grace = self.world.now - self.kept_at
            self.peering.imports.restore(kept.joining(self.wall(), now))
            if not self.database_up:
                self.feed.known = kept.snapshot
        self.installer = Installer(
            self.feed,  # type: ignore[arg-type]
            self.feed,  # type: ignore[arg-type]
            self.monitor,
            self,
            self.router,
            imports=self.peering.imports,
            home_region=self.name,
            log=Quiet(),
            monotonic=self.now,
            wall=self.wall,
        )
        # Policies come from the settings here: stored ones would install over them.
        self.router.install_policies(POLICIES)
        self.redial = {name: 0.0 for name in REGIONS if self.dials(name)}

    def dials(self, peer: str) -> bool:
        """One side dials, and in some worlds both do."""
        return peer != self.name and (self.name < peer or self.world.both_dial)

    def sync(self, snapshot: Snapshot) -> None:
        """As the prober: nothing to follow, nodes are probed by their names."""

    def crash(self) -> None:
        self.up = False

    def change(self) -> None:
        """Somebody registers, drains or removes a node, where the database takes it."""
        if not self.up or not self.database_up:
            return
        name = f"{self.name}/{self.rng.choice(NAMES)}"
        known = self.database.nodes.get(name)
        after: Node | None
        if known is None:
            after = born(name)
            self.healthy.add(name)
        elif self.rng.random() < 0.5:
            after = None
        else:
            after = replace(known, draining=not known.draining)
        revision = self.database.revision + self.rng.randrange(1, 3)
        if after is not None:
            after = replace(after, revision=revision)
            assert name_of(after) == name
        self.database = apply(self.database, [Change(revision, ResourceKind.NODE, name, after)])

    def step(self) -> None:
        now = self.now()
        if self.database_up:
            if self.feed.known.revision > self.database.revision:
                raise Broken(f"{self.name}: revision went back")
            self.feed.known, self.feed.answered_at = self.database, now
        if self.world.number % 4 == 0:
            for name in self.feed.known.nodes:
                # Registered a moment ago, and not synced yet.
                if name in self.monitor.node_names():
                    well = name in self.healthy
                    self.monitor.observe_probe(Probe(name, well, 0.01, frozenset({MODEL}) if well else None), now)
                    running = float(self.rng.randrange(5))
                    self.monitor.observe_load(name, Load(running_requests=running, queue_depth=0.0), now)
        self.installer.tick()
        if self.world.number % 8 == 0:
            self.keep(now)

    def keep(self, now: float) -> None:
        peers = [replace(peer, reports=dict(peer.reports)) for peer in self.peering.imports.peers.values()]
        self.kept_at = self.world.now
        self.kept = list(
            last_known.lines_of(self.name, self.feed.known, peers, answered_at=self.wall(), now=now, wall=self.wall())
        )

    def route(self) -> None:
        """One request, with rules at random; checks whom it got."""
        request = RouteRequest(
            model_id=MODEL,
            privacy_level=self.rng.choice(tuple(PrivacyLevel)),
            jurisdictions=("EU",) if self.rng.random() < 0.3 else (),
            tenant_id=self.rng.choice(("", "acme", "other")),
            policy_id=self.rng.choice(("", "tiers")),
            session_id=self.rng.choice(("", "s1", "s2")),
            input_tokens=200,
            max_output_tokens=50,
        )
        try:
            record = self.router.place(request, self.now())
        except NoCandidate as e:
            self.world.note(self.name, e.reason)
            return
        self.router.reservations.release(record.number)
        self.decisions += 1
        names = record.names()
        self.world.note(self.name, record.seed, *names)
        for name in names:
            self.check(name.rpartition("/")[0], request)

    def check(self, node: str, request: RouteRequest) -> None:
        """Nobody is sent where a hard rule forbids it, nor to a region that has not been heard for a lease."""
        region = node.split("/")[0]
        truth = born(node)
        level = truth.privacy_level or (PrivacyLevel.INTERNAL if region == self.name else PrivacyLevel.PUBLIC)
        if level < request.privacy_level:
            raise Broken(f"{self.name}: {node} may not serve {request.privacy_level.name}")
        if request.jurisdictions and not set(request.jurisdictions) & set(REGIONS[region]):
            raise Broken(f"{self.name}: {node} is not in {request.jurisdictions}")
        if truth.deployments[0].tenant_ids and request.tenant_id not in truth.deployments[0].tenant_ids:
            raise Broken(f"{self.name}: {node} is not {request.tenant_id!r}'s")
        silent = self.world.now - self.heard.get(region, self.world.now if region == self.name else float("-inf"))
        if silent > LEASE_SECONDS * 1.002 + SLACK_SECONDS + self.grace:
            raise Broken(f"{self.name}: sent to {node}, not heard for {silent:.2f} s")

    def check_imports(self) -> None:
        """Only owners tell, and revisions only grow."""
        for peer, known in self.peering.imports.peers.items():
            if any(node.region_id != peer for node in known.view.nodes.values()):
                raise Broken(f"{self.name}: {peer} told of nodes that it does not own")
            # In this life: the next one may begin with what was kept earlier.
            key = (self.lives, peer, known.applied.incarnation)
            if known.applied.revision < self.applied.get(key, 0):
                raise Broken(f"{self.name}: revision of {peer} went back")
            self.applied[key] = known.applied.revision
        merged = self.installer.snapshot
        for name, node in merged.nodes.items():
            if node.owner != name.split("/")[0]:
                raise Broken(f"{self.name}: {name} is said to be {node.owner}'s")


@dataclass
class Line:
    """A connection of two links, with what is on its way."""

    ends: tuple[tuple[Site, Link, int], tuple[Site, Link, int]]
    on_the_way: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    last: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def alive(self) -> bool:
        """Whether both processes are the ones that opened it, and neither hung up."""
        return all(
            site.up and site.lives == life and not (link._over.is_set() and not link._outbox)
            for site, link, life in self.ends
        )


class World:
    """Everything, at a moment; `now` is the time of nobody's clock."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        self.number = 0
        self.order = 0
        self.digest = hashlib.sha256()
        self.both_dial = self.rng.random() < 0.5
        self.loss = self.rng.choice((0.0, 0.02, 0.1))
        self.repeats = self.rng.choice((0.0, 0.05))
        self.delay = self.rng.choice((0.01, 0.1, 0.3))
        self.cut: dict[tuple[str, str], float] = {}
        self.lines: list[Line] = []
        self.sites = {name: Site(name, self) for name in REGIONS}
        self.faults = 0

    def note(self, *words: object) -> None:
        """Takes part of the run into its fingerprint."""
        self.digest.update(repr((self.number, words)).encode())

    def run(self, seconds: float, calm: float) -> None:
        """So many seconds with faults, then so many without; then everybody must agree."""
        for name in REGIONS:
            for _ in range(4):
                self.sites[name].change()
        while self.now < seconds + calm:
            self.number += 1
            self.now = self.number * STEP_SECONDS
            if self.now < seconds:
                self.fail()
            elif self.now < seconds + STEP_SECONDS:
                self.mend()
            self.step()
        self.check_agreement()

    # What goes wrong.

    def fail(self) -> None:
        rng = self.rng
        site = self.sites[rng.choice(tuple(REGIONS))]
        chance = rng.random()
        # About one fault in two seconds.
        if chance < 0.125:
            self.faults += 1
        if chance < 0.02:
            one, other = rng.sample(tuple(REGIONS), 2)
            until = self.now + rng.choice((1.0, 8.0, 20.0))
            self.cut[one, other] = until
            if rng.random() < 0.7:
                self.cut[other, one] = until
        elif chance < 0.035 and site.up:
            site.crash()
        elif chance < 0.06 and not site.up:
            site.boot()
        elif chance < 0.075:
            site.database_up = not site.database_up
        elif chance < 0.085:
            site.skew += rng.choice((-3_600.0, 3_600.0))
        elif chance < 0.10 and self.lines:
            rng.choice(self.lines).ends[0][1].end("the network says so")
        elif chance < 0.125 and site.database.nodes:
            node = rng.choice(sorted(site.database.nodes))
            site.healthy ^= {node}
        if rng.random() < 0.3:
            self.sites[rng.choice(tuple(REGIONS))].change()

    def mend(self) -> None:
        self.loss = self.repeats = 0.0
        self.cut.clear()
        for site in self.sites.values():
            site.database_up = True
            if not site.up:
                site.boot()

    # What goes on.

    def step(self) -> None:
        self.connect()
        for line in list(self.lines):
            self.carry(line)
        for number, site in enumerate(self.sites.values()):
            if site.up:
                site.step()
                site.check_imports()
                # Each table is asked, and not all of them every time: what takes long is the first request of a table.
                if self.number % len(self.sites) == number:
                    site.route()
        for line in self.lines:
            for site, link, life in line.ends:
                if site.up and site.lives == life and not link._over.is_set():
                    self.pulse(site, link)

    def connect(self) -> None:
        for site in self.sites.values():
            for name, due in site.redial.items() if site.up else ():
                other = self.sites[name]
                if self.now < due or name in site.peering.links or not other.up:
                    continue
                site.redial[name] = self.now + site.rng.uniform(0.5, 2.0)
                if self.is_cut(site.name, name) or self.is_cut(name, site.name):
                    continue
                here = site.peering._link(opened_here=True, address=name, expected=name)
                there = other.peering._link(opened_here=False, address=site.name, expected="")
                here._carry(here.session.open())
                self.lines.append(Line(((site, here, site.lives), (other, there, other.lives))))

    def is_cut(self, one: str, other: str) -> bool:
        return self.cut.get((one, other), 0.0) > self.now

    def carry(self, line: Line) -> None:
        """What is due arrives, what was said goes on its way; who hung up or died ends it for both."""
        while line.on_the_way and line.on_the_way[0][0] <= self.now:
            _, _, to, content = heapq.heappop(line.on_the_way)
            site, link, life = line.ends[to]
            sender = line.ends[1 - to][0]
            if not site.up or site.lives != life or link._over.is_set():
                continue
            message: Message = wire.message_from(peering_pb2.ExchangeRequest.FromString(content))
            site.heard[sender.name] = self.now
            self.note(site.name, type(message).__name__)
            link._carry(link.session.receive(message, site.now()))
        for number, (site, link, life) in enumerate(line.ends):
            while link._outbox and site.lives == life and site.up:
                self.send(line, 1 - number, site.name, link._outbox.popleft())
        if not line.alive() and not line.on_the_way:
            self.lines.remove(line)
            for site, link, life in line.ends:
                link._lost("the line is gone")
                if site.lives == life and site.up:
                    site.peering._released(link)

    def send(self, line: Line, to: int, sender: str, message: Message) -> None:
        receiver = line.ends[to][0].name
        content = wire.request_to(message).SerializeToString()
        for _ in range(1 + (self.rng.random() < self.repeats)):
            if self.is_cut(sender, receiver) or self.rng.random() < self.loss:
                continue
            # In order, as a stream is; a repeat comes right behind.
            line.last[to] = max(line.last[to], self.now + self.rng.uniform(0.0, 2 * self.delay))
            self.order += 1
            heapq.heappush(line.on_the_way, (line.last[to], self.order, to, content))

    def pulse(self, site: Site, link: Link) -> None:
        """What a link does ten times a second beside reading and writing."""
        now, session = site.now(), link.session
        link._carry(session.tick(now))
        if session.peer is not None and not link._outbox and not session.closed:
            link._carry(session.offer(site.peering.exports(session.peer), site.peering.reports(now), now))

    def check_agreement(self) -> None:
        """Everybody shows what its owner has: nothing lost, doubled or risen from the dead."""
        for site in self.sites.values():
            shown: Mapping[str, Node] = site.installer.snapshot.nodes
            for owner in self.sites.values():
                told = {name: node for name, node in shown.items() if node.region_id == owner.name}
                if set(told) != set(owner.database.nodes):
                    raise Broken(
                        f"{site.name} shows {sorted(told)} of {owner.name}, not {sorted(owner.database.nodes)}"
                    )
                drained = {name for name, node in told.items() if node.draining}
                if drained != {name for name, node in owner.database.nodes.items() if node.draining}:
                    raise Broken(f"{site.name} shows other nodes of {owner.name} as draining")
            if any(peer.expired for peer in site.peering.imports.peers.values()):
                raise Broken(f"{site.name}: a lease is over though all is well")

    def fingerprint(self) -> str:
        for site in self.sites.values():
            self.note(site.name, sorted(site.installer.snapshot.nodes), site.router.stats.decisions)
        return self.digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed came to."""

    seed: int
    fingerprint: str
    decisions: int
    faults: int


def run(seed: int, seconds: float = 10.0, calm: float = 14.0) -> Run:
    """One world. Broken, with the seed and the moment."""
    world = World(seed)
    try:
        world.run(seconds, calm)
    except (AssertionError, LookupError, TypeError, ValueError) as e:
        # A defect that raises is as broken as an invariant.
        raise Broken(f"seed {seed}, {seconds:g} s, at {world.now:.2f} s: {e!r}") from e
    decisions = sum(site.decisions for site in world.sites.values())
    return Run(seed, world.fingerprint(), decisions, world.faults)


def runs(minutes: float, first: int, seconds: float) -> Iterator[Run]:
    """As many as begin within so many minutes."""
    end = time.monotonic() + minutes * 60.0
    seed = first
    while time.monotonic() < end:
        yield run(seed, seconds)
        seed += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one run, twice: it must be the same")
    parser.add_argument("--first", type=int, default=1, help="the first seed of many")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long new runs begin")
    parser.add_argument("--seconds", type=float, default=600.0, help="virtual seconds with faults, of each run")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        one, two = run(arguments.seed, arguments.seconds), run(arguments.seed, arguments.seconds)
        print(one, "the same again" if one == two else f"NOT the same again: {two}")
        raise SystemExit(one != two)
    started, done = time.monotonic(), []
    for each in runs(arguments.minutes, arguments.first, arguments.seconds):
        done.append(each)
        if len(done) % 10 == 0:
            print(f"{len(done)} seeds in {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"{len(done)} seeds of {arguments.seconds:g} virtual seconds in {time.monotonic() - started:.0f} s, from "
        f"{arguments.first} on: {sum(each.faults for each in done)} faults, {sum(each.decisions for each in done)} "
        "decisions, 0 broken invariants"
    )


if __name__ == "__main__":
    main()
