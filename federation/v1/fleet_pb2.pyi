import datetime

from federation.v1 import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HealthState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_STATE_UNSPECIFIED: _ClassVar[HealthState]
    HEALTH_STATE_UNKNOWN: _ClassVar[HealthState]
    HEALTH_STATE_HEALTHY: _ClassVar[HealthState]
    HEALTH_STATE_DEGRADED: _ClassVar[HealthState]
    HEALTH_STATE_UNHEALTHY: _ClassVar[HealthState]
    HEALTH_STATE_DRAINING: _ClassVar[HealthState]
    HEALTH_STATE_LOADING: _ClassVar[HealthState]

class CircuitState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CIRCUIT_STATE_UNSPECIFIED: _ClassVar[CircuitState]
    CIRCUIT_STATE_CLOSED: _ClassVar[CircuitState]
    CIRCUIT_STATE_OPEN: _ClassVar[CircuitState]
    CIRCUIT_STATE_HALF_OPEN: _ClassVar[CircuitState]

class RoundTripSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUND_TRIP_SOURCE_UNSPECIFIED: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_LOCAL: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_MEASURED: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_DECLARED: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_ESTIMATED: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_REPORTED: _ClassVar[RoundTripSource]
    ROUND_TRIP_SOURCE_ASSUMED: _ClassVar[RoundTripSource]

class WhenExhausted(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WHEN_EXHAUSTED_UNSPECIFIED: _ClassVar[WhenExhausted]
    WHEN_EXHAUSTED_REFUSE: _ClassVar[WhenExhausted]
    WHEN_EXHAUSTED_DEMOTE: _ClassVar[WhenExhausted]

class BudgetPeriod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_PERIOD_UNSPECIFIED: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_DAY: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_MONTH: _ClassVar[BudgetPeriod]

class LinkState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINK_STATE_UNSPECIFIED: _ClassVar[LinkState]
    LINK_STATE_DOWN: _ClassVar[LinkState]
    LINK_STATE_SYNCING: _ClassVar[LinkState]
    LINK_STATE_UP: _ClassVar[LinkState]
    LINK_STATE_REFUSED: _ClassVar[LinkState]

class PeerRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PEER_ROLE_UNSPECIFIED: _ClassVar[PeerRole]
    PEER_ROLE_DIALED: _ClassVar[PeerRole]
    PEER_ROLE_ACCEPTED: _ClassVar[PeerRole]
    PEER_ROLE_SIBLING: _ClassVar[PeerRole]
HEALTH_STATE_UNSPECIFIED: HealthState
HEALTH_STATE_UNKNOWN: HealthState
HEALTH_STATE_HEALTHY: HealthState
HEALTH_STATE_DEGRADED: HealthState
HEALTH_STATE_UNHEALTHY: HealthState
HEALTH_STATE_DRAINING: HealthState
HEALTH_STATE_LOADING: HealthState
CIRCUIT_STATE_UNSPECIFIED: CircuitState
CIRCUIT_STATE_CLOSED: CircuitState
CIRCUIT_STATE_OPEN: CircuitState
CIRCUIT_STATE_HALF_OPEN: CircuitState
ROUND_TRIP_SOURCE_UNSPECIFIED: RoundTripSource
ROUND_TRIP_SOURCE_LOCAL: RoundTripSource
ROUND_TRIP_SOURCE_MEASURED: RoundTripSource
ROUND_TRIP_SOURCE_DECLARED: RoundTripSource
ROUND_TRIP_SOURCE_ESTIMATED: RoundTripSource
ROUND_TRIP_SOURCE_REPORTED: RoundTripSource
ROUND_TRIP_SOURCE_ASSUMED: RoundTripSource
WHEN_EXHAUSTED_UNSPECIFIED: WhenExhausted
WHEN_EXHAUSTED_REFUSE: WhenExhausted
WHEN_EXHAUSTED_DEMOTE: WhenExhausted
BUDGET_PERIOD_UNSPECIFIED: BudgetPeriod
BUDGET_PERIOD_DAY: BudgetPeriod
BUDGET_PERIOD_MONTH: BudgetPeriod
LINK_STATE_UNSPECIFIED: LinkState
LINK_STATE_DOWN: LinkState
LINK_STATE_SYNCING: LinkState
LINK_STATE_UP: LinkState
LINK_STATE_REFUSED: LinkState
PEER_ROLE_UNSPECIFIED: PeerRole
PEER_ROLE_DIALED: PeerRole
PEER_ROLE_ACCEPTED: PeerRole
PEER_ROLE_SIBLING: PeerRole

class Circuit(_message.Message):
    __slots__ = ("state", "failures", "opens_total", "retry_after", "reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    OPENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    state: CircuitState
    failures: int
    opens_total: int
    retry_after: _duration_pb2.Duration
    reason: str
    def __init__(self, state: _Optional[_Union[CircuitState, str]] = ..., failures: _Optional[int] = ..., opens_total: _Optional[int] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class DeploymentHealth(_message.Message):
    __slots__ = ("model_id", "circuit", "ejected", "ejected_for", "error_ratio", "in_flight", "pending_prompt_tokens")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FOR_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATIO_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PENDING_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    circuit: Circuit
    ejected: bool
    ejected_for: _duration_pb2.Duration
    error_ratio: float
    in_flight: int
    pending_prompt_tokens: int
    def __init__(self, model_id: _Optional[str] = ..., circuit: _Optional[_Union[Circuit, _Mapping]] = ..., ejected: bool = ..., ejected_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error_ratio: _Optional[float] = ..., in_flight: _Optional[int] = ..., pending_prompt_tokens: _Optional[int] = ...) -> None: ...

class NodeHealth(_message.Message):
    __slots__ = ("region_id", "node_id", "state", "latency_p50", "latency_p99", "throughput_tokens_per_second", "running_requests", "queue_depth", "kv_cache_utilization", "gpu_utilization", "error_ratio", "deployments", "last_check_time", "signal_ages", "reason")
    class SignalAgesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    GPU_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATIO_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_CHECK_TIME_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_AGES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    state: HealthState
    latency_p50: _duration_pb2.Duration
    latency_p99: _duration_pb2.Duration
    throughput_tokens_per_second: float
    running_requests: float
    queue_depth: float
    kv_cache_utilization: float
    gpu_utilization: float
    error_ratio: float
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentHealth]
    last_check_time: _timestamp_pb2.Timestamp
    signal_ages: _containers.MessageMap[str, _duration_pb2.Duration]
    reason: str
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., state: _Optional[_Union[HealthState, str]] = ..., latency_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., throughput_tokens_per_second: _Optional[float] = ..., running_requests: _Optional[float] = ..., queue_depth: _Optional[float] = ..., kv_cache_utilization: _Optional[float] = ..., gpu_utilization: _Optional[float] = ..., error_ratio: _Optional[float] = ..., deployments: _Optional[_Iterable[_Union[DeploymentHealth, _Mapping]]] = ..., last_check_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signal_ages: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., reason: _Optional[str] = ...) -> None: ...

class GetFleetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegionSummary(_message.Message):
    __slots__ = ("region_id", "nodes", "nodes_by_state", "deployments", "available_deployments", "imported", "round_trip", "round_trip_source")
    class NodesByStateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_BY_STATE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_SOURCE_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    nodes: int
    nodes_by_state: _containers.ScalarMap[str, int]
    deployments: int
    available_deployments: int
    imported: bool
    round_trip: _duration_pb2.Duration
    round_trip_source: RoundTripSource
    def __init__(self, region_id: _Optional[str] = ..., nodes: _Optional[int] = ..., nodes_by_state: _Optional[_Mapping[str, int]] = ..., deployments: _Optional[int] = ..., available_deployments: _Optional[int] = ..., imported: bool = ..., round_trip: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., round_trip_source: _Optional[_Union[RoundTripSource, str]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("model_id", "deployments", "available_deployments", "panic")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    PANIC_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    deployments: int
    available_deployments: int
    panic: bool
    def __init__(self, model_id: _Optional[str] = ..., deployments: _Optional[int] = ..., available_deployments: _Optional[int] = ..., panic: bool = ...) -> None: ...

class GetFleetResponse(_message.Message):
    __slots__ = ("regions", "models", "revision", "table_age", "decisions_total", "version", "home_region_id")
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TABLE_AGE_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOME_REGION_ID_FIELD_NUMBER: _ClassVar[int]
    regions: _containers.RepeatedCompositeFieldContainer[RegionSummary]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    revision: int
    table_age: _duration_pb2.Duration
    decisions_total: int
    version: str
    home_region_id: str
    def __init__(self, regions: _Optional[_Iterable[_Union[RegionSummary, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ..., revision: _Optional[int] = ..., table_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decisions_total: _Optional[int] = ..., version: _Optional[str] = ..., home_region_id: _Optional[str] = ...) -> None: ...

class ListNodeHealthRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "region_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    region_id: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., region_id: _Optional[str] = ...) -> None: ...

class ListNodeHealthResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeHealth]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeHealth, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListCircuitsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "tripped_only")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TRIPPED_ONLY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    tripped_only: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tripped_only: bool = ...) -> None: ...

class CircuitEntry(_message.Message):
    __slots__ = ("region_id", "node_id", "model_id", "circuit")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    model_id: str
    circuit: Circuit
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., model_id: _Optional[str] = ..., circuit: _Optional[_Union[Circuit, _Mapping]] = ...) -> None: ...

class ListCircuitsResponse(_message.Message):
    __slots__ = ("circuits", "next_page_token")
    CIRCUITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    circuits: _containers.RepeatedCompositeFieldContainer[CircuitEntry]
    next_page_token: str
    def __init__(self, circuits: _Optional[_Iterable[_Union[CircuitEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ResetCircuitRequest(_message.Message):
    __slots__ = ("region_id", "node_id", "model_id")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    model_id: str
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., model_id: _Optional[str] = ...) -> None: ...

class ResetCircuitResponse(_message.Message):
    __slots__ = ("circuits",)
    CIRCUITS_FIELD_NUMBER: _ClassVar[int]
    circuits: _containers.RepeatedCompositeFieldContainer[CircuitEntry]
    def __init__(self, circuits: _Optional[_Iterable[_Union[CircuitEntry, _Mapping]]] = ...) -> None: ...

class EjectNodeRequest(_message.Message):
    __slots__ = ("region_id", "node_id", "duration")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    duration: _duration_pb2.Duration
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class EjectNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: NodeHealth
    def __init__(self, node: _Optional[_Union[NodeHealth, _Mapping]] = ...) -> None: ...

class RestoreNodeRequest(_message.Message):
    __slots__ = ("region_id", "node_id")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ...) -> None: ...

class RestoreNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: NodeHealth
    def __init__(self, node: _Optional[_Union[NodeHealth, _Mapping]] = ...) -> None: ...

class TenantBudget(_message.Message):
    __slots__ = ("tenant_id", "policy_id", "period", "limit_usd", "spent_usd", "reset_time", "when_exhausted")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    RESET_TIME_FIELD_NUMBER: _ClassVar[int]
    WHEN_EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    policy_id: str
    period: BudgetPeriod
    limit_usd: float
    spent_usd: float
    reset_time: _timestamp_pb2.Timestamp
    when_exhausted: WhenExhausted
    def __init__(self, tenant_id: _Optional[str] = ..., policy_id: _Optional[str] = ..., period: _Optional[_Union[BudgetPeriod, str]] = ..., limit_usd: _Optional[float] = ..., spent_usd: _Optional[float] = ..., reset_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., when_exhausted: _Optional[_Union[WhenExhausted, str]] = ...) -> None: ...

class ListBudgetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "tenant_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    tenant_id: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tenant_id: _Optional[str] = ...) -> None: ...

class ListBudgetsResponse(_message.Message):
    __slots__ = ("budgets", "next_page_token")
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[TenantBudget]
    next_page_token: str
    def __init__(self, budgets: _Optional[_Iterable[_Union[TenantBudget, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Peer(_message.Message):
    __slots__ = ("region_id", "address", "state", "imported_revision", "exported_revision", "lag", "lease_left", "imported_nodes", "exported_nodes", "round_trip", "reason", "role", "owned_regions", "replica_id", "age", "version", "imported_models", "exported_models")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_NODES_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_NODES_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    OWNED_REGIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_MODELS_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_MODELS_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    address: str
    state: LinkState
    imported_revision: int
    exported_revision: int
    lag: _duration_pb2.Duration
    lease_left: _duration_pb2.Duration
    imported_nodes: int
    exported_nodes: int
    round_trip: _duration_pb2.Duration
    reason: str
    role: PeerRole
    owned_regions: _containers.RepeatedScalarFieldContainer[str]
    replica_id: str
    age: _duration_pb2.Duration
    version: str
    imported_models: _containers.RepeatedScalarFieldContainer[str]
    exported_models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, region_id: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[LinkState, str]] = ..., imported_revision: _Optional[int] = ..., exported_revision: _Optional[int] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lease_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., imported_nodes: _Optional[int] = ..., exported_nodes: _Optional[int] = ..., round_trip: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., role: _Optional[_Union[PeerRole, str]] = ..., owned_regions: _Optional[_Iterable[str]] = ..., replica_id: _Optional[str] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., version: _Optional[str] = ..., imported_models: _Optional[_Iterable[str]] = ..., exported_models: _Optional[_Iterable[str]] = ...) -> None: ...

class ListPeersResponse(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class WatchFleetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchFleetResponse(_message.Message):
    __slots__ = ("nodes", "removed")
    NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeHealth]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeHealth, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...
