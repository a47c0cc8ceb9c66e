"""A monitor with nodes, in virtual time, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from catalog.types import Deployment, Engine, Node, Snapshot
from federation.config import CircuitSettings, HealthSettings
from federation.health.monitor import Monitor
from federation.health.records import Load, NodeStatus, Probe
from policies.health import DeploymentHealth
from policies.types import Outcome, Phase, Result

MODEL = "tiny-2b"
FAILURES = (Result.SERVER_ERROR, Result.TIMEOUT, Result.UNREACHABLE)


def a_node(node_id: str = "n1", models: Iterable[str] = (MODEL,), **changes: Any) -> Node:
    served = tuple(Deployment("r", node_id, model) for model in models)
    values: dict[str, Any] = {
        "endpoint": f"http://{node_id}:8000",
        "engine": Engine.VLLM,
        "deployments": served,
        **changes,
    }
    return Node("r", node_id, **values)


def a_snapshot(*nodes: Node, revision: int = 1) -> Snapshot:
    return Snapshot(revision, {}, {}, {node.name: node for node in nodes}, {})


class Fleet:
    """A monitor, the time, and short words for what happens."""

    def __init__(
        self, *nodes: Node, health: HealthSettings | None = None, circuit: CircuitSettings | None = None, seed: int = 1
    ) -> None:
        self.now = 1_000.0
        self.wanted: list[str] = []
        self.monitor = Monitor(
            health or HealthSettings(),
            circuit or CircuitSettings(),
            rng=Random(seed),
            wall=lambda: 1.7e9 + self.now,
            on_probe_wanted=self.wanted.append,
        )
        self.monitor.sync(a_snapshot(*(nodes or (a_node(),))), self.now)

    def after(self, seconds: float) -> Fleet:
        """Time passes, with a tick each second as the program makes them."""
        end = self.now + seconds
        while self.now + 1.0 < end:
            self.now += 1.0
            self.monitor.tick(self.now)
        self.now = end
        self.monitor.tick(self.now)
        return self

    def passed(self, node: str = "r/n1", models: Iterable[str] | None = (MODEL,), latency: float = 0.005) -> Fleet:
        listed = None if models is None else frozenset(models)
        self.monitor.observe_probe(Probe(node, True, latency, listed), self.now)
        return self

    def failed(self, node: str = "r/n1", error: str = "connection refused", *, loading: bool = False) -> Fleet:
        self.monitor.observe_probe(Probe(node, False, 0.001, error=error, loading=loading), self.now)
        return self

    def load(self, node: str = "r/n1", **figures: float) -> Fleet:
        self.monitor.observe_load(node, Load(**figures), self.now)
        return self

    def answered(
        self,
        deployment: str = f"r/n1/{MODEL}",
        times: int = 1,
        result: Result = Result.OK,
        reporter: str = "",
        **of: Any,
    ) -> Fleet:
        for _ in range(times):
            self.monitor.observe_outcome(deployment, Outcome("d", result=result, **of), self.now, reporter=reporter)
        return self

    def recovered(self) -> Fleet:
        """After the trials that close a half-open circuit."""
        for _ in range(3):
            self.answered().after(1.0)
        return self

    def first_token(self, seconds: float, deployment: str = f"r/n1/{MODEL}") -> Fleet:
        outcome = Outcome("d", phase=Phase.FIRST_TOKEN, time_to_first_token_seconds=seconds)
        self.monitor.observe_outcome(deployment, outcome, self.now)
        return self

    def health(self, deployment: str = f"r/n1/{MODEL}") -> DeploymentHealth:
        return self.monitor.deployment(deployment, self.now)

    def node(self, node: str = "r/n1") -> NodeStatus:
        return self.monitor.node(node, self.now)
