"""The catalog's database fails while the server serves: routing goes on, writes say so, and everything comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy import make_url

from catalog.sql import schema
from catalog.sql.store import open_store
from federation.v1 import catalog_pb2
from tests.federation.server import Failure, Running, ShiftedClock, engine, failing, running, until
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]

MODEL = "llama"
ROUTING, CATALOG = "federation.v1.RoutingService", "federation.v1.CatalogService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[Running]:
    """A server over real sockets on this database, with one node that answers its probes."""
    clock = ShiftedClock()
    async with engine(MODEL) as node:
        store = await open_store(url, owner="local", clock=clock.wall)
        async with running(store=store, clock=clock) as fairway:
            await fairway.register("local", "first", node.url, MODEL)
            await fairway.until_routable(MODEL)
            yield fairway


async def goes_on(fairway: Running) -> None:
    """Routing answers from the last table, the server stays ready, reads are answered from the last snapshot."""
    for _ in range(5):
        assert (await fairway.route(MODEL)).target.node_id == "first"
    assert await status(fairway, "") == SERVING
    assert await status(fairway, ROUTING) == SERVING
    async with aiohttp.ClientSession() as http, http.get(f"{fairway.admin_url}/readyz") as answer:
        assert answer.status == 200
    assert len((await fairway.catalog.ListNodes(catalog_pb2.ListNodesRequest())).nodes) == 1


async def status(fairway: Running, service: str) -> int:
    response = await fairway.health.Check(health_pb2.HealthCheckRequest(service=service))
    found: int = response.status
    return found


async def written(fairway: Running, region_id: str) -> None:
    await fairway.catalog.PutRegion(catalog_pb2.PutRegionRequest(region={"region_id": region_id}))


async def refused(fairway: Running) -> Failure:
    failure = await failing(written(fairway, "lost"))
    print(failure)
    return failure


async def is_back(fairway: Running) -> None:
    """Writes are stored and served again, without a restart."""

    async def writes() -> bool:
        try:
            await written(fairway, "found")
        except grpc.aio.AioRpcError:
            return False
        return True

    async def serves() -> bool:
        return await status(fairway, CATALOG) == SERVING

    await until(writes)
    await until(serves)
    regions = (await fairway.catalog.ListRegions(catalog_pb2.ListRegionsRequest())).regions
    assert [region.region_id for region in regions] == ["found", "local"]
    assert (await fairway.route(MODEL)).target.node_id == "first"


async def test_a_file_that_another_process_locks_refuses_writes_until_it_is_free(tmp_path: Path) -> None:
    schema.upgrade(f"sqlite:///{tmp_path}/fairway.db")
    async with serving(f"sqlite:///{tmp_path}/fairway.db") as fairway:
        with closing(sqlite3.connect(tmp_path / "fairway.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")

            failure = await refused(fairway)
            await goes_on(fairway)
            # Its readers do not wait for a writer, so that what others write would still be seen.
            assert await status(fairway, CATALOG) == SERVING
            holder.execute("ROLLBACK")

        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "locked by another process" in failure.message
        assert failure.retry_seconds == 1.0
        await is_back(fairway)


@pytest.mark.parametrize("how", ["crashed", "frozen"])
async def test_a_database_that_is_gone_stops_writes_alone(postgres: Postgres, how: str) -> None:
    async with serving(postgres.database()) as fairway:
        if how == "crashed":
            postgres.stop()
        else:
            postgres.freeze()
        failure = await refused(fairway)
        await goes_on(fairway)

        async def is_told() -> bool:
            return await status(fairway, CATALOG) == NOT_SERVING

        if how == "crashed":
            await until(is_told)
            await goes_on(fairway)
        postgres.thaw()
        postgres.start()

        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "nothing was written" in failure.message or "does not answer" in failure.message
        assert failure.retry_seconds == 1.0
        await is_back(fairway)


async def test_a_database_that_turned_read_only_says_so(postgres: Postgres) -> None:
    url = postgres.database()
    name = make_url(url).database
    async with serving(url) as fairway:
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        cut(postgres, str(name))

        failure = await refused(fairway)
        await goes_on(fairway)
        postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        cut(postgres, str(name))

        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_READ_ONLY")
        assert "refuses writes" in failure.message
        await is_back(fairway)


def cut(postgres: Postgres, database: str) -> None:
    """Ends the sessions of a database, since they keep the settings that they began with."""
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
