"""The world that routers decide in: engines, paths, gateways and time; a loop over events, and nothing else.

A request enters at a gateway, is placed by whoever routes there, crosses the network, waits, is prefilled and decoded;
each step reaches the gateway, and its router, as late as the path makes it.  A failed attempt goes on to the next
alternative.  Time is virtual; the same seed gives the same events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Protocol

from federation.simulation.batching import Ahead, BatchEventKind, ContinuousBatch
from federation.simulation.fleet import Fleet, FleetNode, Gateway
from federation.simulation.traces import TraceRequest
from policies import chance
from policies.types import Phase, Result

# A gateway gives up a connection that nobody answers after this; refused ones it notices at once.
CONNECT_TIMEOUT_SECONDS = 2.0
# And a request without a first token; what failed counts as this long.
FIRST_TOKEN_TIMEOUT_SECONDS = 60.0
# A broken engine answers its error after this: far too fast to be work.
FAST_FAILURE_SECONDS = 0.001


@dataclass(slots=True, eq=False)
class Journey:
    """One request on its way; what it came to is read off when the run is over."""

    number: int
    request: TraceRequest
    gateway: int
    arrived: float
    # Names of nodes by attempt, and what whoever placed it remembers.
    targets: tuple[str, ...] = ()
    placed: Any = None
    # Predicted seconds to the first token at the gateway; with a 90 % interval where the router gives one.
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    attempt: int = 0
    sent: float = 0.0
    at_node: bool = False
    first_token: float | None = None
    ended: float | None = None
    result: Result | None = None
    refused: str = ""
    cached_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def node(self) -> str:
        return self.targets[self.attempt]

    @property
    def engine_id(self) -> str:
        return f"{self.number}.{self.attempt}"


class Refused(Exception):
    """Whoever routes will not place a request; the reason is a constant of the API."""


@dataclass(frozen=True, slots=True)
class Page:
    """What an engine tells of itself when it is asked."""

    running: int
    waiting: int
    kv_utilization: float
    generated_tokens: float
    alive: bool = True


class Placer(Protocol):
    """Who places requests at one gateway, and what it hears."""

    def place(self, journey: Journey, now: float) -> None:
        """Sets `targets` (and `predicted`, where it predicts). Raises Refused."""

    def hear(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> None:
        """A step of the journey's present attempt became known at the gateway."""

    def observe(self, node: str, page: Page, seconds: float, now: float) -> bool:
        """A look at a node, that took so long; true where it wants another soon."""

    def wanted(self) -> Sequence[str]:
        """Nodes that should be looked at now, each named once."""

    def tick(self, now: float) -> None:
        """What is due by time; called every TICK_SECONDS."""

    def prices_changed(self, factor: dict[str, float], now: float) -> None:
        """Prices by region are so many times those of the fleet now."""


TICK_SECONDS = 0.1
# Between looks at a node that has just failed one.
RECHECK_SECONDS = 1.0
PROBE_TIMEOUT_SECONDS = 5.0


class PrefixCache:
    """What an engine keeps of prompts: prefixes by hash, those that were not used for longest go first."""

    def __init__(self, capacity_tokens: int, block_tokens: int) -> None:
        self._block = block_tokens
        self._most = max(1, capacity_tokens // block_tokens)
        self._known: OrderedDict[int, None] = OrderedDict()

    def cached(self, hashes: Sequence[int], tokens: int) -> int:
        """Tokens of a prompt that need no prefill; the last one always does."""
        run = 0
        for value in hashes:
            if value not in self._known:
                break
            run += 1
        return min(run * self._block, max(0, tokens - 1))

    def keep(self, hashes: Sequence[int]) -> None:
        # From the end, so that a prefix is newer than what builds on it.
        for value in reversed(hashes):
            self._known[value] = None
            self._known.move_to_end(value)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def clear(self) -> None:
        self._known.clear()


@dataclass(slots=True, eq=False)
class Engine:
    """A node as it runs. Its own clock goes at `speed`: a gray node is one whose clock is slow."""

    spec: FleetNode
    batch: ContinuousBatch
    cache: PrefixCache
    alive: bool = True
    failing: bool = False
    speed: float = 1.0
    # World and own time at the last change of speed.
    since: float = 0.0
    local_since: float = 0.0
    wake: float | None = None
    journeys: dict[str, Journey] = field(default_factory=dict)
    # Sent, and not there yet.
    coming: OrderedDict[str, Ahead] = field(default_factory=OrderedDict)
    started_requests: int = 0

    def local(self, now: float) -> float:
        return self.local_since + (now - self.since) * self.speed

    def global_time(self, local: float) -> float:
        return self.since + (local - self.local_since) / self.speed

    def set_speed(self, speed: float, now: float) -> None:
        self.local_since, self.since, self.speed = self.local(now), now, speed

    def page(self) -> Page:
        if not self.alive:
            return Page(0, 0, 0.0, 0.0, alive=False)
        used = self.batch.kv_used / self.spec.profile.kv_cache_tokens
        return Page(self.batch.running, self.batch.waiting, min(1.0, used), self.batch.generated_tokens)


class World:
    """Runs requests through placers and engines until all have ended."""

    def __init__(
        self,
        fleet: Fleet,
        requests: Sequence[TraceRequest],
        seed: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.seed = seed
        self.engines = {
            node.name: Engine(
                node, ContinuousBatch(node.profile), PrefixCache(node.profile.kv_cache_tokens, fleet.block_tokens)
            )
            for node in fleet.nodes
        }
        self.cut: frozenset[str] = frozenset()
        # Seconds that every signal comes later than the path makes it.
        self.signal_delay = 0.0
        self.price_factor: dict[str, float] = {}
        self.placers: list[Placer] = []
        self.journeys = [
            Journey(number, request, _gateway(fleet.gateways, seed, number, request), request.arrival)
            for number, request in enumerate(requests)
        ]
        self._open = len(self.journeys)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._on_progress = on_progress

    # Time.

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Does something at a time; in the order of being asked where times are equal."""
        self._order += 1
        heappush(self._heap, (when, self._order, action, arguments))

    def run(self, placers: Sequence[Placer]) -> None:
        """Runs until every request has ended; `placers` by gateway, where one may stand at several."""
        self.placers = list(placers)
        for index, placer in enumerate(self.placers):
            if any(placer is earlier for earlier in self.placers[:index]):
                continue
            for number, name in enumerate(self.engines):
                self._look_first(index, number, name)
            self.at(0.0, self._tick, index)
        for journey in self.journeys:
            self.at(journey.arrived, self._arrive, journey)
        heap = self._heap
        while heap and self._open:
            self.now, _, action, arguments = heappop(heap)
            action(*arguments)

    def round_trip(self, gateway: int, node: str) -> float:
        region = self.engines[node].spec.region_id
        return self.fleet.round_trip[self.fleet.gateways[gateway].region_id, region]

    def reachable(self, gateway: int, node: str) -> bool:
        """Whether packets pass between a gateway and a node; within a region they always do."""
        here, there = self.fleet.gateways[gateway].region_id, self.engines[node].spec.region_id
        return here == there or not (here in self.cut or there in self.cut)

    # A request's way.

    def _arrive(self, journey: Journey) -> None:
        if self._on_progress is not None and journey.number % 100 == 0:
            self._on_progress(journey.number)
        try:
            self.placers[journey.gateway].place(journey, self.now)
        except Refused as refusal:
            journey.refused = str(refusal)
            self._end(journey, None)
            return
        self.at(self.now + FIRST_TOKEN_TIMEOUT_SECONDS, self._give_up, journey)
        self._send(journey)

    def _send(self, journey: Journey) -> None:
        journey.sent = self.now
        journey.at_node = False
        name, attempt = journey.node, journey.attempt
        if not self.reachable(journey.gateway, name):
            self.at(self.now + CONNECT_TIMEOUT_SECONDS, self._failed, journey, attempt, Result.UNREACHABLE)
            return
        engine, request = self.engines[name], journey.request
        cached = engine.cache.cached(request.prefix_hashes, request.input_tokens)
        engine.coming[journey.engine_id] = Ahead(
            (request.input_tokens - cached) * engine.spec.profile.prefill_seconds_per_token,
            request.input_tokens + request.output_tokens,
            request.output_tokens,
        )
        self.at(self.now + self.round_trip(journey.gateway, name) / 2, self._deliver, journey, attempt)

    def _deliver(self, journey: Journey, attempt: int) -> None:
        name = journey.targets[attempt]
        engine, half = self.engines[name], self.round_trip(journey.gateway, name) / 2
        engine.coming.pop(f"{journey.number}.{attempt}", None)
        if journey.ended is not None or journey.attempt != attempt:
            return
        if not engine.alive:
            self.at(self.now + half, self._failed, journey, attempt, Result.UNREACHABLE)
        elif engine.failing:
            self.at(self.now + FAST_FAILURE_SECONDS + half, self._failed, journey, attempt, Result.SERVER_ERROR)
        else:
            journey.at_node = True
            request = journey.request
            journey.cached_tokens = engine.cache.cached(request.prefix_hashes, request.input_tokens)
            engine.journeys[journey.engine_id] = journey
            self.progress(engine)
            engine.batch.submit(
                journey.engine_id,
                request.input_tokens,
                request.output_tokens,
                journey.cached_tokens,
                engine.local(self.now),
            )
            engine.started_requests += 1
            self.progress(engine)

    def _wake(self, engine: Engine, when: float) -> None:
        if engine.wake == when:
            engine.wake = None
            self.progress(engine)

    def progress(self, engine: Engine) -> None:
        """Takes what happened in an engine up to now, and sets its next alarm."""
        if engine.alive:
            for event in engine.batch.advance(engine.local(self.now)):
                self._engine_event(engine, event.kind, event.request_id)
        after = engine.batch.next_event_at() if engine.alive else None
        # Rounding between two clocks must not wake it a hair too early for ever.
        when = None if after is None else max(engine.global_time(after), self.now + 1e-9)
        if when is not None and (engine.wake is None or engine.wake > when + 1e-12 or engine.wake < self.now):
            engine.wake = when
            self.at(when, self._wake, engine, when)
        elif when is None:
            engine.wake = None

    def _engine_event(self, engine: Engine, kind: BatchEventKind, engine_id: str) -> None:
        if kind is BatchEventKind.FIRST_TOKEN:
            journey = engine.journeys.get(engine_id)
        else:
            journey = engine.journeys.pop(engine_id, None)
        if journey is None:
            return
        attempt = journey.attempt
        half = self.round_trip(journey.gateway, journey.node) / 2
        match kind:
            case BatchEventKind.FIRST_TOKEN:
                engine.cache.keep(journey.request.prefix_hashes)
                self.at(self.now + half, self._first_token, journey, attempt)
            case BatchEventKind.FINISHED:
                self.at(self.now + half, self._finished, journey, attempt)
            case BatchEventKind.REJECTED:
                self.at(self.now + half, self._failed, journey, attempt, Result.OVERLOADED)

    def _first_token(self, journey: Journey, attempt: int) -> None:
        if journey.ended is not None or journey.attempt != attempt:
            return
        journey.first_token = self.now
        self.placers[journey.gateway].hear(journey, Phase.FIRST_TOKEN, None, self.now)

    def _finished(self, journey: Journey, attempt: int) -> None:
        if journey.ended is not None or journey.attempt != attempt:
            return
        spec, request = self.engines[journey.node].spec, journey.request
        factor = self.price_factor.get(spec.region_id, 1.0)
        computed = request.input_tokens - journey.cached_tokens
        journey.cost_usd += factor * (computed * spec.input_price + request.output_tokens * spec.output_price)
        self.placers[journey.gateway].hear(journey, Phase.FINISHED, Result.OK, self.now)
        self._end(journey, Result.OK)

    def _failed(self, journey: Journey, attempt: int, result: Result) -> None:
        if journey.ended is not None or journey.attempt != attempt:
            return
        placer = self.placers[journey.gateway]
        placer.hear(journey, Phase.FINISHED, result, self.now)
        begun = journey.first_token is not None
        if begun or attempt + 1 >= len(journey.targets):
            self._end(journey, result)
            return
        journey.attempt = attempt + 1
        placer.hear(journey, Phase.STARTED, None, self.now)
        self._send(journey)

    def _give_up(self, journey: Journey) -> None:
        if journey.ended is not None or journey.first_token is not None:
            return
        self.placers[journey.gateway].hear(journey, Phase.FINISHED, Result.TIMEOUT, self.now)
        engine = self.engines[journey.node]
        if journey.at_node and engine.alive:
            engine.journeys.pop(journey.engine_id, None)
            engine.batch.cancel(journey.engine_id, engine.local(self.now))
            self.progress(engine)
        self._end(journey, Result.TIMEOUT)

    def _end(self, journey: Journey, result: Result | None) -> None:
        journey.ended = self.now
        journey.result = result
        self._open -= 1

    # Signals.

    def _look_first(self, index: int, number: int, name: str) -> None:
        # Everybody was looked at once before the first request; then each at its own times.
        placer = self.placers[index]
        placer.observe(name, self.engines[name].page(), self.round_trip(index, name), 0.0)
        share = chance.uniform(chance.mix(self.seed ^ 0x5163), index * 10_007 + number)
        self.at(share * self.fleet.signals.every_seconds, self._look, index, name, True)

    def _look(self, index: int, name: str, regular: bool) -> None:
        signals = self.fleet.signals
        self._order += 1
        if regular:
            drawn = chance.uniform(chance.mix(self.seed ^ 0x51C7), self._order)
            wait = signals.every_seconds * (1.0 + signals.jitter * (2.0 * drawn - 1.0))
            self.at(self.now + wait, self._look, index, name, True)
        if not self.reachable(index, name):
            page = Page(0, 0, 0.0, 0.0, alive=False)
            self.at(self.now + PROBE_TIMEOUT_SECONDS, self._looked, index, name, page, PROBE_TIMEOUT_SECONDS)
            return
        path = self.round_trip(index, name)
        self.at(self.now + path / 2, self._asked, index, name, path)

    def _asked(self, index: int, name: str, path: float) -> None:
        engine = self.engines[name]
        self.progress(engine)
        self.at(self.now + path / 2 + self.signal_delay, self._looked, index, name, engine.page(), path)

    def _looked(self, index: int, name: str, page: Page, seconds: float) -> None:
        again = self.placers[index].observe(name, page, seconds, self.now)
        if again:
            self.at(self.now + RECHECK_SECONDS, self._look, index, name, False)

    def _tick(self, index: int) -> None:
        placer = self.placers[index]
        placer.tick(self.now)
        for name in placer.wanted():
            self._look(index, name, False)
        self.at(self.now + TICK_SECONDS, self._tick, index)

    # What faults do.

    def kill(self, name: str) -> None:
        """The engine's process ends: what ran there breaks, what comes is refused."""
        engine = self.engines[name]
        if not engine.alive:
            return
        self.progress(engine)
        engine.alive = False
        for journey in list(engine.journeys.values()):
            half = self.round_trip(journey.gateway, name) / 2
            self.at(self.now + half, self._failed, journey, journey.attempt, Result.UNREACHABLE)
        engine.journeys.clear()
        engine.batch = ContinuousBatch(engine.spec.profile, engine.local(self.now))
        engine.cache.clear()
        self.progress(engine)

    def revive(self, name: str, speed: float = 1.0) -> None:
        engine = self.engines[name]
        engine.set_speed(speed, self.now)
        engine.batch = ContinuousBatch(engine.spec.profile, engine.local(self.now))
        engine.alive = True
        self.progress(engine)

    def slow(self, name: str, speed: float) -> None:
        """From now on an engine runs at a share of its speed."""
        engine = self.engines[name]
        self.progress(engine)
        engine.set_speed(speed, self.now)
        engine.wake = None
        self.progress(engine)

    def cut_off(self, regions: frozenset[str]) -> None:
        """No packet enters or leaves these regions; streams that do break when their gateway gives up."""
        self.cut = regions
        for name, engine in self.engines.items():
            for engine_id, journey in list(engine.journeys.items()):
                if not self.reachable(journey.gateway, name):
                    # The engine goes on for nobody.
                    del engine.journeys[engine_id]
                    when = self.now + CONNECT_TIMEOUT_SECONDS
                    self.at(when, self._failed, journey, journey.attempt, Result.UNREACHABLE)

    def set_prices(self, factor: dict[str, float]) -> None:
        self.price_factor = factor
        for index, placer in enumerate(self.placers):
            if not any(placer is earlier for earlier in self.placers[:index]):
                placer.prices_changed(factor, self.now)


def _gateway(gateways: Sequence[Gateway], seed: int, number: int, request: TraceRequest) -> int:
    """Where a request enters: drawn by the gateways' shares, once for all requests of a session or conversation.

    A conversation is known by its second block: the first may be a preamble that everybody shares.
    """
    key = number
    if request.session_id:
        key = chance.hash_text(request.session_id)
    elif len(request.prefix_hashes) > 1:
        key = request.prefix_hashes[1]
    drawn, passed = chance.uniform(chance.mix(seed ^ 0x6A7E), key), 0.0
    for index, gateway in enumerate(gateways):
        passed += gateway.share
        if drawn < passed:
            return index
    return len(gateways) - 1
