"""The world of the simulation in `dst.py`: the network between replicas, what goes wrong, and the passing of time."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from catalog.types import Node, ResourceKind
from federation.peering import wire as peer_wire
from federation.peering.link import Link
from federation.siblings import wire as sibling_wire
from federation.siblings.messages import Hello, Life, News
from federation.v1 import peering_pb2
from tests.faults.dst_fleet import REGIONS, REPLICAS, done
from tests.faults.dst_region import Territory
from tests.faults.dst_replica import Replica
from tests.faults.dst_rules import TOLD_SECONDS, Broken, check_agreement, check_imports, check_sums, check_told

STEP_SECONDS = 0.25
# Over how much of the past a replica compares what news took; sums.
WAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class End:
    """One end of a line: a process in one of its lives, and its link."""

    replica: Replica
    life: int
    link: Link[Any]

    @property
    def open(self) -> bool:
        return self.replica.up and self.replica.lives == self.life and not self.link._over.is_set()


@dataclass
class Line:
    """A connection of two links, with what is on its way to each of its ends."""

    ends: tuple[End, End]
    between_siblings: bool
    # When it arrives, in which order, what.
    on_the_way: tuple[list[tuple[float, int, bytes]], ...] = field(default_factory=lambda: ([], []))
    last: list[float] = field(default_factory=lambda: [0.0, 0.0])
    # What the ways to each end took: when, how long.
    ways: tuple[list[tuple[float, float]], ...] = field(default_factory=lambda: ([], []))


class World:
    """Everything, at a moment; `now` is the time of nobody's clock."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        self.number = 0
        self.order = 0
        self.digest = hashlib.sha256()
        self.both_dial = self.rng.random() < 0.5
        self.loss = self.rng.choice((0.0, 0.02, 0.1))
        self.repeats = self.rng.choice((0.0, 0.05))
        self.delay = self.rng.choice((0.01, 0.1, 0.3))
        # What an import may be older than its lease: the tick that ends it, and clocks that run apart.
        self.slack = 2 * STEP_SECONDS + 0.1
        # When the faults were over.
        self.quiet_since: float | None = None
        self.cut: dict[tuple[str, str], float] = {}
        self.lines: list[Line] = []
        self.faults = 0
        self.wrong = ""
        self.regions = {name: Territory(name, self) for name in REGIONS}
        for region in self.regions.values():
            region.replicas += [Replica(region, number) for number in range(REPLICAS)]
            for replica in region.replicas:
                replica.boot()
        self.replicas = {each.place: each for region in self.regions.values() for each in region.replicas}

    def note(self, *words: object) -> None:
        """Takes part of the run into its fingerprint."""
        self.digest.update(repr((self.number, words)).encode())

    def nodes_of(self, region: Territory) -> dict[str, Node]:
        """What stands in a region's database."""
        found = region.store._resources[ResourceKind.NODE]
        return {name: node for name, node in found.items() if isinstance(node, Node)}

    def run(self, seconds: float, calm: float) -> None:
        """So many seconds with faults, then so many without; then everybody must agree, and be told of all soon."""
        for region in self.regions.values():
            for _ in range(4):
                region.change()
        while self.now < seconds + calm:
            self._pass(seconds)
        check_agreement(self)
        while not self._told(seconds + calm + TOLD_SECONDS):
            self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        """A step; until so many seconds something may fail in it."""
        self.number += 1
        self.now = self.number * STEP_SECONDS
        if self.now < seconds:
            self._fail()
        elif self.quiet_since is None:
            self._mend()
        self._step()

    def _told(self, until: float) -> bool:
        """Whether siblings know each other's sums. Broken where they still do not at a moment."""
        try:
            check_told(self)
        except Broken:
            if self.now >= until:
                raise
            return False
        return True

    def broken(self, what: str) -> None:
        """For places whose exceptions are somebody's to catch: the step ends with it."""
        self.wrong = self.wrong or what

    # What goes wrong.

    def _fail(self) -> None:
        rng = self.rng
        replica = self.replicas[rng.choice(tuple(self.replicas))]
        region = replica.region
        chance = rng.random()
        # About one fault in a second and a half.
        self.faults += chance < 0.16
        if chance < 0.03:
            self._cut_off()
        elif chance < 0.05 and replica.up:
            replica.up = False
        elif chance < 0.08 and not replica.up:
            replica.boot()
        elif chance < 0.09 and replica.up:
            replica.paused_until = self.now + rng.choice((1.0, 4.0))
            replica.woken_at = replica.paused_until
        elif chance < 0.10:
            region.database_up = not region.database_up
        elif chance < 0.107:
            replica.cut_from_database = not replica.cut_from_database
        elif chance < 0.115:
            replica.skew += rng.choice((-3_600.0, 3_600.0))
        elif chance < 0.13 and self.lines:
            rng.choice(self.lines).ends[0].link.end("the network says so")
        elif chance < 0.16 and region.agents:
            self._harm(region, rng.choice(sorted(region.agents)))
        if rng.random() < 0.25:
            self.regions[rng.choice(tuple(REGIONS))].change()

    def _cut_off(self) -> None:
        """Two replicas, or all of two regions, in one direction or both."""
        one, other = self.rng.sample(sorted(self.replicas), 2)
        until = self.now + self.rng.choice((1.0, 6.0, 12.0))
        both = self.rng.random() < 0.7
        whole = one.split(".")[0] != other.split(".")[0] and self.rng.random() < 0.5
        for near in self._beside(one) if whole else (one,):
            for far in self._beside(other) if whole else (other,):
                self.cut[near, far] = until
                if both:
                    self.cut[far, near] = until

    def _beside(self, place: str) -> list[str]:
        return [each.place for each in self.replicas[place].region.replicas]

    def _harm(self, region: Territory, node: str) -> None:
        """A node dies, lives, moves to another replica, fails its requests or its probes, or somebody operates it."""
        match self.rng.randrange(5):
            case 0:
                region.agents[node].alive = not region.agents[node].alive
            case 1:
                region.agents[node].at = self.rng.randrange(REPLICAS)
            case 2:
                region.failing ^= {node}
            case 3:
                region.healthy ^= {node}
            case _ if region.living():
                self.rng.choice(region.living()).operate()

    def _mend(self) -> None:
        self.quiet_since = self.now
        self.loss = self.repeats = 0.0
        self.cut.clear()
        for replica in self.replicas.values():
            replica.region.database_up = True
            replica.region.failing.clear()
            replica.cut_from_database = False
            replica.paused_until = min(replica.paused_until, self.now)
            if not replica.up:
                replica.boot()

    # What goes on.

    def _step(self) -> None:
        for replica in self.replicas.values():
            if replica.up and not replica.paused:
                self._dial(replica)
        for line in list(self.lines):
            self._carry(line)
        for region in self.regions.values():
            region.step()
        for number, replica in enumerate(self.replicas.values()):
            if not replica.up or replica.paused or (self.quiet_since is not None and self.number % 2):
                continue
            replica.step()
            check_imports(replica)
            # Not all at every step: what takes long is the first request of a table. At last all comes to rest.
            asked = replica.serves and self.number % (2 * len(self.replicas)) // 2 == number
            if asked and (self.quiet_since is None or self.now < self.quiet_since + 5.0):
                replica.route()
        for region in self.regions.values():
            region.check_probes()
        for line in self.lines:
            # Regions tell each other once a second, replicas ten times.
            for end in line.ends if line.between_siblings or self.number % 2 == 0 else ():
                if end.open and not end.replica.paused:
                    self._pulse(end)

        if self.wrong:
            raise Broken(self.wrong)

    def dialed_by(self, replica: Replica) -> tuple[str, ...]:
        """Addresses of peers: a balancer's, where both sides dial, else those of all its replicas on one side."""
        others = [name for name in REGIONS if name != replica.region.name]
        if self.both_dial:
            return tuple(others)
        return tuple(f"{name}.{number}" for name in others if replica.region.name < name for number in range(REPLICAS))

    def _dial(self, replica: Replica) -> None:
        peering, siblings = replica.peering, replica.siblings
        for dial in peering.dials:
            if peering._link_to(dial) is None and self._due(replica, dial.address):
                places = [dial.address] if "." in dial.address else self._beside(f"{dial.address}.0")
                other = self.replicas[self.rng.choice(places)]
                here = peering._link(opened_here=True, address=dial.address, expected=dial.region_id)
                if self._reaches(replica, other):
                    there = other.peering._link(opened_here=False, address=replica.place, expected="")
                    self._connect(replica, here, other, there, between_siblings=False)
        for name, sibling in siblings.members.living().items():
            if siblings._is_ours_to_dial(name) and self._due(replica, name):
                other = self.replicas[sibling.address]
                if self._reaches(replica, other):
                    one = siblings._link(Life(name, sibling.incarnation), sibling.address)
                    two = other.siblings._link(None, replica.place)
                    self._connect(replica, one, other, two, between_siblings=True)

    def _due(self, replica: Replica, address: str) -> bool:
        """Whether it is time to dial an address, which has no line yet."""
        if self.now < replica.redial.get(address, 0.0):
            return False
        busy = any(
            end.replica is replica and end.link.opened_here and end.link.address == address and end.open
            for line in self.lines
            for end in line.ends
        )
        if not busy:
            replica.redial[address] = self.now + replica.rng.uniform(0.3, 1.0)
        return not busy

    def _reaches(self, one: Replica, other: Replica) -> bool:
        cut = self._is_cut(one.place, other.place) or self._is_cut(other.place, one.place)
        return other.up and not other.paused and not cut

    def _connect(
        self, replica: Replica, here: Link[Any], other: Replica, there: Link[Any], *, between_siblings: bool
    ) -> None:
        here._carry(here.session.open())
        self.lines.append(Line((End(replica, replica.lives, here), End(other, other.lives, there)), between_siblings))

    def _is_cut(self, one: str, other: str) -> bool:
        return self.cut.get((one, other), 0.0) > self.now

    def is_cut(self, one: Replica, other: Replica) -> bool:
        """Whether words of one do not reach the other, or did not a moment ago."""
        return max(self.cut.get((one.place, other.place), 0.0), self.cut.get((other.place, one.place), 0.0)) > (
            self.now - 2.0
        )

    def linked_for(self, one: Replica, other: Replica) -> float:
        """How long two replicas of a region have known each other, as both see it; negative: they do not."""
        here, there = one.siblings._up.get(other.id), other.siblings._up.get(one.id)
        if here is None or there is None or here.link.session.closed or there.link.session.closed:
            return -1.0
        return self.now - max(one.world_time(here.since), other.world_time(there.since))

    def _carry(self, line: Line) -> None:
        """What is due arrives, what was said goes on its way; who hung up or died ends it for both."""
        for to, end in enumerate(line.ends):
            waiting = line.on_the_way[to]
            while waiting and waiting[0][0] <= self.now and not (end.replica.paused and end.replica.up):
                *_, content = heapq.heappop(waiting)
                if end.open:
                    self._arrive(line, to, content)
        for number, end in enumerate(line.ends):
            while end.link._outbox and end.replica.lives == end.life and end.replica.up and not end.replica.paused:
                self._send(line, 1 - number, end.link._outbox.popleft())
        over = not all(end.open or (end.link._outbox and end.replica.paused) for end in line.ends)
        if over and not any(line.on_the_way):
            self.lines.remove(line)
            for end in line.ends:
                end.link._lost("the line is gone")
                if end.replica.lives == end.life and end.replica.up:
                    end.link._carrier._released(end.link)  # type: ignore[attr-defined]

    def _arrive(self, line: Line, to: int, content: bytes) -> None:
        receiver, sender, link = line.ends[to].replica, line.ends[1 - to].replica, line.ends[to].link
        received = peering_pb2.ExchangeRequest.FromString(content)
        if not line.between_siblings:
            message: Any = peer_wire.message_from(received)
            link._carry(link.session.receive(message, receiver.now()))
            if receiver.peering.links.get(sender.region.name) is link:
                receiver.heard[sender.region.name] = self.now
        else:
            message = sibling_wire.message_from(received)
            if isinstance(message, Hello) and not link.opened_here:
                done(receiver.siblings.learn_of(message))
            before = receiver.router.state._siblings.get(sender.id)
            link._carry(link.session.receive(message, receiver.now()))
            if isinstance(message, News):
                ways = line.ways[to]
                ways.append((self.now, self.now - sender.world_time(message.sent_at)))
                line.ways[to][:] = ways = [way for way in ways if way[0] >= self.now - WAY_SECONDS]
                check_sums(receiver, sender, before, ways[-1][1] - min(way for _, way in ways))
        self.note(receiver.place, type(message).__name__)

    def _send(self, line: Line, to: int, message: Any) -> None:
        sender, receiver = line.ends[1 - to].replica, line.ends[to].replica
        encode: Callable[[Any], Any] = sibling_wire.request_to if line.between_siblings else peer_wire.request_to
        content = encode(message).SerializeToString()
        for _ in range(1 + (self.rng.random() < self.repeats)):
            if self._is_cut(sender.place, receiver.place) or self.rng.random() < self.loss:
                continue
            # In order, as a stream is; a repeat comes right behind.
            line.last[to] = max(line.last[to], self.now + self.rng.uniform(0.0, 2 * self.delay))
            self.order += 1
            heapq.heappush(line.on_the_way[to], (line.last[to], self.order, content))

    def _pulse(self, end: End) -> None:
        """What a link does ten times a second beside reading and writing."""
        now, link = end.replica.now(), end.link
        link._carry(link.session.tick(now))
        if not link._outbox and not link.session.closed:
            link._carry(link._carrier.offer(link, now))

    def fingerprint(self) -> str:
        """The same for two runs only if all that was noted in them was the same."""
        for replica in self.replicas.values():
            self.note(replica.place, sorted(replica.installer.snapshot.nodes), replica.router.stats.decisions)
        return self.digest.hexdigest()
