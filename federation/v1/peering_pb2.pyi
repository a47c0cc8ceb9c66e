import datetime

from federation.v1 import validate_pb2 as _validate_pb2
from federation.v1 import catalog_pb2 as _catalog_pb2
from federation.v1 import fleet_pb2 as _fleet_pb2
from federation.v1 import routing_pb2 as _routing_pb2
from federation.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerHello(_message.Message):
    __slots__ = ("region_id", "owned_regions", "incarnation", "applied_revision", "lease_duration", "applied_incarnation", "jurisdictions", "version")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNED_REGIONS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    owned_regions: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    applied_revision: int
    lease_duration: _duration_pb2.Duration
    applied_incarnation: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    version: str
    def __init__(self, region_id: _Optional[str] = ..., owned_regions: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ..., applied_revision: _Optional[int] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., applied_incarnation: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ...) -> None: ...

class PeerSnapshot(_message.Message):
    __slots__ = ("revision", "regions", "nodes", "complete", "models", "part")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    revision: int
    regions: _containers.RepeatedCompositeFieldContainer[_types_pb2.Region]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Node]
    complete: bool
    models: _containers.RepeatedCompositeFieldContainer[_types_pb2.Model]
    part: int
    def __init__(self, revision: _Optional[int] = ..., regions: _Optional[_Iterable[_Union[_types_pb2.Region, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[_types_pb2.Node, _Mapping]]] = ..., complete: bool = ..., models: _Optional[_Iterable[_Union[_types_pb2.Model, _Mapping]]] = ..., part: _Optional[int] = ...) -> None: ...

class PeerDelta(_message.Message):
    __slots__ = ("from_revision", "to_revision", "regions", "nodes", "removed_nodes", "models", "removed_models", "removed_regions", "part", "complete")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NODES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_MODELS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_REGIONS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    to_revision: int
    regions: _containers.RepeatedCompositeFieldContainer[_types_pb2.Region]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Node]
    removed_nodes: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[_types_pb2.Model]
    removed_models: _containers.RepeatedScalarFieldContainer[str]
    removed_regions: _containers.RepeatedScalarFieldContainer[str]
    part: int
    complete: bool
    def __init__(self, from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ..., regions: _Optional[_Iterable[_Union[_types_pb2.Region, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[_types_pb2.Node, _Mapping]]] = ..., removed_nodes: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[_types_pb2.Model, _Mapping]]] = ..., removed_models: _Optional[_Iterable[str]] = ..., removed_regions: _Optional[_Iterable[str]] = ..., part: _Optional[int] = ..., complete: bool = ...) -> None: ...

class ExportedDeploymentHealth(_message.Message):
    __slots__ = ("model_id", "state", "ready", "circuit", "ejected_for", "score", "latency_p50", "prefill_seconds_per_token", "min_time_to_first_token", "decode_tokens_per_second")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FOR_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_FIELD_NUMBER: _ClassVar[int]
    PREFILL_SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    state: _fleet_pb2.HealthState
    ready: bool
    circuit: _fleet_pb2.Circuit
    ejected_for: _duration_pb2.Duration
    score: float
    latency_p50: _duration_pb2.Duration
    prefill_seconds_per_token: float
    min_time_to_first_token: _duration_pb2.Duration
    decode_tokens_per_second: float
    def __init__(self, model_id: _Optional[str] = ..., state: _Optional[_Union[_fleet_pb2.HealthState, str]] = ..., ready: bool = ..., circuit: _Optional[_Union[_fleet_pb2.Circuit, _Mapping]] = ..., ejected_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., score: _Optional[float] = ..., latency_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prefill_seconds_per_token: _Optional[float] = ..., min_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode_tokens_per_second: _Optional[float] = ...) -> None: ...

class ExportedHealth(_message.Message):
    __slots__ = ("node", "deployments", "running_requests", "queue_depth", "kv_cache_utilization", "reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node: str
    deployments: _containers.RepeatedCompositeFieldContainer[ExportedDeploymentHealth]
    running_requests: float
    queue_depth: float
    kv_cache_utilization: float
    reason: str
    def __init__(self, node: _Optional[str] = ..., deployments: _Optional[_Iterable[_Union[ExportedDeploymentHealth, _Mapping]]] = ..., running_requests: _Optional[float] = ..., queue_depth: _Optional[float] = ..., kv_cache_utilization: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class PeerHealth(_message.Message):
    __slots__ = ("nodes", "sequence")
    NODES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[ExportedHealth]
    sequence: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[ExportedHealth, _Mapping]]] = ..., sequence: _Optional[int] = ...) -> None: ...

class PeerAck(_message.Message):
    __slots__ = ("applied_revision",)
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    applied_revision: int
    def __init__(self, applied_revision: _Optional[int] = ...) -> None: ...

class PeerHeartbeat(_message.Message):
    __slots__ = ("sequence", "echo", "revision", "applied_revision", "health_sequence")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    HEALTH_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    echo: int
    revision: int
    applied_revision: int
    health_sequence: int
    def __init__(self, sequence: _Optional[int] = ..., echo: _Optional[int] = ..., revision: _Optional[int] = ..., applied_revision: _Optional[int] = ..., health_sequence: _Optional[int] = ...) -> None: ...

class PeerGoodbye(_message.Message):
    __slots__ = ("reason", "refused")
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    reason: str
    refused: bool
    def __init__(self, reason: _Optional[str] = ..., refused: bool = ...) -> None: ...

class SiblingHello(_message.Message):
    __slots__ = ("replica_id", "incarnation", "to_incarnation")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TO_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    incarnation: str
    to_incarnation: str
    def __init__(self, replica_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., to_incarnation: _Optional[str] = ...) -> None: ...

class SiblingBeat(_message.Message):
    __slots__ = ("node", "load")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    node: str
    load: _catalog_pb2.NodeLoad
    def __init__(self, node: _Optional[str] = ..., load: _Optional[_Union[_catalog_pb2.NodeLoad, _Mapping]] = ...) -> None: ...

class SiblingProbe(_message.Message):
    __slots__ = ("node", "ok", "latency_seconds", "models", "lists_models", "error", "loading")
    NODE_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LISTS_MODELS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    node: str
    ok: bool
    latency_seconds: float
    models: _containers.RepeatedScalarFieldContainer[str]
    lists_models: bool
    error: str
    loading: bool
    def __init__(self, node: _Optional[str] = ..., ok: bool = ..., latency_seconds: _Optional[float] = ..., models: _Optional[_Iterable[str]] = ..., lists_models: bool = ..., error: _Optional[str] = ..., loading: bool = ...) -> None: ...

class SiblingHistogram(_message.Message):
    __slots__ = ("bounds", "counts", "sum")
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[float]
    sum: float
    def __init__(self, bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[float]] = ..., sum: _Optional[float] = ...) -> None: ...

class SiblingMetrics(_message.Message):
    __slots__ = ("node", "queue_depth", "running_requests", "kv_cache_utilization", "max_kv_cache_utilization", "gpu_utilization", "throughput_tokens_per_second", "prompt_tokens_total", "generation_tokens_total", "max_batch_size", "kv_cache_tokens", "time_to_first_token", "time_per_output_token", "end_to_end")
    NODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    MAX_KV_CACHE_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    GPU_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TIME_PER_OUTPUT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TO_END_FIELD_NUMBER: _ClassVar[int]
    node: str
    queue_depth: float
    running_requests: float
    kv_cache_utilization: float
    max_kv_cache_utilization: float
    gpu_utilization: float
    throughput_tokens_per_second: float
    prompt_tokens_total: float
    generation_tokens_total: float
    max_batch_size: float
    kv_cache_tokens: float
    time_to_first_token: SiblingHistogram
    time_per_output_token: SiblingHistogram
    end_to_end: SiblingHistogram
    def __init__(self, node: _Optional[str] = ..., queue_depth: _Optional[float] = ..., running_requests: _Optional[float] = ..., kv_cache_utilization: _Optional[float] = ..., max_kv_cache_utilization: _Optional[float] = ..., gpu_utilization: _Optional[float] = ..., throughput_tokens_per_second: _Optional[float] = ..., prompt_tokens_total: _Optional[float] = ..., generation_tokens_total: _Optional[float] = ..., max_batch_size: _Optional[float] = ..., kv_cache_tokens: _Optional[float] = ..., time_to_first_token: _Optional[_Union[SiblingHistogram, _Mapping]] = ..., time_per_output_token: _Optional[_Union[SiblingHistogram, _Mapping]] = ..., end_to_end: _Optional[_Union[SiblingHistogram, _Mapping]] = ...) -> None: ...

class SiblingOutcome(_message.Message):
    __slots__ = ("deployment", "outcome")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    outcome: _routing_pb2.Outcome
    def __init__(self, deployment: _Optional[str] = ..., outcome: _Optional[_Union[_routing_pb2.Outcome, _Mapping]] = ...) -> None: ...

class SiblingAnswers(_message.Message):
    __slots__ = ("deployment", "count")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    count: int
    def __init__(self, deployment: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class SiblingCircuit(_message.Message):
    __slots__ = ("deployment", "epoch", "open", "remaining", "trips", "opens_total", "reason")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    TRIPS_FIELD_NUMBER: _ClassVar[int]
    OPENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    epoch: int
    open: bool
    remaining: _duration_pb2.Duration
    trips: int
    opens_total: int
    reason: str
    def __init__(self, deployment: _Optional[str] = ..., epoch: _Optional[int] = ..., open: bool = ..., remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., trips: _Optional[int] = ..., opens_total: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SiblingEjection(_message.Message):
    __slots__ = ("name", "epoch", "remaining", "ejections", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    EJECTIONS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    epoch: int
    remaining: _duration_pb2.Duration
    ejections: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., epoch: _Optional[int] = ..., remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ejections: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SiblingSuspicion(_message.Message):
    __slots__ = ("deployment", "level")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    level: float
    def __init__(self, deployment: _Optional[str] = ..., level: _Optional[float] = ...) -> None: ...

class SiblingSum(_message.Message):
    __slots__ = ("deployment", "pending_tokens", "in_flight")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PENDING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    pending_tokens: float
    in_flight: float
    def __init__(self, deployment: _Optional[str] = ..., pending_tokens: _Optional[float] = ..., in_flight: _Optional[float] = ...) -> None: ...

class SiblingNews(_message.Message):
    __slots__ = ("sequence", "echo", "sent_seconds", "beats", "probes", "metrics", "outcomes", "answers", "circuits", "ejections", "suspicions", "sums", "trials", "turns", "reports")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    SENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BEATS_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    CIRCUITS_FIELD_NUMBER: _ClassVar[int]
    EJECTIONS_FIELD_NUMBER: _ClassVar[int]
    SUSPICIONS_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    echo: int
    sent_seconds: float
    beats: _containers.RepeatedCompositeFieldContainer[SiblingBeat]
    probes: _containers.RepeatedCompositeFieldContainer[SiblingProbe]
    metrics: _containers.RepeatedCompositeFieldContainer[SiblingMetrics]
    outcomes: _containers.RepeatedCompositeFieldContainer[SiblingOutcome]
    answers: _containers.RepeatedCompositeFieldContainer[SiblingAnswers]
    circuits: _containers.RepeatedCompositeFieldContainer[SiblingCircuit]
    ejections: _containers.RepeatedCompositeFieldContainer[SiblingEjection]
    suspicions: _containers.RepeatedCompositeFieldContainer[SiblingSuspicion]
    sums: _containers.RepeatedCompositeFieldContainer[SiblingSum]
    trials: _containers.RepeatedScalarFieldContainer[str]
    turns: _containers.RepeatedScalarFieldContainer[str]
    reports: _containers.RepeatedCompositeFieldContainer[_routing_pb2.Outcome]
    def __init__(self, sequence: _Optional[int] = ..., echo: _Optional[int] = ..., sent_seconds: _Optional[float] = ..., beats: _Optional[_Iterable[_Union[SiblingBeat, _Mapping]]] = ..., probes: _Optional[_Iterable[_Union[SiblingProbe, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[SiblingMetrics, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[SiblingOutcome, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[SiblingAnswers, _Mapping]]] = ..., circuits: _Optional[_Iterable[_Union[SiblingCircuit, _Mapping]]] = ..., ejections: _Optional[_Iterable[_Union[SiblingEjection, _Mapping]]] = ..., suspicions: _Optional[_Iterable[_Union[SiblingSuspicion, _Mapping]]] = ..., sums: _Optional[_Iterable[_Union[SiblingSum, _Mapping]]] = ..., trials: _Optional[_Iterable[str]] = ..., turns: _Optional[_Iterable[str]] = ..., reports: _Optional[_Iterable[_Union[_routing_pb2.Outcome, _Mapping]]] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("hello", "snapshot", "delta", "health", "ack", "heartbeat", "goodbye", "sibling_hello", "sibling_news")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    SIBLING_HELLO_FIELD_NUMBER: _ClassVar[int]
    SIBLING_NEWS_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    snapshot: PeerSnapshot
    delta: PeerDelta
    health: PeerHealth
    ack: PeerAck
    heartbeat: PeerHeartbeat
    goodbye: PeerGoodbye
    sibling_hello: SiblingHello
    sibling_news: SiblingNews
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., snapshot: _Optional[_Union[PeerSnapshot, _Mapping]] = ..., delta: _Optional[_Union[PeerDelta, _Mapping]] = ..., health: _Optional[_Union[PeerHealth, _Mapping]] = ..., ack: _Optional[_Union[PeerAck, _Mapping]] = ..., heartbeat: _Optional[_Union[PeerHeartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[PeerGoodbye, _Mapping]] = ..., sibling_hello: _Optional[_Union[SiblingHello, _Mapping]] = ..., sibling_news: _Optional[_Union[SiblingNews, _Mapping]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("hello", "snapshot", "delta", "health", "ack", "heartbeat", "goodbye", "sibling_hello", "sibling_news")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    SIBLING_HELLO_FIELD_NUMBER: _ClassVar[int]
    SIBLING_NEWS_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    snapshot: PeerSnapshot
    delta: PeerDelta
    health: PeerHealth
    ack: PeerAck
    heartbeat: PeerHeartbeat
    goodbye: PeerGoodbye
    sibling_hello: SiblingHello
    sibling_news: SiblingNews
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., snapshot: _Optional[_Union[PeerSnapshot, _Mapping]] = ..., delta: _Optional[_Union[PeerDelta, _Mapping]] = ..., health: _Optional[_Union[PeerHealth, _Mapping]] = ..., ack: _Optional[_Union[PeerAck, _Mapping]] = ..., heartbeat: _Optional[_Union[PeerHeartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[PeerGoodbye, _Mapping]] = ..., sibling_hello: _Optional[_Union[SiblingHello, _Mapping]] = ..., sibling_news: _Optional[_Union[SiblingNews, _Mapping]] = ...) -> None: ...
