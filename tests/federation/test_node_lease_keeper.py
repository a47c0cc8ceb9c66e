"""Who ends the leases of nodes, and when: in virtual time, over a store in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.memory import MemoryStore
from catalog.types import ResourceKind
from federation import logs
from federation.feed import CatalogFeed
from federation.leases import KEEP_EXPIRED_SECONDS, LISTEN_SECONDS, TICK_SECONDS, LeaseKeeper
from tests.builders import a_model, a_node, a_region

pytestmark = pytest.mark.anyio

NODE = "eu/n1"
LEASE_SECONDS = 30.0


class Keeping:
    """A lease keeper over a store with one node, and its clock."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.store = MemoryStore("home", clock=lambda: 1.7e9 + self.now)
        self.feed = CatalogFeed(self.store, log=logs.get(), monotonic=lambda: self.now)
        self.keeper = LeaseKeeper(
            self.store, self.feed, log=logs.get(), monotonic=lambda: self.now, wall=lambda: 1.7e9 + self.now
        )

    async def begin(self) -> Keeping:
        for resource in (a_region("eu"), a_model(), a_node(NODE, lease_seconds=LEASE_SECONDS)):
            await self.store.put([resource])
        await self.feed.start()
        await self.keeper.tick()
        return self

    async def passes(self, seconds: float) -> None:
        """Time in which it runs."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            await self.keeper.tick()

    async def is_expired(self) -> bool:
        (node,) = (await self.store.snapshot()).nodes.values()
        return node.expired


async def test_a_lease_ends_when_nothing_is_heard():
    keeping = await Keeping().begin()

    await keeping.passes(LEASE_SECONDS - 1.0)
    assert not await keeping.is_expired()
    await keeping.passes(2.0)

    assert await keeping.is_expired()


async def test_a_process_that_stood_still_first_listens_to_what_was_said_meanwhile():
    keeping = await Keeping().begin()
    keeping.keeper.beat(NODE, keeping.now)

    # Stopped and continued; the node's heartbeats wait in a socket.
    keeping.now += 2.0 * LEASE_SECONDS
    await keeping.passes(TICK_SECONDS)

    assert not await keeping.is_expired()
    assert keeping.keeper.ended() == frozenset()


async def test_a_lease_that_ends_just_after_the_process_stood_still_begins_anew_too():
    keeping = await Keeping().begin()
    keeping.keeper.beat(NODE, keeping.now)

    keeping.now += LEASE_SECONDS - LISTEN_SECONDS / 2.0
    await keeping.passes(LISTEN_SECONDS)
    assert not await keeping.is_expired()

    # And it ends like any other if nothing was said.
    await keeping.passes(LEASE_SECONDS)
    assert await keeping.is_expired()


async def test_a_clock_that_is_wrong_by_an_hour_forgets_no_record_before_its_time():
    keeping = await Keeping().begin()
    # Ended by a replica whose clock is an hour behind ours, or two.
    for behind in (3_600.0, 7_200.0):
        (node,) = (await keeping.store.snapshot()).nodes.values()
        ended = replace(node, expired=True, expire_time=1.7e9 + keeping.now - behind)
        await keeping.store.edit(ResourceKind.NODE, NODE, lambda _, ended=ended: ended)
        await keeping.feed.reached((await keeping.store.snapshot()).revision)

        await keeping.passes(60.0)

        assert await keeping.is_expired()

    await keeping.passes(KEEP_EXPIRED_SECONDS)
    assert not (await keeping.store.snapshot()).nodes
