"""All replicas of this region beside this one: who they are, the links to them, and what is shared out among them.

    database ─ beats ─ members ─ dial ─┐
                     streams accepted ─┴─ links ─┬─ hearing ─ monitor, router, leases
       monitor, router, leases ─ telling ────────┤
                                                 └─ shares of probes, turns of trials, forwarded outcomes

Of two replicas the one with the smaller id dials. What a link's end loses is told anew by the next one; until then each
replica does everything by itself, as it does without siblings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from random import Random
from typing import Any

from catalog.errors import CatalogError
from catalog.store import CatalogStore
from catalog.types import Replica
from federation.edge.service_config import TlsOptions
from federation.health.monitor import Monitor
from federation.health.prober import Prober
from federation.leases import LeaseKeeper
from federation.logs import Log
from federation.peering.dialing import channel_to, read
from federation.peering.link import Link
from federation.peering.messages import Goodbye
from federation.routing.heard import Heard as HeardReports
from federation.routing.router import Reported, Router
from federation.routing.siblings import SUMS_EVERY_SECONDS
from federation.siblings import wire
from federation.siblings.hearing import Hearing
from federation.siblings.linked import Linked, SiblingStatus, statuses, stays
from federation.siblings.members import Members, share_of
from federation.siblings.messages import Effect, Heard, Hello, Life, Message, Met
from federation.siblings.outgoing import MAX_ITEMS
from federation.siblings.session import Session
from federation.siblings.telling import Telling
from federation.siblings.turns import SELF, Seen, Turns
from federation.v1 import peering_pb2_grpc
from policies.types import Outcome

BEAT_SECONDS = 1.0
# Between two tellings, and looks at who is to be dialed and whose turn a trial is.
PULSE_SECONDS = SUMS_EVERY_SECONDS
# After a dial that failed; doubled up to the second one.
FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 2.0
# How long a replica that starts waits for what the others know; then it goes on by its own probes, and refuses what it
# is asked until those passed. One that is dead is not waited for so long.
JOIN_SECONDS = 10.0
# Why a replica is not dialed that lived a moment ago where this one listens now.
SAME_ADDRESS = "it has the address of this replica: it was its last life, or server.advertise is the same at both"
# Strangers must not make us read the database at their pace.
READ_SECONDS = 0.2
# Events that may wait for a sibling: a few seconds of a busy region. Beyond, it is hung up on and told anew.
MAX_WAITING = 100_000


class Siblings:
    """Constructed, it does nothing; `beat` announces this replica, `run` finds the others, `accept` serves a stream."""

    def __init__(
        self,
        me: Life,
        *,
        address: Callable[[], str],
        store: CatalogStore,
        telling: Telling,
        monitor: Monitor,
        router: Router,
        leases: LeaseKeeper,
        prober: Prober,
        tls: TlsOptions | None,
        log: Log,
        rng: Random,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.me = me
        self.members = Members(me.replica_id)
        self.reports_forwarded = 0
        self._address = address
        self._store = store
        self._telling = telling
        self._monitor = monitor
        self._router = router
        self._leases = leases
        self._prober = prober
        self._hearing = Hearing(telling, monitor, router, leases, on_probe=prober.heard)
        self._tls = tls
        self._log = log
        self._rng = rng
        self._monotonic = monotonic
        self._sleep = sleep
        self._beats = 0
        self._up: dict[str, Linked] = {}
        self._reasons: dict[str, str] = {}
        self._turns = Turns()
        # Circuits that are not closed, as of a version of the monitor.
        self._tripped: Mapping[str, bool] = {}
        self._tripped_version = -1
        self._forwarded = HeardReports()
        self._stopping = False
        # Who lived when this replica started, until it met them.
        self._joining: set[str] = set()
        self._read_at = float("-inf")

    # --- who there is

    async def beat(self) -> None:
        """Tells the database that this replica lives, and reads who else does. An outage changes nothing."""
        self._beats += 1
        me = Replica(self.me.replica_id, self._address(), self.me.incarnation, self._beats)
        before = self.members.living()
        self._read_at = self._monotonic()
        try:
            found = await self._store.beat(me)
        except CatalogError:
            # The feed tells of the outage.
            return
        self.members.read(found, self._monotonic())
        for name in before.keys() - self.members.living().keys() - self._up.keys():
            self._gone(name)

    async def join(self) -> None:
        """Returns once those that lived at the start told what they know, or JOIN_SECONDS later.

        A replica that serves before would have nothing to route to until its own probes passed.
        """
        until = self._monotonic() + JOIN_SECONDS
        while self._monotonic() < until:
            known = [self._up.get(name) for name in self._joining]
            if all(each is not None and each.caught_up for each in known):
                break
            await self._sleep(0.02)
        self._joining.clear()

    def _gone(self, name: str) -> None:
        self._log.info("sibling replica is gone; whom it heard is heard here", replica=name)
        self._leases.release(name)

    async def run(self) -> None:
        """Beats, dials and shares out until cancelled. Whoever starts dials everybody once."""
        self._joining = set(self._others())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat_on())
            group.create_task(self._share_on())
            dialing: dict[str, asyncio.Task[None]] = {}
            while True:
                dialing = {name: task for name, task in dialing.items() if not task.done()}
                for name in self._others():
                    if self._is_ours_to_dial(name) and name not in dialing:
                        dialing[name] = group.create_task(self._keep_dialed(name))
                await self._sleep(PULSE_SECONDS)

    def _others(self) -> Mapping[str, Replica]:
        """Replicas that live, but for who had this address before: that was this replica's last life, or is gone."""
        ours = self._address()
        return {name: replica for name, replica in self.members.living().items() if replica.address != ours}

    def _is_ours_to_dial(self, name: str) -> bool:
        return (self.me.replica_id < name or name in self._joining) and name not in self._up

    async def _beat_on(self) -> None:
        while True:
            await self._sleep(BEAT_SECONDS)
            await self.beat()

    async def _share_on(self) -> None:
        while True:
            self.share_trials(self._monotonic())
            await self._sleep(PULSE_SECONDS)

    # --- links

    async def _keep_dialed(self, name: str) -> None:
        delay = FIRST_RETRY_SECONDS
        while (replica := self._others().get(name)) is not None and self._is_ours_to_dial(name) and not self._stopping:
            link = await self._dial(replica)
            if not link.was_up and delay > FIRST_RETRY_SECONDS:
                # It died a moment ago, most likely; whoever starts need not wait for it.
                self._joining.discard(name)
            delay = FIRST_RETRY_SECONDS if link.was_up else min(2.0 * delay, MAX_RETRY_SECONDS)
            await self._sleep(delay * self._rng.uniform(0.5, 1.0))

    async def _dial(self, replica: Replica) -> Link[Session]:
        link = self._link(Life(replica.replica_id, replica.incarnation), replica.address)
        try:
            channel = channel_to(replica.address, self._tls)
        except (OSError, ValueError) as e:
            link.reason = f"it cannot be dialed: {e}"
            self._reasons[replica.replica_id] = link.reason
            return link
        async with channel:
            stub: Any = peering_pb2_grpc.PeeringServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Exchange()
            try:
                await link.run(read(call, wire.message_from), lambda message: call.write(wire.request_to(message)))
            finally:
                call.cancel()
                self._released(link)
        self._reasons[replica.replica_id] = link.reason
        return link

    async def accept(
        self, messages: AsyncIterator[Message], write: Callable[[Message], Awaitable[None]], address: str
    ) -> None:
        """Serves a stream that a sibling opened."""
        try:
            first = await anext(messages)
        except ValueError as e:
            await write(Goodbye(f"it sent {e}"))
            return
        if isinstance(first, Hello):
            await self.learn_of(first)
        link = self._link(None, address)
        try:
            await link.run(_again(first, messages), write)
        finally:
            self._released(link)

    async def learn_of(self, hello: Hello) -> None:
        """Reads the database where the sender may be one that started since it was read last."""
        is_new = self.members.incarnation_of(hello.me.replica_id) != hello.me.incarnation
        if is_new and self._monotonic() - self._read_at >= READ_SECONDS:
            await self.beat()

    def _link(self, expected: Life | None, address: str) -> Link[Session]:
        session = Session(self.me, now=self._monotonic(), incarnation_of=self.members.incarnation_of, expected=expected)
        return Link(
            session,
            self,
            opened_here=expected is not None,
            address=address,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

    def _released(self, link: Link[Session]) -> None:
        life = link.session.sibling
        known = None if life is None else self._up.get(life.replica_id)
        if life is None or known is None or known.link is not link:
            return
        name, now = life.replica_id, self._monotonic()
        del self._up[name]
        self._telling.outgoing.pop(name, None)
        self._reasons[name] = link.reason
        self._hearing.forget(name, now)
        # What it never heard of is not lost: it counts here as what comes of decisions that nobody knows.
        for outcome in known.outgoing.reports:
            self._router.report(outcome, now)
        self._prober.reshare()
        if not self._stopping:
            self._log.info("link to sibling replica ended", replica=name, reason=link.reason)
        if not self.members.lives(name):
            self._gone(name)

    async def farewell(self) -> None:
        """Ends links with a goodbye, and takes this replica out of the database. Nothing is dialed any more."""
        if self._stopping:
            return
        self._stopping = True
        for sibling in list(self._up.values()):
            sibling.link.end(f"{self.me.replica_id} shuts down")
        try:
            await self._store.leave(Replica(self.me.replica_id, "", self.me.incarnation))
        except CatalogError as e:
            self._log.warning("the database did not hear that this replica leaves; it is seen soon", error=str(e))
        for _ in range(20):
            if not self._up:
                return
            await asyncio.sleep(0.05)

    # --- what links need

    def carry(self, link: Link[Session], effect: Effect, now: float) -> str:
        """Carries out what a session asks for; "" or why the link ends."""
        match effect:
            case Met(life):
                return self._met(link, life, now)
            case Heard(news, age):
                assert link.session.sibling is not None, "news come after the hello"
                name = link.session.sibling.replica_id
                known = self._up.get(name)
                if known is not None and known.link is link:
                    known.trials, known.turns = frozenset(news.trials), frozenset(news.turns)
                    self._hearing.take(name, news, age, known.outgoing, now)
                    known.caught_up = known.caught_up or len(news.probes) < MAX_ITEMS
        return ""

    def _met(self, link: Link[Session], life: Life, now: float) -> str:
        if self._stopping:
            return f"{self.me.replica_id} shuts down"
        before = self._up.get(life.replica_id)
        if before is not None and stays(before.link, link, opener=self.me.replica_id < life.replica_id):
            return "the other link between the two stays"
        sibling = self._up[life.replica_id] = Linked(link, now)
        self._telling.outgoing[life.replica_id] = sibling.outgoing
        sibling.outgoing.probes += self._monitor.last_probes(now)
        # It tells everything anew, and not what is over.
        self._hearing.forget(life.replica_id, now)
        if before is not None:
            sibling.outgoing.reports += before.outgoing.reports
            before.link.end("a newer link takes its place")
        self._prober.reshare()
        self._log.info("sibling replica met", replica=life.replica_id, address=link.address)
        return ""

    def offer(self, link: Link[Session], now: float) -> tuple[Effect, ...]:
        """The next news for a sibling."""
        life = link.session.sibling
        known = None if life is None else self._up.get(life.replica_id)
        if life is None or known is None or known.link is not link:
            return ()
        if known.outgoing.waiting > MAX_WAITING:
            return link.session.end(f"more than {MAX_WAITING:,} events wait for it")
        standing = self._telling.standing(self._monitor, self._router, now, anew=known.outgoing.begins_anew(now))
        turns = tuple(sorted(self._turns.held(life.replica_id)))
        return link.session.tell(known.outgoing.take(standing, turns, now), now)

    # --- what is shared out

    def ours(self, node: str) -> bool:
        """Whether a node's probes, and its turns of trials, are this replica's."""
        return not self._up or share_of(node, (self.me.replica_id, *self._up)) == self.me.replica_id

    def elsewhere(self, node: str, holder: str) -> bool:
        """Whether the end of a node's lease is for another replica to see; `holder` heard the node last, "": unknown.

        Where nobody is known to have heard it, a replica that we have no link to may have.
        """
        if holder:
            return holder in self._up or self.members.lives(holder)
        return not self.members.living().keys() <= self._up.keys() or not self.ours(node)

    def share_trials(self, now: float) -> None:
        """Gives turns of trials, and leaves all that is not our turn to siblings."""
        if self._tripped_version != self._monitor.version:
            self._tripped_version, self._tripped = self._monitor.version, self._monitor.tripped()
        slots, tripped = self._router.state.slots, self._tripped if self._up else {}
        half_open = [name for name, half in tripped.items() if half and self.ours("/".join(name.split("/", 2)[:2]))]
        seen = {
            name: Seen(each.link.session.told, each.link.session.echoed, each.trials) for name, each in self._up.items()
        }
        trials = self._router.reservations.trials
        self._turns.step(half_open, seen, [name for name in half_open if slots.get(name) in trials], now)
        granted = self._turns.held(SELF).union(*(each.turns for each in self._up.values()))
        withheld = (slots[name] for name in tripped if name not in granted and name in slots)
        self._router.reservations.withhold(frozenset(withheld))

    def report(self, outcome: Outcome, now: float) -> Reported:
        """Takes an outcome: here, or at the replica that decided, which is told within a pulse."""
        known = self._up.get(outcome.decision_id.rpartition("-")[0])
        if known is None:
            return self._router.report(outcome, now)
        if outcome in self._forwarded:
            return Reported.REPEATED
        self._forwarded.add(outcome)
        known.outgoing.reports.append(outcome)
        self.reports_forwarded += 1
        return Reported.ACCEPTED

    # --- what others ask

    def statuses(self) -> list[SiblingStatus]:
        """Every replica that lives or is linked, by id."""
        living = self.members.living()
        alike = dict.fromkeys(living.keys() - self._others().keys(), SAME_ADDRESS)
        return statuses(living, self._up, {**self._reasons, **alike}, self._monotonic())


async def _again(first: Message, messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
    yield first
    async for message in messages:
        yield message
