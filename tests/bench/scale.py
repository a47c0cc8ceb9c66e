"""A large catalog in SQLite and in PostgreSQL: writing it, starting from it, its memory, and what changes cost."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator

from catalog.types import Region
from federation.config import load
from federation.opening import opened_store
from tests.bench.catalogued import fleet
from tests.bench.measure import Result, Scope, held
from tests.bench.servers import ROOT
from tests.builders import a_model, a_region
from tests.postgres import Postgres

# As `fairway nodes import` sends them.
IN_A_TRANSACTION = 500


async def fill(database: str, scope: Scope) -> float:
    """Writes the catalog as bulk import does; deployments a second."""
    store = await opened_store(load(None, {}, {"store.url": database}), time.time)
    try:
        regions: list[Region] = [a_region(f"r{number}", owner="local") for number in range(scope.regions)]
        await store.put(regions)
        await store.put([a_model(f"m{number}", owner="local") for number in range(scope.models)])
        nodes = fleet(scope.catalog, scope.regions, scope.models)
        started = time.perf_counter()
        for start in range(0, len(nodes), IN_A_TRANSACTION):
            await store.put(nodes[start : start + IN_A_TRANSACTION])
        return scope.catalog / (time.perf_counter() - started)
    finally:
        await store.close()


async def started(database: str) -> dict[str, float]:
    """What `tests.bench.catalogued` measures of a start from this database."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.catalogued", database), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, "the control plane over the large catalog failed; see above"
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def told(found: dict[str, float], database: str, written: float, scope: Scope) -> Iterator[Result]:
    """The lines of one database."""
    size = f"{scope.catalog:,} deployments, {database}"
    assert found["deployments"] == scope.catalog
    yield Result(f"bulk writes, {size}", written, "deployments/s")
    start = found["start"]
    yield held(scope, f"start from a catalog of {size}", start, "s", "<= 10 s", start <= 10)
    memory = found["bytes"]
    yield held(scope, f"memory of a catalog of {size}", memory, "bytes each", "<= 3,072", memory <= 3_072)
    if database != "SQLite":
        return
    beats = found["beats"]
    yield held(
        scope, f"heartbeats with load, 1,000 a message, {size}", beats, "nodes/CPU s", ">= 20,000/s", beats >= 20_000
    )
    for key, name in (
        ("quiet_tick", "a tick in which nothing changed"),
        ("follow", "the feed following a change of 100 nodes"),
        ("leases", "leases following it"),
        ("sync", "monitor and prober following it"),
        ("build", "the table following it"),
        ("candidates", "GetCandidates of one model, its first page"),
        ("all_candidates", "GetCandidates of all, its first page"),
        ("next_page", "GetCandidates of all, its next page"),
        ("watch_fleet", "WatchFleet, until all nodes are told"),
    ):
        yield Result(f"{name}, {size}", found[key] * 1000, "ms CPU")


def run(scope: Scope) -> Iterator[Result]:
    """The large catalog, in both databases."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/large.db"
        written = asyncio.run(fill(url, scope))
        yield from told(asyncio.run(started(url)), "SQLite", written, scope)
    postgres = Postgres()
    try:
        url = postgres.empty_database()
        written = asyncio.run(fill(url, scope))
        yield from told(asyncio.run(started(url)), "PostgreSQL", written, scope)
    finally:
        postgres.close()
