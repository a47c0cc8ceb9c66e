"""What callers are told, and how soon, when the database is away, stuck, locked, full or read-only."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from anyio.abc import SocketAttribute, SocketStream
from sqlalchemy import QueuePool, event, make_url

from catalog.errors import StoreReadOnly, StoreUnavailable
from catalog.sql.sessions import Timeouts
from catalog.types import ResourceKind
from tests.catalog.builders import a_model, a_node, a_region
from tests.catalog.conftest import Open
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

# Soon enough for a test, long enough for a healthy database on a busy machine.
SHORT = Timeouts(write=2.0, read=10.0, poll=0.02)
# The same and what a busy machine adds to it. Without a bound of ours it would be minutes.
IN_TIME = 15.0


async def refused(write: Callable[[], Awaitable[object]]) -> tuple[StoreUnavailable, float]:
    """The error of a write, and how many seconds it took."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as error:
        await write()
    return error.value, time.monotonic() - started


async def test_a_stopped_database_refuses_writes_at_once_and_serves_again_when_it_is_back(
    postgres: Postgres, opened: Open
) -> None:
    store = await opened(postgres.database(), timeouts=SHORT)
    await store.put([a_region()])
    postgres.stop()

    error, seconds = await refused(lambda: store.put([a_region("eu-west-2")]))
    with pytest.raises(StoreUnavailable):
        await store.snapshot()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.wait(1, 0.1)
    postgres.start()
    (region,) = await store.put([a_region("eu-west-2")])

    assert "does not answer" in str(error)
    assert seconds < IN_TIME
    assert region.revision == 2
    await store.ping()


async def test_a_frozen_database_refuses_writes_in_time(postgres: Postgres, opened: Open) -> None:
    store = await opened(postgres.database(), timeouts=SHORT)
    await store.put([a_region()])
    postgres.freeze()
    try:
        _, over_an_open_connection = await refused(lambda: store.put([a_region("eu-west-2")]))
        _, over_a_new_one = await refused(lambda: store.put([a_region("eu-west-2")]))
        _, asked = await refused(store.ping)
    finally:
        postgres.thaw()
    (region,) = await store.put([a_region("eu-west-3")])

    assert max(over_an_open_connection, over_a_new_one, asked) < IN_TIME
    assert region.revision == 2
    assert list((await store.snapshot()).regions) == ["eu-west-1", "eu-west-3"]


async def test_writes_that_queue_behind_a_dead_database_fail_together(postgres: Postgres, opened: Open) -> None:
    store = await opened(postgres.database(), timeouts=SHORT)
    await store.put([a_region()])
    postgres.freeze()
    started = time.monotonic()
    try:
        async with anyio.create_task_group() as tasks:
            for at in range(20):
                tasks.start_soon(refused, lambda at=at: store.put([a_region(f"region-{at}")]))
    finally:
        postgres.thaw()

    # One after the other, it would be 40 s.
    assert time.monotonic() - started < IN_TIME
    assert [region.revision for region in await store.put([a_region("eu-west-2")])] == [2]


async def test_connections_that_were_cut_meanwhile_cost_no_write(postgres: Postgres, opened: Open) -> None:
    store = await opened(postgres.database())
    await store.put([a_region()])
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")

    (region,) = await store.put([a_region("eu-west-2")])
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")

    assert await store.get(ResourceKind.REGION, "eu-west-2") == region


async def test_a_lock_that_another_session_holds_is_named(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    store = await opened(url, timeouts=SHORT)
    await store.put([a_region()])

    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM owners FOR UPDATE")
        error, seconds = await refused(lambda: store.put([a_region("eu-west-2")]))
        assert len((await store.snapshot()).regions) == 1

    assert "another session may hold the owner's row" in str(error)
    assert seconds < IN_TIME
    assert [region.revision for region in await store.put([a_region("eu-west-2")])] == [2]


async def test_a_read_only_postgresql_says_so(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    before = await opened(url)
    await before.put([a_region()])
    postgres.execute(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
    store = await opened(url)

    with pytest.raises(StoreReadOnly, match="refuses writes"):
        await store.put([a_region("eu-west-2")])

    assert list((await store.snapshot()).regions) == ["eu-west-1"]


@pytest.mark.parametrize("reached", [True, False], ids=["the commit arrived", "the commit was lost"])
async def test_a_write_whose_commit_was_not_answered_is_stored_once(
    postgres: Postgres, opened: Open, reached: bool
) -> None:
    url = make_url(postgres.database())
    async with relay(postgres.port, deliver=reached) as line:
        store = await opened(url.set(port=line.port).render_as_string(hide_password=False))
        await store.put([a_region()])

        line.cut_next_commit = True
        (region,) = await store.put([a_region("eu-west-2")])
        line.cut_next_commit = True
        deleted = await store.delete(ResourceKind.REGION, "eu-west-1")

        assert line.cuts == 2
        assert (region.revision, deleted) == (2, 3)
        assert [change.revision for change in await store.changes(0)] == [1, 2, 3]
        assert list((await store.snapshot()).regions) == ["eu-west-2"]


async def test_a_write_that_may_have_been_stored_says_so(postgres: Postgres, opened: Open) -> None:
    url = make_url(postgres.database())
    async with relay(postgres.port, deliver=True) as line:
        store = await opened(url.set(port=line.port).render_as_string(hide_password=False), timeouts=SHORT)
        await store.put([a_region()])

        line.cut_next_commit = line.refuse_after_cut = True
        error, _ = await refused(lambda: store.put([a_region("eu-west-2")]))

    assert "may have been stored; repeat it, best with the same request_id" in str(error)


async def test_work_cancelled_at_any_moment_leaves_no_lock_and_no_clock(sql_url: str, opened: Open) -> None:
    store = await opened(sql_url, timeouts=SHORT)

    for turns in range(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.put, [a_region(f"cut-{turns}")])
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await store.put([a_region(f"whole-{turns}")])
    # Until the last of them would have been given up: what goes wrong in a callback then fails this test.
    await anyio.sleep(SHORT.write)

    regions = (await store.snapshot()).regions
    assert {f"whole-{turns}" for turns in range(60)} <= set(regions)


async def test_connections_that_came_when_nobody_waited_any_more_go_back(postgres: Postgres, opened: Open) -> None:
    store = await opened(postgres.database(), timeouts=SHORT)
    draw = Random(3)

    async def given_up(number: int) -> None:
        with anyio.move_on_after(draw.choice([0.0002, 0.001, 0.002, 0.005, 0.02])):
            if number % 2:
                await store.put([a_region(f"r{number % 20}")])
            else:
                await store.snapshot()

    for _ in range(15):
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(given_up, number)
    pool = store._sessions.writer.pool
    assert isinstance(pool, QueuePool)
    with anyio.fail_after(60.0):
        while pool.checkedout():  # noqa: ASYNC110 - the pool tells nobody
            await anyio.sleep(0.01)

    await store.put([a_region("after")])


async def test_a_locked_file_refuses_writes_in_time_and_serves_reads(sqlite_url: str, opened: Open) -> None:
    store = await opened(sqlite_url, timeouts=SHORT)
    await store.put([a_region()])
    with closing(sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        error, seconds = await refused(lambda: store.put([a_region("eu-west-2")]))

        assert list((await store.snapshot()).regions) == ["eu-west-1"]
        other.execute("ROLLBACK")
    assert "locked by another process: a second `fairway serve`" in str(error)
    assert seconds < IN_TIME
    assert [region.revision for region in await store.put([a_region("eu-west-2")])] == [2]


async def test_a_read_only_file_serves_reads_and_says_what_to_do(sqlite_url: str, opened: Open) -> None:
    before = await opened(sqlite_url)
    await before.put([a_region()])
    read_only = f"sqlite:///file:{make_url(sqlite_url).database}?mode=ro&uri=true"
    store = await opened(read_only)

    with pytest.raises(StoreReadOnly, match=r"is read-only .*make the file and its directory writable"):
        await store.put([a_region("eu-west-2")])
    with pytest.raises(StoreReadOnly):
        await opened(read_only, owner="a-new-owner")

    assert list((await store.snapshot()).regions) == ["eu-west-1"]


async def test_a_full_disk_refuses_the_whole_write(sqlite_url: str, opened: Open) -> None:
    store = await opened(sqlite_url)

    def no_more_than(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 60")

    await store.put([a_region()])
    event.listen(store._sessions.writer.sync_engine, "connect", no_more_than)
    await store._sessions.writer.dispose()

    with pytest.raises(StoreReadOnly, match="the disk or its quota is full"):
        await store.put([a_node(f"eu-west-1/gpu-{at}") for at in range(500)])

    assert ((await store.snapshot()).revision, len(await store.changes(0))) == (1, 1)
    assert [model.revision for model in await store.put([a_model()])] == [2]


async def test_a_file_that_is_no_database_is_called_damaged(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "fairway.db").write_bytes(b"no database, whatever its name says" * 100)

    with pytest.raises(StoreUnavailable, match="damaged or no SQLite database"):
        await opened(f"sqlite:///{tmp_path / 'fairway.db'}")


async def test_a_database_that_is_away_when_the_program_starts_is_named_without_its_password(opened: Open) -> None:
    with pytest.raises(StoreUnavailable) as error:
        await opened("postgresql://fairway:secret@127.0.0.1:1/fairway")

    assert "127.0.0.1:1/fairway does not answer" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "starts with mysql://; write sqlite:///FILE or postgresql://"),
        ("sqlite://", "names no file: write sqlite:///FILE"),
        ("sqlite:///:memory:", "names no file: write sqlite:///FILE"),
        ("postgresql://user:se cret@host:port/db", "cannot be read; write sqlite:///FILE or postgresql://"),
        ("fairway.db", "cannot be read; write sqlite:///FILE or postgresql://"),
    ],
)
async def test_a_url_that_cannot_be_meant_is_refused(opened: Open, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        await opened(url)

    assert "se cret" not in str(error.value)


class Relay:
    """A line to PostgreSQL that can be cut when a COMMIT passes, before or after the server has it."""

    def __init__(self, server_port: int, *, deliver: bool) -> None:
        self.port = 0
        self.cuts = 0
        self.cut_next_commit = False
        self.refuse_after_cut = False
        self._server_port = server_port
        self._deliver = deliver

    async def serve(self, client: SocketStream) -> None:
        async with client:
            if self.cuts and self.refuse_after_cut:
                return
            async with await anyio.connect_tcp("127.0.0.1", self._server_port) as server:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._answers, server, client)
                    commit = await self._requests(client, server)
                    tasks.cancel_scope.cancel()
                if commit and self._deliver:
                    await server.send(commit)
                    # The server's answer, which the client never gets.
                    await server.receive()

    async def _requests(self, client: SocketStream, server: SocketStream) -> bytes:
        """Passes on what the client sends, until it ends or sends the COMMIT to cut at, which is answered."""
        async for data in client:
            if self.cut_next_commit and b"COMMIT\0" in data:
                self.cut_next_commit = False
                self.cuts += 1
                return data
            await server.send(data)
        return b""

    async def _answers(self, server: SocketStream, client: SocketStream) -> None:
        # A client that goes away in the middle of an answer ends the line, as it should.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in server:
                await client.send(data)


@asynccontextmanager
async def relay(server_port: int, *, deliver: bool) -> AsyncIterator[Relay]:
    line = Relay(server_port, deliver=deliver)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as tasks:
        line.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, line.serve)
        yield line
        tasks.cancel_scope.cancel()
