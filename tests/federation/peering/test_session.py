"""Two sessions over a wire that loses, repeats and breaks, in virtual time; and what each message leads to."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.types import Node, Region
from federation.peering.imports import Imports
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
    Send,
    Summary,
    Told,
    Update,
    View,
)
from federation.peering.session import NO_REPORTS, SILENCE_SECONDS, WINDOW, Ledger, Session, Stage
from tests.builders import a_node

EU = Identity("eu", ("eu",), "life-1", ("DE", "EU"))
US = Identity("us", ("us",), "life-1", ("US",))


def a_view(revision: int, *names: str) -> View:
    nodes = {name: replace(a_node(name), revision=revision) for name in names}
    region_ids = {name.partition("/")[0] for name in names}
    return View(revision, {each: Region(each) for each in region_ids}, {}, nodes)


def a_session(me: Identity = US, now: float = 0.0) -> Session:
    return Session(me, now=now, lease_seconds=30.0)


def met(me: Identity = US, peer: Identity = EU) -> Session:
    session = a_session(me)
    session.receive(Hello(peer), 0.0)
    return session


def sent(effects: tuple[Effect, ...]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def closed(effects: tuple[Effect, ...]) -> str:
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    return close.reason


def test_a_hello_is_answered_with_a_hello_and_then_everything_that_is_exported():
    session = a_session(US)

    answer = session.receive(Hello(EU), 0.0)
    told = session.offer(a_view(7, "us/a"), NO_REPORTS, 0.0)

    assert sent(answer) == [Hello(US)]
    assert Met(EU, 30.0) in answer
    (snapshot,) = sent(told)
    assert isinstance(snapshot, Update)
    assert (snapshot.from_revision, snapshot.to_revision, snapshot.complete) == (None, 7, True)


def test_the_shorter_lease_counts():
    effects = a_session(US).receive(Hello(EU, lease_seconds=5.0), 0.0)

    assert Met(EU, 5.0) in effects


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (replace(EU, owned_regions=("eu", "us")), "eu and us both own us"),
        (replace(US, incarnation="life-2"), "both are control planes of region 'us'"),
        (US, "the address leads back to this control plane"),
    ],
)
def test_a_peer_that_claims_what_is_owned_here_is_refused(peer: Identity, words: str):
    session = a_session(US)

    effects = session.receive(Hello(peer), 0.0)

    assert words in closed(effects)
    assert [message.refused for message in sent(effects) if isinstance(message, Goodbye)] == [True]
    assert session.offer(a_view(1, "us/a"), NO_REPORTS, 1.0) == ()


def test_a_peer_that_claims_what_another_peer_owns_is_refused():
    session = Session(US, now=0.0, lease_seconds=30.0, claimed_by={"eu": "eu-old"})

    assert "eu and eu-old both own eu" in closed(session.receive(Hello(EU), 0.0))


def test_a_repeated_delta_is_acknowledged_and_not_applied_again():
    session = met()
    session.receive(Update(None, 3, nodes=(a_node("eu/a"),)), 0.0)
    delta = Update(3, 4, nodes=(a_node("eu/b"),))

    first, second = session.receive(delta, 1.0), session.receive(delta, 2.0)

    assert [type(effect) for effect in first] == [Apply, Send, Heard]
    assert second == (Send(Ack(4)), Heard())


@pytest.mark.parametrize(
    "message",
    [
        Update(4, 5),
        Update(3, 5, part=1),
        Summary(2),
        Heartbeat(1, told_revision=4),
        Heartbeat(1, told_revision=3, told_summary=1),
    ],
)
def test_a_gap_closes(message: Message):
    session = met()
    session.receive(Update(None, 3), 0.0)

    assert closed(session.receive(message, 1.0)).startswith("a gap")


def test_a_node_of_a_region_that_the_peer_does_not_own_closes():
    session = met()

    effects = session.receive(Update(None, 3, nodes=(a_node("ap/a"),)), 0.0)

    assert "ap/a, which it does not own" in closed(effects)
    assert not [effect for effect in effects if isinstance(effect, Apply)]


def test_parts_count_once_the_last_one_is_there():
    session = met()

    early = session.receive(Update(None, 3, part=0, complete=False, nodes=(a_node("eu/a"),)), 0.0)
    session.receive(Update(None, 3, part=0, complete=False, nodes=(a_node("eu/a"),)), 0.0)
    (apply, *_) = session.receive(Update(None, 3, part=1, nodes=(a_node("eu/b"),)), 0.0)

    assert early == ()
    assert isinstance(apply, Apply)
    assert sorted(apply.replacement.nodes) == ["eu/a", "eu/b"]


def test_silence_ends_a_session_and_a_heartbeat_measures_the_round_trip():
    session = met()
    session.offer(a_view(1, "us/a"), NO_REPORTS, 0.0)

    (beat,) = sent(session.tick(1.0))
    assert isinstance(beat, Heartbeat)
    effects = session.receive(Heartbeat(echo=beat.sequence), 1.25)

    assert Measured(0.25) in effects
    assert session.tick(1.25 + SILENCE_SECONDS - 0.01)[0] != Close
    assert "nothing heard" in closed(session.tick(1.25 + SILENCE_SECONDS))


def test_a_slow_peer_is_told_less_often_and_always_the_newest():
    session = met()
    session.offer(a_view(1, "us/a"), NO_REPORTS, 0.0)

    told = [sent(session.offer(a_view(revision, "us/a"), NO_REPORTS, 0.0)) for revision in range(2, 50)]
    session.receive(Ack(2), 1.0)
    (after,) = sent(session.offer(a_view(50, "us/a"), NO_REPORTS, 1.0))

    assert sum(len(each) for each in told) == WINDOW - 1
    assert isinstance(after, Update)
    assert (after.from_revision, after.to_revision) == (WINDOW, 50)


def test_summaries_tell_what_changed_at_most_once_a_second():
    session = met()
    view = a_view(1, "us/a", "us/b")
    first = {name: NodeReport(name, queue_depth=0.0) for name in ("us/a", "us/b", "eu/imported")}
    second = {**first, "us/b": NodeReport("us/b", queue_depth=9.0)}

    (_, all_of_them) = sent(session.offer(view, first, 0.0))
    soon = sent(session.offer(view, second, 0.5))
    (changed,) = sent(session.offer(view, second, 1.0))

    assert isinstance(all_of_them, Summary)
    assert [report.node for report in all_of_them.reports] == ["us/a", "us/b"]
    assert soon == []
    assert changed == Summary(2, (second["us/b"],))
    assert session.offer(view, dict(second), 5.0) == ()


class Side:
    """One control plane: its log, what it imported, and what a session leaves for the next one."""

    def __init__(self, identity: Identity, peer: str) -> None:
        self.identity = identity
        self.peer = peer
        self.view = a_view(1, f"{identity.region_id}/first")
        self.reports: dict[str, NodeReport] = {}
        self.imports = Imports()
        self.ledgers: dict[str, Ledger] = {}
        self.applied: list[tuple[str, int]] = []
        self.snapshots = 0
        self.session = a_session(identity)
        self.outbox: deque[Message] = deque()

    def connect(self, now: float, *, opens: bool) -> None:
        self.outbox.clear()
        self.session = Session(
            self.identity,
            now=now,
            lease_seconds=30.0,
            ledger_of=self.ledgers,
            applied=self.imports.applied(),
            expected=self.peer,
        )
        if opens:
            self.carry(self.session.open(), now)

    def restart(self, now: float) -> None:
        """Another life: nothing that was imported or told is remembered."""
        number = int(self.identity.incarnation.removeprefix("life-")) + 1
        self.identity = replace(self.identity, incarnation=f"life-{number}")
        self.imports, self.ledgers = Imports(), {}
        self.applied.clear()

    def change(self, rng: Random, revision: int) -> None:
        nodes: dict[str, Node] = dict(self.view.nodes)
        name = f"{self.identity.region_id}/n{rng.randrange(12)}"
        if name in nodes and rng.random() < 0.5:
            del nodes[name]
        else:
            nodes[name] = replace(a_node(name), revision=revision)
        self.view = replace(self.view, revision=revision, nodes=nodes)
        self.reports = {each: NodeReport(each, queue_depth=float(rng.randrange(3))) for each in nodes}

    def carry(self, effects: tuple[Effect, ...], now: float) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self.outbox.append(message)
                case Met(identity, lease):
                    self.ledgers[identity.region_id] = self.session.ledger
                    self.imports.met(identity, lease, now)
                case Apply(replacement):
                    life = self.session.applied.incarnation
                    earlier = [revision for known, revision in self.applied if known == life]
                    assert replacement.whole or replacement.revision > earlier[-1], "a delta was applied twice"
                    assert all(node.region_id == self.peer for node in replacement.nodes.values()), "passed on"
                    self.applied.append((life, replacement.revision))
                    self.snapshots += replacement.whole
                    self.imports.apply(self.peer, replacement, self.session.applied, now)
                case Heard():
                    self.imports.heard(self.peer, now)
                case Told(reports):
                    self.imports.told(self.peer, reports, now)

    def step(self, now: float) -> None:
        self.carry(self.session.tick(now), now)
        self.carry(self.session.offer(self.view, self.reports, now), now)


def exchange(sides: tuple[Side, Side], now: float, rng: Random, loss: float, repeats: float) -> None:
    """What is on its way arrives in order, lost or repeated now and then."""
    for side, other in (sides, sides[::-1]):
        for _ in range(len(side.outbox)):
            message = side.outbox.popleft()
            if rng.random() < loss:
                continue
            for _ in range(1 + (rng.random() < repeats)):
                other.carry(other.session.receive(message, now), now)


@given(st.integers(min_value=0, max_value=1 << 32))
# A report came ahead of its node, which was gone again when the view was told.
@example(758362821)
def test_two_sessions_converge_over_a_wire_that_loses_repeats_and_breaks(seed: int):
    rng = Random(seed)
    eu, us = Side(EU, "us"), Side(US, "eu")
    loss, repeats, revision, now = rng.choice([0.0, 0.02, 0.2]), rng.choice([0.0, 0.3]), 1, 0.0
    sides = (eu, us)

    for _ in range(300):
        now += 0.1
        if rng.random() < 0.3:
            revision += rng.randrange(1, 4)
            rng.choice(sides).change(rng, revision)
        if rng.random() < 0.01:
            rng.choice(sides).restart(now)
            eu.session.stage = us.session.stage = Stage.CLOSED
        if rng.random() < 0.02 or eu.session.closed or us.session.closed or now < 0.2:
            eu.connect(now, opens=True)
            us.connect(now, opens=False)
        for side in sides:
            side.step(now)
        exchange(sides, now, rng, loss, repeats)
    for _ in range(300):
        now += 0.1
        if eu.session.closed or us.session.closed:
            eu.connect(now, opens=True)
            us.connect(now, opens=False)
        for side in sides:
            side.step(now)
        exchange(sides, now, rng, 0.0, 0.0)

    for side, other in (sides, sides[::-1]):
        known = side.imports.peers[side.peer]
        assert known.view == other.view, seed
        assert {name: report for name, (report, _) in known.reports.items()} == {
            name: report for name, report in other.reports.items() if name in other.view.nodes
        }
        assert other.session.ledger.acked == other.view.revision
        assert not known.expired


def test_a_link_that_broke_resumes_where_it_was():
    rng, eu, us = Random(1), Side(EU, "us"), Side(US, "eu")
    sides = (eu, us)
    now = 0.0

    def run(steps: int) -> None:
        nonlocal now
        for _ in range(steps):
            now += 0.1
            for side in sides:
                side.step(now)
            exchange(sides, now, rng, 0.0, 0.0)

    for _ in range(2):
        eu.connect(now, opens=True)
        us.connect(now, opens=False)
        run(20)
        eu.change(rng, eu.view.revision + 1)

    run(20)
    assert us.imports.peers["eu"].view == eu.view
    assert (eu.snapshots, us.snapshots) == (1, 1)
