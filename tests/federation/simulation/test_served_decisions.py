"""The same requests through a running server, over gRPC, and through the simulator: the same targets.

A run in virtual time, in which the gateways ask a real server and report to it, with everything that stands before the
router there: the edge's interceptor, checks, encodings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from federation.api.convert import decisions as convert
from federation.api.listening import SERVER_OPTIONS
from federation.api.routing import RoutingService
from federation.simulation.fleet import load_fleet
from federation.simulation.routers import Behaviour, PolicyPlacer
from federation.simulation.traces import TraceRequest, at_rate, capacity, load_trace, with_priorities
from federation.simulation.world import Journey, Refused, World
from federation.v1 import routing_pb2 as pb
from federation.v1 import routing_pb2_grpc
from policies.presets import PRESETS
from policies.types import Outcome, Phase, Result
from tests.federation.server import running, unpacked

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]

FLEET = load_fleet("three-regions")
# One router for all gateways, whose requests name their origins, with priorities and bounds.
INTERACTIVE = Behaviour(PRESETS["interactive"], bounded=True, apart=False)
SEED = 5


def some_requests(trace: str, load: float) -> tuple[TraceRequest, ...]:
    requests = with_priorities(load_trace(trace)[:200], SEED)
    return at_rate(requests, load * capacity(FLEET, requests))


class WirePlacer(PolicyPlacer):
    """Says what a message can say: durations on the wire are whole nanoseconds."""

    def outcome(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> Outcome:
        return convert.outcome_from(convert.outcome_to(super().outcome(journey, phase, result, now)))


class ServedPlacer(WirePlacer):
    """Asks and reports over a channel; called on a thread, it waits for the loop that serves."""

    loop: asyncio.AbstractEventLoop
    stub: Any

    def _answer(self, call: Any) -> Any:
        async def answered() -> Any:
            return await call()

        return asyncio.run_coroutine_threadsafe(answered(), self.loop).result(timeout=60)

    def place(self, journey: Journey, now: float) -> None:
        message = convert.request_to(self.asked(journey))
        try:
            decision = self._answer(lambda: self.stub.Route(message)).decision
        except grpc.aio.AioRpcError as error:
            raise Refused(unpacked(error).reason) from error
        self.placed(journey, self.router.decision(decision.decision_id))
        told = [f"{each.region_id}/{each.node_id}" for each in (decision.target, *decision.alternatives)]
        assert tuple(told) == journey.targets

    def hear(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> None:
        outcomes = [convert.outcome_to(self.outcome(journey, phase, result, now))]
        answer = self._answer(lambda: self.stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes)))
        assert answer.accepted == 1


def met(world: World, placer: PolicyPlacer) -> list[tuple[Sequence[str], str]]:
    """Targets and refusals of all requests."""
    world.run([placer] * len(FLEET.gateways))
    return [(journey.targets, journey.refused) for journey in world.journeys]


@pytest.mark.parametrize(("trace", "load"), [("bursty.csv", 1.5), ("conversations.jsonl.gz", 0.7)])
async def test_a_server_chooses_over_grpc_what_the_simulator_chooses(trace: str, load: float) -> None:
    requests = some_requests(trace, load)
    alone, served = World(FLEET, requests, SEED), World(FLEET, requests, SEED)
    expected = met(alone, WirePlacer(FLEET, FLEET.gateways[0], INTERACTIVE, SEED, lambda: alone.now))

    placer = ServedPlacer(FLEET, FLEET.gateways[0], INTERACTIVE, SEED, lambda: served.now)
    async with running() as fairway:
        service = RoutingService(
            placer.router,
            fairway.plane.feed,
            report=placer.router.report,
            monotonic=lambda: served.now,
            new_id=lambda: "list",
        )
        server = grpc.aio.server(interceptors=[fairway.plane.edge], options=SERVER_OPTIONS)
        routing_pb2_grpc.add_RoutingServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            placer.loop, placer.stub = asyncio.get_running_loop(), routing_pb2_grpc.RoutingServiceStub(channel)
            try:
                found = await asyncio.to_thread(met, served, placer)
            finally:
                await server.stop(None)

    assert found == expected
    assert {bool(refused) for _, refused in expected} == {True, False} or load < 1.0
