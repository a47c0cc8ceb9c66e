"""Faults of nodes, as two replicas and their callers see them: every circuit open at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import grpc

from federation.v1 import fleet_pb2, routing_pb2
from tests.faults.crew import Crew, crew, enrolled
from tests.faults.regions import CALL_SECONDS, Place, until
from tests.faults.scale import Measured, Scale
from tests.federation.server import engine, unpacked
from tests.postgres import Postgres

NODES = 4
SERVER_ERROR = routing_pb2.OUTCOME_RESULT_SERVER_ERROR


async def all_open(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Every node refuses every call, though probes pass: callers of two replicas are told when to come again."""
    flags = {
        "circuit.open_seconds": scale.open_seconds,
        "circuit.max_open_seconds": 10 * scale.open_seconds,
        # The only trials are requests; callers report them as failed.
        "health.slow_start_seconds": 1.0,
    }
    async with crew(directory, postgres.empty_database(), 2, **flags) as found, engine("m") as server:
        for number in range(NODES):
            await enrolled(found.place, f"n{number}", server.url)
        await until(found.all_route)
        storm = Storm(found)
        started = time.monotonic()
        await until(storm.everything_open)
        opened = time.monotonic()
        await storm.blow(scale.storm_seconds, scale.crew_rate)
        periods = await storm.openings()
        most = max((storm.trials[node] - max(0, periods[node] - 1) for node in periods), default=0)
        return Measured(
            "14",
            f"all {NODES} nodes refuse every call for {scale.storm_seconds:g} s; circuits open for "
            f"{scale.open_seconds:g} s and more",
            f"{scale.crew_rate:g} Route/s at two replicas",
            "explicit answer with the earliest time to try again; at most one trial a node and half-open time, "
            "fleet-wide",
            f"open after {opened - started:.1f} s; {storm.refused.total()} refused with "
            f"{', '.join(sorted(storm.refused))}, {storm.untimed} without a time; {storm.flagged} least-bad "
            "choices flagged as panic; "
            f"{storm.trials.total()} trials in {sum(max(0, count - 1) for count in periods.values())} half-open times",
            set(storm.refused) == {"ALL_NODES_UNHEALTHY"} and storm.untimed == 0 and most <= 0,
        )


class Storm:
    """Callers whose every attempt fails. `trials` are decisions after all circuits opened, by node."""

    def __init__(self, found: Crew) -> None:
        self._places = cycle(found.places)
        self._found = found
        self.refused: Counter[str] = Counter()
        self.trials: Counter[str] = Counter()
        self.untimed = self.flagged = 0

    async def everything_open(self) -> bool:
        """Fails every call that is decided; whether all circuits are open at both replicas."""
        for _ in range(NODES):
            await self._fail(next(self._places))
        self.refused.clear()
        self.trials.clear()
        self.untimed = self.flagged = 0
        states = [await circuits(place) for place in self._found.places]
        return all([each.state for each in of.values()] == [fleet_pb2.CIRCUIT_STATE_OPEN] * NODES for of in states)

    async def blow(self, seconds: float, rate: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._fail(next(self._places))
            await asyncio.sleep(1.0 / rate)

    async def openings(self) -> dict[str, int]:
        """How often each node's circuit opened, as the replica says that saw most of it."""
        counts: Counter[str] = Counter()
        for place in self._found.places:
            for node, circuit in (await circuits(place)).items():
                counts[node] = max(counts[node], circuit.opens_total)
        return dict(counts)

    async def _fail(self, place: Place) -> None:
        try:
            decision = await place.route()
        except grpc.aio.AioRpcError as error:
            told = unpacked(error)
            self.refused[told.reason] += 1
            self.untimed += told.retry_seconds is None
            return
        if decision.panic:
            # One that is half-open counts as available, and with so few of them policies set health aside, and say so.
            self.flagged += 1
        else:
            self.trials[decision.target.node_id] += 1
        outcome = routing_pb2.Outcome(
            decision_id=decision.decision_id,
            phase=routing_pb2.OUTCOME_PHASE_FINISHED,
            result=SERVER_ERROR,
        )
        await place.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome]), timeout=CALL_SECONDS)


async def circuits(place: Place) -> dict[str, fleet_pb2.Circuit]:
    answer = await place.fleet.ListCircuits(fleet_pb2.ListCircuitsRequest())
    return {each.node_id: each.circuit for each in answer.circuits}
