import datetime

from federation.v1 import validate_pb2 as _validate_pb2
from federation.v1 import fleet_pb2 as _fleet_pb2
from federation.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerHello(_message.Message):
    __slots__ = ("region_id", "owned_regions", "incarnation", "applied_revision", "lease_duration", "applied_incarnation", "jurisdictions")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNED_REGIONS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    owned_regions: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    applied_revision: int
    lease_duration: _duration_pb2.Duration
    applied_incarnation: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, region_id: _Optional[str] = ..., owned_regions: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ..., applied_revision: _Optional[int] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., applied_incarnation: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ...) -> None: ...

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

class ExchangeRequest(_message.Message):
    __slots__ = ("hello", "snapshot", "delta", "health", "ack", "heartbeat", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    snapshot: PeerSnapshot
    delta: PeerDelta
    health: PeerHealth
    ack: PeerAck
    heartbeat: PeerHeartbeat
    goodbye: PeerGoodbye
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., snapshot: _Optional[_Union[PeerSnapshot, _Mapping]] = ..., delta: _Optional[_Union[PeerDelta, _Mapping]] = ..., health: _Optional[_Union[PeerHealth, _Mapping]] = ..., ack: _Optional[_Union[PeerAck, _Mapping]] = ..., heartbeat: _Optional[_Union[PeerHeartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[PeerGoodbye, _Mapping]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("hello", "snapshot", "delta", "health", "ack", "heartbeat", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    snapshot: PeerSnapshot
    delta: PeerDelta
    health: PeerHealth
    ack: PeerAck
    heartbeat: PeerHeartbeat
    goodbye: PeerGoodbye
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., snapshot: _Optional[_Union[PeerSnapshot, _Mapping]] = ..., delta: _Optional[_Union[PeerDelta, _Mapping]] = ..., health: _Optional[_Union[PeerHealth, _Mapping]] = ..., ack: _Optional[_Union[PeerAck, _Mapping]] = ..., heartbeat: _Optional[_Union[PeerHeartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[PeerGoodbye, _Mapping]] = ...) -> None: ...
