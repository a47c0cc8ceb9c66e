"""A replica of the simulation in `dst.py`: where a process runs, its clock and its disk, and the process in each of its
lives. It is wired as `federation/app.py` wires it; what it does on sockets there is a call here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, cast

from catalog.errors import StoreUnavailable
from catalog.types import PrivacyLevel, ResourceKind
from federation import last_known
from federation.config import RoutingSettings
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.health.records import Load, Probe
from federation.installer import Installer
from federation.leases import LeaseKeeper
from federation.peering.exports import ExportRules
from federation.peering.messages import Identity
from federation.peering.peers import Exported, Peering
from federation.routing.router import Router
from federation.siblings.exchange import JOIN_SECONDS, Siblings
from federation.siblings.messages import Life
from federation.siblings.telling import Telling
from policies.errors import NoCandidate
from policies.types import Outcome, Result, RouteRequest
from tests.builders import MODEL
from tests.faults.dst_fleet import (
    CIRCUIT,
    HEALTH,
    KEPT_CHANGES,
    PEER_LEASE_SECONDS,
    POLICIES,
    REGIONS,
    Quiet,
    born,
    done,
)
from tests.faults.dst_region import Agent
from tests.faults.dst_rules import Broken, check_decision, check_trial

if TYPE_CHECKING:
    from tests.faults.dst_region import Territory


class Connection:
    """A replica's way to its database, which may be cut; a write may be done though its answer is lost."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._store = replica.region.store
        self.owner = replica.region.name

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*words: Any, **values: Any) -> Any:
            region = self._replica.region
            if not self._replica.reaches_database:
                raise StoreUnavailable("the database is away")
            answer = await getattr(self._store, name)(*words, **values)
            if name == "edit" and values.get("actor") == "lease":
                region.lease_written(self._replica, answer)
            if name in ("edit", "put", "delete") and region.rng.random() < region.world.loss:
                raise StoreUnavailable("the database went away with the answer")
            return answer

        return call


class AtOnce:
    """A task group for tasks that have nothing to wait for."""

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, Any]], *words: Any, name: str) -> None:
        done(work(*words))


class Probing(Prober):
    """The prober with its times, shares and repeats; what a node answers the world knows."""

    replica: Replica

    async def _probe_once(self, name: str, http: object) -> None:
        region = self.replica.region
        region.probed(name, self.replica)
        well = name in region.healthy
        self._monitor.observe_probe(Probe(name, well, 0.01, frozenset({MODEL}) if well else None), self._clock())

    def step(self) -> None:
        nothing = cast(Any, nullcontext())
        self._start_due(cast(Any, AtOnce()), cast(Any, None), nothing, nothing)


class Replica:
    """A place where a process runs, its clock and its disk; and the process, life after life."""

    def __init__(self, region: Territory, number: int) -> None:
        self.region = region
        self.number = number
        self.place = f"{region.name}.{number}"
        self.world = region.world
        self.rng = Random(region.rng.getrandbits(64))
        self.kept: list[str] = []
        self.kept_at = 0.0
        self.up = False
        self.up_since = 0.0
        self.lives = 0
        self.paused_until = 0.0
        self.woken_at = 0.0
        self.cut_from_database = False
        # The clock of this machine: where it started, how fast it goes, and how wrong people set it.
        self.offset = self.rng.uniform(0.0, 1e6)
        self.rate = 1.0 + self.rng.uniform(-1e-3, 1e-3)
        self.skew = self.rng.uniform(-300.0, 300.0)
        # By peer: when a word of it arrived last, in the world's time, and what it was allowed beyond the lease.
        self.heard: dict[str, float] = {}
        self.grace = 0.0
        self.applied: dict[tuple[int, str, str], int] = {}
        self.revision = 0
        self.decisions = 0

    @property
    def reaches_database(self) -> bool:
        return self.region.database_up and not self.cut_from_database

    @property
    def paused(self) -> bool:
        return self.paused_until > self.world.now

    def now(self) -> float:
        return self.offset + self.world.now * self.rate

    def wall(self) -> float:
        return 1.7e9 + self.world.now + self.skew

    def world_time(self, local: float) -> float:
        return (local - self.offset) / self.rate

    def boot(self) -> None:
        """Another life of the process; without its database it starts from what was kept, if anything was."""
        if not self.reaches_database and not self.kept:
            return
        self.up, self.lives, self.revision = True, self.lives + 1, 0
        self.up_since = self.woken_at = self.world.now
        self.paused_until = self.grace = 0.0
        now, seed = self.now(), self.rng.getrandbits(64)
        self.id = f"{self.region.name}.{seed:016x}"
        store = cast(Any, Connection(self))
        log = cast(Any, Quiet())
        self.telling = Telling()
        self.feed = CatalogFeed(store, log=log, monotonic=self.now, keep_changes=KEPT_CHANGES)
        self.monitor = Monitor(
            HEALTH,
            CIRCUIT,
            rng=Random(seed),
            wall=self.wall,
            on_probe=lambda probe: None if self.telling.is_hearing else self.telling.probe(probe),
            on_metrics=self.telling.metrics,
        )
        self.router = Router(
            RoutingSettings(decisions_kept=50),
            replica=self.id,
            seed=seed,
            wall=self.wall,
            on_outcome=self._witnessed,
            on_suspicion=self.monitor.observe_suspicion,
        )
        self.monitor.on_load = self.router.observe_load
        self.monitor.on_slow_start = self.router.trust
        self.prober = Probing(
            self.monitor,
            http=cast(Any, None),
            settings=HEALTH,
            clock=self.now,
            rng=Random(seed + 1),
            ours=lambda node: self.siblings.ours(node),
        )
        self.prober.replica = self
        self.monitor.on_probe_wanted = self.prober.kick
        self.leases = LeaseKeeper(
            store,
            self.feed,
            log=log,
            monotonic=self.now,
            wall=self.wall,
            elsewhere=lambda node, holder: self.siblings.elsewhere(node, holder),
        )
        self.peering = Peering(
            Identity(self.region.name, (self.region.name,), f"{seed:x}", REGIONS[self.region.name]),
            peers=self.world.dialed_by(self),
            rules=ExportRules(),
            lease_seconds=PEER_LEASE_SECONDS,
            tls=None,
            exported=lambda: Exported(self.leases.snapshot(), self.installer.health, self.leases.ended()),
            log=log,
            rng=Random(seed + 2),
            monotonic=self.now,
        )
        self.installer = Installer(
            self.feed,
            self.leases,
            self.monitor,
            self.prober,
            self.router,
            imports=self.peering.imports,
            home_region=self.region.name,
            log=log,
            monotonic=self.now,
            wall=self.wall,
        )
        self.siblings = Siblings(
            Life(self.id, f"{seed:032x}"),
            address=lambda: self.place,
            store=store,
            telling=self.telling,
            monitor=self.monitor,
            router=self.router,
            leases=self.leases,
            prober=self.prober,
            tls=None,
            log=log,
            rng=Random(seed + 3),
            monotonic=self.now,
        )
        self._prepare(now)

    def _prepare(self, now: float) -> None:
        kept = last_known.parsed(self.kept, self.region.name, 0.0) if self.kept else None
        if kept is not None:
            if self.wall() < kept.saved_at:
                self.grace = self.world.now - self.kept_at
            self.peering.imports.restore(kept.joining(self.wall(), now))
        try:
            done(self.feed.start())
        except StoreUnavailable:
            assert kept is not None, "without both it does not start"
            self.feed.restore(kept.snapshot, now)
        # Policies come from the settings here: stored ones would install over them.
        self.router.install_policies(POLICIES)
        self.installer.tick()
        done(self.siblings.beat())
        self.siblings._joining = set(self.siblings.members.living())
        self.beats_at = self.world.now + self.rng.random()
        # By address of a peer, or id of a sibling: when it is dialed next.
        self.redial: dict[str, float] = {}

    def _witnessed(self, deployment: str, outcome: Outcome, now: float) -> None:
        self.telling.outcome(deployment, outcome)
        self.monitor.observe_outcome(deployment, outcome, now)

    def beat(self, name: str) -> bool:
        """A node's heartbeat with its load; whether the node is known here."""
        now = self.now()
        node = self.leases.beat(name, now)
        if node is None:
            return False
        load = Load(running_requests=float(self.rng.randrange(5))) if self.rng.random() < 0.3 else None
        if load is not None:
            self.monitor.observe_load(name, load, now)
        self.telling.beat(name, load)
        return True

    def change(self, name: str) -> None:
        """Registers, removes, drains or undrains a node. StoreUnavailable."""
        region, store = self.region, self.leases._store
        known = self.feed.snapshot.nodes.get(name)
        if not self.reaches_database:
            raise StoreUnavailable("the database is away")
        stored = self.world.nodes_of(region).get(name)
        if stored is None:
            region.healthy.add(name)
            region.probes[name] = self.world.now
            region.agents[name] = Agent(at=self.number)
            (put,) = done(store.put([born(name)], actor="operator"))
            done(self.feed.reached(put.revision))
            self.leases.sync()
            self.leases.beat(name, self.now())
            self.installer.follow()
            self.prober.kick(name)
        elif known is None:
            return
        elif self.rng.random() < 0.4:
            region.agents.pop(name, None)
            region.heard.pop(name, None)
            region.probes.pop(name, None)
            done(store.delete(ResourceKind.NODE, name, actor="operator"))
        else:
            done(store.edit(ResourceKind.NODE, name, _drained, actor="operator"))

    def operate(self) -> None:
        """What operators do to nodes by hand."""
        names = sorted(self.feed.snapshot.nodes)
        if names:
            node, now = self.rng.choice(names), self.now()
            match self.rng.randrange(3):
                case 0:
                    self.monitor.eject(node, now, 3.0)
                case 1:
                    self.monitor.restore(node, now)
                case _:
                    self.monitor.reset_circuit(f"{node}/{MODEL}", now)

    def step(self) -> None:
        """What its tasks do, one after the other."""
        if self.rng.random() < 0.8 or self.world.quiet_since is not None:
            try:
                done(self.feed.pull())
            except StoreUnavailable as e:
                self.feed._lost(e)
        if self.feed.revision < self.revision:
            raise Broken(f"{self.place}: revision went back")
        self.revision = self.feed.revision
        done(self.leases.tick())
        self.prober.step()
        self.installer.tick()
        self.siblings.share_trials(self.now())
        if self.world.now >= self.beats_at:
            self.beats_at = self.world.now + 1.0
            done(self.siblings.beat())
        if self.world.number % 24 == 12 * self.number:
            self._keep()

    def _keep(self) -> None:
        now = self.now()
        peers = [replace(peer, reports=dict(peer.reports)) for peer in self.peering.imports.peers.values()]
        self.kept_at = self.world.now
        self.kept = list(
            last_known.lines_of(
                self.region.name, self.feed.snapshot, peers, answered_at=self.wall(), now=now, wall=self.wall()
            )
        )

    @property
    def serves(self) -> bool:
        """Whether it joined its siblings, or waited long enough for them."""
        known = [self.siblings._up.get(name) for name in self.siblings._joining]
        met = all(each is not None and each.caught_up for each in known)
        if met or self.world.now - self.up_since >= JOIN_SECONDS:
            self.siblings._joining.clear()
        return not self.siblings._joining

    def route(self) -> None:
        """One request, with rules at random; checks whom it got. Its gateway reports a while later, anywhere."""
        request = RouteRequest(
            model_id=MODEL,
            privacy_level=self.rng.choice(tuple(PrivacyLevel)[:3]),
            jurisdictions=("EU",) if self.rng.random() < 0.2 else (),
            tenant_id=self.rng.choice(("", "acme", "other")),
            policy_id=self.rng.choice(("", "tiers")),
            session_id=self.rng.choice(("", "s1", "s2")),
            input_tokens=200,
            max_output_tokens=50,
        )
        try:
            record = self.router.place(request, self.now())
        except NoCandidate as e:
            self.world.note(self.place, e.reason)
            return
        names = record.names()
        self.decisions += 1
        self.world.note(self.place, record.seed, *names)
        for name in names:
            check_decision(self, name.rpartition("/")[0], request)
        if record.by == "trial":
            check_trial(self, names[0])
        region_id, node_id, model_id = names[0].split("/", 2)
        well = not any(f"{region_id}/{node_id}" in each.failing for each in self.world.regions.values())
        outcome = Outcome(
            record.decision_id,
            result=Result.OK if well else Result.SERVER_ERROR,
            region_id=region_id,
            node_id=node_id,
            model_id=model_id,
            latency_seconds=0.5,
        )
        self.region.reports.append((self.world.now + self.rng.uniform(0.1, 1.5), outcome))
        self.region.reports.sort(key=lambda each: each[0])


def _drained(node: Any) -> Any:
    return replace(node, draining=not node.draining)
