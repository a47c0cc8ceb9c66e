"""Where the other replicas reach this one, and by what they know that it is one."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from cryptography import x509

from federation.api.listening import Address
from federation.config import Settings
from federation.edge.service_config import TlsOptions

# Nobody is there (RFC 5737); connecting a datagram socket sends nothing, it only asks which way the system would go.
ELSEWHERE = ("192.0.2.1", 9)


def advertised(setting: str, bound: Address, *, tls: bool) -> str:
    """The address that siblings are told: as set (a host takes the bound port), else as bound.

    For a server that is bound to all addresses it is the one from which this machine reaches others.
    """
    scheme = "https" if tls else "http"
    if not setting:
        host = _own_address() if bound.host in ("0.0.0.0", "::") else bound.host
        return f"{scheme}://{Address(host, bound.port)}"
    if _is_ip(setting) or not setting.rpartition(":")[2].isdecimal():
        return f"{scheme}://{Address(setting.strip('[]'), bound.port)}"
    return f"{scheme}://{setting}"


def sibling_tls(settings: Settings) -> TlsOptions | None:
    """How siblings are dialed; None for plain text. OSError, ValueError where the certificate cannot be read.

    Replicas show one certificate, so that it is trusted by itself, under the first name that it has.
    """
    security, peering = settings.security, settings.peering
    if security.tls_certificate is None:
        return None
    name = peering.tls_server_name or _first_name(security.tls_certificate)
    return TlsOptions(peering.tls_ca or security.tls_certificate, security.tls_certificate, security.tls_key, name)


def _first_name(certificate: Path) -> str:
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return found[0].replace("*", "replica", 1) if found else ""


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(ELSEWHERE)
        except OSError:
            return "127.0.0.1"
        host: str = asking.getsockname()[0]
        return host
