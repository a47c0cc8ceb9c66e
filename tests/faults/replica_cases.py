"""Faults of single replicas, on three processes over one PostgreSQL, with callers that use the shipped client."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.edge.client import Client
from federation.v1 import catalog_pb2
from tests.faults.crew import Crew, Gateways, calling, crew, enrolled, patient
from tests.faults.regions import CALL_SECONDS, Place, until
from tests.faults.scale import SEED, Measured, Scale
from tests.federation.relay import Relay, relay
from tests.federation.server import engine, unpacked
from tests.postgres import Postgres

REPLICAS = 3
# The shipped keepalive: a ping 5 s after the last byte, and 2 s for its answer; 5 s for one that was under way.
KEEPALIVE_SECONDS = 7.0


# So that room is never what callers lack.
NODES = 8


async def register(place: Place, url: str) -> None:
    for number in range(NODES):
        await enrolled(place, f"n{number}", url)


async def killed(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Replicas are killed at random moments, one after the other, and started again."""
    rng = Random(SEED)
    async with crew(directory, postgres.empty_database(), REPLICAS) as found, engine("m") as server:
        await register(found.place, server.url)
        await until(found.all_route)
        back = []
        async with calling(found.addresses, scale.crew_rate) as gateways:
            for _ in range(scale.kills):
                victim = rng.randrange(REPLICAS)
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                await found.replicas[victim].life.end()
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                started = time.monotonic()
                await found.replicas[victim].begin()
                await until(found.all_route)
                back.append(time.monotonic() - started)
        return Measured(
            "1",
            f"one of {REPLICAS} replicas is killed (SIGKILL) and started again, {scale.kills} times",
            f"{scale.crew_rate:g} Route/s by the shipped client",
            "0 failed; p99.9 within 250 ms; routes again within 2 s of its start",
            f"{len(gateways.failures)} of {gateways.calls} failed{gateways.reasons}; p99.9 "
            f"{gateways.p(0.999) * 1000:.0f} ms; routes again after {max(back):.1f} s at most",
            not gateways.failures and gateways.p(0.999) <= 0.25 and max(back) <= 2.0,
        )


async def rolling_restart(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Every replica is ended by SIGTERM and started again, one after the other, with a watch open at each."""
    flags = {"server.drain_seconds": CALL_SECONDS}
    async with crew(directory, postgres.empty_database(), REPLICAS, **flags) as found, engine("m") as server:
        await register(found.place, server.url)
        await until(found.all_route)
        codes, told, ends, steps = [], 0, Counter[str](), []
        async with calling(found.addresses, scale.crew_rate) as gateways:
            await gateways.answered_by(REPLICAS)
            for number in range(scale.restarts):
                replica, place = found.replicas[number % REPLICAS], found.places[number % REPLICAS]
                watching = asyncio.create_task(watch_to_its_end(place))
                said = asyncio.create_task(says_farewell(replica.address))
                await enrolled(found.places[(number + 1) % REPLICAS], f"before-{number}")
                await asyncio.sleep(0.5)
                codes.append(await replica.life.drain())
                told += await said
                revision, reason = await watching
                ends[reason] += 1
                await replica.begin()
                await gateways.answered_by(REPLICAS + number + 1)
                steps.append(await resumes(place, revision))
        lost = len(steps) - sum(steps)
        return Measured(
            "2",
            f"each of {REPLICAS} replicas is ended (SIGTERM) and started again, {scale.restarts} in all",
            f"{scale.crew_rate:g} Route/s, a watch at each",
            "0 failed; health says NOT_SERVING first; 0 streams lost without a way to resume",
            f"{len(gateways.failures)} of {gateways.calls} failed{gateways.reasons}; NOT_SERVING told {told} times; "
            f"watches ended with {', '.join(sorted(ends))}, {lost} could not resume; exit codes {sorted(set(codes))}",
            not gateways.failures and told == scale.restarts and lost == 0 and set(ends) == {"SHUTTING_DOWN"},
        )


async def says_farewell(address: str) -> bool:
    """Whether a server that is being ended says NOT_SERVING before it is gone."""
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stream = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="federation.v1.RoutingService")
        )
        with suppress(grpc.aio.AioRpcError):
            async for answer in stream:
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    return True
    return False


async def watch_to_its_end(place: Place) -> tuple[int, str]:
    """The last revision that a watch told, and the reason of its end."""
    revision = 0
    stream = place.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest())
    try:
        while (message := await stream.read()) is not grpc.aio.EOF:
            match message.WhichOneof("event"):
                case "change":
                    revision = message.change.revision
                case "snapshot_complete_revision":
                    revision = message.snapshot_complete_revision
    except grpc.aio.AioRpcError as error:
        return revision, unpacked(error).reason or error.code().name
    return revision, "EOF"


async def resumes(place: Place, revision: int) -> bool:
    """Whether a watch goes on after a revision, without a gap, up to a change that is made now."""
    node = f"after-{revision}"
    answer = place.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest(after_revision=revision))
    await enrolled(place, node)
    seen = [revision]
    try:
        async with asyncio.timeout(CALL_SECONDS):
            while True:
                message = await answer.read()
                if message.WhichOneof("event") == "change":
                    seen.append(message.change.revision)
                    if message.change.node.node_id == node:
                        return all(after == before + 1 for before, after in pairwise(seen))
    finally:
        answer.cancel()


async def black_hole(directory: Path, scale: Scale, postgres: Postgres, *, hedge: bool) -> Measured:
    """The way to one replica swallows everything, and nobody is told."""
    seconds = scale.hedged_seconds if hedge else scale.hole_seconds
    async with (
        crew(directory, postgres.empty_database(), REPLICAS) as found,
        engine("m") as server,
        AsyncExitStack() as stack,
    ):
        await register(found.place, server.url)
        await until(found.all_route)
        wires: list[Relay] = [await stack.enter_async_context(relay(address)) for address in found.addresses]
        addresses = [wire.address for wire in wires]
        callers = [
            await stack.enter_async_context(
                Client(addresses, patient(hedge=hedge, seconds=CALL_SECONDS if hedge else scale.deadline_seconds))
            )
            for _ in range(scale.callers)
        ]
        books = [Gateways() for _ in callers]
        asking = [
            asyncio.create_task(book.one_after_the_other(client)) for book, client in zip(books, callers, strict=True)
        ]
        await asyncio.sleep(2.0)
        for book in books:
            book.failures.clear()
        wires[0].cut()
        cut = time.monotonic()
        await asyncio.sleep(seconds)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        most = max(len(book.failures) for book in books)
        last = max([when - cut for book in books for when, _ in book.failures], default=0.0)
        allowed = 0 if hedge else 12
        reasons = max(books, key=lambda book: len(book.failures)).reasons
        return Measured(
            "3",
            f"the way to one of {REPLICAS} replicas swallows everything for {seconds:g} s"
            + (", callers hedge" if hedge else ""),
            f"{scale.callers} callers, each one call after the other",
            "0 failed" if hedge else f"at most 12 failures a caller, none after {KEEPALIVE_SECONDS:g} s",
            f"{most} failures of a caller at most{reasons}, the last after {last:.1f} s; "
            f"{sum(book.calls for book in books)} calls, p99 {max(book.p(0.99) for book in books) * 1000:.0f} ms",
            most <= allowed and last <= KEEPALIVE_SECONDS + scale.deadline_seconds + scale.slack_seconds,
        )


async def herd(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Everybody connects at once, asks, and resumes a watch."""
    async with crew(directory, postgres.empty_database(), 2) as found, engine("m") as server:
        await register(found.place, server.url)
        await until(found.all_route)
        revision = (await found.place.catalog.ListNodes(catalog_pb2.ListNodesRequest())).revision
        await enrolled(found.place, "late")
        started = time.monotonic()
        seconds = sorted(
            await asyncio.gather(*(comes(found, number, revision, started) for number in range(scale.herd)))
        )
        return Measured(
            "15",
            f"{scale.herd} clients connect in the same moment, each asks and resumes a watch",
            f"{scale.herd} connections to two replicas",
            "all served within 5 s",
            f"all {len(seconds)} served; half after {seconds[len(seconds) // 2]:.1f} s, the last after "
            f"{seconds[-1]:.1f} s",
            seconds[-1] <= 5.0,
        )


async def comes(found: Crew, number: int, revision: int, started: float) -> float:
    """One client of the herd; seconds until it has a decision and the change that it missed."""
    address = found.addresses[number % len(found.addresses)]
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        place = Place("local", found.replicas[0].life, channel)
        await place.finished(await place.route())
        stream = place.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest(after_revision=revision))
        while (await stream.read()).WhichOneof("event") != "change":
            pass
        stream.cancel()
    return time.monotonic() - started
