"""The commands of a day with a real server and a real engine stand-in, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.federation.process import Process, serving

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
NODE = """
endpoint = "{url}"
engine = "vllm"
lease_duration = "0"

[[deployments]]
model_id = "{model}"
capabilities = ["generate"]
price_usd_per_million_input_tokens = 0.2
price_usd_per_million_output_tokens = 0.6

[deployments.profile]
prefill_seconds_per_token = 0.0001
min_time_to_first_token = "30ms"
decode_tokens_per_second = 60
"""
PATIENCE_SECONDS = 60.0


@contextmanager
def engine(model: str) -> Iterator[str]:
    """An engine stand-in; its URL."""
    command = [sys.executable, "-m", "federation.simulation.engine", "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


class Operator:
    """Somebody with a shell beside the server."""

    def __init__(self, address: str) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FAIRWAY_")}
        self.env = {**clean, "FAIRWAY_SERVER": address, "FAIRWAY_TIMEOUT": "60s", "COLUMNS": "100"}

    def types(self, *arguments: str, code: int = 0) -> str:
        """What the command prints; it must end with the code."""
        result = subprocess.run(
            [sys.executable, "-m", "federation", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert result.returncode == code, f"{arguments} ended with {result.returncode}: {result.stderr}"
        return result.stdout if code == 0 else result.stderr

    def until_routed(self, *arguments: str) -> str:
        """The answer of `route` as soon as there is one."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            result = subprocess.run(
                [sys.executable, "-m", "federation", "route", *arguments],
                env=self.env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
            )  # fmt: skip
            if result.returncode == 0:
                return result.stdout
            assert result.returncode == 8, result.stderr
            assert time.monotonic() < end, result.stderr


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Process]:
    with serving(tmp_path, "--region", "eu-west-1", "--decision-log", str(tmp_path / "decisions.jsonl")) as process:
        yield process


def test_a_node_is_registered_routed_to_explained_and_drained(plane: Process, tmp_path: Path):
    operator, log = Operator(plane.address), str(tmp_path / "decisions.jsonl")
    with engine(MODEL) as url:
        (tmp_path / "node.toml").write_text(NODE.format(url=url, model=MODEL))
        registered = operator.types("nodes", "register", "eu-west-1/gpu-7", "-f", str(tmp_path / "node.toml"))
        decision = json.loads(operator.until_routed("--model", MODEL, "--max-ttft", "30s", "-o", "json"))
        decision_id = decision["decision_id"]
        outcome = operator.types("outcome", decision_id, "--result", "ok", "--ttft", "120ms", "--latency", "1s")
        explained = operator.types("explain", decision_id)
        candidates = operator.types("candidates", "--model", MODEL)
        refused = operator.types("route", "--model", MODEL, "--privacy", "restricted", code=8)
        unknown = operator.types("route", "--model", "nobody", code=3)
        lists = {
            name: operator.types(*name.split())
            for name in (
                "nodes list",
                "models list",
                "deployments list",
                "regions list",
                "policies list",
                "fleet",
                "health",
            )
        }
        health = operator.types("doctor")
        drained = operator.types("nodes", "drain", "eu-west-1/gpu-7", "--wait", "30s")
        after = operator.types("route", "--model", MODEL, code=8)
        operator.types("nodes", "undrain", "eu-west-1/gpu-7")
        again = json.loads(operator.until_routed("--model", MODEL, "-o", "json"))

    assert registered.startswith("registered eu-west-1/gpu-7  (revision ")
    assert decision["target"]["deployment"] == f"eu-west-1/gpu-7/{MODEL}"
    assert again["target"]["endpoint"] == url
    assert outcome == f"taken  {decision_id}\n"
    assert f"decision {decision_id}" in explained
    assert "the terms add up to" not in explained
    assert "120 ms" in explained
    assert "eu-west-1/gpu-7" in candidates
    assert "PRIVACY_VIOLATION" in refused
    assert "MODEL_UNKNOWN" in unknown
    assert "balanced" in lists["policies list"]
    assert all("eu-west-1" in text for name, text in lists.items() if name not in ("models list", "policies list"))
    assert MODEL in lists["models list"]
    assert "fail" not in health
    assert drained.startswith("draining eu-west-1/gpu-7")
    assert "error: " in after

    plane.popen.send_signal(signal.SIGTERM)
    assert plane.wait() == 0
    offline = operator.types("explain", decision_id, "--log", log)
    replayed = json.loads(operator.types("replay", "--log", log, "--assert-identical", "-o", "json"))
    assert f"decision {decision_id}" in offline
    # All but what was reported afterwards.
    assert set(offline.splitlines()) < set(explained.splitlines())
    assert replayed["decisions"] == replayed["identical"] >= 2
    different = json.loads(Path(log).read_text().splitlines()[0])
    different["decision"]["totals"] = [0.123]
    Path(log).write_text(json.dumps(different) + "\n")
    assert "1 of 1 decisions came out differently" in operator.types(
        "replay", "--log", log, "--assert-identical", code=7
    )


def test_policies_and_regions_are_kept_with_their_history(plane: Process, tmp_path: Path):
    operator = Operator(plane.address)
    (tmp_path / "p.toml").write_text('picker = "best"\n')

    operator.types("policies", "lint", str(tmp_path / "p.toml"))
    operator.types("policies", "put", "mine", "-f", str(tmp_path / "p.toml"))
    (tmp_path / "p.toml").write_text('picker = "round_robin"\n')
    conflict = operator.types("policies", "put", "mine", "-f", str(tmp_path / "p.toml"), code=6)
    operator.types("policies", "put", "mine", "-f", str(tmp_path / "p.toml"), "--replace")
    history = json.loads(operator.types("policies", "history", "mine", "-o", "json"))["policies"]
    operator.types("policies", "rollback", "mine", history[-1]["revision"])
    document = json.loads(operator.types("policies", "get", "mine", "--document", "-o", "json"))
    operator.types("regions", "put", "eu-west-1", "--jurisdiction", "IE", "--jurisdiction", "EU", "--replace")
    region = json.loads(operator.types("regions", "get", "eu-west-1", "-o", "json"))
    operator.types("policies", "delete", "mine")

    assert "--replace" in conflict
    assert len(history) == 2
    assert document["picker"] == "best"
    assert region["jurisdictions"] == ["IE", "EU"]
    assert "mine" not in operator.types("policies", "list", "-o", "name").split()


def test_many_nodes_are_imported_and_listed_in_pages(plane: Process, tmp_path: Path):
    operator = Operator(plane.address)
    nodes = [
        {"region_id": "eu-west-1", "node_id": f"n{i:04}", "endpoint": "http://127.0.0.1:9", "engine": "vllm",
         "deployments": [{"model_id": "m"}]}
        for i in range(1100)
    ]  # fmt: skip
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(node) + "\n" for node in nodes))

    imported = operator.types("--timeout", "60s", "nodes", "import", str(tmp_path / "n.jsonl"))
    names = operator.types("nodes", "list", "-o", "name").splitlines()

    assert imported == "registered 1100 of 1100 nodes\n"
    assert names == [f"eu-west-1/n{i:04}" for i in range(1100)]
