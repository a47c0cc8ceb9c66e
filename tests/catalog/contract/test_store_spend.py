"""The contract of every store: what tenants spent."""

from __future__ import annotations

import pytest

from catalog.errors import StoreUnavailable
from catalog.store import CatalogStore
from catalog.types import Spend
from tests.catalog.builders import Clock, a_region

pytestmark = pytest.mark.anyio

DAY, MONTH = "2023-11-14", "2023-11"


async def test_writers_add_up_and_one_may_be_left_out(store: CatalogStore) -> None:
    await store.put_spend("r1", [Spend(DAY, "acme", 1.5), Spend(MONTH, "acme", 20.0), Spend(DAY, "globex", 2.0)])
    await store.put_spend("r2", [Spend(DAY, "acme", 0.25)])

    assert await store.spend([DAY, MONTH]) == (
        Spend(MONTH, "acme", 20.0),
        Spend(DAY, "acme", 1.75),
        Spend(DAY, "globex", 2.0),
    )
    assert await store.spend([DAY], without="r1") == (Spend(DAY, "acme", 0.25),)
    assert await store.spend(["2023-11-15"]) == ()
    assert await store.spend([]) == ()


async def test_a_sum_stands_in_place_of_the_one_before(store: CatalogStore) -> None:
    await store.put_spend("r1", [Spend(DAY, "acme", 1.0), Spend(DAY, "", 7.0)])

    for _ in range(2):
        await store.put_spend("r1", [Spend(DAY, "acme", 0.5), Spend(DAY, "acme", 0.75)])
    await store.put_spend("r1", [])

    assert await store.spend([DAY]) == (Spend(DAY, "", 7.0), Spend(DAY, "acme", 0.75))


async def test_spend_is_no_change_of_the_catalog(store: CatalogStore) -> None:
    await store.put([a_region()])

    await store.put_spend("r1", [Spend(DAY, "acme", 1.0)])

    assert [change.revision for change in await store.changes(0)] == [1]
    assert (await store.snapshot()).revision == 1


async def test_thirteen_months_are_kept(store: CatalogStore, clock: Clock) -> None:
    await store.put_spend("r1", [Spend(DAY, "acme", 1.0), Spend(MONTH, "acme", 1.0)])

    clock.now += 390 * 86_400
    await store.compact(keep=10)
    kept = await store.spend([DAY, MONTH])
    clock.now += 60 * 86_400
    await store.compact(keep=10)

    assert len(kept) == 2
    assert await store.spend([DAY, MONTH]) == ()


async def test_spend_that_cannot_be_stored_is_refused_as_a_whole(store: CatalogStore) -> None:
    with pytest.raises(ValueError, match="tenant_id holds a NUL character"):
        await store.put_spend("r1", [Spend(DAY, "acme", 1.0), Spend(DAY, "a\0b", 1.0)])

    assert await store.spend([DAY]) == ()


async def test_a_closed_store_takes_and_tells_nothing(store: CatalogStore) -> None:
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.put_spend("r1", [Spend(DAY, "acme", 1.0)])
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.spend([DAY])
