"""The real control plane in virtual time: `Router`, `Monitor` and tables as `federation/installer.py` joins them.

Nothing here decides.  A placer turns a journey into a RouteRequest, and what becomes of it into outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from federation.config import CircuitSettings, HealthSettings, RoutingSettings
from federation.health.engines.page import EngineMetrics
from federation.health.monitor import Monitor
from federation.health.records import Probe
from federation.installer import MAX_TABLE_AGE_SECONDS
from federation.routing.compiling import compile_catalog
from federation.routing.decisions import Record
from federation.routing.router import Router
from federation.routing.state import IN_FLIGHT, PENDING
from federation.routing.table import Tables
from federation.simulation.fleet import Fleet, Gateway
from federation.simulation.world import Journey, Page, Refused
from policies import chance
from policies.errors import NoCandidate
from policies.policy import Policy
from policies.registry import BUILT_IN, Registry
from policies.types import Explain, Outcome, Phase, Result, RouteRequest

# Unix seconds at the start of a run: a Tuesday at noon UTC, for rules that look at the clock.
START = 1_700_568_000.0
# What a good answer may take: the share of good answers is measured by it, and bounded requests ask for it.
GOOD_SECONDS = 1.0
GOOD_SECONDS_PER_TOKEN = 0.001


def good_within(input_tokens: int) -> float:
    """Seconds to the first token that a good answer takes at most."""
    return GOOD_SECONDS + GOOD_SECONDS_PER_TOKEN * input_tokens


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one entry of a comparison routes, beside its policy."""

    policy: Policy
    registry: Registry = BUILT_IN
    # Forgets what it routed itself, so that only pages tell of load.
    blind: bool = False
    # Whether the catalog declares profiles.
    declared: bool = True
    # Requests say by when their first token is wanted.
    bounded: bool = False
    # Gateways whose routers share nothing; False: one router serves all, as if it were told at once.
    apart: bool = True
    # Whether routers that are apart tell each other their pending sums.
    sharing: bool = False


class PolicyPlacer:
    """One control plane that shares nothing with the others."""

    def __init__(
        self, fleet: Fleet, gateway: Gateway, behaviour: Behaviour, seed: int, clock: Callable[[], float]
    ) -> None:
        self._fleet = fleet
        self._gateway = gateway
        self._behaviour = behaviour
        self._model = fleet.model_id
        self._wanted: dict[str, None] = {}
        # What other routers told since this one last looked: sums by deployment, and when they were true.
        self.told: dict[str, tuple[Mapping[str, tuple[float, float]], float]] = {}

        def wall() -> float:
            return START + clock()

        health = HealthSettings(probe_interval_seconds=fleet.signals.every_seconds)
        self.monitor = Monitor(
            health,
            CircuitSettings(),
            rng=Random(chance.mix(seed ^ 0x3030)),
            wall=wall,
            on_probe_wanted=self._want,
        )
        self.router = Router(
            RoutingSettings(policy=behaviour.policy.policy_id),
            replica=gateway.gateway_id,
            seed=seed,
            wall=wall,
            on_outcome=self.monitor.observe_outcome,
            on_suspicion=self.monitor.observe_suspicion,
            registry=behaviour.registry,
        )
        self.monitor.on_load = self.router.observe_load
        self.router.install_policies({behaviour.policy.policy_id: behaviour.policy})
        snapshot = fleet.snapshot(declared=behaviour.declared)
        self._models = frozenset([fleet.model_id])
        self.monitor.sync(snapshot, 0.0)
        self._compiled = compile_catalog(snapshot)
        self._tables = Tables(gateway.region_id)
        self._built: tuple[int, float] = (-1, float("-inf"))

    def _want(self, node: str) -> None:
        self._wanted[node] = None

    def wanted(self) -> Sequence[str]:
        found = tuple(self._wanted)
        self._wanted.clear()
        return found

    def tick(self, now: float) -> None:
        self.monitor.tick(now)
        self.router.sweep(now)
        if self._built[0] != self.monitor.version or now - self._built[1] >= MAX_TABLE_AGE_SECONDS:
            table = self._tables.build(self._compiled, self.monitor.view(now), now=now)
            self.router.install(table)
            self._built = (self.monitor.version, now)

    def prices_changed(self, factor: dict[str, float], now: float) -> None:
        snapshot = self._fleet.snapshot(declared=self._behaviour.declared, price_factor=factor)
        self.monitor.sync(snapshot, now)
        self._compiled = compile_catalog(snapshot)
        self._built = (-1, float("-inf"))

    def observe(self, node: str, page: Page, seconds: float, now: float) -> bool:
        if self.told:
            self._heed(now)
        self.monitor.observe_probe(
            Probe(
                node,
                page.alive,
                seconds,
                models=self._models if page.alive else None,
                error="" if page.alive else "connection refused",
            ),
            now,
        )
        if page.alive:
            self.monitor.observe_metrics(
                node,
                EngineMetrics(
                    queue_depth=float(page.waiting),
                    running_requests=float(page.running),
                    kv_cache_utilization=page.kv_utilization,
                    generation_tokens_total=page.generated_tokens,
                ),
                now,
            )
        return self.monitor.undecided(node)

    def asked(self, journey: Journey) -> RouteRequest:
        """What the gateway asks its router for."""
        request = journey.request
        return RouteRequest(
            model_id=self._model,
            request_id=str(journey.number),
            origin_region=self._fleet.gateways[journey.gateway].region_id,
            session_id=request.session_id,
            priority=request.priority,
            input_tokens=request.input_tokens,
            max_time_to_first_token_seconds=good_within(request.input_tokens) if self._behaviour.bounded else None,
            prefix_hashes=request.prefix_hashes,
            prefix_block_tokens=self._fleet.block_tokens,
            explain=Explain.NONE,
        )

    def _heed(self, now: float) -> None:
        state = self.router.state
        slots = state.slots
        heard = {
            sender: ({slots[name]: each for name, each in sums.items() if name in slots}, at)
            for sender, (sums, at) in self.told.items()
        }
        self.told.clear()
        state.add_siblings(heard, now)

    def place(self, journey: Journey, now: float) -> None:
        if self._behaviour.blind:
            self._forget()
        if self.told:
            self._heed(now)
        try:
            record = self.router.place(self.asked(journey), now)
        except NoCandidate as refusal:
            raise Refused(refusal.reason) from refusal
        self.placed(journey, record)

    def placed(self, journey: Journey, record: Record) -> None:
        """The journey goes where a decision says."""
        journey.placed = record
        # "region/node/model" without the model.
        cut = -len(self._model) - 1
        journey.targets = tuple(name[:cut] for name in record.names())
        journey.predicted, journey.interval = predicted_seconds(record)

    def _forget(self) -> None:
        self.router.state.matrix[PENDING] = 0.0
        self.router.state.matrix[IN_FLIGHT] = 0.0
        self.router.state.moved()

    def hear(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> None:
        self.router.report(self.outcome(journey, phase, result, now), now)

    def outcome(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> Outcome:
        """What the gateway reports of a step."""
        record: Record = journey.placed
        region, node = journey.node.split("/")
        first = None if journey.first_token is None else journey.first_token - journey.sent
        done = phase is Phase.FINISHED and result is Result.OK
        return Outcome(
            record.decision_id,
            journey.attempt,
            phase,
            result,
            region,
            node,
            self._model,
            event_time=START + now,
            latency_seconds=now - journey.sent if phase is Phase.FINISHED else None,
            time_to_first_token_seconds=first,
            input_tokens=journey.request.input_tokens,
            cached_tokens=journey.cached_tokens if phase is not Phase.STARTED else None,
            output_tokens=journey.request.output_tokens if done else None,
        )


def predicted_seconds(record: Record) -> tuple[float, tuple[float, float]]:
    """What the decision expected of its target: seconds to the first token at the caller, and nine times of ten."""
    plan = record.plan
    place = plan.table.pool.place[record.chosen[0]]
    path = float(plan.round_trip[place])
    early, late = record.spread.interval(record.slot(0))
    return path + record.at_node, (path + early * record.at_node, path + late * record.at_node)
