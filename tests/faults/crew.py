"""Replicas of one region as processes on one PostgreSQL, and callers with the shipped client that never stop asking."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc

from federation.edge.client import Client, ClientOptions, RouteError
from federation.v1 import routing_pb2
from tests.faults.lives import Life
from tests.faults.regions import CALL_SECONDS, PROMPT, PUBLIC, ROOMY, Place, until

FINISHED = routing_pb2.OUTCOME_PHASE_FINISHED
OK = routing_pb2.OUTCOME_RESULT_OK


class Replica:
    """One replica, by its place in the crew; a new life listens where the first one did."""

    def __init__(self, flags: dict[str, object], log: Path) -> None:
        self._flags, self.log = flags, log
        self.address = ""

    async def begin(self) -> None:
        listen = {"server.listen": self.address} if self.address else {}
        self.life = await Life.begin({**self._flags, **listen}, self.log)
        self.address = self.life.address


@dataclass
class Crew:
    """`place` talks to the first replica."""

    replicas: list[Replica]
    place: Place
    places: list[Place]

    @property
    def addresses(self) -> list[str]:
        return [replica.address for replica in self.replicas]

    async def all_route(self) -> bool:
        return all([await routed(place) for place in self.places])

    async def all_linked(self) -> bool:
        """Whether each replica has a link to each other one."""
        counts = [Counter((await place.siblings()).values())["UP"] for place in self.places]
        return counts == [len(self.replicas) - 1] * len(self.replicas)


async def routed(place: Place, model_id: str = "m") -> bool:
    """Whether a request finds a target; its room is given back."""
    try:
        await place.finished(await place.route(model_id=model_id))
    except grpc.aio.AioRpcError:
        return False
    return True


async def enrolled(place: Place, node_id: str, endpoint: str = "http://127.0.0.1:1", **labels: str) -> None:
    """Registers a node with room for all; on a machine that does much else a database may not answer in time."""

    async def taken() -> bool:
        try:
            await place.register(node_id, endpoint, batch=ROOMY, labels=labels)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return False
        return True

    await until(taken)


async def retired(place: Place, node_id: str) -> None:
    """Deregisters a node, as patiently."""

    async def gone() -> bool:
        try:
            await place.deregister(node_id)
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND), error
            return error.code() is grpc.StatusCode.NOT_FOUND
        return True

    await until(gone)
    place.nodes.discard(f"{place.name}/{node_id}")


@asynccontextmanager
async def crew(directory: Path, database: str, count: int, **flags: object) -> AsyncIterator[Crew]:
    """So many replicas, linked with each other."""
    settings: dict[str, object] = {
        "store.url": database,
        "health.probe_interval_seconds": 0.5,
        "health.recheck_interval_seconds": 0.2,
        **flags,
    }
    async with AsyncExitStack() as stack:
        replicas = [Replica(settings, directory / f"replica-{number}.log") for number in range(count)]
        places = []
        for replica in replicas:
            await replica.begin()
            stack.push_async_callback(ended, replica)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(replica.address))
            places.append(Place("local", replica.life, channel))
        found = Crew(replicas, places[0], places)
        await until(found.all_linked)
        yield found
    for replica in replicas:
        assert "Traceback" not in replica.log.read_text()


async def ended(replica: Replica) -> None:
    if replica.life.process.is_alive():
        await replica.life.end()


@dataclass
class Gateways:
    """Calls at a rate, or one after the other, each reported as finished. `failures` are by their time."""

    seconds: list[float] = field(default_factory=list)
    # Who answered, by life.
    replicas: set[str] = field(default_factory=set)
    failures: list[tuple[float, str]] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.seconds) + len(self.failures)

    @property
    def reasons(self) -> str:
        return str(dict(Counter(reason for _, reason in self.failures)) or "")

    def p(self, share: float) -> float:
        """A quantile of the seconds that answers took."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    async def answered_by(self, lives: int) -> None:
        """Waits until so many lives of replicas have answered. A client that found nobody at an address looks again
        after up to 5 s; until then there is one replica less for it, however well that one is."""

        async def answered() -> bool:
            return len(self.replicas) >= lives

        await until(answered)

    async def ask(self, client: Client) -> None:
        asked = time.monotonic()
        request = routing_pb2.RouteRequest(model_id="m", qos={"privacy_level": PUBLIC}, prompt=PROMPT)
        try:
            decision = (await client.route(request)).decision
        except RouteError as error:
            self.failures.append((time.monotonic(), str(error)[:120]))
        else:
            self.seconds.append(time.monotonic() - asked)
            self.replicas.add(decision.decision_id.rpartition("-")[0])
            client.report(routing_pb2.Outcome(decision_id=decision.decision_id, phase=FINISHED, result=OK))

    async def at_rate(self, client: Client, rate: float) -> None:
        """Until cancelled. Calls go out on time, whatever becomes of those before."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while True:
                calls.create_task(self.ask(client))
                due += 1.0 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def one_after_the_other(self, client: Client) -> None:
        """Until cancelled."""
        while True:
            await self.ask(client)
            await asyncio.sleep(0.01)


def patient(*, hedge: bool = False, seconds: float = CALL_SECONDS) -> ClientOptions:
    """The shipped client for a machine that does much else."""
    return ClientOptions(route_timeout_seconds=seconds, hedge=hedge)


@asynccontextmanager
async def calling(
    addresses: Sequence[str], rate: float, options: ClientOptions | None = None
) -> AsyncIterator[Gateways]:
    """One gateway that asks all of these replicas at a rate while the block runs; every call is waited for."""
    gateways = Gateways()
    async with Client(addresses, options or patient(), rng=Random(1)) as client:
        task = asyncio.create_task(gateways.at_rate(client, rate))
        try:
            yield gateways
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
