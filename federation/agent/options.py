"""What an agent is told, and the registration that follows from it and from what the engine says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from google.protobuf import duration_pb2

from catalog.types import Engine, PrivacyLevel, ServingProfile
from federation.agent.discovery import Discovered, ServedModel
from federation.edge.service_config import TlsOptions
from federation.v1 import catalog_pb2, types_pb2

ID = re.compile(r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?")
SCHEMES = ("http", "https", "grpc", "grpcs")
# The key under which `model_capabilities` holds what counts for all models.
ALL_MODELS = "*"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """One agent serves one node. Raises ValueError for what the control plane would refuse anyway."""

    # Where the agent finds the engine, and where gateways do (empty: at the same address).
    engine_url: str
    control_plane: str | Sequence[str]
    region_id: str
    advertise: str = ""
    # Empty: from the host's name and the engine's port.
    node_id: str = ""
    zone: str = ""
    # None: found out from what the engine answers.
    engine: Engine | None = None
    privacy_level: PrivacyLevel | None = None
    accelerator: str = ""
    accelerator_count: int = 0
    price_usd_per_hour: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant_ids: tuple[str, ...] = ()
    # Model id to register by the name that the engine gives; names that are not here keep theirs.
    # For a gRPC engine, which lists nothing, these are its models.
    model_ids: Mapping[str, str] = field(default_factory=dict)
    # Capabilities by model id, or by `*` for all; without any, the model's record says.
    model_capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    price_usd_per_million_input_tokens: float | None = None
    price_usd_per_million_output_tokens: float | None = None
    price_usd_per_million_cached_tokens: float | None = None
    max_concurrency: int | None = None
    # Declared speed of each deployment; what is None is learned from requests.
    profile: ServingProfile = ServingProfile()
    # 0: the registration lives until it is taken back.
    lease_seconds: float = 30.0
    # `drain` waits for what runs before it deregisters.
    on_exit: Literal["drain", "deregister"] = "deregister"
    drain_seconds: float = 30.0
    # Bearer token for the engine's `/v1` paths, and for the control plane (which needs TLS).
    engine_token: str = ""
    token: str = ""
    tls: TlsOptions | None = None

    def __post_init__(self) -> None:
        for name, url in (("engine_url", self.engine_url), ("advertise", self.advertise)):
            if url or name == "engine_url":
                _check_url(name, url)
        for name, text in (("region_id", self.region_id), ("node_id", self.node_id)):
            if (text or name == "region_id") and (not ID.fullmatch(text) or len(text) > 63):
                raise ValueError(
                    f"{name} is {text!r}; it must be 1 to 63 of a-z, 0-9, '-', '.', '_', its ends a-z or 0-9"
                )
        if not 0 <= self.lease_seconds <= 86_400:
            raise ValueError(f"lease_seconds is {self.lease_seconds}; it must be between 0 (no lease) and 86400")
        if self.on_exit not in ("drain", "deregister"):
            raise ValueError(f"on_exit is {self.on_exit!r}; it must be drain or deregister")
        if self.engine_url.startswith("grpc") and not self.model_ids:
            raise ValueError("a gRPC engine lists no models; name them in model_ids")

    @property
    def endpoint(self) -> str:
        """What gateways are told."""
        return (self.advertise or self.engine_url).rstrip("/")


def _check_url(name: str, text: str) -> None:
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        port = 0
    if url.scheme not in SCHEMES or not url.hostname or url.path.strip("/") or url.query or url.username or port == 0:
        raise ValueError(
            f"{name} is {text!r}; it must be http://, https://, grpc:// or grpcs:// with host and port only"
        )


def default_node_id(host_name: str, engine_url: str) -> str:
    """A readable id that stays the same over restarts: `gpu-7-8000`."""
    url = urlsplit(engine_url)
    port = url.port or (443 if url.scheme in ("https", "grpcs") else 80)
    host = re.sub(r"[^a-z0-9]+", "-", host_name.partition(".")[0].lower()).strip("-") or "node"
    return f"{host[:50].rstrip('-')}-{port}"


def registration(
    options: AgentOptions, node_id: str, found: Discovered, request_id: str, etag: str
) -> catalog_pb2.RegisterNodeRequest:
    """The node with all that its engine serves; `etag` is the version that it replaces, empty for none."""
    node = types_pb2.Node(
        region_id=options.region_id,
        node_id=node_id,
        zone=options.zone,
        endpoint=options.endpoint,
        engine=f"ENGINE_{found.engine.name}",
        accelerator=options.accelerator,
        accelerator_count=options.accelerator_count,
        labels=options.labels,
        price_usd_per_hour=options.price_usd_per_hour,
        lease_duration=duration(options.lease_seconds),
        privacy_level=f"PRIVACY_LEVEL_{options.privacy_level.name}" if options.privacy_level is not None else None,
        etag=etag,
    )
    deployments = [_deployment(options, model) for model in found.models]
    return catalog_pb2.RegisterNodeRequest(node=node, deployments=deployments, request_id=request_id)


def _deployment(options: AgentOptions, model: ServedModel) -> types_pb2.Deployment:
    model_id = options.model_ids.get(model.name, model.name)
    capabilities = options.model_capabilities.get(model_id, options.model_capabilities.get(ALL_MODELS, ()))
    return types_pb2.Deployment(
        profile=_profile(options.profile),
        model_id=model_id,
        served_model_name="" if model.name == model_id else model.name,
        capabilities=capabilities,
        adapters=model.adapters,
        tenant_ids=options.tenant_ids,
        price_usd_per_million_input_tokens=options.price_usd_per_million_input_tokens,
        price_usd_per_million_output_tokens=options.price_usd_per_million_output_tokens,
        price_usd_per_million_cached_tokens=options.price_usd_per_million_cached_tokens,
        max_concurrency=options.max_concurrency,
    )


def _profile(declared: ServingProfile) -> types_pb2.ServingProfile | None:
    if declared == ServingProfile():
        return None
    least = declared.min_time_to_first_token_seconds
    return types_pb2.ServingProfile(
        prefill_seconds_per_token=declared.prefill_seconds_per_token,
        min_time_to_first_token=None if least is None else duration(least),
        decode_tokens_per_second=declared.decode_tokens_per_second,
        max_batch_size=declared.max_batch_size,
        kv_cache_tokens=declared.kv_cache_tokens,
    )


def duration(seconds: float) -> duration_pb2.Duration:
    value = duration_pb2.Duration()
    value.FromMicroseconds(round(seconds * 1e6))
    return value
