"""Where round trips come from in the served system: measured, declared, estimated, reported by gateways, or assumed."""

from __future__ import annotations

from typing import Any

import pytest

from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2, types_pb2
from tests.federation.server import Running, engine, running, until

pytestmark = pytest.mark.anyio


async def ways(fairway: Running) -> dict[str, tuple[str, float]]:
    """By region the source of its round trip, and seconds."""
    fleet = await fairway.fleet.GetFleet(fleet_pb2.GetFleetRequest())
    return {
        each.region_id: (
            fleet_pb2.RoundTripSource.Name(each.round_trip_source).removeprefix("ROUND_TRIP_SOURCE_").lower(),
            each.round_trip.ToNanoseconds() / 1e9,
        )
        for each in fleet.regions
    }


async def put(fairway: Running, region_id: str, **fields: Any) -> None:
    region = types_pb2.Region(region_id=region_id, **fields)
    await fairway.catalog.PutRegion(catalog_pb2.PutRegionRequest(region=region))


async def test_each_region_shows_how_the_way_to_it_is_known_and_answers_shorten_what_was_assumed():
    home = {"region.id": "home", "region.owns": ("home", "near", "far", "dark")}
    async with (
        running({"region.id": "peer", "region.owns": ("peer",)}, seed=2) as peer,
        running({**home, "peering.peers": (peer.target,), "health.probe_interval_seconds": 0.2}) as here,
        engine("m") as node,
    ):
        known = (await here.catalog.GetRegion(catalog_pb2.GetRegionRequest(region_id="home"))).region
        await put(here, "home", etag=known.etag, latitude=50.0, longitude=8.0)
        await put(here, "near", round_trips={"home": {"nanos": 7_000_000}})
        await put(here, "far", latitude=40.0, longitude=-74.0)
        await put(here, "dark")
        await here.register("dark", "n1", node.url, "m")
        await here.until_routable("m")

        async def all_known() -> bool:
            found = await ways(here)
            return {"peer", "near", "far", "dark"} <= found.keys() and found["peer"][0] == "measured"

        await until(all_known)
        found = await ways(here)
        assert {name: source for name, (source, _) in found.items()} == {
            "home": "local",
            "peer": "measured",
            "near": "declared",
            "far": "estimated",
            "dark": "assumed",
        }
        assert found["near"][1] == 0.007
        assert 0.03 < found["far"][1] < 0.2
        assumed = found["dark"][1]

        # What gateways saw of the way: three answers that came sooner than it is assumed to take.
        for _ in range(3):
            decision = await here.route("m")
            await here.routing.ReportOutcomes(
                routing_pb2.ReportOutcomesRequest(
                    outcomes=[
                        routing_pb2.Outcome(
                            decision_id=decision.decision_id,
                            result=routing_pb2.OUTCOME_RESULT_OK,
                            time_to_first_token={"nanos": 40_000_000},
                        )
                    ]
                )
            )

        async def reported() -> bool:
            return (await ways(here))["dark"] == ("reported", 0.04)

        await until(reported)
        assert assumed > 0.04
