"""The machines of the full demonstration: a PostgreSQL and two replicas for each region, and the engines."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from federation.simulation.demo import postgres
from federation.simulation.demo.checks import until
from federation.simulation.demo.engines import START_SECONDS, Engines, engine_of
from federation.simulation.demo.fleet import DemoFleet, DemoRegion, server_command
from federation.simulation.demo.full.plan import REPLICAS, dialed, replica_settings
from federation.simulation.demo.full.wires import Wire, wire
from federation.simulation.demo.processes import Processes

# What PostgreSQL says when it can be asked.
READY = "database system is ready to accept connections"


class Machines:
    """Starts, breaks and mends. Use it as `async with`; `replicas` and `engines` are addresses by name.

    A replica is named `region/number`. `wires` are by the region that dials and the replica that is dialed.
    """

    def __init__(self, fleet: DemoFleet, processes: Processes, seed: int) -> None:
        self._fleet, self._processes = fleet, processes
        self._engines = Engines(fleet, processes, seed)
        self._ports: dict[str, int] = {}
        self._stack = AsyncExitStack()
        self.replicas: dict[str, str] = {}
        self.engines = self._engines.addresses
        self.wires: dict[tuple[str, str], Wire] = {}

    async def __aenter__(self) -> Machines:
        self._home = postgres.new_home()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for region in self._fleet.regions:
            with suppress(KeyError):
                self._processes.crash(database_of(region.region_id))
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def directory(self) -> Path:
        return self._processes.directory

    async def start(self) -> None:
        """Starts everything; returns when all of it listens. NotShown, Ended, RuntimeError."""
        for node in self._fleet.nodes:
            self._engines.start(node)
        await self._lay_wires()
        await asyncio.to_thread(self._make_databases)
        for region in self._fleet.regions:
            self._start_database(region.region_id)
        for region in self._fleet.regions:
            await self._database_listens(region.region_id)
            for number in REPLICAS:
                self._start_replica(region, number)
        for name in self.names():
            await self._replica_listens(name)
        for node in self._fleet.nodes:
            await self._engines.listening(node)

    def names(self, region: str = "") -> tuple[str, ...]:
        """Replicas of one region, or of all."""
        regions = [each.region_id for each in self._fleet.regions if region in ("", each.region_id)]
        return tuple(f"{each}/{number}" for each in regions for number in REPLICAS)

    def around(self, region: str) -> list[Wire]:
        """All ways that begin or end in a region."""
        return [way for (one, other), way in self.wires.items() if region in (one, other.partition("/")[0])]

    def kill_replica(self, name: str) -> None:
        self._processes.kill(name)

    async def start_replica(self, name: str) -> None:
        """Starts a replica again, where it listened before. NotShown, Ended."""
        region, _, number = name.partition("/")
        self._start_replica(self._region(region), int(number))
        await self._replica_listens(name)

    def stop_database(self, region: str) -> None:
        """Ends it as a crash does; what it had acknowledged stays."""
        self._processes.crash(database_of(region))

    async def start_database(self, region: str) -> None:
        self._start_database(region)
        await self._database_listens(region)

    def cut_power(self, region: str) -> None:
        """Everything in a region ends at once."""
        for name in self.names(region):
            self._processes.kill(name)
        for node in self._fleet.nodes_of(region):
            self._processes.kill(engine_of(node.name))
        self.stop_database(region)

    async def power_up(self, region: str) -> None:
        """Starts everything in a region again, at the same addresses. NotShown, Ended."""
        for node in self._fleet.nodes_of(region):
            self._engines.start(node)
        await self.start_database(region)
        for number in REPLICAS:
            self._start_replica(self._region(region), number)
        for name in self.names(region):
            await self._replica_listens(name)
        for node in self._fleet.nodes_of(region):
            await self._engines.listening(node)

    def require(self, names: Iterable[str]) -> None:
        """Ended where one of these replicas did."""
        self._processes.require(*names)

    async def _lay_wires(self) -> None:
        for region in self._fleet.regions:
            for other in dialed(self._fleet, region.region_id):
                for name in self.names(other):
                    way = wire(self._fleet.round_trip(region.region_id, other))
                    self.wires[region.region_id, name] = await self._stack.enter_async_context(way)

    def _make_databases(self) -> None:
        self._programs = postgres.programs(self._home)
        first, *others = (self._data(region.region_id) for region in self._fleet.regions)
        first.parent.mkdir()
        postgres.give(first.parent)
        postgres.initialise(self._programs, first)
        for other in others:
            postgres.copy(first, other)

    def _data(self, region: str) -> Path:
        return self._home / "regions" / region

    def _start_database(self, region: str) -> None:
        port = self._ports.setdefault(region, postgres.free_port())
        name = database_of(region)
        self._processes.put_log_aside(name)
        command = postgres.command(self._programs, self._data(region), port)
        self._processes.start(name, command, cwd=self._home, **postgres.user())

    async def _database_listens(self, region: str) -> None:
        name = database_of(region)

        async def look() -> tuple[bool, object]:
            self._processes.require(name)
            return READY in self._processes.log(name).read_text(encoding="utf-8", errors="replace"), "not yet"

        await until(f"the PostgreSQL of {region} to listen", look, START_SECONDS)

    def _start_replica(self, region: DemoRegion, number: int) -> None:
        name = f"{region.region_id}/{number}"
        peers = tuple(way.address for (one, _), way in self.wires.items() if one == region.region_id)
        settings = replica_settings(
            region,
            self.directory,
            name=name,
            listen=self.replicas.get(name, "127.0.0.1:0"),
            database=postgres.url(self._ports[region.region_id]),
            peers=peers,
        )
        config = self.directory / f"{name.replace('/', '-')}.toml"
        config.write_text(settings, encoding="utf-8")
        self._processes.put_log_aside(name)
        self._processes.start(name, server_command(config))

    async def _replica_listens(self, name: str) -> None:
        async def look() -> tuple[bool, object]:
            self._processes.require(name)
            for line in self._processes.log(name).read_text(encoding="utf-8", errors="replace").splitlines():
                if '"serving"' in line:
                    self.replicas[name] = json.loads(line)["grpc"]
                    return True, self.replicas[name]
            return False, "not yet"

        await until(f"replica {name} to listen", look, START_SECONDS)
        for (_, dialed_replica), way in self.wires.items():
            if dialed_replica == name:
                way.target = self.replicas[name]

    def _region(self, region: str) -> DemoRegion:
        return next(each for each in self._fleet.regions if each.region_id == region)


def database_of(region: str) -> str:
    """The name of a region's database process."""
    return f"{region}/postgres"
