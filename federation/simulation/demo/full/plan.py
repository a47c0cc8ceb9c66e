"""Which regions, replicas and engines `fairway demo --full` has, and how they are set. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from federation.simulation.demo.fleet import PACE, DemoFleet, DemoNode, DemoRegion
from federation.v1 import types_pb2

REPLICAS = (1, 2)
# What peers tell counts for so long without news: the default is 30 s.
PEER_LEASE_SECONDS = 6.0


def plan(fleet: DemoFleet) -> DemoFleet:
    """The regions with two engines each, the one for confidential prompts among them."""
    chosen = []
    for region in fleet.regions:
        nodes = fleet.nodes_of(region.region_id)
        chosen += [nodes[0], fleet.confidential if fleet.confidential in nodes else nodes[1]]
    return replace(fleet, nodes=tuple(chosen))


def dialed(fleet: DemoFleet, region: str) -> tuple[str, ...]:
    """Regions whose replicas this one dials: those before it, so that each pair has one side that dials."""
    names = [each.region_id for each in fleet.regions]
    return tuple(names[: names.index(region)])


def replica_settings(
    region: DemoRegion, directory: Path, *, name: str, listen: str, database: str, peers: tuple[str, ...]
) -> str:
    """The configuration file of one replica: quicker than the defaults, so that minutes fit into seconds."""
    return f"""\
[region]
id = "{region.region_id}"
owns = ["{region.region_id}"]
jurisdiction = {json.dumps(region.jurisdictions)}
[server]
listen = "{listen}"
admin = "127.0.0.1:0"
drain_seconds = 1.0
[store]
url = "{database}"
[peering]
peers = {json.dumps(peers)}
lease_seconds = {PEER_LEASE_SECONDS}
[health]
probe_interval_seconds = {PACE.probe_interval_seconds}
probe_timeout_seconds = {PACE.probe_timeout_seconds}
recheck_interval_seconds = {PACE.recheck_interval_seconds}
slow_start_seconds = {PACE.slow_start_seconds}
[circuit]
open_seconds = {PACE.open_seconds}
max_open_seconds = {PACE.max_open_seconds}
[routing]
decision_log = {json.dumps(str(decision_log(directory, name)))}
[telemetry]
log_format = "json"
"""


def decision_log(directory: Path, name: str) -> Path:
    """Where a replica writes its decisions; one that is started again goes on in the same file."""
    return directory / f"{name.replace('/', '-')}.jsonl"


def node_message(node: DemoNode, endpoint: str) -> types_pb2.Node:
    """A node as it is registered: it stays until it is taken back."""
    return types_pb2.Node(
        region_id=node.region_id,
        node_id=node.node_id,
        zone=node.zone,
        endpoint=endpoint,
        engine=types_pb2.ENGINE_VLLM,
        accelerator=node.accelerator,
        accelerator_count=node.accelerator_count,
        price_usd_per_hour=node.price_usd_per_hour,
        privacy_level=f"PRIVACY_LEVEL_{node.privacy_level.upper()}",
        lease_duration={"seconds": 0},
    )


def deployment_message(fleet: DemoFleet, node: DemoNode) -> types_pb2.Deployment:
    """The model on a node, with the speeds that its maker declares."""
    profile = node.profile
    declared = types_pb2.ServingProfile(
        prefill_seconds_per_token=profile.prefill_seconds_per_token,
        decode_tokens_per_second=profile.decode_tokens_per_second,
        max_batch_size=profile.max_batch_size,
        kv_cache_tokens=profile.kv_cache_tokens,
    )
    declared.min_time_to_first_token.FromNanoseconds(round((profile.min_time_to_first_token_seconds or 0.0) * 1e9))
    return types_pb2.Deployment(model_id=fleet.model.model_id, profile=declared)
