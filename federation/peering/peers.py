"""All peerings of one control plane: who is dialed, which link is the one to a peer, and how each stands.

A peer of several replicas may have a link to each: all of them are told what is exported, and one of them tells what is
imported, since all say the same.

Where both sides dial, two streams come up; the one that the smaller region opened stays, so that both choose alike.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from catalog.types import Snapshot
from federation.config import ConfigError
from federation.edge.service_config import TlsOptions, parse_addresses, split_host_port
from federation.logs import Log
from federation.peering import wire
from federation.peering.dialing import channel_to, read
from federation.peering.exports import ExportRules, Exports
from federation.peering.imports import Imports
from federation.peering.link import Link
from federation.peering.messages import Apply, Effect, Heard, Identity, Measured, Message, Met, NodeReport, Told, View
from federation.peering.reports import Reporter
from federation.peering.session import NO_REPORTS, Ledger, Session, Stage
from federation.v1 import peering_pb2_grpc
from policies.health import DeploymentHealth

FIRST_RETRY_SECONDS = 0.2
# Short enough that a region that comes back is merged again within a lease.
MAX_RETRY_SECONDS = 5.0
# Only somebody who edits a configuration ends a refusal.
REFUSED_RETRY_SECONDS = 30.0
REPORTS_SECONDS = 0.25
# Models of a peer that are listed for people: some 50 KB of an answer.
MAX_MODELS = 1_000
# Two heartbeats: a link that was heard since is no leftover of a peer that started anew.
ALIVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Exported:
    """What is told from: the own catalog, its health, and the nodes whose lease ended meanwhile."""

    snapshot: Snapshot
    health: Mapping[str, DeploymentHealth]
    ended: frozenset[str]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How a peering stands, for people. None is unknown; seconds."""

    region_id: str
    address: str
    dialed: bool
    # "down", "syncing", "up" or "refused".
    state: str
    owned_regions: tuple[str, ...] = ()
    imported_revision: int = 0
    exported_revision: int = 0
    lag_seconds: float | None = None
    lease_left_seconds: float | None = None
    imported_nodes: int = 0
    exported_nodes: int = 0
    round_trip_seconds: float | None = None
    reason: str = ""
    version: str = ""
    imported_models: tuple[str, ...] = ()
    exported_models: tuple[str, ...] = ()


class Dial:
    """An address that is dialed: who answered there last, and why not now."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.region_id = self.incarnation = ""
        self.reason = "not tried yet"
        self.refused = False


class Peering:
    """Constructed, it does nothing; `run` dials, `accept` serves a stream."""

    def __init__(
        self,
        me: Identity,
        *,
        peers: tuple[str, ...],
        rules: ExportRules,
        lease_seconds: float,
        tls: TlsOptions | None,
        exported: Callable[[], Exported],
        log: Log,
        rng: Random,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.me = me
        self.imports = Imports()
        self.dials = tuple(Dial(address) for address in peers)
        self.links: dict[str, Link[Session]] = {}
        self._rules = rules
        self._lease_seconds = lease_seconds
        self._tls = tls
        self._exported = exported
        self._log = log
        self._rng = rng
        self._monotonic = monotonic
        self._sleep = sleep
        self._ledgers: dict[str, Ledger] = {}
        # Why the last link to a peer ended, for those that are not dialed.
        self._ended: dict[str, tuple[str, bool]] = {}
        # Links to further replicas of peers: they are told, and not listened to.
        self._spares: list[Link[Session]] = []
        self._views: dict[str, Exports] = {}
        self._reporter = Reporter()
        self._reported: tuple[object, frozenset[str], Mapping[str, NodeReport]] = (None, frozenset(), NO_REPORTS)
        self._reported_at = float("-inf")
        self._stopping = False

    # --- dialing and accepting

    async def run(self) -> None:
        """Dials every address until cancelled."""
        async with asyncio.TaskGroup() as group:
            for dial in self.dials:
                group.create_task(self._keep_dialed(dial))

    async def _keep_dialed(self, dial: Dial) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            if not self._stopping and self._link_to(dial) is None:
                link = await self._dial(dial)
                delay = FIRST_RETRY_SECONDS if link.was_up else min(delay * 2, MAX_RETRY_SECONDS)
                if link.refused:
                    delay = REFUSED_RETRY_SECONDS
                elif delay == REFUSED_RETRY_SECONDS:
                    delay = MAX_RETRY_SECONDS
            # Regions that lost each other at once must not come back at once.
            await self._sleep(delay * self._rng.uniform(0.5, 1.0))

    def _link_to(self, dial: Dial) -> Link[Session] | None:
        """The link to whoever answered at an address last, whichever side opened it; a sibling's link is none."""
        for link in [*self.links.values(), *self._spares]:
            if link.session.peer is not None and link.session.peer.incarnation == dial.incarnation:
                return link
        return None

    async def _dial(self, dial: Dial) -> Link[Session]:
        link = self._link(opened_here=True, address=dial.address, expected=dial.region_id)
        try:
            channel = channel_to(dial.address, self._tls)
        except OSError as e:
            link.reason = f"its TLS files cannot be read: {e}"
            self._tell(dial, link)
            return link
        async with channel:
            stub: Any = peering_pb2_grpc.PeeringServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Exchange()
            try:
                await link.run(read(call, value_of), lambda message: _write(call, message))
            finally:
                call.cancel()
                self._released(link)
        self._tell(dial, link)
        return link

    def _tell(self, dial: Dial, link: Link[Session]) -> None:
        if (dial.reason, dial.refused) != (link.reason, link.refused):
            log = self._log.error if link.refused else self._log.warning
            log("link to peer ended", address=dial.address, peer=dial.region_id, reason=link.reason)
        dial.reason, dial.refused = link.reason, link.refused

    async def accept(
        self, messages: AsyncIterator[Message], write: Callable[[Message], Awaitable[None]], address: str
    ) -> None:
        """Serves a stream that a peer opened."""
        link = self._link(opened_here=False, address=address, expected="")
        try:
            await link.run(messages, write)
        finally:
            self._released(link)
        peer = link.session.peer
        known = "" if peer is None else peer.region_id
        if link.refused:
            self._log.error("peer refused", address=address, peer=known, reason=link.reason)
        else:
            self._log.info("link from peer ended", address=address, peer=known, reason=link.reason)

    def _link(self, *, opened_here: bool, address: str, expected: str) -> Link[Session]:
        session = Session(
            self.me,
            now=self._monotonic(),
            lease_seconds=self._lease_seconds,
            ledger_of=self._ledgers,
            applied=self.imports.applied(),
            expected=expected,
            claimed_by=self.imports.claims(),
        )
        return Link(
            session, self, opened_here=opened_here, address=address, monotonic=self._monotonic, sleep=self._sleep
        )

    def _released(self, link: Link[Session]) -> None:
        peer = link.session.peer
        if link in self._spares:
            self._spares.remove(link)
        if peer is not None and self.links.get(peer.region_id) is link:
            del self.links[peer.region_id]
            self._ended[peer.region_id] = (link.reason, link.refused)
            # All of them: the first may lead to a process that is dead, and whoever dials through a balancer may land
            # at another of our replicas.
            for spare in self._spares:
                if spare.session.peer is not None and spare.session.peer.region_id == peer.region_id:
                    spare.end("another replica's link ended; it is to take its place")

    async def farewell(self) -> None:
        """Says goodbye on every link, and waits a moment until it is said. Nothing is dialed any more."""
        self._stopping = True
        for link in [*self.links.values(), *self._spares]:
            link.end(f"{self.me.region_id} shuts down")
        for _ in range(20):
            if not self.links:
                return
            await asyncio.sleep(0.05)

    # --- what links need

    def carry(self, link: Link[Session], effect: Effect, now: float) -> str:
        """Carries out what a session asks for; "" or why the link ends."""
        match effect:
            case Met(identity, lease_seconds):
                return self.admit(link, identity, lease_seconds, now)
            case Apply() | Heard() | Told() | Measured():
                self.apply(link, effect, now)
        return ""

    def offer(self, link: Link[Session], now: float) -> tuple[Effect, ...]:
        """What there is to tell a peer now."""
        peer = link.session.peer
        return () if peer is None else link.session.offer(self.exports(peer), self.reports(now), now)

    def admit(self, link: Link[Session], identity: Identity, lease_seconds: float, now: float) -> str:
        """One link a peer: the one that the smaller region opened, of those the newest."""
        if self._stopping:
            return f"{self.me.region_id} shuts down"
        peer = identity.region_id
        for dial in self.dials:
            if link.opened_here and dial.address == link.address:
                dial.region_id, dial.incarnation = peer, identity.incarnation
        resumed = link.session.applied
        known = self.imports.peers.get(peer)
        if resumed.revision and (known is None or known.applied != resumed):
            # It was forgotten, or another link brought more: a delta would lead from what is not there.
            return "what was known of it changed during the greeting; it begins anew"
        other = self.links.get(peer)
        if other is not None and not other.session.closed:
            ours_first = self.me.region_id < peer
            known_as = other.session.peer
            if known_as is not None and known_as.incarnation != identity.incarnation:
                if now - other.session.heard_at < ALIVE_SECONDS:
                    self._spares.append(link)
                    return ""
            elif other.opened_here != link.opened_here and other.opened_here == ours_first:
                return "the other link between the two stays"
        self.links[peer] = link
        if other is not None:
            other.end("a newer link takes its place")
        self._ledgers[peer] = link.session.ledger
        self.imports.met(identity, lease_seconds, now)
        self._log.info("peer met", peer=peer, address=link.address, owns=identity.owned_regions)
        return ""

    def apply(self, link: Link[Session], effect: Apply | Heard | Told | Measured, now: float) -> None:
        """Takes over what a link brings; one that is not the link to its peer any more brings nothing."""
        peer = link.session.peer
        if peer is None or self.links.get(peer.region_id) is not link:
            return
        match effect:
            case Apply(replacement):
                self.imports.apply(peer.region_id, replacement, link.session.applied, now)
            case Heard():
                self.imports.heard(peer.region_id, now)
            case Told(reports):
                self.imports.told(peer.region_id, reports, now)
            case Measured(seconds):
                self.imports.measured(peer.region_id, seconds)

    def exports(self, peer: Identity) -> View:
        """The newest view for a peer."""
        snapshot = self._exported().snapshot
        known = self._views.get(peer.region_id)
        if known is None or known.peer != peer:
            known = self._views[peer.region_id] = Exports(self.me, peer, self._rules)
        return known.view(snapshot)

    def reports(self, now: float) -> Mapping[str, NodeReport]:
        """What is said of the own nodes; up to REPORTS_SECONDS old."""
        if now - self._reported_at >= REPORTS_SECONDS:
            told = self._exported()
            self._reported_at = now
            if self._reported[0] is not told.health or self._reported[1] != told.ended:
                reports = self._reporter.reports(told.snapshot.nodes, told.health, told.ended, now)
                self._reported = (told.health, told.ended, reports)
        return self._reported[2]

    # --- what others ask

    def owner_of(self, region_id: str) -> str:
        """The peer that owns a region; "" where none is known to."""
        return self.imports.owners().get(region_id, "")

    def statuses(self) -> list[PeerStatus]:
        """Every peering: those that are dialed in the order of the settings, then those that dial us."""
        now = self._monotonic()
        told: dict[str, PeerStatus] = {}
        listed = []
        for dial in self.dials:
            status = self._status(dial.region_id, dial, now)
            told[dial.region_id] = status
            listed.append(status)
        dialing = sorted({*self.imports.peers, *self.links} - told.keys())
        return [*listed, *(self._status(region_id, None, now) for region_id in dialing)]

    def _status(self, region_id: str, dial: Dial | None, now: float) -> PeerStatus:
        link = self.links.get(region_id) if dial is None else self._link_to(dial)
        known = self.imports.peers.get(region_id)
        if link is None:
            reason, refused = (dial.reason, dial.refused) if dial else self._ended.get(region_id, ("", False))
            state = "refused" if refused else "down"
            if known is None and not refused:
                reason = f"never met; {reason}"
        else:
            reason, state = "", "up" if link.session.stage is Stage.UP else "syncing"
        if known is not None and known.expired:
            reason = "PEER_LEASE_EXPIRED" + (f"; {reason}" if reason else "")
        address = dial.address if dial else "" if link is None else link.address
        return PeerStatus(
            region_id=region_id,
            address=address,
            dialed=dial is not None,
            state=state,
            owned_regions=() if known is None else known.identity.owned_regions,
            imported_revision=0 if known is None else known.applied.revision,
            exported_revision=self._ledgers[region_id].acked if region_id in self._ledgers else 0,
            lag_seconds=None if known is None else max(0.0, now - known.heard_at),
            lease_left_seconds=None if known is None else known.lease_left(now),
            imported_nodes=0 if known is None else len(known.view.nodes),
            exported_nodes=0 if link is None else len(link.session.told.nodes),
            round_trip_seconds=None if known is None else known.round_trip_seconds,
            reason=reason,
            version="" if known is None else known.identity.version,
            imported_models=() if known is None else _listed(known.view.models),
            exported_models=() if link is None else _listed(link.session.told.models),
        )


def _listed(models: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(models)[:MAX_MODELS])


def check_peers(peers: tuple[str, ...], tls: TlsOptions | None, *, insecure: bool) -> None:
    """ConfigError for an address that cannot be dialed, or only in plain text over a network."""
    for address in peers:
        try:
            found = parse_addresses([address], tls)
        except ValueError as e:
            raise ConfigError(f"peering.peers: {e}") from None
        if found.tls or insecure or found.targets[0].startswith("unix:"):
            continue
        host, _ = split_host_port(found.targets[0])
        if host != "localhost" and not _is_loopback(host):
            raise ConfigError(
                f"peering.peers: {address} is not loopback and would be dialed in plain text: write https://, set "
                "peering.tls_ca, or say server.insecure (--insecure)"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_options(ca: Path | None, certificate: Path | None, key: Path | None, server_name: str) -> TlsOptions | None:
    """How peers are dialed with TLS; None where nothing of it is set, and only https:// addresses use it."""
    if ca is None and certificate is None:
        return None
    return TlsOptions(ca, certificate, key, server_name)


def value_of(message: Any) -> Message:
    """The value of a message that a peer sent. ValueError."""
    try:
        return wire.message_from(message)
    except KeyError as e:
        raise ValueError(f"a value that is not known here ({e}); upgrade the older side") from None


async def _write(call: Any, message: Message) -> None:
    await call.write(wire.request_to(message))
