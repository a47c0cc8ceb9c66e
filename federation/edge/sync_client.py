"""The client for threads. Import it from `federation.edge.client`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from federation.edge.connection import CLOSE_SECONDS, ClientOptions, Settings, Stubs, book_failure, given_back, stamped
from federation.edge.decisions import LastDecisions
from federation.edge.errors import RouteError, decode_error
from federation.edge.hedging import Hedging
from federation.edge.outcomes import (
    BATCH_SECONDS,
    FIRST_BACKOFF_SECONDS,
    FLUSH_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_BATCH,
    OutcomeQueue,
)
from federation.v1 import routing_pb2, routing_pb2_grpc

T = TypeVar("T")


class SyncClient(Stubs):
    """For threads. `route` may be called from many; a thread of its own sends outcomes."""

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
        super().__init__(settings.open(grpc, settings.addresses.joined(), settings.channel_options))
        self._lane_channels = [settings.open(grpc, lane, settings.lane_options) for lane in settings.lanes]
        self._lanes: list[Any] = [
            routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
            for channel in self._lane_channels
        ] or [self.routing]
        self._hedging = Hedging(len(self._lanes))
        self._last = LastDecisions(self._options.use_stale_seconds)
        self._clock, self._wall_clock, self._rng = clock, wall_clock, rng or Random()
        self.outcomes = OutcomeQueue(self._options.max_queued_outcomes)
        # Guards hedging, last decisions and outcomes; never held across a call.
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._queued = threading.Event()
        self._full = threading.Event()
        self._closed = threading.Event()
        self._reporter: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Sends what was reported, for a second at most, and closes all connections."""
        self._closed.set()
        self._full.set()
        self._queued.set()
        if self._reporter is not None:
            self._reporter.join(CLOSE_SECONDS)
        self.flush(CLOSE_SECONDS)
        with self._lock:
            self.outcomes.drop_all()
        for channel in (self.channel, *self._lane_channels):
            channel.close()

    def route(
        self, request: routing_pb2.RouteRequest, *, timeout_seconds: float | None = None
    ) -> routing_pb2.RouteResponse:
        """Where the request should run. Raises RouteError; a stale decision (`is_stale`) comes only where allowed."""
        timeout = timeout_seconds or self._options.route_timeout_seconds
        try:
            if self._options.hedge:
                response = self._hedged(request, timeout)
            else:
                response = _called(self.routing.Route, request, timeout)
        except RouteError as error:
            with self._lock:
                last = self._last.find(request, self._clock()) if error.unanswered else None
            if last is None:
                raise
            return routing_pb2.RouteResponse(decision=last)
        with self._lock:
            self._last.keep(request, response.decision, self._clock())
        return response

    def candidates(self, request: routing_pb2.GetCandidatesRequest) -> routing_pb2.GetCandidatesResponse:
        """One page of a request's candidates. Raises RouteError."""
        page: routing_pb2.GetCandidatesResponse = _called(self.routing.GetCandidates, request)
        return page

    def route_batch(self, request: routing_pb2.RouteBatchRequest) -> routing_pb2.RouteBatchResponse:
        """Up to 1,000 decisions; failed ones are in their results (`error_of_result`). Raises RouteError."""
        results: routing_pb2.RouteBatchResponse = _called(self.routing.RouteBatch, request)
        return results

    def report(self, outcome: routing_pb2.Outcome) -> None:
        """Queues an outcome; batches leave every 50 ms or 500 outcomes. `outcomes.dropped` says what was lost."""
        with self._lock:
            self.outcomes.add(stamped(outcome, self._wall_clock))
            full = len(self.outcomes) >= MAX_BATCH
            if self._reporter is None:
                self._reporter = threading.Thread(target=self._report_for_ever, name="fairway-outcomes", daemon=True)
                self._reporter.start()
        if full:
            self._full.set()
        self._queued.set()

    def flush(self, timeout_seconds: float = 10.0) -> None:
        """Returns once nothing waits, or after the timeout; failed calls are retried with back-off."""
        deadline, backoff = time.monotonic() + timeout_seconds, FIRST_BACKOFF_SECONDS
        with self._sending:
            while len(self.outcomes) and (left := deadline - time.monotonic()) > 0:
                if self._send_batch(left):
                    backoff = FIRST_BACKOFF_SECONDS
                elif self._closed.wait(min(left, backoff * self._rng.uniform(0.5, 1.0))):
                    return
                else:
                    backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff)

    def _send_batch(self, timeout: float) -> bool:
        with self._lock:
            batch = self.outcomes.take()
            lane = self._hedging.lane(self._clock())
        if not batch:
            return True
        request = routing_pb2.ReportOutcomesRequest(outcomes=batch)
        try:
            _called(self._lanes[lane].ReportOutcomes, request, min(timeout, BATCH_SECONDS))
        except RouteError as error:
            with self._lock:
                if error.unanswered:
                    self._hedging.suspect(lane, self._clock())
                return book_failure(self.outcomes, batch, error)
        with self._lock:
            self.outcomes.delivered += len(batch)
        return True

    def _report_for_ever(self) -> None:
        while not self._closed.is_set():
            self._queued.wait()
            self._full.wait(FLUSH_SECONDS)
            self._queued.clear()
            self._full.clear()
            self.flush()
            if len(self.outcomes):
                self._queued.set()

    def _hedged(self, request: routing_pb2.RouteRequest, timeout: float) -> routing_pb2.RouteResponse:
        started = self._clock()
        with self._lock:
            lanes = iter(self._hedging.order(started))
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        asked: dict[Any, tuple[int, float]] = {}

        def ask(lane: int, seconds: float) -> None:
            call = self._lanes[lane].Route.future(request, timeout=seconds)
            asked[call] = (lane, self._clock())
            call.add_done_callback(ended.put)

        ask(next(lanes), timeout)
        failure: RouteError | None = None
        hedges_left = True
        try:
            while asked:
                call = None
                with suppress(queue.Empty):
                    call = ended.get(timeout=self._hedging.delay() if hedges_left else None)
                now = self._clock()
                with self._lock:
                    if call is not None:
                        lane, since = asked.pop(call)
                        failure = decode_error(call) if call.code() is not grpc.StatusCode.OK else None
                        if failure is None or not failure.unanswered:
                            self._hedging.answered(lane, now - since)
                            for late, _ in asked.values():
                                self._hedging.suspect(late, now)
                            break
                        self._hedging.suspect(lane, now)
                    left = timeout - (now - started)
                    lane = next(lanes, -1) if left > 0 and (call is not None or self._hedging.take_token()) else -1
                    hedges_left = lane >= 0
                if lane >= 0:
                    ask(lane, left)
        finally:
            for loser in asked:
                loser.add_done_callback(self._give_back)
        if failure is not None:
            raise failure
        return call.result()  # type: ignore[union-attr, no-any-return]

    def _give_back(self, call: Any) -> None:
        if call.code() is grpc.StatusCode.OK and not self._closed.is_set():
            self.report(given_back(call.result().decision))


def _called(method: Callable[..., T], request: Any, timeout: float | None = None) -> T:
    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as error:
        raise decode_error(error) from error
