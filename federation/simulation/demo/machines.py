"""The machines of the demonstration: the control plane, and an engine and an agent for each node."""

from __future__ import annotations

import json
from pathlib import Path

from federation.simulation.demo.checks import until
from federation.simulation.demo.fleet import DemoFleet, DemoNode, agent_command, engine_command, server_command
from federation.simulation.demo.fleet import server_settings as settings_of
from federation.simulation.demo.processes import Processes

SERVER = "control-plane"
# The interpreter alone needs a second on a busy machine, and twenty start at once.
START_SECONDS = 60.0


class Machines:
    """Starts, breaks and mends; `server` and `engines` (by node) are the addresses of those that have listened."""

    def __init__(self, fleet: DemoFleet, processes: Processes, seed: int) -> None:
        self._fleet, self._processes, self._seed = fleet, processes, seed
        self.server = ""
        self.engines: dict[str, str] = {}

    @property
    def directory(self) -> Path:
        return self._processes.directory

    async def start(self) -> None:
        """Starts control plane and engines; returns when all of them listen. NotShown, Ended."""
        config = self.directory / "fairway.toml"
        config.write_text(settings_of(self._fleet, self.directory), encoding="utf-8")
        self._processes.start(SERVER, server_command(config))
        for node in self._fleet.nodes:
            self._start_engine(node)
        await until("the control plane to listen", self._server_listens, START_SECONDS)
        for node in self._fleet.nodes:
            await self._listening(node)

    async def start_engine(self, node: DemoNode) -> None:
        """Starts an engine again, where it listened before. NotShown, Ended."""
        self._start_engine(node)
        await self._listening(node)

    def start_agent(self, node: DemoNode) -> None:
        command = agent_command(node, engine=self.engines[node.name], server=self.server)
        self._processes.start(agent_of(node.name), command)

    def kill_engine(self, node: DemoNode) -> None:
        self._processes.kill(engine_of(node.name))

    def end_agent(self, node: DemoNode) -> None:
        self._processes.end(agent_of(node.name))

    def freeze_engine(self, node: DemoNode) -> None:
        self._processes.freeze(engine_of(node.name))

    def thaw_engine(self, node: DemoNode) -> None:
        self._processes.thaw(engine_of(node.name))

    def require_server(self) -> None:
        """Ended where the control plane did."""
        self._processes.require(SERVER)

    def _start_engine(self, node: DemoNode) -> None:
        ready = self._ready_file(node)
        ready.unlink(missing_ok=True)
        port = int(self.engines[node.name].rpartition(":")[2]) if node.name in self.engines else 0
        seed = self._seed * 100 + self._fleet.nodes.index(node)
        self._processes.start(engine_of(node.name), engine_command(self._fleet, node, ready, seed=seed, port=port))

    async def _listening(self, node: DemoNode) -> None:
        async def look() -> tuple[bool, object]:
            self._processes.require(engine_of(node.name))
            ready = self._ready_file(node)
            if not ready.exists():
                return False, "not yet"
            self.engines[node.name] = json.loads(ready.read_text(encoding="utf-8"))["address"]
            return True, self.engines[node.name]

        await until(f"the engine of {node.name} to listen", look, START_SECONDS)

    async def _server_listens(self) -> tuple[bool, object]:
        self._processes.require(SERVER)
        for line in self._processes.log(SERVER).read_text(encoding="utf-8", errors="replace").splitlines():
            if '"serving"' in line:
                self.server = json.loads(line)["grpc"]
                return True, self.server
        return False, "not yet"

    def _ready_file(self, node: DemoNode) -> Path:
        return self.directory / f"{node.region_id}-{node.node_id}.ready"


def engine_of(node: str) -> str:
    """The name of a node's engine process."""
    return f"engine/{node}"


def agent_of(node: str) -> str:
    return f"agent/{node}"
