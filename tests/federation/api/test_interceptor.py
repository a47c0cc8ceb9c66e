"""The outermost layer of calls: every way in which one can end has its right status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from federation.v1 import catalog_pb2, routing_pb2
from tests.federation.server import Running, ended, failing, heard, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
ROUTE = "/federation.v1.RoutingService/Route"


@pytest.fixture
async def fairway() -> AsyncIterator[Running]:
    async with running() as server:
        yield server


def statuses(fairway: Running, method: str) -> dict[str, int]:
    calls = fairway.plane.telemetry.calls
    return {status: histogram.count for (called, status), histogram in calls.items() if called.endswith(method)}


def raw(fairway: Running, method: str) -> Callable[..., Any]:
    """A call whose request is bytes."""
    caller: Callable[..., Any] = fairway.channel.unary_unary(method)
    return caller


async def test_a_health_watch_works_through_it_and_hears_the_end(fairway: Running) -> None:
    call = fairway.health.Watch(health_pb2.HealthCheckRequest(service="federation.v1.RoutingService"))
    first = await heard(call)

    await fairway.plane.drain(1.0)

    assert first.status == health_pb2.HealthCheckResponse.SERVING
    assert (await heard(call)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await ended(call)).reason == "SHUTTING_DOWN"
    await until(lambda: statuses(fairway, "Health/Watch") == {"UNAVAILABLE": 1})


async def test_an_unknown_health_service_is_told_with_its_own_status(fairway: Running) -> None:
    failure = await failing(fairway.health.Check(health_pb2.HealthCheckRequest(service="absent")))

    assert failure.code is grpc.StatusCode.NOT_FOUND
    await until(lambda: statuses(fairway, "Health/Check") == {"NOT_FOUND": 1})


async def test_reflection_lists_the_services(fairway: Running) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(fairway.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await heard(call)
    await call.done_writing()

    names = {service.name for service in answer.list_services_response.service}
    assert {
        "federation.v1.CatalogService",
        "federation.v1.RoutingService",
        "federation.v1.PolicyService",
        "federation.v1.FleetService",
        "grpc.health.v1.Health",
    } <= names


async def test_reflection_can_be_switched_off() -> None:
    async with running({"server.reflection": False}) as fairway:
        call = fairway.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        stream = call()
        failure = await ended(stream)

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_corrupt_message_is_an_invalid_argument_and_names_no_exception(fairway: Running) -> None:
    failure = await failing(raw(fairway, ROUTE)(b"\xff\xff\xff"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    assert "Error" not in failure.message
    assert fairway.plane.edge.malformed_total == 1


async def test_a_flood_of_corrupt_messages_is_a_few_lines_in_the_log(fairway: Running) -> None:
    await asyncio.gather(*(failing(raw(fairway, ROUTE)(b"\xff")) for _ in range(60)))

    assert fairway.plane.edge.malformed_total == 60
    refused = [line for line in fairway.logged if line["event"] == "message refused"]
    assert 1 <= len(refused) <= 15


async def test_a_corrupt_message_in_a_stream_ends_it_with_an_invalid_argument(fairway: Running) -> None:
    call = fairway.channel.stream_stream("/federation.v1.RoutingService/RouteStream")()
    await call.write(b"\xff\xff")

    assert (await ended(call)).reason == "MALFORMED_MESSAGE"


async def test_a_route_over_its_limit_is_refused_unread(fairway: Running) -> None:
    request = routing_pb2.RouteRequest(model_id="m" * 300_000)

    failure = await failing(fairway.routing.Route(request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "262,144" in failure.message
    assert failure.pushback == "-1"


async def test_a_call_that_comes_too_late_does_no_work(fairway: Running) -> None:
    decided = fairway.plane.router.stats.refused.total()

    failure = await failing(fairway.routing.Route(routing_pb2.RouteRequest(model_id="m"), timeout=-1))

    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fairway.plane.router.stats.refused.total() == decided


async def test_all_violations_of_a_request_are_told_at_once(fairway: Running) -> None:
    request = routing_pb2.RouteRequest(priority=5_000, max_alternatives=99)
    request.qos.cost_tolerance = float("nan")

    failure = await failing(fairway.routing.Route(request))

    assert (failure.code, failure.reason, failure.domain) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "federation.v1",
    )
    assert set(failure.violations) == {"", "priority", "max_alternatives", "qos.cost_tolerance"}
    assert "model_id or capability must be set" in failure.violations[""]
    assert "5000" in failure.violations["priority"]


async def test_hundreds_of_violations_still_fit_the_trailers(fairway: Running) -> None:
    request = catalog_pb2.RegisterNodeRequest()
    request.node.region_id = "Ä" * 300
    for index in range(200):
        request.deployments.add(model_id=f"-{index}-")

    failure = await failing(fairway.catalog.RegisterNode(request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert len(failure.violations) > 10
    assert "more violations" in failure.violations[""]


async def test_an_unexpected_exception_is_internal_with_an_id_and_its_text_stays_here(fairway: Running) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret word is xyzzy")

    fairway.plane.router.place = broken  # type: ignore[method-assign, assignment]

    failure = await failing(fairway.routing.Route(routing_pb2.RouteRequest(model_id="m")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "xyzzy" not in failure.message
    (line,) = [line for line in fairway.logged if line["event"] == "internal error"]
    assert line["error_id"] == failure.metadata["error_id"]
    assert "xyzzy" in line["exception"]
    await until(lambda: statuses(fairway, "Route") == {"INTERNAL": 1})


async def test_a_stream_that_its_caller_cancels_is_cancelled_and_leaves_nothing(fairway: Running) -> None:
    call = fairway.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest())
    await heard(call)

    call.cancel()

    await until(lambda: statuses(fairway, "WatchCatalog") == {"CANCELLED": 1})
    assert fairway.plane.edge.open_streams == 0


async def test_a_stream_over_its_deadline_is_recorded_as_that(fairway: Running) -> None:
    call = fairway.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest(), timeout=0.3)

    assert (await ended(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: statuses(fairway, "WatchCatalog") == {"DEADLINE_EXCEEDED": 1})


async def test_unknown_methods_are_unimplemented_and_cost_no_memory(fairway: Running) -> None:
    codes = Counter[Any]()
    for index in range(20):
        codes[(await failing(raw(fairway, f"/federation.v1.Absent/M{index}")(b""))).code] += 1

    assert codes == {grpc.StatusCode.UNIMPLEMENTED: 20}
    assert not any("Absent" in method for method in fairway.plane.edge._wrapped)


async def test_draining_ends_streams_with_a_word_on_how_to_go_on(fairway: Running) -> None:
    watch = fairway.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest())
    await heard(watch)
    beats = fairway.catalog.Heartbeat()
    await beats.write(catalog_pb2.HeartbeatRequest())
    await heard(beats)

    await asyncio.wait_for(fairway.plane.drain(10.0), 5.0)

    for stream in (watch, beats):
        failure = await ended(stream)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert failure.retry_seconds == 0.0
        assert "go on after the last revision" in failure.message


async def test_what_is_not_served_yet_says_what_to_use_instead(fairway: Running) -> None:
    request = routing_pb2.WatchLeasesRequest(templates=[routing_pb2.RouteRequest(model_id="m")])

    failure = await ended(fairway.routing.WatchLeases(request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED")
    assert "Route" in failure.message
