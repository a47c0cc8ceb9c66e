import datetime

from federation.v1 import validate_pb2 as _validate_pb2
from federation.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Explain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_UNSPECIFIED: _ClassVar[Explain]
    EXPLAIN_NONE: _ClassVar[Explain]
    EXPLAIN_SUMMARY: _ClassVar[Explain]
    EXPLAIN_FULL: _ClassVar[Explain]

class RejectionCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REJECTION_CODE_UNSPECIFIED: _ClassVar[RejectionCode]
    REJECTION_CODE_NOT_READY: _ClassVar[RejectionCode]
    REJECTION_CODE_LEASE_EXPIRED: _ClassVar[RejectionCode]
    REJECTION_CODE_DRAINING: _ClassVar[RejectionCode]
    REJECTION_CODE_UNHEALTHY: _ClassVar[RejectionCode]
    REJECTION_CODE_CIRCUIT_OPEN: _ClassVar[RejectionCode]
    REJECTION_CODE_EJECTED: _ClassVar[RejectionCode]
    REJECTION_CODE_AT_CAPACITY: _ClassVar[RejectionCode]
    REJECTION_CODE_MODEL_MISMATCH: _ClassVar[RejectionCode]
    REJECTION_CODE_CAPABILITY_MISSING: _ClassVar[RejectionCode]
    REJECTION_CODE_CONTEXT_TOO_LONG: _ClassVar[RejectionCode]
    REJECTION_CODE_PRIVACY: _ClassVar[RejectionCode]
    REJECTION_CODE_JURISDICTION: _ClassVar[RejectionCode]
    REJECTION_CODE_TENANT: _ClassVar[RejectionCode]
    REJECTION_CODE_REGION_EXCLUDED: _ClassVar[RejectionCode]
    REJECTION_CODE_NODE_EXCLUDED: _ClassVar[RejectionCode]
    REJECTION_CODE_LABELS: _ClassVar[RejectionCode]
    REJECTION_CODE_LATENCY_BOUND: _ClassVar[RejectionCode]
    REJECTION_CODE_TTFT_BOUND: _ClassVar[RejectionCode]
    REJECTION_CODE_THROUGHPUT_BOUND: _ClassVar[RejectionCode]
    REJECTION_CODE_PRICE_BOUND: _ClassVar[RejectionCode]
    REJECTION_CODE_BELOW_MIN_SCORE: _ClassVar[RejectionCode]
    REJECTION_CODE_PEER_LEASE_EXPIRED: _ClassVar[RejectionCode]
    REJECTION_CODE_RULE: _ClassVar[RejectionCode]

class OutcomePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_PHASE_UNSPECIFIED: _ClassVar[OutcomePhase]
    OUTCOME_PHASE_STARTED: _ClassVar[OutcomePhase]
    OUTCOME_PHASE_FIRST_TOKEN: _ClassVar[OutcomePhase]
    OUTCOME_PHASE_FINISHED: _ClassVar[OutcomePhase]

class OutcomeResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_RESULT_UNSPECIFIED: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_OK: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_CLIENT_ERROR: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_SERVER_ERROR: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_TIMEOUT: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_UNREACHABLE: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_OVERLOADED: _ClassVar[OutcomeResult]
    OUTCOME_RESULT_CANCELLED: _ClassVar[OutcomeResult]
EXPLAIN_UNSPECIFIED: Explain
EXPLAIN_NONE: Explain
EXPLAIN_SUMMARY: Explain
EXPLAIN_FULL: Explain
REJECTION_CODE_UNSPECIFIED: RejectionCode
REJECTION_CODE_NOT_READY: RejectionCode
REJECTION_CODE_LEASE_EXPIRED: RejectionCode
REJECTION_CODE_DRAINING: RejectionCode
REJECTION_CODE_UNHEALTHY: RejectionCode
REJECTION_CODE_CIRCUIT_OPEN: RejectionCode
REJECTION_CODE_EJECTED: RejectionCode
REJECTION_CODE_AT_CAPACITY: RejectionCode
REJECTION_CODE_MODEL_MISMATCH: RejectionCode
REJECTION_CODE_CAPABILITY_MISSING: RejectionCode
REJECTION_CODE_CONTEXT_TOO_LONG: RejectionCode
REJECTION_CODE_PRIVACY: RejectionCode
REJECTION_CODE_JURISDICTION: RejectionCode
REJECTION_CODE_TENANT: RejectionCode
REJECTION_CODE_REGION_EXCLUDED: RejectionCode
REJECTION_CODE_NODE_EXCLUDED: RejectionCode
REJECTION_CODE_LABELS: RejectionCode
REJECTION_CODE_LATENCY_BOUND: RejectionCode
REJECTION_CODE_TTFT_BOUND: RejectionCode
REJECTION_CODE_THROUGHPUT_BOUND: RejectionCode
REJECTION_CODE_PRICE_BOUND: RejectionCode
REJECTION_CODE_BELOW_MIN_SCORE: RejectionCode
REJECTION_CODE_PEER_LEASE_EXPIRED: RejectionCode
REJECTION_CODE_RULE: RejectionCode
OUTCOME_PHASE_UNSPECIFIED: OutcomePhase
OUTCOME_PHASE_STARTED: OutcomePhase
OUTCOME_PHASE_FIRST_TOKEN: OutcomePhase
OUTCOME_PHASE_FINISHED: OutcomePhase
OUTCOME_RESULT_UNSPECIFIED: OutcomeResult
OUTCOME_RESULT_OK: OutcomeResult
OUTCOME_RESULT_CLIENT_ERROR: OutcomeResult
OUTCOME_RESULT_SERVER_ERROR: OutcomeResult
OUTCOME_RESULT_TIMEOUT: OutcomeResult
OUTCOME_RESULT_UNREACHABLE: OutcomeResult
OUTCOME_RESULT_OVERLOADED: OutcomeResult
OUTCOME_RESULT_CANCELLED: OutcomeResult

class Origin(_message.Message):
    __slots__ = ("region_id", "zone")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    zone: str
    def __init__(self, region_id: _Optional[str] = ..., zone: _Optional[str] = ...) -> None: ...

class QualityOfService(_message.Message):
    __slots__ = ("max_latency", "max_time_to_first_token", "min_throughput", "privacy_level", "prefer_gpu", "cost_tolerance", "max_price_usd_per_million_tokens")
    MAX_LATENCY_FIELD_NUMBER: _ClassVar[int]
    MAX_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PREFER_GPU_FIELD_NUMBER: _ClassVar[int]
    COST_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_USD_PER_MILLION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_latency: _duration_pb2.Duration
    max_time_to_first_token: _duration_pb2.Duration
    min_throughput: float
    privacy_level: _types_pb2.PrivacyLevel
    prefer_gpu: bool
    cost_tolerance: float
    max_price_usd_per_million_tokens: float
    def __init__(self, max_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_throughput: _Optional[float] = ..., privacy_level: _Optional[_Union[_types_pb2.PrivacyLevel, str]] = ..., prefer_gpu: bool = ..., cost_tolerance: _Optional[float] = ..., max_price_usd_per_million_tokens: _Optional[float] = ...) -> None: ...

class PromptShape(_message.Message):
    __slots__ = ("input_tokens", "max_output_tokens", "prefix_hashes", "prefix_block_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HASHES_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    max_output_tokens: int
    prefix_hashes: _containers.RepeatedScalarFieldContainer[int]
    prefix_block_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., prefix_hashes: _Optional[_Iterable[int]] = ..., prefix_block_tokens: _Optional[int] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("only_regions", "exclude_regions", "jurisdictions", "exclude_nodes", "node_labels", "allow_substitutes")
    class NodeLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ONLY_REGIONS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_REGIONS_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_NODES_FIELD_NUMBER: _ClassVar[int]
    NODE_LABELS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SUBSTITUTES_FIELD_NUMBER: _ClassVar[int]
    only_regions: _containers.RepeatedScalarFieldContainer[str]
    exclude_regions: _containers.RepeatedScalarFieldContainer[str]
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    exclude_nodes: _containers.RepeatedScalarFieldContainer[str]
    node_labels: _containers.ScalarMap[str, str]
    allow_substitutes: bool
    def __init__(self, only_regions: _Optional[_Iterable[str]] = ..., exclude_regions: _Optional[_Iterable[str]] = ..., jurisdictions: _Optional[_Iterable[str]] = ..., exclude_nodes: _Optional[_Iterable[str]] = ..., node_labels: _Optional[_Mapping[str, str]] = ..., allow_substitutes: bool = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ("request_id", "model_id", "capability", "adapter", "origin", "tenant_id", "session_id", "priority", "labels", "qos", "prompt", "placement", "policy_id", "max_alternatives", "explain", "hops")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model_id: str
    capability: str
    adapter: str
    origin: Origin
    tenant_id: str
    session_id: str
    priority: int
    labels: _containers.ScalarMap[str, str]
    qos: QualityOfService
    prompt: PromptShape
    placement: Placement
    policy_id: str
    max_alternatives: int
    explain: Explain
    hops: int
    def __init__(self, request_id: _Optional[str] = ..., model_id: _Optional[str] = ..., capability: _Optional[str] = ..., adapter: _Optional[str] = ..., origin: _Optional[_Union[Origin, _Mapping]] = ..., tenant_id: _Optional[str] = ..., session_id: _Optional[str] = ..., priority: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., qos: _Optional[_Union[QualityOfService, _Mapping]] = ..., prompt: _Optional[_Union[PromptShape, _Mapping]] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., policy_id: _Optional[str] = ..., max_alternatives: _Optional[int] = ..., explain: _Optional[_Union[Explain, str]] = ..., hops: _Optional[int] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("latency", "throughput", "cost", "locality", "health", "total")
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    LOCALITY_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    latency: float
    throughput: float
    cost: float
    locality: float
    health: float
    total: float
    def __init__(self, latency: _Optional[float] = ..., throughput: _Optional[float] = ..., cost: _Optional[float] = ..., locality: _Optional[float] = ..., health: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class RouteTarget(_message.Message):
    __slots__ = ("node_id", "region_id", "deployment", "model_id", "served_model_name", "endpoint", "via_gateway", "estimated_latency", "estimated_time_to_first_token", "estimated_cost_usd", "score", "scores", "substitution_differences", "earliest_time_to_first_token", "latest_time_to_first_token")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    VIA_GATEWAY_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_LATENCY_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_COST_USD_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SUBSTITUTION_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LATEST_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    region_id: str
    deployment: str
    model_id: str
    served_model_name: str
    endpoint: str
    via_gateway: bool
    estimated_latency: _duration_pb2.Duration
    estimated_time_to_first_token: _duration_pb2.Duration
    estimated_cost_usd: float
    score: float
    scores: Scores
    substitution_differences: _containers.RepeatedScalarFieldContainer[str]
    earliest_time_to_first_token: _duration_pb2.Duration
    latest_time_to_first_token: _duration_pb2.Duration
    def __init__(self, node_id: _Optional[str] = ..., region_id: _Optional[str] = ..., deployment: _Optional[str] = ..., model_id: _Optional[str] = ..., served_model_name: _Optional[str] = ..., endpoint: _Optional[str] = ..., via_gateway: bool = ..., estimated_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., estimated_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., estimated_cost_usd: _Optional[float] = ..., score: _Optional[float] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., substitution_differences: _Optional[_Iterable[str]] = ..., earliest_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latest_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("code", "message", "bound", "actual")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    code: RejectionCode
    message: str
    bound: str
    actual: str
    def __init__(self, code: _Optional[_Union[RejectionCode, str]] = ..., message: _Optional[str] = ..., bound: _Optional[str] = ..., actual: _Optional[str] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("name", "value", "unit", "points", "weight", "contribution", "age")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    points: float
    weight: float
    contribution: float
    age: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., points: _Optional[float] = ..., weight: _Optional[float] = ..., contribution: _Optional[float] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("target", "eligible", "rejection", "terms", "signal_ages", "total")
    class SignalAgesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_AGES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    target: RouteTarget
    eligible: bool
    rejection: Rejection
    terms: _containers.RepeatedCompositeFieldContainer[Term]
    signal_ages: _containers.MessageMap[str, _duration_pb2.Duration]
    total: float
    def __init__(self, target: _Optional[_Union[RouteTarget, _Mapping]] = ..., eligible: bool = ..., rejection: _Optional[_Union[Rejection, _Mapping]] = ..., terms: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., signal_ages: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., total: _Optional[float] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "detail", "remaining")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    name: str
    detail: str
    remaining: int
    def __init__(self, name: _Optional[str] = ..., detail: _Optional[str] = ..., remaining: _Optional[int] = ...) -> None: ...

class RouteDecision(_message.Message):
    __slots__ = ("decision_id", "target", "alternatives", "reasoning", "policy_id", "policy_revision", "strategy", "stages", "candidates_considered", "rejected", "table_revision", "table_age", "stale_regions", "panic", "valid_for", "candidates", "decide_time", "rule", "catalog_age")
    class RejectedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_CONSIDERED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    TABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    TABLE_AGE_FIELD_NUMBER: _ClassVar[int]
    STALE_REGIONS_FIELD_NUMBER: _ClassVar[int]
    PANIC_FIELD_NUMBER: _ClassVar[int]
    VALID_FOR_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CATALOG_AGE_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    target: RouteTarget
    alternatives: _containers.RepeatedCompositeFieldContainer[RouteTarget]
    reasoning: str
    policy_id: str
    policy_revision: int
    strategy: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    candidates_considered: int
    rejected: _containers.ScalarMap[str, int]
    table_revision: int
    table_age: _duration_pb2.Duration
    stale_regions: _containers.RepeatedScalarFieldContainer[str]
    panic: bool
    valid_for: _duration_pb2.Duration
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    decide_time: _timestamp_pb2.Timestamp
    rule: str
    catalog_age: _duration_pb2.Duration
    def __init__(self, decision_id: _Optional[str] = ..., target: _Optional[_Union[RouteTarget, _Mapping]] = ..., alternatives: _Optional[_Iterable[_Union[RouteTarget, _Mapping]]] = ..., reasoning: _Optional[str] = ..., policy_id: _Optional[str] = ..., policy_revision: _Optional[int] = ..., strategy: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., candidates_considered: _Optional[int] = ..., rejected: _Optional[_Mapping[str, int]] = ..., table_revision: _Optional[int] = ..., table_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stale_regions: _Optional[_Iterable[str]] = ..., panic: bool = ..., valid_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rule: _Optional[str] = ..., catalog_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: RouteDecision
    def __init__(self, decision: _Optional[_Union[RouteDecision, _Mapping]] = ...) -> None: ...

class GetCandidatesRequest(_message.Message):
    __slots__ = ("request", "page_size", "page_token")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    request: RouteRequest
    page_size: int
    page_token: str
    def __init__(self, request: _Optional[_Union[RouteRequest, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetCandidatesResponse(_message.Message):
    __slots__ = ("candidates", "next_page_token", "total_size", "table_revision", "rejected")
    class RejectedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    TABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    next_page_token: str
    total_size: int
    table_revision: int
    rejected: _containers.ScalarMap[str, int]
    def __init__(self, candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ..., table_revision: _Optional[int] = ..., rejected: _Optional[_Mapping[str, int]] = ...) -> None: ...

class RouteBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RouteRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RouteRequest, _Mapping]]] = ...) -> None: ...

class RouteResult(_message.Message):
    __slots__ = ("decision", "error")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    decision: RouteDecision
    error: RouteError
    def __init__(self, decision: _Optional[_Union[RouteDecision, _Mapping]] = ..., error: _Optional[_Union[RouteError, _Mapping]] = ...) -> None: ...

class RouteError(_message.Message):
    __slots__ = ("code", "message", "reason", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RouteBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RouteResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RouteResult, _Mapping]]] = ...) -> None: ...

class RouteStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: RouteRequest
    def __init__(self, request: _Optional[_Union[RouteRequest, _Mapping]] = ...) -> None: ...

class RouteStreamResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: RouteResult
    def __init__(self, result: _Optional[_Union[RouteResult, _Mapping]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("decision_id", "attempt", "region_id", "node_id", "model_id", "phase", "event_time", "result", "latency", "time_to_first_token", "input_tokens", "cached_tokens", "output_tokens")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    attempt: int
    region_id: str
    node_id: str
    model_id: str
    phase: OutcomePhase
    event_time: _timestamp_pb2.Timestamp
    result: OutcomeResult
    latency: _duration_pb2.Duration
    time_to_first_token: _duration_pb2.Duration
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    def __init__(self, decision_id: _Optional[str] = ..., attempt: _Optional[int] = ..., region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., model_id: _Optional[str] = ..., phase: _Optional[_Union[OutcomePhase, str]] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., result: _Optional[_Union[OutcomeResult, str]] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., input_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ...) -> None: ...

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("accepted", "repeated_reports", "unknown")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REPEATED_REPORTS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    repeated_reports: int
    unknown: int
    def __init__(self, accepted: _Optional[int] = ..., repeated_reports: _Optional[int] = ..., unknown: _Optional[int] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("decision_id",)
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    def __init__(self, decision_id: _Optional[str] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("decision", "request", "outcomes", "record_json")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    decision: RouteDecision
    request: RouteRequest
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    record_json: str
    def __init__(self, decision: _Optional[_Union[RouteDecision, _Mapping]] = ..., request: _Optional[_Union[RouteRequest, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., record_json: _Optional[str] = ...) -> None: ...

class WatchLeasesRequest(_message.Message):
    __slots__ = ("templates",)
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    templates: _containers.RepeatedCompositeFieldContainer[RouteRequest]
    def __init__(self, templates: _Optional[_Iterable[_Union[RouteRequest, _Mapping]]] = ...) -> None: ...

class LeasedTarget(_message.Message):
    __slots__ = ("target", "weight")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    target: RouteTarget
    weight: float
    def __init__(self, target: _Optional[_Union[RouteTarget, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class RouteLease(_message.Message):
    __slots__ = ("template_index", "lease_id", "targets", "valid_for", "table_revision")
    TEMPLATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    VALID_FOR_FIELD_NUMBER: _ClassVar[int]
    TABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    template_index: int
    lease_id: str
    targets: _containers.RepeatedCompositeFieldContainer[LeasedTarget]
    valid_for: _duration_pb2.Duration
    table_revision: int
    def __init__(self, template_index: _Optional[int] = ..., lease_id: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[LeasedTarget, _Mapping]]] = ..., valid_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., table_revision: _Optional[int] = ...) -> None: ...

class WatchLeasesResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[RouteLease]
    def __init__(self, leases: _Optional[_Iterable[_Union[RouteLease, _Mapping]]] = ...) -> None: ...
