"""The server is killed in the middle of registrations, again and again: what it acknowledged is there, whole.

Each kill meets as many registrations under way as there are writers, at a random moment. Between two lives the callers
compare all that they know with a watch's snapshot and its changes, and repeat what was cut under its `request_id`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import grpc
import psycopg
import pytest

from federation.v1 import catalog_pb2_grpc
from tests.faults.history import Catalog, Writer
from tests.faults.lives import Life
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop"), pytest.mark.slow]

KILLS = 100
WRITERS = 6
# A registration takes some 5 ms; so a life sees between none and a hundred.
MOST_SECONDS = 0.1
# The whole database is compared with itself after so many lives.
LIVES_A_LOOK = 10

Query = Callable[[str], list[tuple[Any, ...]]]


async def test_a_hundred_kills_lose_no_acknowledged_write_on_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "fairway.db"

    def query(statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute(statement).fetchall()

    def look() -> None:
        assert query("PRAGMA integrity_check") == [("ok",)]
        check_tables(query)

    await live_and_die(f"sqlite:///{file}", tmp_path / "log", seed=1, look=look)


async def test_a_hundred_kills_lose_no_acknowledged_write_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.empty_database()

    def query(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute(statement.encode()).fetchall()

    await live_and_die(url, tmp_path / "log", seed=2, look=lambda: check_tables(query))


async def live_and_die(url: str, log: Path, *, seed: int, look: Callable[[], None]) -> None:
    """Kills a server KILLS times, and checks after each start; `look` examines the database itself."""
    rng = Random(seed)
    writers = [Writer(number, Random(rng.random())) for number in range(WRITERS)]
    before: Catalog | None = None
    logged: set[tuple[str, int]] = set()
    cut = acknowledged = happened = 0
    started = time.monotonic()
    # Nodes are registered and nothing more: none of their addresses may be connected to.
    flags = {"store.url": url, "health.allowed_cidrs": ("192.0.2.0/24",), "health.probe_interval_seconds": 3600.0}
    for life in range(KILLS + 1):
        server = await Life.begin(flags, log)
        async with grpc.aio.insecure_channel(server.address) as channel:
            catalog = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
            now = await Catalog.read(catalog)
            before = before or now
            changes = await before.follow(catalog, now.revision)

            assert before.resources == now.resources, "the change log tells what the snapshot shows"
            now.check_whole()
            logged.update((change.name, change.revision) for change in changes)
            for writer in writers:
                lost = set(writer.acknowledged) - logged
                assert not lost, f"seed {seed}, life {life}: lost {lost}"
                acknowledged += len(writer.acknowledged)
                writer.acknowledged.clear()
                happened += writer.doubt is not None and _happened(writer, now)
                writer.check(now.nodes)
            if life % LIVES_A_LOOK == 0 or life == KILLS:
                await asyncio.to_thread(look)
            cut += sum(writer.doubt is not None for writer in writers)
            for writer in writers:
                if writer.doubt is not None:
                    await writer.carry_out(catalog)
            if life < KILLS:
                writing = [asyncio.create_task(writer.write_until_cut(catalog)) for writer in writers]
                await asyncio.sleep(rng.uniform(0.0, MOST_SECONDS))
                await server.end()
                await asyncio.gather(*writing)
            else:
                await server.end()
    assert before is not None
    print(
        f"seed {seed}: {KILLS} kills in {time.monotonic() - started:.0f} s; {acknowledged} nodes acknowledged, 0 lost; "
        f"{cut} calls cut, {happened} of them had been committed; revision {before.revision}"
    )
    assert "Traceback" not in log.read_text()
    # The kills met registrations under way, and lives were long enough to acknowledge some.
    assert cut > KILLS
    assert acknowledged > KILLS
    assert happened > 0


def _happened(writer: Writer, catalog: Catalog) -> bool:
    """Whether a write that was cut stands in the catalog."""
    write = writer.doubt
    assert write is not None
    if write.removed:
        return write.removed not in catalog.nodes
    return all(
        name in catalog.nodes and catalog.nodes[name].labels["write"] == node.labels["write"]
        for name, node in write.wanted.items()
    )


def check_tables(query: Query) -> None:
    """The tables tell one story: what is stored is what the log says last, and indexes and audit go along."""
    newest: dict[tuple[str, str], Any] = {}
    revisions = []
    for revision, kind, name, body in query("SELECT revision, kind, name, body FROM changes ORDER BY revision"):
        revisions.append(revision)
        newest[kind, name] = (revision, body)
    stored = {
        (kind, name): (revision, body)
        for kind, table, column in (
            ("region", "regions", "region_id"),
            ("model", "models", "model_id"),
            ("node", "nodes", "name"),
        )
        for name, revision, body in query(f"SELECT {column}, revision, body FROM {table}")
    }
    assert stored == {key: value for key, value in newest.items() if value[1] is not None}
    assert len(set(revisions)) == len(revisions)
    assert query("SELECT revision FROM owners") == [(revisions[-1],)]
    assert [row[0] for row in query("SELECT revision FROM audit ORDER BY revision")] == revisions
    served = {
        (name, deployment["model_id"])
        for (kind, name), (_, body) in stored.items()
        if kind == "node"
        for deployment in json.loads(body)["deployments"]
    }
    assert set(query("SELECT node_name, model_id FROM deployments")) == served
