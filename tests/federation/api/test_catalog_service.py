"""CatalogService over a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from catalog.errors import StoreReadOnly, StoreUnavailable
from catalog.memory import MemoryStore
from federation.v1 import catalog_pb2 as pb
from federation.v1 import types_pb2
from tests.federation.server import Running, ShiftedClock, ended, failing, heard, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
URL = "http://127.0.0.1:9"


@pytest.fixture
async def fairway() -> AsyncIterator[Running]:
    async with running() as server:
        yield server


def a_registration(node_id: str = "n", *models: str, **node: Any) -> pb.RegisterNodeRequest:
    fields = {"region_id": "local", "endpoint": URL, "engine": types_pb2.ENGINE_VLLM, **node}
    return pb.RegisterNodeRequest(
        node=types_pb2.Node(node_id=node_id, **fields),
        deployments=[types_pb2.Deployment(model_id=model) for model in models or ("m",)],
    )


async def registered(fairway: Running, *arguments: str, **node: Any) -> types_pb2.Node:
    answer = await fairway.catalog.RegisterNode(a_registration(*arguments, **node))
    stored: types_pb2.Node = answer.node
    return stored


# Registration.


async def test_who_registered_reads_it_next(fairway: Running) -> None:
    node = await registered(fairway, "n", "b", "a", labels={"rack": "7"}, price_usd_per_hour=2.5)

    read = (await fairway.catalog.GetNode(pb.GetNodeRequest(region_id="local", node_id="n"))).node
    listed = await fairway.catalog.ListNodes(pb.ListNodesRequest())
    assert read == node == listed.nodes[0]
    assert [deployment.model_id for deployment in node.deployments] == ["a", "b"]
    assert node.lease_duration.seconds == 30
    assert node.generation == 1
    assert node.owner == "local"
    assert (await fairway.catalog.GetModel(pb.GetModelRequest(model_id="a"))).model.model_id == "a"


async def test_the_same_content_keeps_its_revision_and_other_content_needs_the_etag(fairway: Running) -> None:
    first = await registered(fairway)

    again = await registered(fairway)
    conflict = await failing(fairway.catalog.RegisterNode(a_registration(zone="b")))
    replaced = await registered(fairway, zone="b", etag=conflict.metadata["etag"])
    stale = await failing(fairway.catalog.RegisterNode(a_registration(zone="c", etag=first.etag)))

    assert again.revision == first.revision
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_CONFLICT")
    assert replaced.zone == "b"
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert stale.metadata["etag"] == replaced.etag


async def test_a_repeat_of_a_request_id_gets_the_first_answer(fairway: Running) -> None:
    request = a_registration()
    request.request_id = "r1"
    first = await fairway.catalog.RegisterNode(request)
    await fairway.catalog.DrainNode(pb.DrainNodeRequest(region_id="local", node_id="n"))

    assert await fairway.catalog.RegisterNode(request) == first
    request.node.zone = "other"
    failure = await failing(fairway.catalog.RegisterNode(request))
    assert failure.reason == "REQUEST_ID_REUSED"


async def test_a_batch_is_stored_whole_or_not_at_all(fairway: Running) -> None:
    good = pb.RegisterNodesRequest(nodes=[a_registration("b"), a_registration("a")])
    bad = pb.RegisterNodesRequest(
        nodes=[a_registration("c"), a_registration("d", endpoint="ftp://h:1"), a_registration("c")]
    )

    stored = await fairway.catalog.RegisterNodes(good)
    failure = await failing(fairway.catalog.RegisterNodes(bad))

    assert [node.node_id for node in stored.nodes] == ["b", "a"]
    assert set(failure.violations) == {"nodes[1].node.endpoint", "nodes[2].node.node_id"}
    assert len((await fairway.catalog.ListNodes(pb.ListNodesRequest())).nodes) == 2


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("ftp://h:1", "allowed here are http, https"),
        ("grpc://h:1", "allowed here are http, https"),
        ("http://h", "has no port"),
        ("http://h:0", "ports are 1 to 65535"),
        ("http://h:65536", "ports are 1 to 65535"),
        ("http://u:p@h:1", "holds a user or password"),
        ("http://h:1/v1", "holds a path"),
        ("http://h:1?x=1", "holds a path, query"),
        ("http://h:1#x", "holds a path, query or fragment"),
        ("http://:1", "has no host"),
        ("http://a b:1", "holds a space"),
        ("http://h\\@evil:1", "backslash"),
        ("http://169.254.169.254:80", "link-local"),
        ("http://[fe80::1]:80", "link-local"),
        ("http://[::ffff:a9fe:a9fe]:80", "link-local"),
        ("h:1", "has no scheme"),
        ("", "must be at least 1 characters"),
    ],
)
async def test_an_endpoint_that_cannot_be_meant_is_refused(fairway: Running, endpoint: str, told: str) -> None:
    failure = await failing(fairway.catalog.RegisterNode(a_registration(endpoint=endpoint)))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told in failure.violations["node.endpoint"]


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1:8000", "https://h.example:443", "http://[::1]:80"])
async def test_an_endpoint_of_an_engine_is_taken(fairway: Running, endpoint: str) -> None:
    assert (await registered(fairway, endpoint=endpoint)).endpoint == endpoint


async def test_a_grpc_engine_needs_a_grpc_endpoint(fairway: Running) -> None:
    grpc_engine = types_pb2.ENGINE_GRPC

    stored = await registered(fairway, "g", endpoint="grpcs://h:443", engine=grpc_engine)
    failure = await failing(fairway.catalog.RegisterNode(a_registration(endpoint="http://h:1", engine=grpc_engine)))

    assert stored.endpoint == "grpcs://h:443"
    assert "allowed here are grpc, grpcs" in failure.violations["node.endpoint"]


async def test_schemes_that_are_not_allowed_are_named() -> None:
    async with running({"health.allowed_schemes": ("https",)}) as fairway:
        plain = await failing(fairway.catalog.RegisterNode(a_registration()))
        engine = await failing(
            fairway.catalog.RegisterNode(a_registration(endpoint="grpc://h:1", engine=types_pb2.ENGINE_GRPC))
        )

    assert "allowed here are https" in plain.violations["node.endpoint"]
    assert "health.allowed_schemes" in engine.violations["node.endpoint"]


async def test_deployments_must_be_the_nodes_own_and_each_model_once(fairway: Running) -> None:
    request = a_registration("n", "m", "m")
    request.deployments[0].region_id = "elsewhere"
    request.deployments[1].node_id = "other"
    request.deployments[1].status = types_pb2.DEPLOYMENT_STATUS_REMOVED
    request.node.deployments.add(model_id="x")

    failure = await failing(fairway.catalog.RegisterNode(request))

    assert set(failure.violations) == {
        "node.deployments",
        "deployments[0].region_id",
        "deployments[1].node_id",
        "deployments[1].model_id",
        "deployments[1].status",
    }


async def test_only_owned_regions_are_written() -> None:
    async with running({"region.owns": ("local",)}) as fairway:
        node = await failing(fairway.catalog.RegisterNode(a_registration(region_id="eu-west-1")))
        region = await failing(
            fairway.catalog.PutRegion(pb.PutRegionRequest(region=types_pb2.Region(region_id="eu-west-1")))
        )

    for failure in (node, region):
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER")
        assert failure.metadata["name"] == "eu-west-1"


async def test_a_node_of_a_region_without_a_record_is_refused(fairway: Running) -> None:
    failure = await failing(fairway.catalog.RegisterNode(a_registration(region_id="eu-west-1")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "REGION_UNKNOWN")


async def test_a_mask_changes_what_it_names_and_keeps_the_rest(fairway: Running) -> None:
    await registered(fairway, "n", "a", zone="a", price_usd_per_hour=2.0)
    request = a_registration("n", "b", zone="b")
    request.node.endpoint = "http://other:1"
    request.update_mask.paths.append("zone")

    node = (await fairway.catalog.RegisterNode(request)).node

    assert (node.zone, node.price_usd_per_hour, node.endpoint) == ("b", 2.0, URL)
    assert [deployment.model_id for deployment in node.deployments] == ["a"]
    request.update_mask.paths[:] = ["deployments"]
    node = (await fairway.catalog.RegisterNode(request)).node
    assert [deployment.model_id for deployment in node.deployments] == ["b"]


async def test_a_mask_that_names_no_field_is_told_the_fields(fairway: Running) -> None:
    await registered(fairway)
    request = a_registration()
    request.update_mask.paths.extend(["zone", "zonee", "etag"])
    failure = await failing(fairway.catalog.RegisterNode(request))

    assert "'etag' is not a field to write; known are: accelerator, " in failure.violations["update_mask"]


async def test_a_mask_excuses_what_it_does_not_name(fairway: Running) -> None:
    await registered(fairway, price_usd_per_hour=2.0)
    which = {"region_id": "local", "node_id": "n"}
    patch = pb.RegisterNodeRequest(node={**which, "price_usd_per_hour": 3.0})
    patch.update_mask.paths.append("price_usd_per_hour")
    moved = pb.RegisterNodeRequest(node={**which, "endpoint": "grpc://h:1"})
    moved.update_mask.paths.append("endpoint")

    node = (await fairway.catalog.RegisterNode(patch)).node
    failure = await failing(fairway.catalog.RegisterNode(moved))
    patch.node.price_usd_per_hour = -1.0
    negative = await failing(fairway.catalog.RegisterNodes(pb.RegisterNodesRequest(nodes=[patch])))

    assert (node.endpoint, node.price_usd_per_hour) == (URL, 3.0)
    assert "allowed here are http, https" in failure.violations["node.endpoint"]
    assert set(negative.violations) == {"nodes[0].node.price_usd_per_hour"}


async def test_a_deployment_names_its_model_by_its_id(fairway: Running) -> None:
    await fairway.catalog.RegisterModel(pb.RegisterModelRequest(model={"model_id": "big", "aliases": ["xl"]}))

    failure = await failing(fairway.catalog.RegisterNode(a_registration("n", "xl")))

    assert "name model 'big' by its id" in failure.violations["deployments[0].model_id"]


async def test_a_mask_needs_something_to_change(fairway: Running) -> None:
    request = a_registration("absent")
    request.update_mask.paths.append("zone")

    assert (await failing(fairway.catalog.RegisterNode(request))).reason == "NODE_UNKNOWN"


# Models, regions.


async def test_a_model_answers_to_its_aliases_and_nobody_elses(fairway: Running) -> None:
    await fairway.catalog.RegisterModel(pb.RegisterModelRequest(model={"model_id": "big", "aliases": ["large", "xl"]}))
    await fairway.catalog.RegisterModel(pb.RegisterModelRequest(model={"model_id": "other"}))

    read = await fairway.catalog.GetModel(pb.GetModelRequest(model_id="xl"))
    taken = await failing(
        fairway.catalog.RegisterModel(
            pb.RegisterModelRequest(model={"model_id": "new", "aliases": ["other", "xl", "new"]})
        )
    )
    squatting = await failing(fairway.catalog.RegisterModel(pb.RegisterModelRequest(model={"model_id": "large"})))

    assert read.model.model_id == "big"
    assert set(taken.violations) == {"model.aliases[0]", "model.aliases[1]", "model.aliases[2]"}
    assert "alias of model 'big'" in squatting.violations["model.model_id"]


async def test_a_model_in_use_stays(fairway: Running) -> None:
    await registered(fairway, "n", "m")

    used = await failing(fairway.catalog.DeregisterModel(pb.DeregisterModelRequest(model_id="m")))
    await fairway.catalog.DeregisterNode(pb.DeregisterNodeRequest(region_id="local", node_id="n"))
    await fairway.catalog.DeregisterModel(pb.DeregisterModelRequest(model_id="m"))

    assert (used.code, used.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE")
    assert used.metadata["node"] == "local/n"
    assert (await failing(fairway.catalog.GetModel(pb.GetModelRequest(model_id="m")))).reason == "MODEL_UNKNOWN"


async def test_the_own_region_is_there_from_the_start_with_its_jurisdiction() -> None:
    async with running({"region.id": "eu-1", "region.jurisdiction": ("DE", "EU")}) as fairway:
        region = (await fairway.catalog.GetRegion(pb.GetRegionRequest(region_id="eu-1"))).region

    assert list(region.jurisdictions) == ["DE", "EU"]
    assert region.status == types_pb2.REGION_STATUS_ACTIVE


async def test_a_region_is_checked_as_a_whole(fairway: Running) -> None:
    region = types_pb2.Region(region_id="far", reach=types_pb2.REACH_GATEWAY, latitude=1.0)
    region.round_trips["Not An Id"].FromMilliseconds(5)
    region.round_trips["far"].FromMilliseconds(5)

    failure = await failing(fairway.catalog.PutRegion(pb.PutRegionRequest(region=region)))
    region.ingress_endpoint = "grpc://far.example"
    ingress = await failing(fairway.catalog.PutRegion(pb.PutRegionRequest(region=region)))

    assert set(failure.violations) == {
        "region.ingress_endpoint",
        "region.latitude",
        "region.round_trips['Not An Id']",
        "region.round_trips['far']",
    }
    assert "has no port" in ingress.violations["region.ingress_endpoint"]


async def test_a_region_is_patched_by_its_mask(fairway: Running) -> None:
    region = types_pb2.Region(region_id="far", provider="aws", ingress_endpoint="https://far.example")
    await fairway.catalog.PutRegion(pb.PutRegionRequest(region=region))

    patch = pb.PutRegionRequest(region={"region_id": "far", "status": "REGION_STATUS_DRAINING"})
    patch.update_mask.paths.append("status")
    stored = (await fairway.catalog.PutRegion(patch)).region

    assert (stored.provider, stored.status) == ("aws", types_pb2.REGION_STATUS_DRAINING)


# Draining.


async def test_a_drain_survives_a_registration_and_is_taken_back_by_its_own_call(fairway: Running) -> None:
    await registered(fairway)
    which = {"region_id": "local", "node_id": "n"}

    assert (await fairway.catalog.DrainNode(pb.DrainNodeRequest(**which))).node.draining
    assert (await registered(fairway)).draining
    assert not (await fairway.catalog.UndrainNode(pb.UndrainNodeRequest(**which))).node.draining


async def test_one_deployment_drains_alone(fairway: Running) -> None:
    await registered(fairway, "n", "a", "b")
    which = {"region_id": "local", "node_id": "n", "model_id": "a"}

    drained = (await fairway.catalog.DrainDeployment(pb.DrainDeploymentRequest(**which))).deployment
    listed = (await fairway.catalog.ListDeployments(pb.ListDeploymentsRequest())).deployments
    back = (await fairway.catalog.UndrainDeployment(pb.UndrainDeploymentRequest(**which))).deployment
    absent = await failing(fairway.catalog.DrainDeployment(pb.DrainDeploymentRequest(**{**which, "model_id": "c"})))

    assert drained.status == types_pb2.DEPLOYMENT_STATUS_DRAINING
    assert [each.status for each in listed] == [drained.status, types_pb2.DEPLOYMENT_STATUS_READY]
    assert back.status == types_pb2.DEPLOYMENT_STATUS_READY
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN")


# Lists.


async def test_pages_hold_everything_once_and_in_order(fairway: Running) -> None:
    await fairway.catalog.PutRegion(pb.PutRegionRequest(region={"region_id": "local-2"}))
    names = ["a", "a-b", "a.b", "b"]
    await fairway.catalog.RegisterNodes(
        pb.RegisterNodesRequest(
            nodes=[
                a_registration(name, "x", "y", region_id=region) for region in ("local", "local-2") for name in names
            ]
        )
    )

    nodes = [f"{node.region_id}/{node.node_id}" for node in await pages(fairway.catalog.ListNodes, pb.ListNodesRequest)]
    deployments = [
        f"{each.region_id}/{each.node_id}/{each.model_id}"
        for each in await pages(fairway.catalog.ListDeployments, pb.ListDeploymentsRequest)
    ]

    assert nodes == sorted(nodes)
    assert len(nodes) == 8
    assert deployments == sorted(deployments)
    assert len(set(deployments)) == 16
    only = await pages(fairway.catalog.ListNodes, pb.ListNodesRequest, region_id="local")
    assert [node.node_id for node in only] == sorted(names)
    one = await pages(fairway.catalog.ListDeployments, pb.ListDeploymentsRequest, region_id="local", model_id="y")
    assert len(one) == 4
    assert len(await pages(fairway.catalog.ListModels, pb.ListModelsRequest)) == 2
    assert len(await pages(fairway.catalog.ListRegions, pb.ListRegionsRequest)) == 2


async def pages(method: Any, request: Any, **fields: Any) -> list[Any]:
    """All items of a list, three a page."""
    items: list[Any] = []
    token = ""
    while True:
        answer = await method(request(page_size=3, page_token=token, **fields))
        of = next(name for name in ("nodes", "deployments", "models", "regions") if hasattr(answer, name))
        items += getattr(answer, of)
        assert len(getattr(answer, of)) <= 3
        token = answer.next_page_token
        if not token:
            return items


async def test_a_token_of_another_list_is_refused(fairway: Running) -> None:
    await fairway.catalog.RegisterNodes(pb.RegisterNodesRequest(nodes=[a_registration(name) for name in ("a", "b")]))
    token = (await fairway.catalog.ListNodes(pb.ListNodesRequest(page_size=1))).next_page_token

    filtered = pb.ListNodesRequest(page_size=1, page_token=token, region_id="local")
    for request in (filtered, pb.ListNodesRequest(page_token="guess"), pb.ListNodesRequest(page_token="é")):
        failure = await failing(fairway.catalog.ListNodes(request))
        assert "start again without page_token" in failure.violations["page_token"]


# Watching.


async def test_a_watch_tells_the_snapshot_then_every_change_and_resumes(fairway: Running) -> None:
    await registered(fairway, "a")
    watch = fairway.catalog.WatchCatalog(pb.WatchCatalogRequest())
    snapshot = [await heard(watch) for _ in range(4)]

    await registered(fairway, "b")
    await fairway.catalog.DeregisterNode(pb.DeregisterNodeRequest(region_id="local", node_id="a"))
    changes = [(await heard(watch)).change for _ in range(2)]
    resumed = fairway.catalog.WatchCatalog(
        pb.WatchCatalogRequest(after_revision=snapshot[-1].snapshot_complete_revision)
    )

    assert [event.change.name for event in snapshot[:3]] == ["local", "m", "local/a"]
    assert [(change.name, change.deleted) for change in changes] == [("local/b", False), ("local/a", True)]
    assert changes[1].node.node_id == "a"
    assert changes[1].revision == changes[0].revision + 1
    assert [(await heard(resumed)).change for _ in range(2)] == changes


async def test_a_watch_beyond_the_log_starts_again(fairway: Running) -> None:
    await fairway.plane.store.compact(0)
    await registered(fairway, "a")
    await fairway.plane.store.compact(0)
    await registered(fairway, "b")
    fairway.plane.feed._replace(await fairway.plane.store.snapshot())

    for revision in (1, 10_000):
        call = fairway.catalog.WatchCatalog(pb.WatchCatalogRequest(after_revision=revision))
        failure = await ended(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
        assert "watch from 0" in failure.message


async def test_many_watchers_hear_of_a_change(fairway: Running) -> None:
    after = fairway.plane.feed.revision
    watches = [fairway.catalog.WatchCatalog(pb.WatchCatalogRequest(after_revision=after)) for _ in range(80)]
    reads = [asyncio.ensure_future(watch.read()) for watch in watches]
    await until(lambda: fairway.plane.edge.open_streams == 80)

    await registered(fairway, "a", "m")

    heard = await asyncio.gather(*reads)
    assert {event.change.name for event in heard} == {"m"}


# Heartbeats and leases.


async def beat(stream: Any, *node_ids: str, **load: float) -> list[Any]:
    beats = [
        pb.NodeBeat(region_id="local", node_id=node_id, load=pb.NodeLoad(**load) if load else None)
        for node_id in node_ids
    ]
    await stream.write(pb.HeartbeatRequest(beats=beats))
    return list((await heard(stream)).results)


async def test_a_heartbeat_renews_the_lease_and_tells_who_is_not_known(fairway: Running) -> None:
    await registered(fairway, "n", lease_duration={"seconds": 10})
    stream = fairway.catalog.Heartbeat()

    known, unknown = await beat(stream, "n", "absent", queue_depth=3.0)

    assert (known.known, known.lease_duration.seconds) == (True, 10)
    assert not unknown.known
    for _ in range(3):
        fairway.clock.advance(6)
        await beat(stream, "n")
    node = (await fairway.catalog.GetNode(pb.GetNodeRequest(region_id="local", node_id="n"))).node
    assert not node.lease_expired
    assert fairway.plane.leases.expirations_total == 0


async def test_a_lease_that_ends_is_written_once_and_the_next_heartbeat_brings_the_node_back(fairway: Running) -> None:
    await registered(fairway, "n", lease_duration={"seconds": 10})
    get = pb.GetNodeRequest(region_id="local", node_id="n")

    async def expired() -> bool:
        return bool((await fairway.catalog.GetNode(get)).node.lease_expired)

    fairway.clock.advance(11)
    await until(expired)
    revision = fairway.plane.feed.revision
    (result,) = await beat(fairway.catalog.Heartbeat(), "n")
    assert result.known
    await until(lambda: fairway.plane.feed.revision == revision + 1)

    assert not await expired()
    assert fairway.plane.leases.expirations_total == 1


async def test_a_record_is_forgotten_an_hour_after_its_lease(fairway: Running) -> None:
    await registered(fairway, "n", lease_duration={"seconds": 10})
    fairway.clock.advance(11)
    await until(lambda: fairway.plane.feed.snapshot.nodes["local/n"].expired)

    fairway.clock.advance(3_590)
    await until(lambda: fairway.plane.leases._swept_at > fairway.clock.monotonic() - 5)
    kept = "local/n" in fairway.plane.feed.snapshot.nodes
    fairway.clock.advance(20)
    await until(lambda: "local/n" not in fairway.plane.feed.snapshot.nodes)

    assert kept


async def test_a_node_with_no_lease_lives_until_it_is_deregistered(fairway: Running) -> None:
    await registered(fairway, "n", lease_duration={"seconds": 0})

    fairway.clock.advance(100_000)
    await until(lambda: fairway.plane.leases._swept_at > fairway.clock.monotonic() - 5)

    assert not fairway.plane.feed.snapshot.nodes["local/n"].expired


# A store that is away.


class FaultyStore(MemoryStore):
    """A memory store that can be taken away."""

    fault: Exception | None = None

    def _open(self) -> None:
        super()._open()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
async def faulty() -> AsyncIterator[tuple[Running, FaultyStore]]:
    clock = ShiftedClock()
    store = FaultyStore("local", clock=clock.wall)
    async with running(store=store, clock=clock) as server:
        yield server, store
        store.fault = None


async def test_writes_fail_fast_and_reads_go_on_while_the_store_is_away(faulty: tuple[Running, FaultyStore]) -> None:
    fairway, store = faulty
    await registered(fairway, "a")
    store.fault = StoreUnavailable("connection refused")

    write = await failing(fairway.catalog.RegisterNode(a_registration("b")))
    read = await fairway.catalog.ListNodes(pb.ListNodesRequest())

    assert (write.code, write.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert write.retry_seconds == 1.0
    assert write.pushback == "-1"
    assert len(read.nodes) == 1
    store.fault = None
    assert (await registered(fairway, "b")).node_id == "b"


async def test_a_read_only_store_says_so(faulty: tuple[Running, FaultyStore]) -> None:
    fairway, store = faulty
    store.fault = StoreReadOnly("disk is full")

    failure = await failing(fairway.catalog.RegisterNode(a_registration("b")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_READ_ONLY")


async def test_an_outage_is_logged_once_and_its_end_once(faulty: tuple[Running, FaultyStore]) -> None:
    fairway, store = faulty
    store.fault = StoreUnavailable("gone")
    await until(lambda: not fairway.plane.feed.available)
    for _ in range(3):
        await failing(fairway.catalog.RegisterNode(a_registration("b")))
    store.fault = None
    await until(lambda: fairway.plane.feed.available)

    lines = [line["event"] for line in fairway.logged if "catalog store" in line["event"]]
    assert len(lines) == 2


async def test_a_lease_that_ends_while_the_store_is_away_ends_routing_and_is_written_later(
    faulty: tuple[Running, FaultyStore],
) -> None:
    fairway, store = faulty
    await registered(fairway, "n", lease_duration={"seconds": 10})
    store.fault = StoreUnavailable("gone")

    fairway.clock.advance(11)
    await until(lambda: fairway.plane.leases.ended() == {"local/n"})
    await until(lambda: 2 in fairway.plane.router.table.pool.status)
    written = fairway.plane.feed.snapshot.nodes["local/n"].expired
    store.fault = None

    await until(lambda: fairway.plane.feed.snapshot.nodes["local/n"].expired)
    assert not written
    assert fairway.plane.leases.ended() == frozenset()


async def test_a_node_that_beats_again_while_the_store_is_away_is_back_at_once(
    faulty: tuple[Running, FaultyStore],
) -> None:
    fairway, store = faulty
    await registered(fairway, "n", lease_duration={"seconds": 10})
    fairway.clock.advance(11)
    await until(lambda: fairway.plane.feed.snapshot.nodes["local/n"].expired)
    store.fault = StoreUnavailable("gone")

    await beat(fairway.catalog.Heartbeat(), "n")
    await until(lambda: fairway.plane.router.table.pool.status[0] != 2)
    store.fault = None

    await until(lambda: not fairway.plane.feed.snapshot.nodes["local/n"].expired)
