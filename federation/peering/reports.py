"""What a control plane says of its own nodes' health and load, from the monitor's view; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping

from catalog.rolls import Roll, changed
from catalog.types import Node
from federation.peering.messages import DeploymentReport, NodeReport
from federation.peering.overlay import node_of
from policies.health import DeploymentHealth, Grade

_UNKNOWN = DeploymentHealth()


class Reporter:
    """Makes reports anew only where what is behind them changed: most of a large fleet did not."""

    def __init__(self) -> None:
        self._reports: Roll[NodeReport] = Roll()
        self._nodes: Mapping[str, Node] = {}
        self._health: Mapping[str, DeploymentHealth] = {}
        self._ended: frozenset[str] = frozenset()

    def reports(
        self,
        nodes: Mapping[str, Node],
        health: Mapping[str, DeploymentHealth],
        ended: frozenset[str],
        now: float,
    ) -> Mapping[str, NodeReport]:
        """All nodes by name, as a roll; `ended` are those whose lease is over and whose record does not say so yet."""
        names = changed(self._nodes, nodes) | (self._ended ^ ended)
        names |= {node_of(name) for name in changed(self._health, health)}
        self._nodes, self._health, self._ended = nodes, health, ended
        news = {}
        for name in sorted(names):
            node = nodes.get(name)
            if node is not None:
                found = tuple([health.get(each.name, _UNKNOWN) for each in node.deployments])
                news[name] = _report(node, found, name in ended, now)
        self._reports = self._reports.after(news, names - news.keys())
        return self._reports


def _report(node: Node, health: tuple[DeploymentHealth, ...], gone: bool, now: float) -> NodeReport:
    first = health[0] if health else _UNKNOWN
    return NodeReport(
        node.name,
        tuple(
            _deployment(each.model_id, found, gone, now) for each, found in zip(node.deployments, health, strict=True)
        ),
        running_requests=first.running_requests,
        queue_depth=first.queue_depth,
        # To the percent: more changes with every token, and tells nothing more.
        kv_cache_utilization=None if first.kv_cache_utilization is None else round(first.kv_cache_utilization, 2),
        reason="its lease ended without a heartbeat" if gone else first.reason,
    )


def _deployment(model_id: str, health: DeploymentHealth, gone: bool, now: float) -> DeploymentReport:
    return DeploymentReport(
        model_id,
        grade=Grade.UNHEALTHY if gone else health.grade,
        ready=health.ready and not gone,
        score=0.0 if gone else round(health.score, 2),
        circuit=health.circuit,
        retry_after_seconds=max(0.0, health.circuit.retry_at - now) if health.circuit.retry_at else 0.0,
        ejected_seconds=max(0.0, health.ejected_until - now),
        latency_p50_seconds=_rounded(health.latency_p50_seconds),
        prefill_seconds_per_token=_rounded(health.prefill_seconds_per_token),
        min_time_to_first_token_seconds=_rounded(health.min_time_to_first_token_seconds),
        decode_tokens_per_second=_rounded(health.decode_tokens_per_second),
    )


def _rounded(value: float | None) -> float | None:
    """To two digits: a figure that is learned moves a little with every answer, and is no news each time."""
    return None if value is None else float(f"{value:.2g}")
