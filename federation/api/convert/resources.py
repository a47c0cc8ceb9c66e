"""Resources of the catalog and their messages, with what an update_mask may name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from catalog.types import (
    Change,
    Deployment,
    DeploymentStatus,
    Engine,
    Model,
    Node,
    PriceBand,
    PrivacyLevel,
    Reach,
    Region,
    RegionStatus,
    Resource,
    ResourceKind,
    ServingProfile,
)
from federation.api.convert.times import duration, optional_duration, seconds_of, timestamp
from federation.v1 import catalog_pb2, types_pb2

DEFAULT_LEASE_SECONDS = 30.0

# The names of both sides agree; an unset enum is the default that its proto tells.
STATUS_TO = {each: f"REGION_STATUS_{each.name}" for each in RegionStatus}
STATUS_FROM = {0: RegionStatus.ACTIVE} | {types_pb2.RegionStatus.Value(v): k for k, v in STATUS_TO.items()}
REACH_TO = {each: f"REACH_{each.name}" for each in Reach}
REACH_FROM = {0: Reach.DIRECT} | {types_pb2.Reach.Value(v): k for k, v in REACH_TO.items()}
ENGINE_TO = {each: f"ENGINE_{each.name}" for each in Engine}
ENGINE_FROM = {types_pb2.Engine.Value(v): k for k, v in ENGINE_TO.items()}
PHASE_TO = {each: f"DEPLOYMENT_STATUS_{each.name}" for each in DeploymentStatus}
PHASE_FROM = {0: DeploymentStatus.READY} | {types_pb2.DeploymentStatus.Value(v): k for k, v in PHASE_TO.items()}
PRIVACY_TO = {each: f"PRIVACY_LEVEL_{each.name}" for each in PrivacyLevel}

# What an update_mask may name: fields of the message, with the attributes that they fill.
REGION_FIELDS: Mapping[str, str] = {
    "provider": "provider",
    "jurisdictions": "jurisdictions",
    "latitude": "latitude",
    "longitude": "longitude",
    "reach": "reach",
    "ingress_endpoint": "ingress_endpoint",
    "status": "status",
    "egress_price_usd_per_gb": "egress_price_usd_per_gb",
    "round_trips": "round_trip_seconds",
    "egress_prices_usd_per_gb": "egress_prices_usd_per_gb",
}
MODEL_FIELDS: Mapping[str, str] = {
    "family": "family",
    "version": "version",
    "quantization": "quantization",
    "context_window_tokens": "context_window_tokens",
    "modality": "modality",
    "tokenizer": "tokenizer",
    "capabilities": "capabilities",
    "aliases": "aliases",
    "equivalence_class": "equivalence_class",
}
NODE_FIELDS: Mapping[str, str] = {
    "zone": "zone",
    "endpoint": "endpoint",
    "engine": "engine",
    "accelerator": "accelerator",
    "accelerator_count": "accelerator_count",
    "privacy_level": "privacy_level",
    "labels": "labels",
    "price_usd_per_hour": "price_usd_per_hour",
    "lease_duration": "lease_seconds",
    "deployments": "deployments",
}


R = TypeVar("R", Region, Model, Node)


def merged(stored: R, sent: R, paths: Sequence[str], fields: Mapping[str, str]) -> R:
    """The stored resource with the masked fields as sent; under the etag that was sent, else the one that was read."""
    changes = {fields[path]: getattr(sent, fields[path]) for path in paths}
    return replace(stored, **changes, etag=sent.etag or stored.etag)


def region_from(message: types_pb2.Region) -> Region:
    return Region(
        region_id=message.region_id,
        provider=message.provider,
        jurisdictions=tuple(message.jurisdictions),
        latitude=message.latitude if message.HasField("latitude") else None,
        longitude=message.longitude if message.HasField("longitude") else None,
        reach=REACH_FROM[message.reach],
        ingress_endpoint=message.ingress_endpoint.rstrip("/"),
        status=STATUS_FROM[message.status],
        egress_price_usd_per_gb=(
            message.egress_price_usd_per_gb if message.HasField("egress_price_usd_per_gb") else None
        ),
        round_trip_seconds=MappingProxyType({key: seconds_of(value) for key, value in message.round_trips.items()}),
        egress_prices_usd_per_gb=MappingProxyType(dict(message.egress_prices_usd_per_gb)),
        etag=message.etag,
    )


def region_to(region: Region) -> types_pb2.Region:
    return types_pb2.Region(
        region_id=region.region_id,
        provider=region.provider,
        jurisdictions=region.jurisdictions,
        latitude=region.latitude,
        longitude=region.longitude,
        reach=REACH_TO[region.reach],
        ingress_endpoint=region.ingress_endpoint,
        status=STATUS_TO[region.status],
        egress_price_usd_per_gb=region.egress_price_usd_per_gb,
        round_trips={key: duration(value) for key, value in region.round_trip_seconds.items()},
        egress_prices_usd_per_gb=dict(region.egress_prices_usd_per_gb),
        owner=region.owner,
        revision=region.revision,
        etag=region.etag,
    )


def model_from(message: types_pb2.Model) -> Model:
    return Model(
        model_id=message.model_id,
        family=message.family,
        version=message.version,
        quantization=message.quantization,
        context_window_tokens=message.context_window_tokens if message.HasField("context_window_tokens") else None,
        modality=message.modality,
        tokenizer=message.tokenizer,
        capabilities=tuple(message.capabilities),
        aliases=tuple(message.aliases),
        equivalence_class=message.equivalence_class,
        etag=message.etag,
    )


def model_to(model: Model) -> types_pb2.Model:
    return types_pb2.Model(
        model_id=model.model_id,
        family=model.family,
        version=model.version,
        quantization=model.quantization,
        context_window_tokens=model.context_window_tokens,
        modality=model.modality,
        tokenizer=model.tokenizer,
        capabilities=model.capabilities,
        aliases=model.aliases,
        equivalence_class=model.equivalence_class,
        owner=model.owner,
        revision=model.revision,
        etag=model.etag,
    )


def deployment_from(message: types_pb2.Deployment, region_id: str, node_id: str) -> Deployment:
    profile = message.profile
    return Deployment(
        region_id=region_id,
        node_id=node_id,
        model_id=message.model_id,
        served_model_name=message.served_model_name,
        capabilities=tuple(message.capabilities),
        price_usd_per_million_input_tokens=_price(message, "input"),
        price_usd_per_million_output_tokens=_price(message, "output"),
        price_usd_per_million_cached_tokens=_price(message, "cached"),
        price_bands=tuple(
            PriceBand(band.start_minute, band.end_minute, band.factor, tuple(band.weekdays))
            for band in message.price_bands
        ),
        committed_concurrency=message.committed_concurrency if message.HasField("committed_concurrency") else None,
        max_concurrency=message.max_concurrency if message.HasField("max_concurrency") else None,
        weight=message.weight if message.HasField("weight") else 1.0,
        adapters=tuple(message.adapters),
        tenant_ids=tuple(message.tenant_ids),
        profile=ServingProfile(
            prefill_seconds_per_token=(
                profile.prefill_seconds_per_token if profile.HasField("prefill_seconds_per_token") else None
            ),
            min_time_to_first_token_seconds=(
                seconds_of(profile.min_time_to_first_token) if profile.HasField("min_time_to_first_token") else None
            ),
            decode_tokens_per_second=(
                profile.decode_tokens_per_second if profile.HasField("decode_tokens_per_second") else None
            ),
            max_batch_size=profile.max_batch_size if profile.HasField("max_batch_size") else None,
            kv_cache_tokens=profile.kv_cache_tokens if profile.HasField("kv_cache_tokens") else None,
        ),
        status=PHASE_FROM[message.status],
    )


def _price(message: types_pb2.Deployment, which: str) -> float | None:
    name = f"price_usd_per_million_{which}_tokens"
    return float(getattr(message, name)) if message.HasField(name) else None


def deployment_to(deployment: Deployment) -> types_pb2.Deployment:
    profile = deployment.profile
    told = types_pb2.ServingProfile(
        prefill_seconds_per_token=profile.prefill_seconds_per_token,
        min_time_to_first_token=optional_duration(profile.min_time_to_first_token_seconds),
        decode_tokens_per_second=profile.decode_tokens_per_second,
        max_batch_size=profile.max_batch_size,
        kv_cache_tokens=profile.kv_cache_tokens,
    )
    return types_pb2.Deployment(
        region_id=deployment.region_id,
        node_id=deployment.node_id,
        model_id=deployment.model_id,
        served_model_name=deployment.served_model_name,
        capabilities=deployment.capabilities,
        price_usd_per_million_input_tokens=deployment.price_usd_per_million_input_tokens,
        price_usd_per_million_output_tokens=deployment.price_usd_per_million_output_tokens,
        price_usd_per_million_cached_tokens=deployment.price_usd_per_million_cached_tokens,
        price_bands=[
            types_pb2.PriceBand(
                start_minute=band.start_minute,
                end_minute=band.end_minute,
                weekdays=band.weekdays,
                factor=band.factor,
            )
            for band in deployment.price_bands
        ],
        committed_concurrency=deployment.committed_concurrency,
        max_concurrency=deployment.max_concurrency,
        weight=deployment.weight,
        adapters=deployment.adapters,
        tenant_ids=deployment.tenant_ids,
        profile=None if profile == ServingProfile() else told,
        status=PHASE_TO[deployment.status],
    )


def node_from(message: types_pb2.Node, deployments: Sequence[types_pb2.Deployment]) -> Node:
    """A registration as a node; deployments in the order of their models, so that their order is no content."""
    served = (deployment_from(each, message.region_id, message.node_id) for each in deployments)
    return Node(
        region_id=message.region_id,
        node_id=message.node_id,
        endpoint=message.endpoint.rstrip("/"),
        # An engine that a masked update leaves out is not read.
        engine=ENGINE_FROM.get(message.engine, Engine.OPENAI),
        zone=message.zone,
        accelerator=message.accelerator,
        accelerator_count=message.accelerator_count,
        privacy_level=PrivacyLevel(message.privacy_level) if message.privacy_level else None,
        labels=MappingProxyType(dict(message.labels)),
        price_usd_per_hour=message.price_usd_per_hour if message.HasField("price_usd_per_hour") else None,
        lease_seconds=(
            seconds_of(message.lease_duration) if message.HasField("lease_duration") else DEFAULT_LEASE_SECONDS
        ),
        deployments=tuple(sorted(served, key=lambda deployment: deployment.model_id)),
        etag=message.etag,
    )


def node_to(node: Node) -> types_pb2.Node:
    return types_pb2.Node(
        region_id=node.region_id,
        node_id=node.node_id,
        zone=node.zone,
        endpoint=node.endpoint,
        engine=ENGINE_TO[node.engine],
        accelerator=node.accelerator,
        accelerator_count=node.accelerator_count,
        privacy_level=None if node.privacy_level is None else PRIVACY_TO[node.privacy_level],
        labels=dict(node.labels),
        price_usd_per_hour=node.price_usd_per_hour,
        lease_duration=duration(node.lease_seconds),
        deployments=[deployment_to(deployment) for deployment in node.deployments],
        draining=node.draining,
        lease_expired=node.expired,
        owner=node.owner,
        generation=node.generation,
        revision=node.revision,
        etag=node.etag,
        create_time=timestamp(node.create_time) if node.create_time else None,
    )


def resource_change(resource: Resource, revision: int, *, deleted: bool = False) -> catalog_pb2.CatalogChange | None:
    """A resource as a watch tells it; None for policies, which the catalog's watch does not carry."""
    match resource:
        case Region():
            return catalog_pb2.CatalogChange(
                revision=revision, name=resource.region_id, region=region_to(resource), deleted=deleted
            )
        case Model():
            return catalog_pb2.CatalogChange(
                revision=revision, name=resource.model_id, model=model_to(resource), deleted=deleted
            )
        case Node():
            return catalog_pb2.CatalogChange(
                revision=revision, name=resource.name, node=node_to(resource), deleted=deleted
            )
        case _:
            return None


def change_to(change: Change) -> catalog_pb2.CatalogChange | None:
    """A change as a watch tells it; of what was removed only the ids."""
    if change.resource is not None:
        return resource_change(change.resource, change.revision)
    told = catalog_pb2.CatalogChange(revision=change.revision, name=change.name, deleted=True)
    match change.kind:
        case ResourceKind.REGION:
            told.region.region_id = change.name
        case ResourceKind.MODEL:
            told.model.model_id = change.name
        case ResourceKind.NODE:
            told.node.region_id, _, told.node.node_id = change.name.partition("/")
        case ResourceKind.POLICY:
            return None
    return told
