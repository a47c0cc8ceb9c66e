"""Faults as they are written."""

from __future__ import annotations

import pytest

from federation.simulation.faults import Fault, node_of, parse_fault, region_of
from federation.simulation.fleet import FleetInvalid, load_fleet

FLEET = load_fleet("three-regions")


def test_a_fault_is_written_with_target_and_time_or_without():
    assert parse_fault("gray") == Fault("gray")
    assert parse_fault("killed:us-east-1/h100x4-1@0.1-0.5") == Fault("killed", "us-east-1/h100x4-1", 0.1, 0.5)
    assert str(parse_fault("cut:eu-central-1")) == "cut:eu-central-1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flood", "there are gray, fast-failure, killed"),
        ("gray@1", "two shares of the run"),
        ("gray@0.5-0.2", "0 <= FROM < TO <= 1"),
    ],
)
def test_what_is_no_fault_is_told(text: str, told: str):
    with pytest.raises(FleetInvalid, match=told):
        parse_fault(text)


def test_without_a_target_the_fastest_node_of_the_busiest_region_is_hit():
    assert node_of(FLEET, Fault("gray")) == "us-east-1/h100x4-1"
    assert region_of(FLEET, Fault("cut")) == "eu-central-1"


def test_an_unknown_target_is_told():
    with pytest.raises(FleetInvalid, match="node 'x' is not in fleet 'three-regions'"):
        node_of(FLEET, Fault("gray", "x"))
    with pytest.raises(FleetInvalid, match="region 'x' has no node"):
        region_of(FLEET, Fault("cut", "x"))
