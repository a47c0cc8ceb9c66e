"""The prober against real gRPC servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from catalog.types import Deployment, Engine, Node
from policies.health import Grade
from tests.federation.health.fleet import MODEL, a_node
from tests.federation.health.servers import (
    IMPATIENT,
    Certificate,
    probing,
    unhealthy,
    well,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving_grpc(
    servicer: health_pb2_grpc.HealthServicer | None, tls: Certificate | None = None
) -> AsyncIterator[int]:
    server = grpc.aio.server()
    if servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if tls:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def a_grpc_node(port: int, scheme: str = "grpc") -> Node:
    return a_node(
        endpoint=f"{scheme}://localhost:{port}", engine=Engine.GRPC, deployments=(Deployment("r", "n1", MODEL),)
    )


async def test_a_grpc_engine_is_ready_when_it_serves_and_loads_or_fails_when_it_does_not():
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    async with serving_grpc(servicer) as port, probing(a_grpc_node(port)) as at_work:
        loading = await at_work.until(lambda h: h.grade is Grade.LOADING)
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await at_work.until(well)
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        failed = await at_work.until(unhealthy)

    assert loading.reason == "its engine is not ready: NOT_SERVING"
    assert failed.reason == "3 probes failed: NOT_SERVING"


async def test_a_grpc_server_without_health_or_that_is_gone_is_said_so():
    async with serving_grpc(None) as port, probing(a_grpc_node(port)) as at_work:
        without = await at_work.until(unhealthy)
    async with probing(a_grpc_node(port)) as at_work:
        gone = await at_work.until(unhealthy)

    assert without.reason == "3 probes failed: it does not serve grpc.health.v1"
    assert gone.reason == "3 probes failed: connection refused"


async def test_a_grpc_engine_that_hangs_is_timed_out():
    class Hanging(health_pb2_grpc.HealthServicer):
        async def Check(self, request, context):
            await asyncio.sleep(3_600.0)

    async with serving_grpc(Hanging()) as port, probing(a_grpc_node(port), settings=IMPATIENT) as at_work:
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: timed out after 0.15 s"


async def test_a_load_report_on_a_grpc_answer_is_read():
    class Reporting(health_pb2_grpc.HealthServicer):
        async def Check(self, request, context):
            context.set_trailing_metadata([("endpoint-load-metrics", "TEXT named_metrics.num_requests_waiting=4")])
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async with serving_grpc(Reporting()) as port, probing(a_grpc_node(port)) as at_work:
        found = await at_work.until(lambda h: h.queue_depth is not None)

    assert found.queue_depth == 4.0


async def test_grpcs_is_checked_against_the_authorities_that_are_given(tls: Certificate):
    servicer = health.aio.HealthServicer()
    async with serving_grpc(servicer, tls) as port:
        async with probing(a_grpc_node(port, "grpcs"), ca_file=tls.certificate) as at_work:
            await at_work.until(well)
        async with probing(a_grpc_node(port, "grpcs")) as at_work:
            found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: TLS handshake failed"


async def test_a_grpc_engine_at_an_http_endpoint_is_a_mistake_that_is_named():
    async with probing(a_node(endpoint="http://127.0.0.1:1", engine=Engine.GRPC)) as at_work:
        found = await at_work.until(unhealthy)

    assert "engine 'grpc' needs a grpc:// or grpcs:// endpoint, not http://" in found.reason
