"""A CA of one test, and certificates that it signed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM of a certificate and its key."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Certificates:
    ca: bytes
    server: Certificate
    client: Certificate


def made(*server_names: str) -> Certificates:
    """Certificates of a day: the server's holds the names and 127.0.0.1."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("test CA")
    ca = _signed(issuer, issuer, ca_key.public_key(), ca_key, x509.BasicConstraints(ca=True, path_length=0))
    addresses = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([*map(x509.DNSName, server_names), addresses])

    def leaf(subject: str, extension: x509.ExtensionType) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certificate(_signed(_name(subject), issuer, key.public_key(), ca_key, extension), pem)

    client = leaf("gateway", x509.SubjectAlternativeName([x509.DNSName("gateway")]))
    return Certificates(ca, leaf("server", names), client)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> bytes:
    # Backdated, for a machine whose clock is behind.
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
