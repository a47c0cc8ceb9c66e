"""Many calls at once over one connection: those over the limit of streams wait for room, none is refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest

from federation.v1 import fleet_pb2, fleet_pb2_grpc
from tests.federation.server import running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
# Three times what one connection may have open.
CALLS = 300


async def test_a_burst_over_one_connection_is_answered_without_retries():
    answers: Counter[str] = Counter()
    without_retries = [("grpc.enable_retries", 0)]
    async with (
        running() as fairway,
        grpc.aio.insecure_channel(fairway.target, without_retries) as channel,
    ):
        fleet = fleet_pb2_grpc.FleetServiceStub(channel)  # type: ignore[no-untyped-call]

        async def ask() -> None:
            try:
                await fleet.GetFleet(fleet_pb2.GetFleetRequest())
            except grpc.aio.AioRpcError as error:
                answers[f"{error.code().name} {error.details()}"] += 1
            else:
                answers["answered"] += 1

        for _ in range(3):
            await asyncio.gather(*(ask() for _ in range(CALLS)))

    assert answers == {"answered": 3 * CALLS}
