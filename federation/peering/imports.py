"""What peers told, under their leases, and how it joins the own catalog and health. No I/O, no clock.

An import counts for as long as its peer's lease; with age its health fades, at the end it leaves routing as
PEER_LEASE_EXPIRED. Its values stay for a while, so that a link that heals resumes instead of starting over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from catalog.rolls import Roll, roll
from catalog.types import Node, Snapshot
from federation.health.records import NodeStatus
from federation.peering.imported import NO_VIEW, PeerImport
from federation.peering.merging import Merging
from federation.peering.messages import Identity, NodeReport, Replacement, View
from federation.peering.overlay import Overlay, status
from federation.peering.session import Applied
from policies.health import DeploymentHealth

# How long the values of a peer outlive its lease: a link that is down for a weekend starts over.
KEEP_SECONDS = 3_600.0
# A round trip that moved by less is told to nobody: each change is a new table.
ROUND_TRIP_STEP_SECONDS = 0.001
ROUND_TRIP_STEP_RATIO = 0.2
R = TypeVar("R")


class Imports:
    """`version` counts every change, `catalog_version` those that change the merged catalog."""

    def __init__(self) -> None:
        self.peers: dict[str, PeerImport] = {}
        self.version = 0
        self.catalog_version = 0
        self._news: list[NodeReport] = []
        self._merging = Merging()
        self._overlay = Overlay()

    def restore(self, peers: Iterable[PeerImport]) -> None:
        """Takes over what another life of this process was told; its leases have gone on meanwhile."""
        for peer in peers:
            self.peers[peer.identity.region_id] = peer
            self._news += [report for report, _ in peer.reports.values()]
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
        for name in list(known.reports) if replacement.whole else replacement.removed_nodes | known.ahead:
            if name not in known.view.nodes:
                known.reports.pop(name, None)
        known.ahead.clear()
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
            if report.node not in known.view.nodes:
                known.ahead.add(report.node)
            self._news.append(report)
            self._overlay.told(report.node)
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

    def has(self, node: str) -> bool:
        """Whether any report of a node is kept, whatever its peer's lease."""
        return any(node in peer.reports for peer in self.peers.values())

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

    def lapse_at(self) -> float:
        """When the first of the leases that count now ends, if nothing more is heard; infinite where there is none."""
        leases = (peer.heard_at + peer.lease_seconds for peer in self.peers.values() if not peer.expired)
        return min(leases, default=float("inf"))

    def lapsed_regions(self) -> frozenset[str]:
        """Regions of peers whose lease ended."""
        return frozenset(name for peer in self.peers.values() if peer.expired for name in peer.identity.owned_regions)

    def merged(self, own: Snapshot, home_region: str) -> Snapshot:
        """The own catalog with the imports beside it; its revision, policies and every record of its own stay.

        A model that a peer describes otherwise than it is known here is another model to failover: it joins as
        ID@PEER, which nobody can register, and serves those who ask for it or allow it as a substitute.
        """
        return self._merging.merged(own, home_region, self.peers) if self.peers else own

    def overlaid(
        self, snapshot: Snapshot, health: Mapping[str, DeploymentHealth], now: float
    ) -> Mapping[str, DeploymentHealth]:
        """Health with what the owners say of imported deployments laid over what outcomes said here."""
        return self._overlay.overlaid(snapshot, health, self.peers, now) if self.peers else health

    def status(self, node: Node, here: NodeStatus, now: float) -> NodeStatus:
        """An imported node for people: its owner's word on it, and what outcomes said here."""
        peer = self.peers.get(node.owner)
        if peer is None or node.name not in peer.view.nodes:
            return here
        return status(peer, node, here, now)


def _replaced(before: Mapping[str, R], changed: Mapping[str, R], removed: frozenset[str]) -> Roll[R]:
    return roll(before).after(changed, removed)
