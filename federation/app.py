"""Builds a control plane from its settings. The only file that builds things and reads real clocks.

settings ─ store ─ feed ─┬─ leases ──┐
                         ├─ monitor ─┼─ installer ─ router ─ services ─ gRPC
                         ├─ prober ──┤                          admin ─ HTTP
                 peers ──┴─ imports ─┘
              siblings ── what other replicas learn, told to all of these
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from random import Random
from typing import Any

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from catalog.errors import StoreUnavailable
from catalog.store import CatalogStore
from catalog.types import Region
from federation import logs
from federation.admin.metrics import Figures, Probes, Transitions, page
from federation.admin.pages import application
from federation.api.catalog import CatalogService
from federation.api.fleet import FleetService
from federation.api.interceptors import Edge
from federation.api.listening import (
    ALONE,
    SERVER_OPTIONS,
    SHARING,
    Address,
    StartError,
    bind,
    check_free,
    check_plain_text,
    parse_address,
)
from federation.api.peering import PeeringService
from federation.api.policy import PolicyService
from federation.api.routing import RoutingService
from federation.api.watching import FleetWatch
from federation.bookkeeper import Bookkeeper
from federation.config import Settings
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.health.records import Probe
from federation.health.resolve import AddressRules, session_factory
from federation.installer import Installer
from federation.last_known import Keeper, Kept
from federation.leases import LeaseKeeper
from federation.logs import Log
from federation.memory import no_collections
from federation.opening import (
    certificates_of,
    kept_catalog,
    loaded_registry,
    opened_log,
    opened_store,
    patiently,
    peers_tls,
    replicated,
    siblings_tls,
    told,
)
from federation.peering.exports import export_rules
from federation.peering.imports import Imports
from federation.peering.messages import Identity
from federation.peering.peers import Exported, Peering, check_peers
from federation.plugins import Failures
from federation.routing.router import Router
from federation.siblings.address import advertised
from federation.siblings.exchange import Siblings
from federation.siblings.messages import Life
from federation.siblings.telling import Telling
from federation.telemetry import Telemetry
from federation.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    peering_pb2,
    peering_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    routing_pb2,
    routing_pb2_grpc,
)
from federation.vitals import Vitals
from federation.workers.seat import Seat
from policies.types import Outcome

VERSION = version_of("fairway")
SERVICES = {
    "catalog": catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
    "routing": routing_pb2.DESCRIPTOR.services_by_name["RoutingService"].full_name,
    "policy": policy_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name,
    "fleet": fleet_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
}
PEERING_SERVICE = peering_pb2.DESCRIPTOR.services_by_name["PeeringService"].full_name
# A task that fails again and again must not fill the log, nor stay away for long.
RESTART_SECONDS = 1.0
# What watchers of the health service get to hear that this server goes before their streams end.
FAREWELL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class ControlPlane:
    """A control plane with everything that it is made of. Constructed, it does nothing; see `control_plane`."""

    def __init__(
        self,
        settings: Settings,
        store: CatalogStore,
        clock: Clock,
        rng: Random,
        log: Log,
        *,
        seat: Seat | None = None,
    ) -> None:
        region = settings.region.id
        self.settings = settings
        # Its place among the workers of one server; None: it is the whole server.
        self.seat = seat
        self.store = store
        self.clock = clock
        self.log = log
        self.replica = f"{region}.{rng.getrandbits(32):08x}"
        self.task_failures: Counter[str] = Counter()
        now, wall, sleep = clock.monotonic, clock.wall, clock.sleep
        self.telemetry = Telemetry(settings.telemetry, region=region, version=VERSION, rng=Random(rng.getrandbits(64)))
        self.probes = Probes()
        self.telling = Telling()
        self.decision_log = opened_log(settings.routing, Random(rng.getrandbits(64)).random)
        self.feed = CatalogFeed(store, log=log, monotonic=now, keep_changes=settings.store.keep_changes, sleep=sleep)
        self.monitor = Monitor(
            settings.health,
            settings.circuit,
            rng=Random(rng.getrandbits(64)),
            wall=wall,
            on_probe=self._probed,
            on_metrics=self.telling.metrics,
        )
        self.registry = loaded_registry(Failures(log))
        self.router = Router(
            settings.routing,
            replica=self.replica,
            seed=rng.getrandbits(64),
            wall=wall,
            log=self.decision_log,
            on_outcome=self._witnessed,
            on_suspicion=self.monitor.observe_suspicion,
            registry=self.registry,
        )
        self.monitor.on_load = self.router.observe_load
        rations = self.router.rations
        self.bookkeeper = Bookkeeper(
            rations.ledger,
            store,
            writer=self.replica,
            wanted=lambda: rations.budgeted,
            log=log,
            wall=wall,
            sleep=sleep,
        )
        self.monitor.on_slow_start = self.router.trust
        rules = AddressRules.of(settings.health.allowed_schemes, settings.health.allowed_cidrs)
        self.prober = Prober(
            self.monitor,
            http=session_factory(rules),
            settings=settings.health,
            clock=now,
            rng=Random(rng.getrandbits(64)),
            ours=lambda node: self.siblings is None or self.siblings.ours(node),
        )
        self.leases = LeaseKeeper(
            store,
            self.feed,
            log=log,
            monotonic=now,
            wall=wall,
            sleep=sleep,
            elsewhere=lambda node, holder: self.siblings is not None and self.siblings.elsewhere(node, holder),
        )
        self.watch = FleetWatch()
        self.transitions = Transitions()
        self.peering = self._peering(rng)
        self.imports = Imports() if self.peering is None else self.peering.imports
        self.keeper = self._keeper()
        self.installer = Installer(
            self.feed,
            self.leases,
            self.monitor,
            self.prober,
            self.router,
            imports=self.imports,
            home_region=region,
            log=log,
            monotonic=now,
            wall=wall,
            registry=self.registry,
            sleep=sleep,
            on_tick=self._on_tick,
        )
        self.edge = Edge(self.telemetry, monotonic=now, log=log, error_id=lambda: secrets.token_hex(8))
        self.vitals = Vitals(self._serving, monotonic=now, sleep=sleep)
        self.siblings = self._siblings(rng)
        self.routing = RoutingService(
            self.router,
            self.feed,
            report=self.router.report if self.siblings is None else self.siblings.report,
            monotonic=self.installer.deciding_at,
            new_id=lambda: secrets.token_hex(8),
        )
        self.certificates = certificates_of(settings.security, log)
        self.server = self._server()
        self.figures = Figures(
            version=VERSION,
            feed=self.feed,
            leases=self.leases,
            installer=self.installer,
            router=self.router,
            routing=self.routing,
            edge=self.edge,
            telemetry=self.telemetry,
            probes=self.probes,
            transitions=self.transitions,
            peers=lambda: () if self.peering is None else self.peering.statuses(),
            kept_at=lambda: None if self.keeper is None else self.keeper.confirmed_at,
            siblings=lambda: () if self.siblings is None else self.siblings.statuses(),
            task_failures=self.task_failures,
            loop_lag=self.vitals.loop_lag,
            certificate_expiry=lambda: self.certificates.expires_at if self.certificates else None,
            monotonic=now,
            wall=wall,
        )
        self.telemetry.export(self.figures.families())
        # Where it listens, once it does.
        self.address = Address("", 0)
        self.admin_address = Address("", 0)

    def _peering(self, rng: Random) -> Peering | None:
        """None where every region is owned here: there is nothing that a peer could own."""
        region, peering = self.settings.region, self.settings.peering
        if not region.owns:
            return None
        incarnation = f"{rng.getrandbits(64):016x}"
        return Peering(
            Identity(region.id, region.owns, incarnation, region.jurisdiction, VERSION),
            peers=peering.peers,
            rules=export_rules(peering.exports, peering.withhold),
            lease_seconds=peering.lease_seconds,
            tls=peers_tls(self.settings),
            exported=lambda: Exported(self.leases.snapshot(), self.installer.health, self.leases.ended()),
            log=self.log,
            rng=Random(rng.getrandbits(64)),
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
        )

    def _keeper(self) -> Keeper | None:
        """What keeps the last known catalog, where it is to be kept."""
        path, clock = self.settings.store.last_known_path, self.clock
        if path is None:
            return None
        return Keeper(
            path,
            self.feed,
            self.imports,
            owner=self.settings.region.id,
            log=self.log,
            monotonic=clock.monotonic,
            wall=clock.wall,
            sleep=clock.sleep,
        )

    def _siblings(self, rng: Random) -> Siblings | None:
        """None where the database serves one process: there is nobody to share with."""
        if self.seat is None and not replicated(self.settings):
            return None
        return Siblings(
            Life(self.replica, f"{rng.getrandbits(128):032x}"),
            address=lambda: self._advertised(),
            store=self.store,
            telling=self.telling,
            monitor=self.monitor,
            router=self.router,
            leases=self.leases,
            prober=self.prober,
            tls=None if self.seat is not None else siblings_tls(self.settings),
            log=self.log,
            rng=Random(rng.getrandbits(64)),
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
        )

    def _advertised(self) -> str:
        if self.seat is not None:
            return f"unix:{self.seat.siblings}"
        tls = self.settings.security.tls_certificate is not None
        return advertised(self.settings.server.advertise, self.address, tls=tls)

    def _probed(self, probe: Probe) -> None:
        if not self.telling.is_hearing:
            self.probes.observe(probe)
            self.telling.probe(probe)

    def _witnessed(self, deployment: str, outcome: Outcome, now: float) -> None:
        self.telling.outcome(deployment, outcome)
        self.monitor.observe_outcome(deployment, outcome, now)

    def _server(self) -> grpc.aio.Server:
        settings, now = self.settings, self.clock.monotonic
        server = grpc.aio.server(
            interceptors=[self.edge],
            options=(*SERVER_OPTIONS, ALONE if self.seat is None else SHARING),
            maximum_concurrent_rpcs=settings.server.max_concurrent_calls,
        )
        self.catalog = CatalogService(
            self.store,
            self.feed,
            self.leases,
            self.monitor,
            owns=settings.region.owns,
            owner_of=self._owner_of,
            allowed_schemes=settings.health.allowed_schemes,
            kick=self._kick,
            on_beat=self.telling.beat,
            monotonic=now,
            wall=self.clock.wall,
        )
        self.fleet = FleetService(
            self.feed,
            self.monitor,
            self.router,
            self.installer,
            self.watch,
            peering=self.peering,
            siblings=self.siblings,
            home_region=settings.region.id,
            version=VERSION,
            log=self.log,
            monotonic=now,
            wall=self.clock.wall,
        )
        policy = PolicyService(
            self.store,
            self.feed,
            in_use=settings.routing.named_policies,
            recent=self.router.ring.newest,
            registry=self.registry,
        )
        served: tuple[tuple[Callable[[Any, Any], None], object], ...] = (
            (catalog_pb2_grpc.add_CatalogServiceServicer_to_server, self.catalog),
            (routing_pb2_grpc.add_RoutingServiceServicer_to_server, self.routing),
            (policy_pb2_grpc.add_PolicyServiceServicer_to_server, policy),
            (fleet_pb2_grpc.add_FleetServiceServicer_to_server, self.fleet),
            (health_pb2_grpc.add_HealthServicer_to_server, self.vitals.servicer),
        )
        for add, servicer in served:
            add(servicer, server)
        if self.peering is not None or self.siblings is not None:
            exchange = PeeringService(self.peering, self.siblings)
            peering_pb2_grpc.add_PeeringServiceServicer_to_server(exchange, server)  # type: ignore[no-untyped-call]
        if settings.server.reflection:
            names = (*self._services().values(), health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        return server

    def _services(self) -> dict[str, str]:
        return SERVICES if self.peering is None else {**SERVICES, "peering": PEERING_SERVICE}

    def _owner_of(self, region_id: str) -> str:
        return "" if self.peering is None else self.peering.owner_of(region_id)

    def _kick(self, node: str) -> None:
        # The prober knows a node that was just registered only once it followed the feed.
        self.installer.follow()
        # Who is registered anew while all is known to be well has its probe at its time: registering a thousand nodes
        # a second, as labels and prices change, must not be a thousand probes a second.
        if not self.monitor.settled(node):
            self.prober.kick(node)

    def _on_tick(self, now: float) -> None:
        self.transitions.observe(self.installer.health)
        self.watch.step(self.installer.snapshot, self.installer.health, now)

    async def prepare(self, kept: Kept | None = None) -> None:
        """Reads the catalog, creates the own region's record where there is none, and builds the first table.

        While the store is away it goes by what was kept. StoreUnavailable where that is nothing.
        """
        with no_collections():
            await self._prepare(kept)

    async def _prepare(self, kept: Kept | None) -> None:
        if kept is not None:
            self._join_kept_imports(kept)
        try:
            await self.feed.start()
        except StoreUnavailable as e:
            if kept is None:
                raise
            self._go_by(kept, e)
        region = self.settings.region
        if self.feed.available and region.id not in self.feed.snapshot.regions:
            own = Region(region.id, jurisdictions=region.jurisdiction)
            (put,) = await patiently(lambda: self.store.put([own], actor="start"))
            await self.feed.reached(put.revision)
        self.installer.tick()
        if self.siblings is not None:
            await self.siblings.beat()
        # What was spent before must be known before the first request may spend more.
        await self.bookkeeper.start()
        await self.vitals.tell()

    def _join_kept_imports(self, kept: Kept) -> None:
        own = {self.settings.region.id, *self.settings.region.owns}
        if self.peering is not None:
            joining = kept.joining(self.clock.wall(), self.clock.monotonic())
            self.imports.restore(peer for peer in joining if own.isdisjoint(peer.identity.owned_regions))

    def _go_by(self, kept: Kept, error: StoreUnavailable) -> None:
        age = max(0.0, self.clock.wall() - kept.answered_at)
        self.feed.restore(kept.snapshot, self.clock.monotonic() - age)
        self.log.error(
            "catalog store does not answer at the start; serving from the last known catalog, writes fail",
            age_seconds=round(age, 1),
            revision=kept.snapshot.revision,
            nodes=len(kept.snapshot.nodes),
            error=str(error),
        )

    def remark(self) -> str:
        """What those should know who ask whether this server is ready, though it is; "" nothing."""
        if self.feed.available:
            return ""
        age = self.clock.monotonic() - self.feed.answered_at
        return f"the catalog's store does not answer: routing by the catalog of {age:.0f} s ago, writes fail"

    def _serving(self) -> dict[str, bool]:
        """Routing is served from the first table on; the catalog while its store answers."""
        ready = self.router.ready
        return {"": ready} | {
            name: ready and (key != "catalog" or self.feed.available) for key, name in self._services().items()
        }

    def summary(self) -> dict[str, str]:
        """For the admin port's first page."""
        snapshot = self.feed.snapshot
        return {
            "Version": VERSION,
            "Region": self.settings.region.id,
            "gRPC": str(self.address),
            "Catalog": f"revision {snapshot.revision}" + ("" if self.feed.available else ", its store does not answer"),
            "Regions": str(len(snapshot.regions)),
            "Nodes": str(len(snapshot.nodes)),
            "Models": str(len(snapshot.models)),
            "Decisions": f"{self.router.stats.decisions:,}",
        }

    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs beside the servers."""
        peering = {"peering": self.peering.run} if self.peering is not None and self.peering.dials else {}
        keeper = {} if self.keeper is None else {"keeper": self.keeper.run}
        siblings = {"siblings": self.siblings.run} if self.siblings is not None else {}
        return {
            **peering,
            **keeper,
            **siblings,
            "feed": self.feed.run,
            "leases": self.leases.run,
            "installer": self.installer.run,
            "prober": self.prober.run,
            "vitals": self.vitals.run,
            "bookkeeper": self.bookkeeper.run,
        }

    async def keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs a task for as long as the server lives: a defect in one must not end routing, and must be seen."""
        while True:
            try:
                await run()
            except Exception:  # the edge of every background task
                self.task_failures[name] += 1
                self.log.exception("background task failed; it is started again", task=name)
                await self.clock.sleep(RESTART_SECONDS)

    async def drain(self, grace_seconds: float) -> None:
        """Stops serving: health says so first, streams end with a word on how to go on, calls may finish."""
        await self.vitals.farewell()
        await asyncio.sleep(FAREWELL_SECONDS)
        if self.peering is not None:
            await self.peering.farewell()
        if self.siblings is not None:
            await self.siblings.farewell()
        self.edge.drain()
        # While streams are told, calls queue; those that have not begun when the server stops gRPC ends as CANCELLED.
        await asyncio.sleep(FAREWELL_SECONDS)
        await self.server.stop(grace_seconds)


@asynccontextmanager
async def control_plane(
    settings: Settings,
    *,
    store: CatalogStore | None = None,
    clock: Clock | None = None,
    rng: Random | None = None,
    log: Log | None = None,
    seat: Seat | None = None,
) -> AsyncIterator[ControlPlane]:
    """A control plane that listens and runs until the end of the block, which it leaves without grace.

    Opens the store of the settings where none is handed in. ConfigError, StartError.
    """
    clock, rng, log = clock or Clock(), rng or Random(), log or logs.get()
    listen = parse_address("server.listen", settings.server.listen)
    admin = parse_address("server.admin", settings.server.admin)
    check_plain_text(listen, settings.security, insecure=settings.server.insecure)
    check_peers(settings.peering.peers, peers_tls(settings), insecure=settings.server.insecure)
    if seat is None:
        check_free("server.listen", listen)
        check_free("server.admin", admin)
    async with AsyncExitStack() as stack:
        kept = kept_catalog(settings, log)
        if store is None:
            store = await opened_store(settings, clock.wall, kept)
        stack.push_async_callback(store.close)
        plane = ControlPlane(settings, store, clock, rng, log, seat=seat)
        stack.push_async_callback(asyncio.to_thread, plane.telemetry.close)
        if plane.decision_log is not None:
            stack.callback(plane.decision_log.close)
        plane.address = bind(plane.server, listen, plane.certificates, shared=seat is not None)
        if seat is not None:
            plane.server.add_insecure_port(f"unix:{seat.siblings}")
        with told():
            await plane.prepare(kept)
        stack.push_async_callback(plane.bookkeeper.close)
        if plane.keeper is not None:
            stack.push_async_callback(plane.keeper.close)
        plane.admin_address = await _serve_admin(plane, admin, stack)
        running: list[asyncio.Task[None]] = []
        stack.push_async_callback(_end, running)
        for name, run in plane.tasks().items():
            running.append(asyncio.create_task(plane.keep_running(name, run), name=name))
            if name == "siblings" and plane.siblings is not None:
                await asyncio.sleep(0)
                await plane.siblings.join()
                plane.installer.tick()
        await plane.server.start()
        stack.push_async_callback(plane.server.stop, None)
        if plane.peering is not None:
            stack.push_async_callback(plane.peering.farewell)
        if plane.siblings is not None:
            stack.push_async_callback(plane.siblings.farewell)
        yield plane


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve_admin(plane: ControlPlane, address: Address, stack: AsyncExitStack) -> Address:
    """Starts the admin port; the address with the port that it got. StartError."""
    app = application(
        metrics=lambda accept: page(plane.figures, accept),
        loop_lag=plane.vitals.loop_lag,
        not_ready=plane.vitals.not_ready,
        remark=plane.remark,
        summary=plane.summary,
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if plane.seat is not None:
        await web.UnixSite(runner, plane.seat.admin).start()
        return address
    try:
        await web.TCPSite(runner, address.host, address.port).start()
    except OSError as e:
        raise StartError(f"server.admin: cannot listen on {address}: {e.strerror}; choose another port") from None
    return Address(address.host, runner.addresses[0][1])
