"""A process that stood still for longer than a lease: nothing that was told before is decided by when it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2
from policies.errors import NoCandidate
from tests.federation.process import serving
from tests.federation.server import PATIENCE_SECONDS, engine, failing, running, until

pytestmark = pytest.mark.anyio
PUBLIC = {"privacy_level": types_pb2.PRIVACY_LEVEL_PUBLIC}
LEASE_SECONDS = 5.0
PROBES = {"health.probe_interval_seconds": 0.2}


class NoContext:
    """Of a call that is made without a wire."""


async def test_the_first_decision_after_a_lease_ended_knows_that_it_ended():
    eu_flags = {**PROBES, "region.id": "eu", "region.owns": ("eu",)}
    async with running(eu_flags) as eu, engine("m") as node:
        us_flags = {"region.id": "us", "region.owns": ("us",), "peering.peers": (eu.target,)}
        async with running(us_flags, seed=2) as us:
            await eu.register("eu", "n1", node.url, "m")
            await us.until_routable("m", qos=PUBLIC)

            us.clock.advance(31.0)
            # No other task has its turn between this and the decision.
            asked = us.plane.routing.Route(routing_pb2.RouteRequest(model_id="m", qos=PUBLIC), NoContext())
            with pytest.raises(NoCandidate, match="PEER_LEASE_EXPIRED"):
                asked.send(None)

            # What the peer says next renews it.
            await us.until_routable("m", qos=PUBLIC)


async def test_calls_that_waited_while_a_process_was_stopped_are_not_sent_to_a_region_that_is_gone(tmp_path: Path):
    (tmp_path / "eu").mkdir()
    (tmp_path / "us").mkdir()
    quick = {
        "FAIRWAY_HEALTH__PROBE_INTERVAL_SECONDS": "0.2",
        "FAIRWAY_PEERING__LEASE_SECONDS": str(LEASE_SECONDS),
    }
    eu_env = {**quick, "FAIRWAY_REGION__OWNS": "eu"}
    with serving(tmp_path / "eu", "--region", "eu", env=eu_env) as eu:
        us_env = {**quick, "FAIRWAY_REGION__OWNS": "us"}
        with serving(tmp_path / "us", "--region", "us", "--peer", eu.address, env=us_env) as us:
            async with (
                engine("m") as node,
                grpc.aio.insecure_channel(eu.address) as to_eu,
                grpc.aio.insecure_channel(us.address) as to_us,
            ):
                await register(to_eu, node.url)
                routing: Any = routing_pb2_grpc.RoutingServiceStub(to_us)  # type: ignore[no-untyped-call]

                def ask() -> Any:
                    return routing.Route(routing_pb2.RouteRequest(model_id="m", qos=PUBLIC))

                async def routable() -> bool:
                    try:
                        return bool((await ask()).decision.target.region_id == "eu")
                    except grpc.aio.AioRpcError:
                        return False

                await until(routable)
                os.kill(us.popen.pid, signal.SIGSTOP)
                os.kill(eu.popen.pid, signal.SIGKILL)
                asked = [asyncio.ensure_future(ask()) for _ in range(20)]
                await asyncio.sleep(LEASE_SECONDS + 0.5)
                os.kill(us.popen.pid, signal.SIGCONT)
                failures = [await asyncio.wait_for(failing(each), PATIENCE_SECONDS) for each in asked]

    assert {failure.code for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
    assert all("PEER_LEASE_EXPIRED" in failure.message for failure in failures)


async def register(channel: grpc.aio.Channel, endpoint: str) -> None:
    catalog: Any = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
    await catalog.RegisterNode(
        catalog_pb2.RegisterNodeRequest(
            node=types_pb2.Node(
                region_id="eu",
                node_id="n1",
                endpoint=endpoint,
                engine=types_pb2.ENGINE_VLLM,
                lease_duration={"seconds": 0},
            ),
            deployments=[types_pb2.Deployment(model_id="m")],
        )
    )
