"""The router: reads the current table, decides, reserves, and takes reports.

`Router.decide` reads and changes nothing; `Router.route` decides and then claims room for the chosen target alone.
Neither awaits, locks or reaches for anything outside this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from federation.config import RoutingSettings
from federation.routing import wording
from federation.routing.asked import unknown
from federation.routing.decisions import NOTHING_CACHED, PLAIN, Rare, Record, Told, cached_column, rejections
from federation.routing.frame import Frame, draw_two, frame_of
from federation.routing.heard import Heard
from federation.routing.learning import learn_from
from federation.routing.planner import MAX_PLANS, MAX_ROWS, Planner
from federation.routing.rations import Rations
from federation.routing.reservations import Reservation, Reservations
from federation.routing.ring import DecisionLog, DecisionRing, DecisionUnknown
from federation.routing.roads import Roads
from federation.routing.seats import Seats
from federation.routing.shadow import Shadows
from federation.routing.spills import Spills
from federation.routing.state import STEP_SECONDS, State, load_of
from federation.routing.table import Table
from federation.routing.walk import walk
from policies import chance
from policies.errors import NoCandidate
from policies.pipeline import choose, evaluate, judge, reason_for_none, refuse, settle_health
from policies.policy import Policy
from policies.pool import FloatArray
from policies.presets import PRESETS
from policies.registry import BUILT_IN, Registry
from policies.types import Candidate, Code, Decision, Explain, Kind, Outcome, Phase, RouteRequest

# Half of a probe interval: on the average somebody who is well again is seen to be so after this.
UNHEALTHY_RETRY_SECONDS = 5.0
# Alternatives that are told at most.
MAX_ALTERNATIVES = 16
# Seeds that are drawn up together.
SEEDS = 1_024


class Reported(Enum):
    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class RouterStats:
    """Plain counts since the start; metrics read them when they are scraped."""

    decisions: int = 0
    walked: int = 0
    visited: int = 0
    panics: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    chosen: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (model, client region, chosen region)


@dataclass(frozen=True, slots=True)
class CandidateList:
    """All candidates of a request at one moment: the eligible by score, then the rejected by name."""

    candidates: Sequence[Candidate]
    rejected: Mapping[str, int]
    table_revision: int


def ignore(deployment: str, outcome: Outcome, now: float) -> None:
    """Nobody listens."""


class Router:
    """Decides requests on one event loop. `wall` gives Unix seconds; `now` everywhere is monotonic seconds."""

    def __init__(
        self,
        settings: RoutingSettings,
        *,
        home_region: str,
        replica: str,
        seed: int,
        wall: Callable[[], float],
        log: DecisionLog | None = None,
        on_outcome: Callable[[str, Outcome, float], None] = ignore,
        on_suspicion: Callable[[str, float, float], None] | None = None,
        registry: Registry = BUILT_IN,
    ) -> None:
        self._settings = settings
        self._home_region = home_region
        self._replica = replica
        self._seed = seed
        self._wall = wall
        self._log = log
        self._on_outcome = on_outcome
        self._on_suspicion = on_suspicion
        self._registry = registry
        self._number = 0
        # Of the number's thousand or so, its own seed and what that draws first.
        self._seeds: list[tuple[int, int, int]] = []
        # Frames by kind and sizes, where no rule looks at more of a request; all of them by their plan.
        self._frames: dict[tuple[Kind, int, int], Frame] = {}
        self._framed: dict[int, Frame] = {}
        self._rows_framed = 0
        self._table: Table | None = None
        self._roads = Roads()
        self._planner = Planner(registry, self._roads)
        self.rations = Rations(settings.tenant_policies, settings.policy)
        self.spills = Spills()
        self.state = State()
        self._seats = Seats(self.state)
        self.reservations = Reservations(self.state)
        self._heard = Heard()
        self.ring = DecisionRing(settings.decisions_kept)
        self.stats = RouterStats()
        self.shadows = Shadows()
        self.policies: dict[str, Policy] = {}
        self.install_policies({})

    @property
    def table(self) -> Table:
        """The table that decisions read. NoCandidate before the first one is there."""
        if self._table is None:
            raise NoCandidate(
                "ALL_NODES_UNHEALTHY",
                "the server has only started and has no routing table yet; retry",
                retry_after_seconds=0.2,
            )
        return self._table

    @property
    def ready(self) -> bool:
        return self._table is not None

    @property
    def planner(self) -> Planner:
        """The plans of the table that decisions read."""
        return self._planner

    def install(self, table: Table) -> None:
        """Swaps the table; decisions from now on read it."""
        table = replace(table, pool=replace(table.pool, slot=self._seats.follow(table)))
        self._table = table
        self._planner.follow(table)
        self._forget()

    def renew_plans(self, most: int) -> int:
        """Makes plans that were asked for lately for the current table, so many at most; how many it made."""
        return self._planner.renew(self.state, most)

    def install_policies(self, policies: Mapping[str, Policy]) -> None:
        """Stored policies from now on; presets are there unless one of the same name is stored."""
        most, least = self._settings.max_candidates, self._settings.min_score
        presets = {name: replace(p, max_candidates=most, min_score=least) for name, p in PRESETS.items()}
        self.policies = {**presets, **policies}
        self.rations.install(self.policies)
        self._planner.forget()
        self._forget()

    def policy(self, name: str) -> Policy:
        """A policy by name, "" the default. NoCandidate("POLICY_UNKNOWN")."""
        found = self.policies.get(name or self._settings.policy)
        if found is None:
            known = ", ".join(sorted(self.policies))
            raise NoCandidate(
                "POLICY_UNKNOWN", f"policy_id {name or self._settings.policy!r} does not exist; there are {known}"
            )
        return found

    # Deciding: reads only.

    def decide(self, request: RouteRequest, now: float, *, number: int, whole: bool = False) -> Record:
        """Decides without claiming. `whole` keeps every candidate's values. Raises NoCandidate."""
        seed = chance.mix(self._seed ^ number)
        return self._decide(
            request, now, number, (seed, chance.draw(seed, 0), chance.draw(seed, 1)), self._wall(), whole
        )

    def _decide(
        self, request: RouteRequest, now: float, number: int, seeds: tuple[int, int, int], wall: float, whole: bool
    ) -> Record:
        """`decide` from the seed of a number and the first two draws of that."""
        seed, one, two = seeds
        demotion = ""
        if self.rations.budgeted:
            policy = self.policy(self.rations.policy_id(request))
            request, demotion = self.rations.within_budget(request, policy, wall)
        tokens, answer = request.input_tokens, request.max_output_tokens
        frame = self._frames.get(
            (request.kind, -1 if tokens is None else tokens.bit_length(), -1 if answer is None else answer.bit_length())
        )
        if frame is None:
            frame = self._frame(request, wall, seed)
        policy = frame.policy
        if tokens is None:
            tokens = policy.assume.input_tokens
        if answer is None:
            answer = policy.assume.output_tokens
        wanted = request.max_alternatives
        if wanted is None:
            wanted = policy.max_alternatives
        elif wanted > MAX_ALTERNATIVES:
            wanted = MAX_ALTERNATIVES
        whole = whole or frame.small or request.explain is Explain.FULL
        state = self.state
        kept = state.matrix.take(frame.slots, axis=1) if whole else None
        fits = (request.input_tokens or 0) + (request.max_output_tokens or 0) <= frame.ranking.window
        if frame.paired and fits and not request.session_id and not request.prefix_hashes and not demotion:
            drawn = draw_two(frame, state, tokens, answer, one, two, wanted)
            if drawn is not None:
                visits, row, at_node = drawn
                return Record(
                    number,
                    frame,
                    request,
                    tokens,
                    answer,
                    seed,
                    wanted,
                    wall,
                    now,
                    visits,
                    None,
                    kept,
                    row,
                    at_node,
                    "picker",
                    0,
                    False,
                )
        return self._decide_plainly(
            frame, request, now, number, seed, (one, two), tokens, answer, wanted, wall, kept, fits, demotion
        )

    def _frame(self, request: RouteRequest, wall: float, seed: int) -> Frame:
        """The frame for a request, made where there is none."""
        policy, rations = self.policy(self.rations.policy_id(request)), self.rations
        plan = self._planner.plan(request, policy, rations.terms(request, policy), self.table, self.state, wall, seed)
        found = self._framed.get(id(plan))
        if found is None:
            found = self._framed[id(plan)] = frame_of(self._replica, self._registry, self.state.spread, plan)
            self._rows_framed += len(plan.rows)
        if not policy.rules:
            tokens, answer = request.input_tokens, request.max_output_tokens
            asked = -1 if tokens is None else tokens.bit_length()
            self._frames[(request.kind, asked, -1 if answer is None else answer.bit_length())] = found
        if self._rows_framed > MAX_ROWS or len(self._framed) > MAX_PLANS or len(self._frames) > 4 * MAX_PLANS:
            self._forget()
        return found

    def _forget(self) -> None:
        self._frames.clear()
        self._framed.clear()
        self._rows_framed = 0

    def _decide_plainly(
        self,
        frame: Frame,
        request: RouteRequest,
        now: float,
        number: int,
        seed: int,
        draws: tuple[int, int],
        tokens: int,
        answer: int,
        wanted: int,
        wall: float,
        kept: FloatArray | None,
        fits: bool,
        demotion: str,
    ) -> Record:
        """Decides by a walk, and where that cannot tell by the whole pipeline."""
        state, plan, policy, ranking = self.state, frame.plan, frame.policy, frame.ranking
        admission = None
        if plan.room is not None:
            admission = self.rations.admit(plan, plan.room, request, tokens + answer, state, seed)
        spill = None if policy.spillover is None else self.spills.draw(plan, state, seed, now)
        session_slot = state.session_slot(request.session_key, now) if request.session_id else -1
        cached = self._cached(request, policy, tokens) if request.prefix_hashes else NOTHING_CACHED
        walked = None
        if frame.walkable and fits:
            walked = walk(
                ranking,
                frame.scalars,
                state,
                policy,
                request,
                tokens,
                answer,
                seed,
                session_slot,
                wanted,
                cached,
                frame.table.pool.names,
                None,
                draws,
            )
        rare = PLAIN
        if walked is not None:
            rejected = rejections(ranking.counts, walked.full, walked.low) if walked.full or walked.low else None
            if session_slot >= 0 or cached or rejected or demotion or admission is not None:
                rare = Rare(session_slot, cached, rejected, demotion=demotion, admission=admission)
            return Record(
                number,
                frame,
                request,
                tokens,
                answer,
                seed,
                wanted,
                wall,
                now,
                None,
                walked.visited,
                kept,
                walked.target,
                walked.at_node,
                walked.by,
                walked.near,
                walked.swept,
                walked.found,
                rare,
            )
        rows = plan.rows
        ask = plan.ask(request, tokens, answer, wall, None if spill is None else spill.turns)
        pool = plan.table.pool.take(rows)
        code, panic = ranking.code, ranking.panic
        if not fits:
            # The ranking is of prompts of any length.
            hard = refuse(ask, pool, self._registry, ranking.narrow)
            code, panic = settle_health(hard, pool, policy.panic_threshold)
        moving = state.matrix.take(frame.slots, axis=1) if kept is None else kept
        found = judge(ask, pool, load_of(moving, cached_column(cached, pool.slot)), self._registry, code.copy(), panic)
        selected = choose(
            found,
            self._registry,
            picker=policy.picker,
            seed=seed,
            key=request.hash_key,
            session_slot=session_slot,
            wanted=wanted,
        )
        counts = found.counts()
        if selected is None:
            raise self._nothing(request, counts, plan.table, now)
        chosen = tuple(rows[[selected.target, *selected.alternatives]].tolist())
        return Record(
            number,
            frame,
            request,
            tokens,
            answer,
            seed,
            wanted,
            wall,
            now,
            None,
            None,
            moving,
            chosen[0],
            float(found.seen.at_node[selected.target]),
            selected.by,
            selected.near,
            False,
            None,
            Rare(session_slot, cached, counts, code, panic, demotion, admission, spill),
            chosen,
            Told(ask=ask),
        )

    def _cached(self, request: RouteRequest, policy: Policy, tokens: int) -> Mapping[int, float]:
        if not request.prefix_hashes or not policy.prefix_affinity:
            return NOTHING_CACHED
        return self.state.cached_tokens(request.prefix_hashes, request.prefix_block_tokens, tokens)

    def _nothing(self, request: RouteRequest, rejected: Mapping[str, int], table: Table, now: float) -> NoCandidate:
        """Why nobody is left, as an error. Candidates of other tenants are absent, not forbidden."""
        reason = reason_for_none(rejected)
        subject = request.model_id or f"capability {request.capability}"
        if reason == "UNKNOWN":
            return unknown(request.model_id, request.capability)
        told = {code: count for code, count in rejected.items() if code != Code.TENANT.name}
        again = table.retry_at - now if Code.CIRCUIT_OPEN.name in told else UNHEALTHY_RETRY_SECONDS
        retry = {"NO_CAPACITY": 1.0, "ALL_NODES_UNHEALTHY": max(1.0, min(30.0, again))}.get(reason)
        return NoCandidate(reason, wording.nothing(reason, subject, told), rejected=told, retry_after_seconds=retry)

    # Acting.

    def route(self, request: RouteRequest, now: float) -> Decision:
        """Decides and claims room at the target. Raises NoCandidate."""
        return self.place(request, now).render()

    def place(self, request: RouteRequest, now: float) -> Record:
        """`route`, not rendered yet."""
        if now - self.state.advanced >= STEP_SECONDS:
            self.state.advance(now)
        return self._place(request, now, self._wall())

    def place_many(self, requests: Sequence[RouteRequest], now: float) -> list[Record | NoCandidate]:
        """Each of many requests as `place` places them one after the other, or why nobody may serve it."""
        if now - self.state.advanced >= STEP_SECONDS:
            self.state.advance(now)
        wall, place = self._wall(), self._place
        placed: list[Record | NoCandidate] = []
        add = placed.append
        for request in requests:
            try:
                add(place(request, now, wall))
            except NoCandidate as error:
                # Kept as a value: the frames that it went through are nobody's to hold.
                add(error.with_traceback(None))
        return placed

    def _place(self, request: RouteRequest, now: float, wall: float) -> Record:
        """`place` at a wall-clock time, after what fades has faded."""
        number = self._number
        self._number = number + 1
        place = number % SEEDS
        if place == 0 or not self._seeds:
            self._seeds = chance.seeds(self._seed, number - place, SEEDS)
        log = self._log
        logged = log is not None and log.wants()
        try:
            record = self._decide(request, now, number, self._seeds[place], wall, logged)
        except NoCandidate as error:
            self.stats.refused[error.reason] += 1
            self.rations.refused(error, request, now)
            raise
        if record.frame.policy.shadow_policy:
            record.told.shadowed = self.shadows.beside(record, lambda other: self.decide(other, now, number=number))
        self._claim(record, now)
        if logged and log is not None:
            log.write(record.entry())
        return record

    def _claim(self, record: Record, now: float) -> None:
        """Takes room at the target, and counts."""
        request, frame, stats, state = record.request, record.frame, self.stats, self.state
        row = record.row
        scalars, rare = frame.scalars, record.rare
        slot = scalars.slot[row]
        if record.by == "trial":
            self._reserve(record, 0, now)
        else:
            tokens = float(record.tokens)
            if rare.cached:
                tokens = max(0.0, tokens - rare.cached.get(slot, 0.0))
            # Nothing has moved since the decision.
            self.reservations.hold(
                record.number,
                slot,
                tokens,
                now,
                record.at_node,
                state.suspicion[slot],
                state.wait[slot],
                frame.plan.round_trips[scalars.domains.place[row]],
                record.answer,
                scalars.decode[row],
            )
        if request.session_id:
            state.bind_session(request.session_key, slot, now, frame.policy.session_ttl_seconds)
        if request.prefix_hashes:
            state.saw_prefixes(request.prefix_hashes, slot)
        stats.decisions = decisions = stats.decisions + 1
        state.mean_tokens += (record.tokens - state.mean_tokens) * (1.0 / decisions if decisions < 1_000 else 0.001)
        if frame.plan.room is not None or rare.demotion or self.rations.budgeted:
            self.rations.claimed(record, now)
        self.ring.add(record)
        visits = record.drawn or record.entries
        if visits is None:
            stats.visited += len(frame.plan.rows)
        else:
            stats.walked += 1
            stats.visited += len(visits)
        stats.panics += frame.ranking.panic if rare.panic is None else rare.panic
        stats.chosen[frame.keys.get(row) or frame.key(row)] += 1
        rejected = rare.rejected
        if rejected is None:
            rejected = frame.ranking.counts
        if rejected:
            for code, count in rejected.items():
                stats.rejected[code] += count

    def _reserve(self, record: Record, attempt: int, now: float) -> None:
        """Takes room for an attempt, in place of an earlier one of the same decision."""
        frame, row, place, load = record.frame, record.chosen[attempt], record.places[attempt], record.load
        slot = frame.scalars.slot[row]
        at_node = float(record.evaluation.seen.at_node[place])
        round_trip = frame.plan.round_trips[frame.scalars.domains.place[row]]
        self.reservations.take(
            Reservation(
                decision=record.number,
                attempt=attempt,
                slot=slot,
                tokens=max(0.0, record.tokens - record.cached.get(slot, 0.0)),
                started=now,
                expected=at_node / float(load.suspicion[place]) - float(load.wait[place]),
                predicted=at_node,
                round_trip=round_trip,
                latency=round_trip + at_node + record.answer / frame.scalars.decode[row],
                trial=record.by == "trial" and attempt == 0,
            )
        )

    def candidates(self, request: RouteRequest, now: float) -> CandidateList:
        """Every candidate with every term; changes nothing. NoCandidate only for what is unknown."""
        wall = self._wall()
        policy = self.policy(self.rations.policy_id(request))
        terms = self.rations.terms(request, policy)
        plan = self._planner.plan(request, policy, terms, self.table, self.state, wall, 0)
        assume, rows = plan.policy.assume, plan.rows
        tokens = assume.input_tokens if request.input_tokens is None else request.input_tokens
        answer = assume.output_tokens if request.max_output_tokens is None else request.max_output_tokens
        pool = plan.table.pool.take(rows)
        cached = self._cached(request, plan.policy, tokens)
        moving = self.state.moving(pool.slot, now)
        load = load_of(moving, cached_column(cached, pool.slot))
        ask = plan.ask(request, tokens, answer, wall)
        found = evaluate(ask, pool, load, self._registry, plan.ranking.narrow)
        if len(rows) and (found.code == Code.TENANT.value).all():
            raise unknown(request.model_id, request.capability)
        record = Record(
            number=-1,
            frame=frame_of(self._replica, self._registry, self.state.spread, plan),
            request=request,
            tokens=tokens,
            answer=answer,
            seed=0,
            wanted=0,
            wall_time=wall,
            now=now,
            drawn=None,
            entries=None,
            whole=moving,
            row=-1,
            at_node=0.0,
            by="",
            near=0,
            swept=False,
            rare=Rare(cached=cached, rejected=found.counts(), code=found.code, panic=found.panic),
            _chosen=(),
            _told=Told(ask=ask, evaluation=found),
        )
        return CandidateList(record.candidates(), record.told_rejections, plan.table.revision)

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
                    self._reserve(record, attempt, now)
                    self.rations.moved(record, attempt)
            case Phase.FIRST_TOKEN:
                held = self.reservations.first_token(number, attempt, now)
                if held is not None and held.attempt == attempt:
                    learn_from(self.state, held, slot, outcome, now)
            case Phase.FINISHED:
                held = self.reservations.release(number, attempt)
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
        table = self._table
        for row, slot in self._seats.of_node(node):
            if running is not None:
                self.state.running[slot] = running + (queue or 0.0)
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
        self.spills.step(self._table, self.state, now)
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
