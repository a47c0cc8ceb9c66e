"""What an install makes: valid for Kubernetes, restricted, spread, drained and probed as promised."""

from __future__ import annotations

import helm_python
import kubernetes_validate
import pytest

from tests.helm.chart import (
    CHART,
    EVERYTHING,
    MODES,
    PLAIN,
    POSTGRES,
    TLS,
    Values,
    containers,
    kinds,
    manifests,
    pod,
    rendered,
    server,
    the,
    workload,
)

RECOMMENDED_LABELS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}
in_every_mode = pytest.mark.parametrize("values", MODES.values(), ids=MODES.keys())


@in_every_mode
def test_the_chart_lints_without_a_warning(values: Values) -> None:
    report = helm_python.lint(CHART, values, strict=True)

    assert report["errors"] == []
    # 1 is information; the only one is that the chart has no icon.
    assert [message["error"] for message in report["messages"] if message["severity"] > 1] == []


# The oldest that Chart.yaml admits, and the newest known.
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
@in_every_mode
def test_every_manifest_is_valid_for_kubernetes(values: Values, version: str) -> None:
    for manifest in manifests(values):
        kubernetes_validate.validate(manifest, version, strict=True)


@in_every_mode
def test_every_object_has_the_recommended_labels(values: Values) -> None:
    for manifest in [*manifests(values), workload(values)["spec"]["template"]]:
        assert manifest["metadata"]["labels"].keys() >= RECOMMENDED_LABELS


@in_every_mode
def test_selectors_find_the_pods_and_survive_an_upgrade(values: Values) -> None:
    labels = workload(values)["spec"]["template"]["metadata"]["labels"]
    selectors = [workload(values)["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in manifests(values) if each["kind"] == "Service"]

    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.keys() & {"app.kubernetes.io/version", "helm.sh/chart"}


@in_every_mode
def test_every_container_is_restricted(values: Values) -> None:
    spec = pod(values)

    assert spec["automountServiceAccountToken"] is False
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
    for container in containers(values):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@in_every_mode
def test_every_mount_has_its_volume(values: Values) -> None:
    volumes = {volume["name"] for volume in pod(values)["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in workload(values)["spec"].get("volumeClaimTemplates", [])}

    for container in containers(values):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@in_every_mode
def test_a_probe_asks_a_port_that_is_declared_and_speaks_its_protocol(values: Values) -> None:
    ports = {port["name"]: port["containerPort"] for port in server(values)["ports"]}
    probes = [server(values)[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]

    if "tls" in values:
        # The kubelet's gRPC probe knows no TLS.
        assert [probe["httpGet"] for probe in probes] == [
            {"path": "/livez", "port": "admin"},
            {"path": "/livez", "port": "admin"},
            {"path": "/readyz", "port": "admin"},
        ]
    else:
        assert {probe["grpc"]["port"] for probe in probes} == {ports["grpc"]}
        services = [probe["grpc"].get("service", "") for probe in probes]
        assert services == ["", "", "federation.v1.RoutingService"]


def test_sqlite_is_one_pod_with_a_volume() -> None:
    stateful = the("StatefulSet", PLAIN)

    assert stateful["spec"]["replicas"] == 1
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert (claim["metadata"]["name"], claim["spec"]["accessModes"]) == ("data", ["ReadWriteOnce"])
    assert kinds(PLAIN) == {"ConfigMap", "Service", "StatefulSet", "Pod"}


def test_sqlite_has_the_storage_that_it_was_given() -> None:
    values = PLAIN | {"database": {"sqlite": {"size": "20Gi", "storageClassName": "fast"}}}

    (claim,) = the("StatefulSet", values)["spec"]["volumeClaimTemplates"]

    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_the_headless_service_names_the_pod_of_the_stateful_set() -> None:
    services = [each for each in manifests(PLAIN) if each["kind"] == "Service"]

    headless = [each["metadata"]["name"] for each in services if each["spec"].get("clusterIP") == "None"]

    assert headless == [the("StatefulSet", PLAIN)["spec"]["serviceName"]]


def test_postgres_is_a_deployment_that_never_has_fewer_pods() -> None:
    deployment = the("Deployment", PLAIN | POSTGRES)

    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize(("replicas", "kept"), [(2, 1), (5, 4)])
def test_a_disruption_takes_one_replica_at_a_time(replicas: int, kept: int) -> None:
    budget = the("PodDisruptionBudget", PLAIN | POSTGRES | {"replicas": replicas})

    assert budget["spec"]["minAvailable"] == kept


@pytest.mark.parametrize(
    "values",
    [PLAIN, PLAIN | POSTGRES | {"replicas": 1}, PLAIN | POSTGRES | {"podDisruptionBudget": {"enabled": False}}],
    ids=["sqlite", "one replica", "switched off"],
)
def test_a_single_pod_has_no_budget_that_would_block_a_drain(values: Values) -> None:
    assert "PodDisruptionBudget" not in kinds(values)


def test_replicas_are_spread_over_zones_and_nodes() -> None:
    constraints = pod(TLS | POSTGRES)["topologySpreadConstraints"]

    assert [(each["topologyKey"], each["whenUnsatisfiable"]) for each in constraints] == [
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
    ]


def test_the_schema_is_upgraded_before_the_server_starts() -> None:
    (migration,) = pod(PLAIN | POSTGRES)["initContainers"]

    assert migration["args"][:2] == ["db", "upgrade"]
    assert migration["volumeMounts"] == server(PLAIN | POSTGRES)["volumeMounts"]


def test_the_schema_is_left_alone_when_it_is_migrated_elsewhere() -> None:
    values = PLAIN | POSTGRES | {"migrations": {"mode": "external"}}

    assert "initContainers" not in pod(values)
    assert "fairway db upgrade" in rendered(values)["NOTES.txt"]


def test_replicas_tell_each_other_the_address_of_their_pod() -> None:
    (variable,) = server(PLAIN | POSTGRES)["env"]

    assert variable == {
        "name": "FAIRWAY_SERVER__ADVERTISE",
        "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
    }
    assert "env" not in server(PLAIN)


def test_replicas_may_talk_to_each_other() -> None:
    policy = the("NetworkPolicy", PLAIN | POSTGRES | {"networkPolicy": {"enabled": True}})["spec"]

    assert {"port": "grpc"} in policy["ingress"][0]["ports"]
    assert {"namespaceSelector": {}} in policy["egress"][0]["to"]


def test_the_database_url_is_read_from_the_secret_alone() -> None:
    values = PLAIN | {"database": {"mode": "postgres", "postgres": {"existingSecret": "dsn", "key": "uri"}}}

    volume = next(each for each in pod(values)["volumes"] if each["name"] == "database")

    assert volume["secret"]["secretName"] == "dsn"
    assert volume["secret"]["items"] == [{"key": "uri", "path": "url"}]
    # Readable by the group 10001 that the volume is given to, and by nobody else.
    assert volume["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize(("drain_seconds", "grace"), [(None, 45), (12.5, 28), (120, 135)])
def test_the_grace_period_covers_the_drain(drain_seconds: float | None, grace: int) -> None:
    values = PLAIN if drain_seconds is None else PLAIN | {"config": {"server": {"drain_seconds": drain_seconds}}}

    assert pod(values)["terminationGracePeriodSeconds"] == grace
    assert server(values)["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_grpc_and_admin_are_services_of_their_own() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in manifests(EVERYTHING) if each["kind"] == "Service"}

    assert {name: [port["name"] for port in spec["ports"]] for name, spec in services.items()} == {
        "control": ["grpc"],
        "control-headless": ["grpc"],
        "control-admin": ["admin"],
    }
    assert (services["control"]["type"], services["control"]["ports"][0]["port"]) == ("LoadBalancer", 443)
    assert services["control-admin"]["type"] == "ClusterIP"


def test_a_changed_setting_rolls_the_pods_and_nothing_else_does() -> None:
    def checksum(values: Values) -> str:
        text: str = workload(values)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return text

    changed = PLAIN | {"config": {"routing": {"policy": "latency_first"}}}

    assert checksum(changed) != checksum(PLAIN)
    assert checksum(PLAIN | {"service": {"type": "NodePort"}}) == checksum(PLAIN)


def test_hooks_reach_the_server_and_the_migration() -> None:
    for container in containers(EVERYTHING):
        assert container["env"][-1] == {"name": "FAIRWAY_TELEMETRY__LOG_LEVEL", "value": "debug"}
        assert container["envFrom"] == [{"configMapRef": {"name": "proxy"}}]
        assert {"name": "log", "mountPath": "/var/log/fairway"} in container["volumeMounts"]
        assert container["image"] == "registry.example/fairway@sha256:" + "0" * 64


@pytest.mark.parametrize("values", [PLAIN, TLS], ids=["plain text", "TLS"])
def test_the_test_s_pod_is_restricted_and_gets_no_calls(values: Values) -> None:
    doctor = the("Pod", values)

    (container,) = doctor["spec"]["containers"]
    assert container["securityContext"] == server(values)["securityContext"]
    assert doctor["spec"]["securityContext"] == pod(values)["securityContext"]
    for service in (each for each in manifests(values) if each["kind"] == "Service"):
        assert not service["spec"]["selector"].items() <= doctor["metadata"]["labels"].items()


def test_the_test_s_pod_sees_the_ca_and_not_the_key() -> None:
    (volume,) = the("Pod", TLS)["spec"]["volumes"]

    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_the_network_policy_keeps_pods_from_the_metadata_address() -> None:
    (rule,) = the("NetworkPolicy", EVERYTHING)["spec"]["egress"]

    blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]

    assert {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} in blocks


@pytest.mark.parametrize(
    ("values", "command"),
    [
        (PLAIN, "grpcurl -plaintext localhost:50051 federation.v1.FleetService/GetFleet"),
        (TLS, "grpcurl -cacert ca.crt -servername demo-fairway.inference.svc localhost:50051"),
        (EVERYTHING, "-cert client.crt -key client.key localhost:50051"),
    ],
    ids=["plain text", "TLS", "mutual TLS"],
)
def test_the_notes_give_the_next_command(values: Values, command: str) -> None:
    notes = rendered(values)["NOTES.txt"]

    assert "kubectl --namespace inference port-forward service/" in notes
    assert command in notes


def test_names_that_yaml_would_read_as_something_else_stay_names() -> None:
    values = TLS | {"fullnameOverride": "on", "serviceAccountName": "1e3", "tls": {"existingSecret": "0123"}}

    for manifest in manifests(values):
        kubernetes_validate.validate(manifest, "1.27", strict=True)
        assert manifest["metadata"]["name"].startswith("on")


def test_long_names_are_cut_to_what_kubernetes_takes() -> None:
    values = PLAIN | {"fullnameOverride": "", "nameOverride": "n" * 63}

    # A StatefulSet's pods carry its name and a hash of eleven characters in a label of at most 63.
    assert len(workload(values)["metadata"]["name"]) <= 52
    for manifest in manifests(values):
        assert len(manifest["metadata"]["name"]) <= 63
