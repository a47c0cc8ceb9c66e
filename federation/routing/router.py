"""The router: decides, reserves, and takes reports.

`Router.decide` reads and changes nothing; `Router.route` decides and then claims room for the chosen target alone.
Neither awaits, locks or reaches for anything outside this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum

import numpy as np

from federation.config import RoutingSettings
from federation.routing.claims import Claims, RouterStats
from federation.routing.deciding import CandidateList, Deciding
from federation.routing.decisions import Record
from federation.routing.heard import Heard
from federation.routing.learning import learn_from
from federation.routing.planner import Planner
from federation.routing.reservations import Reservation, Reservations
from federation.routing.ring import DecisionLog, DecisionRing, DecisionUnknown
from federation.routing.runs import Placed, Run
from federation.routing.seats import Seats
from federation.routing.shadow import Shadows
from federation.routing.state import STEP_SECONDS, State
from federation.routing.table import Table
from policies import chance
from policies.errors import NoCandidate
from policies.policy import Policy
from policies.registry import BUILT_IN, Registry
from policies.types import Decision, Outcome, Phase, RouteRequest

# Seeds that are drawn up together.
SEEDS = 1_024
# More run or wait at no engine; what is told beyond it would make sums of seconds infinite.
MOST_SEQUENCES = 1e6


class Reported(Enum):
    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNKNOWN = "unknown"


def ignore(deployment: str, outcome: Outcome, now: float) -> None:
    """Nobody listens."""


class Router:
    """Decides requests on one event loop. `wall` gives Unix seconds; `now` everywhere is monotonic seconds."""

    def __init__(
        self,
        settings: RoutingSettings,
        *,
        replica: str,
        seed: int,
        wall: Callable[[], float],
        log: DecisionLog | None = None,
        on_outcome: Callable[[str, Outcome, float], None] = ignore,
        on_suspicion: Callable[[str, float, float], None] | None = None,
        registry: Registry = BUILT_IN,
    ) -> None:
        self._replica = replica
        self._seed = seed
        self._wall = wall
        self._log = log
        self._on_outcome = on_outcome
        self._on_suspicion = on_suspicion
        self._number = 0
        # Of the number's thousand or so, its own seed and what that draws first; and the first number of them.
        self._seeds: list[tuple[int, int, int]] = []
        self._first_seed = -1
        self.state = State()
        self._deciding = Deciding(settings, replica=replica, seed=seed, wall=wall, registry=registry, state=self.state)
        self._decide = self._deciding.decide_by
        self._roads = self._deciding.roads
        self.rations = self._deciding.rations
        self.spills = self._deciding.spills
        self._seats = Seats(self.state)
        self.reservations = Reservations(self.state)
        self._heard = Heard()
        self.ring = DecisionRing(settings.decisions_kept)
        self.stats = RouterStats()
        self._claims = Claims(self.state, self.reservations, self.rations, self.ring, self.stats)
        self.shadows = Shadows()

    @property
    def table(self) -> Table:
        """The table that decisions read. NoCandidate before the first one is there."""
        return self._deciding.table

    @property
    def ready(self) -> bool:
        return self._deciding.installed is not None

    @property
    def planner(self) -> Planner:
        """The plans of the table that decisions read."""
        return self._deciding.planner

    @property
    def policies(self) -> Mapping[str, Policy]:
        return self._deciding.policies

    def install(self, table: Table) -> None:
        """Swaps the table; decisions from now on read it."""
        self.reservations.follow()
        self._deciding.install(replace(table, pool=replace(table.pool, slot=self._seats.follow(table))))

    def renew_plans(self, most: int) -> int:
        """Makes plans that were asked for lately for the current table, so many at most; how many it made."""
        return self.planner.renew(self.state, most)

    def install_policies(self, policies: Mapping[str, Policy]) -> None:
        """Stored policies from now on; presets are there unless one of the same name is stored."""
        self._deciding.install_policies(policies)

    def policy(self, name: str) -> Policy:
        """A policy by name, "" the default. NoCandidate("POLICY_UNKNOWN")."""
        return self._deciding.policy(name)

    # Deciding: reads only.

    def decide(self, request: RouteRequest, now: float, *, number: int, whole: bool = False) -> Record:
        """Decides without claiming. `whole` keeps every candidate's values. Raises NoCandidate."""
        return self._deciding.decide(request, now, number=number, whole=whole)

    def candidates(self, request: RouteRequest, now: float) -> CandidateList:
        """Every candidate with every term; changes nothing. NoCandidate only for what is unknown."""
        return self._deciding.candidates(request, now)

    # Acting.

    def route(self, request: RouteRequest, now: float) -> Decision:
        """Decides and claims room at the target. Raises NoCandidate."""
        return self.place(request, now).render()

    def place(self, request: RouteRequest, now: float) -> Record:
        """`route`, not rendered yet."""
        if now - self.state.advanced >= STEP_SECONDS:
            self.state.advance(now)
        return self._place(request, now, self._wall())

    def place_many(self, requests: Sequence[RouteRequest], now: float) -> Placed:
        """Each of many requests as `place` places them one after the other, or why nobody may serve it."""
        if now - self.state.advanced >= STEP_SECONDS:
            self.state.advance(now)
        wall = self._wall()
        placed: list[Record | NoCandidate | Run] = []
        while len(placed) < len(requests):
            begin = len(placed)
            run, length = self._deciding.run(requests, begin, self._number, wall, now)
            if run is not None:
                placed += self._place_run(run)
            else:
                # Short runs, and whoever ended this one.
                placed += [self._place_or_why(each, now, wall) for each in requests[begin : begin + length + 1]]
        return Placed(placed)

    def _place_run(self, run: Run) -> list[Record | NoCandidate | Run]:
        """Places the requests of a run in their order; those that no pair settles alone."""
        log, state, pairs = self._log, self.state, run.pairs
        pending, in_flight, turn, turns = state.pending, state.in_flight, state.turn, state.turns
        placed: list[Record | NoCandidate | Run] = [run] * len(run.requests)
        # Slots that decisions of this run took, and of those that are not filed yet, one each.
        moved: set[int] = set()
        slots: list[int] = []
        add, filed = moved.add, 0
        take = slots.append
        seen_by = zip(*pairs.slots.tolist(), strict=True)
        columns = zip(seen_by, pairs.settled.tolist(), pairs.second.tolist(), run.tokens, strict=True)
        for place, (seen, settled, second, tokens) in enumerate(columns):
            logged = log is not None and log.wants()
            if settled and not logged and moved.isdisjoint(seen):
                slot = seen[second]
            elif logged or (slot := run.again(place, state)) < 0:
                state.turns = turns
                self._claims.section(run, filed, place, slots)
                slots.clear()
                filed = place + 1
                self._number = run.number + place
                placed[place] = made = self._place_or_why(run.requests[place], run.now, run.wall_time, logged)
                turns = state.turns
                if isinstance(made, Record):
                    add(made.slot(0))
                continue
            pending[slot] += tokens
            in_flight[slot] += 1.0
            turn[slot] = turns = turns + 1.0
            add(slot)
            take(slot)
        state.turns = turns
        self._claims.section(run, filed, len(placed), slots)
        self._number = run.number + len(placed)
        return placed

    def _place_or_why(
        self, request: RouteRequest, now: float, wall: float, logged: bool | None = None
    ) -> Record | NoCandidate:
        try:
            return self._place(request, now, wall, logged)
        except NoCandidate as error:
            # Kept as a value: the frames that it went through are nobody's to hold.
            return error.with_traceback(None)

    def _place(self, request: RouteRequest, now: float, wall: float, logged: bool | None = None) -> Record:
        """`place` at a wall-clock time, after what fades has faded; `logged`: whether the log wants it, if known."""
        number = self._number
        self._number = number + 1
        place = number % SEEDS
        if number - place != self._first_seed:
            self._first_seed = number - place
            self._seeds = chance.seeds(self._seed, number - place, SEEDS)
        log = self._log
        if logged is None:
            logged = log is not None and log.wants()
        try:
            record = self._decide(request, now, number, self._seeds[place], wall, logged)
        except NoCandidate as error:
            self.stats.refused[error.reason] += 1
            self.rations.refused(error, request, now)
            raise
        if record.frame.policy.shadow_policy:
            record.told.shadowed = self.shadows.beside(record, lambda other: self.decide(other, now, number=number))
        self._claims.one(record, now)
        if logged and log is not None:
            log.write(record.entry())
        return record

    # Hearing.

    def report(self, outcome: Outcome, now: float) -> Reported:
        """Takes what a gateway tells of an attempt. Repeats count once.

        Room is given back by the decision's number, so that a decision that is no longer remembered holds none.
        """
        self.state.advance(now)
        if outcome.decision_id and outcome in self._heard:
            return Reported.REPEATED
        number = self._number_of(outcome.decision_id)
        record, held = self.ring.get(number), self.reservations.get(number)
        deployment = self._deployment(outcome, record, held)
        if deployment is None and held is None:
            return Reported.UNKNOWN
        late = outcome.phase is Phase.STARTED and self._heard.ended(outcome)
        self._heard.add(outcome)
        if record is not None:
            record.outcomes.append(outcome)
        slot = self.state.slots.get(deployment or "", -1)
        attempt = outcome.attempt
        match outcome.phase:
            case Phase.STARTED:
                planned = record is not None and 0 < attempt < len(record.chosen)
                if record is not None and planned and not late and (held is None or held.attempt < attempt):
                    self._claims.attempt(record, attempt, now)
                    self.rations.moved(record, attempt)
            case Phase.FIRST_TOKEN:
                held = self.reservations.first_token(number, attempt, now)
                if held is not None and held.attempt == attempt:
                    learn_from(self.state, held, slot, outcome, now)
            case Phase.FINISHED:
                held = self.reservations.release(number, attempt)
                if held is not None and held.trial and outcome.result is not None and outcome.result.is_failure:
                    self.reservations.fail(held.slot)
                own = held if held is not None and held.attempt == attempt else None
                if record is not None:
                    self.rations.finished(record, outcome)
                learn_from(self.state, own, slot, outcome, now)
                self.stats.outcomes[outcome.result.value if outcome.result else "unspecified"] += 1
        if record is not None and deployment is not None:
            self._roads.learn(record, deployment, outcome, now)
        if outcome.phase is not Phase.STARTED and deployment is not None:
            self._on_outcome(deployment, outcome, now)
        return Reported.ACCEPTED

    def _number_of(self, decision_id: str) -> int:
        """The number in a decision's id; -1 where another replica, or nobody, made it."""
        replica, _, text = decision_id.rpartition("-")
        if replica != self._replica:
            return -1
        try:
            number = int(text, 16)
        except ValueError:
            return -1
        return number if f"{number:x}" == text else -1

    def _deployment(self, outcome: Outcome, record: Record | None, held: Reservation | None) -> str | None:
        """The deployment that an outcome speaks of: as named, else as decided. None: neither is known here."""
        if outcome.region_id and outcome.node_id and outcome.model_id:
            name = f"{outcome.region_id}/{outcome.node_id}/{outcome.model_id}"
            return name if name in self.state.slots else None
        if record is not None:
            names, chosen = record.table.pool.names, record.chosen
            return names[chosen[outcome.attempt]] if outcome.attempt < len(chosen) else None
        if held is None or held.attempt != outcome.attempt:
            return None
        return self._seats.name(held.slot) or None

    def observe_load(self, node: str, running: float | None, queue: float | None, now: float) -> None:
        """What an engine or its agent says of a node: sequences that run and that wait. None is unknown."""
        self.state.advance(now)
        table = self._deciding.installed
        queue = None if queue is None else min(queue, MOST_SEQUENCES)
        for row, slot in self._seats.of_node(node):
            if running is not None:
                self.state.running[slot] = min(running, MOST_SEQUENCES) + (queue or 0.0)
                self.state.touch(slot)
            if queue is not None and table is not None:
                per_token = float(table.pool.prefill[row])
                if np.isnan(per_token):
                    per_token = self.policy("").assume.prefill_seconds_per_token
                ours = self.state.pending[slot] / max(1.0, self.state.mean_tokens)
                self.state.await_others(slot, max(0.0, queue - ours) * self.state.mean_tokens * per_token)

    def sweep(self, now: float) -> None:
        """Turns deadlines: lets forgotten room go, and suspects who owes a first token. Every 100 ms."""
        self.state.advance(now)
        self.spills.step(self._deciding.installed, self.state, now)
        for late, ratio in self.reservations.sweep(now):
            self.state.suspect(late.slot, ratio)
        if self._on_suspicion is not None:
            for slot in np.flatnonzero(np.asarray(self.state.suspicion) > TOLD_SUSPICION).tolist():
                name = self._seats.name(slot)
                if name:
                    self._on_suspicion(name, self.state.suspicion[slot], now)
        if self._log is not None:
            self._log.flush()

    def decision(self, decision_id: str) -> Record:
        """A remembered decision. DecisionUnknown."""
        found = self.ring.get(self._number_of(decision_id))
        if found is None:
            raise DecisionUnknown(decision_id, self.ring.keep)
        return found

    def trust(self, deployment: str) -> None:
        """Ends what a deployment is suspected of, because it recovered; one that is not known is passed over."""
        slot = self.state.slots.get(deployment)
        if slot is not None:
            self.state.trust(slot)

    def load_of(self, deployment: str) -> tuple[int, int]:
        """Requests in flight and prompt tokens without a first token that this replica routed to a deployment."""
        slot = self.state.slots.get(deployment)
        if slot is None:
            return 0, 0
        pending, in_flight = self.state.own_at(slot)
        return int(in_flight), int(pending)


# Below this the monitor would not call anybody degraded whatever its setting: the least that it allows is higher.
TOLD_SUSPICION = 1.5
