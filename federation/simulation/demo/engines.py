"""The engines of a demonstration: one stand-in process for each node."""

from __future__ import annotations

import json
from pathlib import Path

from federation.simulation.demo.checks import until
from federation.simulation.demo.fleet import DemoFleet, DemoNode, engine_command
from federation.simulation.demo.processes import Processes

# The interpreter alone needs a second on a busy machine, and twenty start at once.
START_SECONDS = 180.0


class Engines:
    """`addresses` are of those that have listened, by node; one that is started again listens where it did."""

    def __init__(self, fleet: DemoFleet, processes: Processes, seed: int) -> None:
        self._fleet, self._processes, self._seed = fleet, processes, seed
        self.addresses: dict[str, str] = {}

    def start(self, node: DemoNode) -> None:
        """Returns at once; `listening` waits for it."""
        ready = self._ready_file(node)
        ready.unlink(missing_ok=True)
        port = int(self.addresses[node.name].rpartition(":")[2]) if node.name in self.addresses else 0
        seed = self._seed * 100 + self._fleet.nodes.index(node)
        self._processes.start(engine_of(node.name), engine_command(self._fleet, node, ready, seed=seed, port=port))

    async def listening(self, node: DemoNode) -> None:
        """Returns once it listens. NotShown, Ended."""

        async def look() -> tuple[bool, object]:
            self._processes.require(engine_of(node.name))
            ready = self._ready_file(node)
            if not ready.exists():
                return False, "not yet"
            self.addresses[node.name] = json.loads(ready.read_text(encoding="utf-8"))["address"]
            return True, self.addresses[node.name]

        await until(f"the engine of {node.name} to listen", look, START_SECONDS)

    def _ready_file(self, node: DemoNode) -> Path:
        return self._processes.directory / f"{node.region_id}-{node.node_id}.ready"


def engine_of(node: str) -> str:
    """The name of a node's engine process."""
    return f"engine/{node}"
