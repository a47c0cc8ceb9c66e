"""What peers told, under their leases, and how it joins the own catalog and health. No I/O, no clock.

An import counts for as long as its peer's lease; with age its health fades, at the end it leaves routing as
PEER_LEASE_EXPIRED. Its values stay for a while, so that a link that heals resumes instead of starting over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from catalog.types import Deployment, Node, PrivacyLevel, Region, Snapshot
from federation.health.records import NodeStatus
from federation.peering.messages import NO_NODES, DeploymentReport, Identity, NodeReport, Replacement, View
from federation.peering.session import HEARTBEAT_SECONDS, Applied
from policies.ageing import aged_score
from policies.health import WORTH, CircuitState, CircuitView, DeploymentHealth, Grade

# How long the values of a peer outlive its lease: a link that is down for a weekend starts over.
KEEP_SECONDS = 3_600.0
# How old what is laid over may be while its peer is heard and nothing it was made from changed: its only cost is that
# the age of the signal "peer" is shown too large by so much.
LAID_SECONDS = 5.0
# A round trip that moved by less is told to nobody: each change compiles the catalog anew.
ROUND_TRIP_STEP_SECONDS = 0.001
ROUND_TRIP_STEP_RATIO = 0.2
# How long the work of a region takes to come back to it, and what its health counts for at first: enough that it is
# used where nobody else is.
RETURN_SECONDS = 60.0
LEAST_RETURN = 0.2
NO_VIEW = View()
NOTHING_APPLIED = Applied()
NOTHING_HERE = DeploymentHealth()
R = TypeVar("R")


@dataclass(slots=True)
class PeerImport:
    """All that is known from one peer; times are monotonic seconds."""

    identity: Identity
    lease_seconds: float
    heard_at: float
    view: View = NO_VIEW
    # Whether the view is of the identity's incarnation.
    applied: Applied = NOTHING_APPLIED
    expired: bool = False
    # By node: its report and when it came.
    reports: dict[str, tuple[NodeReport, float]] = field(default_factory=dict)
    round_trip_seconds: float | None = None
    # When it said hello last: who is talking is not forgotten.
    met_at: float = float("-inf")
    # When it was heard again after its lease had ended.
    returned_at: float = float("-inf")
    # By deployment: what was laid over last, when, and what it was made from.
    laid: dict[str, tuple[NodeReport, DeploymentHealth, float, DeploymentHealth]] = field(default_factory=dict)
    # The nodes as they stand in the merged catalog, and what they were made for.
    _joined: Mapping[str, Node] = field(default_factory=lambda: NO_NODES)
    _joined_for: tuple[object, frozenset[str]] = (None, frozenset())

    def lease_left(self, now: float) -> float:
        return max(0.0, self.heard_at + self.lease_seconds - now)

    def joined(self, other_models: frozenset[str]) -> Mapping[str, Node]:
        """Its nodes with the model ids under which they are known here; the same values while nothing changed."""
        made_for = (self.view, other_models)
        if self._joined_for[0] is not self.view or self._joined_for[1] != other_models:
            before = self._joined
            joined = {}
            for name, node in self.view.nodes.items():
                made = _as_import(node, self.identity.region_id, other_models)
                # Who holds a node by identity (monitor, table) need not look at it again.
                joined[name] = known if (known := before.get(name)) == made and known is not None else made
            self._joined, self._joined_for = MappingProxyType(joined), made_for
        return self._joined


class Imports:
    """`version` counts every change, `catalog_version` those that change the merged catalog."""

    def __init__(self) -> None:
        self.peers: dict[str, PeerImport] = {}
        self.version = 0
        self.catalog_version = 0
        self._news: list[NodeReport] = []

    def restore(self, peers: Iterable[PeerImport]) -> None:
        """Takes over what another life of this process was told; its leases have gone on meanwhile."""
        for peer in peers:
            self.peers[peer.identity.region_id] = peer
        self._changed(catalog=True)

    # --- what sessions bring

    def met(self, identity: Identity, lease_seconds: float, now: float) -> None:
        """A peer said hello. What it told in another life stays until it told what is true now, or the lease ends."""
        known = self.peers.get(identity.region_id)
        if known is None:
            # Nothing was told yet: nothing can expire.
            self.peers[identity.region_id] = PeerImport(identity, lease_seconds, now, met_at=now)
            self._changed(catalog=False)
        else:
            known.identity, known.lease_seconds, known.met_at = identity, lease_seconds, now

    def apply(self, peer: str, replacement: Replacement, applied: Applied, now: float) -> None:
        """Takes over a complete update."""
        known = self.peers[peer]
        before = NO_VIEW if replacement.whole else known.view
        known.view = View(
            replacement.revision,
            _replaced(before.regions, replacement.regions, replacement.removed_regions),
            _replaced(before.models, replacement.models, replacement.removed_models),
            _replaced(before.nodes, replacement.nodes, replacement.removed_nodes),
        )
        known.applied = applied
        for name in [name for name in known.reports if name not in known.view.nodes]:
            del known.reports[name]
        known.laid.clear()
        self.heard(peer, now)
        self._changed(catalog=True)

    def heard(self, peer: str, now: float) -> None:
        """Renews a lease."""
        known = self.peers[peer]
        known.heard_at = now
        if known.expired:
            known.expired = False
            known.returned_at = now
            self._changed(catalog=False)

    def told(self, peer: str, reports: Iterable[NodeReport], now: float) -> None:
        """Takes over reports."""
        known = self.peers[peer]
        for report in reports:
            known.reports[report.node] = (report, now)
            self._news.append(report)
        self._changed(catalog=False)

    def measured(self, peer: str, round_trip_seconds: float) -> None:
        """Takes over a round trip, once it differs by enough."""
        known = self.peers[peer]
        before = known.round_trip_seconds
        step = max(ROUND_TRIP_STEP_SECONDS, ROUND_TRIP_STEP_RATIO * (before or 0.0))
        if before is None or abs(round_trip_seconds - before) >= step:
            known.round_trip_seconds = round_trip_seconds
            self._changed(catalog=True)

    def tick(self, now: float) -> tuple[str, ...]:
        """Ends leases and forgets what ended long ago; the peers whose lease ended now."""
        ended = []
        for region_id, peer in list(self.peers.items()):
            if now >= max(peer.heard_at + peer.lease_seconds, peer.met_at) + KEEP_SECONDS:
                del self.peers[region_id]
                self._changed(catalog=True)
            elif not peer.expired and now >= peer.heard_at + peer.lease_seconds:
                peer.expired = True
                ended.append(region_id)
                self._changed(catalog=False)
        return tuple(ended)

    def _changed(self, *, catalog: bool) -> None:
        self.version += 1
        self.catalog_version += catalog

    # --- what is asked

    def news(self) -> list[NodeReport]:
        """Reports that came since this was asked last."""
        news, self._news = self._news, []
        return news

    def report(self, node: str) -> NodeReport | None:
        """The newest report of a node; None where there is none, or its peer's lease ended."""
        for peer in self.peers.values():
            if node in peer.reports and not peer.expired:
                return peer.reports[node][0]
        return None

    def applied(self) -> dict[str, Applied]:
        """How far this side got with each peer's log."""
        return {region_id: peer.applied for region_id, peer in self.peers.items()}

    def owners(self) -> dict[str, str]:
        """Which peer owns a region."""
        return {region_id: peer for peer, known in self.peers.items() for region_id in known.identity.owned_regions}

    def claims(self) -> dict[str, str]:
        """The same of those whose lease counts: a region whose owner is gone may come back with another one."""
        return {
            region_id: peer
            for peer, known in self.peers.items()
            if not known.expired
            for region_id in known.identity.owned_regions
        }

    def lapsed_regions(self) -> frozenset[str]:
        """Regions of peers whose lease ended."""
        return frozenset(name for peer in self.peers.values() if peer.expired for name in peer.identity.owned_regions)

    def merged(self, own: Snapshot, home_region: str) -> Snapshot:
        """The own catalog with the imports beside it; its revision, policies and every record of its own stay.

        A model that a peer describes otherwise than it is known here is another model to failover: it joins as
        ID@PEER, which nobody can register, and serves those who ask for it or allow it as a substitute.
        """
        if not self.peers:
            return own
        regions, models, nodes = dict(own.regions), dict(own.models), dict(own.nodes)
        for region_id in sorted(self.peers):
            peer = self.peers[region_id]
            others = frozenset(
                name
                for name, model in peer.view.models.items()
                if (known := models.get(name)) is not None and known.identity != model.identity
            )
            for name, region in peer.view.regions.items():
                regions.setdefault(name, replace(region, owner=region.owner or region_id))
            for name, model in peer.view.models.items():
                if name in others:
                    name = other_name(name, region_id)
                    model = replace(model, model_id=name, aliases=())
                models.setdefault(name, model)
            for name, node in peer.joined(others).items():
                nodes.setdefault(name, node)
            _measure(regions, home_region, region_id, peer.round_trip_seconds)
        return replace(
            own,
            regions=MappingProxyType(regions),
            models=MappingProxyType(models),
            nodes=MappingProxyType(nodes),
            imported=frozenset(regions.keys() - own.regions.keys()),
        )

    def overlaid(
        self, snapshot: Snapshot, health: Mapping[str, DeploymentHealth], now: float
    ) -> Mapping[str, DeploymentHealth]:
        """Health with what the owners say of imported deployments laid over what outcomes said here."""
        if not self.peers:
            return health
        laid = dict(health)
        for region_id, peer in self.peers.items():
            for name in peer.view.nodes:
                node = snapshot.nodes.get(name)
                if node is not None and node.owner == region_id:
                    _lay(laid, peer, node, health, now)
        return MappingProxyType(laid)

    def status(self, node: Node, here: NodeStatus, now: float) -> NodeStatus:
        """An imported node for people: its owner's word on it, and what outcomes said here."""
        peer = self.peers.get(node.owner)
        if peer is None or node.name not in peer.view.nodes:
            return here
        report, came_at = peer.reports.get(node.name, (NodeReport(node.name), now))
        told = {each.model_id: each for each in report.deployments}
        laid = tuple(
            (
                name,
                _laid(peer, report, told.get(own_name(name, node.owner), DeploymentReport(name)), came_at, health, now),
            )
            for name, health in here.deployments
        )
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


def other_name(model_id: str, peer: str) -> str:
    """Under which id a peer's model is known here that is not the model of that id here."""
    return f"{model_id}@{peer}"


def own_name(model_id: str, peer: str) -> str:
    """The id that the peer knows it by."""
    return model_id.removesuffix(f"@{peer}")


def _replaced(before: Mapping[str, R], changed: Mapping[str, R], removed: frozenset[str]) -> Mapping[str, R]:
    if not changed and not removed:
        return before
    after = {name: value for name, value in before.items() if name not in removed}
    after.update(changed)
    return MappingProxyType(after)


def _as_import(node: Node, owner: str, other_models: frozenset[str]) -> Node:
    """A peer's node as it is used here: what it does not say of privacy is not assumed for it."""
    deployments = node.deployments
    if any(each.model_id in other_models for each in deployments):
        deployments = tuple(_renamed(each, owner) if each.model_id in other_models else each for each in deployments)
    return replace(node, owner=owner, privacy_level=node.privacy_level or PrivacyLevel.PUBLIC, deployments=deployments)


def _renamed(deployment: Deployment, owner: str) -> Deployment:
    return replace(
        deployment,
        model_id=other_name(deployment.model_id, owner),
        served_model_name=deployment.served_model_name or deployment.model_id,
    )


def _measure(regions: dict[str, Region], home: str, peer: str, seconds: float | None) -> None:
    """What was measured between two control planes goes before what either region declares."""
    if seconds is None:
        return
    for here, there in ((home, peer), (peer, home)):
        region = regions.get(here)
        if region is not None:
            trips = MappingProxyType({**region.round_trip_seconds, there: seconds})
            regions[here] = replace(region, round_trip_seconds=trips)


def _lay(
    laid: dict[str, DeploymentHealth],
    peer: PeerImport,
    node: Node,
    health: Mapping[str, DeploymentHealth],
    now: float,
) -> None:
    """Lays what is known of one node, made anew only where something behind it changed."""
    owner = peer.identity.region_id
    report, came_at = peer.reports.get(node.name, (NodeReport(node.name), now))
    # In this time a score does not fade, so that what was made before is what would be made now.
    fresh = not peer.expired and now - peer.heard_at <= 2.0 * HEARTBEAT_SECONDS and _return(peer, now) >= 1.0
    told: dict[str, DeploymentReport] | None = None
    for deployment in node.deployments:
        name = deployment.name
        here = health.get(name, NOTHING_HERE)
        known = peer.laid.get(name)
        if fresh and known is not None and known[0] is report and known[1] is here and now - known[2] < LAID_SECONDS:
            laid[name] = known[3]
            continue
        if told is None:
            told = {each.model_id: each for each in report.deployments}
        its = told.get(own_name(deployment.model_id, owner), DeploymentReport(deployment.model_id))
        laid[name] = made = _laid(peer, report, its, came_at, here, now)
        if fresh:
            peer.laid[name] = (report, here, now, made)
        else:
            peer.laid.pop(name, None)


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
