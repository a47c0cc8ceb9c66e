"""What the stories of this folder are played with: a server process, engines that answer prompts, small gateways.

The server is `fairway serve` in a process of its own, spoken to over gRPC; engines are HTTP servers in this process,
which a test can slow down, break, close and open again on the same port.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from federation.edge.client import Client, ClientOptions, RouteError
from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2, types_pb2
from tests.federation.process import Process, serving

# Nothing here takes seconds; a machine that is busy with other tests may need them all the same.
PATIENCE_SECONDS = 60.0
# What takes ten seconds and more in production, so that a story is over in a few.
QUICK = {
    "FAIRWAY_HEALTH__PROBE_INTERVAL_SECONDS": "0.5",
    "FAIRWAY_HEALTH__RECHECK_INTERVAL_SECONDS": "0.1",
    "FAIRWAY_CIRCUIT__OPEN_SECONDS": "1",
}
PATIENT = ClientOptions(route_timeout_seconds=PATIENCE_SECONDS, call_timeout_seconds=PATIENCE_SECONDS)


@dataclass
class Engine:
    """An engine as vLLM looks from outside; change it while it runs."""

    models: list[str]
    url: str = ""
    # What /health and what completions are answered with.
    health: int = 200
    status: int = 200
    metrics: str = ""
    # Real seconds before the first byte of an answer.
    first_token_seconds: float = 0.0
    # While it is cleared, prompts wait for their answer.
    open_for_answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    served: int = 0
    _runner: web.AppRunner | None = None
    _port: int = 0

    async def open(self) -> None:
        """Listens, on the same port as before."""
        self.open_for_answers.set()
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._list)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def close(self) -> None:
        """Gone, as when its process died: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.metrics)

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked += 1
        if self.status != 200:
            return web.json_response({"error": "as the test says"}, status=self.status)
        if body["model"] not in self.models:
            return web.json_response({"error": f"no model {body['model']}"}, status=404)
        await self.open_for_answers.wait()
        await asyncio.sleep(self.first_token_seconds)
        self.served += 1
        usage = {"prompt_tokens": 12, "completion_tokens": 3}
        return web.json_response({"choices": [{"message": {"content": f"from {self.url}"}}], "usage": usage})


@dataclass(frozen=True)
class Answer:
    """What became of a request: its decision, and each attempt as (deployment, HTTP status or 0)."""

    decision: routing_pb2.RouteDecision
    attempts: tuple[tuple[str, int], ...]

    @property
    def by(self) -> str:
        """The deployment that answered it; "" for none."""
        deployment, status = self.attempts[-1]
        return deployment if status == 200 else ""


class Gateway:
    """An edge gateway: asks for a decision, sends the prompt there, tries the alternatives, reports each step."""

    def __init__(self, client: Client, http: aiohttp.ClientSession) -> None:
        self.client = client
        self._http = http

    async def send(self, model_id: str, **request: Any) -> Answer:
        """Places one prompt. RouteError where the control plane names nobody."""
        response = await self.client.route(routing_pb2.RouteRequest(model_id=model_id, **request))
        decision = response.decision
        attempts: list[tuple[str, int]] = []
        for attempt, target in enumerate((decision.target, *decision.alternatives)):
            if attempt:
                self._report(decision, attempt, phase=routing_pb2.OUTCOME_PHASE_STARTED)
            started = time.monotonic()
            status = await self._post(target)
            seconds = time.monotonic() - started
            attempts.append((target.deployment, status))
            outcome = routing_pb2.Outcome(result=_result(status))
            outcome.latency.FromNanoseconds(int(seconds * 1e9))
            if status == 200:
                outcome.time_to_first_token.CopyFrom(outcome.latency)
                outcome.output_tokens = 3
            self._report(decision, attempt, phase=routing_pb2.OUTCOME_PHASE_FINISHED, outcome=outcome)
            if status == 200:
                break
        # A gateway would not wait; a test wants to see what its reports led to.
        await self.client.flush()
        return Answer(decision, tuple(attempts))

    async def _post(self, target: routing_pb2.RouteTarget) -> int:
        body = {"model": target.served_model_name, "messages": [{"role": "user", "content": "hello"}]}
        try:
            async with self._http.post(f"{target.endpoint}/v1/chat/completions", json=body) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return 0

    def _report(
        self,
        decision: routing_pb2.RouteDecision,
        attempt: int,
        *,
        phase: routing_pb2.OutcomePhase,
        outcome: routing_pb2.Outcome | None = None,
    ) -> None:
        told = routing_pb2.Outcome(decision_id=decision.decision_id, attempt=attempt, phase=phase)
        if outcome is not None:
            told.MergeFrom(outcome)
        self.client.report(told)


def _result(status: int) -> routing_pb2.OutcomeResult:
    match status:
        case 200:
            return routing_pb2.OUTCOME_RESULT_OK
        case 0:
            return routing_pb2.OUTCOME_RESULT_UNREACHABLE
        case 429 | 503:
            return routing_pb2.OUTCOME_RESULT_OVERLOADED
        case _ if status < 500:
            return routing_pb2.OUTCOME_RESULT_CLIENT_ERROR
        case _:
            return routing_pb2.OUTCOME_RESULT_SERVER_ERROR


@dataclass
class World:
    """A running control plane with its client and gateway. Engines made here end with it."""

    process: Process
    client: Client
    gateway: Gateway
    _stack: AsyncExitStack
    engines: dict[str, Engine] = field(default_factory=dict)

    async def engine(self, *models: str) -> Engine:
        """An engine that listens."""
        engine = Engine(list(models))
        await engine.open()
        self._stack.push_async_callback(engine.close)
        return engine

    async def region(self, region_id: str, **region: Any) -> types_pb2.Region:
        """A region's record, new or in place of what was there."""
        held = [each for each in (await self._regions()) if each.region_id == region_id]
        record = types_pb2.Region(region_id=region_id, etag=held[0].etag if held else "", **region)
        response = await self.client.catalog.PutRegion(catalog_pb2.PutRegionRequest(region=record))
        put: types_pb2.Region = response.region
        return put

    async def _regions(self) -> list[types_pb2.Region]:
        response = await self.client.catalog.ListRegions(catalog_pb2.ListRegionsRequest())
        return list(response.regions)

    async def node(
        self,
        name: str,
        *models: str,
        deployment: Mapping[str, Any] | None = None,
        ready: bool = True,
        **node: Any,
    ) -> Engine:
        """An engine and its registration as `region/node`, which lives until deregistered; waits until it is healthy.

        `deployment` holds further fields of each of its deployments.
        """
        engine = await self.engine(*models)
        self.engines[name] = engine
        region_id, _, node_id = name.partition("/")
        node.setdefault("lease_duration", {"seconds": 0})
        await self.client.catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(
                    region_id=region_id,
                    node_id=node_id,
                    endpoint=engine.url,
                    engine=types_pb2.ENGINE_VLLM,
                    **node,
                ),
                deployments=[types_pb2.Deployment(model_id=model, **(deployment or {})) for model in models],
            )
        )
        if ready:
            for model in models:
                await until(lambda model=model: self.eligible(f"{name}/{model}"))
        return engine

    async def candidates(self, model_id: str, **request: Any) -> dict[str, routing_pb2.Candidate]:
        """All candidates by deployment, in their order."""
        asked = routing_pb2.GetCandidatesRequest(request=routing_pb2.RouteRequest(model_id=model_id, **request))
        response = await self.client.candidates(asked)
        assert response.total_size == len(response.candidates)
        return {candidate.target.deployment: candidate for candidate in response.candidates}

    async def eligible(self, deployment: str, **request: Any) -> bool:
        """Whether a deployment could be chosen now, by a request that it may serve."""
        model_id = deployment.split("/", 2)[2]
        request.setdefault("qos", {"privacy_level": types_pb2.PRIVACY_LEVEL_PUBLIC})
        try:
            found = await self.candidates(model_id, **request)
        except RouteError as error:
            # The table follows a registration by a tenth of a second.
            assert error.retry_after_seconds, error
            return False
        return deployment in found and found[deployment].eligible

    async def rejection(self, deployment: str, **request: Any) -> str:
        """Why a deployment cannot be chosen now ("UNHEALTHY"); "" where it can."""
        candidate = (await self.candidates(deployment.split("/", 2)[2], **request))[deployment]
        code = routing_pb2.RejectionCode.Name(candidate.rejection.code).removeprefix("REJECTION_CODE_")
        return "" if candidate.eligible else code

    async def route(self, model_id: str, **request: Any) -> routing_pb2.RouteDecision:
        response = await self.client.route(routing_pb2.RouteRequest(model_id=model_id, **request))
        return response.decision

    async def refusal(self, model_id: str, **request: Any) -> RouteError:
        """The error of a request that must find nobody."""
        try:
            decision = await self.route(model_id, **request)
        except RouteError as error:
            return error
        raise AssertionError(f"it was routed: {decision}")

    async def until_refused(self, model_id: str, reason: str, **request: Any) -> RouteError:
        """The error of a request, once it is refused for this reason."""
        found: list[RouteError] = []

        async def refused() -> bool:
            try:
                await self.route(model_id, **request)
            except RouteError as error:
                found.append(error)
            return bool(found) and found[-1].reason == reason

        await until(refused)
        return found[-1]

    async def until_rejected(self, deployment: str, code: str, **request: Any) -> None:
        """Returns once a deployment is left out with this code."""

        async def rejected() -> bool:
            return await self.rejection(deployment, **request) == code

        await until(rejected)

    async def until_state(self, node_id: str, state: str) -> None:
        """Returns once operators see this grade of a node ("healthy")."""

        async def in_state() -> bool:
            listed = await self.client.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest())
            found = next(node.state for node in listed.nodes if node.node_id == node_id)
            return found == fleet_pb2.HealthState.Value(f"HEALTH_STATE_{state.upper()}")

        await until(in_state)

    async def circuit(self, node_id: str) -> fleet_pb2.Circuit:
        """The circuit of a node's only deployment."""
        listed = await self.client.fleet.ListCircuits(fleet_pb2.ListCircuitsRequest())
        (found,) = [entry.circuit for entry in listed.circuits if entry.node_id == node_id]
        return found


async def until(condition: Callable[[], Awaitable[object] | object]) -> None:
    """Returns once the condition holds; AssertionError after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def a_world(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[World]:
    """A server process with quick probes and a client to it; everything ends with the block."""
    with serving(directory, *arguments, env={**QUICK, **(env or {})}) as process:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
            client = await stack.enter_async_context(Client(process.address, PATIENT))
            yield World(process, client, Gateway(client, http), stack)
