"""Routers that know everything, to measure others against.

`greedy` sends each request where its first token comes soonest, given exactly what every engine holds, how long each
answer will be, which node is gray, dead or cut off, and what is on its way.  It is clairvoyant and not omniscient: it
does not know what arrives next.  `giving-up` refuses what cannot be good any more, so that the others can.  `cheapest`
takes the cheapest node whose answer is good, and the soonest where none is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from federation.simulation.routers import good_within
from federation.simulation.world import Engine, Journey, Page, Refused, World
from policies.types import Phase, Result

# What a failed attempt goes on to; it matters only where a node dies with the request on its way.
ALTERNATIVES = 3
ORACLES = ("oracle", "oracle-giving-up", "oracle-cheapest")


class OraclePlacer:
    """One mind for all gateways."""

    def __init__(self, world: World, kind: str) -> None:
        self._world = world
        self._choose: Callable[[Journey], str] = {
            "oracle": self._soonest,
            "oracle-giving-up": self._saved,
            "oracle-cheapest": self._cheapest,
        }[kind]

    def place(self, journey: Journey, now: float) -> None:
        best = self._choose(journey)
        others = [name for _, name in self._by_least(journey) if name != best]
        journey.targets = (best, *others[:ALTERNATIVES])

    def _soonest(self, journey: Journey) -> str:
        best, soonest = "", math.inf
        for least, name in self._by_least(journey):
            if least >= soonest:
                break
            seconds = self._seconds(journey, name)
            if seconds < soonest:
                best, soonest = name, seconds
        if not best:
            raise Refused("NO_CAPACITY")
        journey.predicted = soonest
        return best

    def _saved(self, journey: Journey) -> str:
        best = self._soonest(journey)
        if (journey.predicted or 0.0) > good_within(journey.request.input_tokens):
            raise Refused("CANNOT_BE_GOOD")
        return best

    def _cheapest(self, journey: Journey) -> str:
        request, bound = journey.request, good_within(journey.request.input_tokens)
        priced = []
        for least, name in self._by_least(journey):
            if least <= bound:
                engine = self._world.engines[name]
                factor = self._world.price_factor.get(engine.spec.region_id, 1.0)
                computed = request.input_tokens - self._cached(engine, journey)
                cost = computed * engine.spec.input_price + request.output_tokens * engine.spec.output_price
                priced.append((factor * cost, name))
        for _, name in sorted(priced):
            seconds = self._seconds(journey, name)
            if seconds <= bound:
                journey.predicted = seconds
                return name
        return self._soonest(journey)

    def _cached(self, engine: Engine, journey: Journey) -> int:
        return engine.cache.cached(journey.request.prefix_hashes, journey.request.input_tokens)

    def _by_least(self, journey: Journey) -> list[tuple[float, str]]:
        """Nodes that would answer, by what their first token would take if they were idle."""
        found = []
        for name, engine in self._world.engines.items():
            if not engine.alive or engine.failing or not self._world.reachable(journey.gateway, name):
                continue
            profile = engine.spec.profile
            work = (journey.request.input_tokens - self._cached(engine, journey)) * profile.prefill_seconds_per_token
            idle = max(work, profile.min_time_to_first_token_seconds)
            # What waits and is on its way is prefilled before, at full speed at best.
            ahead = sum(each.prefill_seconds for each in engine.coming.values()) + engine.batch.prefill_backlog_seconds
            half = self._world.round_trip(journey.gateway, name) / 2
            found.append((half + max(half + idle / engine.speed, (idle + ahead) / engine.speed), name))
        return sorted(found)

    def _seconds(self, journey: Journey, name: str) -> float:
        engine, request = self._world.engines[name], journey.request
        self._world.progress(engine)
        waits = engine.batch.first_token_in(
            request.input_tokens, request.output_tokens, self._cached(engine, journey), tuple(engine.coming.values())
        )
        half = self._world.round_trip(journey.gateway, name) / 2
        # What waits there goes on while the request travels.
        return half + max(half + self._idle(engine, journey), waits / engine.speed)

    def _idle(self, engine: Engine, journey: Journey) -> float:
        profile = engine.spec.profile
        work = (journey.request.input_tokens - self._cached(engine, journey)) * profile.prefill_seconds_per_token
        return max(work, profile.min_time_to_first_token_seconds) / engine.speed

    def hear(self, journey: Journey, phase: Phase, result: Result | None, now: float) -> None:
        """It knows already."""

    def observe(self, node: str, page: Page, seconds: float, now: float) -> bool:
        return False

    def wanted(self) -> Sequence[str]:
        return ()

    def tick(self, now: float) -> None:
        """Nothing is due to it."""

    def prices_changed(self, factor: dict[str, float], now: float) -> None:
        """It reads them in the world."""
