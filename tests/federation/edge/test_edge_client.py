"""The asyncio client against real servers on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import grpc
import pytest
from edge_servers import a_status, relayed, serving
from google.rpc import status_pb2

from federation.edge.client import Client, ClientOptions, RouteError, error_of_result, is_stale
from federation.v1 import routing_pb2

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def a_request(**fields) -> routing_pb2.RouteRequest:
    return routing_pb2.RouteRequest(**{"model_id": "llama", **fields})


def an_outcome(number: int = 0) -> routing_pb2.Outcome:
    return routing_pb2.Outcome(decision_id=f"d{number}", result=routing_pb2.OUTCOME_RESULT_OK)


async def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def node_of(client: Client, **options) -> str:
    return (await client.route(a_request(), **options)).decision.target.node_id


async def both_used(client: Client) -> None:
    """Returns once both replicas are connected."""
    seen = set()
    deadline = time.monotonic() + 10
    while len(seen) < 2:
        assert time.monotonic() < deadline, "the second replica was never used"
        seen.add(await node_of(client, timeout_seconds=5.0))


async def test_it_asks_all_replicas_in_turn():
    async with serving("a") as a, serving("b") as b, Client([a.address, b.address]) as client:
        await both_used(client)

        seen = Counter([await node_of(client) for _ in range(20)])

    assert seen == {"a": 10, "b": 10}


async def test_a_killed_replica_costs_no_call():
    async with (
        serving("a") as a,
        serving("b") as b,
        relayed(a.address) as relay,
        Client([relay.address, b.address]) as client,
    ):
        await both_used(client)
        a.open.clear()
        running = [asyncio.create_task(node_of(client, timeout_seconds=5.0)) for _ in range(6)]
        reached = a.calls
        await until(lambda: a.calls >= reached + 3)

        await relay.kill()

        assert await asyncio.gather(*running) == ["b"] * 6
        assert [await node_of(client) for _ in range(10)] == ["b"] * 10


async def test_a_killed_replica_costs_none_of_many_calls_that_were_under_way_there():
    async with (
        serving("a") as a,
        serving("b") as b,
        relayed(a.address) as relay,
        Client([relay.address, b.address]) as client,
    ):
        await both_used(client)
        a.open.clear()
        reached = a.calls
        calls = [asyncio.create_task(node_of(client, timeout_seconds=20.0)) for _ in range(60)]
        await until(lambda: a.calls >= reached + 25)
        await relay.kill()

        assert await asyncio.gather(*calls) == ["b"] * 60


@pytest.mark.parametrize("hedge", [False, True])
async def test_a_replica_that_stops_before_it_begins_with_a_call_costs_none(hedge: bool):
    async with (
        serving("a") as a,
        serving("b") as b,
        Client([a.address, b.address], ClientOptions(hedge=hedge)) as client,
    ):
        await both_used(client)
        # So gRPC ends what a server has taken from the network and not begun when it stops.
        a.failure = status_pb2.Status(code=grpc.StatusCode.CANCELLED.value[0], message="CANCELLED")

        assert [await node_of(client, timeout_seconds=20.0) for _ in range(10)] == ["b"] * 10


async def test_calls_that_wait_for_a_server_when_it_stops_are_decided_elsewhere():
    async with serving("a") as a, serving("b") as b, Client([a.address, b.address]) as client:
        await both_used(client)
        calls = [asyncio.create_task(node_of(client, timeout_seconds=20.0)) for _ in range(40)]
        # They reach the server's socket while its loop does something else, which stops it next.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, time.sleep, 0.1)
        for _ in range(4):
            await asyncio.sleep(0)
        await a.server.stop(20.0)

        assert set(await asyncio.gather(*calls)) <= {"a", "b"}


async def test_an_address_that_accepts_and_never_answers_is_not_used():
    async with serving("b") as b, relayed(b.address) as hole:
        hole.swallow()
        async with Client([hole.address, b.address]) as client:
            assert [await node_of(client, timeout_seconds=5.0) for _ in range(5)] == ["b"] * 5


async def test_without_hedging_a_replica_that_goes_silent_costs_calls_until_the_deadline():
    async with (
        serving("a") as a,
        serving("b") as b,
        relayed(a.address) as relay,
        Client([relay.address, b.address]) as client,
    ):
        await both_used(client)
        relay.swallow()

        started = time.monotonic()
        answers = await asyncio.gather(
            *(node_of(client, timeout_seconds=0.2) for _ in range(4)), return_exceptions=True
        )

    failed = [answer for answer in answers if isinstance(answer, RouteError)]
    assert len(failed) == 2
    assert all(error.code is grpc.StatusCode.DEADLINE_EXCEEDED and error.unanswered for error in failed)
    assert time.monotonic() - started < 5.0


async def test_with_hedging_a_replica_that_goes_silent_costs_none_and_is_then_asked_last():
    async with serving("a") as a, serving("b") as b, relayed(a.address) as relay:
        async with Client([relay.address, b.address], ClientOptions(hedge=True)) as client:
            for _ in range(20):
                await node_of(client, timeout_seconds=5.0)
            assert a.calls >= 5
            relay.swallow()
            before = b.calls

            assert [await node_of(client, timeout_seconds=5.0) for _ in range(20)] == ["b"] * 20

        # The silent one was asked once, found out, and left alone: no hedge was needed after that.
        assert b.calls == before + 20


async def test_with_hedging_outcomes_do_not_wait_for_a_replica_that_went_silent():
    async with (
        serving("a") as a,
        serving("b") as b,
        relayed(a.address) as relay,
        Client([relay.address, b.address], ClientOptions(hedge=True)) as client,
    ):
        for _ in range(20):
            await node_of(client, timeout_seconds=5.0)
        relay.swallow()
        for _ in range(4):
            await node_of(client, timeout_seconds=5.0)

        async with asyncio.timeout(8.0):
            for number in range(4):
                client.report(an_outcome(number))
                await client.flush()

        told = [outcome.decision_id for outcome in b.outcomes]
        assert [decision_id for decision_id in told if decision_id.startswith("d")] == ["d0", "d1", "d2", "d3"]


async def test_with_hedging_a_killed_replica_is_passed_over_at_once():
    async with (
        serving("a") as a,
        serving("b") as b,
        relayed(a.address) as relay,
        Client([relay.address, b.address], ClientOptions(hedge=True)) as client,
    ):
        for _ in range(4):
            await node_of(client, timeout_seconds=5.0)
        await relay.kill()

        assert [await node_of(client) for _ in range(10)] == ["b"] * 10


async def test_the_reservation_of_a_hedge_that_loses_is_given_back():
    async with (
        serving("a") as a,
        serving("b") as b,
        Client([a.address, b.address], ClientOptions(hedge=True)) as client,
    ):
        for _ in range(4):
            await node_of(client, timeout_seconds=5.0)
        a.open.clear()
        late = a.calls
        answers = [await node_of(client, timeout_seconds=5.0) for _ in range(2)]
        await until(lambda: a.calls > late)

        a.open.set()
        late_decision = f"a-{late + 1}"
        await until(lambda: late_decision in [outcome.decision_id for outcome in a.outcomes + b.outcomes])

    assert answers == ["b", "b"]
    assert {outcome.result for outcome in a.outcomes + b.outcomes} == {routing_pb2.OUTCOME_RESULT_CANCELLED}


async def test_a_hedged_refusal_is_the_answer_and_not_asked_again():
    async with serving("a") as a, serving("b") as b:
        async with Client([a.address, b.address], ClientOptions(hedge=True)) as client:
            a.failure = b.failure = a_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")

            with pytest.raises(RouteError, match="NO_CAPACITY"):
                await client.route(a_request(), timeout_seconds=5.0)

        assert max(a.calls, b.calls) == 1


async def test_a_call_ends_at_its_deadline():
    async with serving("a") as a, Client(a.address, ClientOptions(route_timeout_seconds=0.2)) as client:
        a.open.clear()
        started = time.monotonic()

        with pytest.raises(RouteError) as caught:
            await client.route(a_request())

        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 3.0


async def test_stubs_have_a_deadline_too():
    async with serving("a") as a, Client(a.address, ClientOptions(call_timeout_seconds=0.2)) as client:
        a.open.clear()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.routing.Route(a_request())

        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_refusal_is_decoded_with_its_reason_fields_and_time_to_wait():
    async with serving("a") as a, Client(f"http://{a.address}") as client:
        a.failure = a_status(grpc.StatusCode.FAILED_PRECONDITION, "PRIVACY_VIOLATION", "none may", PRIVACY="3")

        with pytest.raises(RouteError) as caught:
            await client.route(a_request())

    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRIVACY_VIOLATION")
    assert error.message == "none may"
    assert error.metadata == {"PRIVACY": "3"}
    assert error.retry_after_seconds == 1.5
    assert [(violation.field, violation.description) for violation in error.violations] == [
        ("prompt.input_tokens", "must be >= 0")
    ]
    assert str(error) == "FAILED_PRECONDITION/PRIVACY_VIOLATION: none may; prompt.input_tokens: must be >= 0"
    assert not error.unanswered


async def test_pages_and_batches_come_back_as_they_were_sent():
    async with serving("a") as a, Client(a.address) as client:
        page = await client.candidates(routing_pb2.GetCandidatesRequest(request=a_request()))
        results = await client.route_batch(routing_pb2.RouteBatchRequest(requests=[a_request()]))

    assert page.candidates[0].eligible
    error = error_of_result(results.results[0].error)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")


async def test_when_nobody_answers_the_last_decision_may_stand_in_and_says_that_it_is_stale():
    async with (
        serving("a") as a,
        relayed(a.address) as relay,
        Client(relay.address, ClientOptions(use_stale_seconds=60.0)) as client,
    ):
        fresh = await client.route(a_request(request_id="1", session_id="s"), timeout_seconds=5.0)
        await relay.kill()

        stale = await client.route(a_request(request_id="2"))
        with pytest.raises(RouteError):
            await client.route(a_request(model_id="other"))

    assert not is_stale(fresh.decision)
    assert is_stale(stale.decision)
    assert stale.decision.target == fresh.decision.target
    assert stale.decision.decision_id == ""
    assert list(stale.decision.stale_regions) == ["r1"]
    assert "no control plane answered" in stale.decision.reasoning


async def test_a_refusal_is_never_covered_up_by_a_last_decision():
    async with serving("a") as a, Client(a.address, ClientOptions(use_stale_seconds=60.0)) as client:
        await client.route(a_request(), timeout_seconds=5.0)
        a.failure = a_status(grpc.StatusCode.UNAVAILABLE, "ALL_NODES_UNHEALTHY")

        with pytest.raises(RouteError, match="ALL_NODES_UNHEALTHY"):
            await client.route(a_request())


async def test_without_leave_no_stale_decision_is_used():
    async with serving("a") as a, relayed(a.address) as relay, Client(relay.address) as client:
        await client.route(a_request(), timeout_seconds=5.0)
        await relay.kill()

        with pytest.raises(RouteError) as caught:
            await client.route(a_request())

    assert caught.value.unanswered


async def test_outcomes_leave_in_batches_soon_after_they_are_reported():
    async with serving("a") as a, Client(a.address, wall_clock=lambda: 1_700_000_000.25) as client:
        for number in range(1_200):
            client.report(an_outcome(number))
        await until(lambda: client.outcomes.delivered == 1_200)

        assert sorted(a.batches) == [200, 500, 500]
        assert [outcome.decision_id for outcome in a.outcomes] == [f"d{number}" for number in range(1_200)]
        assert a.outcomes[0].event_time.ToNanoseconds() == 1_700_000_000_250_000_000
        assert client.outcomes.dropped == 0


async def test_outcomes_wait_for_a_control_plane_that_is_away_and_the_oldest_are_dropped_and_counted():
    async with serving("a") as a, Client(a.address, ClientOptions(max_queued_outcomes=100)) as client:
        a.failure = a_status(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        for number in range(150):
            client.report(an_outcome(number))
        assert client.outcomes.dropped == 50

        a.failure = None
        await until(lambda: len(a.outcomes) == 100)

        assert {outcome.decision_id for outcome in a.outcomes} == {f"d{number}" for number in range(50, 150)}


async def test_one_bad_outcome_does_not_cost_the_others():
    async with serving("a") as a, Client(a.address) as client:
        a.refuse_outcome = lambda outcome: outcome.decision_id == "d37"
        for number in range(100):
            client.report(an_outcome(number))
        await until(lambda: len(a.outcomes) == 99)
        await until(lambda: client.outcomes.refused == 1)


async def test_closing_sends_what_is_left():
    async with serving("a") as a:
        async with Client(a.address) as client:
            client.report(an_outcome())

        assert len(a.outcomes) == 1


async def test_closing_while_the_control_plane_is_gone_ends_and_counts_what_is_lost():
    client = Client("127.0.0.1:1")
    client.report(an_outcome())
    started = time.monotonic()

    await client.close()

    assert time.monotonic() - started < 5.0
    assert client.outcomes.dropped == 1
