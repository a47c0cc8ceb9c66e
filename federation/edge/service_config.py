"""How a client connects: addresses, channel settings, the service config. Pure, except that files of keys are read.

The settings answer faults that were measured: a black-holed replica costs half of all calls for as long as the hole
lasts unless the client sends keepalives, and a killed one costs none if UNAVAILABLE is retried on another.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from federation.v1 import catalog_pb2, fleet_pb2, policy_pb2, routing_pb2

PLAIN_SCHEMES = ("http", "grpc")
TLS_SCHEMES = ("https", "grpcs")
# Targets that gRPC resolves by itself; they go through as they are.
RESOLVER_SCHEMES = ("dns", "unix", "ipv4", "ipv6", "xds")

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # The server allows a ping every 2.5 s (grpc.http2.min_ping_interval_without_data_ms); half of that rate leaves room
    # for clocks. A black hole is noticed 7 s after the last byte.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # A ping that measures the bandwidth holds keepalives back while it waits for its answer, a minute by default: on a
    # busy connection a black hole went unnoticed for so long.
    ("grpc.http2.ping_timeout_ms", 5_000),
    # An idle gateway must not find out with its next request that the connection is gone.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC waits up to 120 s between attempts and 20 s for one by default; a replica that is back should be used soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 16 << 20),
)
# A retry that follows a removal which did arrive would answer NOT_FOUND to a caller who succeeded.
NOT_RETRIED = ("DeregisterModel", "DeregisterNode", "DeletePolicy")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """PEM files; each empty one takes the default: the system's roots, no client certificate, the address's name."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    # The name in the server's certificate where it is not the one in the address.
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: set both, or neither")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the replicas of a control plane are, as gRPC targets; `tls` counts for all of them."""

    targets: tuple[str, ...]
    tls: bool

    def joined(self) -> str:
        """One target for all, to be balanced over.

        Host names among several addresses are looked up here, once; one name that resolves to all replicas follows
        changes. Raises ValueError where they cannot be joined, OSError where a name does not resolve.
        """
        if len(self.targets) == 1:
            return self.targets[0]
        found: list[tuple[str, str]] = []
        for target in self.targets:
            host, port = split_host_port(target)
            for family, *_, address in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM):
                if family in (socket.AF_INET, socket.AF_INET6):
                    found.append(("ipv4" if family == socket.AF_INET else "ipv6", _joined(str(address[0]), port)))
        # gRPC takes several addresses of one family only; a name with both (localhost) is reached by either.
        four = list(dict.fromkeys(text for kind, text in found if kind == "ipv4"))
        six = list(dict.fromkeys(text for kind, text in found if kind == "ipv6"))
        if len(four) >= len(self.targets) or not six:
            return "ipv4:" + ",".join(four)
        if len(six) >= len(self.targets) or not four:
            return "ipv6:" + ",".join(six)
        raise ValueError(f"addresses {', '.join(self.targets)} mix IPv4 and IPv6; use one family, or one DNS name")


def parse_addresses(addresses: str | Sequence[str], tls: TlsOptions | None) -> Addresses:
    """Reads `host:port`, `http(s)://host:port`, `grpc(s)://host:port` or gRPC targets; a string may hold several.

    `https` and `grpcs` mean TLS, `http` and `grpc` plain text, a bare address TLS if `tls` is given.
    Raises ValueError for what is none of these, and for a mix of TLS and plain text.
    """
    texts = [text.strip() for text in (addresses.split(",") if isinstance(addresses, str) else addresses)]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("no address of a control plane is given; write host:port")
    parsed = [_parse(text, tls is not None) for text in texts]
    if len({secure for _, secure in parsed}) > 1:
        raise ValueError(f"addresses {', '.join(texts)} mix TLS and plain text; use one of them for all")
    targets = tuple(dict.fromkeys(target for target, _ in parsed))
    secure = parsed[0][1]
    if secure and len(targets) > 1 and not (tls and tls.server_name):
        hosts = {split_host_port(target)[0] for target in targets}
        if len(hosts) > 1:
            raise ValueError(
                "several addresses with TLS need tls.server_name: the name that all their certificates carry"
            )
    return Addresses(targets, secure)


def _parse(text: str, bare_is_tls: bool) -> tuple[str, bool]:
    scheme = text.partition(":")[0]
    if "://" in text and scheme in PLAIN_SCHEMES + TLS_SCHEMES:
        url = urlsplit(text)
        if url.path.strip("/") or url.query or url.username:
            raise ValueError(f"address {text!r} must be scheme, host and port only")
        split_host_port(url.netloc)
        return url.netloc, scheme in TLS_SCHEMES
    if scheme in RESOLVER_SCHEMES and not text[len(scheme) + 1 :].isdecimal():
        return text, bare_is_tls
    if "://" in text:
        raise ValueError(
            f"address {text!r} has scheme {scheme!r}; use {', '.join(PLAIN_SCHEMES + TLS_SCHEMES)} or none"
        )
    split_host_port(text)
    return text, bare_is_tls


def split_host_port(text: str) -> tuple[str, str]:
    """The host, without brackets, and the port. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"address {text!r} needs a host and a port between 1 and 65535, for example 10.0.0.1:50051")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"address {text!r} has an IPv6 address without brackets; write [{host}]:{port}")
    return host.strip("[]"), port


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ipaddress.ip_address(host.partition("%")[0]).version == 6 else f"{host}:{port}"


def service_config(call_timeout_seconds: float, *, retry: bool = True) -> str:
    """The JSON that gRPC clients of any language may use: round robin, retry, a deadline for all.

    Tried again is what a server did not handle: UNAVAILABLE, and CANCELLED, by which gRPC ends the calls that a server
    had not begun when it stopped (grpc#41785). One that its own caller cancels is over, and not tried again.
    Streams have neither retry nor deadline; whoever holds one knows where to resume.
    """
    unary: list[dict[str, str]] = []
    once: list[dict[str, str]] = []
    for module in (catalog_pb2, routing_pb2, policy_pb2, fleet_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if method.client_streaming or method.server_streaming:
                    continue
                name = {"service": service.full_name, "method": method.name}
                (once if method.name in NOT_RETRIED else unary).append(name)
    timeout = f"{call_timeout_seconds:.3f}s"
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {"name": unary, "timeout": timeout, "waitForReady": False, **({"retryPolicy": policy} if retry else {})},
            {"name": once, "timeout": timeout, "waitForReady": False},
        ],
        # Retries stop when fifty calls more failed than a tenth of those that went well: they must not add to an
        # overload, and a replica that dies takes all that was under way there with it.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    return json.dumps(config)


def channel_options(
    call_timeout_seconds: float, tls: TlsOptions | None, *, retry: bool = True
) -> list[tuple[str, Any]]:
    """Options of a channel, for `grpc` and `grpc.aio` alike."""
    options = [
        *CHANNEL_OPTIONS,
        ("grpc.service_config", service_config(call_timeout_seconds, retry=retry)),
        ("grpc.enable_retries", int(retry)),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def credentials(tls: TlsOptions | None, token: str) -> Any:
    """TLS credentials, with a bearer token if one is given. Raises OSError where a file cannot be read."""
    tls = tls or TlsOptions()
    channel = grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes() if tls.ca else None,
        private_key=tls.key.read_bytes() if tls.key else None,
        certificate_chain=tls.certificate.read_bytes() if tls.certificate else None,
    )
    if not token:
        return channel
    return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(token))
