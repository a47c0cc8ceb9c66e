"""Servers with every habit, and a prober at work on them, for the tests of this folder."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import anyio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from catalog.types import Node
from federation.config import CircuitSettings, HealthSettings
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.health.resolve import AddressRules, session_factory
from policies.health import DeploymentHealth, Grade
from tests.federation.health.fleet import MODEL, a_snapshot

PAGE = (Path(__file__).parent / "pages" / "vllm_two_ranks.txt").read_text()
# Quick, and still far longer than a loopback answer takes on a busy machine.
QUICK = HealthSettings(probe_interval_seconds=0.2, probe_timeout_seconds=2.0, recheck_interval_seconds=0.02)
# For nodes that hang: so that the test need not.
IMPATIENT = QUICK.model_copy(update={"probe_timeout_seconds": 0.15})
LIMIT_SECONDS = 20.0


class FakeEngine:
    """A server whose habits a test sets; it counts what it was asked."""

    def __init__(self) -> None:
        self.health_status = 200
        self.health_body = b""
        self.models: object = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self.models_status = 200
        self.page = PAGE
        self.hang = ""
        self.location = ""
        self.asked: list[str] = []
        self.url = ""
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == self.hang:
            await asyncio.sleep(3_600.0)
        headers = {"Location": self.location} if self.location else {}
        match request.path:
            case "/health" | "/v2/health/ready":
                return web.Response(status=self.health_status, body=self.health_body, headers=headers)
            case "/v1/models" | "/v2/repository/index" if isinstance(self.models, bytes):
                return web.Response(status=self.models_status, body=self.models)
            case "/v1/models" | "/v2/repository/index":
                return web.json_response(self.models, status=self.models_status)
            case "/metrics":
                return web.Response(text=self.page)
            case _:
                return web.Response(status=404)


@asynccontextmanager
async def serving(engine: FakeEngine, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeEngine]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", engine.port, ssl_context=tls).start()
    engine.port = runner.addresses[0][1]
    engine.url = f"http://127.0.0.1:{engine.port}"
    try:
        yield engine
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Certificate:
    """A certificate for localhost that vouches for itself, and its key, as PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificate(folder: Path) -> Certificate:
    """Good for an hour, and only for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    found = Certificate(folder / "certificate.pem", folder / "key.pem")
    found.certificate.write_bytes(certificate.public_bytes(pem))
    found.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return found


class Probing:
    """A monitor and its prober at work."""

    def __init__(self, monitor: Monitor, prober: Prober) -> None:
        self.monitor = monitor
        self.prober = prober

    def sync(self, *nodes: Node) -> None:
        self.monitor.sync(a_snapshot(*nodes), time.monotonic())
        self.prober.sync(a_snapshot(*nodes))

    def health(self, node: str = "n1", model: str = MODEL) -> DeploymentHealth:
        return self.monitor.deployment(f"r/{node}/{model}", time.monotonic())

    async def until(self, condition: Callable[[DeploymentHealth], bool], node: str = "n1") -> DeploymentHealth:
        """Waits for a condition; fails with what is known instead, if it takes too long."""
        with anyio.move_on_after(LIMIT_SECONDS):
            while not condition(self.health(node)):  # noqa: ASYNC110 - waits for what a caller would see
                await anyio.sleep(0.005)
        found = self.health(node)
        assert condition(found), found
        return found


@asynccontextmanager
async def probing(
    *nodes: Node, settings: HealthSettings = QUICK, ca_file: Path | None = None
) -> AsyncIterator[Probing]:
    monitor = Monitor(settings, CircuitSettings(), rng=Random(1), wall=time.time)
    rules = AddressRules.of(settings.allowed_schemes, settings.allowed_cidrs)
    prober = Prober(
        monitor,
        http=session_factory(rules, ca_file),
        settings=settings,
        clock=time.monotonic,
        rng=Random(1),
        ca_file=ca_file,
    )
    at_work = Probing(monitor, prober)
    at_work.sync(*nodes)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prober.run)
        yield at_work
        tasks.cancel_scope.cancel()


def unhealthy(found: DeploymentHealth) -> bool:
    return found.grade is Grade.UNHEALTHY


def well(found: DeploymentHealth) -> bool:
    return found.grade is Grade.HEALTHY and found.ready
