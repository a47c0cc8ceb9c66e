import datetime

from federation.v1 import validate_pb2 as _validate_pb2
from federation.v1 import routing_pb2 as _routing_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Policy(_message.Message):
    __slots__ = ("policy_id", "document_json", "revision", "etag", "preset", "create_time")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    document_json: str
    revision: int
    etag: str
    preset: bool
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, policy_id: _Optional[str] = ..., document_json: _Optional[str] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ..., preset: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PutPolicyRequest(_message.Message):
    __slots__ = ("policy", "validate_only", "request_id")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    validate_only: bool
    request_id: str
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., validate_only: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class PutPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("policy_id", "revision")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    revision: int
    def __init__(self, policy_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "history_of")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HISTORY_OF_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    history_of: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., history_of: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "next_page_token")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    next_page_token: str
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeletePolicyRequest(_message.Message):
    __slots__ = ("policy_id", "etag")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    etag: str
    def __init__(self, policy_id: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class DeletePolicyResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class PreviewPolicyRequest(_message.Message):
    __slots__ = ("policy", "max_decisions", "without_regions")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_REGIONS_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    max_decisions: int
    without_regions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., max_decisions: _Optional[int] = ..., without_regions: _Optional[_Iterable[str]] = ...) -> None: ...

class PreviewChange(_message.Message):
    __slots__ = ("decision_id", "model_id", "before", "after", "reason")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    model_id: str
    before: _routing_pb2.RouteTarget
    after: _routing_pb2.RouteTarget
    reason: str
    def __init__(self, decision_id: _Optional[str] = ..., model_id: _Optional[str] = ..., before: _Optional[_Union[_routing_pb2.RouteTarget, _Mapping]] = ..., after: _Optional[_Union[_routing_pb2.RouteTarget, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class PreviewPolicyResponse(_message.Message):
    __slots__ = ("decisions", "moved", "refused", "mean_cost_usd_before", "mean_cost_usd_after", "mean_time_to_first_token_before", "mean_time_to_first_token_after", "region_share_before", "region_share_after", "violations", "changes")
    class RegionShareBeforeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class RegionShareAfterEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    MEAN_COST_USD_BEFORE_FIELD_NUMBER: _ClassVar[int]
    MEAN_COST_USD_AFTER_FIELD_NUMBER: _ClassVar[int]
    MEAN_TIME_TO_FIRST_TOKEN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    MEAN_TIME_TO_FIRST_TOKEN_AFTER_FIELD_NUMBER: _ClassVar[int]
    REGION_SHARE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    REGION_SHARE_AFTER_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    decisions: int
    moved: int
    refused: int
    mean_cost_usd_before: float
    mean_cost_usd_after: float
    mean_time_to_first_token_before: _duration_pb2.Duration
    mean_time_to_first_token_after: _duration_pb2.Duration
    region_share_before: _containers.ScalarMap[str, float]
    region_share_after: _containers.ScalarMap[str, float]
    violations: int
    changes: _containers.RepeatedCompositeFieldContainer[PreviewChange]
    def __init__(self, decisions: _Optional[int] = ..., moved: _Optional[int] = ..., refused: _Optional[int] = ..., mean_cost_usd_before: _Optional[float] = ..., mean_cost_usd_after: _Optional[float] = ..., mean_time_to_first_token_before: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mean_time_to_first_token_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., region_share_before: _Optional[_Mapping[str, float]] = ..., region_share_after: _Optional[_Mapping[str, float]] = ..., violations: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[PreviewChange, _Mapping]]] = ...) -> None: ...
