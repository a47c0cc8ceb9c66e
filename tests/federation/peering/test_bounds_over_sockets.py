"""What holds between regions over real sockets: who is told what, and that nobody waits for anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from federation.peering import wire
from federation.peering.messages import Heartbeat, Hello, Identity
from federation.peering.session import WINDOW
from federation.v1 import catalog_pb2, peering_pb2_grpc, routing_pb2, types_pb2
from tests.federation.server import Running, engine, failing, running, until

pytestmark = pytest.mark.anyio
LAW = {"eu": ("DE", "EU"), "us": ("US",), "ap": ("JP",), "zz": ()}
PUBLIC = types_pb2.PRIVACY_LEVEL_PUBLIC
# A thousand nodes that nobody serves are not to be what keeps the machine busy.
SELDOM = {"health.probe_interval_seconds": 300.0, "health.recheck_interval_seconds": 300.0}


@asynccontextmanager
async def region(name: str, *peers: str, seed: int, **flags: Any) -> AsyncIterator[Running]:
    settings: dict[str, object] = {
        "region.id": name,
        "region.owns": (name,),
        "region.jurisdiction": LAW[name],
        "peering.peers": peers,
        "health.probe_interval_seconds": 0.2,
    }
    async with running({**settings, **flags}, seed=seed) as fairway:
        yield fairway


async def test_a_model_that_is_withheld_from_a_law_is_told_to_nobody_there_nor_where_the_law_is_unknown():
    async with (
        region("eu", seed=1, **{"peering.withhold": ("secret*@US",)}) as eu,
        region("us", eu.target, seed=2) as us,
        region("ap", eu.target, seed=3) as ap,
        region("zz", eu.target, seed=4) as zz,
        engine("secret-1", "open-1") as node,
    ):
        await eu.register("eu", "n1", node.url, "secret-1", "open-1", privacy_level=PUBLIC)
        for each in (us, ap, zz):
            await each.until_routable("open-1", qos={"privacy_level": PUBLIC})

        there = await ap.until_routable("secret-1", qos={"privacy_level": PUBLIC})
        assert there.target.deployment == "eu/n1/secret-1"
        for each in (us, zz):
            failure = await failing(each.route("secret-1", qos={"privacy_level": PUBLIC}))
            assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
            assert "secret-1" not in str(each.plane.peering.imports.peers["eu"].view.nodes)


async def test_a_region_whose_law_nobody_knows_meets_no_residency_rule():
    async with region("eu", seed=1) as eu, region("zz", eu.target, seed=2) as zz, engine("m") as node:
        await zz.register("zz", "n1", node.url, "m", privacy_level=PUBLIC)
        anywhere = await eu.until_routable("m", qos={"privacy_level": PUBLIC})

        asked = routing_pb2.RouteRequest(
            model_id="m", qos={"privacy_level": PUBLIC}, placement={"jurisdictions": ["EU"]}
        )
        found = await eu.routing.GetCandidates(routing_pb2.GetCandidatesRequest(request=asked))
        failure = await failing(eu.routing.Route(asked))

        assert anywhere.target.region_id == "zz"
        assert [each.rejection.code for each in found.candidates] == [routing_pb2.REJECTION_CODE_JURISDICTION]
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRIVACY_VIOLATION")


async def test_a_peer_that_reads_nothing_delays_nobody_else_and_is_told_no_more_than_it_acknowledges():
    async with (
        region("eu", seed=1, **SELDOM) as eu,
        region("us", eu.target, seed=2) as us,
        grpc.aio.insecure_channel(eu.target) as channel,
    ):
        stub: Any = peering_pb2_grpc.PeeringServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Exchange()
        await call.write(wire.request_to(Hello(Identity("ap", ("ap",), "life-1", ("JP",)))))
        await until(lambda: {"ap", "us"} <= eu.plane.peering.links.keys())
        link = eu.plane.peering.links["ap"]
        beating = asyncio.create_task(beat(call))
        waiting, views = [], []
        for number in range(12):
            await register_some(eu, number)
            # At once, and not after the other one read.
            await until(lambda: told(us) == eu.plane.feed.revision)
            waiting.append(len(link._outbox))
            views.append(len(eu.plane.peering._ledgers["ap"].views))
        beating.cancel()

        assert eu.plane.feed.revision >= 1_200
        # One telling in parts, and answers to heartbeats; and no more views than may go without an ack.
        assert max(waiting) <= 100
        assert max(views) <= WINDOW


async def beat(call: Any) -> None:
    """Says that it lives, and nothing else."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for number in range(1, 1_000):
            await call.write(wire.request_to(Heartbeat(number)))
            await asyncio.sleep(0.5)


async def register_some(fairway: Running, number: int) -> None:
    """A hundred nodes of about a kilobyte each."""
    labels = {f"label-{each}": "x" * 60 for each in range(12)}
    await fairway.catalog.RegisterNodes(
        catalog_pb2.RegisterNodesRequest(
            nodes=[
                catalog_pb2.RegisterNodeRequest(
                    node=types_pb2.Node(
                        region_id="eu",
                        node_id=f"n{number}-{each}",
                        endpoint="http://127.0.0.1:1",
                        engine=types_pb2.ENGINE_VLLM,
                        labels=labels,
                        lease_duration={"seconds": 0},
                    ),
                    deployments=[types_pb2.Deployment(model_id="m")],
                )
                for each in range(100)
            ]
        )
    )


def told(fairway: Running) -> int:
    known = fairway.plane.peering.imports.peers.get("eu")
    return 0 if known is None else known.view.revision
