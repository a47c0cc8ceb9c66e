"""FleetService over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from federation.v1 import catalog_pb2, routing_pb2
from federation.v1 import fleet_pb2 as pb
from tests.federation.server import Engine, Running, engine, failing, heard, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
NODE = {"region_id": "local", "node_id": "n1"}


@pytest.fixture
async def node() -> AsyncIterator[Engine]:
    async with engine("m") as answers:
        yield answers


@pytest.fixture
async def fairway(node: Engine) -> AsyncIterator[Running]:
    """Two healthy nodes that serve "m"; one beside them that nobody answers for."""
    async with running({"health.unhealthy_after": 1}) as server:
        for node_id in ("n1", "n2"):
            await server.register("local", node_id, node.url, "m")
        await server.register("local", "dead", "http://127.0.0.1:9", "m")
        await until(lambda: available(server) == 2)
        yield server


def available(fairway: Running) -> int:
    plane = fairway.plane
    return int((plane.router.table.pool.status == 0).sum()) if plane.router.ready else 0


async def health_of(fairway: Running, node_id: str) -> pb.NodeHealth:
    listed = (await fairway.fleet.ListNodeHealth(pb.ListNodeHealthRequest())).nodes
    return next(node for node in listed if node.node_id == node_id)


async def fail(fairway: Running, times: int = 5) -> None:
    """Reports failures of n1 until its circuit opens."""
    outcome = routing_pb2.Outcome(model_id="m", result=routing_pb2.OUTCOME_RESULT_SERVER_ERROR, **NODE)
    await fairway.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome] * times))


async def test_the_fleet_in_sum(fairway: Running) -> None:
    await until(lambda: fairway.plane.probes.results["failed"] > 0)
    await fairway.route("m")

    fleet = await fairway.fleet.GetFleet(pb.GetFleetRequest())

    (region,) = fleet.regions
    assert (region.region_id, region.nodes, region.deployments, region.available_deployments) == ("local", 3, 3, 2)
    assert region.nodes_by_state["healthy"] == 2
    (model,) = fleet.models
    assert (model.model_id, model.deployments, model.available_deployments, model.panic) == ("m", 3, 2, False)
    assert fleet.home_region_id == "local"
    assert fleet.version
    assert fleet.decisions_total == 1
    assert fleet.revision == fairway.plane.feed.revision


async def test_health_of_nodes_tells_what_is_known_and_why(fairway: Running) -> None:
    await until(lambda: fairway.plane.probes.results["failed"] > 0)

    well, dead = await health_of(fairway, "n1"), await health_of(fairway, "dead")

    assert well.state == pb.HEALTH_STATE_HEALTHY
    assert well.last_check_time.seconds > 0
    assert "probe" in well.signal_ages
    assert not well.HasField("queue_depth")
    assert [each.model_id for each in well.deployments] == ["m"]
    assert well.deployments[0].circuit.state == pb.CIRCUIT_STATE_CLOSED
    assert dead.state == pb.HEALTH_STATE_UNHEALTHY
    assert dead.reason


async def test_a_heartbeats_load_is_seen_at_once(fairway: Running) -> None:
    stream = fairway.catalog.Heartbeat()
    load = catalog_pb2.NodeLoad(queue_depth=3.0, kv_cache_utilization=0.5)
    await stream.write(catalog_pb2.HeartbeatRequest(beats=[catalog_pb2.NodeBeat(load=load, **NODE)]))
    await heard(stream)

    seen = await health_of(fairway, "n1")

    assert (seen.queue_depth, seen.kv_cache_utilization) == (3.0, 0.5)
    assert not seen.HasField("gpu_utilization")
    assert "load" in seen.signal_ages


async def test_a_node_that_was_just_registered_is_listed(fairway: Running) -> None:
    await fairway.register("local", "n9", "http://127.0.0.1:9", "m")

    assert (await health_of(fairway, "n9")).state in (pb.HEALTH_STATE_UNKNOWN, pb.HEALTH_STATE_UNHEALTHY)


async def test_health_is_paged_by_region(fairway: Running) -> None:
    first = await fairway.fleet.ListNodeHealth(pb.ListNodeHealthRequest(page_size=2, region_id="local"))
    rest = await fairway.fleet.ListNodeHealth(
        pb.ListNodeHealthRequest(page_size=2, region_id="local", page_token=first.next_page_token)
    )
    none = await fairway.fleet.ListNodeHealth(pb.ListNodeHealthRequest(region_id="loc"))

    assert [node.node_id for node in (*first.nodes, *rest.nodes)] == ["dead", "n1", "n2"]
    assert not none.nodes


async def test_failures_open_a_circuit_that_an_operator_can_reset(fairway: Running) -> None:
    await fail(fairway)
    tripped = (await fairway.fleet.ListCircuits(pb.ListCircuitsRequest(tripped_only=True))).circuits
    await until(lambda: available(fairway) == 1)

    reset = (await fairway.fleet.ResetCircuit(pb.ResetCircuitRequest(**NODE))).circuits

    (entry,) = tripped
    assert (entry.node_id, entry.model_id, entry.circuit.state) == ("n1", "m", pb.CIRCUIT_STATE_OPEN)
    assert "5 failures in a row" in entry.circuit.reason
    assert 20 <= entry.circuit.retry_after.seconds <= 40
    assert [each.circuit.state for each in reset] == [pb.CIRCUIT_STATE_CLOSED]
    assert not (await fairway.fleet.ListCircuits(pb.ListCircuitsRequest(tripped_only=True))).circuits
    assert len((await fairway.fleet.ListCircuits(pb.ListCircuitsRequest())).circuits) == 3
    await until(lambda: available(fairway) == 2)


async def test_an_ejected_node_is_left_out_until_it_is_restored(fairway: Running) -> None:
    ejected = (await fairway.fleet.EjectNode(pb.EjectNodeRequest(**NODE))).node
    await until(lambda: available(fairway) == 1)
    restored = (await fairway.fleet.RestoreNode(pb.RestoreNodeRequest(**NODE))).node
    await until(lambda: available(fairway) == 2)

    assert ejected.deployments[0].ejected
    assert 290 <= ejected.deployments[0].ejected_for.seconds <= 300
    assert not restored.deployments[0].ejected


async def test_a_drained_node_says_so(fairway: Running) -> None:
    await fairway.catalog.DrainNode(catalog_pb2.DrainNodeRequest(**NODE))

    assert (await health_of(fairway, "n1")).state == pb.HEALTH_STATE_DRAINING


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("EjectNode", pb.EjectNodeRequest(region_id="local", node_id="absent")),
        ("RestoreNode", pb.RestoreNodeRequest(region_id="local", node_id="absent")),
        ("ResetCircuit", pb.ResetCircuitRequest(region_id="local", node_id="absent")),
        ("ResetCircuit", pb.ResetCircuitRequest(model_id="absent", **NODE)),
    ],
)
async def test_what_does_not_exist_is_not_found(fairway: Running, method: str, request_: Any) -> None:
    failure = await failing(getattr(fairway.fleet, method)(request_))

    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert failure.reason in ("NODE_UNKNOWN", "DEPLOYMENT_UNKNOWN")


async def test_there_are_no_peers_without_peering(fairway: Running) -> None:
    assert not (await fairway.fleet.ListPeers(pb.ListPeersRequest())).peers


async def test_a_watch_tells_all_nodes_then_only_those_that_change(fairway: Running, node: Engine) -> None:
    watch = fairway.fleet.WatchFleet(pb.WatchFleetRequest())
    first = await heard(watch)

    await fail(fairway)
    tripped = await heard(watch)
    await fairway.catalog.DeregisterNode(catalog_pb2.DeregisterNodeRequest(region_id="local", node_id="n2"))
    gone = await heard(watch)

    assert [each.node_id for each in first.nodes] == ["dead", "n1", "n2"]
    assert [each.node_id for each in tripped.nodes] == ["n1"]
    assert tripped.nodes[0].deployments[0].circuit.state == pb.CIRCUIT_STATE_OPEN
    assert (list(gone.nodes), list(gone.removed)) == ([], ["local/n2"])
    watch.cancel()
    await until(lambda: len(fairway.plane.watch) == 0)


async def test_a_watch_of_nothing_says_so(node: Engine) -> None:
    async with running() as fairway:
        watch = fairway.fleet.WatchFleet(pb.WatchFleetRequest())
        first = await heard(watch)
        await fairway.register("local", "n1", node.url, "m")
        second = await heard(watch)

    assert not first.nodes
    assert [each.node_id for each in second.nodes] == ["n1"]
