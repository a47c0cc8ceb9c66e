"""What `fairway doctor` finds, and what it says to do about it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_server import Served, serving
from conftest import Run

from federation.cli.failure import ExitCode
from tests.helm.certificates import made


def found(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    """The checks by name."""
    told = json.loads(run("doctor -o json", *arguments).stdout)
    return {check["name"]: check for check in told["checks"]}


def test_a_server_that_is_well_passes_every_check(run: Run, server: Served):
    result = run("doctor")

    assert result.exit_code == 0, result.stdout
    lines = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith(("ok", "warn", "fail"))]
    names = ["dns", "tcp", "grpc", "grpc", "grpc", "grpc", "grpc", "version", "table", "peer", "peer"]
    assert lines == [*(["ok", name] for name in names), ["warn", "peer"], ["ok", "clock"]]
    assert "→ routing goes on" in result.stdout


def test_a_name_that_does_not_resolve_ends_it(run: Run):
    result = run("doctor --server nowhere.invalid:50051 -o jsonl")

    assert result.exit_code == ExitCode.CHECK_FAILED
    (check,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (check["name"], check["status"]) == ("dns", "fail")


def test_a_closed_port_fails_and_says_what_to_start(run: Run):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    result = run(f"doctor --server 127.0.0.1:{port}")

    assert result.exit_code == ExitCode.CHECK_FAILED
    assert "fail  tcp" in result.stdout
    assert "fairway serve" in result.stdout
    assert "1 of 2 checks failed" in result.stderr


def test_something_else_than_fairway_is_told_apart(run: Run):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        checks = found(run, "--timeout", "300ms", "--server", f"127.0.0.1:{listener.getsockname()[1]}")

    assert checks["tcp"]["status"] == "ok"
    assert checks["grpc"]["status"] == "fail"
    assert "gRPC port" in checks["grpc"]["hint"]
    assert "version" not in checks


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that wants certificates, and the files to call it with."""
    certificates = made("localhost")
    directory = tmp_path_factory.mktemp("tls")
    for name, content in (
        ("ca.pem", certificates.ca),
        ("client.pem", certificates.client.certificate),
        ("client.key", certificates.client.key),
        ("other.pem", made("localhost").ca),
    ):
        (directory / name).write_bytes(content)
    credentials = grpc.ssl_server_credentials(
        [(certificates.server.key, certificates.server.certificate)], certificates.ca, require_client_auth=True
    )
    with serving(credentials) as served:
        yield served.address, directory


def test_a_secured_server_answers_with_the_right_files(run: Run, secured: tuple[str, Path]):
    address, directory = secured
    files = ["--tls-ca", "ca.pem", "--tls-cert", "client.pem", "--tls-key", "client.key"]
    arguments = [str(directory / each) if "." in each else each for each in files]

    listed = run("models list -o name --server", address, *arguments)
    checks = found(run, "--server", address, *arguments)

    assert listed.exit_code == 0, listed.stderr
    assert checks["tls"]["status"] == "warn", "the test's certificates live a day"
    assert "renew" in checks["tls"]["hint"]
    assert checks["grpc"]["status"] == "ok"


def test_a_server_of_another_ca_is_named_as_that(run: Run, secured: tuple[str, Path]):
    address, directory = secured

    checks = found(run, "--server", address, "--tls-ca", str(directory / "other.pem"))

    assert checks["tls"]["status"] == "fail"
    assert "refused" in checks["tls"]["found"]
    assert "--tls-ca" in checks["tls"]["hint"]


def test_a_missing_client_certificate_is_suspected(run: Run, secured: tuple[str, Path]):
    address, directory = secured

    checks = found(run, "--server", address, "--tls-ca", str(directory / "ca.pem"))

    assert checks["grpc"]["status"] == "fail"
    assert "--tls-cert" in checks["grpc"]["hint"]


def test_plain_text_to_a_secured_server_is_told(run: Run, secured: tuple[str, Path]):
    address, _ = secured

    checks = found(run, "--server", address, "--timeout", "2s")

    assert checks["grpc"]["found"] == "the server speaks TLS"
    assert "--tls-ca" in checks["grpc"]["hint"]


def test_tls_to_a_plain_server_is_told(run: Run, server: Served):
    checks = found(run, "--server", f"grpcs://{server.address}")

    assert checks["tls"]["status"] == "fail"
    assert "plain text" in checks["tls"]["hint"]


def test_a_certificate_without_its_key_is_a_mistake(run: Run, tmp_path: Path):
    (tmp_path / "c.pem").write_text("")

    result = run("models list --tls-cert", str(tmp_path / "c.pem"))

    assert result.exit_code == ExitCode.USAGE
    assert "--tls-cert and --tls-key go together" in result.stderr


def test_an_unreadable_ca_is_named(run: Run):
    result = run("models list --tls-ca nowhere.pem")

    assert result.exit_code == ExitCode.USAGE
    assert "cannot read nowhere.pem" in result.stderr


def test_the_database_is_checked_where_it_is_named(run: Run, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'f.db'}"

    before = found(run, "--database", url)
    run("db upgrade --database", url)
    after = found(run, "--database", url)

    assert (before["database"]["status"], after["database"]["status"]) == ("fail", "ok")
