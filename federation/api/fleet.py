"""FleetService: what is known of nodes, and the few things that operators can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np

from catalog.errors import NotFound
from catalog.types import Node, ResourceKind
from federation.api import pages
from federation.api.calls import Context
from federation.api.convert import budgets
from federation.api.convert import health as convert
from federation.api.convert.times import duration, optional_duration, seconds_of
from federation.api.watching import FleetWatch
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.installer import Installer
from federation.logs import Log
from federation.peering.peers import Peering, PeerStatus
from federation.routing.roads import RoundTrip
from federation.routing.router import Router
from federation.siblings.exchange import Siblings
from federation.siblings.linked import SiblingStatus
from federation.v1 import fleet_pb2 as pb
from federation.v1 import fleet_pb2_grpc
from policies.health import CircuitState, Grade

DEFAULT_EJECTION_SECONDS = 300.0
# Of a region that the table does not show yet.
UNTOLD = (None, "ROUND_TRIP_SOURCE_UNSPECIFIED")
# A node's health is some 300 bytes and more with many deployments; messages end at 4 MiB.
NODES_A_MESSAGE = 200


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    def __init__(
        self,
        feed: CatalogFeed,
        monitor: Monitor,
        router: Router,
        installer: Installer,
        watch: FleetWatch,
        *,
        peering: Peering | None,
        siblings: Siblings | None,
        home_region: str,
        version: str,
        log: Log,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._monitor = monitor
        self._router = router
        self._installer = installer
        self._watch = watch
        self._peering = peering
        self._siblings = siblings
        self._home_region = home_region
        self._version = version
        self._log = log
        self._monotonic = monotonic
        self._wall = wall

    async def GetFleet(self, request: pb.GetFleetRequest, context: Context) -> pb.GetFleetResponse:
        now = self._monotonic()
        snapshot = self._installer.snapshot
        table = self._router.table
        compiled = table.compiled
        available = table.pool.status == 0
        deployments = Counter(deployed.region_id for deployed in compiled.deployed)
        routable = Counter(compiled.deployed[row].region_id for row in np.flatnonzero(available).tolist())
        states: dict[str, Counter[str]] = {region_id: Counter() for region_id in snapshot.regions}
        for name, node in snapshot.nodes.items():
            state = convert.state_name(node, self._grade_of(name, now))
            states.setdefault(node.region_id, Counter())[state] += 1
        imported = {place.region_id for place in table.pool.places if place.imported}
        policy = self._router.policy("")
        threshold = policy.panic_threshold
        trips = self._router.planner.round_trips(self._home_region, table, policy.assume)
        ways = {trip.region_id: (duration(trip.seconds), self._source(trip)) for trip in trips}
        models = []
        for model_id in sorted(compiled.rows_by_model):
            rows = compiled.rows_by_model[model_id]
            count, up = len(rows), int(np.count_nonzero(available[rows]))
            models.append(
                pb.ModelSummary(
                    model_id=model_id,
                    deployments=count,
                    available_deployments=up,
                    panic=count > 0 and up < threshold * count,
                )
            )
        return pb.GetFleetResponse(
            regions=[
                pb.RegionSummary(
                    region_id=region_id,
                    nodes=states[region_id].total(),
                    nodes_by_state=states[region_id],
                    deployments=deployments[region_id],
                    available_deployments=routable[region_id],
                    imported=region_id in imported,
                    round_trip=way[0],
                    round_trip_source=way[1],
                )
                for region_id in sorted(states)
                for way in (ways.get(region_id, UNTOLD),)
            ],
            models=models,
            revision=table.revision,
            table_age=duration(max(0.0, now - table.built_at)),
            decisions_total=self._router.stats.decisions,
            version=self._version,
            home_region_id=self._home_region,
        )

    def _source(self, trip: RoundTrip) -> str:
        peers = {} if self._peering is None else self._peering.imports.peers
        known = peers.get(trip.region_id)
        measured = trip.source == "stated" and known is not None and known.round_trip_seconds is not None
        word = "measured" if measured else "declared" if trip.source == "stated" else trip.source
        return f"ROUND_TRIP_SOURCE_{word.upper()}"

    def _grade_of(self, name: str, now: float) -> Grade:
        for deployment in self._installer.snapshot.nodes[name].deployments:
            health = self._installer.health.get(deployment.name)
            if health is not None:
                return health.grade
        try:
            return self._monitor.node(name, now).grade
        except NotFound:
            # Registered a moment ago.
            return Grade.UNKNOWN

    async def ListNodeHealth(self, request: pb.ListNodeHealthRequest, context: Context) -> pb.ListNodeHealthResponse:
        scope = ("node-health", request.region_id)
        after = pages.position(scope, request.page_token)
        self._installer.follow()
        prefix = f"{request.region_id}/" if request.region_id else ""
        items = ((name, name) for name in self._names(max(after, prefix)) if name.startswith(prefix))
        now = self._monotonic()
        page, next_token = pages.page(items, scope, request.page_size, lambda name: self._node_health(name, now))
        return pb.ListNodeHealthResponse(nodes=page, next_page_token=next_token)

    def _node_health(self, name: str, now: float) -> pb.NodeHealth:
        """NotFound where the monitor does not know the node."""
        node = self._installer.snapshot.nodes.get(name)
        status = self._monitor.node(name, now)
        if node is not None and self._peering is not None:
            status = self._peering.imports.status(node, status, now)
        return convert.node_health_to(node, status, self._router.load_of, now)

    def _names(self, after: str = "") -> list[str]:
        """Names of nodes after one, in their order."""
        if self._peering is None:
            return self._feed.names(ResourceKind.NODE, after)
        return sorted(name for name in self._installer.snapshot.nodes if name > after)

    async def ListCircuits(self, request: pb.ListCircuitsRequest, context: Context) -> pb.ListCircuitsResponse:
        scope = ("circuits", str(request.tripped_only))
        after = pages.position(scope, request.page_token)
        self._installer.follow()
        now = self._monotonic()
        health = self._monitor.view(now)
        items = (
            (name, name)
            for name in sorted(health)
            if name > after and not (request.tripped_only and health[name].circuit.state is CircuitState.CLOSED)
        )
        page, next_token = pages.page(
            items,
            scope,
            request.page_size,
            lambda name: _entry(name, convert.circuit_to(health[name].circuit, now)),
        )
        return pb.ListCircuitsResponse(circuits=page, next_page_token=next_token)

    async def ResetCircuit(self, request: pb.ResetCircuitRequest, context: Context) -> pb.ResetCircuitResponse:
        node = self._known(request.region_id, request.node_id)
        model_id = self._feed.model_id(request.model_id) or request.model_id
        names = [each.name for each in node.deployments if not model_id or each.model_id == model_id]
        if not names and model_id:
            raise NotFound("deployment", f"{node.name}/{model_id}")
        now = self._monotonic()
        entries = []
        for name in names:
            self._monitor.reset_circuit(name, now)
            entries.append(_entry(name, convert.circuit_to(self._monitor.deployment(name, now).circuit, now)))
        self._log.info("circuits reset", node=node.name, deployments=names, actor=context.peer())
        return pb.ResetCircuitResponse(circuits=entries)

    async def EjectNode(self, request: pb.EjectNodeRequest, context: Context) -> pb.EjectNodeResponse:
        node = self._known(request.region_id, request.node_id)
        seconds = seconds_of(request.duration) if request.HasField("duration") else DEFAULT_EJECTION_SECONDS
        now = self._monotonic()
        self._monitor.eject(node.name, now, seconds)
        self._log.info("node ejected", node=node.name, seconds=seconds, actor=context.peer())
        return pb.EjectNodeResponse(node=self._node_health(node.name, now))

    async def RestoreNode(self, request: pb.RestoreNodeRequest, context: Context) -> pb.RestoreNodeResponse:
        node = self._known(request.region_id, request.node_id)
        now = self._monotonic()
        self._monitor.restore(node.name, now)
        self._log.info("node restored", node=node.name, actor=context.peer())
        return pb.RestoreNodeResponse(node=self._node_health(node.name, now))

    def _known(self, region_id: str, node_id: str) -> Node:
        self._installer.follow()
        node = self._installer.snapshot.nodes.get(f"{region_id}/{node_id}")
        if node is None:
            raise NotFound("node", f"{region_id}/{node_id}")
        return node

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        scope = ("budgets", request.tenant_id)
        after = pages.position(scope, request.page_token)
        self._installer.follow()
        listed = budgets.budgets_to(self._router.rations, request.tenant_id, self._wall())
        items = ((position, each) for position, each in listed if position > after)
        page, next_token = pages.page(items, scope, request.page_size, lambda each: each)
        return pb.ListBudgetsResponse(budgets=page, next_page_token=next_token)

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        siblings = [] if self._siblings is None else self._siblings.statuses()
        peers = [] if self._peering is None else self._peering.statuses()
        return pb.ListPeersResponse(
            peers=[*(_sibling(status, self._home_region) for status in siblings), *map(_peer, peers)]
        )

    async def WatchFleet(self, request: pb.WatchFleetRequest, context: Context) -> AsyncIterator[pb.WatchFleetResponse]:
        self._installer.follow()
        async with self._watch.watching(self._installer.snapshot, self._installer.health) as steps:
            for names in _batches(self._names()):
                # An empty fleet is told too: who watches learns that there is nothing, not that nothing came yet.
                yield pb.WatchFleetResponse(nodes=self._present(names))
            async for step in steps:
                changed = _batches(sorted(step.changed))
                for index, names in enumerate(changed):
                    removed = sorted(step.removed) if index == 0 else ()
                    yield pb.WatchFleetResponse(nodes=self._present(names), removed=removed)

    def _present(self, names: list[str]) -> list[pb.NodeHealth]:
        now = self._monotonic()
        # Between two steps a node may have gone; the next step tells so.
        return [self._node_health(name, now) for name in names if name in self._installer.snapshot.nodes]


def _entry(name: str, circuit: pb.Circuit) -> pb.CircuitEntry:
    region_id, node_id, model_id = name.split("/", 2)
    return pb.CircuitEntry(region_id=region_id, node_id=node_id, model_id=model_id, circuit=circuit)


def _peer(status: PeerStatus) -> pb.Peer:
    return pb.Peer(
        region_id=status.region_id,
        address=status.address,
        role=pb.PEER_ROLE_DIALED if status.dialed else pb.PEER_ROLE_ACCEPTED,
        state=f"LINK_STATE_{status.state.upper()}",
        owned_regions=status.owned_regions,
        imported_revision=status.imported_revision,
        exported_revision=status.exported_revision,
        lag=optional_duration(status.lag_seconds),
        lease_left=optional_duration(status.lease_left_seconds),
        imported_nodes=status.imported_nodes,
        exported_nodes=status.exported_nodes,
        round_trip=optional_duration(status.round_trip_seconds),
        reason=status.reason,
        version=status.version,
        imported_models=status.imported_models,
        exported_models=status.exported_models,
    )


def _sibling(status: SiblingStatus, region_id: str) -> pb.Peer:
    return pb.Peer(
        region_id=region_id,
        replica_id=status.replica_id,
        address=status.address,
        role=pb.PEER_ROLE_SIBLING,
        state=f"LINK_STATE_{status.state.upper()}",
        lag=optional_duration(status.lag_seconds),
        age=optional_duration(status.age_seconds),
        reason=status.reason,
    )


def _batches(names: list[str]) -> Iterator[list[str]]:
    """At least one, which may be empty."""
    for first in range(0, max(1, len(names)), NODES_A_MESSAGE):
        yield names[first : first + NODES_A_MESSAGE]
