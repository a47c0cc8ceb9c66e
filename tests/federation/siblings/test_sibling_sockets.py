"""Control planes that share a store, over real sockets: TLS, strangers, and a replica that joins."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from catalog.memory import MemoryStore
from federation.siblings import wire
from federation.siblings.messages import Hello, Life
from federation.v1 import peering_pb2_grpc, routing_pb2
from tests.federation.certificates import an_authority, write_pair
from tests.federation.server import Running, ShiftedClock, engine, running, until

pytestmark = pytest.mark.anyio
# Never opened: the store is handed in. It tells that other processes may serve the same catalog.
SHARED = {"store.url": "postgresql://nobody@127.0.0.1:1/none"}


def a_store() -> MemoryStore:
    return MemoryStore("local", clock=ShiftedClock().wall)


def linked(*all_of_them: Running) -> bool:
    return all(
        [status.state for status in each.plane.siblings.statuses()].count("up") == len(all_of_them) - 1
        for each in all_of_them
        if each.plane.siblings is not None
    )


async def test_replicas_with_tls_trust_the_certificate_that_they_share(tmp_path: Path):
    authority = an_authority()
    certificate, key = write_pair(tmp_path, authority.issue("replica"))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    flags = {
        **SHARED,
        "security.tls_certificate": certificate,
        "security.tls_key": key,
        "security.tls_client_ca": tmp_path / "ca.crt",
    }
    store = a_store()
    async with running(flags, store=store, seed=1) as one, running(flags, store=store, seed=2) as two:
        await until(lambda: linked(one, two))

        (status,) = one.plane.siblings.statuses()

        assert status.address.startswith("https://")


async def test_a_stranger_is_refused_whatever_it_calls_itself():
    async with running(SHARED, store=a_store()) as one:
        stub = peering_pb2_grpc.PeeringServiceStub(one.channel)  # type: ignore[no-untyped-call]
        call = stub.Exchange()
        await call.write(wire.request_to(Hello(Life("local.ffffffff", "guessed"), "guessed")))
        answer = await call.read()

        assert "no replica in this life" in answer.goodbye.reason
        assert one.plane.siblings.statuses() == []


async def test_a_server_without_replicas_takes_none():
    async with running({"region.owns": ("local",)}) as alone:
        stub = peering_pb2_grpc.PeeringServiceStub(alone.channel)  # type: ignore[no-untyped-call]
        call = stub.Exchange()
        await call.write(wire.request_to(Hello(Life("x", "y"), "z")))

        assert "it has no replicas" in (await call.read()).goodbye.reason


async def test_a_replica_without_peering_takes_no_regions():
    async with running(SHARED, store=a_store()) as one, running({"region.id": "eu", "region.owns": ("eu",)}) as eu:
        assert eu.plane.siblings is None
        stub = peering_pb2_grpc.PeeringServiceStub(one.channel)  # type: ignore[no-untyped-call]
        call = stub.Exchange()
        await call.write(wire.pb.ExchangeRequest(hello=wire.pb.PeerHello(region_id="eu", incarnation="1")))

        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_replica_that_joins_routes_by_what_the_others_know_from_its_first_call():
    store = a_store()
    async with running(SHARED, store=store, seed=1) as one, engine("m") as node:
        await one.register("local", "n1", node.url, "m")
        await one.until_routable("m")

        async with running(SHARED, store=store, seed=2) as two:
            decision = await two.route("m")

            assert decision.target.node_id == "n1"
            assert linked(one, two)


async def test_replicas_that_both_have_traffic_send_one_trial_between_them():
    store = a_store()
    flags = {**SHARED, "circuit.open_seconds": 1.0, "health.probe_interval_seconds": 0.5}
    async with (
        running(flags, store=store, seed=1) as one,
        running(flags, store=store, seed=2) as two,
        engine("m") as node,
    ):
        await one.register("local", "n1", node.url, "m")
        for each in (one, two):
            await each.until_routable("m")
        await until(lambda: linked(one, two))
        links = [each.link for plane in (one, two) for each in plane.plane.siblings._up.values()]
        await fail(one, 5)
        await until(lambda: states(one, two) == ["open", "open"])

        trials, rounds = 0, 0
        end = time.monotonic() + 60.0
        # Nobody says what became of a trial: the first is under way for as long as this looks, longer than turns take.
        while rounds < 60 and time.monotonic() < end:
            for each in (one, two):
                with suppress(grpc.aio.AioRpcError):
                    trials += (await each.route("m")).target.node_id == "n1"
            rounds += trials > 0
            await asyncio.sleep(0.05)

        # Apart, each tries by itself: twice rather than never.
        assert links == [each.link for plane in (one, two) for each in plane.plane.siblings._up.values()]
        assert trials == 1


async def fail(fairway: Running, count: int) -> None:
    outcomes = [
        routing_pb2.Outcome(
            decision_id=f"x-{number}",
            region_id="local",
            node_id="n1",
            model_id="m",
            result=routing_pb2.OUTCOME_RESULT_SERVER_ERROR,
        )
        for number in range(count)
    ]
    await fairway.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=outcomes))


def states(*all_of_them: Running) -> list[str]:
    """The circuit of the one deployment, as tables have it."""
    return [each.plane.installer.health["local/n1/m"].circuit.state.value for each in all_of_them]
