"""Deciding: reads the table and what moves beside it, and changes neither.

A decision awaits, locks and reaches for nothing outside this process; who acts on it is the router.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from federation.config import RoutingSettings
from federation.routing import wording
from federation.routing.asked import unknown
from federation.routing.decisions import NOTHING_CACHED, PLAIN, Rare, Record, Told, rejections
from federation.routing.frame import MAX_ALTERNATIVES, Frame, draw_two, frame_of
from federation.routing.groups import Entry
from federation.routing.look import Found
from federation.routing.planner import MAX_PLANS, MAX_ROWS, Planner
from federation.routing.rations import Rations
from federation.routing.roads import Roads
from federation.routing.runs import Run, begun
from federation.routing.spills import Spills
from federation.routing.state import State, cached_column, load_of
from federation.routing.table import Table
from federation.routing.walk import walk
from policies import chance
from policies.errors import NoCandidate
from policies.pipeline import choose, evaluate, judge, reason_for_none, refuse, settle_health
from policies.policy import Policy
from policies.pool import FloatArray
from policies.presets import PRESETS
from policies.registry import Registry
from policies.types import Candidate, Code, Explain, Kind, RouteRequest

# Half of a probe interval: on the average somebody who is well again is seen to be so after this.
UNHEALTHY_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CandidateList:
    """All candidates of a request at one moment: the eligible by score, then the rejected by name."""

    candidates: Sequence[Candidate]
    rejected: Mapping[str, int]
    table_revision: int


class Case(NamedTuple):
    """A request that no quick draw settled, with what was worked out for it."""

    frame: Frame
    request: RouteRequest
    now: float
    seed: int
    # The seed's first two.
    draws: tuple[int, int]
    tokens: int
    answer: int
    wanted: int
    wall: float
    # What moved, of all of the plan's rows; None: not kept.
    kept: FloatArray | None
    # Whether no context window that passes is too short.
    fits: bool
    demotion: str


# How a request was settled, as `Record` has it from `entries` on.
Answer = tuple[
    Sequence[Entry] | None,
    FloatArray | None,
    int,
    float,
    str,
    int,
    bool,
    Sequence[Found] | None,
    Rare,
    tuple[int, ...] | None,
    Told | None,
]


class Deciding:
    """Decides requests by the table that was installed last. `wall` gives Unix seconds; `now` is monotonic seconds."""

    def __init__(
        self,
        settings: RoutingSettings,
        *,
        replica: str,
        seed: int,
        wall: Callable[[], float],
        registry: Registry,
        state: State,
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._seed = seed
        self._wall = wall
        self._registry = registry
        self._state = state
        # Frames by kind and sizes, where no rule looks at more of a request; all of them by their plan.
        self._frames: dict[tuple[Kind, int, int], Frame] = {}
        self._framed: dict[int, Frame] = {}
        self._rows_framed = 0
        self.installed: Table | None = None
        self.roads = Roads()
        self.planner = Planner(registry, self.roads)
        self.rations = Rations(settings.tenant_policies, settings.policy)
        self.spills = Spills()
        self.policies: dict[str, Policy] = {}
        self.install_policies({})

    @property
    def table(self) -> Table:
        """The table that decisions read. NoCandidate before the first one is there."""
        if self.installed is None:
            raise NoCandidate(
                "ALL_NODES_UNHEALTHY",
                "the server has only started and has no routing table yet; retry",
                retry_after_seconds=0.2,
            )
        return self.installed

    def install(self, table: Table) -> None:
        """Swaps the table; decisions from now on read it."""
        self.installed = table
        self.planner.follow(table)
        self._forget()

    def install_policies(self, policies: Mapping[str, Policy]) -> None:
        """Stored policies from now on; presets are there unless one of the same name is stored."""
        most, least = self._settings.max_candidates, self._settings.min_score
        presets = {name: replace(p, max_candidates=most, min_score=least) for name, p in PRESETS.items()}
        self.policies = {**presets, **policies}
        self.rations.install(self.policies)
        self.planner.forget()
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

    def decide(self, request: RouteRequest, now: float, *, number: int, whole: bool = False) -> Record:
        """Decides without claiming. `whole` keeps every candidate's values. Raises NoCandidate."""
        seed = chance.mix(self._seed ^ number)
        seeds = seed, chance.draw(seed, 0), chance.draw(seed, 1)
        return self.decide_by(request, now, number, seeds, self._wall(), whole)

    def decide_by(
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
        state = self._state
        kept = state.matrix.take(frame.slots, axis=1) if whole else None
        fits = (request.input_tokens or 0) + (request.max_output_tokens or 0) <= frame.ranking.window
        drawn = None
        if frame.paired and fits and not request.session_id and not request.prefix_hashes and not demotion:
            drawn = draw_two(frame, state, tokens, answer, one, two, wanted)
        if drawn is not None:
            visits, row, at_node = drawn
            entries = found = chosen = told = None
            by, near, swept, rare = "picker", 0, False, PLAIN
        else:
            case = Case(frame, request, now, seed, (one, two), tokens, answer, wanted, wall, kept, fits, demotion)
            visits = None
            entries, kept, row, at_node, by, near, swept, found, rare, chosen, told = self._plainly(case)
        # By position: every decision comes here.
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
            entries,
            kept,
            row,
            at_node,
            by,
            near,
            swept,
            found,
            rare,
            chosen,
            told,
        )

    def run(
        self, requests: Sequence[RouteRequest], begin: int, number: int, wall: float, now: float
    ) -> tuple[Run | None, int]:
        """Pairs for requests from one place on, as far as pairs may decide them; the first one has this number.

        Answers with how many these are, too; no run where they are too few.
        """
        if self.rations.budgeted:
            return None, len(requests) - begin
        return begun(self._frames, self._state, requests, begin, (self._seed, number), wall, now)

    def _frame(self, request: RouteRequest, wall: float, seed: int) -> Frame:
        """The frame for a request, made where there is none."""
        policy, rations = self.policy(self.rations.policy_id(request)), self.rations
        plan = self.planner.plan(request, policy, rations.terms(request, policy), self.table, self._state, wall, seed)
        found = self._framed.get(id(plan))
        if found is None:
            found = self._framed[id(plan)] = frame_of(self._replica, self._registry, self._state.spread, plan)
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

    def _plainly(self, case: Case) -> Answer:
        """Decides by a walk, and where that cannot tell by the whole pipeline."""
        frame, request, now, seed, draws, tokens, answer, wanted, _, kept, fits, demotion = case
        state, plan, policy, ranking = self._state, frame.plan, frame.policy, frame.ranking
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
                None if spill is None else tuple(spill.turns.tolist()),
            )
        if walked is None:
            rare = Rare(session_slot, cached, demotion=demotion, admission=admission, spill=spill)
            return self._by_columns(case, rare)
        rare = PLAIN
        rejected = rejections(ranking.counts, walked.full, walked.low) if walked.full or walked.low else None
        if session_slot >= 0 or cached or rejected or demotion or admission is not None or spill is not None:
            rare = Rare(session_slot, cached, rejected, demotion=demotion, admission=admission, spill=spill)
        seen, target, at_node = walked.visited, walked.target, walked.at_node
        return seen, kept, target, at_node, walked.by, walked.near, walked.swept, walked.found, rare, None, None

    def _by_columns(self, case: Case, rare: Rare) -> Answer:
        """Decides by the whole pipeline."""
        frame, request, now, seed, _, tokens, answer, wanted, wall, moving, fits, _ = case
        plan, policy, ranking, spill = frame.plan, frame.policy, frame.ranking, rare.spill
        rows = plan.rows
        ask = plan.ask(request, tokens, answer, wall, None if spill is None else spill.turns)
        pool = plan.table.pool.take(rows)
        code, panic = ranking.code, ranking.panic
        if not fits:
            # The ranking is of prompts of any length.
            hard = refuse(ask, pool, self._registry, ranking.narrow)
            code, panic = settle_health(hard, pool, policy.panic_threshold)
        if moving is None:
            moving = self._state.matrix.take(frame.slots, axis=1)
        load = load_of(moving, cached_column(rare.cached, pool.slot))
        found = judge(ask, pool, load, self._registry, code.copy(), panic)
        selected = choose(
            found,
            self._registry,
            picker=policy.picker,
            seed=seed,
            key=request.hash_key,
            session_slot=rare.session_slot,
            wanted=wanted,
        )
        counts = found.counts()
        if selected is None:
            raise self._nothing(request, counts, plan.table, now)
        chosen = tuple(rows[[selected.target, *selected.alternatives]].tolist())
        at_node = float(found.seen.at_node[selected.target])
        rare = replace(rare, rejected=counts, code=code, panic=panic)
        return None, moving, chosen[0], at_node, selected.by, selected.near, False, None, rare, chosen, Told(ask=ask)

    def _cached(self, request: RouteRequest, policy: Policy, tokens: int) -> Mapping[int, float]:
        if not request.prefix_hashes or not policy.prefix_affinity:
            return NOTHING_CACHED
        return self._state.cached_tokens(request.prefix_hashes, request.prefix_block_tokens, tokens)

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

    def candidates(self, request: RouteRequest, now: float) -> CandidateList:
        """Every candidate with every term; changes nothing. NoCandidate only for what is unknown."""
        wall = self._wall()
        policy = self.policy(self.rations.policy_id(request))
        terms = self.rations.terms(request, policy)
        plan = self.planner.plan(request, policy, terms, self.table, self._state, wall, 0)
        assume, rows = plan.policy.assume, plan.rows
        tokens = assume.input_tokens if request.input_tokens is None else request.input_tokens
        answer = assume.output_tokens if request.max_output_tokens is None else request.max_output_tokens
        pool = plan.table.pool.take(rows)
        cached = self._cached(request, plan.policy, tokens)
        moving = self._state.moving(pool.slot, now)
        load = load_of(moving, cached_column(cached, pool.slot))
        ask = plan.ask(request, tokens, answer, wall)
        found = evaluate(ask, pool, load, self._registry, plan.ranking.narrow)
        if len(rows) and (found.code == Code.TENANT.value).all():
            raise unknown(request.model_id, request.capability)
        record = Record(
            number=-1,
            frame=frame_of(self._replica, self._registry, self._state.spread, plan),
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
