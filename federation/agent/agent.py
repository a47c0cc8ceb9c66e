"""The process beside an engine: it registers the node, renews its lease with the engine's load, and takes it back.

    find the engine ──> register ──> beat every third of a lease ──> (signal) drain or deregister, exit 0
          ^                ^   known = false, or other models │
          └── not ready    └──────────────────────────────────┘

Either side may restart at any time: each wait has an end, and each failure leads back to one of these steps.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import structlog

from catalog.types import Engine
from federation.agent.discovery import Discovered, NotReady, Probe
from federation.agent.load import LoadMeter
from federation.agent.options import AgentOptions, default_node_id, registration
from federation.edge.client import Client, ClientOptions, RouteError, decode_error
from federation.v1 import catalog_pb2

# Three beats a lease: one may be lost, and one late, before the lease ends.
BEATS_A_LEASE = 3
# Of a node without a lease; its load is news all the same.
BEAT_SECONDS_WITHOUT_LEASE = 10.0
# An answer later than this means a connection that nobody serves any more.
BEAT_TIMEOUT_SECONDS = 5.0
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
LEAVE_SECONDS = 5.0
DRAIN_POLL_SECONDS = 0.5
# Conflicts in a row before another try is left to the back-off: somebody else writes this node.
MAX_CONFLICTS = 5

# A first registration that is refused like this will be refused for ever; `fairway`'s exit codes.
FATAL: dict[Any, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 2,
    grpc.StatusCode.UNAUTHENTICATED: 5,
    grpc.StatusCode.PERMISSION_DENIED: 5,
    grpc.StatusCode.FAILED_PRECONDITION: 6,
}


class _Disconnected(Exception):
    """The heartbeat stream ended or fell silent."""


async def run_agent(
    options: AgentOptions, *, clock: Callable[[], float], rng: Random, stop: asyncio.Event | None = None
) -> int:
    """Runs until SIGTERM or SIGINT (or `stop`, where it is handed in) and returns the exit code.

    0 after a signal; 2, 5 or 6 if the first registration is refused for good. A second signal cuts a drain short.
    """
    hurry = asyncio.Event()
    if stop is None:
        stop = asyncio.Event()
        _follow_signals(stop, hurry)
    client_options = ClientOptions(tls=options.tls, token=options.token, call_timeout_seconds=LEAVE_SECONDS)
    # No shared cookies and no proxies of the environment: the engine is next door.
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        Client(options.control_plane, client_options, clock=clock, rng=rng) as client,
    ):
        return await _Agent(options, http, client, clock, rng).run(stop, hurry)


def _follow_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    def received() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, received)


def _logger() -> Any:
    """The configured logger; where nobody configured one, lines on stderr, since stdout is for answers."""
    if structlog.is_configured():
        return structlog.get_logger("fairway.agent")
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
    )


def backoffs(rng: Random) -> Iterator[float]:
    """Endless waits, doubling to 5 s, each drawn from its upper half so that agents do not come back in step."""
    wait = FIRST_BACKOFF_SECONDS
    while True:
        yield wait * rng.uniform(0.5, 1.0)
        wait = min(MAX_BACKOFF_SECONDS, 2 * wait)


class _Agent:
    def __init__(
        self,
        options: AgentOptions,
        http: aiohttp.ClientSession,
        client: Client,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._options, self._client, self._clock, self._rng = options, client, clock, rng
        self._node_id = options.node_id or default_node_id(socket.gethostname(), options.engine_url)
        self._probe = Probe(http, options.engine_url, token=options.engine_token, engine=options.engine)
        self._meter = LoadMeter()
        self._log = _logger().bind(node=f"{options.region_id}/{self._node_id}")
        self._etag = ""
        # Whether the control plane may know the node: then it has to be told when the agent leaves.
        self._announced = False
        self._registered = False
        # What was last logged of each side, so that a state is told once and not with every beat.
        self._told: dict[str, str] = {}

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> int:
        self._warn_of_loopback()
        work = asyncio.create_task(self._work(), name="agent-work")
        stopping = asyncio.create_task(stop.wait(), name="agent-stop")
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            self._log.info("stopping", on_exit=self._options.on_exit)
            if self._options.on_exit == "drain" and self._announced:
                await self._drain(hurry)
        finally:
            for task in (work, stopping):
                task.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)
        await self._deregister()
        return 0

    async def _work(self) -> int:
        """Returns an exit code only if the node can never be registered."""
        backoff = backoffs(self._rng)
        while True:
            found = await self._find_engine()
            code = await self._register(found)
            if code is not None:
                return code
            if await self._beat(found):
                backoff = backoffs(self._rng)
            else:
                # Registered, and not known all the same: a replica that lags, or somebody who deregisters it.
                await asyncio.sleep(next(backoff))

    async def _find_engine(self) -> Discovered:
        backoff = backoffs(self._rng)
        while True:
            try:
                found = await self._probe.discover(tuple(self._options.model_ids))
            except NotReady as error:
                self._tell("engine", "waiting for the engine", url=self._options.engine_url, why=str(error))
                await asyncio.sleep(next(backoff))
                continue
            self._tell("engine", "engine serves", engine=found.engine.value, models=_shown(found))
            return found

    async def _register(self, found: Discovered) -> int | None:
        backoff = backoffs(self._rng)
        conflicts = 0
        while True:
            # A new id for new content: a repeated id would get its first answer, though the node be gone since.
            request_id = f"agent-{self._rng.getrandbits(96):024x}"
            request = registration(self._options, self._node_id, found, request_id, self._etag)
            self._announced = True
            try:
                response = await self._client.catalog.RegisterNode(request)
                self._etag = response.node.etag
            except grpc.RpcError as raised:
                error = decode_error(raised)
                conflict = error.code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED)
                if conflict and conflicts < MAX_CONFLICTS and await self._read_etag():
                    conflicts += 1
                    continue
                if error.code in FATAL and not self._registered:
                    self._log.error("registration refused for good", error=str(error))
                    self._announced = False
                    return FATAL[error.code]
                self._tell("control plane", "registration failed, trying again", trouble=True, error=str(error))
                conflicts = 0
                await asyncio.sleep(next(backoff))
                continue
            self._registered = True
            self._log.info("registered", endpoint=self._options.endpoint, models=_shown(found))
            self._told["control plane"] = "connected"
            return None

    async def _read_etag(self) -> bool:
        """Takes the version that is stored; False if that cannot be read now."""
        request = catalog_pb2.GetNodeRequest(region_id=self._options.region_id, node_id=self._node_id)
        try:
            node = (await self._client.catalog.GetNode(request)).node
        except grpc.RpcError as raised:
            if raised.code() is not grpc.StatusCode.NOT_FOUND:
                return False
            self._etag = ""
            return True
        if node.endpoint != self._options.endpoint:
            self._log.warning("the node was registered at another endpoint; replacing it", endpoint=node.endpoint)
        self._etag = node.etag
        return True

    async def _beat(self, found: Discovered) -> bool:
        """Renews the lease until the node must be registered again: it is not known, or serves other models.

        Returns whether any beat was accepted.
        """
        backoff, interval = backoffs(self._rng), self._interval(0.0)
        accepted, failures = False, 0
        while True:
            call = self._client.catalog.Heartbeat()
            try:
                while True:
                    load, same = await self._look(found, interval / 2)
                    if not same:
                        return True
                    lease = await self._send_beat(call, load)
                    if lease is None:
                        self._log.warning("the control plane does not know the node; registering it again")
                        self._etag = ""
                        return accepted
                    accepted, failures = True, 0
                    self._tell("control plane", "connected")
                    backoff, interval = backoffs(self._rng), self._interval(lease)
                    await asyncio.sleep(interval * self._rng.uniform(0.9, 1.1))
            except _Disconnected as error:
                # Servers end connections now and then to spread them; only a second failure in a row is news.
                failures += 1
                if failures > 1:
                    self._tell("control plane", "heartbeats are not answered", trouble=True, error=str(error))
            finally:
                call.cancel()
            await asyncio.sleep(next(backoff))

    async def _send_beat(self, call: Any, load: catalog_pb2.NodeLoad | None) -> float | None:
        """Sends one beat and returns the lease in seconds; None: the node is not known. Raises _Disconnected."""
        beat = catalog_pb2.NodeBeat(region_id=self._options.region_id, node_id=self._node_id, load=load)
        try:
            async with asyncio.timeout(BEAT_TIMEOUT_SECONDS):
                await call.write(catalog_pb2.HeartbeatRequest(beats=[beat]))
                response = await call.read()
        except grpc.RpcError as raised:
            raise _Disconnected(str(decode_error(raised))) from raised
        except (TimeoutError, asyncio.InvalidStateError) as error:
            raise _Disconnected(f"no answer within {BEAT_TIMEOUT_SECONDS:g} s") from error
        except asyncio.CancelledError as error:
            # grpc.aio raises the same for a stream that the server cancelled; that one must not end the agent.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _Disconnected("the control plane cancelled the stream") from error
        if response is grpc.aio.EOF or not response.results:
            raise _Disconnected("the control plane ended the stream")
        result = response.results[0]
        return result.lease_duration.ToMicroseconds() / 1e6 if result.known else None

    async def _look(self, found: Discovered, seconds: float) -> tuple[catalog_pb2.NodeLoad | None, bool]:
        """The engine's load, and whether it still serves the same models.

        Bounded, so that an engine that hangs does not cost the lease. One that does not answer is reported without
        load and otherwise left to the control plane's probes.
        """
        if found.engine is Engine.GRPC:
            return None, True
        try:
            async with asyncio.timeout(seconds):
                now, metrics = await asyncio.gather(self._probe.look(found.engine), self._probe.metrics(found.engine))
        except (NotReady, TimeoutError) as error:
            why = str(error) or f"no answer within {seconds:g} s"
            self._tell("engine", "engine does not serve", trouble=True, why=why)
            return self._meter.read(None, self._clock()), True
        if now != found:
            self._log.info("the engine serves other models", before=_shown(found), now=_shown(now))
            return None, False
        self._tell("engine", "engine serves", engine=found.engine.value, models=_shown(found))
        return self._meter.read(metrics, self._clock()), True

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Takes nothing new and waits for what runs; the lease is renewed meanwhile."""
        request = catalog_pb2.DrainNodeRequest(region_id=self._options.region_id, node_id=self._node_id)
        try:
            await self._client.catalog.DrainNode(request)
        except grpc.RpcError as raised:
            self._log.warning(
                "drain failed; waiting for running requests all the same", error=str(decode_error(raised))
            )
        end = self._clock() + self._options.drain_seconds
        idle = 0
        # Twice in a row: a request that was routed just before the drain may still be on its way.
        while idle < 2 and self._clock() < end and not hurry.is_set():
            idle = idle + 1 if await self._is_idle() else 0
            with suppress(TimeoutError):
                async with asyncio.timeout(min(DRAIN_POLL_SECONDS, max(0.0, end - self._clock()))):
                    await hurry.wait()
        self._log.info("drained" if idle >= 2 else "leaving before all requests ended")

    async def _is_idle(self) -> bool:
        """Whether the engine says that nothing runs or waits; unknown is busy."""
        try:
            found = await self._probe.discover(tuple(self._options.model_ids))
        except NotReady:
            return False
        metrics = await self._probe.metrics(found.engine)
        return metrics is not None and metrics.running_requests == 0 and not metrics.queue_depth

    async def _deregister(self) -> None:
        if not self._announced:
            return
        request = catalog_pb2.DeregisterNodeRequest(region_id=self._options.region_id, node_id=self._node_id)
        backoff = backoffs(self._rng)
        end = self._clock() + LEAVE_SECONDS
        while True:
            error: RouteError | None = None
            try:
                await self._client.catalog.DeregisterNode(request)
            except grpc.RpcError as raised:
                error = decode_error(raised)
            if error is None or error.code is grpc.StatusCode.NOT_FOUND:
                self._log.info("deregistered")
                return
            if not error.unanswered or self._clock() >= end:
                lease = self._options.lease_seconds
                after = f"its lease ends within {lease:g} s" if lease else "deregister it by hand: it has no lease"
                self._log.warning(f"the node could not be deregistered; {after}", error=str(error))
                return
            await asyncio.sleep(min(next(backoff), max(0.0, end - self._clock())))

    def _interval(self, lease_seconds: float) -> float:
        lease = lease_seconds or self._options.lease_seconds
        return lease / BEATS_A_LEASE if lease else BEAT_SECONDS_WITHOUT_LEASE

    def _tell(self, side: str, state: str, *, trouble: bool = False, **details: object) -> None:
        """Logs a side's state when it changes."""
        if self._told.get(side) != state:
            self._told[side] = state
            (self._log.warning if trouble else self._log.info)(state, **details)

    def _warn_of_loopback(self) -> None:
        host = urlsplit(self._options.endpoint).hostname or ""
        planes = self._options.control_plane
        texts = [planes] if isinstance(planes, str) else list(planes)
        if _is_loopback(host) and not all("localhost" in text or "127." in text or "[::1]" in text for text in texts):
            self._log.warning("gateways are told a loopback address; set advertise", endpoint=self._options.endpoint)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(found: Discovered) -> str:
    return ", ".join(
        f"{model.name} (+{len(model.adapters)} adapters)" if model.adapters else model.name for model in found.models
    )
