"""A server that starts while its database is down: it routes by what it kept, says so, and catches up by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from catalog.sql.store import open_store
from federation import last_known
from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2
from tests.builders import a_model
from tests.faults.lives import Life
from tests.federation.server import engine, failing, until
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
# Long enough to be told from the second or two by which any catalog is old.
AWAY_SECONDS = 30.0


class Client:
    """What a caller sees of a server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.catalog: Any = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        self.routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def register(self, node_id: str, endpoint: str) -> None:
        node = types_pb2.Node(
            region_id="local",
            node_id=node_id,
            endpoint=endpoint,
            engine=types_pb2.ENGINE_VLLM,
            lease_duration={"seconds": 0},
        )
        await self.catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(node=node, deployments=[types_pb2.Deployment(model_id="m")])
        )

    async def until_routed(self) -> routing_pb2.RouteDecision:
        found: list[routing_pb2.RouteDecision] = []

        async def routed() -> bool:
            try:
                found.append((await self.routing.Route(routing_pb2.RouteRequest(model_id="m"))).decision)
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(routed)
        return found[0]

    async def status(self, service: str) -> str:
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def models(self) -> set[str]:
        answer = await self.catalog.ListModels(catalog_pb2.ListModelsRequest())
        return {model.model_id for model in answer.models}


async def fresh(client: Client) -> bool:
    """Whether decisions go by the catalog of now; tables before the next one do not yet."""
    return bool((await client.until_routed()).catalog_age.seconds < AWAY_SECONDS)


async def test_a_start_without_the_database_routes_by_the_last_known_catalog_and_catches_up(
    tmp_path: Path, postgres: Postgres
) -> None:
    kept, log, url = tmp_path / "last-known", tmp_path / "log", postgres.empty_database()
    flags = {"store.url": url, "store.last_known_path": kept, "health.probe_interval_seconds": 0.5}
    async with engine("m") as server:
        life = await Life.begin(flags, log)
        async with grpc.aio.insecure_channel(life.address) as channel:
            client = Client(channel)
            await client.register("n1", server.url)
            await client.until_routed()
            await until(lambda: kept.exists() and kept.stat().st_size > 0 and holds(kept, "local/n1"))
        await life.end()
        # What another replica wrote meanwhile is what there is to catch up with.
        other = await open_store(url, owner="local", clock=time.time)
        await other.put([a_model("later", owner="")])
        await other.close()
        postgres.stop()
        grow_old(kept, AWAY_SECONDS)

        life = await Life.begin(flags, log)
        async with grpc.aio.insecure_channel(life.address) as channel:
            client = Client(channel)
            decision = await client.until_routed()
            started = time.monotonic()
            write = await failing(client.register("n2", server.url))
            took = time.monotonic() - started

            assert decision.target.deployment == "local/n1/m"
            assert decision.catalog_age.seconds >= AWAY_SECONDS
            assert (write.code, write.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert write.retry_seconds is not None
            assert took < 15.0
            assert await client.models() == {"m"}
            assert await client.status("federation.v1.RoutingService") == "SERVING"
            assert await client.status("federation.v1.CatalogService") == "NOT_SERVING"
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://{life.admin}/readyz") as ready:
                    assert ready.status == 200
                    assert "the catalog's store does not answer" in await ready.text()
                async with http.get(f"http://{life.admin}/metrics") as page:
                    assert "store_up 0.0" in await page.text()

            postgres.start()
            await until(lambda: serves(client))
            assert await client.models() == {"m", "later"}
            await client.register("n2", server.url)
            await until(lambda: fresh(client))
        await life.end()
    assert "Traceback" not in log.read_text()


async def serves(client: Client) -> bool:
    return await client.status("federation.v1.CatalogService") == "SERVING"


def holds(path: Path, node: str) -> bool:
    found = last_known.read(path, "local")
    return found is not None and node in found.snapshot.nodes


def grow_old(path: Path, seconds: float) -> None:
    """Lets a file have been written some time ago."""
    found = last_known.read(path, "local")
    assert found is not None
    then = time.time() - seconds
    lines = last_known.lines_of("local", found.snapshot, (), answered_at=then, now=0.0, wall=then)
    last_known._store(path, list(lines), then)
