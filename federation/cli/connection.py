"""The channel to a control plane, and the one place where a failed call becomes a `Failure`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

from federation.cli.failure import ExitCode, Failure, usage
from federation.cli.figures import duration
from federation.edge.errors import RouteError, decode_error
from federation.v1 import catalog_pb2_grpc, fleet_pb2_grpc, policy_pb2_grpc, routing_pb2_grpc

if TYPE_CHECKING:
    from federation.cli.options import Remote

# A page of 1,000 candidates with all of their terms is some megabytes; gRPC's default of 4 MB would cut it off.
MAX_ANSWER_BYTES = 64 << 20
MAX_PAGE = 1000

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.UNREACHABLE,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.DENIED,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
    grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.CONFLICT,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.CONFLICT,
}
NOTHING_ELIGIBLE = frozenset(
    {"NO_CAPACITY", "ALL_NODES_UNHEALTHY", "QOS_VIOLATION", "PRIVACY_VIOLATION", "REFUSED_BY_RULE", "BUDGET_EXHAUSTED"}
)
CONFLICT_HINT = "add --replace to take the place of what is stored, or --etag to name the version that you mean"
HINTS = {
    "MODEL_CONFLICT": CONFLICT_HINT,
    "NODE_CONFLICT": CONFLICT_HINT,
    "REGION_CONFLICT": CONFLICT_HINT,
    "POLICY_CONFLICT": CONFLICT_HINT,
    "NODE_UNKNOWN": "`fairway nodes list` shows what is registered",
    "REGION_UNKNOWN": "`fairway regions list` shows what there is",
    "DEPLOYMENT_UNKNOWN": "`fairway deployments list` shows what there is",
    "MODEL_UNKNOWN": "`fairway models list` shows what is known; `fairway nodes register` makes a model known",
    "CAPABILITY_UNKNOWN": "`fairway models list -o wide` shows the capabilities that are known",
    "NO_CAPACITY": "`fairway candidates` with the same flags shows who is full; try again, or register more nodes",
    "ALL_NODES_UNHEALTHY": "`fairway health` says what is wrong with each; `fairway circuits list --tripped`",
    "QOS_VIOLATION": "`fairway candidates` with the same flags shows each bound beside what was found",
    "PRIVACY_VIOLATION": "`fairway candidates` with the same flags shows who may serve which privacy level and where",
    "POLICY_UNKNOWN": "`fairway policies list` shows what there is",
    "DECISION_UNKNOWN": "the server forgets old decisions; with a decision log: `fairway explain ID --log FILE`",
    "ETAG_MISMATCH": "somebody changed it: read it again and repeat the change, or add --replace",
    "NOT_OWNER": "write it at its owner's control plane: --server ADDRESS",
    "MODEL_IN_USE": "deregister the nodes that serve it first: `fairway nodes list --model MODEL`",
    "STORE_UNAVAILABLE": "routing goes on without the database, writes wait for it; `fairway doctor --database URL`",
    "REVISION_COMPACTED": "watch from the start: --after-revision 0",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """Stubs of all services over one channel, with a deadline for each call."""

    server: str
    timeout_seconds: float
    channel: grpc.Channel
    catalog: Any
    routing: Any
    policy: Any
    fleet: Any

    def ask(self, method: Callable[..., Any], request: Message) -> Any:
        """The answer of a unary call. Raises Failure."""
        try:
            return method(request, timeout=self.timeout_seconds)
        except grpc.RpcError as error:
            raise failure_of(decode_error(error), self) from error

    def write(self, method: Callable[..., Any], request: Any, resource: Any, *, replace: bool) -> Any:
        """The answer of a write. With `replace`, what is stored under the name is replaced. Raises Failure."""
        try:
            return self.ask(method, request)
        except Failure as failure:
            etag = failure.metadata.get("etag", "")
            if not replace or not etag or not failure.reason.endswith(("_CONFLICT", "ETAG_MISMATCH")):
                raise
            # The server told which version stands there: naming it replaces that one, and no other in between.
            resource.etag = etag
            return self.ask(method, request)

    def listen(self, method: Callable[..., Any], request: Message) -> Iterator[Any]:
        """The messages of a stream, without a deadline: it ends when somebody ends it. Raises Failure."""
        try:
            yield from method(request)
        except grpc.RpcError as error:
            raise failure_of(decode_error(error), self) from error

    def pages(self, method: Callable[..., Any], request: Any, field: str, limit: int = 0) -> Iterator[Any]:
        """Answers of a paged list until it ends, or until `limit` items of `field` were told (0: all of them)."""
        left = limit
        while True:
            request.page_size = min(left, MAX_PAGE) if limit else MAX_PAGE
            page = self.ask(method, request)
            items = getattr(page, field)
            if limit and len(items) > left:
                del items[left:]
            left -= len(items)
            yield page
            if not page.next_page_token or (limit and left <= 0):
                return
            request.page_token = page.next_page_token


@contextmanager
def connect(remote: Remote) -> Iterator[Connection]:
    """A connection to the control plane at `remote`; nothing is sent before the first call."""
    target, channel = open_channel(remote)
    try:
        yield Connection(
            server=target,
            timeout_seconds=remote.timeout_seconds,
            channel=channel,
            catalog=catalog_pb2_grpc.CatalogServiceStub(channel),  # type: ignore[no-untyped-call]
            routing=routing_pb2_grpc.RoutingServiceStub(channel),  # type: ignore[no-untyped-call]
            policy=policy_pb2_grpc.PolicyServiceStub(channel),  # type: ignore[no-untyped-call]
            fleet=fleet_pb2_grpc.FleetServiceStub(channel),  # type: ignore[no-untyped-call]
        )
    finally:
        channel.close()


def open_channel(remote: Remote) -> tuple[str, grpc.Channel]:
    """The bare address and a channel to it: TLS where a certificate flag or `grpcs://` or `https://` asks for it."""
    options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
    if not remote.secure:
        return remote.address, grpc.insecure_channel(remote.address, options=options)
    if (remote.tls_cert is None) != (remote.tls_key is None):
        raise usage("--tls-cert and --tls-key go together: give both, or neither")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_bytes_of(remote.tls_ca),
        private_key=_bytes_of(remote.tls_key),
        certificate_chain=_bytes_of(remote.tls_cert),
    )
    return remote.address, grpc.secure_channel(remote.address, credentials, options=options)


def _bytes_of(path: Any) -> bytes | None:
    if path is None:
        return None
    try:
        content: bytes = path.read_bytes()
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from error
    return content


def failure_of(problem: RouteError, connection: Connection) -> Failure:
    """What the operator reads, and the exit code: by reason first, since one status stands for several cases."""
    server = connection.server
    details = [f"{each.field}: {each.description}" if each.field else each.description for each in problem.violations]
    message = problem.message
    # Servers tell all violations in their message, too, for those who read nothing else.
    if details and message == "; ".join(details):
        message, details = (message, []) if len(details) == 1 else (f"{len(details)} fields cannot be used", details)
    if problem.reason in NOTHING_ELIGIBLE and problem.metadata:
        counts = [
            (key.removeprefix("rejected_"), value)
            for key, value in sorted(problem.metadata.items())
            if key.startswith("rejected_")
        ]
        details += ["rejected: " + ", ".join(f"{code} {number}" for code, number in counts)] if counts else []
    if problem.retry_after_seconds is not None:
        details.append(f"waiting helps: again in {duration(problem.retry_after_seconds)}")
    if problem.reason in NOTHING_ELIGIBLE:
        code = ExitCode.NOTHING_ELIGIBLE
    else:
        code = CODES.get(problem.code, ExitCode.UNEXPECTED)
    # A server that names a command itself knows better than a table.
    hint = "" if "`fairway " in message else HINTS.get(problem.reason, "")
    if not problem.reason:
        match problem.code:
            case grpc.StatusCode.UNAVAILABLE:
                message = f"no control plane answers at {server}: {_cause(problem.message)}"
                hint = f"`fairway serve` starts one; `fairway doctor --server {server}` looks closer"
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"{server} did not answer within {duration(connection.timeout_seconds)}"
                hint = f"allow more with --timeout, or run `fairway doctor --server {server}`"
            case grpc.StatusCode.UNIMPLEMENTED:
                message = f"{server} does not know this call: {problem.message}"
                hint = "`fairway doctor` compares the versions of both sides"
            case _:
                message = problem.message or problem.code.name
    return Failure(
        message,
        code,
        reason=problem.reason or problem.code.name,
        details=details,
        hint=hint,
        metadata=problem.metadata,
    )


def _cause(text: str) -> str:
    """The last link of gRPC's chain of errors: "connect: Connection refused (111)" says it all."""
    return text.rsplit("Failed to connect to remote host: ", 1)[-1].rsplit("last error: ", 1)[-1].rstrip(". ")


def items(pages: Iterable[Any], field: str) -> Iterator[Any]:
    """The items on the pages."""
    for page in pages:
        yield from getattr(page, field)
