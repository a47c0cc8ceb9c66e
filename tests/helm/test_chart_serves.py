"""The server starts, serves and ends with exactly what the chart renders, in every mode."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import grpc
import pytest

from federation.v1 import fleet_pb2, fleet_pb2_grpc
from tests.helm import certificates, kubelet
from tests.helm.chart import MUTUAL_TLS, PLAIN, POSTGRES, TLS, Values, pod, rendered, the
from tests.postgres import Postgres

ROUTING = "federation.v1.RoutingService"
NAME = "demo-fairway.inference.svc"


@pytest.fixture(scope="module")
def signed() -> certificates.Certificates:
    return certificates.made(NAME)


def tls_secret(signed: certificates.Certificates) -> kubelet.Secrets:
    return {
        "fairway-tls": {"tls.crt": signed.server.certificate, "tls.key": signed.server.key, "ca.crt": signed.ca},
    }


def database_secret(url: str) -> kubelet.Secrets:
    return {"fairway-database": {"url": url.encode()}}


def secure_channel(
    running: kubelet.Running, signed: certificates.Certificates, own: certificates.Certificate | None = None
) -> grpc.Channel:
    """As a caller in the cluster has it: by the Service's name."""
    credentials = grpc.ssl_channel_credentials(signed.ca, own and own.key, own and own.certificate)
    named = (("grpc.ssl_target_name_override", NAME),)
    return grpc.secure_channel(f"127.0.0.1:{running.ports['grpc']}", credentials, named)


def asked(running: kubelet.Running, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """A command of the chart, with the server's address here instead of the one it names."""
    here = f"127.0.0.1:{running.ports['grpc']}"
    moved = [re.sub(rf"^(localhost|{re.escape(NAME)}):50051$", here, argument) for argument in arguments]
    assert here in moved
    return subprocess.run(
        [str(kubelet.BINARIES / "fairway"), *moved], capture_output=True, text=True, timeout=kubelet.COMMAND_SECONDS
    )


def test_sqlite_in_plain_text_passes_its_probes_and_ends_in_time(tmp_path: Path) -> None:
    made = kubelet.placed(PLAIN, tmp_path, {})

    with kubelet.started(made) as running:
        for kind in ("startup", "readiness", "liveness"):
            running.wait_until(kind)
        code = running.end()

    assert code == 0
    assert made.path("/var/lib/fairway/fairway.db").exists()


def test_the_commands_of_the_notes_and_of_the_test_s_pod_work(tmp_path: Path) -> None:
    made = kubelet.placed(PLAIN, tmp_path, {})
    (noted,) = re.findall(r"^  fairway (.+)$", rendered(PLAIN)["NOTES.txt"], flags=re.MULTILINE)
    (doctor,) = the("Pod", PLAIN)["spec"]["containers"]

    with kubelet.started(made) as running:
        running.wait_until("readiness")
        fleet, diagnosis = (asked(running, arguments) for arguments in (noted.split(), doctor["args"]))

    assert (fleet.returncode, fleet.stderr) == (0, "")
    assert "fleet seen from local" in fleet.stdout
    assert (diagnosis.returncode, diagnosis.stderr) == (0, "")
    assert "serving" in diagnosis.stdout


def test_settings_reach_the_server(tmp_path: Path) -> None:
    values = PLAIN | {"config": {"region": {"id": "eu-west-1"}, "telemetry": {"log_format": "json"}}}
    made = kubelet.placed(values, tmp_path, {})

    with kubelet.started(made) as running:
        running.wait_until("readiness")
        with grpc.insecure_channel(f"127.0.0.1:{running.ports['grpc']}") as channel:
            fleet = fleet_pb2_grpc.FleetServiceStub(channel).GetFleet(fleet_pb2.GetFleetRequest(), timeout=10)

    assert fleet.home_region_id == "eu-west-1"


def test_tls_is_served_to_callers_and_the_kubelet_asks_the_admin_port(
    tmp_path: Path, signed: certificates.Certificates
) -> None:
    made = kubelet.placed(TLS, tmp_path, tls_secret(signed))

    with kubelet.started(made) as running:
        for kind in ("startup", "readiness", "liveness"):
            running.wait_until(kind)
        with secure_channel(running, signed) as channel:
            secure = kubelet.serving(channel, ROUTING)
        with grpc.insecure_channel(f"127.0.0.1:{running.ports['grpc']}") as channel:
            plain = kubelet.serving(channel, ROUTING)

    assert (secure, plain) == (True, False)


def test_mutual_tls_refuses_a_caller_without_a_certificate(tmp_path: Path, signed: certificates.Certificates) -> None:
    made = kubelet.placed(MUTUAL_TLS, tmp_path, tls_secret(signed))

    with kubelet.started(made) as running:
        running.wait_until("readiness")
        with secure_channel(running, signed, own=signed.client) as channel:
            known = kubelet.serving(channel, ROUTING)
        with secure_channel(running, signed) as channel:
            unknown = kubelet.serving(channel, ROUTING)

    assert (known, unknown) == (True, False)


def test_two_replicas_share_the_database_that_their_init_containers_upgraded(
    tmp_path: Path, postgres: Postgres
) -> None:
    values = PLAIN | POSTGRES
    secrets = database_secret(postgres.empty_database())
    replicas = [kubelet.placed(values, tmp_path / name, secrets) for name in ("one", "two")]
    (migration,) = pod(values)["initContainers"]

    migrations = [kubelet.ran(each, migration) for each in replicas]

    assert [(each.returncode, each.stderr) for each in migrations] == [(0, ""), (0, "")]
    with kubelet.started(replicas[0]) as one, kubelet.started(replicas[1]) as two:
        one.wait_until("readiness")
        two.wait_until("readiness")
        assert [each.end() for each in (one, two)] == [0, 0]


def test_without_its_migration_a_pod_never_becomes_ready_and_says_what_to_run(
    tmp_path: Path, postgres: Postgres
) -> None:
    values: Values = PLAIN | POSTGRES | {"migrations": {"mode": "external"}}
    made = kubelet.placed(values, tmp_path, database_secret(postgres.empty_database()))

    with kubelet.started(made) as running:
        code = running.process.wait(kubelet.COMMAND_SECONDS)

    assert code != 0
    assert "fairway db upgrade" in running.errors.read_text()
