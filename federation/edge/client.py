"""What an edge gateway imports to ask for decisions: `Client` for asyncio, `SyncClient` for everything else.

Both take and return the generated messages, raise `RouteError`, and come with defaults that survive a lost replica:
round robin over all replicas, retry of UNAVAILABLE, keepalive, a deadline, and, where asked for, hedging and the last
decisions. Stubs of all services are there as well (`.catalog .routing .policy .fleet`); they raise `grpc.RpcError`,
which `decode_error` reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Self, TypeVar

import grpc

from federation.edge.connection import CLOSE_SECONDS, ClientOptions, Settings, Stubs, book_failure, given_back, stamped
from federation.edge.decisions import LastDecisions, is_stale
from federation.edge.errors import FieldViolation, RouteError, decode_error, error_of_result
from federation.edge.hedging import Hedging
from federation.edge.outcomes import (
    BATCH_SECONDS,
    FIRST_BACKOFF_SECONDS,
    FLUSH_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_BATCH,
    OutcomeQueue,
)
from federation.edge.service_config import TlsOptions
from federation.edge.sync_client import SyncClient
from federation.v1 import routing_pb2, routing_pb2_grpc

__all__ = [
    "Client",
    "ClientOptions",
    "FieldViolation",
    "RouteError",
    "SyncClient",
    "TlsOptions",
    "decode_error",
    "error_of_result",
    "is_stale",
]

T = TypeVar("T")


class Client(Stubs):
    """For asyncio. Make it inside the loop that uses it, and close it, or use `async with`."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        options: ClientOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        """Raises ValueError for addresses or options that cannot be, OSError for key files that cannot be read."""
        self._options = options or ClientOptions()
        settings = Settings(addresses, self._options)
        super().__init__(settings.open(grpc.aio, settings.addresses.joined(), settings.channel_options))
        self._lane_channels = [settings.open(grpc.aio, lane, settings.lane_options) for lane in settings.lanes]
        self._lanes: list[Any] = [
            routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
            for channel in self._lane_channels
        ] or [self.routing]
        self._hedging = Hedging(len(self._lanes))
        self._last = LastDecisions(self._options.use_stale_seconds)
        self._clock, self._wall_clock, self._rng = clock, wall_clock, rng or Random()
        self.outcomes = OutcomeQueue(self._options.max_queued_outcomes)
        self._sending = asyncio.Lock()
        self._queued = asyncio.Event()
        self._full = asyncio.Event()
        self._reporter: asyncio.Task[None] | None = None
        self._losers: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Sends what was reported, for a second at most, and closes all connections."""
        if self._reporter is not None:
            self._reporter.cancel()
            with suppress(asyncio.CancelledError):
                await self._reporter
        for task in self._losers:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
        self.outcomes.drop_all()
        for channel in (self.channel, *self._lane_channels):
            await channel.close()

    async def route(
        self, request: routing_pb2.RouteRequest, *, timeout_seconds: float | None = None
    ) -> routing_pb2.RouteResponse:
        """Where the request should run. Raises RouteError; a stale decision (`is_stale`) comes only where allowed."""
        timeout = timeout_seconds or self._options.route_timeout_seconds
        try:
            if self._options.hedge:
                response = await self._hedged(request, timeout)
            else:
                response = await _decoded(self.routing.Route(request, timeout=timeout))
        except RouteError as error:
            last = self._last.find(request, self._clock()) if error.unanswered else None
            if last is None:
                raise
            return routing_pb2.RouteResponse(decision=last)
        self._last.keep(request, response.decision, self._clock())
        return response

    async def candidates(self, request: routing_pb2.GetCandidatesRequest) -> routing_pb2.GetCandidatesResponse:
        """One page of a request's candidates. Raises RouteError."""
        return await _decoded(self.routing.GetCandidates(request))

    async def route_batch(self, request: routing_pb2.RouteBatchRequest) -> routing_pb2.RouteBatchResponse:
        """Up to 1,000 decisions; failed ones are in their results (`error_of_result`). Raises RouteError."""
        return await _decoded(self.routing.RouteBatch(request))

    def report(self, outcome: routing_pb2.Outcome) -> None:
        """Queues an outcome; batches leave every 50 ms or 500 outcomes. `outcomes.dropped` says what was lost."""
        self.outcomes.add(stamped(outcome, self._wall_clock))
        if self._reporter is None:
            self._reporter = asyncio.create_task(self._report_for_ever(), name="fairway-outcomes")
        self._queued.set()
        if len(self.outcomes) >= MAX_BATCH:
            self._full.set()

    async def flush(self) -> None:
        """Returns once nothing waits. A failed call is retried with back-off until it is cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        async with self._sending:
            while len(self.outcomes):
                if await self._send_batch():
                    backoff = FIRST_BACKOFF_SECONDS
                else:
                    await asyncio.sleep(backoff * self._rng.uniform(0.5, 1.0))
                    backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff)

    async def _send_batch(self) -> bool:
        """False: it should be sent again later."""
        batch = self.outcomes.take()
        lane = self._hedging.lane(self._clock())
        call = self._lanes[lane].ReportOutcomes
        try:
            await _decoded(call(routing_pb2.ReportOutcomesRequest(outcomes=batch), timeout=BATCH_SECONDS))
        except RouteError as error:
            if error.unanswered:
                self._hedging.suspect(lane, self._clock())
            return book_failure(self.outcomes, batch, error)
        except asyncio.CancelledError:
            self.outcomes.failed(batch, RouteError(grpc.StatusCode.CANCELLED, "", "the client closes"))
            raise
        self.outcomes.delivered += len(batch)
        return True

    async def _report_for_ever(self) -> None:
        while True:
            await self._queued.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._full.wait()
            self._queued.clear()
            self._full.clear()
            await self.flush()

    async def _hedged(self, request: routing_pb2.RouteRequest, timeout: float) -> routing_pb2.RouteResponse:
        started = self._clock()
        lanes = iter(self._hedging.order(started))
        asked: dict[asyncio.Task[routing_pb2.RouteResponse], tuple[int, float]] = {}
        self._ask(asked, next(lanes), request, timeout)
        failure: RouteError | None = None
        hedges_left = True
        try:
            while asked:
                wait = self._hedging.delay() if hedges_left else None
                done, _ = await asyncio.wait(asked, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                now = self._clock()
                for task in done:
                    lane, since = asked.pop(task)
                    failure = _failure_of(task)
                    if failure is None or not failure.unanswered:
                        self._hedging.answered(lane, now - since)
                        for other, (late, _) in asked.items():
                            if not other.done():
                                self._hedging.suspect(late, now)
                        return task.result()
                    self._hedging.suspect(lane, now)
                left = timeout - (now - started)
                # Nothing came in time: hedge, within the budget. Someone failed: go on to the next, at once.
                lane = next(lanes, -1) if left > 0 and (done or self._hedging.take_token()) else -1
                hedges_left = lane >= 0
                if lane >= 0:
                    self._ask(asked, lane, request, left)
        finally:
            for task in asked:
                self._let_lose(task)
        assert failure is not None
        raise failure

    def _ask(self, asked: dict[Any, Any], lane: int, request: routing_pb2.RouteRequest, timeout: float) -> None:
        call = self._lanes[lane].Route(request, timeout=timeout)
        asked[asyncio.create_task(_decoded(call))] = (lane, self._clock())

    def _let_lose(self, task: asyncio.Task[routing_pb2.RouteResponse]) -> None:
        """Lets a call that lost run to its deadline, and gives back what it reserved if it still decides."""
        self._losers.add(task)

        def ended(task: asyncio.Task[routing_pb2.RouteResponse]) -> None:
            self._losers.discard(task)
            if not task.cancelled() and task.exception() is None:
                self.report(given_back(task.result().decision))

        task.add_done_callback(ended)


def _failure_of(task: asyncio.Task[Any]) -> RouteError | None:
    """The task's RouteError, None where it succeeded. Anything else is a bug of ours, and is raised."""
    error = task.exception()
    if error is not None and not isinstance(error, RouteError):
        raise error
    return error


async def _decoded(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise decode_error(error) from error
