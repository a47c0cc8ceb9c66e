"""Keeps the leases of nodes: beats renew them in memory, and only a lease's end is written.

What is to be written may have to wait for the store; routing does not: until it is written, tables see it laid over
the snapshot.

Replicas of a region share renewals, and only the one that last heard a node ends its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from catalog.errors import EtagMismatch, NotFound, StoreUnavailable
from catalog.leases import Leases
from catalog.rolls import changed, roll
from catalog.store import CatalogStore
from catalog.types import Node, Resource, ResourceKind, Snapshot
from federation.feed import CatalogFeed
from federation.logs import Log

# Shorter would look more often for nothing; longer keeps a dead node in routing after its lease ended.
TICK_SECONDS = 0.25
# Whoever stood still for longer, since the machine or somebody stopped it, could hear nobody: what nodes and other
# replicas said meanwhile waits in its sockets, and is read within the time after it.
STOOD_STILL_SECONDS = 1.0
LISTEN_SECONDS = 1.0
# How long the record of an expired node waits for its heartbeat; a process that starts waits anew.
KEEP_EXPIRED_SECONDS = 3_600.0
# A sweep looks at every expired node; it forgets records an hour old, so a quarter of a minute does not matter.
SWEEP_SECONDS = 15.0
ACTOR = "lease"


class LeaseKeeper:
    """`beat` is called for every heartbeat; `tick` ends leases and writes what has to be written."""

    def __init__(
        self,
        store: CatalogStore,
        feed: CatalogFeed,
        *,
        log: Log,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        elsewhere: Callable[[str, str], bool] = lambda node, holder: False,
    ) -> None:
        """`elsewhere` tells whether another replica ends a node's lease, given who last heard it ("": nobody known)."""
        self._store = store
        self._feed = feed
        self._log = log
        self._monotonic = monotonic
        self._wall = wall
        self._sleep = sleep
        self._elsewhere = elsewhere
        # Which other replica last heard a node; those that this one heard last are not in it.
        self._holders: dict[str, str] = {}
        # Those that this one heard last.
        self._held: set[str] = set()
        self._leases = Leases()
        # The feed's nodes when `sync` saw them last; of those of ours that are expired, when they did by their record,
        # and since when we know.
        self._synced: Mapping[str, Node] = {}
        self._expired: dict[str, tuple[float, float]] = {}
        self._swept_at = monotonic()
        # When the last tick was over, and until when nobody's silence counts.
        self._rested_at = monotonic()
        self._listening_until = float("-inf")
        # Nodes that are expired (True) or back (False), and whose records do not say so yet.
        self._pending: dict[str, bool] = {}
        self._laid: tuple[Snapshot, int, Snapshot] | None = None
        # Counts changes of what `ended` and `snapshot` add to the feed's.
        self.version = 0
        self.renewals_total = 0
        self.expirations_total = 0

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._leases)

    def sync(self) -> None:
        """Follows the feed: new nodes get a full lease, and what the store tells by now need not be laid over it."""
        snapshot = self._feed.snapshot
        if snapshot.nodes is self._synced:
            return
        before, self._synced = self._synced, snapshot.nodes
        now = self._monotonic()
        for name in sorted(changed(before, snapshot.nodes)):
            node = snapshot.nodes.get(name)
            if node is None:
                self._held.discard(name)
                self._holders.pop(name, None)
            if node is None or node.owner != self._store.owner:
                self._leases.forget(name)
                self._expired.pop(name, None)
                continue
            self._leases.follow(name, node, now)
            if not node.expired:
                self._expired.pop(name, None)
            elif self._expired.get(name, (0.0, now))[0] != node.expire_time:
                self._expired[name] = node.expire_time, now
        for name, expired in list(self._pending.items()):
            node = snapshot.nodes.get(name)
            if node is None or node.expired == expired:
                self._settle(name)
            if node is not None and expired is False and node.expired:
                # `sync` took its lease with the record that still tells of the end.
                self._leases.grant(name, node.lease_seconds, now)

    def beat(self, name: str, now: float, *, holder: str = "") -> Node | None:
        """Renews a node's lease; the node, or None where it is not registered here. `holder` is who heard it: we, or
        another replica."""
        node = self._feed.snapshot.nodes.get(name)
        if node is None or node.owner != self._store.owner:
            return None
        self._hold(name, holder)
        self.renewals_total += not holder
        if not self._leases.renew(name, now):
            self._leases.grant(name, node.lease_seconds, now)
        if self._pending.get(name, node.expired):
            if node.expired:
                self._pend(name, False)
            else:
                self._settle(name)
        return node

    def _hold(self, name: str, holder: str) -> None:
        if holder:
            self._holders[name] = holder
            self._held.discard(name)
        elif name not in self._held:
            self._holders.pop(name, None)
            self._held.add(name)

    def release(self, holder: str) -> None:
        """Another replica is no more: the nodes that it heard get a full lease, to be heard elsewhere."""
        now = self._monotonic()
        for name in [name for name, known in self._holders.items() if known == holder]:
            del self._holders[name]
            self._leases.renew(name, now)

    def ended(self) -> frozenset[str]:
        """Nodes whose lease ended and whose records do not say so yet."""
        return frozenset(name for name, expired in self._pending.items() if expired)

    def snapshot(self) -> Snapshot:
        """The feed's snapshot, with the nodes that came back and whose records do not say so yet."""
        snapshot = self._feed.snapshot
        back = [name for name, expired in self._pending.items() if not expired and name in snapshot.nodes]
        if not back:
            return snapshot
        if self._laid is None or self._laid[0] is not snapshot or self._laid[1] != self.version:
            alive = {name: replace(snapshot.nodes[name], expired=False) for name in back}
            self._laid = (snapshot, self.version, replace(snapshot, nodes=roll(snapshot.nodes).after(alive)))
        return self._laid[2]

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            await self.tick()
            await self._sleep(TICK_SECONDS)

    async def tick(self) -> None:
        """Ends the leases that are over, and writes what is not written yet."""
        self.sync()
        now = self._monotonic()
        if now - self._rested_at > STOOD_STILL_SECONDS:
            self._log.warning("this process stood still; leases that ended meanwhile begin anew")
            self._listening_until = now + LISTEN_SECONDS
        for name in self._leases.expired(now):
            node = self._feed.snapshot.nodes.get(name)
            if node is not None and (now < self._listening_until or self._ends_elsewhere(name)):
                # Whoever has its stream tells when it ends; should that replica end first, we look again.
                self._leases.grant(name, node.lease_seconds, now)
                continue
            self.expirations_total += 1
            self._log.warning("lease ended; the node leaves routing until its next heartbeat", node=name)
            self._pend(name, True)
        try:
            for name, expired in list(self._pending.items()):
                await self._write(name, expired)
            await self._forget_long_expired()
        except StoreUnavailable:
            # The feed tells of the outage; what is pending is written when it is over.
            return
        finally:
            self._rested_at = self._monotonic()

    def _ends_elsewhere(self, name: str) -> bool:
        return name not in self._held and self._elsewhere(name, self._holders.get(name, ""))

    async def _write(self, name: str, expired: bool) -> None:
        wall = self._wall()

        def change(resource: Resource) -> Resource:
            assert isinstance(resource, Node)
            return replace(resource, expired=expired, expire_time=wall if expired else 0.0)

        try:
            stored = await self._store.edit(ResourceKind.NODE, name, change, actor=ACTOR)
        except NotFound:
            self._settle(name)
            return
        await self._feed.reached(stored.revision)
        self.sync()

    async def _forget_long_expired(self) -> None:
        now = self._monotonic()
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        nodes = self._feed.snapshot.nodes
        # By the time that passed here: another replica wrote the record by its own clock, which may be wrong.
        gone = [
            (name, node.etag)
            for name, (_, since) in sorted(self._expired.items())
            if now - since >= KEEP_EXPIRED_SECONDS
            and (node := nodes.get(name)) is not None
            and node.expired
            and name not in self._pending
        ]
        for name, etag in gone:
            try:
                revision = await self._store.delete(ResourceKind.NODE, name, etag=etag, actor=ACTOR)
            except (NotFound, EtagMismatch):
                continue
            self._log.info("expired node forgotten", node=name)
            await self._feed.reached(revision)

    def _pend(self, name: str, expired: bool) -> None:
        self._pending[name] = expired
        self.version += 1

    def _settle(self, name: str) -> None:
        if self._pending.pop(name, None) is not None:
            self.version += 1
