"""Carries what changed to those who decide by it: catalog and imports to the monitor, the catalog to the prober,
tables and policies to the router.

A table is built when the catalog, a lease or the health of somebody changed, at most every 100 ms, and at least every
second, so that decisions can tell how old it is and ages are laid over it anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from catalog.snapshot import EMPTY_SNAPSHOT
from catalog.types import PolicyRecord, Snapshot
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.leases import LeaseKeeper
from federation.logs import Log
from federation.peering.imports import Imports
from federation.peering.loads import FarLoads
from federation.routing.compiled import Compiled
from federation.routing.compiling import NOTHING, recompile
from federation.routing.router import Router
from federation.routing.table import Tables
from policies.document import compile_policy
from policies.errors import InvalidPolicy
from policies.health import DeploymentHealth
from policies.policy import Policy
from policies.registry import BUILT_IN, Registry

# Room that a crashed gateway holds, and late first tokens, are noticed this much later at most.
TICK_SECONDS = 0.1
MAX_TABLE_AGE_SECONDS = 1.0
# After a table plans and figures are renewed in slices of about a millisecond, those asked for last first, for so long
# at most: with hundreds of kinds of requests the others are made when they are asked for, and the next table is not
# late for them.
SLICES_SECONDS = 0.03
FIGURES_A_SLICE = 100
# After a tick took so long, the next change waits so many times as long for its table, but never for longer than
# MAX_REST_SECONDS: large fleets have fewer tables a second rather than slow answers.
REST = 2.0
MAX_REST_SECONDS = 0.4


class Follower(Protocol):
    """Follows the catalog as the prober does."""

    def sync(self, snapshot: Snapshot) -> None: ...


class Installer:
    """`snapshot` is the own catalog with the imports, `health` what is known of it; tables are built of both.
    `follow` does at once what the next tick would do."""

    def __init__(
        self,
        feed: CatalogFeed,
        leases: LeaseKeeper,
        monitor: Monitor,
        prober: Follower,
        router: Router,
        *,
        imports: Imports,
        home_region: str,
        log: Log,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        registry: Registry = BUILT_IN,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_tick: Callable[[float], None] = lambda now: None,
    ) -> None:
        self._feed = feed
        self._leases = leases
        self._monitor = monitor
        self._prober = prober
        self._router = router
        self._imports = imports
        self._far_loads = FarLoads(imports, router.observe_load)
        self._home_region = home_region
        self._log = log
        self._monotonic = monotonic
        self._wall = wall
        self._registry = registry
        self._sleep = sleep
        self._on_tick = on_tick
        # The own catalog, what was imported when it was merged, and both together.
        self._own: Snapshot | None = None
        self._imported = -1
        self.snapshot: Snapshot = EMPTY_SNAPSHOT
        self._tables = Tables(home_region)
        # The newest columns, and what they were made from.
        self._compiled: Compiled = NOTHING
        self._compiled_of: Snapshot = EMPTY_SNAPSHOT
        self._policies: Mapping[str, PolicyRecord] = {}
        self._compiled_policies: dict[str, Policy] = {}
        # What the newest table was built from.
        self._built: tuple[Snapshot, int, int, int] | None = None
        self.health: Mapping[str, DeploymentHealth] = MappingProxyType({})
        self.built_at = 0.0
        self.builds_total = 0
        self.slices_total = 0
        self._rest_until = float("-inf")
        # Until when no lease of a peer that the newest table counts on can have ended.
        self._holds_until = float("inf")
        # Documents that this program cannot use, by policy; what was compiled before them goes on.
        self.refused_policies: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            spent = self._timed(self.tick)
            self._rest_until = self._monotonic() + min(REST * spent, MAX_REST_SECONDS)
            left = SLICES_SECONDS
            while left > 0.0:
                # Requests are served between two slices.
                await self._sleep(0.0)
                before = self.slices_total
                left -= self._timed(self._slice)
                if self.slices_total == before:
                    break
            await self._sleep(TICK_SECONDS)

    def _slice(self) -> None:
        """One piece of what need not be done at once: a plan that is asked for, or figures for the next view."""
        if self._router.renew_plans(1) or self._monitor.refresh(self._monotonic(), FIGURES_A_SLICE):
            self.slices_total += 1

    def _timed(self, work: Callable[[], None]) -> float:
        started = self._monotonic()
        work()
        return self._monotonic() - started

    def deciding_at(self) -> float:
        """The time now, for who decides by the newest table.

        Where a peer's lease ended since it was built, there is a new one first: a process that stood still is asked
        before its tasks had their turn.
        """
        now = self._monotonic()
        if now >= self._holds_until:
            self._holds_until = self._imports.lapse_at()
            if now >= self._holds_until:
                # Once: should it fail, decisions go on by the table that there is.
                self._holds_until = float("inf")
                self.tick()
        return now

    def tick(self) -> None:
        """Does what is due now."""
        now = self._monotonic()
        self.follow()
        self._monitor.tick(now)
        self._far_loads.step(now)
        self._router.sweep(now)
        lapsed = self._imports.tick(now)
        for peer in lapsed:
            self._log.warning("peer's lease ended; its nodes leave routing until it is heard again", peer=peer)
        self.health = self._imports.overlaid(self.snapshot, self._monitor.view(now), now)
        inputs = (self.snapshot, self._leases.version, self._monitor.version, self._imports.version)
        due = self._built != inputs and (now >= self._rest_until or bool(lapsed))
        if due or now - self.built_at >= MAX_TABLE_AGE_SECONDS:
            self._build(inputs, now)
        self._on_tick(now)

    def follow(self) -> None:
        """Takes over the newest snapshot and imports, if there are any."""
        self._leases.sync()
        own = self._leases.snapshot()
        if own is self._own and self._imports.catalog_version == self._imported:
            return
        own_changed = own is not self._own
        self._own, self._imported = own, self._imports.catalog_version
        snapshot = self.snapshot = self._imports.merged(own, self._home_region)
        self._monitor.sync(snapshot, self._monotonic())
        if own_changed:
            # What is imported is probed by its owner.
            self._prober.sync(own)
        if snapshot.policies is not self._policies:
            self._policies = snapshot.policies
            self._compile_policies(snapshot.policies)

    def _build(self, inputs: tuple[Snapshot, int, int, int], now: float) -> None:
        if self._compiled_of is not inputs[0]:
            self._compiled = recompile(self._compiled, self._compiled_of, inputs[0])
            self._compiled_of = inputs[0]
        table = self._tables.build(
            self._compiled,
            self.health,
            now=now,
            unix_time=self._wall(),
            expired_nodes=self._leases.ended(),
            lapsed_regions=self._imports.lapsed_regions(),
            catalog_at=self._feed.answered_at,
        )
        self._router.install(table)
        self._built = inputs
        self._holds_until = self._imports.lapse_at()
        self.built_at = now
        self.builds_total += 1

    def _compile_policies(self, records: Mapping[str, PolicyRecord]) -> None:
        usable: dict[str, Policy] = {}
        refused: set[str] = set()
        for policy_id, record in records.items():
            before = self._compiled_policies.get(policy_id)
            if before is not None and before.revision == record.revision:
                usable[policy_id] = before
                continue
            try:
                usable[policy_id] = compile_policy(
                    policy_id, json.loads(record.document), record.revision, registry=self._registry
                )
            except (InvalidPolicy, ValueError) as e:
                # A newer program wrote it, or an older one that allowed more.
                refused.add(policy_id)
                self._log.error(
                    "stored policy cannot be used; the one before it stays",
                    policy=policy_id,
                    revision=record.revision,
                    staying_revision=None if before is None else before.revision,
                    violations=str(e),
                )
                if before is not None:
                    usable[policy_id] = before
        self._compiled_policies = usable
        self.refused_policies = frozenset(refused)
        self._router.install_policies(usable)
