"""Plans: what a request's shape and the table settle before anything that moves is looked at.

A plan joins the policy with its rules' effect, the model, the rows that may answer, the round trips from the origin,
and the ranking.  Requests of one shape and size class share it until the next table or policy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from federation.routing.groups import Groups, grouped
from federation.routing.ranking import Ranking, Scalars, build_ranking, scalars
from federation.routing.rations import Room, room_of
from federation.routing.roads import Roads
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

# Plans of one table. Requests of more kinds than this evict each other, and are decided all the same.
MAX_PLANS = 4096
# Rows over all plans; one takes about 150 bytes.
MAX_ROWS = 2_000_000
# Sets of rows whose groups are kept; each follows every change of the state.
MAX_GROUPS = 64
NO_ROWS: IntArray = np.zeros(0, dtype=np.int64)


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


class Planner:
    """Plans of the current table and policies."""

    def __init__(self, registry: Registry, roads: Roads) -> None:
        self._roads = roads
        self._registry = registry
        self._plans: OrderedDict[object, Plan] = OrderedDict()
        self._origins: dict[tuple[str, object], tuple[FloatArray, int, Mapping[str, float]]] = {}
        self._scalars: dict[Assumptions, Scalars] = {}
        # By the rows that pass and what is assumed of them: rankings of other origins and sizes share them.
        self._groups: OrderedDict[tuple[bytes, Assumptions, float, float], Groups] = OrderedDict()
        self._rows_planned = 0
        self.built = 0

    def forget(self) -> None:
        """The table or a policy changed."""
        self._plans.clear()
        self._origins.clear()
        self._scalars.clear()
        self._groups.clear()
        self._rows_planned = 0

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
            used = self._utilization(policy, request, table, state)
            effect = rules.apply(policy, named, unix_time=unix_time, utilization=used, seed=seed)
            key = (*key, effect.rule, effect.part)
        found = self._plans.get(key)
        if found is None:
            effect = effect or rules.Effect(policy, request)
            found = self._make(request, effect, terms, table, tokens, answer, unix_time, state.mean_tokens)
            self._plans[key] = found
            self._rows_planned += len(found.rows)
            while len(self._plans) > MAX_PLANS or (self._rows_planned > MAX_ROWS and len(self._plans) > 1):
                self._rows_planned -= len(self._plans.popitem(last=False)[1].rows)
        return found

    def _make(
        self,
        request: RouteRequest,
        effect: rules.Effect,
        terms: Policy,
        table: Table,
        tokens: int,
        answer: int,
        unix_time: float,
        usual_tokens: float,
    ) -> Plan:
        policy = effect.policy
        if effect.refusal:
            told = f"rule {effect.rule!r} of policy {policy.policy_id!r} refuses it: {effect.refusal}"
            raise NoCandidate("REFUSED_BY_RULE", told)
        model, rows = self._rows(request, table)
        asked, rewritten = model, table.compiled.models.get(table.compiled.model_ids.get(effect.request.model_id, ""))
        # Another model is nobody's to choose but where both were declared equivalent.
        if asked and rewritten and asked.equivalence_class and rewritten.equivalence_class == asked.equivalence_class:
            request = effect.request
            model, rows = self._rows(request, table)
        origin_region = request.origin_region or table.home_region
        origin = self._origins.get((origin_region, policy.assume))
        if origin is None:
            origin = self._origin(origin_region, table.pool.places, policy.assume)
            self._origins[(origin_region, policy.assume)] = origin
        pool = table.pool.take(rows)
        narrow: BoolArray | None = None
        for narrowing in effect.narrow:
            refused = narrowed(pool, narrowing)
            narrow = refused if narrow is None else narrow | refused
        ask = Ask(
            request=replace(request, origin_region=origin_region),
            policy=policy,
            input_tokens=tokens,
            output_tokens=answer,
            model=model,
            round_trip=origin[0],
            origin=origin[1],
            zone=f"{origin_region}/{request.origin_zone}" if request.origin_zone else "",
            unix_time=unix_time,
        )
        self.built += 1
        ranking = build_ranking(ask, pool, self._registry, narrow, partial(self._groups_of, usual_tokens=usual_tokens))
        flat = self._scalars_of(table, policy.assume)
        return Plan(
            table=table,
            policy=policy,
            rule=effect.rule,
            asked=asked,
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
            room=room_of(terms, ranking.rows.tolist(), flat),
            pool=model.model_id if model is not None else request.capability,
        )

    def _groups_of(self, passed: Pool, policy: Policy, throughput_seconds: float, usual_tokens: float) -> Groups:
        key = (passed.row.tobytes(), policy.assume, policy.batch_slowdown, throughput_seconds)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = grouped(passed, policy, throughput_seconds, usual_tokens)
            while len(self._groups) > MAX_GROUPS:
                self._groups.popitem(last=False)
        return found

    def _origin(
        self, region: str, places: Sequence[Place], assume: Assumptions
    ) -> tuple[FloatArray, int, Mapping[str, float]]:
        """Round trips from a region, its index, and which of them answers bound, with the time of the newest."""
        heard = self._roads.bounds(region, assumed_only(region, places))
        lower = {name: bound for name, (bound, _) in heard.items() if bound < assume.round_trip_seconds}
        return *round_trips(region, places, assume, lower), {name: heard[name][1] for name in lower}

    def _scalars_of(self, table: Table, assume: Assumptions) -> Scalars:
        found = self._scalars.get(assume)
        if found is None:
            found = scalars(table.pool, assume)
            self._scalars[assume] = found
        return found

    def _rows(self, request: RouteRequest, table: Table) -> tuple[Identity | None, IntArray]:
        """The model asked for, and the rows of it or of the capability."""
        compiled = table.compiled
        if request.capability and request.capability not in compiled.capabilities:
            raise unknown("", request.capability)
        if not request.model_id:
            return None, compiled.rows_by_capability.get(request.capability, NO_ROWS)
        model_id = compiled.model_ids.get(request.model_id)
        if model_id is None:
            raise unknown(request.model_id, "")
        model = compiled.models[model_id]
        if not (request.allow_substitutes and model.equivalence_class):
            return model, compiled.rows_by_model[model_id]
        same = [
            compiled.rows_by_model[other.model_id]
            for other in compiled.models.values()
            if other.equivalence_class == model.equivalence_class
        ]
        return model, np.sort(np.concatenate(same))

    def _utilization(self, policy: Policy, request: RouteRequest, table: Table, state: State) -> float | None:
        """Mean share of batch places in use over a request's deployments; only where a rule asks for it."""
        if not any(rule.match.reads_utilization for rule in policy.rules):
            return None
        compiled = table.compiled
        by_model: Mapping[str, IntArray] = compiled.rows_by_model
        rows = by_model.get(compiled.model_ids.get(request.model_id, ""), NO_ROWS)
        if not len(rows):
            rows = compiled.rows_by_capability.get(request.capability, NO_ROWS)
        if not len(rows):
            return None
        load = state.load(table.pool.slot[rows])
        batch = np.where(np.isnan(table.pool.batch[rows]), policy.assume.max_batch_size, table.pool.batch[rows])
        return float(np.mean(np.maximum(load.in_flight, load.running) / batch))


def unknown(model_id: str, capability: str) -> NoCandidate:
    """What is not there, and what is there for other tenants only: the two must look the same."""
    if model_id:
        return NoCandidate(
            "MODEL_UNKNOWN",
            f"model_id {model_id!r} was never registered;"
            " `fairway models list` shows the models, `fairway models register` adds one",
        )
    return NoCandidate(
        "CAPABILITY_UNKNOWN", f"capability {capability!r} was never registered with a model or deployment"
    )
