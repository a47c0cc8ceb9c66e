"""What scenes work with: the machines, the gateway, the load, and the control plane's view of it all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from federation.cli.figures import enum_word
from federation.edge.client import Client, RouteError
from federation.simulation.demo.checks import NotShown, until
from federation.simulation.demo.fleet import DemoFleet
from federation.simulation.demo.gateway import Ask, Gateway, Sent, node_of
from federation.simulation.demo.load import Load, decided
from federation.simulation.demo.machines import Machines
from federation.simulation.demo.screen import Screen
from federation.v1 import fleet_pb2, routing_pb2


@dataclass(slots=True)
class World:
    """The demonstration as it runs. `clock` is monotonic seconds."""

    fleet: DemoFleet
    machines: Machines
    client: Client
    gateway: Gateway
    load: Load
    screen: Screen
    http: aiohttp.ClientSession
    clock: Callable[[], float]
    # The decision that the end explains.
    to_explain: str = ""

    async def control(self, node: str, **change: object) -> None:
        """Changes how an engine behaves."""
        async with self.http.post(f"{self.machines.engines[node]}/control", json=change) as response:
            response.raise_for_status()

    async def ask(self, ask: Ask, *, explain: bool = False) -> Sent:
        """Sends one request and waits for its end."""
        return await self.gateway.send(Sent(ask, self.clock()), explain=explain)

    async def health(self, node: str) -> fleet_pb2.NodeHealth:
        """What the control plane thinks of a node. NotShown where it does not know it."""
        page = await self.client.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest(region_id=node.split("/")[0]))
        for each in page.nodes:
            if f"{each.region_id}/{each.node_id}" == node:
                found: fleet_pb2.NodeHealth = each
                return found
        raise NotShown(f"node {node} among those of its region", ", ".join(each.node_id for each in page.nodes))

    async def circuit(self, node: str) -> fleet_pb2.Circuit:
        """The circuit of a node's one deployment."""
        return (await self.health(node)).deployments[0].circuit

    async def candidate(self, ask: Ask, node: str) -> routing_pb2.Candidate:
        """How a request sees one node now, eligible or not."""
        page = await self.client.candidates(routing_pb2.GetCandidatesRequest(request=self.gateway.request(ask)))
        for each in page.candidates:
            if node_of(each.target) == node:
                return each
        raise NotShown(f"{node} among the candidates", ", ".join(each.target.deployment for each in page.candidates))

    async def eligible(self, ask: Ask) -> list[str]:
        """The nodes that might get a request now."""
        page = await self.client.candidates(routing_pb2.GetCandidatesRequest(request=self.gateway.request(ask)))
        return [node_of(each.target) for each in page.candidates if each.eligible]

    async def rejection(self, node: str, origin: str) -> str:
        """Why a node would not get a request from an origin now, in a word; empty where it might."""
        return enum_word((await self.candidate(Ask(origin), node)).rejection, "code")

    async def health_score(self, node: str, origin: str) -> float:
        """The health score, 0..1, with which a node competes for a request."""
        return (await self.candidate(Ask(origin), node)).target.scores.health

    async def refusal(self, ask: Ask) -> RouteError | None:
        """Why a request would not be placed now; None where it would."""
        try:
            await self.gateway.decide(ask)
        except RouteError as error:
            return error
        return None

    async def until_decided(self, count: int, origin: str, since: float) -> list[Sent]:
        """The first decisions for requests of an origin since a time, once there are so many and tokens came."""

        def those() -> list[Sent]:
            return [each for each in decided(self.load.sent, origin) if each.asked_at >= since][:count]

        async def look() -> tuple[bool, object]:
            found = those()
            waiting = sum(each.first_token_seconds is None for each in found)
            return len(found) == count and not waiting, f"{len(found)} decisions, {waiting} without a first token"

        await until(f"{count} decisions for requests from {origin}", look)
        return those()
