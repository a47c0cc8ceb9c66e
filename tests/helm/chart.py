"""Renders the chart with Helm's own engine, for the tests beside this file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "fairway"
Values = dict[str, Any]
Manifest = dict[str, Any]

PLAIN: Values = {"insecure": True}
TLS: Values = {"tls": {"existingSecret": "fairway-tls"}}
MUTUAL_TLS: Values = {"tls": {"existingSecret": "fairway-tls", "requireClientCertificate": True}}
POSTGRES: Values = {"database": {"mode": "postgres", "postgres": {"existingSecret": "fairway-database"}}}
# Every value that changes what is rendered, at once.
EVERYTHING: Values = {
    **MUTUAL_TLS,
    **POSTGRES,
    "image": {"repository": "registry.example/fairway", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "fullnameOverride": "control",
    "replicas": 5,
    "config": {"region": {"id": "eu-west-1", "owns": ["eu-west-1"]}, "peering": {"peers": ["us.example:50051"]}},
    "service": {"type": "LoadBalancer", "annotations": {"example/scheme": "internal"}, "grpc": {"port": 443}},
    "topologySpread": "DoNotSchedule",
    "networkPolicy": {"enabled": True},
    "serviceAccountName": "fairway",
    "priorityClassName": "high",
    "podLabels": {"team": "inference"},
    "podAnnotations": {"prometheus.io/scrape": "true"},
    "nodeSelector": {"disk": "local"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "extraEnv": [{"name": "FAIRWAY_TELEMETRY__LOG_LEVEL", "value": "debug"}],
    "extraEnvFrom": [{"configMapRef": {"name": "proxy"}}],
    "extraVolumes": [{"name": "log", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "log", "mountPath": "/var/log/fairway"}],
}
MODES: dict[str, Values] = {
    "sqlite in plain text": PLAIN,
    "sqlite with TLS": TLS,
    "sqlite with mutual TLS": MUTUAL_TLS,
    "postgres in plain text": PLAIN | POSTGRES,
    "postgres with TLS": TLS | POSTGRES,
    "postgres, migrated elsewhere": TLS | POSTGRES | {"migrations": {"mode": "external"}},
    "postgres, one replica": PLAIN | POSTGRES | {"replicas": 1},
    "everything": EVERYTHING,
}


def rendered(values: Values) -> dict[str, str]:
    """Each template's output, by its path in the chart; HelmError when the chart refuses the values."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(copy.deepcopy(values), name="demo", namespace="inference", is_install=True)
    return {name.removeprefix("fairway/templates/"): text for name, text in files.items()}


def manifests(values: Values) -> list[Manifest]:
    """The objects that an install makes."""
    return [
        document
        for name, text in rendered(values).items()
        if name != "NOTES.txt"
        for document in yaml.safe_load_all(text)
        if document
    ]


def kinds(values: Values) -> set[str]:
    return {manifest["kind"] for manifest in manifests(values)}


def the(kind: str, values: Values) -> Manifest:
    """The only object of a kind."""
    (manifest,) = (each for each in manifests(values) if each["kind"] == kind)
    return manifest


def workload(values: Values) -> Manifest:
    """The StatefulSet or Deployment."""
    (manifest,) = (each for each in manifests(values) if each["kind"] in {"StatefulSet", "Deployment"})
    return manifest


def pod(values: Values) -> Manifest:
    """The pod's spec."""
    spec: Manifest = workload(values)["spec"]["template"]["spec"]
    return spec


def containers(values: Values) -> list[Manifest]:
    """Of the pod, the migration's included."""
    spec = pod(values)
    return [*spec.get("initContainers", []), *spec["containers"]]


def server(values: Values) -> Manifest:
    (container,) = pod(values)["containers"]
    found: Manifest = container
    return found


def config_file(values: Values) -> str:
    text: str = the("ConfigMap", values)["data"]["fairway.toml"]
    return text
