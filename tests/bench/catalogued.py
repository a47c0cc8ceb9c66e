"""A control plane over a large catalog, measured from inside: `python -m tests.bench.catalogued DATABASE` prints JSON.

It starts as `fairway serve` does, and then does by hand what its tasks would do, so that each piece has a figure.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from catalog.types import Node
from federation import logs
from federation.app import Clock, ControlPlane
from federation.config import load
from federation.opening import event_loop, opened_store
from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2
from tests.bench.measure import SEED

# Nodes that change at once, as a batch of registrations does.
CHANGED = 100
BEATS = 1_000


def resident() -> float:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


async def took(work: Callable[[], Awaitable[object]], rounds: int = 1) -> float:
    """CPU seconds of this process: the least of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        await work()
        best = min(best, time.process_time() - started)
    return best


class Caller:
    """What handlers ask of a call."""

    def invocation_metadata(self) -> None:
        return None


async def measured(database: str) -> dict[str, float]:
    settings = load(None, {}, {"store.url": database, "server.listen": "127.0.0.1:0", "server.admin": "127.0.0.1:0"})
    before = resident()
    started = time.perf_counter()
    store = await opened_store(settings, time.time)
    plane = ControlPlane(settings, store, Clock(), Random(SEED), logs.get())
    await plane.prepare()
    found = {"start": time.perf_counter() - started}
    pool = plane.router.table.pool
    count = len(pool)
    found |= {"deployments": float(count), "bytes": (resident() - before) / count}

    names = list(plane.feed.snapshot.nodes)
    found["quiet_tick"] = await took(_done(plane.installer.tick), 3)
    changed = [plane.feed.snapshot.nodes[name] for name in names[:CHANGED]]

    async def change() -> None:
        nonlocal changed
        changed = list(await store.put([replace(node, zone=f"{node.zone}x") for node in changed]))

    await change()
    found["follow"] = await took(plane.feed.pull)
    found["leases"] = await took(_done(plane.leases.sync))
    found["sync"] = await took(_done(plane.installer.follow))
    found["build"] = await took(_done(plane.installer.tick))

    beats = [
        catalog_pb2.HeartbeatRequest(
            beats=[
                catalog_pb2.NodeBeat(
                    region_id=name.partition("/")[0],
                    node_id=name.partition("/")[2],
                    load={"running_requests": 3 + number % 5, "queue_depth": number % 3, "kv_cache_utilization": 0.5},
                )
                for number, name in enumerate(names[start : start + BEATS])
            ]
        ).SerializeToString()
        for start in range(0, min(len(names), 20 * BEATS), BEATS)
    ]

    async def read() -> AsyncIterator[catalog_pb2.HeartbeatRequest]:
        for beat in beats:
            yield catalog_pb2.HeartbeatRequest.FromString(beat)

    known = 0

    async def beat() -> None:
        nonlocal known
        async for response in plane.catalog.Heartbeat(read(), Caller()):
            response.SerializeToString()
            known += sum(result.known for result in response.results)

    found["beats"] = min(len(names), 20 * BEATS) / await took(beat, 3)
    assert known == 3 * min(len(names), 20 * BEATS), "beats of nodes that are not known"

    model = next(iter(plane.feed.snapshot.models))
    request = routing_pb2.GetCandidatesRequest(request={"model_id": model}, page_size=100)
    found["candidates"] = await took(lambda: plane.routing.GetCandidates(request, Caller()), 2)
    every = routing_pb2.GetCandidatesRequest(request={"capability": "generate"}, page_size=100)
    first = await plane.routing.GetCandidates(every, Caller())
    assert first.total_size == count, f"{first.total_size} of {count} are candidates"
    found["all_candidates"] = await took(lambda: plane.routing.GetCandidates(every, Caller()))
    every.page_token = first.next_page_token
    found["next_page"] = await took(lambda: plane.routing.GetCandidates(every, Caller()))

    async def watch() -> None:
        left = len(names)
        async for response in plane.fleet.WatchFleet(fleet_pb2.WatchFleetRequest(), Caller()):
            response.SerializeToString()
            left -= len(response.nodes)
            if left <= 0:
                break

    found["watch_fleet"] = await took(watch)
    await store.close()
    return found


def _done(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def do() -> object:
        return work()

    return do


def main(database: str) -> None:
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        print(json.dumps(runner.run(measured(database))))


def fleet(count: int, regions: int, models: int) -> list[Node]:
    """Nodes of a large catalog: every one has two deployments, of two of the models."""
    from tests.builders import a_deployment, a_node

    return [
        a_node(
            f"r{number % regions}/n{number}",
            [a_deployment(f"m{(2 * number + each) % models}") for each in range(2)],
            zone=f"z{number // regions % 3}",
            owner="local",
            lease_seconds=30.0,
        )
        for number in range(count // 2)
    ]


if __name__ == "__main__":
    main(sys.argv[1])
