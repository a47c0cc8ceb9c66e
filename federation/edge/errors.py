"""What a control plane's refusal says, decoded: gRPC status, reason, metadata, when to come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from federation.v1 import routing_pb2

DETAILS_KEY = "grpc-status-details-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that was refused, and why."""

    field: str
    description: str


@dataclass
class RouteError(Exception):
    """A call that failed. `reason` is part of the API and empty where no control plane answered; `message` is prose."""

    code: Any
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None
    violations: tuple[FieldViolation, ...] = ()

    def __str__(self) -> str:
        name = f"{self.code.name}/{self.reason}" if self.reason else self.code.name
        fields = "".join(f"; {violation.field}: {violation.description}" for violation in self.violations)
        return f"{name}: {self.message}{fields}"

    @property
    def unanswered(self) -> bool:
        """Whether no control plane decided this: it is gone, cut off, or too late."""
        if self.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return True
        # CANCELLED: it had not begun with the call when it stopped.
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) and not self.reason


def decode_error(error: Any) -> RouteError:
    """Decodes what a stub raised (`grpc.RpcError`, sync or async). Details that cannot be read are left out."""
    route_error = RouteError(error.code(), "", error.details() or "")
    for key, value in _pairs(error.trailing_metadata()):
        if key == DETAILS_KEY:
            _read_details(route_error, value)
    return route_error


def error_of_result(result: routing_pb2.RouteError) -> RouteError:
    """The same for one failed request of a batch or a stream."""
    code = CODES.get(result.code, grpc.StatusCode.UNKNOWN)
    return RouteError(code, result.reason, result.message, dict(result.metadata))


def _pairs(metadata: Iterable[Any] | None) -> Iterable[tuple[str, bytes]]:
    return ((pair[0], pair[1]) for pair in metadata or ())


def _read_details(error: RouteError, encoded: bytes) -> None:
    try:
        status = status_pb2.Status.FromString(encoded)
    except DecodeError:
        return
    info, retry, request = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            error.reason, error.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            error.retry_after_seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Unpack(request):
            error.violations = tuple(FieldViolation(v.field, v.description) for v in request.field_violations)
