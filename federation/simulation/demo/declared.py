"""The model and the regions as the demonstration declares them to a control plane. Pure."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from federation.simulation.demo.fleet import DemoFleet, DemoRegion
from federation.v1 import types_pb2


def model_message(fleet: DemoFleet) -> types_pb2.Model:
    """The one model of the fleet."""
    model = fleet.model
    return types_pb2.Model(
        model_id=model.model_id,
        family=model.family,
        version=model.version,
        quantization=model.quantization,
        context_window_tokens=model.context_window_tokens,
        capabilities=model.capabilities,
    )


def region_message(fleet: DemoFleet, region: DemoRegion) -> types_pb2.Region:
    """A region, with the round trips from it to the others."""
    declared = types_pb2.Region(
        region_id=region.region_id,
        provider="aws",
        jurisdictions=region.jurisdictions,
        latitude=region.latitude,
        longitude=region.longitude,
        egress_price_usd_per_gb=region.egress_price_usd_per_gb,
    )
    for other in fleet.regions:
        if other is not region:
            seconds = fleet.round_trip(region.region_id, other.region_id)
            declared.round_trips[other.region_id].CopyFrom(Duration(nanos=round(seconds * 1e9)))
    return declared
