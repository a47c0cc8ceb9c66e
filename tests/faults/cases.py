"""The faults that are tried on running servers: each at the scale that it is given, telling what it measured.

`test_cut_regions.py` runs them short, for CI; `make faults` at full length, and writes the table of README.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.v1 import catalog_pb2, policy_pb2, types_pb2
from tests.faults.crew import enrolled, retired
from tests.faults.lives import Life
from tests.faults.regions import Place, Regions, calling, regions, until
from tests.faults.scale import SEED, Measured, Scale
from tests.federation.relay import relay
from tests.federation.server import Engine, engine, failing
from tests.postgres import Postgres

# What a peering may take to be whole again: the longest pause between two dials, and what is told in a second.
SYNC_SECONDS = 6.0


@asynccontextmanager
async def engines(count: int) -> AsyncIterator[list[Engine]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(engine("m")) for _ in range(count)]


async def settled(found: Regions) -> None:
    """Waits until everybody routes to somebody and shows the same."""
    await until(found.agree)
    for place in found.places.values():
        await until(lambda at=place: routes(at))


async def routes(place: Place) -> bool:
    try:
        await place.route()
    except grpc.aio.AioRpcError:
        return False
    return True


async def partition(directory: Path, scale: Scale, *, one_way: bool = False) -> Measured:
    """A region is cut off under load, changes on both sides, and joined again."""
    flags = {"peering.lease_seconds": scale.lease_seconds}
    async with regions(directory, **flags) as found, engines(3) as servers:
        for server, place in zip(servers, found.places.values(), strict=True):
            await enrolled(place, "first", server.url)
            await enrolled(place, "goes", server.url)
        await settled(found)
        eu = found.places["eu"]
        async with calling(list(found.places.values()), scale.rate) as callers:
            for wire in found.around("eu"):
                if one_way:
                    wire.stall()
                else:
                    wire.cut()
            started = time.monotonic()
            if scale.cut_seconds > scale.lease_seconds:
                await until(lambda: lapsed(found, "us", "eu"))
            for server, place in zip(servers, found.places.values(), strict=True):
                await enrolled(place, "later", server.url)
                await retired(place, "goes")
            await asyncio.sleep(max(0.0, started + scale.cut_seconds - time.monotonic()))
            for wire in found.around("eu"):
                wire.heal()
            healed = await until(found.agree)
            await until(found.joined)
            # Routed by what was heard anew, too.
            await asyncio.sleep(1.0)
        away = sum(count for (_, region), count in callers.targets.items() if region != "eu")
        assert eu.nodes == {"eu/first", "eu/later"}
        return Measured(
            "4" if one_way else "5",
            f"eu {'hears nobody' if one_way else 'cut off'} for {scale.cut_seconds:g} s, lease "
            f"{scale.lease_seconds:g} s, changes on both sides",
            f"{scale.rate:g}/s in each region",
            f"0 failed; views equal within {2 * SYNC_SECONDS:g} s of healing; nothing lost, doubled or resurrected",
            f"{callers.failures.total()} of {callers.calls} failed{dict(callers.failures) or ''}; equal after "
            f"{healed:.1f} s; p99 {callers.p(0.99) * 1000:.0f} ms; {away} went to us and ap",
            not callers.failures and healed <= 2 * SYNC_SECONDS,
        )


async def lapsed(found: Regions, at: str, peer: str) -> bool:
    return (await found.places[at].states())[peer] == "EXPIRED"


async def database_outage(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """The database is gone under Route and writes, and comes back; the server is not restarted."""
    flags = {"store.url": postgres.empty_database(), "health.probe_interval_seconds": 0.5}
    life = await Life.begin(flags, directory / "log")
    async with grpc.aio.insecure_channel(life.address) as channel, engine("m") as server:
        place, health = Place("local", life, channel), health_pb2_grpc.HealthStub(channel)
        await place.register("n1", server.url)
        await until(lambda: routes(place))

        async def serving(name: str) -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=f"federation.v1.{name}"))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        slowest = 0.0
        async with calling([place], scale.rate) as callers:
            await asyncio.sleep(1.0)
            postgres.stop()
            started, writes = time.monotonic(), 0
            while time.monotonic() - started < scale.outage_seconds:
                asked = time.monotonic()
                write = await failing(place.register("n2", server.url))
                slowest = max(slowest, time.monotonic() - asked)
                writes += 1
                assert (write.code, write.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"), write
                assert write.retry_seconds is not None
                await asyncio.sleep(0.2)
            states = (await serving("CatalogService"), await serving("RoutingService"))
            postgres.start()
            back = await until(lambda: serving("CatalogService"))
            await place.register("n2", server.url)
            await asyncio.sleep(1.0)
        await life.end()
        return Measured(
            "6",
            f"PostgreSQL stopped for {scale.outage_seconds:g} s, then started",
            f"{scale.rate:g} Route/s, {writes} writes",
            "0 Route failures; writes within 1 s UNAVAILABLE with RetryInfo; catalog NOT_SERVING, routing SERVING; "
            "recovery within 5 s",
            f"{callers.failures.total()} of {callers.calls} failed; slowest refusal {slowest:.2f} s; catalog "
            f"{'SERVING' if states[0] else 'NOT_SERVING'}, routing {'SERVING' if states[1] else 'NOT_SERVING'}; "
            f"back after {back:.1f} s",
            not callers.failures and slowest <= 1.5 and states == (False, True) and back <= 5.0,
        )


async def database_stuck(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """The database takes connections and answers nothing."""
    life = await Life.begin({"store.url": postgres.empty_database()}, directory / "log")
    async with grpc.aio.insecure_channel(life.address) as channel, engine("m") as server:
        place = Place("local", life, channel)
        await place.register("n1", server.url)
        await until(lambda: routes(place))
        async with calling([place], scale.rate) as normal:
            await asyncio.sleep(scale.cut_seconds)
        postgres.freeze()
        try:
            async with calling([place], scale.rate) as callers:
                await asyncio.sleep(scale.cut_seconds)
        finally:
            postgres.thaw()
        await life.end()
        ratio = callers.p(0.99) / normal.p(0.99)
        return Measured(
            "7",
            f"PostgreSQL frozen for {scale.cut_seconds:g} s",
            f"{scale.rate:g} Route/s",
            "0 failed; p99 as before (1.2 times)",
            f"{callers.failures.total()} of {callers.calls} failed; p99 {normal.p(0.99) * 1000:.1f} ms before, "
            f"{callers.p(0.99) * 1000:.1f} ms meanwhile ({ratio:.2f} times)",
            not callers.failures and ratio <= 1.2,
        )


async def correlated_failure(directory: Path, scale: Scale) -> Measured:
    """Half of a region's nodes die together, under a policy that keeps work at home: Envoy's table, on a server."""
    count = scale.nodes
    async with regions(directory) as found, engines(count) as near, engines(1) as far:
        eu, us = found.places["eu"], found.places["us"]
        for number, server in enumerate(near):
            await eu.register(f"n{number}", server.url)
        for number in range(count):
            await us.register(f"n{number}", far[0].url)
        document = '{"spillover":{"region_order":"home_first","max_shift_per_minute":60}}'
        await eu.policy.PutPolicy(
            policy_pb2.PutPolicyRequest(policy=policy_pb2.Policy(policy_id="tiers", document_json=document))
        )
        await settled(found)
        before = await shares(eu, 200)
        for server in near[: count // 2]:
            server.status = 500
        # Shares are looked at once a second, and may move all at once by this policy.
        await until(lambda: sends_abroad(eu))
        after = await shares(eu, 1_000)
        return Measured(
            "13",
            f"{count // 2} of {count} nodes of eu die together, policy home_first",
            "1,200 Route one after the other",
            "100 % at home before, 70 % after (factor 1.4), no total outage",
            f"{before:.0%} before, {after:.0%} after",
            before == 1.0 and abs(after - 0.7) < 0.06,
        )


async def shares(place: Place, count: int) -> float:
    """The share of so many decisions that stays at home."""
    at_home = 0
    for _ in range(count):
        decision = await place.route(policy_id="tiers")
        await place.finished(decision)
        at_home += decision.target.region_id == place.name
    return at_home / count


async def sends_abroad(place: Place) -> bool:
    return abs(await shares(place, 300) - 0.7) < 0.06


async def drain_and_back(directory: Path, scale: Scale) -> Measured:
    """A node is drained and taken back: it is out and in again, also for other regions."""
    async with regions(directory) as found, engines(1) as servers:
        eu, us = found.places["eu"], found.places["us"]
        await eu.register("n1", servers[0].url)
        await settled(found)
        node: dict[str, Any] = {"region_id": "eu", "node_id": "n1"}

        await eu.catalog.DrainNode(catalog_pb2.DrainNodeRequest(**node))
        out = await until(lambda: refuses(us))
        await eu.catalog.UndrainNode(catalog_pb2.UndrainNodeRequest(**node))
        back = max(await until(lambda: routes(eu)), await until(lambda: routes(us)))
        return Measured(
            "29",
            "a node is drained, and the drain taken back",
            "Route in the node's region and in another",
            f"routable again within a sync period ({SYNC_SECONDS:g} s)",
            f"out in us after {out * 1000:.0f} ms, back everywhere after {back * 1000:.0f} ms",
            back <= SYNC_SECONDS,
        )


async def refuses(place: Place) -> bool:
    return not await routes(place)


async def watch_resume(directory: Path, scale: Scale) -> Measured:
    """A watch is cut again and again while the catalog changes; it resumes where it was."""
    rng = Random(SEED)
    life = await Life.begin({"store.url": f"sqlite:///{directory / 'fairway.db'}"}, directory / "log")
    async with relay(life.address) as wire, grpc.aio.insecure_channel(life.address) as channel:
        place = Place("local", life, channel)
        await place.register("n0", "http://127.0.0.1:1")
        seen: list[int] = []
        last = first = (await place.catalog.ListNodes(catalog_pb2.ListNodesRequest(page_size=1))).revision

        async def write() -> None:
            number = 0
            while True:
                number += 1
                await place.register(f"n{number}", "http://127.0.0.1:1")
                await asyncio.sleep(0.05)

        writing = asyncio.create_task(write())
        for _ in range(scale.cuts):
            async with grpc.aio.insecure_channel(wire.address) as watched:
                asyncio.get_running_loop().call_later(rng.uniform(0.1, 0.5), wire.cut)
                seen += await watch(Place("local", life, watched), last, 0.6)
                last = seen[-1] if seen else last
                wire.heal()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        seen += await watch(place, last, 1.0)
        newest = (await place.catalog.ListNodes(catalog_pb2.ListNodesRequest(page_size=1))).revision
        await life.end()
        steps = [after - before for before, after in pairwise([first, *seen])]
        return Measured(
            "33",
            f"a watch is cut {scale.cuts} times at random moments",
            "20 changes/s",
            "every revision once, in order",
            f"{len(seen)} changes seen, {sum(step <= 0 for step in steps)} twice or out of order, "
            f"{sum(step > 1 for step in steps) + newest - seen[-1]} missing",
            all(step == 1 for step in steps) and newest == seen[-1],
        )


async def watch(place: Place, after: int, seconds: float) -> list[int]:
    """Revisions of the changes that a watch tells in so many seconds."""
    found: list[int] = []
    stream = place.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest(after_revision=after))
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await stream.read()
                found += [message.change.revision] if message.WhichOneof("event") == "change" else []
    except TimeoutError:
        stream.cancel()
    return found


async def seen_abroad(directory: Path, scale: Scale) -> Measured:
    """A change in one region of a large fleet, until decisions of another go by it."""
    # Only the one node that changes may be connected to; the others are there, and not well.
    flags = {
        "health.probe_interval_seconds": 3_600.0,
        "health.unhealthy_after": 1,
        "health.allowed_cidrs": ("127.0.0.0/8",),
    }
    async with regions(directory, **flags) as found, engine("moves") as server:
        eu, us = found.places["eu"], found.places["us"]
        await fill(eu, scale.fleet)
        await eu.register("moves", server.url, "moves")
        await until(lambda: routes_to(us, "moves"))
        wire = found.wires["us", "eu"]
        began, sent = time.monotonic(), wire.bytes
        seconds = []
        for number in range(scale.changes):
            drain = number % 2 == 0
            node: dict[str, Any] = {"region_id": "eu", "node_id": "moves"}
            if drain:
                await eu.catalog.DrainNode(catalog_pb2.DrainNodeRequest(**node))
            else:
                await eu.catalog.UndrainNode(catalog_pb2.UndrainNodeRequest(**node))
            told = time.monotonic()
            await until(lambda wanted=not drain: goes(us, "moves", wanted), pause=0.005)
            seconds.append(time.monotonic() - told)
        rate = (wire.bytes - sent) / (time.monotonic() - began)
        seconds.sort()
        p50, p99 = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
        return Measured(
            "reach",
            f"a change in eu, until decisions of us go by it, {scale.fleet:,} nodes",
            f"{scale.changes} changes, one after the other",
            "p99 within 1 s and a round trip",
            f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms; {rate:,.0f} bytes/s on the link",
            p99 <= 1.0,
        )


async def fill(place: Place, count: int) -> None:
    for first in range(0, count, 500):
        nodes = [
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(
                    region_id=place.name,
                    node_id=f"f{number}",
                    endpoint="http://192.0.2.1:1",
                    engine=types_pb2.ENGINE_VLLM,
                    lease_duration={"seconds": 0},
                ),
                deployments=[types_pb2.Deployment(model_id="m")],
            )
            for number in range(first, min(first + 500, count))
        ]
        await place.catalog.RegisterNodes(catalog_pb2.RegisterNodesRequest(nodes=nodes))


async def goes(place: Place, model_id: str, wanted: bool) -> bool:
    return await routes_to(place, model_id) is wanted


async def routes_to(place: Place, model_id: str) -> bool:
    try:
        await place.finished(await place.route(model_id=model_id))
    except grpc.aio.AioRpcError:
        return False
    return True
