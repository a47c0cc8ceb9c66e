"""Several processes, and several owners, on one database."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import anyio
import anyio.lowlevel
import anyio.to_thread
import psycopg
import pytest

from catalog.errors import NotFound, NotOwner, StoreUnavailable
from catalog.snapshot import EMPTY_SNAPSHOT, apply
from catalog.types import Change, ResourceKind
from tests.catalog.builders import a_model, a_node, a_policy, a_region, contents
from tests.catalog.conftest import PATIENT, Open
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

LONG = 60.0


async def test_a_reopened_store_goes_on_where_it_was(sql_url: str, opened: Open) -> None:
    first = await opened(sql_url)
    await first.put([a_region()], request_id="r1")
    await first.close()

    second = await opened(sql_url)

    assert second.incarnation == first.incarnation
    assert [region.revision for region in await second.put([a_region()], request_id="r1")] == [1]
    assert [region.revision for region in await second.put([a_region("eu-west-2")])] == [2]


async def test_replicas_that_open_a_new_catalog_together_agree_on_its_incarnation(
    postgres: Postgres, opened: Open
) -> None:
    url = postgres.database()
    incarnations: list[str] = []

    async def open_one() -> None:
        incarnations.append((await opened(url)).incarnation)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(open_one)

    assert len(incarnations) == 5
    assert len(set(incarnations)) == 1


async def test_a_reader_misses_nothing_while_two_replicas_write(sql_url: str, opened: Open) -> None:
    one, other, reader = await opened(sql_url), await opened(sql_url), await opened(sql_url)
    await one.put([a_region()])
    seen: list[Change] = []

    async def write(store: object, of: str) -> None:
        assert store in (one, other)
        writer = one if store is one else other
        for at in range(25):
            # Puts of several sizes, so that the transactions take different times.
            await writer.put([a_node(f"eu-west-1/{of}-{at}-{part}", "m") for part in range(1 + at % 4)])

    async def read() -> None:
        while len(seen) < 124:
            after = seen[-1].revision if seen else 0
            await reader.wait(after, LONG)
            seen.extend(await reader.changes(after, limit=7))

    with anyio.fail_after(LONG * 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write, one, "a")
            tasks.start_soon(write, other, "b")

    # The region, the model, and two times 61 nodes.
    assert [change.revision for change in seen] == list(range(1, 125))
    assert contents(apply(EMPTY_SNAPSHOT, seen)) == contents(await other.snapshot())


async def test_edits_of_two_replicas_do_not_overwrite_each_other(sql_url: str, opened: Open) -> None:
    one, other = await opened(sql_url), await opened(sql_url)
    await one.put([a_model("m", context_window_tokens=0)])

    async def count(store: object) -> None:
        for _ in range(20):
            await (one if store is one else other).edit(
                ResourceKind.MODEL, "m", lambda of: replace(of, context_window_tokens=of.context_window_tokens + 1)
            )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count, one)
        tasks.start_soon(count, other)

    assert (await one.get(ResourceKind.MODEL, "m")).context_window_tokens == 40


async def test_a_snapshot_is_of_one_revision_while_others_write(sql_url: str, opened: Open) -> None:
    one, other = await opened(sql_url), await opened(sql_url)
    await one.put([a_region()])
    done = anyio.Event()

    async def write() -> None:
        for at in range(30):
            await one.put([a_node(f"eu-west-1/gpu-{at}", f"m{at}")])
        done.set()

    async def check() -> None:
        while not done.is_set():
            snapshot = await other.snapshot()
            changes = [change for change in await other.changes(0) if change.revision <= snapshot.revision]
            assert contents(snapshot) == contents(apply(EMPTY_SNAPSHOT, changes))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        tasks.start_soon(check)


async def test_a_notification_wakes_a_replica_long_before_its_next_poll(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    writer, reader = await opened(url), await opened(url, timeouts=replace(PATIENT, poll=LONG * 10))
    woken = anyio.Event()

    async def watch() -> None:
        await reader.wait(0, LONG * 10)
        woken.set()

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await listening(postgres, 1)
            await writer.put([a_region()])

    assert woken.is_set()


async def test_polling_finds_changes_where_notifications_are_lost(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    writer, reader = await opened(url), await opened(url)
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.wait, 0, LONG)
            await listening(postgres, 1)
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await listening(postgres, 0)

            await writer.put([a_region()])
        await reader.wait(0, LONG * 2)


async def test_a_connection_that_listens_is_made_anew_after_it_was_killed(
    postgres: Postgres, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.sql.news.LISTEN_AGAIN_SECONDS", 0.1)
    url = postgres.database()
    writer, reader = await opened(url), await opened(url)
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.wait, 0, LONG * 2)
            await listening(postgres, 1)
            (killed,) = postgres.execute(LISTENERS)
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            while postgres.execute(LISTENERS) in ([], [killed]):  # noqa: ASYNC110
                await anyio.sleep(0.01)

            await writer.put([a_region()])


async def test_a_later_write_is_not_seen_before_an_earlier_one_that_has_not_ended(
    postgres: Postgres, opened: Open
) -> None:
    url = postgres.database()
    one, other, reader = await opened(url), await opened(url), await opened(url)
    await one.put([a_region()])
    ended: list[str] = []

    async def first() -> None:
        await one.put([a_node("eu-west-1/first", "m")])
        ended.append("first")

    async def second() -> None:
        # Nothing of it stands in the way of the first.
        await other.put([a_region("eu-west-2")])
        ended.append("second")

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks, await psycopg.AsyncConnection.connect(url) as between:
            # The first has its revision, and waits for this to end before it can store its node.
            await between.execute("INSERT INTO nodes VALUES ('eu-west-1/first', 'eu-west-1', 'first', '', 0, '', '')")
            tasks.start_soon(first)
            await waiting(postgres, url, 1)
            tasks.start_soon(second)
            for _ in range(20):
                assert [change.revision for change in await reader.changes(0)] == [1]
                await anyio.sleep(0.01)
            await waiting(postgres, url, 2)
            assert not ended
            await between.rollback()

        found = await reader.changes(1)

    assert [change.revision for change in found] == [2, 3, 4]
    assert [change.name for change in found] == ["m", "eu-west-1/first", "eu-west-2"]
    assert ended == ["first", "second"]


async def test_a_database_without_notifications_is_polled(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    without(postgres, url, "pg_notify(text, text) RETURNS void")
    writer, reader = await opened(url), await opened(url)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.wait, 0, LONG * 2)
            await anyio.lowlevel.checkpoint()
            await writer.put([a_region()])
        await reader.wait(0, LONG * 2)


async def test_owners_of_one_database_do_not_write_each_others_records(sql_url: str, opened: Open) -> None:
    ours, theirs = await opened(sql_url, owner="eu-west-1"), await opened(sql_url, owner="us-east-1")
    await theirs.put([a_region("us-east-1")])
    (node,) = await theirs.put([a_node("us-east-1/gpu-1")])

    for put in ([a_region("us-east-1")], [a_node("us-east-1/gpu-1")], [a_node("us-east-1/gpu-2")]):
        with pytest.raises(NotOwner) as refused:
            await ours.put(put)
        assert refused.value.owner == "us-east-1"
    with pytest.raises(NotOwner):
        await ours.edit(ResourceKind.NODE, node.name, lambda of: replace(of, draining=True))
    with pytest.raises(NotOwner):
        await ours.delete(ResourceKind.NODE, node.name)
    with pytest.raises(NotFound):
        await ours.get(ResourceKind.NODE, node.name)
    assert (await ours.snapshot()).revision == 0


async def test_each_owner_of_a_database_has_its_own_log_models_and_policies(sql_url: str, opened: Open) -> None:
    ours, theirs = await opened(sql_url, owner="eu-west-1"), await opened(sql_url, owner="us-east-1")

    await theirs.put([a_model("m", family="theirs"), a_model("n")])
    await ours.put([a_model("m", family="ours")])
    await ours.put([a_policy()], request_id="r1")
    await theirs.put([a_policy(document="{}")], request_id="r1")
    await ours.delete(ResourceKind.MODEL, "m")

    assert [change.revision for change in await ours.changes(0)] == [1, 2, 3]
    assert [change.revision for change in await theirs.changes(0)] == [1, 2, 3]
    assert (await theirs.snapshot()).models["m"].family == "theirs"
    assert [policy.document for policy in await theirs.policy_history("balanced")] == ["{}"]


async def test_owners_that_race_for_one_region_get_one_owner(postgres: Postgres, opened: Open) -> None:
    url = postgres.database()
    stores = [await opened(url, owner=f"owner-{at}") for at in range(4)]
    refused: list[str] = []

    async def claim(at: int, region_id: str) -> None:
        try:
            await stores[at].put([a_region(region_id)])
        except NotOwner as error:
            refused.append(error.name)

    for round_ in range(5):
        async with anyio.create_task_group() as tasks:
            for at in range(4):
                tasks.start_soon(claim, at, f"region-{round_}")

    snapshots = [await store.snapshot() for store in stores]
    assert sorted(name for snapshot in snapshots for name in snapshot.regions) == [f"region-{at}" for at in range(5)]
    assert len(refused) == 15


async def test_a_catalog_that_was_replaced_under_a_process_is_not_written(sql_url: str, opened: Open) -> None:
    store = await opened(sql_url)
    await store.put([a_region()])

    other = await opened(sql_url)
    async with other._sessions.writer.begin() as connection:
        await connection.exec_driver_sql("UPDATE owners SET incarnation = 'restored', revision = 0")

    with pytest.raises(StoreUnavailable, match="was replaced while this process ran; restart it"):
        await store.put([a_region("eu-west-2")])


KILLED = """
import asyncio, sys
from catalog.sql.store import open_store
from catalog.types import Region

async def main():
    store = await open_store(sys.argv[1], owner="eu-west-1", clock=lambda: 0.0)
    at = 0
    while True:
        await store.put([Region(f"region-{at}"), Region(f"twin-{at}")])
        print(at, flush=True)
        at += 1

asyncio.run(main())
"""


def write_until_killed(url: str) -> list[int]:
    """What a process that was killed between or within its writes had been told was stored."""
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
        return acknowledged + [int(line) for line in writer.stdout.read().split()]


async def test_what_was_acknowledged_survives_a_kill(sql_url: str, opened: Open) -> None:
    acknowledged = await anyio.to_thread.run_sync(write_until_killed, sql_url)

    store = await opened(sql_url)
    snapshot = await store.snapshot()

    assert {f"{of}-{at}" for at in acknowledged for of in ("region", "twin")} <= set(snapshot.regions)
    # Whole transactions only, and no revision lost.
    assert len(snapshot.regions) == snapshot.revision == 2 * len([name for name in snapshot.regions if "twin" in name])
    await store.put([a_region("after")])


LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"


async def waiting(postgres: Postgres, url: str, count: int) -> None:
    """Returns when so many sessions of a database wait for another one."""
    query = (
        f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{url.rpartition('/')[2]}'"
    )
    while postgres.execute(query) != [(count,)]:  # noqa: ASYNC110
        await anyio.sleep(0.01)


async def listening(postgres: Postgres, count: int) -> None:
    """Returns when so many sessions listen."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    while postgres.execute(query) != [(count,)]:  # noqa: ASYNC110
        # Another process's state has no event to wait for; the caller bounds this.
        await anyio.sleep(0.01)


def without(postgres: Postgres, url: str, function: str) -> None:
    """Makes a function of the database fail as it does where it does not exist."""
    database = url.rpartition("/")[2]
    postgres.execute("CREATE SCHEMA lacking", database=database)
    postgres.execute(
        f"CREATE FUNCTION lacking.{function} LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no such function' USING ERRCODE = '42883'; END $$",
        database=database,
    )
    postgres.execute(f"ALTER DATABASE {database} SET search_path = lacking, pg_catalog, public")
