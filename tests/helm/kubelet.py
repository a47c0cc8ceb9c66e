"""Does for a rendered pod what the kubelet would: mounts, environment, init containers, probes, and its end.

A container's paths are moved below a directory, and the ports that it listens on become 0 through the environment,
added last; nothing else differs. Arguments, files and variables are those of the chart and the image.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.helm import image
from tests.helm.chart import Manifest, Values, config_file, pod, server

Secrets = Mapping[str, Mapping[str, bytes]]
# What the image's ENTRYPOINT finds on its PATH.
BINARIES = Path(sys.executable).parent
# For a migration, or any other command that ends by itself, on a machine that does much else.
COMMAND_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Pod:
    """A rendered pod below `root`, with its volumes there."""

    values: Values
    root: Path

    def path(self, mount_path: str) -> Path:
        """Where a path of the container is on this machine."""
        return self.root / mount_path.lstrip("/")

    def moved(self, text: str, container: Manifest) -> str:
        """A text of the chart with the paths that are mounted moved below the root."""
        paths = sorted((mount["mountPath"] for mount in container["volumeMounts"]), key=len, reverse=True)
        return re.sub("|".join(map(re.escape, paths)), lambda found: str(self.path(found[0])), text)

    def command(self, container: Manifest) -> list[str]:
        (program,) = json.loads(image.the("ENTRYPOINT"))
        return [str(BINARIES / program), *(self.moved(argument, container) for argument in container["args"])]

    def environment(self, container: Manifest, **last: str) -> dict[str, str]:
        """The image's variables, then the container's, then those of the test; nothing of this process."""
        own = {each["name"]: self.moved(told(each), container) for each in container.get("env", [])}
        ours = {"PATH": str(BINARIES), "TMPDIR": str(self.path("/tmp"))}
        return image.environment() | ours | own | last


def told(variable: Manifest) -> str:
    """The value of a container's variable; a pod's address is this machine's."""
    if "value" in variable:
        return str(variable["value"])
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    return "127.0.0.1"


def placed(values: Values, root: Path, secrets: Secrets) -> Pod:
    """The pod with its volumes filled, once for all of its containers."""
    made = Pod(values, root)
    container = server(values)
    volumes = {volume["name"]: volume for volume in pod(values)["volumes"]}
    for mount in container["volumeMounts"]:
        place = made.path(mount["mountPath"])
        place.mkdir(parents=True, exist_ok=True)
        volume = volumes.get(mount["name"], {})
        if "configMap" in volume:
            (place / "fairway.toml").write_text(made.moved(config_file(values), container))
        if "secret" in volume:
            held = secrets[volume["secret"]["secretName"]]
            chosen = volume["secret"].get("items") or [{"key": key, "path": key} for key in held]
            for item in chosen:
                (place / item["path"]).write_bytes(held[item["key"]])
    return made


def ran(made: Pod, container: Manifest) -> subprocess.CompletedProcess[str]:
    """An init container, to its end."""
    return subprocess.run(
        made.command(container),
        env=made.environment(container),
        cwd=made.path(image.the("WORKDIR")),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """The server's container, starting or started."""

    made: Pod
    process: subprocess.Popen[bytes]
    errors: Path

    @property
    def ports(self) -> Mapping[int | str, int]:
        """From the chart's ports, by number and by name, to the real ones; empty until it says that it serves."""
        for line in self.errors.read_text().splitlines():
            if '"event": "serving"' in line:
                said = json.loads(line)
                bound = {name: int(said[name].rpartition(":")[2]) for name in ("grpc", "admin")}
                named = {port["name"]: port["containerPort"] for port in server(self.made.values)["ports"]}
                return {**bound, **{named[name]: port for name, port in bound.items()}}
        return {}

    def passes(self, probe: Manifest) -> bool:
        """One try of a probe, as the kubelet makes it: without certificates, with the probe's own patience."""
        seconds = probe.get("timeoutSeconds", 1)
        if not self.ports:
            return False
        if "grpc" in probe:
            with grpc.insecure_channel(f"127.0.0.1:{self.ports[probe['grpc']['port']]}") as channel:
                return serving(channel, probe["grpc"].get("service", ""), seconds)
        get = probe["httpGet"]
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[get['port']]}{get['path']}", timeout=seconds
            ) as answer:
                return 200 <= int(answer.status) < 400
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def wait_until(self, kind: str) -> None:
        """Until the probe of a kind passes; AssertionError with the server's last words when it does not in time."""
        startup = server(self.made.values)["startupProbe"]
        probe = server(self.made.values)[f"{kind}Probe"]
        until = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while not self.passes(probe):
            said = self.errors.read_text()[-4000:]
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{said}"
            assert time.monotonic() < until, f"the {kind} probe does not pass:\n{said}"
            time.sleep(POLL_SECONDS)

    def end(self) -> int:
        """SIGTERM, and the exit code; the grace period is the pod's."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(pod(self.made.values)["terminationGracePeriodSeconds"])


@contextlib.contextmanager
def started(made: Pod, name: str = "server") -> Iterator[Running]:
    """The server's container, killed at the end if it has not ended by then. `name` keeps replicas apart."""
    container = server(made.values)
    # Still on every address, as the chart has it: there plain text needs the consent that is tested here as well.
    last = {"FAIRWAY_SERVER__LISTEN": "0.0.0.0:0", "FAIRWAY_SERVER__ADMIN": "0.0.0.0:0"}
    errors = made.root / f"{name}.stderr"
    with errors.open("wb") as out:
        process = subprocess.Popen(
            made.command(container),
            env=made.environment(container, **last),
            cwd=made.path(image.the("WORKDIR")),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield Running(made, process, errors)
    finally:
        process.kill()
        process.wait()


def serving(channel: grpc.Channel, service: str, seconds: float = 5.0) -> bool:
    """Whether the standard health service says so."""
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
