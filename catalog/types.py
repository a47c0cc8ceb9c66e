"""The resources of a catalog, as frozen values.

Everything here is a plain value: no I/O, no clock, no protobuf.  The rules that a value must satisfy on
arrival (lengths, patterns, ranges) stand in the protos; what stands here is meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType

EMPTY: Mapping[str, str] = MappingProxyType({})


class PrivacyLevel(IntEnum):
    """How sensitive a prompt may be; a node serves its own level and all below."""

    PUBLIC = 1
    INTERNAL = 2
    CONFIDENTIAL = 3
    RESTRICTED = 4


class RegionStatus(Enum):
    ACTIVE = "active"
    DRAINING = "draining"
    OFFLINE = "offline"


class Reach(Enum):
    """How a gateway elsewhere gets to a region's nodes: straight, or by the region's ingress."""

    DIRECT = "direct"
    GATEWAY = "gateway"


class Engine(Enum):
    """Which server speaks at a node's endpoint; it fixes the health path and the metrics dialect."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    TRITON = "triton"
    TRTLLM = "trtllm"
    OPENAI = "openai"
    GRPC = "grpc"


class DeploymentStatus(Enum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    REMOVED = "removed"


class ResourceKind(Enum):
    REGION = "region"
    MODEL = "model"
    NODE = "node"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Region:
    """A place with nodes; `owner` is the control plane that alone writes its records."""

    region_id: str
    provider: str = ""
    # ISO 3166 country code and groups it belongs to ("DE", "EU"); empty is unknown and fails closed.
    jurisdictions: tuple[str, ...] = ()
    latitude: float | None = None
    longitude: float | None = None
    reach: Reach = Reach.DIRECT
    ingress_endpoint: str = ""
    status: RegionStatus = RegionStatus.ACTIVE
    egress_price_usd_per_gb: float | None = None
    # Measured seconds to other regions, by region_id.
    round_trip_seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    # To single regions; they go before `egress_price_usd_per_gb`.
    egress_prices_usd_per_gb: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    owner: str = ""
    revision: int = 0
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """What weights answer to an id; two owners may describe one id differently."""

    model_id: str
    family: str = ""
    version: str = ""
    quantization: str = ""
    context_window_tokens: int | None = None
    modality: str = ""
    tokenizer: str = ""
    capabilities: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    # Models that share a non-empty class may stand in for each other where a request allows it.
    equivalence_class: str = ""
    owner: str = ""
    revision: int = 0
    etag: str = ""

    @property
    def identity(self) -> tuple[str, str, str, int | None, str]:
        """What makes two records the same model to a failover."""
        return (self.family, self.version, self.quantization, self.context_window_tokens, self.tokenizer)


@dataclass(frozen=True, slots=True)
class ServingProfile:
    """What an operator declares of a deployment's speed before anything was measured."""

    prefill_seconds_per_token: float | None = None
    # The least time to a first token, however short the prompt.
    min_time_to_first_token_seconds: float | None = None
    # What one request sees when it runs alone.
    decode_tokens_per_second: float | None = None
    # Sequences that decode together; the next one waits for a place.
    max_batch_size: int | None = None
    kv_cache_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PriceBand:
    """Hours in which a deployment's prices are multiplied by `factor`: minutes of the UTC day, over midnight too."""

    start_minute: int
    end_minute: int
    factor: float
    # Days on which it starts, 0 is Monday; empty: every day.
    weekdays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model served by one node: what a request is routed to."""

    region_id: str
    node_id: str
    model_id: str
    served_model_name: str = ""
    capabilities: tuple[str, ...] = ()
    price_usd_per_million_input_tokens: float | None = None
    price_usd_per_million_output_tokens: float | None = None
    price_usd_per_million_cached_tokens: float | None = None
    price_bands: tuple[PriceBand, ...] = ()
    # Requests at once that are paid for already.
    committed_concurrency: int | None = None
    # Requests routed here at once, waiting ones included; None is no limit of ours.
    max_concurrency: int | None = None
    weight: float = 1.0
    adapters: tuple[str, ...] = ()
    # Who may be routed here; empty is everybody.
    tenant_ids: tuple[str, ...] = ()
    profile: ServingProfile = ServingProfile()
    status: DeploymentStatus = DeploymentStatus.READY
    # Made once of the three ids: whoever follows the fleet keeps this one string.
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.region_id}/{self.node_id}/{self.model_id}")


@dataclass(frozen=True, slots=True)
class Node:
    """A process that serves deployments at one endpoint.

    Spec and deployments are what was registered; `draining` is an operator's word; `expired` tells that the
    lease ended, which the store records once and the next heartbeat takes back.
    """

    region_id: str
    node_id: str
    endpoint: str
    engine: Engine
    zone: str = ""
    accelerator: str = ""
    accelerator_count: int = 0
    # None: an owned node serves up to INTERNAL, an imported one only PUBLIC.
    privacy_level: PrivacyLevel | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    price_usd_per_hour: float | None = None
    # Seconds that a registration lives without a heartbeat; 0 lives until deregistered.
    lease_seconds: float = 30.0
    deployments: tuple[Deployment, ...] = ()
    draining: bool = False
    expired: bool = False
    owner: str = ""
    # Counts changes of the spec, not of draining or lease.
    generation: int = 0
    revision: int = 0
    etag: str = ""
    # Unix seconds of the first registration and of the lease's end (0: alive), for people to read.
    create_time: float = 0.0
    expire_time: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.region_id}/{self.node_id}"


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy document as stored: canonical JSON, checked before it came here."""

    policy_id: str
    document: str
    owner: str = ""
    revision: int = 0
    etag: str = ""
    create_time: float = 0.0


Resource = Region | Model | Node | PolicyRecord


def kind_of(resource: Resource) -> ResourceKind:
    match resource:
        case Region():
            return ResourceKind.REGION
        case Model():
            return ResourceKind.MODEL
        case Node():
            return ResourceKind.NODE
        case PolicyRecord():
            return ResourceKind.POLICY


def name_of(resource: Resource) -> str:
    """The readable name that is unique among resources of one kind and owner."""
    match resource:
        case Region():
            return resource.region_id
        case Model():
            return resource.model_id
        case Node():
            return resource.name
        case PolicyRecord():
            return resource.policy_id


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log: `resource` as it is after it, None where it was deleted."""

    revision: int
    kind: ResourceKind
    name: str
    resource: Resource | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one revision, by name."""

    revision: int
    regions: Mapping[str, Region]
    models: Mapping[str, Model]
    # By `region_id/node_id`.
    nodes: Mapping[str, Node]
    policies: Mapping[str, PolicyRecord]
    # Regions among them that are other control planes'; a store's own snapshot has none.
    imported: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Spend:
    """What a tenant spent in a period, in US dollars. Not a resource: it has no revision and no change in the log."""

    # "2026-02-03" for a day, "2026-02" for a month, of UTC.
    period: str
    tenant_id: str
    usd: float


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that serves a catalog beside others, as it says of itself. Not a resource, as `Spend` is none."""

    replica_id: str
    # Where the other replicas reach it.
    address: str
    # Which life of the process this is. Only who reads the store knows it, so that it proves who speaks.
    incarnation: str
    # How often it beat. Whether it goes on growing tells whether the replica lives, whatever clocks say.
    beats: int = 0
    # Unix seconds, by the clock of the replica.
    beat_time: float = 0.0
