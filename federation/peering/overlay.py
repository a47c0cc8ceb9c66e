"""Health with what owners say of imported deployments laid over what outcomes said here.

Laid anew is what changed: a report, what outcomes said here, a node, the standing of its peer. What fades with time is
laid anew by turns, those first that were laid longest ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType

from catalog.rolls import Roll, changed
from catalog.types import Node, Snapshot
from federation.health.records import NodeStatus
from federation.peering.imported import PeerImport, own_name
from federation.peering.messages import DeploymentReport, NodeReport
from federation.peering.session import HEARTBEAT_SECONDS
from policies.ageing import aged_score
from policies.health import WORTH, CircuitState, CircuitView, DeploymentHealth, Grade

# How old what is laid over may be while its peer is heard and nothing it was made from changed: its only cost is that
# the age of the signal "peer" is shown too large by so much.
LAID_SECONDS = 5.0
# The same while the health of a peer's nodes fades or comes back with every moment.
MOVING_SECONDS = 0.25
# Nodes of a peer that are laid anew by turns at once: some milliseconds.
TURNS = 500
# How long the work of a region takes to come back to it, and what its health counts for at first: enough that it is
# used where nobody else is.
RETURN_SECONDS = 60.0
LEAST_RETURN = 0.2
NOTHING_HERE = DeploymentHealth()


class Overlay:
    """Keeps what it laid last."""

    def __init__(self) -> None:
        self._roll: Roll[DeploymentHealth] = Roll()
        self._health: Mapping[str, DeploymentHealth] = {}
        self._nodes: Mapping[str, Node] = {}
        # Nodes of which a report came.
        self._told: set[str] = set()
        # By peer: how it stood, and when each of its nodes was laid, in this order.
        self._standing: dict[str, tuple[bool, float]] = {}
        self._laid: dict[str, dict[str, float]] = {}

    def told(self, node: str) -> None:
        """A report of a node came."""
        self._told.add(node)

    def overlaid(
        self, snapshot: Snapshot, health: Mapping[str, DeploymentHealth], peers: Mapping[str, PeerImport], now: float
    ) -> Roll[DeploymentHealth]:
        """All deployments by name."""
        nodes = snapshot.nodes
        before, self._nodes = self._nodes, nodes
        due, self._told = self._told, set()
        news: dict[str, DeploymentHealth] = {}
        gone: set[str] = set()

        def plain(name: str) -> None:
            if name in health:
                news[name] = health[name]
            else:
                gone.add(name)

        for name in changed(self._health, health):
            due.add(node_of(name))
            plain(name)
        self._health = health
        for name in changed(before, nodes):
            due.add(name)
            for deployment in before[name].deployments if name in before else ():
                plain(deployment.name)
        for region_id, peer in peers.items():
            standing = (peer.expired, peer.returned_at)
            if self._standing.get(region_id) != standing:
                self._standing[region_id] = standing
                due.update(peer.view.nodes)
            due.update(islice(self._faded(region_id, peer, now), TURNS))
        for name in sorted(due):
            node = nodes.get(name)
            owner = None if node is None else peers.get(node.owner)
            if node is None or owner is None or name not in owner.view.nodes:
                for laid in self._laid.values():
                    laid.pop(name, None)
                continue
            laid = self._laid.setdefault(node.owner, {})
            laid.pop(name, None)
            laid[name] = now
            news.update(lay(owner, node, health, now))
        self._roll = self._roll.after(news, gone - news.keys())
        return self._roll

    def _faded(self, region_id: str, peer: PeerImport, now: float) -> Iterator[str]:
        """Nodes of a peer that were laid too long ago, oldest first."""
        steady = not peer.expired and now - peer.heard_at <= 2.0 * HEARTBEAT_SECONDS and _return(peer, now) >= 1.0
        most = LAID_SECONDS if steady else MOVING_SECONDS
        for name, at in self._laid.get(region_id, {}).items():
            if now - at < most:
                return
            yield name


def node_of(deployment: str) -> str:
    """The name of a deployment's node."""
    return deployment[: deployment.index("/", deployment.index("/") + 1)]


def lay(
    peer: PeerImport, node: Node, health: Mapping[str, DeploymentHealth], now: float
) -> Iterator[tuple[str, DeploymentHealth]]:
    """The deployments of an imported node: its owner's word, and what outcomes said here."""
    report, came_at = peer.reports.get(node.name, (NodeReport(node.name), now))
    told = {each.model_id: each for each in report.deployments}
    for deployment in node.deployments:
        name, model_id = deployment.name, deployment.model_id
        its = told.get(own_name(model_id, peer.identity.region_id), DeploymentReport(model_id))
        yield name, _laid(peer, report, its, came_at, health.get(name, NOTHING_HERE), now)


def status(peer: PeerImport, node: Node, here: NodeStatus, now: float) -> NodeStatus:
    """An imported node for people: its owner's word on it, and what outcomes said here."""
    report, _ = peer.reports.get(node.name, (NodeReport(node.name), now))
    said = {f"{node.name}/{model_id}": health for model_id, health in here.deployments}
    found = dict(lay(peer, node, said, now))
    laid = tuple((name.removeprefix(f"{node.name}/"), health) for name, health in found.items())
    return replace(
        here,
        grade=Grade.UNKNOWN if peer.expired or not laid else laid[0][1].grade,
        reason=_reason(peer, report, now),
        running_requests=report.running_requests,
        queue_depth=report.queue_depth,
        kv_cache_utilization=report.kv_cache_utilization,
        deployments=laid,
        signal_ages=MappingProxyType({**here.signal_ages, "peer": max(0.0, now - peer.heard_at)}),
    )


def _laid(
    peer: PeerImport,
    report: NodeReport,
    told: DeploymentReport,
    came_at: float,
    here: DeploymentHealth,
    now: float,
) -> DeploymentHealth:
    """The owner's word, as old as its last sign of life; circuits, ejections, speeds of this side where it has any."""
    circuit = here.circuit
    if circuit.state is CircuitState.CLOSED and told.circuit.state is not CircuitState.CLOSED:
        # Trials are the owner's: taken from everywhere they would be as many as there are regions.
        circuit = CircuitView(
            CircuitState.OPEN,
            told.circuit.failures,
            told.circuit.opens_total,
            max(came_at + told.retry_after_seconds, now),
            f"at its owner: {told.circuit.reason}",
        )
    ejected_until = here.ejected_until
    if told.ejected_seconds > 0.0:
        ejected_until = max(ejected_until, came_at + told.ejected_seconds)
    times = {"peer": peer.heard_at}
    if "outcome" in here.signal_times:
        times["outcome"] = here.signal_times["outcome"]
    return DeploymentHealth(
        grade=told.grade,
        reason=_reason(peer, report, now),
        ready=told.ready,
        score=aged_score(min(told.score, _caution(here)), now - peer.heard_at, HEARTBEAT_SECONDS) * _return(peer, now),
        circuit=circuit,
        ejected_until=ejected_until,
        error_ratio=here.error_ratio,
        latency_p50_seconds=_first(here.latency_p50_seconds, told.latency_p50_seconds),
        latency_p99_seconds=here.latency_p99_seconds,
        throughput_tokens_per_second=here.throughput_tokens_per_second,
        running_requests=report.running_requests,
        queue_depth=report.queue_depth,
        kv_cache_utilization=report.kv_cache_utilization,
        prefill_seconds_per_token=_first(here.prefill_seconds_per_token, told.prefill_seconds_per_token),
        min_time_to_first_token_seconds=_first(
            here.min_time_to_first_token_seconds, told.min_time_to_first_token_seconds
        ),
        decode_tokens_per_second=_first(here.decode_tokens_per_second, told.decode_tokens_per_second),
        signal_times=MappingProxyType(times),
    )


def _return(peer: PeerImport, now: float) -> float:
    """What health counts for after a peer came back: it gets its work again step by step, not all at once."""
    return min(1.0, LEAST_RETURN + (1.0 - LEAST_RETURN) * (now - peer.returned_at) / RETURN_SECONDS)


def _caution(here: DeploymentHealth) -> float:
    """A ceiling by what callers of this side met there: failures that they alone see (the way there) count too."""
    # Nobody probes it here, so its score here is UNKNOWN's worth × the slow start after a circuit closed.
    slow_start = min(1.0, here.score / WORTH[Grade.UNKNOWN])
    return slow_start if here.error_ratio is None else min(slow_start, 1.0 - here.error_ratio)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _reason(peer: PeerImport, report: NodeReport, now: float) -> str:
    if peer.expired:
        return f"nothing heard from {peer.identity.region_id} for {now - peer.heard_at:.0f} s, the length of its lease"
    return f"{peer.identity.region_id} says: {report.reason or 'nothing yet'}"
