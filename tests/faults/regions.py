"""Three regions as processes of their own, joined by relays that can be cut, and callers that never stop asking."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from federation.edge.service_config import channel_options
from federation.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    policy_pb2_grpc,
    routing_pb2,
    routing_pb2_grpc,
    types_pb2,
)
from tests.faults.lives import Life
from tests.federation.relay import Relay, relay

LAW = {"eu": ("DE", "EU"), "us": ("US",), "ap": ("JP",)}
# For a machine that does much else.
PATIENCE_SECONDS = 60.0
CALL_SECONDS = 20.0
# Room for all that waits when the machine pauses: what is tried is not its lack.
ROOMY = 10_000
# What every node is declared to do, and what callers report of it: short prompts, 1 ms of prefill each. A node of which
# nothing is known is taken to prefill 4 of the usual prompts in a second; hundreds that callers did not yet report
# would be a queue of minutes, and refused.
PROMPT_TOKENS = 100
PROFILE = {
    "prefill_seconds_per_token": 1e-5,
    "min_time_to_first_token": {"nanos": 1_000_000},
    "decode_tokens_per_second": 500.0,
}
ANSWER_TOKENS = 10
FIRST_TOKEN_NANOS, ANSWER_NANOS = 1_000_000, 20_000_000
PROMPT = {"input_tokens": PROMPT_TOKENS, "max_output_tokens": ANSWER_TOKENS}
PUBLIC = types_pb2.PRIVACY_LEVEL_PUBLIC


class Place:
    """One region: its process, how to talk to it, and what was registered there."""

    def __init__(self, name: str, life: Life, channel: grpc.aio.Channel) -> None:
        self.name = name
        self.life = life
        self.catalog: Any = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        self.routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        self.policy: Any = policy_pb2_grpc.PolicyServiceStub(channel)  # type: ignore[no-untyped-call]
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)  # type: ignore[no-untyped-call]
        self.nodes: set[str] = set()

    async def register(
        self, node_id: str, endpoint: str, model_id: str = "m", *, batch: int | None = None, **node: Any
    ) -> None:
        """Registers a node that stays; `batch` is how many requests it is declared to serve together."""
        await self.catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(
                    region_id=self.name,
                    node_id=node_id,
                    endpoint=endpoint,
                    engine=types_pb2.ENGINE_VLLM,
                    privacy_level=PUBLIC,
                    lease_duration={"seconds": 0},
                    **node,
                ),
                deployments=[
                    types_pb2.Deployment(model_id=model_id, profile={**PROFILE, "max_batch_size": batch}),
                ],
            )
        )
        self.nodes.add(f"{self.name}/{node_id}")

    async def deregister(self, node_id: str) -> None:
        await self.catalog.DeregisterNode(catalog_pb2.DeregisterNodeRequest(region_id=self.name, node_id=node_id))
        self.nodes.discard(f"{self.name}/{node_id}")

    async def route(self, **request: Any) -> routing_pb2.RouteDecision:
        request = {"model_id": "m", "qos": {"privacy_level": PUBLIC}, "prompt": PROMPT, **request}
        answer = await self.routing.Route(routing_pb2.RouteRequest(**request), timeout=CALL_SECONDS)
        decision: routing_pb2.RouteDecision = answer.decision
        return decision

    async def finished(self, *decisions: routing_pb2.RouteDecision) -> None:
        """Reports, as a gateway does, that calls went well; else their room would stay taken."""
        outcomes = [
            routing_pb2.Outcome(
                decision_id=decision.decision_id,
                phase=routing_pb2.OUTCOME_PHASE_FINISHED,
                result=routing_pb2.OUTCOME_RESULT_OK,
                latency={"nanos": ANSWER_NANOS},
                time_to_first_token={"nanos": FIRST_TOKEN_NANOS},
                input_tokens=PROMPT_TOKENS,
                output_tokens=ANSWER_TOKENS,
            )
            for decision in decisions
        ]
        await self.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=outcomes), timeout=CALL_SECONDS)

    async def shown(self) -> list[str]:
        """Every node that it shows, its own and imported ones; one that is shown twice stands there twice."""
        answer = await self.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest(page_size=1000))
        return sorted(f"{node.region_id}/{node.node_id}" for node in answer.nodes)

    async def states(self) -> dict[str, str]:
        """State of the link to each peer, and whether its lease is over."""
        answer = await self.fleet.ListPeers(fleet_pb2.ListPeersRequest())
        return {
            peer.region_id: "EXPIRED"
            if peer.reason.startswith("PEER_LEASE_EXPIRED")
            else fleet_pb2.LinkState.Name(peer.state).removeprefix("LINK_STATE_")
            for peer in answer.peers
        }

    async def siblings(self) -> dict[str, str]:
        """State of the link to each sibling replica."""
        answer = await self.fleet.ListPeers(fleet_pb2.ListPeersRequest())
        return {
            peer.replica_id: fleet_pb2.LinkState.Name(peer.state).removeprefix("LINK_STATE_")
            for peer in answer.peers
            if peer.replica_id
        }


@dataclass
class Regions:
    """Three of them; `wires` are all the ways between them, by who dials whom."""

    places: dict[str, Place]
    wires: dict[tuple[str, str], Relay]

    def around(self, name: str) -> list[Relay]:
        return [wire for pair, wire in self.wires.items() if name in pair]

    async def joined(self) -> bool:
        states = [await place.states() for place in self.places.values()]
        return all(list(each.values()) == ["UP"] * (len(self.places) - 1) for each in states)

    async def agree(self) -> bool:
        """Whether everybody shows what was registered anywhere, each of it once."""
        wanted = sorted(node for place in self.places.values() for node in place.nodes)
        return all([await place.shown() == wanted for place in self.places.values()])


@asynccontextmanager
async def regions(directory: Path, **flags: object) -> AsyncIterator[Regions]:
    """eu, us and ap, each with a database of its own; us dials eu, ap dials both."""
    places: dict[str, Place] = {}
    wires: dict[tuple[str, str], Relay] = {}
    async with AsyncExitStack() as stack:
        for name in LAW:
            peers = []
            for other, place in places.items():
                wires[name, other] = await stack.enter_async_context(relay(place.life.address))
                peers.append(wires[name, other].address)
            settings: dict[str, object] = {
                "region.id": name,
                "region.owns": (name,),
                "region.jurisdiction": LAW[name],
                "peering.peers": tuple(peers),
                "store.url": f"sqlite:///{directory / name}.db",
                "health.probe_interval_seconds": 0.5,
                "health.recheck_interval_seconds": 0.2,
            }
            life = await Life.begin({**settings, **flags}, directory / f"{name}.log")
            stack.push_async_callback(life.end)
            # As the shipped client has it.
            options = channel_options(CALL_SECONDS, None)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(life.address, options))
            places[name] = Place(name, life, channel)
        found = Regions(places, wires)
        await until(found.joined)
        yield found
    for name in LAW:
        assert "Traceback" not in (directory / f"{name}.log").read_text()


async def until(condition: Callable[[], Awaitable[bool]], pause: float = 0.05) -> float:
    """How long it took until the condition held; AssertionError where it took too long."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() - started < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS} s: {condition}"
        await asyncio.sleep(pause)
    return time.monotonic() - started


@dataclass
class Callers:
    """Asks places for a decision again and again, at a rate for each of them."""

    places: list[Place]
    rate: float
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    targets: Counter[tuple[str, str]] = field(default_factory=Counter)
    over: defaultdict[str, list[routing_pb2.RouteDecision]] = field(default_factory=lambda: defaultdict(list))

    async def run(self) -> None:
        """Until cancelled. Calls go out on time, whatever becomes of those before."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for place in self.places:
                calls.create_task(self._report(place))
            while True:
                for place in self.places:
                    calls.create_task(self._call(place))
                due += 1.0 / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _call(self, place: Place) -> None:
        asked = time.monotonic()
        try:
            decision = await place.route()
        except grpc.aio.AioRpcError as e:
            self.failures[f"{place.name}: {e.code().name} {(e.details() or '')[:100]}"] += 1
        else:
            self.seconds.append(time.monotonic() - asked)
            self.targets[place.name, decision.target.region_id] += 1
            self.over[place.name].append(decision)

    async def _report(self, place: Place) -> None:
        """Reports what is over, ten times a second; what was not taken is reported again."""
        while True:
            await asyncio.sleep(0.1)
            over = self.over[place.name][:1_000]
            with suppress(grpc.aio.AioRpcError):
                if over:
                    await place.finished(*over)
                    del self.over[place.name][: len(over)]

    @property
    def calls(self) -> int:
        return len(self.seconds) + self.failures.total()

    def p(self, share: float) -> float:
        """A quantile of the seconds that answers took."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@asynccontextmanager
async def calling(places: list[Place], rate: float) -> AsyncIterator[Callers]:
    """Callers for as long as the block runs."""
    callers = Callers(places, rate)
    task = asyncio.create_task(callers.run())
    try:
        yield callers
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
