"""Decisions over gRPC, as CPU of the server: Route and RouteBatch against an empty handler in the same server mode.

A client on the same two cores is dearer than the server, so calls a second would measure the client; what a call costs
the server's process is what an operator pays.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc

from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2
from tests.bench.measure import Result
from tests.federation.server import engine

MODEL = "bench"
NODES = 50
CALLS = 3_000
CONCURRENCY = 32
EMPTY = """
import asyncio, sys, grpc
from federation.api.listening import SERVER_OPTIONS
async def main():
    async def answer(request, context):
        return b""
    handler = grpc.method_handlers_generic_handler("bench.Empty", {"Call": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(call: Callable[[], Awaitable[object]], count: int) -> None:
    """Makes so many calls, some at once."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))


async def cost(pid: int, call: Callable[[], Awaitable[object]], count: int) -> float:
    """CPU seconds of the server for one call: the least of three rounds, after a warm-up."""
    await load(call, count // 4)
    best = float("inf")
    for _ in range(3):
        before = cpu_seconds(pid)
        await load(call, count)
        best = min(best, (cpu_seconds(pid) - before) / count)
    return best


async def measured() -> list[Result]:
    with tempfile.TemporaryDirectory() as scratch:
        empty = await asyncio.create_subprocess_exec(sys.executable, "-c", EMPTY, stdout=asyncio.subprocess.PIPE)
        log = Path(scratch) / "server.log"
        with log.open("w") as errors:
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "federation", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
                *("--database", f"sqlite:///{scratch}/bench.db"),
                stderr=errors,
            )
        try:
            assert empty.stdout is not None
            port = int(await empty.stdout.readline())
            address = await serving(log)
            async with (
                engine(MODEL) as node,
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare,
                grpc.aio.insecure_channel(address) as channel,
            ):
                await register(channel, node.url)
                routing = routing_pb2_grpc.RoutingServiceStub(channel)
                request = routing_pb2.RouteRequest(
                    model_id=MODEL, prompt={"input_tokens": 500, "max_output_tokens": 100}
                )
                nothing = bare.unary_unary("/bench.Empty/Call")
                batch = routing_pb2.RouteBatchRequest(requests=[request] * 1_000)
                least = await cost(empty.pid, lambda: nothing(b"x" * 40), CALLS)
                unary = await cost(server.pid, lambda: routing.Route(request), CALLS)
                many = await cost(server.pid, lambda: routing.RouteBatch(batch), 8) / 1_000
        finally:
            for process in (empty, server):
                process.terminate()
                await process.wait()
    return [
        Result("empty unary handler, grpc.aio", 1 / least, "calls per CPU s"),
        Result(
            f"Route over gRPC, {NODES} deployments",
            1 / unary,
            "calls per CPU s",
            "empty handler",
            least / unary,
            ">= 0.9",
            least / unary >= 0.9,
        ),
        Result(
            "RouteBatch of 1,000",
            1 / many,
            "decisions per CPU s",
            target=">= 100,000",
            met=1 / many >= 100_000,
        ),
    ]


async def serving(log: Path) -> str:
    """The address that the server logs when it listens."""
    import json

    for _ in range(600):
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return str(json.loads(line)["grpc"])
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


async def register(channel: grpc.aio.Channel, url: str) -> None:
    """Registers the nodes, and waits until all of them are routable."""
    catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
    routing = routing_pb2_grpc.RoutingServiceStub(channel)
    profile = types_pb2.ServingProfile(
        prefill_seconds_per_token=0.0002, decode_tokens_per_second=50, min_time_to_first_token={"nanos": 50_000_000}
    )
    nodes = [
        catalog_pb2.RegisterNodeRequest(
            node=types_pb2.Node(
                region_id="local",
                node_id=f"n{number}",
                endpoint=url,
                engine=types_pb2.ENGINE_VLLM,
                zone=f"z{number % 3}",
                lease_duration={"seconds": 0},
            ),
            deployments=[types_pb2.Deployment(model_id=MODEL, profile=profile)],
        )
        for number in range(NODES)
    ]
    await catalog.RegisterNodes(catalog_pb2.RegisterNodesRequest(nodes=nodes))
    asked = routing_pb2.GetCandidatesRequest(request={"model_id": MODEL})
    for _ in range(600):
        found = await routing.GetCandidates(asked)
        if sum(candidate.eligible for candidate in found.candidates) == NODES:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the nodes did not become routable")


def run() -> Iterator[Result]:
    """Every figure over gRPC."""
    yield from asyncio.run(measured())
