"""The contract of every store: which replicas serve its catalog."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.changes import REPLICA_SECONDS
from catalog.errors import StoreUnavailable
from catalog.store import CatalogStore
from catalog.types import Replica
from tests.catalog.builders import Clock

pytestmark = pytest.mark.anyio

ONE = Replica("eu.1", "10.0.0.1:50051", "life-1")
TWO = Replica("eu.2", "10.0.0.2:50051", "life-2")


def ids(replicas: tuple[Replica, ...]) -> list[str]:
    return [each.replica_id for each in replicas]


async def test_replicas_find_each_other_in_the_order_of_their_ids(store: CatalogStore, clock: Clock) -> None:
    assert await store.beat(TWO) == (replace(TWO, beat_time=clock.now),)

    found = await store.beat(ONE)

    assert found == (replace(ONE, beat_time=clock.now), replace(TWO, beat_time=clock.now))


async def test_a_beat_stands_in_place_of_the_one_before(store: CatalogStore, clock: Clock) -> None:
    await store.beat(ONE)
    clock.now += 1

    again = await store.beat(replace(ONE, address="[::1]:7", incarnation="life-9", beats=2))

    assert again == (Replica("eu.1", "[::1]:7", "life-9", 2, clock.now),)


async def test_who_does_not_beat_is_dropped(store: CatalogStore, clock: Clock) -> None:
    await store.beat(ONE)
    clock.now += REPLICA_SECONDS - 1
    assert ids(await store.beat(TWO)) == ["eu.1", "eu.2"]

    clock.now += 1

    assert ids(await store.beat(TWO)) == ["eu.2"]


async def test_who_leaves_is_gone_and_only_in_that_life(store: CatalogStore) -> None:
    await store.beat(ONE)
    await store.beat(TWO)

    await store.leave(replace(ONE, incarnation="another"))
    assert ids(await store.beat(TWO)) == ["eu.1", "eu.2"]
    for _ in range(2):
        await store.leave(ONE)

    assert ids(await store.beat(TWO)) == ["eu.2"]


async def test_beats_are_no_changes_of_the_catalog(store: CatalogStore) -> None:
    before = await store.snapshot()

    await store.beat(ONE)
    await store.leave(ONE)

    assert (await store.snapshot()).revision == before.revision
    assert await store.changes(before.revision) == ()


async def test_what_cannot_be_stored_is_refused_and_a_closed_store_says_so(store: CatalogStore) -> None:
    with pytest.raises(ValueError, match="replica_id holds a NUL"):
        await store.beat(replace(ONE, replica_id="a\0b"))

    await store.close()

    with pytest.raises(StoreUnavailable):
        await store.beat(ONE)
    with pytest.raises(StoreUnavailable):
        await store.leave(ONE)
