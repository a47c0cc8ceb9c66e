"""Asks every node for its health, all at once and each at its time, and tells the monitor.

One task waits for whose turn is next, one more runs for each probe under way. A failed probe is repeated every
second until it decides; a registration, or a circuit that opened, has the node asked at once.

Where replicas share a fleet each asks its share of it and hears of the rest. A node of which nothing is heard for
longer than an interval is asked by everybody: better twice than never.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import ssl
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from random import Random

import aiohttp
import anyio
from anyio.abc import TaskGroup

from catalog.rolls import changed
from catalog.types import Node, Snapshot
from federation.config import HealthSettings
from federation.health.checks import probe_node, scrape
from federation.health.monitor import Monitor
from federation.health.records import Probe
from federation.health.resolve import AddressRules

# Sockets and memory are bounded by these: a probe holds a connection and KBs, a page up to 4 MiB.
MAX_PROBES = 500
MAX_PAGES = 64
# A fleet that was registered at once is due at once. A probe takes some ms of the loop that decides, so they start in
# small groups, between which others have their turn: as many as keep up with twice the fleet's pace, and no fewer than
# these every few ms. Larger groups would make decisions wait, smaller ones a restart take long.
STEP_SECONDS = 0.005
STARTS = 4
JITTER = 0.1
# Intervals after which a node that another replica should have probed is probed here. Over one, or chance would double
# the probes of a fleet; two would let its grades fade.
SILENT_INTERVALS = 1.5

log = logging.getLogger(__name__)


class Prober:
    """Probes the nodes of the last snapshot while `run` runs."""

    def __init__(
        self,
        monitor: Monitor,
        *,
        http: Callable[[], aiohttp.ClientSession],
        settings: HealthSettings,
        clock: Callable[[], float],
        rng: Random,
        max_probes: int = MAX_PROBES,
        ca_file: Path | None = None,
        ours: Callable[[str], bool] = lambda node: True,
    ) -> None:
        """`http` makes the guarded session that all probes share (resolve.session_factory).

        `ca_file` holds the authorities of grpcs:// nodes; without it the system's. `ours` tells whether a node is in
        this replica's share.
        """
        self._monitor = monitor
        self._http = http
        self._settings = settings
        self._rules = AddressRules.of(settings.allowed_schemes, settings.allowed_cidrs)
        self._clock = clock
        self._rng = rng
        self._max_probes = max_probes
        self._ours = ours
        self._ca_file = ca_file
        self._grpc_roots: bytes | None = None
        # The nodes as `sync` saw them last.
        self._synced: Mapping[str, Node] = {}
        self._nodes: dict[str, Node] = {}
        # (when, order, name); the live entry of a name is the one in `_due`.
        self._queue: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._running: set[str] = set()
        # Kicked while their probe ran: probed again right after it.
        self._again: set[str] = set()
        self._order = itertools.count()
        self._wake: anyio.Event | None = None

    def sync(self, snapshot: Snapshot) -> None:
        """Takes over the nodes. New ones and those with another endpoint or engine are probed at once."""
        seen, self._synced = self._synced, snapshot.nodes
        for name in sorted(changed(seen, snapshot.nodes)):
            node = snapshot.nodes.get(name)
            if node is None:
                self._nodes.pop(name, None)
                self._due.pop(name, None)
                continue
            before = self._nodes.get(name)
            self._nodes[name] = node
            if before is None or (before.endpoint, before.engine) != (node.endpoint, node.engine):
                self.kick(name)

    def kick(self, node: str) -> None:
        """Has a node probed at once; one that is not known is passed over.

        One in another's share is left to that replica, which knows the same, and probed here if nothing is heard.
        """
        if node in self._running:
            self._again.add(node)
        elif node in self._nodes:
            self._schedule(node, self._clock() + (0.0 if self._ours(node) else self._settings.recheck_interval_seconds))

    def heard(self, node: str) -> None:
        """Another replica probed a node: here it is not due for a while."""
        if node in self._nodes and node not in self._running and not self._ours(node):
            wait = SILENT_INTERVALS * self._settings.probe_interval_seconds
            self._schedule(node, self._clock() + wait * (1.0 + JITTER * self._rng.random()))

    def reshare(self) -> None:
        """The shares changed: what is ours now is probed within an interval, whoever did it before."""
        now = self._clock()
        for name in self._nodes:
            at = now + self._settings.probe_interval_seconds * self._rng.random()
            if name not in self._running and self._ours(name) and self._due.get(name, inf) > at:
                self._schedule(name, at)

    async def run(self) -> None:
        """Probes until it is cancelled."""
        self._monitor.on_probe_wanted = self.kick
        self._wake = anyio.Event()
        # gRPC brings its own list of authorities; the operator's word is the system's.
        ca_file = self._ca_file or ssl.get_default_verify_paths().cafile
        self._grpc_roots = await anyio.Path(ca_file).read_bytes() if ca_file else None
        slots = anyio.CapacityLimiter(self._max_probes)
        pages = anyio.CapacityLimiter(MAX_PAGES)
        async with self._http() as http, anyio.create_task_group() as tasks:
            while True:
                if self._start_due(tasks, http, slots, pages):
                    await anyio.sleep(STEP_SECONDS)
                    continue
                wait = max(0.0, self._queue[0][0] - self._clock()) if self._queue else inf
                with anyio.move_on_after(wait):
                    await self._wake.wait()
                self._wake = anyio.Event()

    def _start_due(
        self,
        tasks: TaskGroup,
        http: aiohttp.ClientSession,
        slots: anyio.CapacityLimiter,
        pages: anyio.CapacityLimiter,
    ) -> bool:
        """Starts some of those that are due; answers whether more of them wait."""
        now = self._clock()
        left = max(STARTS, int(2.0 * len(self._nodes) * STEP_SECONDS / self._settings.probe_interval_seconds))
        while self._queue and self._queue[0][0] <= now:
            if not left:
                return True
            at, _, name = heapq.heappop(self._queue)
            if self._due.get(name) == at:
                del self._due[name]
                self._running.add(name)
                tasks.start_soon(self._probe, name, http, slots, pages, name=f"probe {name}")
                left -= 1
        return False

    async def _probe(
        self, name: str, http: aiohttp.ClientSession, slots: anyio.CapacityLimiter, pages: anyio.CapacityLimiter
    ) -> None:
        passed = None
        try:
            async with slots:
                passed = await self._probe_once(name, http)
        except Exception:  # an edge: one node's oddity must not end the probing of all others
            log.exception("probe of node %r broke; it counts as failed", name)
            self._monitor.observe_probe(Probe(name, False, 0.0, error="the probe itself broke"), self._clock())
        finally:
            self._running.discard(name)
        if name not in self._nodes:
            self._again.discard(name)
        elif name in self._again:
            self._again.discard(name)
            self._schedule(name, self._clock())
        elif self._monitor.undecided(name):
            self._schedule(name, self._clock() + self._settings.recheck_interval_seconds)
        else:
            spread = 1.0 - JITTER + 2.0 * JITTER * self._rng.random()
            self._schedule(name, self._clock() + self._settings.probe_interval_seconds * spread)
        # Last, since neither a slow page nor the wait for one may delay the next probe.
        if passed is not None:
            with anyio.move_on_after(2.0 * self._settings.probe_timeout_seconds):
                async with pages:
                    await self._scrape_once(passed, http)

    async def _probe_once(self, name: str, http: aiohttp.ClientSession) -> Node | None:
        """Probes a node and tells the monitor; answers the node if it passed."""
        node = self._nodes.get(name)
        if node is None:
            return None
        timeout = self._settings.probe_timeout_seconds
        probe = await probe_node(
            node,
            http,
            self._rules,
            timeout_seconds=timeout,
            clock=self._clock,
            grpc_roots=self._grpc_roots,
            on_metrics=lambda metrics: self._monitor.observe_metrics(name, metrics, self._clock()),
        )
        if not self._same(node):
            return None  # it was registered anew meanwhile; this was about its past
        self._monitor.observe_probe(probe, self._clock())
        return node if probe.ok else None

    async def _scrape_once(self, node: Node, http: aiohttp.ClientSession) -> None:
        metrics = await scrape(node, http, self._rules, timeout_seconds=self._settings.probe_timeout_seconds)
        if metrics is not None and self._same(node):
            self._monitor.observe_metrics(node.name, metrics, self._clock())

    def _same(self, node: Node) -> bool:
        now = self._nodes.get(node.name)
        return now is not None and (now.endpoint, now.engine) == (node.endpoint, node.engine)

    def _schedule(self, name: str, at: float) -> None:
        self._due[name] = at
        heapq.heappush(self._queue, (at, next(self._order), name))
        if self._wake is not None:
            self._wake.set()
