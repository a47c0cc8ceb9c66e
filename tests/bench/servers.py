"""Servers as processes of their own: `fairway serve` in a scratch directory, and what it is compared with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import grpc

from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2

MODEL = "bench"
ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
NOTHING: Mapping[str, str] = MappingProxyType({})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux: the clock of a process has a number made of its id)."""
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class Served:
    """A process that serves on a port of this machine, or of which `workers` do."""

    pid: int
    port: int
    workers: tuple[int, ...] = ()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """User and system time so far of all that serve."""
        return sum(cpu_seconds(pid) for pid in self.workers or (self.pid,))


@asynccontextmanager
async def served(*arguments: str) -> AsyncIterator[Served]:
    """`python -m tests.bench.served ARGUMENTS`, which prints its port once it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.served", *arguments), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        port, *workers = map(int, line.split())
        yield Served(process.pid, port, tuple(workers))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def fairway(
    *, module: str = "federation", database: str = "", environment: Mapping[str, str] = NOTHING
) -> AsyncIterator[Served]:
    """`fairway serve` on a database of its own, or on the given one; settings come by `environment`."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        with log.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
                *("--database", database or f"sqlite:///{scratch}/bench.db"),
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "FAIRWAY_TELEMETRY__LOG_FORMAT": "json", **environment},
            )
        try:
            yield Served(process.pid, await _port(process, log))
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _port(process: asyncio.subprocess.Process, log: Path) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.returncode is None:
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return int(str(json.loads(line)["grpc"]).rpartition(":")[2])
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def nodes(url: str, count: int, first: int = 0, **node: object) -> list[catalog_pb2.RegisterNodeRequest]:
    """Registrations of so many nodes from a number on, in three zones, that all have one engine's address."""
    profile = types_pb2.ServingProfile(
        prefill_seconds_per_token=0.0002, decode_tokens_per_second=50, min_time_to_first_token={"nanos": 50_000_000}
    )
    return [
        catalog_pb2.RegisterNodeRequest(
            node=types_pb2.Node(
                region_id="local",
                node_id=f"n{number}",
                endpoint=url,
                engine=types_pb2.ENGINE_VLLM,
                zone=f"z{number % 3}",
                lease_duration={"seconds": 0},
                **node,  # type: ignore[arg-type]
            ),
            deployments=[types_pb2.Deployment(model_id=MODEL, profile=profile)],
        )
        for number in range(first, first + count)
    ]


async def register(channel: grpc.aio.Channel, url: str, count: int, expected: int = 0) -> None:
    """Registers so many nodes, and waits until all of them, or as many as are expected, are routable."""
    catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
    routing = routing_pb2_grpc.RoutingServiceStub(channel)
    requests = nodes(url, count)
    for start in range(0, count, 500):
        await catalog.RegisterNodes(catalog_pb2.RegisterNodesRequest(nodes=requests[start : start + 500]))
    asked = routing_pb2.GetCandidatesRequest(request={"model_id": MODEL}, page_size=1)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            found = await routing.GetCandidates(asked)
        except grpc.aio.AioRpcError as e:
            # The table is a tenth of a second behind the catalog.
            if e.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.05)
            continue
        if found.total_size - sum(found.rejected.values()) == (expected or count):
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the nodes did not become routable")


async def finish(channel: grpc.aio.Channel, answers: Iterable[bytes]) -> None:
    """Reports what was routed as finished, so that the next round meets the load that this one met."""
    routing = routing_pb2_grpc.RoutingServiceStub(channel)
    outcomes = [
        routing_pb2.Outcome(
            decision_id=routing_pb2.RouteResponse.FromString(answer).decision.decision_id,
            phase="OUTCOME_PHASE_FINISHED",
            result="OUTCOME_RESULT_CANCELLED",
        )
        for answer in answers
    ]
    for start in range(0, len(outcomes), 1_000):
        await routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=outcomes[start : start + 1_000]))
