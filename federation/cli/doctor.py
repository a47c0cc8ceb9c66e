"""`fairway doctor`: one line a check, from the name in DNS to the age of the table, each with what to do about it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.figures import duration, enum_word, span
from federation.cli.options import Format, Remote, output, remote
from federation.cli.output import print_data, print_json_line, print_lines
from federation.cli.table import Head, cell, show, table_of
from federation.cli.wiring import command

if TYPE_CHECKING:
    from federation.cli.connection import Connection

SERVICES = ("", "CatalogService", "RoutingService", "PolicyService", "FleetService")
# The table is built again every second; ten times that is a loop that stands still.
OLD_TABLE_SECONDS = 10.0
# Outcomes carry their time: beyond this they land in the wrong window.
SKEW_SECONDS = 2.0
# Time to renew a certificate by hand, over a long weekend.
EXPIRY_DAYS = 7


class Status(StrEnum):
    """How a check went; only a failed one makes the command fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was looked at, what was found, and what to do where it is not well."""

    name: str
    status: Status
    found: str
    hint: str = ""


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "doctor", panel=panel, remote=remote, out=output)(doctor)


def doctor(
    remote: Remote,
    out: Format,
    database: Annotated[
        str | None, typer.Option("--database", "-d", metavar="URL", help="Check the schema of this database as well.")
    ] = None,
) -> None:
    """Check everything between here and a routed request; exit code 7 where a check fails."""
    checks = []
    for check in _checks(remote, database):
        checks.append(check)
        if out is Format.JSONL:
            print_json_line(asdict(check))
    failed = [check for check in checks if check.status is Status.FAIL]
    if out in (Format.TABLE, Format.WIDE):
        _show(checks)
    elif out is Format.NAME:
        print_lines(check.name for check in failed)
    elif out is not Format.JSONL:
        print_data({"ok": not failed, "checks": [asdict(check) for check in checks]}, out)
    if failed:
        raise Failure(f"{len(failed)} of {len(checks)} checks failed", ExitCode.CHECK_FAILED, hint=failed[0].hint)


def _show(checks: list[Check]) -> None:
    rows: list[tuple[Any, ...]] = []
    for check in checks:
        rows.append((cell(check.status.value), check.name, check.found))
        if check.hint and check.status is not Status.OK:
            rows.append(("", "", cell(f"→ {check.hint}", "cyan")))
    show(table_of((Head(""), Head("CHECK"), Head("FOUND", folds=True)), rows))


def _checks(remote: Remote, database: str | None) -> Iterator[Check]:
    """The checks in order; what cannot work after a failure is not tried."""
    if database is not None:
        yield _schema(database)
    host, port = _host_and_port(remote.address)
    name = _name(host, port)
    yield name
    if name.status is Status.FAIL:
        return
    connection = _tcp(host, port, remote.timeout_seconds)
    yield connection
    if connection.status is Status.FAIL:
        return
    if remote.secure:
        certificate = _tls(host, port, remote)
        yield certificate
        if certificate.status is Status.FAIL:
            return
    with remote.connect() as to:
        alive = True
        for service in SERVICES:
            check = _serving(to, service, host, port, remote)
            yield check
            alive = alive and not (service == "" and check.status is Status.FAIL)
        if alive:
            yield from _server(to)


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise Failure(f"--server {address!r}: write host:port, as in 127.0.0.1:50051", ExitCode.USAGE)
    return host.strip("[]"), int(port)


def _name(host: str, port: int) -> Check:
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        return Check(
            "dns", Status.FAIL, f"{host}: {error.strerror}", "correct the name after --server, or the resolver"
        )
    return Check("dns", Status.OK, f"{host} is {', '.join(found)}")


def _tcp(host: str, port: int, patience: float) -> Check:
    began = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=patience).close()
    except TimeoutError:
        return Check(
            "tcp", Status.FAIL, f"{host}:{port} does not answer within {duration(patience)}",
            "packets are dropped on the way: look at firewalls and network policies",
        )  # fmt: skip
    except OSError as error:
        return Check(
            "tcp", Status.FAIL, f"{host}:{port}: {error.strerror or error}",
            "nothing listens there: start `fairway serve`, or correct --server",
        )  # fmt: skip
    return Check("tcp", Status.OK, f"{host}:{port} connected in {duration(time.monotonic() - began)}")


def _tls(host: str, port: int, remote: Remote) -> Check:
    """The server's chain against our CA, and how long it is valid."""
    try:
        context = ssl.create_default_context(cafile=remote.tls_ca)
        context.set_alpn_protocols(["h2"])
        if remote.tls_cert is not None:
            context.load_cert_chain(remote.tls_cert, remote.tls_key)
        with (
            socket.create_connection((host, port), timeout=remote.timeout_seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate, version = secure.getpeercert() or {}, secure.version()
    except ssl.SSLCertVerificationError as error:
        return Check(
            "tls", Status.FAIL, f"the server's certificate is refused: {error.verify_message}",
            "give the CA that signed it with --tls-ca, renew it, or call the server by a name that it holds",
        )  # fmt: skip
    except ssl.SSLError as error:
        return Check(
            "tls", Status.FAIL, f"no TLS there: {error.reason or error}",
            "the server may speak plain text: leave --tls-* and grpcs:// out; or our certificate does not fit its key",
        )  # fmt: skip
    except OSError as error:
        return Check(
            "tls", Status.FAIL, f"the handshake broke: {error.strerror or error}", "check the files of --tls-*"
        )
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    left = expires - time.time()
    found = f"{version}, certificate valid for {duration(left)}"
    if left < EXPIRY_DAYS * 86_400:
        return Check("tls", Status.WARN, found, "renew the server's certificate; it is read again without a restart")
    return Check("tls", Status.OK, found)


def _serving(to: Connection, service: str, host: str, port: int, remote: Remote) -> Check:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    name = f"federation.v1.{service}" if service else ""
    label = f"grpc {service}" if service else "grpc"
    try:
        stub = health_pb2_grpc.HealthStub(to.channel)
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=remote.timeout_seconds).status
    except grpc.RpcError as error:
        return _not_serving(label, error, host, port, remote)
    if status == health_pb2.HealthCheckResponse.SERVING:
        return Check(label, Status.OK, "serving")
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(status).lower().replace("_", " ")
    return Check(label, Status.FAIL, word, "it starts, drains, or its database is away: read the server's log")


def _not_serving(label: str, error: Any, host: str, port: int, remote: Remote) -> Check:
    import grpc

    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return Check(label, Status.WARN, "the server does not tell of this service", "is it an older version?")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Check(label, Status.FAIL, "a gRPC server without health checks", "is this the gRPC port of fairway?")
    found = f"{code.name}: {error.details()}"
    if not remote.secure and _speaks_tls(host, port, remote.timeout_seconds):
        return Check(label, Status.FAIL, "the server speaks TLS", "give its CA with --tls-ca, or call it grpcs://…")
    if remote.secure and code is grpc.StatusCode.UNAVAILABLE:
        hint = "the server may refuse our certificate: give one that its CA signed, with --tls-cert and --tls-key"
        return Check(label, Status.FAIL, found, hint)
    hint = "is this the gRPC port, and not the admin port?"
    return Check(label, Status.FAIL, found, hint)


def _speaks_tls(host: str, port: int, patience: float) -> bool:
    """Whether a handshake succeeds when nothing is verified; nothing is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=patience) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _server(to: Connection) -> Iterator[Check]:
    """What the server tells of itself: version, table, deployments, peers, clock."""
    from federation.v1.fleet_pb2 import GetFleetRequest, ListPeersRequest

    try:
        fleet = to.ask(to.fleet.GetFleet, GetFleetRequest())
        yield _version(fleet.version)
        yield _table(fleet)
        for peer in to.ask(to.fleet.ListPeers, ListPeersRequest()).peers:
            yield _peer(peer)
        yield _clock(to)
    except Failure as failure:
        yield Check("server", Status.FAIL, failure.message, failure.hint)


def _version(server: str) -> Check:
    from federation.cli.main import version_of

    ours = version_of()
    if server.split(".")[:2] == ours.split(".")[:2]:
        return Check("version", Status.OK, f"server {server}, this command {ours}")
    return Check(
        "version", Status.WARN, f"server {server or 'unknown'}, this command {ours}",
        "use the same minor version on both sides",
    )  # fmt: skip


def _table(fleet: Any) -> Check:
    age = span(fleet, "table_age")
    total = sum(model.deployments for model in fleet.models)
    there = sum(model.available_deployments for model in fleet.models)
    found = f"revision {fleet.revision}, {duration(age)} old, {there} of {total} deployments available"
    if age is None or age > OLD_TABLE_SECONDS:
        return Check("table", Status.FAIL, found, "the server no longer rebuilds its table: read its log, restart it")
    if not there:
        hint = "register nodes: `fairway nodes register`" if not total else "`fairway health` says what is wrong"
        return Check("table", Status.WARN, found, hint)
    return Check("table", Status.OK, found)


def _peer(peer: Any) -> Check:
    state = enum_word(peer, "state")
    heard = f", last heard {duration(span(peer, 'lag'))} ago" if peer.HasField("lag") else ""
    found = f"{peer.address} {state}{heard}" + (f": {peer.reason}" if peer.reason else "")
    name = f"peer {peer.region_id}".strip()
    if state == "up":
        return Check(name, Status.OK, found)
    if state == "refused":
        return Check(name, Status.FAIL, found, "two control planes own one region: correct region.owns of one of them")
    return Check(name, Status.WARN, found, "routing goes on with what is known until its lease ends; check the link")


def _clock(to: Connection) -> Check:
    """The server's clock against ours: it stamps what it sends, and was read within the round trip."""
    from federation.v1.catalog_pb2 import WatchCatalogRequest

    sent = time.time()
    events = to.catalog.WatchCatalog(WatchCatalogRequest(), timeout=to.timeout_seconds)
    try:
        first = next(iter(to.listen(lambda request: events, WatchCatalogRequest())), None)
        received = time.time()
    finally:
        events.cancel()
    if first is None or not first.HasField("send_time"):
        return Check("clock", Status.WARN, "the server does not tell its time", "is it an older version?")
    skew = first.send_time.ToNanoseconds() * 1e-9 - (sent + received) / 2
    found = f"{duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} ours, ± {duration((received - sent) / 2)}"
    if abs(skew) > SKEW_SECONDS + (received - sent) / 2:
        return Check("clock", Status.WARN, found, "synchronise both clocks (NTP): outcomes carry their time")
    return Check("clock", Status.OK, found)


def _schema(url: str) -> Check:
    from catalog.errors import CatalogError
    from catalog.sql import schema
    from federation.cli.database import checked

    checked(url)
    try:
        schema.check(url)
    except CatalogError as error:
        return Check("database", Status.FAIL, str(error), "`fairway db upgrade`, or correct --database")
    return Check("database", Status.OK, f"schema {schema.head()}")
