"""Control planes that peer over real sockets: what one has the others route to, cut off and merged again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from catalog.memory import MemoryStore
from federation.app import VERSION
from federation.config import ConfigError
from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2, types_pb2
from tests.federation.certificates import an_authority, write_pair
from tests.federation.relay import Relay, relay
from tests.federation.server import Running, ShiftedClock, engine, failing, running, until

pytestmark = pytest.mark.anyio
LAW = {"eu": ("DE", "EU"), "us": ("US",), "ap": ("JP",)}
PUBLIC = {"privacy_level": types_pb2.PRIVACY_LEVEL_PUBLIC}


@asynccontextmanager
async def region(name: str, *peers: str, seed: int = 1, **flags: Any) -> AsyncIterator[Running]:
    """A control plane that owns a region of its name; short probes, so that a death is seen soon."""
    settings: dict[str, object] = {
        "region.id": name,
        "region.owns": (name,),
        "region.jurisdiction": LAW.get(name, ()),
        "peering.peers": peers,
        "health.probe_interval_seconds": 0.2,
        "health.recheck_interval_seconds": 0.1,
        "health.unhealthy_after": 1,
    }
    async with running({**settings, **flags}, seed=seed) as fairway:
        yield fairway


@asynccontextmanager
async def three(**flags: Any) -> AsyncIterator[tuple[Running, Running, Running, Relay]]:
    """eu, us and ap know each other; everything between eu and the others goes through a relay."""
    async with AsyncExitStack() as stack:
        eu = await stack.enter_async_context(region("eu", seed=1, **flags))
        wire = await stack.enter_async_context(relay(eu.target))
        us = await stack.enter_async_context(region("us", wire.address, seed=2, **flags))
        ap = await stack.enter_async_context(region("ap", wire.address, us.target, seed=3, **flags))
        await until(lambda: all(up(each) == 2 for each in (eu, us, ap)))
        yield eu, us, ap, wire


def up(fairway: Running) -> int:
    assert fairway.plane.peering is not None
    return sum(status.state == "up" for status in fairway.plane.peering.statuses())


async def peers(fairway: Running) -> dict[str, fleet_pb2.Peer]:
    answer = await fairway.fleet.ListPeers(fleet_pb2.ListPeersRequest())
    return {peer.region_id: peer for peer in answer.peers}


async def rejected(fairway: Running, model_id: str) -> dict[str, str]:
    """Why candidates are left out, by deployment; "" where they are not."""
    answer = await fairway.routing.GetCandidates(
        routing_pb2.GetCandidatesRequest(request=routing_pb2.RouteRequest(model_id=model_id, qos=PUBLIC))
    )
    return {
        each.target.deployment: routing_pb2.RejectionCode.Name(each.rejection.code).removeprefix("REJECTION_CODE_")
        if each.HasField("rejection")
        else ""
        for each in answer.candidates
    }


async def test_a_node_of_one_region_and_its_death_show_in_the_decisions_of_another():
    async with three() as (eu, us, ap, _), engine("m") as server:
        started = time.monotonic()
        await eu.register("eu", "n1", server.url, "m", privacy_level=types_pb2.PRIVACY_LEVEL_INTERNAL)
        found = [await each.until_routable("m") for each in (us, ap)]
        appeared = time.monotonic() - started
        server.status = 500
        started = time.monotonic()
        await until(lambda: rejected_as(us, "eu/n1/m", "UNHEALTHY"))
        died = time.monotonic() - started

        assert [decision.target.deployment for decision in found] == ["eu/n1/m", "eu/n1/m"]
        # A second between summaries, and what a probe and a busy machine take.
        assert appeared < 5.0
        assert died < 5.0


async def rejected_as(fairway: Running, deployment: str, code: str) -> bool:
    return (await rejected(fairway, "m")).get(deployment) == code


async def test_peers_are_listed_with_role_lease_counts_and_round_trip():
    async with three() as (eu, us, _, wire), engine("m") as server:
        await eu.register("eu", "n1", server.url, "m")
        await us.until_routable("m", qos=PUBLIC)
        await until(lambda: us.plane.peering.imports.peers["eu"].round_trip_seconds is not None)

        home, away = (await peers(us))["eu"], (await peers(eu))["us"]
        fleet = await us.fleet.GetFleet(fleet_pb2.GetFleetRequest())
        health = await us.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest())

        assert (home.address, home.role, home.state) == (
            wire.address,
            fleet_pb2.PEER_ROLE_DIALED,
            fleet_pb2.LINK_STATE_UP,
        )
        assert away.role == fleet_pb2.PEER_ROLE_ACCEPTED
        assert (home.imported_nodes, away.exported_nodes) == (1, 1)
        assert (list(home.imported_models), list(away.exported_models)) == (["m"], ["m"])
        assert list(home.exported_models) == list(away.imported_models) == []
        assert home.version == VERSION
        assert home.imported_revision == eu.plane.feed.revision
        assert 0 < home.round_trip.ToNanoseconds() < 2e9
        assert 20 < home.lease_left.seconds <= 30
        assert {each.region_id: each.imported for each in fleet.regions} == {"ap": True, "eu": True, "us": False}
        (node,) = health.nodes
        assert (node.region_id, node.state) == ("eu", fleet_pb2.HEALTH_STATE_HEALTHY)
        assert node.reason == "eu says: its last probe passed"
        async with aiohttp.ClientSession() as http, http.get(f"{us.admin_url}/metrics") as page:
            assert 'peer_up{peer="eu"} 1.0' in await page.text()
        await until(lambda: "eu" in us.plane.router.table.pool.places[2].round_trip_seconds)


async def test_who_never_answered_is_told_apart_from_who_does_no_more():
    async with AsyncExitStack() as life:
        eu = await life.enter_async_context(region("eu"))
        async with region("us", eu.target, "127.0.0.1:1", seed=2) as us:
            await until(lambda: up(us) == 1)
            met, never = (await us.fleet.ListPeers(fleet_pb2.ListPeersRequest())).peers
            assert (met.region_id, met.state) == ("eu", fleet_pb2.LINK_STATE_UP)
            assert not never.region_id
            assert not never.HasField("lag")

            await life.aclose()
            await until(lambda: up(us) == 0)
            await until(lambda: us.plane.peering.dials[1].reason != "not tried yet")
            gone, never = (await us.fleet.ListPeers(fleet_pb2.ListPeersRequest())).peers

            assert (gone.region_id, gone.state, gone.version) == ("eu", fleet_pb2.LINK_STATE_DOWN, VERSION)
            assert gone.HasField("lag")
            assert 0 < gone.lease_left.seconds < 30
            assert not gone.reason.startswith("never met")
            assert never.reason == "never met; UNAVAILABLE: Connection refused"


async def test_a_cut_region_goes_on_alone_drops_imports_at_the_end_of_the_lease_and_merges_again():
    async with three(**{"peering.lease_seconds": 3.0}) as (eu, us, ap, wire), engine("m") as far, engine("m") as near:
        await eu.register("eu", "n1", far.url, "m")
        await us.register("us", "n1", near.url, "m")
        await until(lambda: both_routable(eu))
        await until(lambda: both_routable(us))

        wire.cut()
        cut_at = time.monotonic()
        await until(lambda: rejected_as(us, "eu/n1/m", "PEER_LEASE_EXPIRED"))
        lapsed = time.monotonic() - cut_at
        decision = await us.route("m", qos=PUBLIC)
        home = await eu.route("m", qos=PUBLIC)
        listed = (await peers(us))["eu"]
        await eu.register("eu", "n2", far.url, "m")

        assert lapsed > 1.5
        assert decision.target.deployment == "us/n1/m"
        assert home.target.region_id == "eu"
        assert listed.reason.startswith("PEER_LEASE_EXPIRED")
        assert (await peers(us))["ap"].state == fleet_pb2.LINK_STATE_UP

        wire.heal()
        await until(lambda: views_equal(eu, us) and views_equal(eu, ap) and views_equal(us, eu))
        await until(lambda: rejected_as(us, "eu/n2/m", ""))
        assert (await peers(us))["eu"].state == fleet_pb2.LINK_STATE_UP


async def both_routable(fairway: Running) -> bool:
    try:
        return await rejected(fairway, "m") == {"eu/n1/m": "", "us/n1/m": ""}
    except grpc.aio.AioRpcError:
        return False


def views_equal(owner: Running, other: Running) -> bool:
    """Whether another control plane shows exactly what its owner has, and counts it."""
    name = owner.plane.settings.region.id
    known = other.plane.peering.imports.peers[name]
    snapshot = owner.plane.feed.snapshot
    return (
        not known.expired
        and known.view.revision == snapshot.revision
        and dict(known.view.nodes) == dict(snapshot.nodes)
        and dict(known.view.models) == dict(snapshot.models)
    )


async def test_a_link_that_broke_resumes_without_a_second_snapshot():
    async with three() as (eu, us, _, _), engine("m") as server:
        ledger = eu.plane.peering._ledgers["us"]
        await eu.register("eu", "n1", server.url, "m")
        await until(lambda: views_equal(eu, us) and "eu/n1" in us.plane.installer.snapshot.nodes)
        node = us.plane.installer.snapshot.nodes["eu/n1"]

        eu.plane.peering.links["us"].end("the test says so")
        await until(lambda: "us" not in eu.plane.peering.links)
        await eu.register("eu", "n2", server.url, "m")
        await until(lambda: views_equal(eu, us))

        # A snapshot would have cleared what was told before, and made every node anew.
        assert eu.plane.peering._ledgers["us"] is ledger
        assert us.plane.installer.snapshot.nodes["eu/n1"] is node


async def test_what_was_imported_is_not_passed_on():
    async with (
        region("eu") as eu,
        region("us", eu.target, seed=2) as us,
        region("ap", us.target, seed=3) as ap,
        engine("m") as server,
    ):
        await eu.register("eu", "n1", server.url, "m")
        await us.until_routable("m", qos=PUBLIC)
        await us.register("us", "n1", server.url, "m")
        await until(lambda: "us/n1" in ap.plane.installer.snapshot.nodes)

        assert sorted(ap.plane.installer.snapshot.nodes) == ["us/n1"]
        assert sorted(ap.plane.installer.snapshot.regions) == ["ap", "us"]
        assert sorted(await peers(ap)) == ["us"]


async def test_a_region_that_two_control_planes_claim_is_refused_loudly_on_both_sides():
    async with (
        region("eu") as eu,
        region("us", eu.target, seed=2, **{"region.owns": ("us", "eu")}) as us,
        engine("m") as server,
    ):
        await eu.register("eu", "n1", server.url, "m")
        await until(lambda: us.plane.peering.dials[0].refused)

        (peer,) = (await us.fleet.ListPeers(fleet_pb2.ListPeersRequest())).peers
        assert peer.state == fleet_pb2.LINK_STATE_REFUSED
        assert "both own eu" in peer.reason
        assert not us.plane.installer.snapshot.nodes
        for fairway in (eu, us):
            await until(lambda at=fairway: any(line["level"] == "error" for line in at.logged))


async def test_writes_for_a_region_of_a_peer_name_its_owner():
    async with three() as (_, us, _, _):
        register = us.register("eu", "n9", "http://127.0.0.1:1", "m")
        drain = us.catalog.DrainNode(catalog_pb2.DrainNodeRequest(region_id="eu", node_id="n1"))

        for failure in (await failing(register), await failing(drain)):
            assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER")
            assert failure.metadata["owner"] == "eu"


async def test_the_privacy_and_the_law_that_an_owner_declared_bind_the_decisions_of_others():
    async with three() as (eu, us, ap, _), engine("m") as server:
        await eu.register("eu", "silent", server.url, "m")
        await ap.register("ap", "strict", server.url, "m", privacy_level=types_pb2.PRIVACY_LEVEL_RESTRICTED)
        await until(lambda: all_known(us))

        internal = await us.route("m")
        in_eu = await us.route("m", qos=PUBLIC, placement={"jurisdictions": ["EU"]})
        nowhere = await failing(us.route("m", placement={"jurisdictions": ["EU"]}))

        assert internal.target.deployment == "ap/strict/m"
        assert in_eu.target.deployment == "eu/silent/m"
        assert nowhere.code is grpc.StatusCode.FAILED_PRECONDITION


async def all_known(fairway: Running) -> bool:
    try:
        return await rejected(fairway, "m") == {"ap/strict/m": "", "eu/silent/m": ""}
    except grpc.aio.AioRpcError:
        return False


async def test_a_region_behind_its_ingress_is_reached_in_one_hop_and_picks_the_node_itself():
    async with three() as (eu, us, ap, _), engine("m") as far, engine("m") as other:
        region = types_pb2.Region(
            region_id="eu",
            reach=types_pb2.REACH_GATEWAY,
            ingress_endpoint="https://in.eu.example:443",
            jurisdictions=("DE", "EU"),
        )
        known = (await eu.catalog.GetRegion(catalog_pb2.GetRegionRequest(region_id="eu"))).region
        region.etag = known.etag
        await eu.catalog.PutRegion(catalog_pb2.PutRegionRequest(region=region))
        public = types_pb2.PRIVACY_LEVEL_PUBLIC
        await eu.register("eu", "n1", far.url, "m", privacy_level=public)
        await ap.register("ap", "n1", other.url, "m", privacy_level=public)
        only_eu = {"qos": PUBLIC, "placement": {"only_regions": ["eu"]}}
        await until(lambda: by_gateway(us, only_eu))
        await until(lambda: both_known(eu))

        first = (await us.route("m", **only_eu)).target
        # The ingress asks on behalf of the same caller, and says that it is the second to decide.
        second = (await eu.route("m", qos=PUBLIC, hops=1, origin={"region_id": "us"})).target
        loop = await failing(eu.route("m", qos=PUBLIC, hops=2))

        assert (first.node_id, first.endpoint) == ("", "https://in.eu.example:443")
        assert (second.via_gateway, second.node_id, second.endpoint) == (False, "n1", far.url)
        assert (loop.code, list(loop.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["hops"])

        far.status = 500
        await until(lambda: rejected_as(eu, "eu/n1/m", "UNHEALTHY"))
        stays = await failing(eu.route("m", qos=PUBLIC, hops=1, origin={"region_id": "us"}))

        # Its own nodes are gone: it is refused, not sent abroad again, though somebody abroad would take it.
        assert stays.code is grpc.StatusCode.UNAVAILABLE
        assert "REGION_EXCLUDED" in str(stays)


async def by_gateway(fairway: Running, request: Any) -> bool:
    try:
        return (await fairway.route("m", **request)).target.via_gateway
    except grpc.aio.AioRpcError:
        return False


async def both_known(fairway: Running) -> bool:
    return await rejected(fairway, "m") == {"ap/n1/m": "", "eu/n1/m": ""}


async def test_two_that_dial_each_other_keep_one_link():
    async with region("eu") as probe:
        address = probe.target
    # The port was free a moment ago, and is known to both before either runs.
    async with (
        relay(address) as wire,
        region("us", wire.address, seed=2) as us,
        region("eu", us.target, **{"server.listen": address}) as eu,
    ):
        await until(lambda: up(eu) == 1 and up(us) == 1)
        await until(lambda: us.plane.peering.links["eu"].opened_here != eu.plane.peering.links["us"].opened_here)

        await until(lambda: eu.plane.peering.links["us"].opened_here)
        # Who opened the other stream learned from its hello whom it reached.
        await until(lambda: us.plane.peering.dials[0].region_id == "eu")
        assert sorted(await peers(eu)) == ["us"]
        assert sorted(await peers(us)) == ["eu"]


async def test_peers_show_each_other_certificates(tmp_path: Path):
    ours, theirs = an_authority(), an_authority()
    (tmp_path / "ca.crt").write_bytes(ours.pem)

    def secured(name: str, pair: tuple[bytes, bytes]) -> dict[str, object]:
        (tmp_path / name).mkdir()
        certificate, key = write_pair(tmp_path / name, pair)
        return {
            "security.tls_certificate": certificate,
            "security.tls_key": key,
            "security.tls_client_ca": tmp_path / "ca.crt",
            "peering.tls_ca": tmp_path / "ca.crt",
        }

    async with region("eu", **secured("eu", ours.issue("eu"))) as eu:
        address = f"https://localhost:{eu.plane.address.port}"
        async with (
            region("us", address, seed=2, **secured("us", ours.issue("us"))) as us,
            region("ap", address, seed=3, **secured("ap", theirs.issue("ap"))) as ap,
        ):
            await until(lambda: up(us) == 1)
            await until(lambda: "UNAVAILABLE" in ap.plane.peering.dials[0].reason)

            assert list(eu.plane.peering.links) == ["us"]


@pytest.mark.parametrize("address", ["nowhere", "10.0.0.1:50051"])
async def test_an_address_that_cannot_be_dialed_safely_is_a_configuration_error(address: str):
    with pytest.raises(ConfigError, match=r"peering\.peers"):
        async with region("us", address):
            pass


class Lasting(MemoryStore):
    """A store that outlives whoever uses it, as a database does."""

    async def close(self) -> None:
        pass


async def test_two_replicas_of_a_region_peer_side_by_side_and_one_stands_in_for_the_other():
    store = Lasting("eu", clock=ShiftedClock().wall)
    shared = {"store.url": "postgresql://nobody@127.0.0.1:1/none", "region.id": "eu", "region.owns": ("eu",)}
    async with region("us", seed=3) as us, engine("m") as node:
        dialing = {**shared, "peering.peers": (us.target,)}
        async with running(dialing, store=store, seed=1) as one:
            async with running(dialing, store=store, seed=2) as two:
                await until(lambda: up(one) == up(two) == up(us) == 1)
                links = one.plane.peering.links["us"], two.plane.peering.links["us"]
                await one.register("eu", "n1", node.url, "m", privacy_level=types_pb2.PRIVACY_LEVEL_PUBLIC)
                await us.register("us", "n2", node.url, "m", privacy_level=types_pb2.PRIVACY_LEVEL_PUBLIC)
                await until(lambda: views_equal(one, us) and views_equal(us, one) and views_equal(us, two))

                # Neither took the other's place meanwhile.
                assert links == (one.plane.peering.links["us"], two.plane.peering.links["us"])

            await until(lambda: up(us) == 1 and up(one) == 1)
            await us.register("us", "n3", node.url, "m")
            await one.register("eu", "n4", node.url, "m", privacy_level=types_pb2.PRIVACY_LEVEL_PUBLIC)
            await until(lambda: views_equal(one, us) and views_equal(us, one))


async def test_a_replica_that_is_back_is_dialed_again_though_its_sibling_is_linked():
    store = Lasting("eu", clock=ShiftedClock().wall)
    shared = {"store.url": "postgresql://nobody@127.0.0.1:1/none", "region.id": "eu", "region.owns": ("eu",)}
    async with running(shared, store=store, seed=1) as one, AsyncExitStack() as life:
        two = await life.enter_async_context(running(shared, store=store, seed=2))
        address = two.target
        async with region("us", one.target, address, seed=3) as us:
            await until(lambda: up(one) == up(two) == 1 and up(us) == 2)
            await life.aclose()
            await until(lambda: up(us) == 1)
            async with running({**shared, "server.listen": address}, store=store, seed=4) as again:
                await us.register("us", "n1", "http://127.0.0.1:1", "m", **PUBLIC)

                await until(lambda: up(again) == 1 and views_equal(us, again) and up(us) == 2)
                assert up(one) == 1
