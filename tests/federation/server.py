"""A complete control plane in this process, on free ports, with a channel to it and engines that it can probe.

async with running() as fairway, engine("m") as url:
    await fairway.register("local", "n1", url, "m")
    await fairway.until_routable("m")
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
import structlog
from aiohttp import web
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from catalog.memory import MemoryStore
from catalog.store import CatalogStore
from federation.app import Clock, ControlPlane, control_plane
from federation.config import Settings, load
from federation.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2_grpc,
    policy_pb2_grpc,
    routing_pb2,
    routing_pb2_grpc,
    types_pb2,
)

# Nothing here takes seconds; a machine that is busy with other tests may need them all the same.
PATIENCE_SECONDS = 20.0


class ShiftedClock:
    """Real time that can be moved forward: `advance(31)` ends leases, and the loops go on at their own pace."""

    def __init__(self) -> None:
        self.offset = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.offset

    def wall(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds

    @property
    def clock(self) -> Clock:
        return Clock(self.monotonic, self.wall, asyncio.sleep)


@dataclass
class Running:
    """A control plane that runs, and how to talk to it. The stubs have no types of their own."""

    plane: ControlPlane
    clock: ShiftedClock
    channel: grpc.aio.Channel
    logged: list[Mapping[str, Any]]
    catalog: Any = field(init=False)
    routing: Any = field(init=False)
    policy: Any = field(init=False)
    fleet: Any = field(init=False)
    health: Any = field(init=False)

    def __post_init__(self) -> None:
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.routing = routing_pb2_grpc.RoutingServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.policy = policy_pb2_grpc.PolicyServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.fleet = fleet_pb2_grpc.FleetServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.health = health_pb2_grpc.HealthStub(self.channel)

    @property
    def target(self) -> str:
        """What a client connects to."""
        return str(self.plane.address)

    @property
    def admin_url(self) -> str:
        return f"http://{self.plane.admin_address}"

    async def register(
        self, region_id: str, node_id: str, endpoint: str, *model_ids: str, **node: Any
    ) -> types_pb2.Node:
        """Registers a node with its models; it lives until deregistered unless `lease_duration` says otherwise."""
        node.setdefault("lease_duration", {"seconds": 0})
        node.setdefault("engine", types_pb2.ENGINE_VLLM)
        response = await self.catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(region_id=region_id, node_id=node_id, endpoint=endpoint, **node),
                deployments=[types_pb2.Deployment(model_id=model_id) for model_id in model_ids],
            )
        )
        registered: types_pb2.Node = response.node
        return registered

    async def route(self, model_id: str, **request: Any) -> routing_pb2.RouteDecision:
        """Routes one request."""
        response = await self.routing.Route(routing_pb2.RouteRequest(model_id=model_id, **request))
        decision: routing_pb2.RouteDecision = response.decision
        return decision

    async def until_routable(self, model_id: str, **request: Any) -> routing_pb2.RouteDecision:
        """The first decision for a model, once there is one."""
        found: list[routing_pb2.RouteDecision] = []

        async def routable() -> bool:
            try:
                found.append(await self.route(model_id, **request))
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(routable)
        return found[0]


@asynccontextmanager
async def running(
    flags: Mapping[str, object] | None = None,
    *,
    settings: Settings | None = None,
    store: CatalogStore | None = None,
    clock: ShiftedClock | None = None,
    seed: int = 1,
) -> AsyncIterator[Running]:
    """A control plane with the settings that `flags` (by `section.key`) give; its catalog is in memory by default."""
    clock = clock or ShiftedClock()
    if settings is None:
        local = {"server.listen": "127.0.0.1:0", "server.admin": "127.0.0.1:0"}
        settings = load(None, {}, {**local, **(flags or {})})
    if store is None:
        store = MemoryStore(settings.region.id, clock=clock.wall)
    logged: list[Mapping[str, Any]] = []

    def keep(_: Any, method: str, event: Any) -> Any:
        logged.append({"level": method, **event})
        raise structlog.DropEvent

    log = structlog.wrap_logger(None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0))
    async with (
        control_plane(settings, store=store, clock=clock.clock, rng=Random(seed), log=log) as plane,
        grpc.aio.insecure_channel(str(plane.address)) as channel,
    ):
        yield Running(plane, clock, channel, logged)


@dataclass
class Engine:
    """What an engine stand-in answers; change it while it runs."""

    models: list[str]
    url: str = ""
    status: int = 200
    metrics: str = ""
    probes: int = 0


@asynccontextmanager
async def engine(*models: str) -> AsyncIterator[Engine]:
    """A server that looks like vLLM to a probe: /health, /v1/models and /metrics."""
    answers = Engine(list(models))

    async def health(request: web.Request) -> web.Response:
        answers.probes += 1
        return web.Response(status=answers.status)

    async def list_models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in answers.models]})

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=answers.metrics)

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield answers
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Returns once the condition holds; AssertionError after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s: {condition}"
        await asyncio.sleep(0.02)


@dataclass
class Failure:
    """An RPC's error, unpacked."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    # What is wrong, by field.
    violations: Mapping[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None
    pushback: str | None = None


async def failing(call: Awaitable[Any]) -> Failure:
    """The error of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as e:
        return unpacked(e)
    raise AssertionError(f"the call was answered: {answer}")


async def heard(stream: Any) -> Any:
    """The next message of a stream; TimeoutError after PATIENCE_SECONDS."""
    return await asyncio.wait_for(stream.read(), PATIENCE_SECONDS)


async def ended(stream: Any) -> Failure:
    """The error that a stream of answers ends with, whatever it still tells before that."""

    async def read_on() -> None:
        while await heard(stream) is not grpc.aio.EOF:
            pass

    return await failing(read_on())


def unpacked(error: grpc.aio.AioRpcError) -> Failure:
    trailers = dict(error.trailing_metadata() or ())
    failure = Failure(error.code(), error.details() or "", pushback=trailers.get("grpc-retry-pushback-ms"))
    rich = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    for detail in rich.details:
        info, retry, bad = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.BadRequest(),
        )
        if detail.Unpack(info):
            failure.reason, failure.domain, failure.metadata = info.reason, info.domain, dict(info.metadata)
        elif detail.Unpack(retry):
            failure.retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(bad):
            told: dict[str, list[str]] = {}
            for each in bad.field_violations:
                told.setdefault(each.field, []).append(each.description)
            failure.violations = {path: "; ".join(messages) for path, messages in told.items()}
    return failure
