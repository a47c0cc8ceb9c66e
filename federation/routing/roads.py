"""How long the road from an origin to a region can be at most, by the answers that came over it.

A first token comes after the road and at least the declared least time at the node, whatever waited there: so each
answer bounds the road from above, and the least of lately is near it (the windowed minimum by which congestion control
finds a path's propagation delay: Cardwell et al., BBR, 2016).  It only lowers a road that was assumed: one that was
declared or measured stands, and late answers are late for many reasons.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from math import isnan
from types import MappingProxyType
from typing import TYPE_CHECKING

from policies.pool import Place
from policies.prediction import assumed_only, stated
from policies.types import Outcome, Result

if TYPE_CHECKING:
    from federation.routing.decisions import Record

# Roads change; what is bounded by answers that are older than this (and younger than twice) is bounded anew.
WINDOW_SECONDS = 300.0
# The third least counts: two answers that some gateway measured wrong move nothing.
COUNTED = 3
# Pairs remembered; origins come with requests as any text.
MAX_ROADS = 4_096


@dataclass(slots=True)
class Road:
    """The least answers of this window and of the one before, in seconds, least first."""

    since: float
    heard_at: float = 0.0
    least: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)


class Roads:
    """By (origin, region). `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._roads: OrderedDict[tuple[str, str], Road] = OrderedDict()

    def heard(self, origin: str, region: str, seconds: float, now: float) -> None:
        """A first token came this much later than the node needs at the least."""
        road = self._roads.get((origin, region))
        if road is None:
            road = self._roads[origin, region] = Road(now)
            if len(self._roads) > MAX_ROADS:
                self._roads.popitem(last=False)
        elif now - road.since >= WINDOW_SECONDS:
            kept = road.least if now - road.since < 2 * WINDOW_SECONDS else []
            road.since, road.before, road.least = now, kept, []
        road.heard_at = now
        if len(road.least) < COUNTED or seconds < road.least[-1]:
            road.least = sorted([*road.least, max(0.0, seconds)])[:COUNTED]

    def learn(self, record: Record, deployment: str, outcome: Outcome, now: float) -> None:
        """Takes what an outcome tells of the road from its decision's origin to the deployment that it speaks of."""
        first, attempt = outcome.time_to_first_token_seconds, outcome.attempt
        if first is None or outcome.result not in (None, Result.OK) or attempt >= len(record.chosen):
            return
        # The end repeats what FIRST_TOKEN told.
        if (
            sum(each.attempt == attempt and each.time_to_first_token_seconds is not None for each in record.outcomes)
            > 1
        ):
            return
        compiled, row = record.table.compiled, record.chosen[attempt]
        if compiled.pool.names[row] != deployment:
            return
        # What is declared; what was learned is a usual time, and not the least.
        least = float(compiled.pool.least[row])
        region = compiled.deployed[row].region_id
        self.heard(record.plan.origin_region, region, first if isnan(least) else first - least, now)

    def bounds(self, origin: str, regions: tuple[str, ...]) -> Mapping[str, tuple[float, float]]:
        """Of some regions: the most that the road there takes, and when it was last heard of."""
        found = {}
        for region in regions:
            road = self._roads.get((origin, region))
            counted = [] if road is None else list(islice(merge(road.least, road.before), COUNTED))
            if road is not None and len(counted) == COUNTED:
                found[region] = counted[-1], road.heard_at
        return MappingProxyType(found)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The way to a region, for people. `source` is "local", "stated" (measured or declared), "reported" by answers,
    "assumed", or "estimated" from coordinates."""

    region_id: str
    seconds: float
    source: str


def told_trips(
    origin: str, places: Sequence[Place], seconds: Sequence[float], heard: Collection[str]
) -> list[RoundTrip]:
    """What is counted from an origin to each place, `seconds`, and how that is known; answers bound those `heard`."""
    said, unknown = stated(origin, places), assumed_only(origin, places)

    def source(name: str) -> str:
        if name == origin:
            return "local"
        if name in said:
            return "stated"
        if name in heard:
            return "reported"
        return "assumed" if name in unknown else "estimated"

    names = [place.region_id for place in places]
    return [RoundTrip(name, each, source(name)) for name, each in zip(names, seconds, strict=True)]
