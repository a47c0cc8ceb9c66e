"""Small real servers for the edge tests: a routing service that remembers, and a relay that can cut or swallow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from federation.v1 import routing_pb2, routing_pb2_grpc


class Routing(routing_pb2_grpc.RoutingServiceServicer):
    """Decides everything for one node, unless it is told to fail or to wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.metadata: list[dict] = []
        self.outcomes: list[routing_pb2.Outcome] = []
        self.batches: list[int] = []
        self.failure: status_pb2.Status | None = None
        self.refuse_outcome: Callable[[routing_pb2.Outcome], bool] = lambda _: False
        self.open = asyncio.Event()
        self.open.set()
        self.address = ""
        self.server: grpc.aio.Server | None = None

    async def Route(self, request, context):
        self.calls += 1
        decision_id = f"{self.name}-{self.calls}"
        self.metadata.append(dict(context.invocation_metadata()))
        await self.open.wait()
        await self._fail(context)
        target = routing_pb2.RouteTarget(region_id="r1", node_id=self.name, model_id=request.model_id)
        decision = routing_pb2.RouteDecision(decision_id=decision_id, target=target, reasoning="It is the one.")
        return routing_pb2.RouteResponse(decision=decision)

    async def ReportOutcomes(self, request, context):
        await self._fail(context)
        if any(map(self.refuse_outcome, request.outcomes)):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an outcome is bad")
        self.outcomes.extend(request.outcomes)
        self.batches.append(len(request.outcomes))
        return routing_pb2.ReportOutcomesResponse(accepted=len(request.outcomes))

    async def GetCandidates(self, request, context):
        return routing_pb2.GetCandidatesResponse(candidates=[routing_pb2.Candidate(eligible=True)])

    async def RouteBatch(self, request, context):
        error = routing_pb2.RouteError(code=8, message="full", reason="NO_CAPACITY")
        return routing_pb2.RouteBatchResponse(results=[routing_pb2.RouteResult(error=error)])

    async def _fail(self, context) -> None:
        if self.failure is not None:
            details = (("grpc-status-details-bin", self.failure.SerializeToString()),)
            code = next(code for code in grpc.StatusCode if code.value[0] == self.failure.code)
            await context.abort(code, self.failure.message, trailing_metadata=details)


def a_status(code: grpc.StatusCode, reason: str, message: str = "no", **metadata: str) -> status_pb2.Status:
    """A refusal with all the details that the API may send."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="prompt.input_tokens", description="must be >= 0")
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (
        error_details_pb2.ErrorInfo(reason=reason, domain="federation.v1", metadata=metadata),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)),
        error_details_pb2.BadRequest(field_violations=[violation]),
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


@asynccontextmanager
async def serving(name: str, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Routing]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    routing = Routing(name)
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(routing, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    routing.address = f"127.0.0.1:{port}"
    await server.start()
    routing.server = server
    try:
        yield routing
    finally:
        routing.open.set()
        await server.stop(None)


class Relay:
    """A TCP hop before a server. `kill` closes all and listens no more, `swallow` keeps all and passes nothing on."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pass = asyncio.Event()
        self._pass.set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def kill(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self) -> None:
        self._pass.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                await self._pass.wait()
                sink.write(data)
                await sink.drain()
            sink.close()


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    relay = Relay(target)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.kill()
