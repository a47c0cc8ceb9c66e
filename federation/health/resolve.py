"""Which addresses a probe may connect to. Registered endpoints are attacker input.

Two walls, since a name may answer differently each time it is asked: `GuardedResolver` refuses a name if any of its
addresses is forbidden, and the connector checks each address again at the moment it opens a socket to it, which also
covers endpoints that are written as an address.

Never, whatever is allowed: link-local addresses (169.254.0.0/16 with the clouds' credentials, fe80::/10), metadata
services elsewhere, multicast and unspecified ones, in any spelling (IPv4 within IPv6 included).
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}

# A probe makes three requests over one connection; the next probe opens a new one, as a caller would.
KEEPALIVE_SECONDS = 1.0
# A slow name server must not hold the few threads that resolve for everybody. Addresses are checked at each connect.
DNS_CACHE_SECONDS = 30

_NEVER: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "0.0.0.0/8",
        "::/128",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "ff00::/8",
        # Metadata services that are not link-local: AWS, Google Cloud, Alibaba Cloud.
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "100.100.100.200/32",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")


class ForbiddenEndpoint(OSError):
    """An endpoint or address that may not be probed; the message says which rule."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint, taken apart."""

    scheme: str
    host: str
    port: int
    # Without a trailing slash or `/v1`, which the engine's own paths bring.
    path: str

    @property
    def is_grpc(self) -> bool:
        return self.scheme in ("grpc", "grpcs")

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("https", "grpcs")

    def url(self, path: str, port: int | None = None) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port or self.port}{self.path}{path}"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Schemes and networks that endpoints may have; no networks: all but those of `_NEVER`."""

    schemes: tuple[str, ...] = ("http", "https", "grpc", "grpcs")
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, schemes: Sequence[str], cidrs: Sequence[str]) -> AddressRules:
        """From settings. ValueError names the network that is none."""
        networks = []
        for cidr in cidrs:
            try:
                networks.append(ipaddress.ip_network(cidr))
            except ValueError as error:
                raise ValueError(f"health.allowed_cidrs: {error}; write it as 10.0.0.0/8 or fd00::/8") from None
        return cls(tuple(schemes), tuple(networks))

    def endpoint(self, text: str) -> Endpoint:
        """Takes an endpoint apart. ForbiddenEndpoint where it may not be probed or cannot be understood."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ForbiddenEndpoint(f"endpoint {text[:200]!r} is not a URL") from None
        if parts.scheme not in self.schemes:
            allowed = ", ".join(self.schemes)
            raise ForbiddenEndpoint(f"scheme {parts.scheme!r} is not allowed; allowed are {allowed}")
        if parts.username is not None or parts.password is not None:
            raise ForbiddenEndpoint("an endpoint may not carry credentials")
        if not parts.hostname:
            raise ForbiddenEndpoint("the endpoint has no host")
        path = parts.path.rstrip("/").removesuffix("/v1")
        return Endpoint(parts.scheme, parts.hostname, port or DEFAULT_PORTS.get(parts.scheme, 0), path)

    def check(self, address: str) -> None:
        """Raises ForbiddenEndpoint unless one may connect to this numeric address."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise ForbiddenEndpoint(f"address {address!r} is not numeric") from None
        for form in _forms(ip):
            if any(form in network for network in _NEVER):
                raise ForbiddenEndpoint(f"address {address} is never allowed (link-local, metadata or multicast)")
        if self.networks and not any(form in network for form in _forms(ip)[:1] for network in self.networks):
            raise ForbiddenEndpoint(f"address {address} is outside of health.allowed_cidrs")

    def addresses(self, found: Sequence[str]) -> None:
        """All addresses of one name; a single forbidden one forbids the name."""
        for address in found:
            self.check(address)


def _forms(ip: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """The address that is meant first, then every other that hides in it."""
    if isinstance(ip, IPv4Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped, ip)
    hidden: list[IPv4Address | IPv6Address] = [ip]
    if ip.sixtofour is not None:
        hidden.append(ip.sixtofour)
    # ::/96 holds the unspecified address and loopback too, which stand for themselves.
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 0xFFFF):
        hidden.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return tuple(hidden)


class GuardedResolver(AbstractResolver):
    """Resolves names as the system does, and refuses those that lead where no probe may go."""

    def __init__(self, rules: AddressRules, inner: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        self._rules.addresses([result["host"] for result in found])
        return found

    async def close(self) -> None:
        await self._inner.close()


def guarded_session(
    rules: AddressRules, *, ca_file: Path | None = None, inner: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session for probes: guarded addresses, no proxies, cookies, credentials or decompression.

    TLS trusts the system's authorities, or only those of `ca_file`. Call it inside the event loop.
    """

    def open_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        rules.check(address[0])
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(rules, inner),
        socket_factory=open_socket,
        ssl=ssl.create_default_context(cafile=ca_file),
        ttl_dns_cache=DNS_CACHE_SECONDS,
        keepalive_timeout=KEEPALIVE_SECONDS,
        limit=0,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "fairway-prober"},
    )


def session_factory(rules: AddressRules, ca_file: Path | None = None) -> Callable[[], aiohttp.ClientSession]:
    """What a Prober is handed: makes its session when it runs."""
    return lambda: guarded_session(rules, ca_file=ca_file)
