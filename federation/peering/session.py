"""One session between two control planes: a message or the time goes in, effects come out. No I/O, no clock.

              hello of the peer                first update applied
    GREETING ───────────────────► SYNCING ───────────────────────────► UP
        │                            │                                  │
        └──────────── gap, silence, refusal, goodbye ───────────────────┴──► CLOSED

Both sides are exporter and importer at once. The exporter tells whole views or the difference between two of them, at
most WINDOW without an ack, always the newest: whoever is slow is told less often, never late. The importer applies
complete updates that follow the last one, passes over repeats, and closes at a gap; the next session resumes after
the last applied revision, or starts over where the exporter's incarnation is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from catalog.rolls import changed
from federation.peering.exports import difference, snapshot_of
from federation.peering.messages import (
    Ack,
    Apply,
    Close,
    Effect,
    Goodbye,
    Heard,
    Heartbeat,
    Hello,
    Identity,
    Measured,
    Message,
    Met,
    NodeReport,
    Replacement,
    Send,
    Summary,
    Told,
    Update,
    View,
)

HEARTBEAT_SECONDS = 1.0
# Five heartbeats: fewer would close at a pause of a busy machine; the lease, not this, bounds what a cut costs.
SILENCE_SECONDS = 5.0
# Nodes change many times a second; who decides abroad needs no more than this.
SUMMARY_SECONDS = 1.0
# Updates without an ack. More hide no round trip any better, and keep more views.
WINDOW = 4
# Reports in one message: reading it takes about a millisecond, in which nobody is routed.
REPORTS_A_MESSAGE = 100
NOTHING_TOLD = View()
NO_REPORTS: Mapping[str, NodeReport] = MappingProxyType({})


class Stage(Enum):
    GREETING = "greeting"
    SYNCING = "syncing"
    UP = "up"
    CLOSED = "closed"


@dataclass(slots=True)
class Ledger:
    """What a peer was told and may have applied, by revision; outlives sessions, so that the next one resumes."""

    views: dict[int, View] = field(default_factory=dict)
    acked: int = 0
    jurisdictions: tuple[str, ...] = ()
    # Whose: of several replicas of a region each was told something else.
    incarnation: str = ""

    def told(self, view: View) -> None:
        self.views[view.revision] = view

    def ack(self, revision: int) -> None:
        """Forgets what lies before an acknowledged revision."""
        if revision in self.views and revision >= self.acked:
            self.acked = revision
            self.views = {at: view for at, view in self.views.items() if at >= revision}

    def clear(self) -> None:
        self.views = {}
        self.acked = 0

    @property
    def unacked(self) -> int:
        return sum(1 for revision in self.views if revision > self.acked)


@dataclass(frozen=True, slots=True)
class Applied:
    """How far this side got with the peer's log."""

    incarnation: str = ""
    revision: int = 0


@dataclass(slots=True)
class _Staged:
    """Parts of an update that is not complete yet."""

    from_revision: int | None
    to_revision: int
    parts: list[Update]


class Session:
    """`open` once, then `receive`, `offer` and `tick`; nothing but a Close comes after a Close."""

    def __init__(
        self,
        me: Identity,
        *,
        now: float,
        lease_seconds: float,
        ledger_of: Mapping[str, Ledger] | None = None,
        applied: Mapping[str, Applied] | None = None,
        expected: str = "",
        claimed_by: Mapping[str, str] | None = None,
    ) -> None:
        """`ledger_of` and `applied` are what earlier sessions left, by peer; `expected` is who answered last time.

        `claimed_by` tells which other peer owns a region.
        """
        self.me = me
        self.stage = Stage.GREETING
        self.peer: Identity | None = None
        self.round_trip_seconds: float | None = None
        self.heard_at = now
        self.ledger = Ledger()
        self.applied = Applied()
        self._lease_seconds = lease_seconds
        self._ledgers = ledger_of
        self._known = applied or {}
        self._expected = expected
        self._claimed_by = claimed_by or {}
        self._greeted = False
        # Whether what was applied is known to be of this session's log, so that silence is no change.
        self._current = False
        self._staged: _Staged | None = None
        self._told: View | None = None
        self._resuming = False
        self._beat_at = now
        self._beats = 0
        self._sent_at: dict[int, float] = {}
        self._samples: tuple[float, ...] = ()
        self._summary_at = float("-inf")
        self._summaries = 0
        self._heard_summaries = 0
        self._reports: dict[str, NodeReport] = {}
        self._looked_at: tuple[Mapping[str, NodeReport], View] = (NO_REPORTS, NOTHING_TOLD)

    @property
    def closed(self) -> bool:
        return self.stage is Stage.CLOSED

    @property
    def is_up(self) -> bool:
        return self.stage is Stage.UP

    @property
    def told(self) -> View:
        """What the peer was told last, whether or not it said that it has it."""
        return NOTHING_TOLD if self._told is None else self._told

    def open(self) -> tuple[Effect, ...]:
        """The hello of the side that opened the stream."""
        return self._greet(self._known.get(self._expected, Applied()))

    def receive(self, message: Message, now: float) -> tuple[Effect, ...]:
        """What follows from a message of the peer."""
        if self.closed:
            return ()
        self.heard_at = now
        match message:
            case Hello():
                return self._hello(message)
            case Goodbye(reason, refused):
                self.stage = Stage.CLOSED
                return (Close(f"the peer ended it: {reason}", refused),)
            case _ if self.peer is None:
                return self._close(f"its first message is {type(message).__name__}, not a hello")
            case Update():
                return self._update(message)
            case Summary():
                return self._summary(message)
            case Ack(revision):
                self.ledger.ack(revision)
                return self._renewed()
            case Heartbeat():
                return self._heartbeat(message, now)

    def offer(self, view: View, reports: Mapping[str, NodeReport], now: float) -> tuple[Effect, ...]:
        """Tells the newest view, and what changed in the reports of its nodes, as far as the peer keeps up."""
        if self.peer is None or self.closed:
            return ()
        effects: list[Effect] = []
        if self._told is None:
            effects += self._tell(snapshot_of(view), NOTHING_TOLD, view)
        elif self._resuming or (view.revision != self._told.revision and self.ledger.unacked < WINDOW):
            effects += self._tell(difference(self._told, view), self._told, view)
        if self._told is not None and now - self._summary_at >= SUMMARY_SECONDS:
            effects += self._summarize(reports, self._told, now)
        return tuple(effects)

    def tick(self, now: float) -> tuple[Effect, ...]:
        """Heartbeats, and the end of a session in which nothing is heard."""
        if self.closed:
            return ()
        if now - self.heard_at >= SILENCE_SECONDS:
            return self._close(f"nothing heard for {now - self.heard_at:.1f} s")
        if self.peer is None or now - self._beat_at < HEARTBEAT_SECONDS:
            return ()
        self._beat_at = now
        self._beats += 1
        self._sent_at[self._beats] = now
        self._sent_at.pop(self._beats - 16, None)
        return (Send(self._beat(sequence=self._beats)),)

    def end(self, reason: str, *, refused: bool = False) -> tuple[Effect, ...]:
        """Ends the session on purpose."""
        return () if self.closed else self._close(reason, refused=refused)

    # --- greeting

    def _greet(self, applied: Applied) -> tuple[Effect, ...]:
        if self._greeted:
            return ()
        self._greeted = True
        return (Send(Hello(self.me, applied.incarnation, applied.revision, self._lease_seconds)),)

    def _hello(self, hello: Hello) -> tuple[Effect, ...]:
        if self.peer is not None:
            # A repeat; a peer that became another one would have opened another stream.
            return () if hello.identity == self.peer else self._close("it said hello twice, as two control planes")
        known = self._known.get(hello.identity.region_id, Applied())
        greeting = self._greet(known)
        refusal = self._refusal(hello.identity)
        if refusal:
            return (*greeting, *self._close(refusal, refused=True))
        self.peer = hello.identity
        self.stage = Stage.SYNCING
        known_ledger = (self._ledgers or {}).get(hello.identity.region_id)
        if known_ledger is not None and known_ledger.incarnation == hello.identity.incarnation:
            self.ledger = known_ledger
        self.ledger.incarnation = hello.identity.incarnation
        if self.ledger.jurisdictions != hello.identity.jurisdictions:
            # Other rules hold for it now, and a view of the same revision would look like a repeat.
            self.ledger.clear()
            self.ledger.jurisdictions = hello.identity.jurisdictions
        if hello.applied_incarnation == self.me.incarnation and hello.applied_revision in self.ledger.views:
            self._told = self.ledger.views[hello.applied_revision]
            self.ledger.ack(hello.applied_revision)
            self.ledger.views = {hello.applied_revision: self._told}
            # The first delta is told even if it is empty: the peer learns that it is up to date.
            self._resuming = True
        else:
            self.ledger.clear()
        # What was applied of another life of its log is nothing.
        self.applied = known if known.incarnation == self.peer.incarnation else Applied(self.peer.incarnation, 0)
        return (*greeting, Met(self.peer, min(self._lease_seconds, hello.lease_seconds)))

    def _refusal(self, peer: Identity) -> str:
        """Why there can be no peering with it; "" where there can."""
        if (peer.region_id, peer.incarnation) == (self.me.region_id, self.me.incarnation):
            return "the address leads back to this control plane; take it out of peering.peers"
        if peer.region_id == self.me.region_id:
            return (
                f"both are control planes of region {peer.region_id!r}; give each a region.id of its own, or, where "
                "they are replicas on one database, take the address out of peering.peers"
            )
        both = sorted(set(peer.owned_regions) & set(self.me.owned_regions))
        if both:
            return (
                f"{peer.region_id} and {self.me.region_id} both own {', '.join(both)}; "
                "take it out of region.owns of one of them"
            )
        for region_id in peer.owned_regions:
            other = self._claimed_by.get(region_id, peer.region_id)
            if other != peer.region_id:
                return f"{peer.region_id} and {other} both own {region_id}; take it out of region.owns of one of them"
        return ""

    # --- exporting

    def _tell(self, parts: tuple[Update, ...], before: View, view: View) -> list[Effect]:
        self._told = view
        self._resuming = False
        # The peer forgets the report of a node that is gone, and needs it again if the node comes back the same.
        for name in changed(before.nodes, view.nodes):
            if name not in view.nodes:
                self._reports.pop(name, None)
        self.ledger.told(view)
        return [Send(part) for part in parts]

    def _summarize(self, reports: Mapping[str, NodeReport], told: View, now: float) -> list[Effect]:
        seen, before = self._looked_at
        names = changed(seen, reports) | changed(before.nodes, told.nodes)
        self._looked_at = (reports, told)
        news = []
        for name in sorted(names):
            report = reports.get(name)
            if report is not None and name in told.nodes and self._reports.get(name) != report:
                self._reports[name] = report
                news.append(report)
        if not news:
            return []
        self._summary_at = now
        effects: list[Effect] = []
        for first in range(0, len(news), REPORTS_A_MESSAGE):
            self._summaries += 1
            effects.append(Send(Summary(self._summaries, tuple(news[first : first + REPORTS_A_MESSAGE]))))
        return effects

    # --- importing

    def _update(self, update: Update) -> tuple[Effect, ...]:
        if self._current and update.to_revision <= self.applied.revision:
            return (Send(Ack(self.applied.revision)), Heard())
        expected = None if update.from_revision is None else self.applied.revision
        if update.from_revision != expected:
            return self._close(f"a gap: told from revision {update.from_revision}, applied {self.applied.revision}")
        stranger = self._stranger(update)
        if stranger:
            return self._close(f"it told of {stranger}, which it does not own")
        staged = self._staged
        if staged is None or (staged.from_revision, staged.to_revision) != (update.from_revision, update.to_revision):
            staged = self._staged = _Staged(update.from_revision, update.to_revision, [])
        if update.part < len(staged.parts):
            return self._renewed()
        if update.part > len(staged.parts):
            return self._close(f"a gap: part {update.part} of revision {update.to_revision} after {len(staged.parts)}")
        staged.parts.append(update)
        if not update.complete:
            return self._renewed()
        self._staged = None
        self.applied = Applied(self.applied.incarnation, update.to_revision)
        self._current = True
        self.stage = Stage.UP
        done = (Send(Ack(update.to_revision)), Heard())
        return done if update.from_revision == update.to_revision else (Apply(_joined(staged.parts)), *done)

    def _stranger(self, update: Update) -> str:
        assert self.peer is not None, "nothing is received before its hello"
        owned = self.peer.owned_regions
        for node in update.nodes:
            if node.region_id not in owned:
                return f"node {node.name}"
        return next((f"region {each.region_id}" for each in update.regions if each.region_id not in owned), "")

    def _summary(self, summary: Summary) -> tuple[Effect, ...]:
        if summary.sequence <= self._heard_summaries:
            return self._renewed()
        if summary.sequence > self._heard_summaries + 1:
            return self._close(f"a gap: summary {summary.sequence} after {self._heard_summaries}")
        self._heard_summaries = summary.sequence
        return (Told(summary.reports), *self._renewed())

    def _heartbeat(self, beat: Heartbeat, now: float) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        sent_at = self._sent_at.pop(beat.echo, None)
        if sent_at is not None:
            # The least of the last ten: what is above it is waiting, here or there, not way.
            self._samples = (*self._samples[-9:], now - sent_at)
            self.round_trip_seconds = min(self._samples)
            effects.append(Measured(self.round_trip_seconds))
        self.ledger.ack(beat.applied_revision)
        if beat.told_revision and (not self._current or beat.told_revision > self.applied.revision):
            return self._close(f"a gap: told up to revision {beat.told_revision}, applied {self.applied.revision}")
        if beat.told_summary > self._heard_summaries:
            return self._close(f"a gap: told summary {beat.told_summary}, heard {self._heard_summaries}")
        if beat.sequence:
            effects.append(Send(self._beat(echo=beat.sequence)))
        return (*effects, *self._renewed())

    # --- both

    def _beat(self, *, sequence: int = 0, echo: int = 0) -> Heartbeat:
        told = 0 if self._told is None or self._resuming else self._told.revision
        return Heartbeat(sequence, echo, told, self.applied.revision if self._current else 0, self._summaries)

    def _renewed(self) -> tuple[Effect, ...]:
        return (Heard(),) if self._current else ()

    def _close(self, reason: str, *, refused: bool = False) -> tuple[Effect, ...]:
        self.stage = Stage.CLOSED
        return (Send(Goodbye(reason, refused)), Close(reason, refused))


def _joined(parts: list[Update]) -> Replacement:
    return Replacement(
        revision=parts[0].to_revision,
        whole=parts[0].from_revision is None,
        regions={region.region_id: region for part in parts for region in part.regions},
        models={model.model_id: model for part in parts for model in part.models},
        nodes={node.name: node for part in parts for node in part.nodes},
        removed_regions=frozenset(name for part in parts for name in part.removed_regions),
        removed_models=frozenset(name for part in parts for name in part.removed_models),
        removed_nodes=frozenset(name for part in parts for name in part.removed_nodes),
    )
