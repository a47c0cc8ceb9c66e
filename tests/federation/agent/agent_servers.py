"""What an agent stands between, small and real: a catalog service that keeps books, and a stand-in engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import grpc
from aiohttp import web
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from federation.simulation.batching import BatchProfile
from federation.simulation.engine import EngineServer
from federation.simulation.stand_in import StandIn
from federation.v1 import catalog_pb2, catalog_pb2_grpc, types_pb2

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    """Keeps nodes as the real service promises to: etags, conflicts, leases in beats. It outlives its server."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str], types_pb2.Node] = {}
        self.registrations: list[catalog_pb2.RegisterNodeRequest] = []
        self.beats: list[catalog_pb2.NodeBeat] = []
        self.events: list[str] = []
        self.refuse: grpc.StatusCode | None = None
        self.address = ""
        self._etags = 0

    @property
    def node(self) -> types_pb2.Node | None:
        return next(iter(self.nodes.values()), None)

    @property
    def loads(self) -> list[catalog_pb2.NodeLoad]:
        return [beat.load for beat in self.beats if beat.HasField("load")]

    async def RegisterNode(self, request, context):
        self.registrations.append(request)
        if self.refuse is not None:
            await context.abort(self.refuse, "refused by the test")
        key = (request.node.region_id, request.node.node_id)
        stored = self.nodes.get(key)
        if request.node.etag and request.node.etag != (stored.etag if stored is not None else ""):
            await self._abort(context, grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        content = types_pb2.Node()
        content.CopyFrom(request.node)
        content.etag = ""
        content.deployments.extend(request.deployments)
        if stored is not None:
            before = types_pb2.Node()
            before.CopyFrom(stored)
            before.etag = ""
            if before != content and not request.node.etag:
                await self._abort(context, grpc.StatusCode.ALREADY_EXISTS, "NODE_CONFLICT")
        self._etags += 1
        content.etag = f"e{self._etags}"
        self.nodes[key] = content
        self.events.append("register")
        return catalog_pb2.RegisterNodeResponse(node=content)

    async def GetNode(self, request, context):
        stored = self.nodes.get((request.region_id, request.node_id))
        if stored is None:
            await self._abort(context, grpc.StatusCode.NOT_FOUND, "NODE_UNKNOWN")
        return catalog_pb2.GetNodeResponse(node=stored)

    async def DrainNode(self, request, context):
        self.events.append("drain")
        return catalog_pb2.DrainNodeResponse(node=self.nodes[request.region_id, request.node_id])

    async def DeregisterNode(self, request, context):
        self.events.append("deregister")
        if self.nodes.pop((request.region_id, request.node_id), None) is None:
            await self._abort(context, grpc.StatusCode.NOT_FOUND, "NODE_UNKNOWN")
        return catalog_pb2.DeregisterNodeResponse(revision=1)

    async def Heartbeat(self, request_iterator, context):
        async for request in request_iterator:
            response = catalog_pb2.HeartbeatResponse()
            for beat in request.beats:
                self.beats.append(beat)
                stored = self.nodes.get((beat.region_id, beat.node_id))
                result = response.results.add(region_id=beat.region_id, node_id=beat.node_id, known=stored is not None)
                if stored is not None:
                    result.lease_duration.CopyFrom(stored.lease_duration)
            yield response

    async def _abort(self, context, code: grpc.StatusCode, reason: str) -> None:
        status = status_pb2.Status(code=code.value[0], message=reason)
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="federation.v1"))
        status.details.append(detail)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, reason, trailing_metadata=metadata)


@asynccontextmanager
async def a_control_plane(catalog: Catalog, address: str = "127.0.0.1:0") -> AsyncIterator[Catalog]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    catalog.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield catalog
    finally:
        await server.stop(None)


@asynccontextmanager
async def an_engine(*, load_seconds: float = 0.0, port: int = 0) -> AsyncIterator[tuple[StandIn, str]]:
    """The engine and its URL."""
    profile = BatchProfile(
        prefill_seconds_per_token=0.00001,
        min_time_to_first_token_seconds=0.001,
        decode_tokens_per_second=1_000.0,
        max_batch_size=8,
        kv_cache_tokens=10_000,
    )
    engine = StandIn(profile, MODEL, clock=asyncio.get_running_loop().time, rng=Random(1))
    server = EngineServer(engine, MODEL, load_seconds=load_seconds, rng=Random(2))
    async with served(server.app, port) as url:
        yield engine, url


@asynccontextmanager
async def served(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns once the condition holds; fails after the bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def ended(task: Awaitable[int], seconds: float = 20.0) -> int:
    return await asyncio.wait_for(task, seconds)
