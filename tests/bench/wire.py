"""Decisions over gRPC, as CPU of the server: Route and RouteBatch against an empty handler in the same server mode.

What a call costs the server's process is what an operator pays; the caller on the same cores costs about as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import grpc

from federation.api.routing import INSTALL_SECONDS
from federation.v1 import policy_pb2, policy_pb2_grpc, routing_pb2
from tests.bench import caller, served
from tests.bench.measure import SEED, Result, Scope, held
from tests.bench.servers import MODEL, Served, cpu_seconds, fairway, finish, register
from tests.bench.servers import served as serving
from tests.federation.server import engine

ROUTE = "/federation.v1.RoutingService/Route"
# A policy that draws two.
PAIRS = "pairs"
BATCH = "/federation.v1.RoutingService/RouteBatch"
IN_A_BATCH = 1_000
# Calls until what they routed is told to have ended: more would fill the fleet, and scores fall below the least.
AT_A_TIME = 1_000


def requests(count: int = 256, **fields: object) -> list[routing_pb2.RouteRequest]:
    """Requests as a gateway sends them: each with its own id, and prompts of all lengths."""
    rng = Random(SEED)
    return [
        routing_pb2.RouteRequest(
            model_id=MODEL,
            request_id=f"{rng.getrandbits(64):016x}",
            prompt={"input_tokens": int(rng.lognormvariate(6.5, 0.8)), "max_output_tokens": 200},
            **fields,  # type: ignore[arg-type]
        )
        for _ in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """One method of one server, and the messages that it is asked with in turn."""

    server: Served
    method: str
    messages: Sequence[bytes]
    # Whether it asks for alternatives.
    alternatives: bool = True

    async def cost(self, count: int) -> float:
        """CPU seconds of the server for a call; what was routed has ended when it is told."""
        messages, pid, port, took = self.messages, self.server.pid, self.server.port, 0.0
        for start in range(0, count, AT_A_TIME):
            slice_of = min(AT_A_TIME, count - start)
            before = cpu_seconds(pid)
            load = await caller.load(port, self.method, lambda n: messages[n % len(messages)], slice_of)
            took += cpu_seconds(pid) - before
            assert len(load.took) == slice_of
            if self.method == ROUTE:
                checked(load.answers, self.alternatives)
                async with grpc.aio.insecure_channel(self.server.address) as channel:
                    await finish(channel, load.answers)
        return took / count


async def costs(asked: Sequence[Asked], count: int, rounds: int) -> list[float]:
    """CPU seconds of a call of each: the least of some rounds, which take turns, so that noise meets all alike."""
    best = [float("inf")] * len(asked)
    for each in asked:
        await each.cost(max(4, count // 4))
    for _ in range(rounds):
        for number, each in enumerate(asked):
            best[number] = min(best[number], await each.cost(count))
    return best


def checked(answers: Sequence[bytes], alternatives: bool = True) -> None:
    """What was answered are decisions, and they are spread."""
    found = [routing_pb2.RouteResponse.FromString(answer).decision for answer in answers]
    assert found
    assert all(decision.target.endpoint for decision in found)
    assert all(bool(decision.alternatives) == alternatives for decision in found)
    assert len({decision.target.deployment for decision in found}) > min(3, len(found) // 8)


async def checked_batch(channel: grpc.aio.Channel, batch: bytes) -> None:
    call = channel.unary_unary(BATCH, response_deserializer=routing_pb2.RouteBatchResponse.FromString)
    found = await call(batch)
    assert len(found.results) == IN_A_BATCH
    assert all(result.decision.target.endpoint for result in found.results)
    assert len({result.decision.target.deployment for result in found.results}) > 3
    await finish(channel, [result.SerializeToString() for result in found.results])


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    """A collector that takes whatever OTLP sends."""

    async def take(request: bytes, context: object) -> bytes:
        return b""

    class Anything(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, details: object) -> object:
            return grpc.unary_unary_rpc_method_handler(take)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def calls(scope: Scope) -> list[Result]:
    """Route and RouteBatch of a real server, and an empty handler on the same mode."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(engine(MODEL))
        empty = await stack.enter_async_context(serving("served", "empty"))
        server = await stack.enter_async_context(fairway())
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        policies = policy_pb2_grpc.PolicyServiceStub(channel)
        policy = {"policy_id": PAIRS, "document_json": '{"picker": "power_of_two"}'}
        await policies.PutPolicy(policy_pb2.PutPolicyRequest(policy=policy))
        await register(channel, node.url, scope.nodes)
        await asyncio.sleep(2 * INSTALL_SECONDS)
        short = {"max_alternatives": 0, "explain": "EXPLAIN_NONE"}
        least, *unary = await costs(
            [
                Asked(empty, served.METHOD, [b"x" * 40]),
                *[
                    Asked(server, ROUTE, [r.SerializeToString() for r in requests(**fields)], "explain" not in fields)
                    for fields in ({}, {"policy_id": PAIRS}, {**short, "policy_id": PAIRS})
                ],
            ],
            scope.calls,
            min(3, scope.rounds),
        )
        many = []
        for fields in ({}, short, {"policy_id": PAIRS}, {**short, "policy_id": PAIRS}):
            several = requests(**fields)
            batch = routing_pb2.RouteBatchRequest(
                requests=[several[n % len(several)] for n in range(IN_A_BATCH)]
            ).SerializeToString()
            await checked_batch(channel, batch)
            many.append(await batch_cost(server, channel, batch, scope))
    told = ("four targets and reasons each", "targets only")
    return [
        Result("empty unary handler on the server's mode", 1 / least, "calls per CPU s"),
        held(
            scope,
            f"Route over gRPC, {scope.nodes} deployments",
            1 / unary[0],
            "calls per CPU s",
            ">= 0.9",
            least / unary[0] >= 0.9,
            baseline="empty handler",
            ratio=least / unary[0],
        ),
        *[
            Result(f"Route by power_of_two, {what}", 1 / cost, "calls per CPU s", "empty handler", least / cost)
            for what, cost in zip(told, unary[1:], strict=True)
        ],
        *[
            Result(f"RouteBatch of 1,000, {what}", IN_A_BATCH / cost, "decisions per CPU s")
            for what, cost in zip(told, many[:2], strict=True)
        ],
        Result(f"RouteBatch of 1,000 by power_of_two, {told[0]}", IN_A_BATCH / many[2], "decisions per CPU s"),
        held(
            scope,
            f"RouteBatch of 1,000 by power_of_two, {told[1]}",
            IN_A_BATCH / many[3],
            "decisions per CPU s",
            ">= 100,000/s",
            IN_A_BATCH / many[3] >= 100_000,
        ),
    ]


async def batch_cost(server: Served, channel: grpc.aio.Channel, batch: bytes, scope: Scope) -> float:
    """CPU seconds of the server for one batch."""
    call = channel.unary_unary(BATCH)
    best = float("inf")
    for _ in range(scope.batches):
        before = cpu_seconds(server.pid)
        answer = await call(batch)
        best = min(best, cpu_seconds(server.pid) - before)
        # A RouteResult and a RouteResponse hold a decision in the same field.
        results = routing_pb2.RouteBatchResponse.FromString(answer).results
        await finish(channel, [result.SerializeToString() for result in results])
    return best


async def telemetry(scope: Scope) -> list[Result]:
    """Route on servers that tell nothing, what they tell by default, and with a collector."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(engine(MODEL))
        url = await stack.enter_async_context(collector())
        silent = await stack.enter_async_context(fairway(module="tests.bench.untold"))
        usual = await stack.enter_async_context(fairway())
        traced = await stack.enter_async_context(fairway(environment={"FAIRWAY_TELEMETRY__OTLP_ENDPOINT": url}))
        routes = [request.SerializeToString() for request in requests()]
        for server in (silent, usual, traced):
            async with grpc.aio.insecure_channel(server.address) as channel:
                await register(channel, node.url, scope.nodes)
        least, told, sampled = await costs(
            [Asked(server, ROUTE, routes) for server in (silent, usual, traced)], scope.calls // 4, 4 * scope.rounds
        )
    return [
        held(
            scope,
            f"telemetry's share of a unary Route, {name}",
            max(0.0, 1 - least / cost),
            "of its CPU",
            "<= 0.05",
            1 - least / cost <= 0.05,
            baseline="a server that tells nothing",
            ratio=cost / least,
        )
        for name, cost in (("without a collector", told), ("with a collector", sampled))
    ]


def run(scope: Scope) -> Iterator[Result]:
    """Route and RouteBatch over gRPC."""
    yield from asyncio.run(calls(scope))


def run_telemetry(scope: Scope) -> Iterator[Result]:
    """What telemetry costs a Route."""
    yield from asyncio.run(telemetry(scope))
