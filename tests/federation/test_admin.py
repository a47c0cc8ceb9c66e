"""The admin port: what it tells of itself, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from federation.v1 import routing_pb2
from tests.federation.server import Running, engine, failing, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


@pytest.fixture
async def fairway() -> AsyncIterator[Running]:
    async with running() as server, engine("m") as node:
        await server.register("local", "n1", node.url, "m")
        await server.until_routable("m")
        yield server


async def get(fairway: Running, path: str, **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(fairway.admin_url + path, headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def samples(fairway: Running) -> dict[str, dict[tuple[str, ...], float]]:
    _, text, _ = await get(fairway, "/metrics")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


async def test_metrics_count_what_happened(fairway: Running) -> None:
    for _ in range(3):
        await fairway.route("m", origin={"region_id": "local"})
    await fairway.route("m", origin={"region_id": "made-up-by-a-caller"}, tenant_id="tenant-7")
    await failing(fairway.routing.Route(routing_pb2.RouteRequest(model_id="absent")))
    # The caller hears of the end of a call a moment before the server has counted it.
    refused = ("federation.v1.RoutingService/Route", "NOT_FOUND")
    await until(lambda: refused in fairway.plane.telemetry.calls)

    found = await samples(fairway)

    decisions = found["route_decisions_total"]
    # One more by whoever waited for the node; a request without an origin comes from the own region.
    assert decisions[("", "local", "local", "m", "ok")] == 4
    assert decisions[("", "_OTHER", "local", "m", "ok")] == 1
    assert any("MODEL_UNKNOWN" in labels for labels in decisions)
    assert found["route_duration_seconds_count"][()] >= 5
    assert found["rpc_server_call_duration_seconds_count"][("NOT_FOUND", "federation.v1.RoutingService/Route")] >= 1
    assert found["rpc_server_call_duration_seconds_bucket"][("+Inf", "OK", "federation.v1.RoutingService/Route")] >= 4
    assert found["deployment_state"][("healthy",)] == 1
    assert found["probe_total"][("ok",)] >= 1
    assert found["snapshot_revision"][()] == fairway.plane.feed.revision
    assert found["store_up"][()] == 1
    assert found["panic_mode"][("m",)] == 0
    assert found["table_age_seconds"][()] < 5
    assert found["build_info"]
    assert "process_resident_memory_bytes" in found


async def test_metrics_never_name_tenants_requests_or_endpoints(fairway: Running) -> None:
    await fairway.route("m", tenant_id="tenant-7", session_id="session-7", request_id="request-7")

    _, text, _ = await get(fairway, "/metrics")

    for word in ("tenant-7", "session-7", "request-7", "http://127.0.0.1"):
        assert word not in text


async def test_a_scraper_gets_the_format_that_it_asks_for(fairway: Running) -> None:
    plain = await get(fairway, "/metrics")
    open_metrics = await get(fairway, "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert plain[2].startswith("text/plain")
    assert open_metrics[2].startswith("application/openmetrics-text")
    assert open_metrics[1].endswith("# EOF\n")


async def test_it_lives_and_is_ready_until_it_drains(fairway: Running) -> None:
    assert await get(fairway, "/livez") == (200, "ok\n", "text/plain; charset=utf-8")
    assert (await get(fairway, "/readyz"))[:2] == (200, "ok\n")

    await fairway.plane.drain(1.0)

    assert (await get(fairway, "/readyz"))[:2] == (503, "shutting down\n")
    assert (await get(fairway, "/livez"))[0] == 200


async def test_a_loop_that_was_away_for_long_is_not_alive(fairway: Running) -> None:
    fairway.clock.advance(20)

    async def dead() -> bool:
        status, text, _ = await get(fairway, "/livez")
        return status == 503 and "event loop lagged" in text

    await until(dead)


async def test_the_first_page_tells_what_this_is(fairway: Running) -> None:
    status, text, content_type = await get(fairway, "/")

    assert status == 200
    assert content_type.startswith("text/html")
    assert str(fairway.plane.address) in text
    assert '<a href="/metrics">' in text
