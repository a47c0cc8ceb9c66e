"""Two `fairway serve` on one real PostgreSQL: what is told to one holds at both, and the death of one costs nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.v1 import catalog_pb2, fleet_pb2, fleet_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2
from federation.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.federation.process import Process, serving
from tests.federation.server import engine
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 60.0
QUICK = {
    "FAIRWAY_HEALTH__PROBE_INTERVAL_SECONDS": "0.5",
    "FAIRWAY_HEALTH__RECHECK_INTERVAL_SECONDS": "0.2",
    "FAIRWAY_HEALTH__UNHEALTHY_AFTER": "1",
}


class Caller:
    """Talks to one server. The stubs have no types of their own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.catalog: Any = CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        self.routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)  # type: ignore[no-untyped-call]

    async def register(self, node_id: str, endpoint: str) -> None:
        await self.catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(
                    region_id="local",
                    node_id=node_id,
                    endpoint=endpoint,
                    engine=types_pb2.ENGINE_VLLM,
                    lease_duration={"seconds": 0},
                ),
                deployments=[types_pb2.Deployment(model_id="m")],
            )
        )

    async def route(self) -> routing_pb2.RouteDecision:
        answer = await self.routing.Route(routing_pb2.RouteRequest(model_id="m"))
        decision: routing_pb2.RouteDecision = answer.decision
        return decision

    async def routable(self) -> bool:
        try:
            await self.route()
        except grpc.aio.AioRpcError:
            return False
        return True

    async def failed(self, decision_id: str, node_id: str) -> None:
        outcome = routing_pb2.Outcome(
            decision_id=decision_id,
            region_id="local",
            node_id=node_id,
            model_id="m",
            result=routing_pb2.OUTCOME_RESULT_SERVER_ERROR,
        )
        await self.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome]))

    async def answered(self, decision: routing_pb2.RouteDecision) -> None:
        outcome = routing_pb2.Outcome(decision_id=decision.decision_id, result=routing_pb2.OUTCOME_RESULT_OK)
        await self.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome]))

    async def open_circuits(self) -> list[str]:
        answer = await self.fleet.ListCircuits(fleet_pb2.ListCircuitsRequest(tripped_only=True))
        return [each.node_id for each in answer.circuits]

    async def health(self) -> dict[str, str]:
        answer = await self.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest())
        return {each.node_id: fleet_pb2.HealthState.Name(each.state) for each in answer.nodes}

    async def siblings_up(self) -> int:
        answer = await self.fleet.ListPeers(fleet_pb2.ListPeersRequest())
        siblings = [each for each in answer.peers if each.role == fleet_pb2.PEER_ROLE_SIBLING]
        return sum(each.state == fleet_pb2.LINK_STATE_UP for each in siblings)


@asynccontextmanager
async def calling(process: Process) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(process.address) as channel:
        yield Caller(channel)


async def until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it held; AssertionError after PATIENCE_SECONDS."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() - started < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_two_replicas_decide_as_one_and_the_death_of_one_fails_no_route(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url = postgres.database()
    measured: dict[str, float] = {}
    with (
        serving(tmp_path, "--database", url, env=QUICK) as one,
        serving(tmp_path, "--database", url, env=QUICK) as two,
    ):
        async with calling(one) as a, calling(two) as b, engine("m") as first, engine("m") as second:

            async def linked() -> bool:
                return await a.siblings_up() == await b.siblings_up() == 1

            measured["linked"] = await until(linked)

            await a.register("n1", first.url)
            measured["routable at the other"] = await until(b.routable)
            await b.register("n2", second.url)

            async def both_well() -> bool:
                healthy = {"n1": "HEALTH_STATE_HEALTHY", "n2": "HEALTH_STATE_HEALTHY"}
                return await a.health() == await b.health() == healthy

            await until(both_well)

            for number in range(5):
                await a.failed(f"x-{number}", "n1")
            assert await a.open_circuits() == ["n1"]

            async def open_at_b() -> bool:
                return await b.open_circuits() == ["n1"]

            measured["circuit open at the other"] = await until(open_at_b)

            # The next table leaves it out, and the request that one decides by it is told of to the other.
            async def left_out() -> bool:
                return (await a.route()).target.node_id == "n2"

            measured["left out of decisions"] = await until(left_out)
            decision = await a.route()
            await b.failed(decision.decision_id, "n2")

            async def arrived() -> bool:
                known = await a.routing.GetDecision(routing_pb2.GetDecisionRequest(decision_id=decision.decision_id))
                return len(known.outcomes) == 1

            measured["outcome at who decided"] = await until(arrived)

            # Each engine is probed by one of them, not by both.
            before, started = first.probes + second.probes, time.monotonic()
            await asyncio.sleep(3.0)
            rate = (first.probes + second.probes - before) / (time.monotonic() - started)
            measured["probes a second and node"] = rate / 2

            routed, failed = 0, list[str]()
            stop = asyncio.Event()

            async def routes_on() -> None:
                nonlocal routed
                while not stop.is_set():
                    routed += 1
                    try:
                        await a.answered(await a.route())
                    except grpc.aio.AioRpcError as error:
                        failed.append(f"{error.code().name} {error.details()}")
                    await asyncio.sleep(0.01)

            traffic = asyncio.create_task(routes_on())
            os.kill(two.popen.pid, signal.SIGKILL)
            two.wait()
            alone = time.monotonic()
            await until(lambda: _is(a.siblings_up, 0))
            probes = first.probes, second.probes

            async def both_probed() -> bool:
                return first.probes > probes[0] and second.probes > probes[1]

            measured["probes taken over"] = await until(both_probed)
            stop.set()
            await traffic
            second.status = 500

            async def seen_dead() -> bool:
                return (await a.health())["n2"] == "HEALTH_STATE_UNHEALTHY"

            await until(seen_dead)
            measured["death of a node seen after the death of a replica"] = time.monotonic() - alone

    with capsys.disabled():
        print("\n" + "\n".join(f"  {name}: {value:.3f}" for name, value in measured.items()))
        print(f"  routed while a replica was killed: {routed}, without a target: {len(failed)}")
    assert routed > 0
    assert failed == []


async def _is(asked: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await asked() == wanted


async def test_a_replica_that_stops_takes_its_name_out_of_the_database(postgres: Postgres, tmp_path: Path):
    url = postgres.database()
    with serving(tmp_path, "--database", url) as one:
        assert len(replicas(postgres, url)) == 1
        one.terminate()
        assert one.wait() == 0

    assert replicas(postgres, url) == []


def replicas(postgres: Postgres, url: str) -> list[tuple[Any, ...]]:
    return postgres.execute("SELECT replica_id FROM replicas", database=url.rpartition("/")[2])
