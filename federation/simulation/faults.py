"""Faults: what goes wrong in a run, where, and from when to when.

Written `KIND`, `KIND:TARGET`, `KIND@FROM-TO` or `KIND:TARGET@FROM-TO`; FROM and TO are shares of the run's length.
TARGET is a node, or a region for `cut` and `prices`; without one the first of `suspects` is taken, or the busiest
region's neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from federation.simulation.fleet import Fleet, FleetInvalid
from federation.simulation.traces import TraceRequest, with_burst
from federation.simulation.world import World

# A gray node takes this many times longer for everything, and its health check passes.
GRAY_FACTOR = 8.0
# Signals come this much later than they should.
STALE_SECONDS = 20.0
# A flapping node is dead for so long, and alive for so long.
FLAP_SECONDS = 5.0
# As many times more requests than the load says, while the overload lasts.
OVERLOAD_FACTOR = 2.0
PRICE_FACTOR = 3.0
# A node that comes back cold: its share of speed, doubling until it is whole, and the time of each step.
COLD_SPEED = 0.125
COLD_STEP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `begin` and `end` are shares of the run's length."""

    kind: str
    target: str = ""
    begin: float = 0.25
    end: float = 0.75

    def __str__(self) -> str:
        return f"{self.kind}{':' * bool(self.target)}{self.target}"


def parse_fault(text: str) -> Fault:
    """A fault from its short form. Raises FleetInvalid."""
    head, _, times = text.partition("@")
    kind, _, target = head.partition(":")
    if kind not in KINDS:
        raise FleetInvalid(f"fault {kind!r} is of no known kind; there are {', '.join(KINDS)}")
    if not times:
        return Fault(kind, target)
    try:
        begin, end = (float(each) for each in times.split("-"))
    except ValueError:
        raise FleetInvalid(f"fault {text!r}: after the @ stand two shares of the run, as in @0.25-0.75") from None
    if not 0.0 <= begin < end <= 1.0:
        raise FleetInvalid(f"fault {text!r}: the shares must be 0 <= FROM < TO <= 1")
    return Fault(kind, target, begin, end)


def shaped(requests: Sequence[TraceRequest], faults: Sequence[Fault]) -> tuple[TraceRequest, ...]:
    """The requests with the bursts of overload faults; the others leave them as they are."""
    length = requests[-1].arrival
    found = tuple(requests)
    for fault in faults:
        if fault.kind == "overload":
            found = with_burst(found, OVERLOAD_FACTOR, fault.begin * length, fault.end * length)
    return found


def schedule(world: World, faults: Sequence[Fault], length: float) -> None:
    """Puts the faults into a world whose run is so long."""
    for fault in faults:
        KINDS[fault.kind](world, fault, fault.begin * length, fault.end * length)


def node_of(fleet: Fleet, fault: Fault) -> str:
    """The node that a fault hits: as named, else the fastest of the region with the most gateways."""
    names = [node.name for node in fleet.nodes]
    if fault.target:
        if fault.target not in names:
            raise FleetInvalid(
                f"fault {fault}: node {fault.target!r} is not in fleet {fleet.name!r}; there are {', '.join(names)}"
            )
        return fault.target
    busiest = max(fleet.gateways, key=lambda gateway: gateway.share).region_id
    local = [node for node in fleet.nodes if node.region_id == busiest] or list(fleet.nodes)
    return min(local, key=lambda node: (node.profile.prefill_seconds_per_token, node.name)).name


def region_of(fleet: Fleet, fault: Fault) -> str:
    """The region that a fault hits: as named, else the one with the second most nodes, or the only one."""
    regions: dict[str, int] = {}
    for node in fleet.nodes:
        regions[node.region_id] = regions.get(node.region_id, 0) + 1
    if fault.target:
        if fault.target not in regions:
            raise FleetInvalid(
                f"fault {fault}: region {fault.target!r} has no node in fleet {fleet.name!r};"
                f" these have: {', '.join(regions)}"
            )
        return fault.target
    ordered = sorted(regions, key=lambda region: (-regions[region], region))
    return ordered[min(1, len(ordered) - 1)]


def _gray(world: World, fault: Fault, begin: float, end: float) -> None:
    name = node_of(world.fleet, fault)
    world.at(begin, world.slow, name, 1.0 / GRAY_FACTOR)
    world.at(end, world.slow, name, 1.0)


def _fast_failure(world: World, fault: Fault, begin: float, end: float) -> None:
    engine = world.engines[node_of(world.fleet, fault)]
    world.at(begin, _set_failing, engine, True)
    world.at(end, _set_failing, engine, False)


def _set_failing(engine: object, failing: bool) -> None:
    engine.failing = failing  # type: ignore[attr-defined]


def _killed(world: World, fault: Fault, begin: float, end: float) -> None:
    name = node_of(world.fleet, fault)
    world.at(begin, world.kill, name)
    world.at(end, world.revive, name)


def _cold(world: World, fault: Fault, begin: float, end: float) -> None:
    name = node_of(world.fleet, fault)
    world.at(begin, world.kill, name)
    back = begin + (end - begin) * 0.25
    world.at(back, world.revive, name, COLD_SPEED)
    speed, step = COLD_SPEED, 1
    while speed < 1.0:
        speed = min(1.0, speed * 2.0)
        world.at(back + step * COLD_STEP_SECONDS, world.slow, name, speed)
        step += 1


def _flapping(world: World, fault: Fault, begin: float, end: float) -> None:
    name, at, up = node_of(world.fleet, fault), begin, True
    while at < end:
        world.at(at, world.kill if up else world.revive, name)
        at, up = at + FLAP_SECONDS, not up
    if not up:
        world.at(end, world.revive, name)


def _cut(world: World, fault: Fault, begin: float, end: float) -> None:
    region = region_of(world.fleet, fault)
    world.at(begin, world.cut_off, frozenset([region]))
    world.at(end, world.cut_off, frozenset())


def _stale(world: World, fault: Fault, begin: float, end: float) -> None:
    world.at(begin, setattr, world, "signal_delay", STALE_SECONDS)
    world.at(end, setattr, world, "signal_delay", 0.0)


def _prices(world: World, fault: Fault, begin: float, end: float) -> None:
    world.at(begin, world.set_prices, {region_of(world.fleet, fault): PRICE_FACTOR})
    world.at(end, world.set_prices, {})


def _overload(world: World, fault: Fault, begin: float, end: float) -> None:
    """Stands in the trace already."""


KINDS: Mapping[str, Callable[[World, Fault, float, float], None]] = MappingProxyType(
    {
        "gray": _gray,
        "fast-failure": _fast_failure,
        "killed": _killed,
        "cut": _cut,
        "stale": _stale,
        "overload": _overload,
        "flapping": _flapping,
        "prices": _prices,
        "cold": _cold,
    }
)
