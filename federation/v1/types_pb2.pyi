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

class PrivacyLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIVACY_LEVEL_UNSPECIFIED: _ClassVar[PrivacyLevel]
    PRIVACY_LEVEL_PUBLIC: _ClassVar[PrivacyLevel]
    PRIVACY_LEVEL_INTERNAL: _ClassVar[PrivacyLevel]
    PRIVACY_LEVEL_CONFIDENTIAL: _ClassVar[PrivacyLevel]
    PRIVACY_LEVEL_RESTRICTED: _ClassVar[PrivacyLevel]

class RegionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REGION_STATUS_UNSPECIFIED: _ClassVar[RegionStatus]
    REGION_STATUS_ACTIVE: _ClassVar[RegionStatus]
    REGION_STATUS_DRAINING: _ClassVar[RegionStatus]
    REGION_STATUS_OFFLINE: _ClassVar[RegionStatus]

class Reach(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACH_UNSPECIFIED: _ClassVar[Reach]
    REACH_DIRECT: _ClassVar[Reach]
    REACH_GATEWAY: _ClassVar[Reach]

class Engine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_UNSPECIFIED: _ClassVar[Engine]
    ENGINE_VLLM: _ClassVar[Engine]
    ENGINE_SGLANG: _ClassVar[Engine]
    ENGINE_TGI: _ClassVar[Engine]
    ENGINE_TRITON: _ClassVar[Engine]
    ENGINE_TRTLLM: _ClassVar[Engine]
    ENGINE_OPENAI: _ClassVar[Engine]
    ENGINE_GRPC: _ClassVar[Engine]

class DeploymentStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPLOYMENT_STATUS_UNSPECIFIED: _ClassVar[DeploymentStatus]
    DEPLOYMENT_STATUS_LOADING: _ClassVar[DeploymentStatus]
    DEPLOYMENT_STATUS_READY: _ClassVar[DeploymentStatus]
    DEPLOYMENT_STATUS_DRAINING: _ClassVar[DeploymentStatus]
    DEPLOYMENT_STATUS_REMOVED: _ClassVar[DeploymentStatus]
PRIVACY_LEVEL_UNSPECIFIED: PrivacyLevel
PRIVACY_LEVEL_PUBLIC: PrivacyLevel
PRIVACY_LEVEL_INTERNAL: PrivacyLevel
PRIVACY_LEVEL_CONFIDENTIAL: PrivacyLevel
PRIVACY_LEVEL_RESTRICTED: PrivacyLevel
REGION_STATUS_UNSPECIFIED: RegionStatus
REGION_STATUS_ACTIVE: RegionStatus
REGION_STATUS_DRAINING: RegionStatus
REGION_STATUS_OFFLINE: RegionStatus
REACH_UNSPECIFIED: Reach
REACH_DIRECT: Reach
REACH_GATEWAY: Reach
ENGINE_UNSPECIFIED: Engine
ENGINE_VLLM: Engine
ENGINE_SGLANG: Engine
ENGINE_TGI: Engine
ENGINE_TRITON: Engine
ENGINE_TRTLLM: Engine
ENGINE_OPENAI: Engine
ENGINE_GRPC: Engine
DEPLOYMENT_STATUS_UNSPECIFIED: DeploymentStatus
DEPLOYMENT_STATUS_LOADING: DeploymentStatus
DEPLOYMENT_STATUS_READY: DeploymentStatus
DEPLOYMENT_STATUS_DRAINING: DeploymentStatus
DEPLOYMENT_STATUS_REMOVED: DeploymentStatus

class Region(_message.Message):
    __slots__ = ("region_id", "provider", "jurisdictions", "latitude", "longitude", "reach", "ingress_endpoint", "status", "egress_price_usd_per_gb", "round_trips", "owner", "revision", "etag", "egress_prices_usd_per_gb")
    class RoundTripsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    class EgressPricesUsdPerGbEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    LATITUDE_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    INGRESS_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_PRICE_USD_PER_GB_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIPS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    EGRESS_PRICES_USD_PER_GB_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    provider: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    latitude: float
    longitude: float
    reach: Reach
    ingress_endpoint: str
    status: RegionStatus
    egress_price_usd_per_gb: float
    round_trips: _containers.MessageMap[str, _duration_pb2.Duration]
    owner: str
    revision: int
    etag: str
    egress_prices_usd_per_gb: _containers.ScalarMap[str, float]
    def __init__(self, region_id: _Optional[str] = ..., provider: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ..., latitude: _Optional[float] = ..., longitude: _Optional[float] = ..., reach: _Optional[_Union[Reach, str]] = ..., ingress_endpoint: _Optional[str] = ..., status: _Optional[_Union[RegionStatus, str]] = ..., egress_price_usd_per_gb: _Optional[float] = ..., round_trips: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., owner: _Optional[str] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ..., egress_prices_usd_per_gb: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("model_id", "family", "version", "quantization", "context_window_tokens", "modality", "tokenizer", "capabilities", "aliases", "equivalence_class", "owner", "revision", "etag")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    EQUIVALENCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    family: str
    version: str
    quantization: str
    context_window_tokens: int
    modality: str
    tokenizer: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    equivalence_class: str
    owner: str
    revision: int
    etag: str
    def __init__(self, model_id: _Optional[str] = ..., family: _Optional[str] = ..., version: _Optional[str] = ..., quantization: _Optional[str] = ..., context_window_tokens: _Optional[int] = ..., modality: _Optional[str] = ..., tokenizer: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Iterable[str]] = ..., equivalence_class: _Optional[str] = ..., owner: _Optional[str] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class ServingProfile(_message.Message):
    __slots__ = ("prefill_seconds_per_token", "min_time_to_first_token", "decode_tokens_per_second", "max_batch_size", "kv_cache_tokens")
    PREFILL_SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prefill_seconds_per_token: float
    min_time_to_first_token: _duration_pb2.Duration
    decode_tokens_per_second: float
    max_batch_size: int
    kv_cache_tokens: int
    def __init__(self, prefill_seconds_per_token: _Optional[float] = ..., min_time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode_tokens_per_second: _Optional[float] = ..., max_batch_size: _Optional[int] = ..., kv_cache_tokens: _Optional[int] = ...) -> None: ...

class PriceBand(_message.Message):
    __slots__ = ("start_minute", "end_minute", "weekdays", "factor")
    START_MINUTE_FIELD_NUMBER: _ClassVar[int]
    END_MINUTE_FIELD_NUMBER: _ClassVar[int]
    WEEKDAYS_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    start_minute: int
    end_minute: int
    weekdays: _containers.RepeatedScalarFieldContainer[int]
    factor: float
    def __init__(self, start_minute: _Optional[int] = ..., end_minute: _Optional[int] = ..., weekdays: _Optional[_Iterable[int]] = ..., factor: _Optional[float] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("region_id", "node_id", "model_id", "served_model_name", "capabilities", "price_usd_per_million_input_tokens", "price_usd_per_million_output_tokens", "price_usd_per_million_cached_tokens", "max_concurrency", "weight", "adapters", "tenant_ids", "profile", "status", "price_bands", "committed_concurrency")
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    PRICE_USD_PER_MILLION_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRICE_USD_PER_MILLION_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRICE_USD_PER_MILLION_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    TENANT_IDS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PRICE_BANDS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    model_id: str
    served_model_name: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    price_usd_per_million_input_tokens: float
    price_usd_per_million_output_tokens: float
    price_usd_per_million_cached_tokens: float
    max_concurrency: int
    weight: float
    adapters: _containers.RepeatedScalarFieldContainer[str]
    tenant_ids: _containers.RepeatedScalarFieldContainer[str]
    profile: ServingProfile
    status: DeploymentStatus
    price_bands: _containers.RepeatedCompositeFieldContainer[PriceBand]
    committed_concurrency: int
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., model_id: _Optional[str] = ..., served_model_name: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., price_usd_per_million_input_tokens: _Optional[float] = ..., price_usd_per_million_output_tokens: _Optional[float] = ..., price_usd_per_million_cached_tokens: _Optional[float] = ..., max_concurrency: _Optional[int] = ..., weight: _Optional[float] = ..., adapters: _Optional[_Iterable[str]] = ..., tenant_ids: _Optional[_Iterable[str]] = ..., profile: _Optional[_Union[ServingProfile, _Mapping]] = ..., status: _Optional[_Union[DeploymentStatus, str]] = ..., price_bands: _Optional[_Iterable[_Union[PriceBand, _Mapping]]] = ..., committed_concurrency: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("region_id", "node_id", "zone", "endpoint", "engine", "accelerator", "accelerator_count", "privacy_level", "labels", "price_usd_per_hour", "lease_duration", "deployments", "draining", "lease_expired", "owner", "generation", "revision", "etag", "create_time")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REGION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PRICE_USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRED_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    region_id: str
    node_id: str
    zone: str
    endpoint: str
    engine: Engine
    accelerator: str
    accelerator_count: int
    privacy_level: PrivacyLevel
    labels: _containers.ScalarMap[str, str]
    price_usd_per_hour: float
    lease_duration: _duration_pb2.Duration
    deployments: _containers.RepeatedCompositeFieldContainer[Deployment]
    draining: bool
    lease_expired: bool
    owner: str
    generation: int
    revision: int
    etag: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, region_id: _Optional[str] = ..., node_id: _Optional[str] = ..., zone: _Optional[str] = ..., endpoint: _Optional[str] = ..., engine: _Optional[_Union[Engine, str]] = ..., accelerator: _Optional[str] = ..., accelerator_count: _Optional[int] = ..., privacy_level: _Optional[_Union[PrivacyLevel, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., price_usd_per_hour: _Optional[float] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deployments: _Optional[_Iterable[_Union[Deployment, _Mapping]]] = ..., draining: bool = ..., lease_expired: bool = ..., owner: _Optional[str] = ..., generation: _Optional[int] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
