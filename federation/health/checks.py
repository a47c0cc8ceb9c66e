"""One health check of one node, over HTTP or gRPC. Everything that can go wrong becomes a Probe with a short reason.

Bodies, times and addresses are bounded; redirects are not followed, credentials not sent, bodies never echoed.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from catalog.types import Engine, Node
from federation.health.engines import DIALECTS, Dialect, orca
from federation.health.engines.page import MAX_PAGE_CHARS, EngineMetrics
from federation.health.records import Probe
from federation.health.resolve import AddressRules, Endpoint, ForbiddenEndpoint

MAX_HEALTH_BYTES = 64 << 10
# vLLM lists each LoRA adapter with half a KB of permissions; a node with a few hundred of them is not ill.
MAX_MODELS_BYTES = 1 << 20
MAX_PAGE_BYTES = MAX_PAGE_CHARS
# Larger pages are parsed in a thread, so that no decision waits for them.
INLINE_PAGE_BYTES = 128 << 10


class Failed(Exception):
    """A check did not pass; the reason is short and for people."""

    def __init__(self, reason: str, *, loading: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.loading = loading


async def probe_node(
    node: Node,
    http: aiohttp.ClientSession,
    rules: AddressRules,
    *,
    timeout_seconds: float,
    clock: Callable[[], float],
    on_metrics: Callable[[EngineMetrics], None],
    grpc_roots: bytes | None = None,
) -> Probe:
    """Asks a node for its health and its models. A gRPC answer may carry a load report, which goes to `on_metrics`.

    `grpc_roots` are the authorities that grpcs:// nodes are checked against, PEM; None: those that gRPC knows.
    """
    begun = clock()
    models = None
    try:
        endpoint = rules.endpoint(node.endpoint)
        if endpoint.is_grpc:
            seconds = await _check_grpc(endpoint, rules, timeout_seconds, clock, on_metrics, grpc_roots)
        elif node.engine is Engine.GRPC:
            raise Failed(f"engine 'grpc' needs a grpc:// or grpcs:// endpoint, not {endpoint.scheme}://")
        else:
            with anyio.fail_after(timeout_seconds):
                seconds, models = await _check_http(endpoint, DIALECTS[node.engine], http, clock)
    except Failed as error:
        return Probe(node.name, False, clock() - begun, error=error.reason, loading=error.loading)
    except TimeoutError:
        return Probe(node.name, False, clock() - begun, error=f"timed out after {timeout_seconds:g} s")
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return Probe(node.name, False, clock() - begun, error=reason_of(error))
    return Probe(node.name, True, seconds, models)


async def scrape(
    node: Node, http: aiohttp.ClientSession, rules: AddressRules, *, timeout_seconds: float
) -> EngineMetrics | None:
    """The node's metrics page; None where there is none, or it cannot be had. That is no failure of the node."""
    dialect = DIALECTS[node.engine]
    try:
        endpoint = rules.endpoint(node.endpoint)
        if not dialect.metrics_path or endpoint.is_grpc:
            return None
        url = endpoint.url(dialect.metrics_path, (dialect.metrics_ports or {}).get(endpoint.port))
        with anyio.fail_after(timeout_seconds):
            async with http.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = await read_at_most(response, MAX_PAGE_BYTES)
    except (TimeoutError, OSError, aiohttp.ClientError, ValueError):
        return None
    if body is None:
        return None
    text = body.decode("utf-8", "replace")
    if len(body) <= INLINE_PAGE_BYTES:
        return dialect.parse(text)
    return await anyio.to_thread.run_sync(dialect.parse, text)


async def _check_http(
    endpoint: Endpoint, dialect: Dialect, http: aiohttp.ClientSession, clock: Callable[[], float]
) -> tuple[float, frozenset[str] | None]:
    """Seconds that the health path took, and what the engine lists."""
    begun = clock()
    if dialect.health_path != dialect.models_path:
        async with http.get(endpoint.url(dialect.health_path), allow_redirects=False) as response:
            _require_ok(response.status)
            await read_at_most(response, MAX_HEALTH_BYTES)
        seconds = clock() - begun
        if not dialect.models_path:
            return seconds, None
        return seconds, await _list_models(endpoint, dialect, http)
    models = await _list_models(endpoint, dialect, http)
    return clock() - begun, models


async def _list_models(endpoint: Endpoint, dialect: Dialect, http: aiohttp.ClientSession) -> frozenset[str] | None:
    url = endpoint.url(dialect.models_path)
    async with http.request(dialect.models_method, url, allow_redirects=False) as response:
        if response.status in (401, 403) and dialect.guarded_is_alive:
            return None
        # The engine has no such list: then a passed health check is all that can be asked.
        if response.status in (404, 405, 501) and dialect.health_path != dialect.models_path:
            return None
        _require_ok(response.status)
        body = await read_at_most(response, MAX_MODELS_BYTES)
    if body is None:
        raise Failed(f"its list of models is larger than {MAX_MODELS_BYTES >> 10} KiB")
    models = listed_models(body)
    if models is None:
        raise Failed(f"{dialect.models_path} does not answer a list of models")
    return models


def _require_ok(status: int) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise Failed(f"HTTP {status} (redirects are not followed)")
    raise Failed(f"HTTP {status}", loading=status == 503)


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body; None where it is longer, with the connection closed so that the rest is not read."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            response.close()
            return None
        parts.append(chunk)
    return b"".join(parts)


def listed_models(body: bytes) -> frozenset[str] | None:
    """Names in an OpenAI list of models, or in a Triton repository index (only what is READY); None: it is neither."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"data": list(entries)}:
            names = [name for entry in entries for name in _strings(entry, "id", "root")]
        case list(entries):
            ready = [e for e in entries if isinstance(e, dict) and e.get("state", "READY") == "READY"]
            names = [name for entry in ready for name in _strings(entry, "name")]
        case _:
            return None
    return frozenset(names)


def _strings(entry: Any, *keys: str) -> list[str]:
    values = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
    return [value for value in values if isinstance(value, str)]


async def _check_grpc(
    endpoint: Endpoint,
    rules: AddressRules,
    timeout_seconds: float,
    clock: Callable[[], float],
    on_metrics: Callable[[EngineMetrics], None],
    roots: bytes | None,
) -> float:
    """grpc.health.v1 of the server as a whole, at an address that was checked; answers its seconds."""
    begun = clock()
    with anyio.fail_after(timeout_seconds):
        found = await anyio.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    rules.addresses([str(info[4][0]) for info in found])
    # gRPC resolves on its own and through proxies; a numeric target leaves it nothing to resolve.
    family = found[0][0]
    kind = "ipv6" if family.name == "AF_INET6" else "ipv4"
    numeric = [str(info[4][0]) for info in found if info[0] == family]
    hosts = [f"[{address}]:{endpoint.port}" if kind == "ipv6" else f"{address}:{endpoint.port}" for address in numeric]
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.default_authority", f"{endpoint.host}:{endpoint.port}"),
        ("grpc.max_receive_message_length", MAX_HEALTH_BYTES),
        # Probes share nothing with each other: a broken connection must not be somebody else's.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    target = f"{kind}:{','.join(hosts)}"
    if endpoint.is_tls:
        options.append(("grpc.ssl_target_name_override", endpoint.host))
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
    else:
        channel = grpc.aio.insecure_channel(target, options)
    async with channel:
        # Its own deadline, never a cancel scope around it: grpc.aio answers a cancellation with a CancelledError of
        # its own, which anyio does not know as its scope's, and which would end this node's probing for good.
        left = max(0.001, timeout_seconds - (clock() - begun))
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=left)
        try:
            answer = await call
            trailers = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            raise Failed(_grpc_reason(error)) from None
    _read_report(trailers, on_metrics)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Failed(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status), loading=True)
    return clock() - begun


def _read_report(trailers: Any, on_metrics: Callable[[EngineMetrics], None]) -> None:
    for key, value in trailers or ():
        if key == orca.BINARY_HEADER and isinstance(value, bytes):
            on_metrics(orca.to_metrics(orca.parse_binary(value)))
        elif key in (orca.HEADER, orca.JSON_HEADER) and isinstance(value, str):
            on_metrics(orca.to_metrics(orca.parse_header(value)))


def _grpc_reason(error: grpc.aio.AioRpcError) -> str:
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return "it does not serve grpc.health.v1"
        case grpc.StatusCode.UNAVAILABLE if "refused" in details.lower():
            return "connection refused"
        case grpc.StatusCode.UNAVAILABLE if "ssl" in details.lower() or "certificate" in details.lower():
            return "TLS handshake failed"
        case code:
            return f"gRPC {code.name}"


_OS_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.EMFILE: "this control plane has no file descriptors left; raise its limit (ulimit -n)",
    errno.EPIPE: "connection reset",
}


def reason_of(error: BaseException) -> str:
    """A few words for people; never what the node sent."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenEndpoint):
        return str(error.os_error)
    match error:
        case ForbiddenEndpoint():
            return str(error)
        case aiohttp.ClientConnectorDNSError():
            return f"name {error.host!r} does not resolve"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return "its certificate is not trusted"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "TLS handshake failed"
        case aiohttp.ServerDisconnectedError():
            return "connection closed without an answer"
        case aiohttp.InvalidURL():
            return "the endpoint's host is not a name or a plain address"
        case aiohttp.ClientPayloadError():
            return "its answer broke off"
        case aiohttp.ClientResponseError():
            return "its answer is not HTTP"
        case socket.gaierror():
            return "its name does not resolve"
        case OSError():
            return _OS_REASONS.get(error.errno or 0) or _errno_name(error)
        case _:
            return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__).lower()
