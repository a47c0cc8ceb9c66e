"""The client over TLS: certificates of both sides, and a token that travels with each call."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from edge_servers import serving

from federation.edge.client import Client, ClientOptions, RouteError, SyncClient, TlsOptions
from federation.v1 import routing_pb2

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Files:
    ca: Path
    certificate: Path
    key: Path
    server: grpc.ServerCredentials


def issue(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None):
    """A certificate for 127.0.0.1 and its key; signed by itself without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    ca, ca_key = issue("ca", None)
    server, server_key = issue("server", (ca, ca_key))
    client, client_key = issue("client", (ca, ca_key))
    encoding = serialization.Encoding.PEM
    made = Files(
        tmp_path / "ca.pem",
        tmp_path / "client.pem",
        tmp_path / "client.key",
        grpc.ssl_server_credentials(
            [(pem(server_key), server.public_bytes(encoding))],
            root_certificates=ca.public_bytes(encoding),
            require_client_auth=True,
        ),
    )
    made.ca.write_bytes(ca.public_bytes(encoding))
    made.certificate.write_bytes(client.public_bytes(encoding))
    made.key.write_bytes(pem(client_key))
    return made


async def test_both_sides_show_certificates_and_the_token_travels_with_the_call(files: Files):
    tls = TlsOptions(ca=files.ca, certificate=files.certificate, key=files.key)
    async with serving("a", files.server) as a:
        async with Client(f"https://{a.address}", ClientOptions(tls=tls, token="t0ken")) as client:
            response = await client.route(routing_pb2.RouteRequest(model_id="m"), timeout_seconds=5.0)

        assert response.decision.target.node_id == "a"
        assert a.metadata[0]["authorization"] == "Bearer t0ken"


async def test_without_a_certificate_of_its_own_or_the_right_authority_nothing_is_sent(files: Files):
    async with serving("a", files.server) as a:
        for tls in (TlsOptions(ca=files.ca), TlsOptions()):
            async with Client(a.address, ClientOptions(tls=tls)) as client:
                with pytest.raises(RouteError) as caught:
                    await client.route(routing_pb2.RouteRequest(model_id="m"))
            assert caught.value.unanswered

        assert a.calls == 0


def test_a_file_that_is_not_there_is_told_when_the_client_is_made(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyncClient("https://cp:1", ClientOptions(tls=TlsOptions(ca=tmp_path / "nowhere.pem")))
