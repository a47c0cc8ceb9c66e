"""Fleet files: what they say becomes catalog and engines, and what is wrong with them is told."""

from __future__ import annotations

from typing import Any

import pytest

from federation.simulation.fleet import FleetInvalid, load_fleet, parse_fleet
from policies.prediction import LOCAL_ROUND_TRIP_SECONDS


def a_document(**changes: Any) -> dict[str, Any]:
    make = {
        "prefill_seconds_per_token": 0.0002,
        "min_time_to_first_token_seconds": 0.05,
        "decode_tokens_per_second": 20.0,
        "max_batch_size": 16,
        "kv_cache_tokens": 100_000,
    }
    return {
        "name": "small",
        "model": "m",
        "regions": [
            {"id": "east", "latitude": 40.0, "longitude": -75.0},
            {"id": "west", "latitude": 45.0, "longitude": -120.0},
        ],
        "round_trips_ms": {"east west": 70},
        "makes": {"gpu": make},
        "nodes": [{"region": "east", "make": "gpu", "count": 2, "price_usd_per_hour": 3.6}],
        "gateways": [{"region": "east", "share": 3}, {"region": "west", "share": 1}],
        **changes,
    }


def test_nodes_are_numbered_by_make_and_shares_add_up_to_one():
    fleet = parse_fleet(a_document())

    assert [node.name for node in fleet.nodes] == ["east/gpu-1", "east/gpu-2"]
    assert [gateway.share for gateway in fleet.gateways] == [0.75, 0.25]


def test_a_measured_round_trip_holds_both_ways_and_a_missing_one_is_estimated():
    measured = parse_fleet(a_document()).round_trip
    estimated = parse_fleet(a_document(round_trips_ms={})).round_trip

    assert measured["west", "east"] == measured["east", "west"] == 0.07
    assert measured["east", "east"] == LOCAL_ROUND_TRIP_SECONDS
    assert 0.03 < estimated["east", "west"] < 0.12


def test_the_catalog_holds_profiles_unless_they_are_to_be_learned():
    fleet = parse_fleet(a_document())

    declared = fleet.snapshot().nodes["east/gpu-1"].deployments[0]
    learned = fleet.snapshot(declared=False).nodes["east/gpu-1"].deployments[0]

    assert declared.profile.prefill_seconds_per_token == 0.0002
    assert learned.profile.prefill_seconds_per_token is None
    assert declared.price_usd_per_million_input_tokens == pytest.approx(3.6 / 3600 * 0.0002 * 1e6)


def test_a_price_factor_multiplies_the_prices_of_its_region():
    fleet = parse_fleet(a_document())

    usual = fleet.snapshot().nodes["east/gpu-1"].deployments[0]
    dear = fleet.snapshot(price_factor={"east": 3.0}).nodes["east/gpu-1"].deployments[0]

    assert usual.price_usd_per_million_output_tokens is not None
    assert dear.price_usd_per_million_output_tokens == pytest.approx(3 * usual.price_usd_per_million_output_tokens)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nodes": [{"region": "north", "make": "gpu"}]}, "nodes[0].region names 'north'"),
        ({"nodes": [{"region": "east", "make": "tpu"}]}, "`makes` has gpu"),
        ({"nodes": [{"region": "east", "make": "gpu", "count": 0}]}, "nodes[0].count is 0; it must be a number of at"),
        ({"gateways": []}, "gateways is missing; give at least one [[gateways]]"),
        ({"gateways": [{"region": "east", "share": 0}]}, "give at least one a share above it"),
        ({"round_trips_ms": {"east": 1}}, "must be two region ids"),
        ({"colour": "red"}, "colour is no field"),
        ({"makes": {"gpu": {"max_batch_size": 0}}}, "makes.gpu"),
        ({"regions": [{"id": "east"}]}, "regions[0].latitude is None"),
    ],
)
def test_a_wrong_fleet_is_refused_with_its_field_and_the_way_out(changes: dict[str, Any], told: str):
    with pytest.raises(FleetInvalid) as refused:
        parse_fleet(a_document(**changes), "f.toml")

    assert "f.toml: " in str(refused.value)
    assert told in str(refused.value)


def test_an_unknown_name_is_answered_with_those_that_ship():
    with pytest.raises(FleetInvalid, match=r"these do: .*long-prompts-30\.toml, three-regions\.toml, unequal-30\.toml"):
        load_fleet("no-such-fleet")


def test_the_measured_fleet_has_thirty_nodes_in_six_regions_and_nine_gateways():
    fleet = load_fleet("unequal-30")

    assert len(fleet.nodes) == 30
    assert len({node.region_id for node in fleet.nodes}) == 6
    assert len(fleet.gateways) == 9
    assert fleet.signals.every_seconds == 5.0
