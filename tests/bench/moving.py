"""Decisions while things change: how soon they follow, and how long calls wait under a storm of writes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import grpc

from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc
from tests.bench import caller
from tests.bench.measure import Result, Scope, held, quantile
from tests.bench.servers import MODEL, ROOT, START_SECONDS, Served, fairway, finish, nodes, register
from tests.bench.wire import AT_A_TIME, ROUTE, checked, requests
from tests.federation.server import engine

# Nodes of one transaction of the storm, which has ten of them a second and a new table after each.
BATCH = 100
POLL_SECONDS = 0.002


async def waits(server: Served, channel: grpc.aio.Channel, seconds: float) -> list[float]:
    """What single calls of Route took, two at a time, for so many seconds at least."""
    messages = [request.SerializeToString() for request in requests()]
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        load = await caller.load(
            server.port, ROUTE, lambda n: messages[n % len(messages)], AT_A_TIME // 4, concurrency=2, connections=2
        )
        checked(load.answers)
        took += load.took
        await finish(channel, load.answers)
    return took


async def storm(address: str, url: str, count: int, updates: int) -> None:
    """Registers nodes with other content, so many a second, for ever; prints a line after each second."""
    async with grpc.aio.insecure_channel(address) as channel:
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        batch, turn, written, started = min(BATCH, count, updates), 0, 0, time.monotonic()
        etags: dict[str, str] = {}
        told = 1
        while True:
            turn += 1
            first = turn * batch % max(1, count - batch + 1)
            renewed = nodes(url, batch, first, price_usd_per_hour=1.0 + turn % 50)
            for request in renewed:
                request.node.etag = etags.get(request.node.node_id, "")
            if not etags:
                found = await catalog.ListNodes(catalog_pb2.ListNodesRequest(page_size=1_000))
                etags = {node.node_id: node.etag for node in found.nodes}
                for request in renewed:
                    request.node.etag = etags[request.node.node_id]
            answer = await catalog.RegisterNodes(catalog_pb2.RegisterNodesRequest(nodes=renewed))
            etags |= {node.node_id: node.etag for node in answer.nodes}
            written += batch
            passed = time.monotonic() - started
            if passed >= told:
                print(f"{written / passed:.0f}", flush=True)
                told += 1
            await asyncio.sleep(max(0.0, written / updates - passed))


@asynccontextmanager
async def storming(server: Served, url: str, scope: Scope) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """A storm from a process of its own, which has begun; a function that tells of its node updates a second."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.moving", server.address, url),
        *(str(scope.storm_nodes), str(scope.storm_updates)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    out = process.stdout

    async def rate() -> float:
        process.kill()
        told = (await out.read()).split()
        return float(told[-1] if told else first)

    try:
        # Its second line, so that what comes before it does not look like a storm.
        first = await asyncio.wait_for(out.readline(), START_SECONDS)
        assert first, "the storm ended before it began"
        yield rate
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stormy(scope: Scope) -> list[Result]:
    """How long calls wait, in quiet and in a storm."""
    async with (
        engine(MODEL) as node,
        fairway() as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        await register(channel, node.url, scope.storm_nodes)
        await waits(server, channel, scope.storm_seconds / 5)
        quiet = await waits(server, channel, scope.storm_seconds)
        async with storming(server, node.url, scope) as rate:
            loud = await waits(server, channel, scope.storm_seconds)
            updates = await rate()
    before, during = quantile(quiet, 0.99), quantile(loud, 0.99)
    return [
        Result("Route over gRPC in quiet, p50", quantile(quiet, 0.5) * 1000, "ms"),
        Result("Route over gRPC in quiet, p99", before * 1000, "ms"),
        Result("Route over gRPC in a storm, p50", quantile(loud, 0.5) * 1000, "ms"),
        held(
            scope,
            f"Route over gRPC in a storm of {updates:,.0f} node updates/s, p99",
            during * 1000,
            "ms",
            "<= 2 x quiet",
            during <= 2 * before,
            baseline="quiet p99",
            ratio=during / before,
        ),
    ]


class Watched:
    """A server whose nodes are told apart by a label, so that a Route can ask for one."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.routing = routing_pb2_grpc.RoutingServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)

    async def decision(self, number: int) -> routing_pb2.RouteDecision | None:
        """A decision for this node; None where its circuit is open."""
        only = {"node_labels": {"number": str(number)}}
        try:
            found = await self.routing.Route(
                routing_pb2.RouteRequest(model_id=MODEL, placement=only, explain="EXPLAIN_NONE")
            )
        except grpc.aio.AioRpcError as e:
            assert e.code() is grpc.StatusCode.UNAVAILABLE
            return None
        decision: routing_pb2.RouteDecision = found.decision
        outcome = routing_pb2.Outcome(
            decision_id=decision.decision_id, phase="OUTCOME_PHASE_FINISHED", result="OUTCOME_RESULT_CANCELLED"
        )
        await self.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome]))
        return decision

    async def until(self, number: int, reflected: Callable[[routing_pb2.RouteDecision | None], bool]) -> float:
        """Seconds until decisions reflect something."""
        started = time.monotonic()
        while not reflected(await self.decision(number)):
            assert time.monotonic() - started < START_SECONDS, "decisions never reflected it"
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - started

    async def failures(self, number: int) -> None:
        """Five failures in a row, which open the circuit of a node's deployment."""
        outcome = routing_pb2.Outcome(
            region_id="local",
            node_id=f"n{number}",
            model_id=MODEL,
            phase="OUTCOME_PHASE_FINISHED",
            result="OUTCOME_RESULT_SERVER_ERROR",
        )
        await self.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome] * 5))


def first_token(decision: routing_pb2.RouteDecision | None) -> float:
    """Seconds to the first token that a decision expects."""
    assert decision is not None, "no decision for a node that is well"
    expected: float = decision.target.estimated_time_to_first_token.ToTimedelta().total_seconds()
    return expected


async def fresh(scope: Scope) -> list[Result]:
    """How long it takes until decisions reflect an outcome, and a heartbeat."""
    outcomes: list[float] = []
    beats: list[float] = []
    async with (
        engine(MODEL) as node,
        fairway() as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        watched = Watched(channel)
        registered = nodes(node.url, 2 * scope.reports)
        for number, request in enumerate(registered):
            request.node.labels["number"] = str(number)
        for start in range(0, len(registered), 500):
            await watched.catalog.RegisterNodes(catalog_pb2.RegisterNodesRequest(nodes=registered[start : start + 500]))
        await register(channel, "", 0, expected=len(registered))
        stream = watched.catalog.Heartbeat()
        for number in range(scope.reports):
            before = first_token(await watched.decision(number))
            beat = catalog_pb2.NodeBeat(region_id="local", node_id=f"n{number}", load={"queue_depth": 10})
            await stream.write(catalog_pb2.HeartbeatRequest(beats=[beat]))
            beats.append(
                await watched.until(number, lambda found, least=before: first_token(found) > 2 * least)  # type: ignore[misc]
            )
        stream.cancel()
        for number in range(scope.reports, 2 * scope.reports):
            await watched.failures(number)
            outcomes.append(await watched.until(number, lambda found: found is None))
    return [
        held(
            scope,
            f"from {what} to decisions that reflect it, p99",
            quantile(took, 0.99) * 1000,
            "ms",
            "<= 250 ms",
            quantile(took, 0.99) <= 0.250,
        )
        for what, took in (("a heartbeat", beats), ("outcomes that open a circuit", outcomes))
    ]


def run_storm(scope: Scope) -> Iterator[Result]:
    """Waits in quiet and in a storm of writes."""
    yield from asyncio.run(stormy(scope))


def run_fresh(scope: Scope) -> Iterator[Result]:
    """How soon decisions follow."""
    yield from asyncio.run(fresh(scope))


if __name__ == "__main__":
    address, url, count, updates = sys.argv[1:]
    asyncio.run(storm(address, url, int(count), int(updates)))
