"""The machines of the demonstration: the control plane, and an engine and an agent for each node."""

from __future__ import annotations

import json
from pathlib import Path

from federation.simulation.demo.checks import until
from federation.simulation.demo.engines import START_SECONDS, Engines, engine_of
from federation.simulation.demo.fleet import DemoFleet, DemoNode, agent_command, server_command
from federation.simulation.demo.fleet import server_settings as settings_of
from federation.simulation.demo.processes import Processes

SERVER = "control-plane"


class Machines:
    """Starts, breaks and mends; `server` and `engines` (by node) are the addresses of those that have listened."""

    def __init__(self, fleet: DemoFleet, processes: Processes, seed: int) -> None:
        self._fleet, self._processes = fleet, processes
        self._engines = Engines(fleet, processes, seed)
        self.server = ""
        self.engines = self._engines.addresses

    @property
    def directory(self) -> Path:
        return self._processes.directory

    async def start(self) -> None:
        """Starts control plane and engines; returns when all of them listen. NotShown, Ended."""
        config = self.directory / "fairway.toml"
        config.write_text(settings_of(self._fleet, self.directory), encoding="utf-8")
        self._processes.start(SERVER, server_command(config))
        for node in self._fleet.nodes:
            self._engines.start(node)
        await until("the control plane to listen", self._server_listens, START_SECONDS)
        for node in self._fleet.nodes:
            await self._engines.listening(node)

    async def start_engine(self, node: DemoNode) -> None:
        """Starts an engine again, where it listened before. NotShown, Ended."""
        self._engines.start(node)
        await self._engines.listening(node)

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

    async def _server_listens(self) -> tuple[bool, object]:
        self._processes.require(SERVER)
        for line in self._processes.log(SERVER).read_text(encoding="utf-8", errors="replace").splitlines():
            if '"serving"' in line:
                self.server = json.loads(line)["grpc"]
                return True, self.server
        return False, "not yet"


def agent_of(node: str) -> str:
    return f"agent/{node}"
