"""How the gRPC server listens: addresses, TLS, limits. What is wrong is told in one line before anything is bound."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from federation.config import ConfigError, SecuritySettings
from federation.logs import Log

# The answers to the known traps of grpc.aio, each with what it prevents.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Clients may ping every 5 s, also without calls; the default of 300 s cuts them off as abusers.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_500),
    ("grpc.keepalive_permit_without_calls", 1),
    # Connections end now and then, so that new replicas get their share; streams resume.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    # Slow-loris: a connection that says nothing, or stops half way.
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 120_000),
    # Rapid reset, and what one client may hold; it keeps further calls until there is room.
    ("grpc.max_concurrent_streams", 100),
    # Else streams that are answered and not yet freed count too, and a client that keeps to the limit is refused
    # (RST_STREAM 7): most of 300 calls that come at once. Calls at once are bounded by server.max_concurrent_calls.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


# One process a port, so that a second one fails to start instead of sharing the traffic unnoticed; the workers of one
# server share it on purpose.
ALONE = ("grpc.so_reuseport", 0)
SHARING = ("grpc.so_reuseport", 1)


class StartError(Exception):
    """The server cannot start, though its settings are well-formed; the message is one line with the way out."""


class Unreachable(StartError):
    """What the server needs at its start does not answer, or not in time."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(setting: str, text: str) -> Address:
    """`host:port`, with IPv6 addresses in brackets; ConfigError names the setting."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    well_formed = separator and host and (bracketed or ":" not in host) and port.isascii() and port.isdigit()
    if not well_formed or int(port) > 65_535:
        raise ConfigError(
            f"{setting}: {text!r} is not HOST:PORT; write 127.0.0.1:50051, [::1]:50051, or port 0 for any"
        )
    return Address(host, int(port))


def check_free(setting: str, address: Address) -> None:
    """StartError where the address cannot be bound: taken, not ours, or not allowed."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as e:
        raise StartError(f"{setting}: host {address.host!r} is not known here: {e.strerror}; use an address") from None
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
            probe.listen()
        except OSError as e:
            raise StartError(
                f"{setting}: cannot listen on {address}: {e.strerror}; stop what uses it, or choose another port"
            ) from None


def check_plain_text(address: Address, security: SecuritySettings, *, insecure: bool) -> None:
    """ConfigError where the API would go over a network in plain text without that being said."""
    if security.tls_certificate is None and not insecure and not address.is_loopback:
        raise ConfigError(
            f"server.listen: {address} is not loopback and there is no TLS: set security.tls_certificate and "
            "security.tls_key, or say server.insecure (--insecure) to serve plain text"
        )


@dataclass(slots=True)
class Certificates:
    """The server's certificate, key and client CA, read again when a file changed; a bad file keeps the last good."""

    certificate: Path
    key: Path
    client_ca: Path | None
    log: Log
    _read: tuple[object, ...] = ()
    expires_at: float | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files. ConfigError where they cannot be read now."""
        try:
            first = self._load()
        except (OSError, ValueError) as e:
            raise ConfigError(f"security.tls_certificate, tls_key or tls_client_ca: {_said(e)}") from None
        return grpc.dynamic_ssl_server_credentials(first, self._changed, self.client_ca is not None)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake, on its own thread: a few `stat` calls where nothing changed."""
        try:
            return self._load() if self._marks() != self._read else None
        except (OSError, ValueError) as e:
            # Files of one rotation change one after the other; until they fit, the pair that did goes on.
            self.log.error("certificate cannot be read again; the one before it stays", error=_said(e))
            return None

    def _load(self) -> grpc.ServerCertificateConfiguration:
        marks = self._marks()
        certificate, key = self.certificate.read_bytes(), self.key.read_bytes()
        ca = self.client_ca.read_bytes() if self.client_ca is not None else None
        leaf = _certificate(self.certificate, certificate)
        if ca is not None and self.client_ca is not None:
            _certificate(self.client_ca, ca)
        if _public_key(self.key, key) != leaf.public_key():
            raise ValueError(f"{self.key} is not the key of the certificate in {self.certificate}")
        self.expires_at = leaf.not_valid_after_utc.timestamp()
        self._read = marks
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def _marks(self) -> tuple[object, ...]:
        files = [self.certificate, self.key] + ([self.client_ca] if self.client_ca is not None else [])
        return tuple((each.stat().st_mtime_ns, each.stat().st_ino, each.stat().st_size) for each in files)


def _certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM") from None


def _public_key(path: Path, pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, None).public_key()
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds no private key in PEM, or one that needs a password") from None


def _said(error: OSError | ValueError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def bind(
    server: grpc.aio.Server, address: Address, certificates: Certificates | None, *, shared: bool = False
) -> Address:
    """Binds the server; the address with the port that it got. StartError, ConfigError."""
    if not shared:
        check_free("server.listen", address)
    credentials = certificates.credentials() if certificates is not None else None
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as e:
        raise StartError(f"server.listen: cannot listen on {address}: {e}; choose another address or port") from None
    return Address(address.host, port)
