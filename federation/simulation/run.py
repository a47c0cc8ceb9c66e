"""One run of a comparison: a fleet, a trace at a load, faults, and one way to route; a function of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from federation.simulation.baselines import behaviour_of
from federation.simulation.faults import Fault, schedule, shaped
from federation.simulation.fleet import Fleet, FleetInvalid
from federation.simulation.metrics import Series, Summary, series, summarize
from federation.simulation.oracles import ORACLES, OraclePlacer
from federation.simulation.routers import Behaviour, PolicyPlacer
from federation.simulation.sharing import Exchange
from federation.simulation.traces import TraceRequest, at_rate, capacity
from federation.simulation.world import Journey, Placer, World
from policies import chance


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every entry of a comparison meets alike. `load` is a share of the fleet's capacity; 0 leaves the trace."""

    fleet: Fleet
    requests: tuple[TraceRequest, ...]
    load: float = 0.0
    faults: tuple[Fault, ...] = ()
    seed: int = 1
    # Share of the run at its start that is run and not counted: learning needs a past.
    unmeasured: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One entry's run."""

    name: str
    summary: Summary
    series: Series
    journeys: tuple[Journey, ...]


def prepared(scenario: Scenario) -> tuple[TraceRequest, ...]:
    """The requests at the scenario's load, with its bursts."""
    requests = scenario.requests
    if scenario.load > 0:
        requests = at_rate(requests, scenario.load * capacity(scenario.fleet, requests))
    return shaped(requests, scenario.faults)


def simulate(
    scenario: Scenario,
    name: str,
    behaviour: Behaviour | None = None,
    *,
    requests: Sequence[TraceRequest] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs a scenario by an oracle, a baseline, a preset, or the behaviour given. Raises FleetInvalid."""
    requests = prepared(scenario) if requests is None else requests
    world = World(scenario.fleet, requests, scenario.seed, on_progress)
    schedule(world, scenario.faults, requests[-1].arrival)
    world.run(_placers(world, scenario, name, behaviour))
    start = scenario.unmeasured * requests[-1].arrival
    measured = tuple(journey for journey in world.journeys if journey.arrived >= start)
    return Outcome(name, summarize(scenario.fleet, measured), series(scenario.fleet, measured), measured)


def _placers(world: World, scenario: Scenario, name: str, behaviour: Behaviour | None) -> list[Placer]:
    gateways = scenario.fleet.gateways
    if name in ORACLES:
        oracle = OraclePlacer(world, name)
        return [oracle for _ in gateways]
    behaviour = behaviour or behaviour_of(name)
    if behaviour is None:
        raise FleetInvalid(f"policy {name!r} is neither an oracle, a baseline nor a preset")

    def clock() -> float:
        return world.now

    placers: list[PolicyPlacer] = []
    for number, gateway in enumerate(gateways if behaviour.apart else gateways[:1]):
        seed = chance.mix(scenario.seed * 1_000_003 + number)
        placers.append(PolicyPlacer(scenario.fleet, gateway, behaviour, seed, clock))
    if behaviour.apart and behaviour.sharing:
        Exchange(world, placers).start()
    return list(placers) if behaviour.apart else list(placers * len(gateways))
