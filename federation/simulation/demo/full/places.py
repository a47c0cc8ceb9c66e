"""A region as scenes see it: its replicas, its callers and their gateway, and what its control plane says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.cli.figures import enum_word
from federation.edge.client import Client, RouteError, decode_error
from federation.simulation.demo.asking import all_answered
from federation.simulation.demo.checks import until
from federation.simulation.demo.declared import model_message, region_message
from federation.simulation.demo.fleet import DemoFleet, DemoRegion
from federation.simulation.demo.full.machines import Machines
from federation.simulation.demo.full.plan import deployment_message, node_message
from federation.simulation.demo.gateway import Ask, Gateway, Sent, node_of
from federation.simulation.demo.load import Load, decided
from federation.simulation.demo.processes import Processes
from federation.simulation.demo.screen import Screen
from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2, types_pb2


@dataclass(slots=True)
class Place:
    """`client` knows both replicas of the region, `replicas` one each; `clock` is monotonic seconds."""

    region: DemoRegion
    fleet: DemoFleet
    screen: Screen
    client: Client
    replicas: tuple[Client, ...]
    gateway: Gateway
    load: Load
    clock: Callable[[], float]

    @property
    def id(self) -> str:
        return self.region.region_id

    @property
    def name(self) -> str:
        """What people call it."""
        return self.region.place

    async def ask(self, ask: Ask, *, explain: bool = False) -> Sent:
        """Sends one request and waits for its end."""
        return await self.gateway.send(Sent(ask, self.clock()), explain=explain)

    def answered(self, since: float) -> tuple[int, int]:
        """Callers since a time, and how many of them took an alternative; NotShown unless all were answered."""
        return all_answered(self.load.sent, since)

    async def until_decided(self, count: int, since: float, origin: str = "") -> list[Sent]:
        """The first decisions for requests since a time, once there are so many."""

        def those() -> list[Sent]:
            return [each for each in decided(self.load.sent, origin or self.id) if each.asked_at >= since][:count]

        async def look() -> tuple[bool, object]:
            return len(those()) == count, f"{len(those())} decisions"

        await until(f"{count} decisions of {self.name}", look)
        return those()

    async def eligible(self, ask: Ask) -> list[set[str]]:
        """The nodes that might get a request now, by each replica."""
        return [
            {node_of(each.target) for each in await self._candidates(replica, ask) if each.eligible}
            for replica in self.replicas
        ]

    async def rejections(self, ask: Ask) -> list[dict[str, str]]:
        """Why the other nodes would not, in a word each, by each replica."""
        return [
            {
                node_of(each.target): enum_word(each.rejection, "code")
                for each in await self._candidates(replica, ask)
                if not each.eligible
            }
            for replica in self.replicas
        ]

    async def health_score(self, node: str) -> float:
        """The least health score, 0..1, with which a node competes for requests from here; 0 where it does not."""
        ask, scores = Ask(self.id), []
        for replica in self.replicas:
            found = {node_of(each.target): each for each in await self._candidates(replica, ask)}
            scores.append(found[node].target.scores.health if node in found and found[node].eligible else 0.0)
        return min(scores)

    async def _candidates(self, replica: Client, ask: Ask) -> list[routing_pb2.Candidate]:
        page = await replica.candidates(routing_pb2.GetCandidatesRequest(request=self.gateway.request(ask)))
        return list(page.candidates)

    async def refusal(self, ask: Ask) -> RouteError | None:
        """Why a request would not be placed now; None where it would."""
        try:
            await self.gateway.decide(ask)
        except RouteError as error:
            return error
        return None

    async def links(self, replica: Client) -> dict[str, str]:
        """How each link of a replica is, by its sibling's name or a region; one that is down stands for all to it."""
        found: dict[str, str] = {}
        for peer in (await replica.fleet.ListPeers(fleet_pb2.ListPeersRequest())).peers:
            name, state = peer.replica_id or peer.region_id or peer.address, enum_word(peer, "state")
            if found.get(name, "up") == "up":
                found[name] = state
        return found

    async def serves(self, service: str) -> bool:
        """What grpc.health.v1 says of one service."""
        stub = health_pb2_grpc.HealthStub(self.client.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=f"federation.v1.{service}"))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def declare(self, machines: Machines) -> None:
        """Registers the model, the region and its nodes with their owner. RouteError."""
        known = await self.client.catalog.ListRegions(catalog_pb2.ListRegionsRequest())
        region = region_message(self.fleet, self.region)
        region.etag = next((each.etag for each in known.regions if each.region_id == self.id), "")
        await self.client.catalog.PutRegion(catalog_pb2.PutRegionRequest(region=region))
        await self.client.catalog.RegisterModel(catalog_pb2.RegisterModelRequest(model=model_message(self.fleet)))
        for node in self.fleet.nodes_of(self.id):
            message = catalog_pb2.RegisterNodeRequest(
                node=node_message(node, machines.engines[node.name]),
                deployments=[deployment_message(self.fleet, node)],
            )
            await self.client.catalog.RegisterNode(message)

    async def written(self, number: int) -> RouteError | None:
        """Registers a model that nobody needs; why that is refused, None where it is not."""
        model = types_pb2.Model(model_id=f"a-model-{number}")
        try:
            await self.client.catalog.RegisterModel(
                catalog_pb2.RegisterModelRequest(model=model, request_id=f"demo-{number}")
            )
        except grpc.aio.AioRpcError as error:
            return decode_error(error)
        return None


@dataclass(frozen=True, slots=True)
class Federation:
    """Everything that scenes work with."""

    fleet: DemoFleet
    machines: Machines
    processes: Processes
    screen: Screen
    places: tuple[Place, ...]
    clock: Callable[[], float]

    def place(self, region: str) -> Place:
        return next(each for each in self.places if each.id == region)

    def others(self, place: Place) -> tuple[Place, ...]:
        return tuple(each for each in self.places if each is not place)

    async def joined(self) -> tuple[bool, object]:
        """Whether every replica is linked with its sibling and both other regions, and may route to all nodes."""
        told: dict[str, object] = {}
        whole = True
        for place in self.places:
            try:
                links = [await place.links(replica) for replica in place.replicas]
                eligible = await place.eligible(Ask(place.id))
            except (RouteError, grpc.aio.AioRpcError) as error:
                # One that was just started again.
                return False, error
            told[place.id] = (links, eligible)
            whole &= all(len(each) == len(self.places) and set(each.values()) == {"up"} for each in links)
            whole &= all(len(each) == len(self.fleet.nodes) for each in eligible)
        return whole, told
