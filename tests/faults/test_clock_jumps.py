"""Row 27: the wall clock jumps an hour while the monotonic one goes on; leases and peerings go by the latter.
Clocks that are apart do no harm, and `fairway doctor` tells of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from catalog.memory import MemoryStore
from federation.v1 import catalog_pb2, fleet_pb2, types_pb2
from tests.federation.server import Running, ShiftedClock, engine, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
HOUR_SECONDS = 3_600.0
PUBLIC = types_pb2.PRIVACY_LEVEL_PUBLIC


class JumpingClock(ShiftedClock):
    """`advance` moves the wall clock alone, as somebody who sets the time does."""

    def monotonic(self) -> float:
        return time.monotonic()


@asynccontextmanager
async def two_regions() -> AsyncIterator[tuple[Running, Running, JumpingClock]]:
    """eu and us, peered; the clock is eu's."""
    clock = JumpingClock()
    eu_flags = {"region.id": "eu", "region.owns": ("eu",), "health.probe_interval_seconds": 0.2}
    async with running(eu_flags, store=MemoryStore("eu", clock=clock.wall), clock=clock, seed=1) as eu:
        us_flags = {"region.id": "us", "region.owns": ("us",), "peering.peers": (eu.target,)}
        async with running(us_flags, seed=2) as us:
            yield eu, us, clock


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_wall_clock_that_jumps_ends_no_lease_and_no_peering(hours: int) -> None:
    async with two_regions() as (eu, us, clock), engine("m") as node:
        lease = {"lease_duration": {"seconds": 600}, "privacy_level": PUBLIC}
        await eu.register("eu", "n1", node.url, "m", **lease)
        request = {"qos": {"privacy_level": PUBLIC}}
        await eu.until_routable("m", **request)
        await us.until_routable("m", **request)
        links = link_of(eu, "us"), link_of(us, "eu")

        clock.advance(hours * HOUR_SECONDS)
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert (await eu.route("m", **request)).target.node_id == "n1"
            assert (await us.route("m", **request)).target.node_id == "n1"
        await eu.register("eu", "n2", node.url, "m", **lease)

        await until(lambda: known(us, "n2"))
        listed = await eu.catalog.ListNodes(catalog_pb2.ListNodesRequest())
        assert [node.lease_expired for node in listed.nodes] == [False, False]
        assert (link_of(eu, "us"), link_of(us, "eu")) == links


async def test_clocks_that_are_five_minutes_apart_move_no_work_and_are_told_by_doctor() -> None:
    async with two_regions() as (eu, us, clock), engine("m") as node:
        clock.advance(300.0)
        await eu.register("eu", "n1", node.url, "m", lease_duration={"seconds": 600}, privacy_level=PUBLIC)
        await us.until_routable("m", qos={"privacy_level": PUBLIC})

        found = {name: await clock_check(fairway) for name, fairway in (("eu", eu), ("us", us))}

        await until(lambda: linked(us))
    assert {name: check["status"] for name, check in found.items()} == {"eu": "warn", "us": "ok"}
    assert "ahead of ours" in found["eu"]["found"]
    assert "NTP" in found["eu"]["hint"]


async def clock_check(fairway: Running) -> dict[str, str]:
    """What `fairway doctor` finds of a server's clock."""
    command = (
        sys.executable,
        "-m",
        "federation",
        "doctor",
        "--server",
        fairway.target,
        "--timeout",
        "60s",
        "-o",
        "json",
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    (check,) = [check for check in json.loads(told)["checks"] if check["name"] == "clock"]
    return check  # type: ignore[no-any-return]


async def linked(fairway: Running) -> bool:
    peers = (await fairway.fleet.ListPeers(fleet_pb2.ListPeersRequest())).peers
    return [peer.state for peer in peers] == [fleet_pb2.LINK_STATE_UP]


def link_of(fairway: Running, peer: str) -> object:
    assert fairway.plane.peering is not None
    return fairway.plane.peering.links[peer]


def known(fairway: Running, node_id: str) -> bool:
    assert fairway.plane.peering is not None
    return any(
        name.endswith(f"/{node_id}")
        for each in fairway.plane.peering.imports.peers.values()
        for name in each.view.nodes
    )
