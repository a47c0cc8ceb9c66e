"""One region in virtual time: the real feed, prober, monitor, tables and router, with nodes that behave as they are
told to. `federation/app.py` wires it so; what it does on sockets there is a call here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any, cast

from catalog.memory import MemoryStore
from catalog.types import Region, ServingProfile
from federation.config import CircuitSettings, HealthSettings, RoutingSettings
from federation.feed import CatalogFeed
from federation.health.engines.page import EngineMetrics
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.health.records import Probe
from federation.installer import TICK_SECONDS, Installer
from federation.leases import LeaseKeeper
from federation.peering.imports import Imports
from federation.routing.decisions import Record
from federation.routing.router import Router
from policies.errors import NoCandidate
from policies.policy import Policy
from policies.types import Outcome, Result, RouteRequest
from tests.builders import MODEL, a_deployment, a_node
from tests.faults.dst_fleet import Quiet, done

REGION = "eu"
TOKENS = 100
# Of the tokens after the first.
DECODE_SECONDS = 0.05
PROFILE = ServingProfile(
    prefill_seconds_per_token=1e-5,
    min_time_to_first_token_seconds=0.05,
    decode_tokens_per_second=200.0,
    max_batch_size=1_000,
)


@dataclass
class Behaviour:
    """What one node does now. Whoever is not well fails probes and calls."""

    well: bool = True
    # Seconds to the first token, and what its metrics page tells of requests that wait.
    first_token_seconds: float = 0.05
    waiting: float = 0.0
    # Whether its metrics page answers, and whether anything does that is not a call.
    page: bool = True
    silent: bool = False


class AtOnce:
    """A task group for tasks that have nothing to wait for."""

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, Any]], *words: Any, name: str) -> None:
        done(work(*words))


class Probing(Prober):
    """The prober with its times and repeats; what a node answers the stage knows."""

    stage: Stage

    async def _probe_once(self, name: str, http: object) -> None:
        node, now = self.stage.nodes[name], self._clock()
        if node.silent:
            return
        error = "" if node.well else "connection refused"
        models = frozenset({MODEL}) if node.well else None
        self._monitor.observe_probe(Probe(name, node.well, 0.01, models, error), now)
        if node.well and node.page:
            self._monitor.observe_metrics(name, EngineMetrics(queue_depth=node.waiting), now)

    def step(self) -> None:
        nothing = cast(Any, nullcontext())
        self._start_due(cast(Any, AtOnce()), cast(Any, None), nothing, nothing)


class Stage:
    """`ask` routes one request, whose caller reports when it is over how its node did; `advance` moves time."""

    def __init__(
        self,
        names: Sequence[str],
        seed: int,
        *,
        policies: Mapping[str, Policy] = MappingProxyType({}),
        health: HealthSettings | None = None,
        circuit: CircuitSettings | None = None,
        on_tick: Callable[[float], None] = lambda now: None,
    ) -> None:
        health, circuit = health or HealthSettings(), circuit or CircuitSettings()
        self.now = 1_000.0
        self.nodes = {name: Behaviour() for name in names}
        log, store = cast(Any, Quiet()), MemoryStore(REGION, clock=self.wall)
        done(store.put([Region(region) for region in sorted({name.split("/")[0] for name in names})]))
        done(store.put([a_node(name, (a_deployment(profile=PROFILE),), owner=REGION) for name in names]))
        feed = CatalogFeed(store, log=log, monotonic=self.monotonic)
        self.monitor = Monitor(health, circuit, rng=Random(seed), wall=self.wall)
        self.router = Router(
            RoutingSettings(decisions_kept=1_000),
            replica=REGION,
            seed=seed,
            wall=self.wall,
            on_outcome=self.monitor.observe_outcome,
            on_suspicion=self.monitor.observe_suspicion,
        )
        self.monitor.on_load = self.router.observe_load
        self.monitor.on_slow_start = self.router.trust
        self.prober = Probing(
            self.monitor, http=cast(Any, None), settings=health, clock=self.monotonic, rng=Random(seed + 1)
        )
        self.prober.stage = self
        self.monitor.on_probe_wanted = self.prober.kick
        leases = LeaseKeeper(store, feed, log=log, monotonic=self.monotonic, wall=self.wall)
        self.installer = Installer(
            feed,
            leases,
            self.monitor,
            self.prober,
            self.router,
            imports=Imports(),
            home_region=REGION,
            log=log,
            monotonic=self.monotonic,
            wall=self.wall,
            on_tick=on_tick,
        )
        done(feed.start())
        self._ticks_at = self.now
        self._reports: list[tuple[float, int, Outcome]] = []
        self._order = itertools.count()
        self._step()
        # After those of the catalog, which has none.
        self.router.install_policies(policies)

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1.7e9 + self.now

    def advance(self, seconds: float) -> None:
        """Moves time on, in the order of what happens."""
        end = self.now + seconds
        while True:
            report = self._reports[0][0] if self._reports else float("inf")
            at = min(report, self._ticks_at)
            if at > end:
                break
            self.now = max(self.now, at)
            if report <= self._ticks_at:
                self.router.report(heapq.heappop(self._reports)[2], self.now)
            else:
                self._step()
        self.now = end

    def _step(self) -> None:
        self.prober.step()
        self.installer.tick()
        self.prober.step()
        self._ticks_at = self.now + TICK_SECONDS

    def ask(self, **request: Any) -> Record | None:
        """The decision for a request; None where it is refused."""
        asked = RouteRequest(model_id=MODEL, **{"input_tokens": TOKENS, "max_output_tokens": 10, **request})
        try:
            record = self.router.place(asked, self.now)
        except NoCandidate:
            return None
        name, _, model_id = record.names()[0].rpartition("/")
        node = self.nodes[name]
        first = node.first_token_seconds if node.well else None
        outcome = Outcome(
            record.decision_id,
            result=Result.OK if node.well else Result.UNREACHABLE,
            region_id=name.partition("/")[0],
            node_id=name.partition("/")[2],
            model_id=model_id,
            latency_seconds=None if first is None else first + DECODE_SECONDS,
            time_to_first_token_seconds=first,
            input_tokens=TOKENS,
            output_tokens=10,
        )
        told = self.now + node.first_token_seconds + DECODE_SECONDS
        heapq.heappush(self._reports, (told, next(self._order), outcome))
        return record
