"""What connections bear: bursts over the limit of streams, and settings that gRPC really has."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc

from federation.api.listening import SERVER_OPTIONS
from federation.edge.service_config import CHANNEL_OPTIONS
from federation.v1 import fleet_pb2, fleet_pb2_grpc
from tests.federation.server import running

# Three times what one connection may have open.
CALLS = 300


def test_grpc_knows_every_option_that_is_set():
    # It passes over others without a word: so idle clients were cut off for their keepalives.
    library = Path(cygrpc.__file__).read_bytes()

    names = [name for name, _ in (*SERVER_OPTIONS, *CHANNEL_OPTIONS)]
    assert [name for name in names if name.encode() + b"\0" not in library] == []


@pytest.mark.anyio
@pytest.mark.usefixtures("one_loop")
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
