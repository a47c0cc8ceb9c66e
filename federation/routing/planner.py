"""Plans: what a request's shape and the table settle before anything that moves is looked at.

A plan joins the policy with its rules' effect, the model, the rows that may answer, the round trips from the origin,
and the ranking.  Requests of one shape and size class share it until the next policy, and from table to table as long
as none of its rows says something else of what a ranking reads.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from federation.routing.asked import rows_of, utilization
from federation.routing.groups import Groups, grouped
from federation.routing.moves import MAX_MOVES, moved_rows, patched, touches
from federation.routing.ranking import Ranking, Scalars, build_ranking, lower_edge, scalars
from federation.routing.rations import Room, room_of
from federation.routing.roads import Roads, RoundTrip, told_trips
from federation.routing.state import State
from federation.routing.table import Table
from policies import rules
from policies.errors import NoCandidate
from policies.filters import narrowed
from policies.policy import Assumptions, Policy
from policies.pool import BoolArray, FloatArray, Identity, IntArray, Place, Pool
from policies.prediction import Ask, assumed_only, round_trips
from policies.registry import Registry
from policies.types import RouteRequest

# Requests of more kinds than this evict each other, and are decided all the same.
MAX_PLANS = 4096
# A plan that is older is made anew, since what prompts are usually like has moved on; one that nobody asked for in so
# long is forgotten.
MAX_PLAN_SECONDS = 60.0
# Who came so lately is taken to come again, and has its plan made anew before.
HOT_SECONDS = 2.0
# Rows over all plans; one takes a byte, and eight more where some do not pass. A hundred kinds of requests over a fleet
# of 100,000 are to fit, or each decision makes its plan.
MAX_ROWS = 10_000_000
# Sets of rows whose groups are kept; each follows every change of the state.
MAX_GROUPS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What requests of one shape and size class share."""

    table: Table
    policy: Policy
    rule: str
    # The model asked for, and the one that answers for it where a rule rewrote it.
    asked: Identity | None
    model_id: str
    model: Identity | None
    rows: IntArray
    round_trip: FloatArray
    # The same as a list, for reading one by one.
    round_trips: list[float]
    # When answers came over the roads that they bound, which else are only assumed, by region.
    roads: Mapping[str, float]
    origin: int
    zone: str
    origin_region: str
    ranking: Ranking
    scalars: Scalars
    # Where it may run, for policies that shed; what tenants share there goes by the model's or capability's name.
    room: Room | None
    pool: str

    def ask(
        self,
        request: RouteRequest,
        input_tokens: int,
        output_tokens: int,
        unix_time: float,
        turns: IntArray | None = None,
    ) -> Ask:
        """One request of this plan, as filters and scorers see it."""
        return Ask(
            request=replace(request, origin_region=self.origin_region, model_id=self.model_id),
            policy=self.policy,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            model=self.model,
            round_trip=self.round_trip,
            origin=self.origin,
            zone=self.zone,
            unix_time=unix_time,
            turns=turns,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is made for: a request, what the rules make of it, and by which policy it is shed."""

    request: RouteRequest
    effect: rules.Effect
    terms: Policy
    # Prompt and answer, with the policy's assumptions where the request is silent.
    tokens: int
    answer: int
    unix_time: float


@dataclass(slots=True)
class Kept:
    """A plan, and what it takes to make it anew."""

    plan: Plan
    # Of the tables, which one it holds for.
    generation: int
    made_at: float
    asked_at: float
    asked: Asked


class Planner:
    """Plans of the current table and policies; `follow` brings each new table."""

    def __init__(self, registry: Registry, roads: Roads) -> None:
        self._roads = roads
        self._registry = registry
        # Those that were asked for last stand last.
        self._plans: OrderedDict[object, Kept] = OrderedDict()
        self._table: Table | None = None
        # Counts tables, and tells what moved from one to the next.
        self._generation = 0
        self._moves: deque[IntArray] = deque(maxlen=MAX_MOVES)
        self._origins: dict[tuple[str, object], tuple[FloatArray, int, Mapping[str, float]]] = {}
        # With the table that they hold for.
        self._scalars: dict[Assumptions, tuple[Scalars, int]] = {}
        # By the rows that pass and what is assumed of them: rankings of other origins and sizes share them. With the
        # rows, and when they were made.
        self._groups: OrderedDict[tuple[bytes, Assumptions, float, float, int], tuple[Groups, IntArray, float]] = (
            OrderedDict()
        )
        self._rows_planned = 0
        # Plans that were made, that were carried over to another table, and that were made ahead of being asked for.
        self.built = 0
        self.carried = 0
        self.renewed = 0

    def forget(self) -> None:
        """Everything may be otherwise: a policy changed, or rows stand elsewhere."""
        self._plans.clear()
        self._origins.clear()
        self._scalars.clear()
        self._groups.clear()
        self._moves.clear()
        self._rows_planned = 0

    def follow(self, table: Table) -> None:
        """Another table: keeps what reads nothing that moved."""
        before, self._table = self._table, table
        self._generation += 1
        moved = None if before is None else moved_rows(before, table)
        if moved is None:
            self.forget()
            return
        self._moves.append(moved)
        # Answers may have told of roads meanwhile.
        self._origins.clear()
        oldest = table.built_at - MAX_PLAN_SECONDS
        for key, (_, rows, made_at) in list(self._groups.items()):
            if made_at < oldest or touches(rows, moved):
                del self._groups[key]
        while self._plans and next(iter(self._plans.values())).asked_at < oldest:
            self._drop(next(iter(self._plans)))

    def renew(self, state: State, most: int) -> int:
        """Brings plans that were asked for lately to the current table, so many at most; how many it made anew."""
        table, made = self._table, 0
        if table is None:
            return 0
        for key in reversed(list(self._plans)):
            kept = self._plans[key]
            if kept.asked_at < table.built_at - HOT_SECONDS or made == most:
                break
            if kept.generation == self._generation or self._carry(kept, table):
                continue
            again = self._keep(kept.asked, table, state)
            again.asked_at = kept.asked_at
            self._rows_planned += len(again.plan.rows) - len(kept.plan.rows)
            self._plans[key] = again
            made += 1
        self.renewed += made
        return made

    def _drop(self, key: object) -> None:
        self._rows_planned -= len(self._plans.pop(key).plan.rows)

    def _carry(self, kept: Kept, table: Table) -> bool:
        """Brings a plan to the current table; False where it has to be made anew."""
        behind = self._generation - kept.generation
        if behind > len(self._moves) or table.built_at - kept.made_at > MAX_PLAN_SECONDS:
            return False
        plan, policy = kept.plan, kept.plan.policy
        # What other packages' filters and scorers read, nobody knows.
        if policy.extra_filters or policy.extra_scorers:
            return False
        if any(touches(plan.rows, self._moves[-step]) for step in range(1, behind + 1)):
            return False
        origin = self._origin_of(plan.origin_region, table, policy.assume)
        if not np.array_equal(origin[0], plan.round_trip):
            return False
        kept.plan = replace(plan, table=table, scalars=self._scalars_of(table, policy.assume), roads=origin[2])
        # Walks find out again whether groups are worth their while.
        kept.plan.ranking.crowded = not kept.plan.ranking.groups.worthwhile
        kept.plan.ranking.tiers.clear()
        kept.generation = self._generation
        self.carried += 1
        return True

    @property
    def made(self) -> Mapping[str, int]:
        """Plans by how they came about: "asked", "ahead" of being asked for, or "carried" over to another table."""
        return {"asked": self.built - self.renewed, "ahead": self.renewed, "carried": self.carried}

    def __len__(self) -> int:
        return len(self._plans)

    def plan(
        self,
        request: RouteRequest,
        policy: Policy,
        terms: Policy,
        table: Table,
        state: State,
        unix_time: float,
        seed: int,
    ) -> Plan:
        """The plan for a request that is shed by `terms`.

        NoCandidate for an unknown model or capability, and where a rule refuses.
        """
        effect: rules.Effect | None = None
        assume = policy.assume
        tokens = assume.input_tokens if request.input_tokens is None else request.input_tokens
        answer = assume.output_tokens if request.max_output_tokens is None else request.max_output_tokens
        sizes = (tokens.bit_length(), answer.bit_length())
        key: tuple[object, ...] = (request.shape, sizes)
        if policy.rules:
            # By the model's own name: an alias must not slip past a rule.
            named = replace(
                request,
                origin_region=request.origin_region or table.home_region,
                model_id=table.compiled.model_ids.get(request.model_id, request.model_id),
            )
            used = utilization(policy, request, table, state)
            effect = rules.apply(policy, named, unix_time=unix_time, utilization=used, seed=seed)
            key = (*key, effect.rule, effect.part)
        if table is not self._table:
            self.follow(table)
        kept = self._plans.get(key)
        if kept is not None and kept.generation == self._generation:
            if kept.asked_at != table.built_at:
                kept.asked_at = table.built_at
                self._plans.move_to_end(key)
            return kept.plan
        if kept is not None and not self._carry(kept, table):
            self._drop(key)
            kept = None
        if kept is None:
            effect = effect or rules.Effect(policy, request)
            kept = self._keep(Asked(request, effect, terms, tokens, answer, unix_time), table, state)
            self._plans[key] = kept
            self._rows_planned += len(kept.plan.rows)
            while len(self._plans) > MAX_PLANS or (self._rows_planned > MAX_ROWS and len(self._plans) > 1):
                self._drop(next(iter(self._plans)))
        kept.asked_at = table.built_at
        self._plans.move_to_end(key)
        return kept.plan

    def _keep(self, asked: Asked, table: Table, state: State) -> Kept:
        plan = self._make(asked, table, state.mean_tokens)
        return Kept(plan, self._generation, table.built_at, table.built_at, asked)

    def _make(self, asked: Asked, table: Table, usual_tokens: float) -> Plan:
        request, effect, tokens = asked.request, asked.effect, asked.tokens
        policy = effect.policy
        if effect.refusal:
            told = f"rule {effect.rule!r} of policy {policy.policy_id!r} refuses it: {effect.refusal}"
            raise NoCandidate("REFUSED_BY_RULE", told)
        model, rows = rows_of(request, table)
        named, rewritten = model, table.compiled.models.get(table.compiled.model_ids.get(effect.request.model_id, ""))
        # Another model is nobody's to choose but where both were declared equivalent.
        if named and rewritten and named.equivalence_class and rewritten.equivalence_class == named.equivalence_class:
            request = effect.request
            model, rows = rows_of(request, table)
        origin_region = request.origin_region or table.home_region
        origin = self._origin_of(origin_region, table, policy.assume)
        # Rows are in order, so that all of them are the whole table.
        pool = table.pool if len(rows) == len(table.pool) else table.pool.take(rows)
        narrow: BoolArray | None = None
        for narrowing in effect.narrow:
            refused = narrowed(pool, narrowing)
            narrow = refused if narrow is None else narrow | refused
        ask = Ask(
            request=replace(request, origin_region=origin_region),
            policy=policy,
            input_tokens=tokens,
            output_tokens=asked.answer,
            model=model,
            round_trip=origin[0],
            origin=origin[1],
            zone=f"{origin_region}/{request.origin_zone}" if request.origin_zone else "",
            unix_time=asked.unix_time,
        )
        self.built += 1
        # Heads stand in the order of a usual prompt; for much longer ones it is another.
        edge = lower_edge(tokens)
        usual = (edge, 1.5 * edge) if edge > usual_tokens else (0, usual_tokens)
        ranking = build_ranking(ask, pool, self._registry, narrow, partial(self._groups_of, usual=usual))
        flat = self._scalars_of(table, policy.assume)
        return Plan(
            table=table,
            policy=policy,
            rule=effect.rule,
            asked=named,
            model_id=request.model_id,
            model=model,
            rows=rows,
            round_trip=ask.round_trip,
            round_trips=ask.round_trip.tolist(),
            roads=origin[2],
            origin=ask.origin,
            zone=ask.zone,
            origin_region=origin_region,
            ranking=ranking,
            scalars=flat,
            room=room_of(asked.terms, ranking.rows, flat),
            pool=model.model_id if model is not None else request.capability,
        )

    def _groups_of(self, passed: Pool, policy: Policy, throughput_seconds: float, usual: tuple[int, float]) -> Groups:
        key = (passed.row.tobytes(), policy.assume, policy.batch_slowdown, throughput_seconds, usual[0])
        found = self._groups.get(key)
        if found is None:
            groups = grouped(passed, policy, throughput_seconds, usual[1])
            made_at = 0.0 if self._table is None else self._table.built_at
            found = self._groups[key] = (groups, passed.row, made_at)
            while len(self._groups) > MAX_GROUPS:
                self._groups.popitem(last=False)
        return found[0]

    def round_trips(self, region: str, table: Table, assume: Assumptions) -> list[RoundTrip]:
        """What decisions count from a region to each of the table's, and how that is known."""
        seconds, _, heard = self._origin_of(region, table, assume)
        return told_trips(region, table.pool.places, seconds.tolist(), heard)

    def _origin_of(self, region: str, table: Table, assume: Assumptions) -> tuple[FloatArray, int, Mapping[str, float]]:
        found = self._origins.get((region, assume))
        if found is None:
            found = self._origins[region, assume] = self._origin(region, table.pool.places, assume)
        return found

    def _origin(
        self, region: str, places: Sequence[Place], assume: Assumptions
    ) -> tuple[FloatArray, int, Mapping[str, float]]:
        """Round trips from a region, its index, and which of them answers bound, with the time of the newest."""
        heard = self._roads.bounds(region, assumed_only(region, places))
        lower = {name: bound for name, (bound, _) in heard.items() if bound < assume.round_trip_seconds}
        return *round_trips(region, places, assume, lower), {name: heard[name][1] for name in lower}

    def _scalars_of(self, table: Table, assume: Assumptions) -> Scalars:
        found, generation = self._scalars.get(assume, (None, 0))
        behind = self._generation - generation
        if found is None or behind > len(self._moves):
            found = scalars(table.pool, assume)
        elif behind:
            rows = np.unique(np.concatenate([self._moves[-step] for step in range(1, behind + 1)]))
            found = patched(found, table.pool, assume, rows) if len(rows) else found
        self._scalars[assume] = (found, self._generation)
        return found
