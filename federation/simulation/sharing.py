"""The exchange between routers of a run: each tells its pending sums to the others, as late as the path makes it."""

from __future__ import annotations

from collections.abc import Sequence

from federation.routing.siblings import SUM_SECONDS, SUMS_EVERY_SECONDS
from federation.simulation.routers import PolicyPlacer
from federation.simulation.world import World


class Exchange:
    """Carries sums between the routers of all gateways, over the paths and through the faults of a world."""

    def __init__(self, world: World, placers: Sequence[PolicyPlacer]) -> None:
        self._world = world
        self._placers = placers

    def start(self) -> None:
        """Sets the first telling of each, not all at one moment."""
        for number in range(len(self._placers)):
            self._world.at(SUMS_EVERY_SECONDS * number / len(self._placers), self._tell, number)

    def _tell(self, sender: int) -> None:
        world, gateways = self._world, self._world.fleet.gateways
        sums, here = self._sums(sender), gateways[sender].region_id
        for receiver, gateway in enumerate(gateways):
            there = gateway.region_id
            if receiver == sender or (here != there and (here in world.cut or there in world.cut)):
                continue
            late = world.fleet.round_trip[here, there] / 2 + world.signal_delay
            world.at(world.now + late, self._heard, receiver, gateways[sender].gateway_id, sums, late)
        world.at(world.now + SUMS_EVERY_SECONDS, self._tell, sender)

    def _sums(self, sender: int) -> dict[str, tuple[float, float]]:
        state = self._placers[sender].router.state
        pending, in_flight = state.own().tolist()
        # Less than a token is what rounding left of others.
        busy = ((name, pending[slot], in_flight[slot]) for name, slot in state.slots.items())
        return {name: (tokens, requests) for name, tokens, requests in busy if tokens >= 0.5 or requests >= 0.5}

    def _heard(self, receiver: int, sender: str, sums: dict[str, tuple[float, float]], late: float) -> None:
        if late <= SUM_SECONDS:
            # Whoever is silent meanwhile: between two decisions nobody reads more than the last of each.
            self._placers[receiver].told[sender] = (sums, self._world.now - late)
