"""The one table from what is raised to what callers see: status code, reason, metadata.

Reasons are part of the API; messages are for people and may improve. What is not in the table is a bug: it becomes
INTERNAL with an error id, and its text stays in our log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from catalog import errors as catalog
from federation.api.calls import Context
from federation.routing.ring import DecisionUnknown
from policies.errors import InvalidPolicy, NoCandidate

DOMAIN = "federation.v1"
# A database that restarts is back within seconds; asking sooner only adds to what it finds when it returns.
STORE_RETRY_SECONDS = 1.0
# gRPC itself retries a call after a push-back, and the caller sees its deadline instead of the reason if that is over
# first: longer waits are the caller's own, who has RetryInfo.
MAX_PUSHBACK_SECONDS = 0.5
# gRPC clients refuse trailers over 8 KiB, and would then show that instead of the error; base64 adds a third.
MAX_MESSAGE_BYTES = 600
MAX_VALUE_BYTES = 256
MAX_VIOLATIONS_BYTES = 3_000
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Status:
    """An error as it goes over the wire."""

    code: StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    # Waiting this long helps; None: nothing is known of that.
    retry_after_seconds: float | None = None
    # (path, what is wrong), all at once.
    violations: tuple[tuple[str, str], ...] = ()
    # Tells clients' built-in retries when to come back; or that they should not, where nothing is known or it is long.
    pushback: bool = False


class InvalidFields(Exception):
    """A request that breaks its rules; `violations` are (field path, what is wrong and what is allowed)."""

    def __init__(self, *violations: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in violations))
        self.violations = violations


class MalformedMessage(Exception):
    """Bytes that are not the method's request message."""


class MessageTooLarge(Exception):
    """A request over the method's limit."""


class DeadlineExpired(Exception):
    """The caller's deadline was over before work began."""


class ShuttingDown(Exception):
    """This server ends; what was streamed goes on at another one."""


class RevisionAhead(Exception):
    """A watch wants to go on after a revision that this log never had."""

    def __init__(self, revision: int, newest: int) -> None:
        super().__init__(
            f"revision {revision} is beyond the newest, {newest}: it belongs to another life of the log; watch from 0"
        )
        self.revision = revision
        self.newest = newest


class PolicyInUse(Exception):
    """Settings name the policy: requests that name none would find nothing."""

    def __init__(self, policy_id: str, setting: str = "routing.policy") -> None:
        role = "the server's default" if setting == "routing.policy" else "the policy of tenants"
        super().__init__(
            f"policy {policy_id!r} is {role} ({setting}) and no preset stands behind it; "
            f"put another one into {setting} first"
        )
        self.policy_id = policy_id


class NotOffered(Exception):
    """A method that this server does not serve."""


class Internal(Exception):
    """An unexpected exception, known to the caller only by the id that our log has too."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error {error_id}; the server's log has the details under this id")
        self.error_id = error_id


UNKNOWN_REASONS = {
    "model": "MODEL_UNKNOWN",
    "node": "NODE_UNKNOWN",
    "region": "REGION_UNKNOWN",
    "policy": "POLICY_UNKNOWN",
    "deployment": "DEPLOYMENT_UNKNOWN",
}
CONFLICT_REASONS = {
    "model": "MODEL_CONFLICT",
    "node": "NODE_CONFLICT",
    "region": "REGION_CONFLICT",
    "policy": "POLICY_CONFLICT",
}
NO_CANDIDATE_CODES = {
    "MODEL_UNKNOWN": StatusCode.NOT_FOUND,
    "CAPABILITY_UNKNOWN": StatusCode.NOT_FOUND,
    "POLICY_UNKNOWN": StatusCode.NOT_FOUND,
    "NO_CAPACITY": StatusCode.RESOURCE_EXHAUSTED,
    "BUDGET_EXHAUSTED": StatusCode.RESOURCE_EXHAUSTED,
    "ALL_NODES_UNHEALTHY": StatusCode.UNAVAILABLE,
    "QOS_VIOLATION": StatusCode.FAILED_PRECONDITION,
    "PRIVACY_VIOLATION": StatusCode.FAILED_PRECONDITION,
    "REFUSED_BY_RULE": StatusCode.FAILED_PRECONDITION,
}


def _invalid(e: InvalidFields | InvalidPolicy) -> Status:
    return Status(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", str(e), violations=tuple(e.violations))


def _not_found(e: catalog.NotFound) -> Status:
    reason = UNKNOWN_REASONS.get(e.kind, "NOT_FOUND")
    # Who registers a node has seldom heard of region records.
    hint = "; store its record first: PutRegion, or `fairway regions put`" if e.kind == "region" else ""
    return Status(StatusCode.NOT_FOUND, reason, f"{e}{hint}", {"kind": e.kind, "name": e.name})


def _conflict(e: catalog.Conflict) -> Status:
    metadata = {"kind": e.kind, "name": e.name, "etag": e.etag}
    return Status(StatusCode.ALREADY_EXISTS, CONFLICT_REASONS.get(e.kind, "CONFLICT"), str(e), metadata)


def _stale_etag(e: catalog.EtagMismatch) -> Status:
    metadata = {"kind": e.kind, "name": e.name, "etag": e.current}
    return Status(StatusCode.ABORTED, "ETAG_MISMATCH", str(e), metadata)


def _not_owner(e: catalog.NotOwner) -> Status:
    return Status(StatusCode.FAILED_PRECONDITION, "NOT_OWNER", str(e), {"name": e.name, "owner": e.owner})


def _model_in_use(e: catalog.ModelInUse) -> Status:
    metadata = {"model_id": e.model_id, "node": e.node}
    return Status(StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE", str(e), metadata)


def _compacted(e: catalog.RevisionCompacted) -> Status:
    metadata = {"revision": str(e.revision), "oldest_revision": str(e.oldest)}
    return Status(StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED", str(e), metadata)


def _no_candidate(e: NoCandidate) -> Status:
    code = NO_CANDIDATE_CODES[e.reason]
    metadata = {**{f"rejected_{name}": str(count) for name, count in e.rejected.items()}, **e.details}
    shed = code in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)
    return Status(code, e.reason, str(e), metadata, e.retry_after_seconds, pushback=shed)


def _store_unavailable(e: catalog.StoreUnavailable) -> Status:
    message = f"the catalog's database does not answer, and nothing was written: {e}; try again"
    return Status(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", message, _NOTHING, STORE_RETRY_SECONDS, pushback=True)


def _store_read_only(e: catalog.StoreReadOnly) -> Status:
    message = f"the catalog's database takes no writes, and nothing was written: {e}; free space or make it writable"
    return Status(StatusCode.RESOURCE_EXHAUSTED, "STORE_READ_ONLY", message, pushback=True)


TABLE: Mapping[type[BaseException], Callable[[Any], Status]] = {
    InvalidFields: _invalid,
    InvalidPolicy: _invalid,
    catalog.NotFound: _not_found,
    catalog.Conflict: _conflict,
    catalog.EtagMismatch: _stale_etag,
    catalog.NotOwner: _not_owner,
    catalog.ModelInUse: _model_in_use,
    catalog.RequestIdReused: lambda e: Status(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", str(e)),
    catalog.RevisionCompacted: _compacted,
    RevisionAhead: lambda e: Status(
        StatusCode.OUT_OF_RANGE,
        "REVISION_COMPACTED",
        str(e),
        {"revision": str(e.revision), "newest_revision": str(e.newest)},
    ),
    PolicyInUse: lambda e: Status(StatusCode.FAILED_PRECONDITION, "POLICY_IN_USE", str(e), {"policy_id": e.policy_id}),
    catalog.StoreUnavailable: _store_unavailable,
    catalog.StoreReadOnly: _store_read_only,
    NoCandidate: _no_candidate,
    DecisionUnknown: lambda e: Status(StatusCode.NOT_FOUND, "DECISION_UNKNOWN", str(e)),
    MalformedMessage: lambda e: Status(StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE", str(e)),
    MessageTooLarge: lambda e: Status(StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", str(e), pushback=True),
    DeadlineExpired: lambda e: Status(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", str(e)),
    ShuttingDown: lambda e: Status(StatusCode.UNAVAILABLE, "SHUTTING_DOWN", str(e), _NOTHING, 0.0),
    NotOffered: lambda e: Status(StatusCode.UNIMPLEMENTED, "NOT_OFFERED", str(e)),
    # What the generated base of a service raises for methods that a library's servicer leaves out.
    NotImplementedError: lambda e: Status(StatusCode.UNIMPLEMENTED, "NOT_OFFERED", "this method is not served here"),
    Internal: lambda e: Status(StatusCode.INTERNAL, "INTERNAL", str(e), {"error_id": e.error_id}),
}


def status_of(error: BaseException) -> Status | None:
    """What callers see of an error; None where the table does not know it."""
    for kind in type(error).__mro__:
        translate = TABLE.get(kind)
        if translate is not None:
            return translate(error)
    return None


async def abort(context: Context, status: Status) -> NoReturn:
    """Ends a call with this status and its details."""
    await context.abort(status.code, cut(status.message, MAX_MESSAGE_BYTES), trailers(status))
    raise AssertionError("abort returned")


def trailers(status: Status) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata: details as google.rpc.Status, and the push-back of gRFC A6."""
    rich = status_pb2.Status(code=status.code.value[0], message=cut(status.message, MAX_MESSAGE_BYTES))
    metadata = {key: cut(value, MAX_VALUE_BYTES) for key, value in status.metadata.items()}
    _pack(rich, error_details_pb2.ErrorInfo(reason=status.reason, domain=DOMAIN, metadata=metadata))
    if status.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(status.retry_after_seconds * 1e9))
        _pack(rich, error_details_pb2.RetryInfo(retry_delay=delay))
    if status.violations:
        _pack(
            rich,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=path, description=message)
                    for path, message in _fitting(status.violations)
                ]
            ),
        )
    pairs: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", rich.SerializeToString())]
    if status.pushback:
        wait = status.retry_after_seconds
        soon = wait is not None and wait <= MAX_PUSHBACK_SECONDS
        pairs.append(("grpc-retry-pushback-ms", str(round((wait or 0.0) * 1000)) if soon else "-1"))
    return tuple(pairs)


def cut(text: str, limit: int) -> str:
    """The text, or as much of it as `limit` UTF-8 bytes hold."""
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"


def _fitting(violations: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    left = MAX_VIOLATIONS_BYTES
    for told, (path, message) in enumerate(violations):
        path, message = cut(path, MAX_VALUE_BYTES), cut(message, MAX_MESSAGE_BYTES)
        left -= len(path.encode()) + len(message.encode()) + 8
        if left < 0:
            yield "", f"and {len(violations) - told} more violations"
            return
        yield path, message


def _pack(rich: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    rich.details.append(packed)
