"""Resources for tests, of which a test names what matters to it."""

from __future__ import annotations

from typing import Any

from catalog.types import (
    Deployment,
    DeploymentStatus,
    Engine,
    Model,
    Node,
    PolicyRecord,
    PriceBand,
    PrivacyLevel,
    Region,
    ServingProfile,
    Snapshot,
)

OWNER = "eu-west-1"


class Clock:
    """Unix seconds that stand until a test moves them."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_region(region_id: str = "eu-west-1", **fields: Any) -> Region:
    return Region(region_id, **fields)


def a_model(model_id: str = "llama-3-70b", **fields: Any) -> Model:
    return Model(model_id, **fields)


def a_policy(policy_id: str = "balanced", document: str = '{"weights":{"cost":1}}', **fields: Any) -> PolicyRecord:
    return PolicyRecord(policy_id, document, **fields)


def a_deployment(model_id: str = "llama-3-70b", node: str = "eu-west-1/gpu-1", **fields: Any) -> Deployment:
    region_id, node_id = node.split("/")
    return Deployment(region_id, node_id, model_id, **{"capabilities": ("generate",), **fields})


def a_node(name: str = "eu-west-1/gpu-1", *models: str, **fields: Any) -> Node:
    """A node that serves the models, by default `llama-3-70b`."""
    region_id, node_id = name.split("/")
    served = tuple(a_deployment(model_id, name) for model_id in models or ("llama-3-70b",))
    common = {"endpoint": f"http://{node_id}.example:8000", "engine": Engine.VLLM, "deployments": served}
    return Node(region_id, node_id, **{**common, **fields})


def a_full_node(name: str = "eu-west-1/gpu-1") -> Node:
    """A node that differs from the defaults in every field that a registration sets."""
    return a_node(
        name,
        zone="a",
        accelerator="h100",
        accelerator_count=8,
        privacy_level=PrivacyLevel.RESTRICTED,
        labels={"rack": "r7", "naïve": "\u2603"},
        price_usd_per_hour=12.5,
        lease_seconds=0.0,
        deployments=(
            a_deployment(
                "meta-llama/Llama-3.1-8B-Instruct",
                name,
                served_model_name="llama",
                capabilities=("generate", "custom:tools"),
                price_usd_per_million_input_tokens=0.0,
                price_usd_per_million_output_tokens=0.3,
                price_usd_per_million_cached_tokens=0.1,
                price_bands=(PriceBand(1320, 360, 0.5, (0, 1)),),
                committed_concurrency=4,
                max_concurrency=64,
                weight=0.5,
                adapters=("sql",),
                tenant_ids=("acme",),
                profile=ServingProfile(1e-4, 0.02, 55.5, 256, 1_000_000),
                status=DeploymentStatus.LOADING,
            ),
        ),
    )


def contents(snapshot: Snapshot) -> tuple[object, ...]:
    """A snapshot as something to compare: its mappings in one order."""
    mappings = (snapshot.regions, snapshot.models, snapshot.nodes, snapshot.policies)
    return (snapshot.revision, *(sorted(mapping.items()) for mapping in mappings))
