"""The client for threads, against a real server that runs in a loop of its own thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from edge_servers import Relay, Routing, a_status, relayed, serving

from federation.edge.client import ClientOptions, RouteError, SyncClient, is_stale
from federation.v1 import routing_pb2


@dataclass
class World:
    """Two servers, the first behind a relay; `call` runs something in their loop."""

    a: Routing
    b: Routing
    relay: Relay
    call: Callable[[Callable[[], Any]], Any]

    @property
    def addresses(self) -> list[str]:
        return [self.relay.address, self.b.address]


@contextmanager
def a_world() -> Iterator[World]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()

    async def build() -> World:
        a, b = await stack.enter_async_context(serving("a")), await stack.enter_async_context(serving("b"))
        relay = await stack.enter_async_context(relayed(a.address))
        return World(a, b, relay, call)

    def run(coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    def call(act: Callable[[], Any]) -> Any:
        async def acted() -> Any:
            result = act()
            return await result if asyncio.iscoroutine(result) else result

        return run(acted())

    try:
        yield run(build())
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def a_request(**fields) -> routing_pb2.RouteRequest:
    return routing_pb2.RouteRequest(**{"model_id": "llama", **fields})


def node_of(client: SyncClient) -> str:
    return client.route(a_request(), timeout_seconds=5.0).decision.target.node_id


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def test_it_routes_from_many_threads():
    with a_world() as world, SyncClient(world.addresses) as client, ThreadPoolExecutor(8) as pool:
        nodes = list(pool.map(lambda _: node_of(client), range(100)))

    assert set(nodes) == {"a", "b"}


def test_a_killed_replica_costs_no_call():
    with a_world() as world, SyncClient(world.addresses) as client:
        until(lambda: {node_of(client), node_of(client)} == {"a", "b"})
        world.call(world.relay.kill)

        assert [node_of(client) for _ in range(10)] == ["b"] * 10


def test_with_hedging_a_replica_that_goes_silent_costs_none():
    with a_world() as world, SyncClient(world.addresses, ClientOptions(hedge=True)) as client:
        for _ in range(20):
            node_of(client)
        world.call(world.relay.swallow)

        assert [node_of(client) for _ in range(20)] == ["b"] * 20


def test_the_reservation_of_a_hedge_that_loses_is_given_back():
    with a_world() as world, SyncClient([world.a.address, world.b.address], ClientOptions(hedge=True)) as client:
        for _ in range(4):
            node_of(client)
        world.call(world.a.open.clear)
        assert [node_of(client) for _ in range(2)] == ["b", "b"]

        world.call(world.a.open.set)
        until(lambda: bool(world.a.outcomes or world.b.outcomes))

        outcomes = world.a.outcomes + world.b.outcomes
        assert {outcome.result for outcome in outcomes} == {routing_pb2.OUTCOME_RESULT_CANCELLED}


@pytest.mark.parametrize("hedge", [False, True])
def test_a_refusal_is_raised_with_its_reason(hedge: bool):
    with a_world() as world, SyncClient(world.addresses, ClientOptions(hedge=hedge)) as client:
        world.a.failure = world.b.failure = a_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")

        with pytest.raises(RouteError) as caught:
            client.route(a_request(), timeout_seconds=5.0)

    assert (caught.value.reason, caught.value.retry_after_seconds) == ("NO_CAPACITY", 1.5)


def test_a_last_decision_stands_in_where_that_is_allowed():
    with a_world() as world, SyncClient(world.relay.address, ClientOptions(use_stale_seconds=60.0)) as client:
        assert node_of(client) == "a"
        world.call(world.relay.kill)

        assert is_stale(client.route(a_request()).decision)


def test_pages_and_batches_come_back():
    with a_world() as world, SyncClient(world.b.address) as client:
        page = client.candidates(routing_pb2.GetCandidatesRequest(request=a_request()))
        results = client.route_batch(routing_pb2.RouteBatchRequest(requests=[a_request()]))

    assert page.candidates[0].eligible
    assert results.results[0].error.reason == "NO_CAPACITY"


def test_outcomes_are_sent_by_a_thread_of_their_own_and_the_rest_on_close():
    with a_world() as world:
        with SyncClient(world.b.address) as client:
            for number in range(700):
                client.report(routing_pb2.Outcome(decision_id=f"d{number}"))
            until(lambda: len(world.b.outcomes) == 700)
            client.report(routing_pb2.Outcome(decision_id="last"))

        assert len(world.b.outcomes) == 701
        assert client.outcomes.delivered == 701


def test_outcomes_survive_a_control_plane_that_is_away_for_a_time():
    with a_world() as world, SyncClient(world.b.address) as client:
        world.b.failure = a_status(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        client.report(routing_pb2.Outcome(decision_id="d"))
        world.b.failure = None

        until(lambda: len(world.b.outcomes) == 1)
