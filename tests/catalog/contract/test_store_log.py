"""The contract of every store: snapshot, change log, waiting, compaction, history and the audit."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from catalog.changes import AuditEntry
from catalog.errors import NotFound, RevisionCompacted, StoreUnavailable
from catalog.memory import MemoryStore
from catalog.snapshot import EMPTY_SNAPSHOT, apply
from catalog.sql.store import SqlStore
from catalog.store import CatalogStore
from catalog.types import Change, ResourceKind
from tests.catalog.builders import Clock, a_model, a_node, a_policy, a_region, contents

pytestmark = pytest.mark.anyio

# Longer than any wake-up takes on a busy machine.
LONG = 60.0


async def with_some_history(store: CatalogStore) -> None:
    """Seven changes: region, model, two nodes, an edit, a delete, a policy."""
    await store.put([a_region()])
    await store.put([a_node("eu-west-1/gpu-1"), a_node("eu-west-1/gpu-2")])
    await store.edit(ResourceKind.NODE, "eu-west-1/gpu-1", lambda node: replace(node, draining=True))
    await store.delete(ResourceKind.NODE, "eu-west-1/gpu-2")
    await store.put([a_policy()])


async def test_a_new_store_is_empty(store: CatalogStore) -> None:
    assert contents(await store.snapshot()) == contents(EMPTY_SNAPSHOT)
    assert await store.changes(0) == ()
    assert store.incarnation


async def test_the_changes_make_the_snapshot(store: CatalogStore) -> None:
    await with_some_history(store)

    changes = await store.changes(0)

    assert [change.revision for change in changes] == [1, 2, 3, 4, 5, 6, 7]
    assert changes[5] == Change(6, ResourceKind.NODE, "eu-west-1/gpu-2", None)
    assert contents(apply(EMPTY_SNAPSHOT, changes)) == contents(await store.snapshot())


async def test_a_reader_resumes_where_it_was(store: CatalogStore) -> None:
    await with_some_history(store)

    pages = [await store.changes(after, limit=3) for after in (0, 3, 6, 7)]

    assert [[change.revision for change in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7], []]


async def test_pages_that_cannot_be_meant_are_refused(store: CatalogStore) -> None:
    with pytest.raises(ValueError, match="after_revision is -1; it must be 0"):
        await store.changes(-1)
    with pytest.raises(ValueError, match="limit is 0; it must be 1"):
        await store.changes(0, limit=0)
    with pytest.raises(ValueError, match="keep is -1; it must be 0"):
        await store.compact(-1)


async def test_a_compacted_revision_is_told_apart_from_no_news(store: CatalogStore) -> None:
    await with_some_history(store)
    before = await store.snapshot()

    oldest = await store.compact(keep=2)

    assert oldest == 6
    assert [change.revision for change in await store.changes(5)] == [6, 7]
    with pytest.raises(RevisionCompacted) as compacted:
        await store.changes(4)
    assert (compacted.value.revision, compacted.value.oldest) == (4, 6)
    assert contents(await store.snapshot()) == contents(before)


async def test_compaction_keeps_what_it_was_told_to_keep(store: CatalogStore) -> None:
    await with_some_history(store)

    assert await store.compact(keep=100) == 1
    assert await store.compact(keep=3) == 5
    assert await store.compact(keep=5) == 5
    assert await store.compact(keep=0) == 8
    await store.put([a_region("eu-west-2")])
    assert [change.revision for change in await store.changes(7)] == [8]


async def test_compaction_forgets_request_ids_over_a_day_old(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region("old")], request_id="old")
    clock.now += 50_000
    await store.put([a_region("new")], request_id="new")
    clock.now += 40_000

    await store.compact(keep=100)

    assert [region.revision for region in await store.put([a_region("new")], request_id="new")] == [2]
    assert await store.put([a_region("other")], request_id="old")


async def test_waiting_ends_at_once_where_there_are_changes(store: CatalogStore) -> None:
    await store.put([a_region()])

    with anyio.fail_after(LONG):
        await store.wait(0, LONG * 2)


async def test_waiting_ends_with_the_next_write(store: CatalogStore) -> None:
    await store.put([a_region()])
    woken: list[int] = []

    async def watch() -> None:
        await store.wait(1, LONG * 2)
        woken.extend(change.revision for change in await store.changes(1))

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.lowlevel.checkpoint()
            await store.put([a_model()])

    assert woken == [2]


async def test_waiting_ends_with_its_timeout(store: CatalogStore) -> None:
    started = time.monotonic()

    await store.wait(0, 0.05)

    assert time.monotonic() - started >= 0.045


async def test_a_policys_history_is_kept_newest_first(store: CatalogStore, clock: Clock) -> None:
    (first,) = await store.put([a_policy(document='{"v":1}')])
    clock.now += 60
    (second,) = await store.put([a_policy(document='{"v":2}', etag=first.etag)])
    await store.put([a_policy("other")])
    await store.delete(ResourceKind.POLICY, "balanced")
    (third,) = await store.put([a_policy(document='{"v":3}')])

    await store.compact(keep=0)

    assert await store.policy_history("balanced") == (third, second, first)
    assert (second.create_time, first.create_time) == (clock.now, clock.now - 60)
    assert await store.policy_history("never") == ()
    assert await store.policy_history("a\0b") == ()


async def test_every_write_is_audited(store: CatalogStore, clock: Clock) -> None:
    assert isinstance(store, MemoryStore | SqlStore)
    (first,) = await store.put([a_region()], actor="alice")
    (second,) = await store.put([a_region(provider="aws", etag=first.etag)], actor="bob")
    await store.put([a_region(provider="aws")], actor="carol")
    await store.delete(ResourceKind.REGION, "eu-west-1", actor="dave")

    audit = await store.audit()

    kind, name = ResourceKind.REGION, "eu-west-1"
    assert audit == (
        AuditEntry(1, clock.now, "alice", kind, name, None, first),
        AuditEntry(2, clock.now, "bob", kind, name, first, second),
        AuditEntry(3, clock.now, "dave", kind, name, second, None),
    )
    assert await store.audit(after_revision=1, limit=1) == audit[1:2]


async def test_concurrent_writers_lose_nothing(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_model("m", context_window_tokens=0)])

    async def register(at: int) -> None:
        await store.put([a_node(f"eu-west-1/gpu-{at}", "m")])

    async def count() -> None:
        await store.edit(
            ResourceKind.MODEL, "m", lambda of: replace(of, context_window_tokens=of.context_window_tokens + 1)
        )

    async with anyio.create_task_group() as tasks:
        for at in range(20):
            tasks.start_soon(register, at)
            tasks.start_soon(count)

    snapshot = await store.snapshot()
    assert len(snapshot.nodes) == 20
    assert snapshot.models["m"].context_window_tokens == 20
    assert [change.revision for change in await store.changes(0)] == list(range(1, 43))


async def test_a_cancelled_write_leaves_the_store_usable(store: CatalogStore) -> None:
    await store.put([a_region()])

    for at in range(5):
        with anyio.move_on_after(0.001 * at):
            await store.put([a_node(f"eu-west-1/gpu-{at}")])
    await store.put([a_node("eu-west-1/last")])

    changes = await store.changes(0)
    assert [change.revision for change in changes] == list(range(1, len(changes) + 1))
    assert contents(apply(EMPTY_SNAPSHOT, changes)) == contents(await store.snapshot())


async def test_a_closed_store_says_so(store: CatalogStore) -> None:
    await store.ping()

    await store.close()
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.put([a_region()])
    with anyio.fail_after(LONG):
        await store.wait(0, LONG * 2)


async def test_what_is_not_there_is_not_found(store: CatalogStore) -> None:
    for kind in ResourceKind:
        with pytest.raises(NotFound, match=f"{kind.value} 'x' does not exist"):
            await store.get(kind, "x")
