"""Decisions as they are remembered: with every value that they read, so that they can be told and recomputed.

A record refers to the table it was made from, and copies what moves.  It is rendered when somebody asks: the target at
once, the reasoning and the candidates with `Decision`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from federation.routing import wording
from federation.routing.figures import Figures, figures
from federation.routing.frame import Frame, Visit
from federation.routing.groups import Entry
from federation.routing.listing import Candidates
from federation.routing.look import Found
from federation.routing.planner import Plan
from federation.routing.rations import Admission
from federation.routing.replay import entry
from federation.routing.spills import Spill
from federation.routing.spread import Spread
from federation.routing.state import load_of
from federation.routing.table import Table
from federation.routing.walk import settle
from policies.pipeline import Evaluation, alternatives, differences, judge
from policies.pool import ByteArray, FloatArray, IntArray, Load
from policies.prediction import Ask
from policies.registry import Registry
from policies.types import Choice, Code, Decision, Explain, Outcome, RouteRequest, Stage

NOTHING_CACHED: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a shadow policy would have done: another deployment, or none for a reason."""

    policy_id: str
    deployment: str
    reason: str
    # Of its target less of the live one; None where either is unknown.
    later_seconds: float | None
    dearer_usd: float | None


@dataclass(frozen=True, slots=True)
class Rare:
    """What few decisions read or met."""

    session_slot: int = -1
    cached: Mapping[int, float] = field(default_factory=lambda: NOTHING_CACHED)
    # Rejections by code; None: those of the table alone.
    rejected: Mapping[str, int] | None = None
    # What the request and the table alone said of the plan's rows, and whether health was set aside; None: as the
    # ranking says.
    code: ByteArray | None = None
    panic: bool | None = None
    # What its tenant's budget did to it ("" nothing), and what it was admitted by; None: its policy sheds nobody.
    demotion: str = ""
    admission: Admission | None = None
    # What its tier was drawn from; None: its policy has no tiers.
    spill: Spill | None = None


PLAIN = Rare()


@dataclass(slots=True, eq=False)
class Told:
    """What came of a decision later, and what was worked out when somebody asked."""

    shadowed: Shadowed | None = None
    # US dollars by attempt, where the tenant has a budget.
    charges: dict[int, float] | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)
    rows: IntArray | None = None
    load: Load | None = None
    ask: Ask | None = None
    evaluation: Evaluation | None = None


@dataclass(slots=True, weakref_slot=True, eq=False)
class Record:
    """One decision with what it read. What is only told, it works out when somebody asks.

    `rows` are those whose moving values it keeps, in the table's numbering and order; places are among them.
    """

    number: int
    frame: Frame
    request: RouteRequest
    # Prompt and answer, with the policy's assumptions where the request is silent.
    tokens: int
    answer: int
    seed: int
    wanted: int
    wall_time: float
    now: float
    # Whom a walk looked at, in its order, as they were then: drawn, or with what was worked out of it. None and None
    # where all were scored at once.
    drawn: Sequence[Visit] | None
    entries: Sequence[Entry] | None
    # What moved, of all of the plan's rows; None: of large pools only the visits are kept.
    whole: FloatArray | None
    # The target's row, and the seconds that its node was predicted to take to the first token.
    row: int
    at_node: float
    by: str
    near: int
    swept: bool
    # Whom a walk found fit, best first.
    found: Sequence[Found] | None = None
    rare: Rare = PLAIN
    # Rows of the target and of the alternatives; None: not asked for yet.
    _chosen: tuple[int, ...] | None = None
    _told: Told | None = None

    @property
    def decision_id(self) -> str:
        """Names the replica that decided, and which of its decisions it was."""
        return f"{self.frame.replica}-{self.number:x}"

    @property
    def plan(self) -> Plan:
        return self.frame.plan

    @property
    def replica(self) -> str:
        return self.frame.replica

    @property
    def registry(self) -> Registry:
        return self.frame.registry

    @property
    def spread(self) -> Spread:
        return self.frame.spread

    @property
    def session_slot(self) -> int:
        return self.rare.session_slot

    @property
    def cached(self) -> Mapping[int, float]:
        return self.rare.cached

    @property
    def demotion(self) -> str:
        return self.rare.demotion

    @property
    def admission(self) -> Admission | None:
        return self.rare.admission

    @property
    def spill(self) -> Spill | None:
        return self.rare.spill

    @property
    def panic(self) -> bool:
        return self.frame.ranking.panic if self.rare.panic is None else self.rare.panic

    @property
    def told(self) -> Told:
        if self._told is None:
            self._told = Told()
        return self._told

    @property
    def outcomes(self) -> list[Outcome]:
        return self.told.outcomes

    @property
    def shadowed(self) -> Shadowed | None:
        return None if self._told is None else self._told.shadowed

    @property
    def charges(self) -> dict[int, float] | None:
        return None if self._told is None else self._told.charges

    @property
    def chosen(self) -> tuple[int, ...]:
        """Rows of the target and of the alternatives."""
        if self._chosen is None:
            self._settle()
        assert self._chosen is not None
        return self._chosen

    def _settle(self) -> None:
        """Chooses the alternatives of a walk, from the values of the time of the decision."""
        frame, drawn = self.frame, self.drawn or ()
        if self.found is not None:
            order = [each[1] for each in self.found]
            self._chosen = (self.row, *alternatives(self.row, order, frame.scalars.domains, self.wanted))
            self.found = None
            return
        others, full, low = settle(
            frame.ranking, frame.scalars, frame.policy, self.tokens, self.answer, self.wanted, self.row, drawn
        )
        self._chosen = (self.row, *others)
        if full or low:
            self.rare = replace(self.rare, rejected=rejections(frame.ranking.counts, full, low))

    @property
    def rejected(self) -> Mapping[str, int]:
        """Rejections by code: what the table refused, and of what moves those that were looked at."""
        if self.drawn is not None and self._chosen is None:
            self._settle()
        found = self.rare.rejected
        return self.frame.ranking.counts if found is None else found

    @property
    def looked(self) -> Sequence[int] | None:
        """Rows that a walk looked at, in its order; None where all were scored at once."""
        if self.drawn is not None:
            return [visit[0] for visit in self.drawn]
        return None if self.entries is None else [entry[1] for entry in self.entries]

    @property
    def kept(self) -> Sequence[int] | IntArray:
        """Rows whose values are kept: all that were considered, or of a large pool those that were visited."""
        looked = self.looked
        return self.frame.plan.rows if looked is None or self.whole is not None else looked

    @property
    def moving(self) -> FloatArray:
        """What moved of the kept rows, in their order."""
        if self.whole is not None:
            return self.whole
        if self.drawn is not None:
            # Nobody of a walk is on trial: that is 1 for all of them.
            return np.array([(*visit[1:], 1.0) for visit in self.drawn]).T
        return np.array([entry[6] for entry in self.entries or ()]).T

    @property
    def rows(self) -> IntArray:
        told = self.told
        if told.rows is None:
            told.rows = np.sort(np.asarray(self.kept, dtype=np.int64))
        return told.rows

    @property
    def load(self) -> Load:
        """What moved, of `rows`."""
        told = self.told
        if told.load is None:
            cached = cached_column(self.cached, self.table.pool.slot[self.rows])
            told.load = load_of(self.moving[:, np.argsort(self.kept)], cached)
        return told.load

    @property
    def code(self) -> ByteArray:
        """What the request and the table alone said of `rows`."""
        if self.whole is None:
            return np.zeros(len(self.kept), dtype=np.int8)
        return self.frame.ranking.code if self.rare.code is None else self.rare.code

    @property
    def places(self) -> tuple[int, ...]:
        """Where the target and the alternatives stand among `rows`."""
        kept = self.kept
        if isinstance(kept, np.ndarray):
            return tuple(np.searchsorted(self.rows, self.chosen).tolist())
        ordered = sorted(kept)
        return tuple([bisect_left(ordered, row) for row in self.chosen])

    @property
    def target(self) -> int:
        return self.places[0]

    @property
    def alternatives(self) -> tuple[int, ...]:
        return self.places[1:]

    @property
    def table(self) -> Table:
        return self.frame.table

    @property
    def walked(self) -> bool:
        return self.entries is not None or self.drawn is not None

    @property
    def visited(self) -> int:
        """How many candidates were scored."""
        if self.drawn is not None:
            return len(self.drawn)
        return len(self.plan.rows if self.entries is None else self.entries)

    @property
    def considered(self) -> int:
        """Deployments that were looked at; what is private to other tenants is absent here, as in all that is told."""
        return len(self.plan.rows) - self.rejected.get(Code.TENANT.name, 0)

    @property
    def told_rejections(self) -> Mapping[str, int]:
        """Rejections by code, as the caller may know them."""
        return {code: count for code, count in self.rejected.items() if code != Code.TENANT.name}

    @property
    def ask(self) -> Ask:
        """The request as filters and scorers saw it."""
        told = self.told
        if told.ask is None:
            turns = None if self.spill is None else self.spill.turns
            told.ask = self.plan.ask(self.request, self.tokens, self.answer, self.wall_time, turns)
        return told.ask

    @property
    def evaluation(self) -> Evaluation:
        """Every kept candidate, filtered and scored again from the kept values."""
        told = self.told
        if told.evaluation is None:
            pool = self.table.pool.take(self.rows)
            told.evaluation = judge(self.ask, pool, self.load, self.registry, self.code.copy(), self.panic)
        return told.evaluation

    def moved(self) -> list[list[float]]:
        """What moved of the target and the alternatives, by attempt, in the order of the kinds of `state`."""
        if self.whole is not None:
            columns = self.frame.plan.rows.searchsorted(self.chosen)
            return self.whole.take(columns, axis=1).T.tolist()  # type: ignore[no-any-return]
        if self.drawn is not None:
            drawn = {visit[0]: [*visit[1:], 1.0] for visit in self.drawn}
            return [drawn[row] for row in self.chosen]
        seen = {entry[1]: entry[6] for entry in self.entries or ()}
        return [list(seen[row]) for row in self.chosen]

    def names(self) -> tuple[str, ...]:
        """Deployments by attempt: the target, then the alternatives."""
        names = self.table.pool.names
        return tuple([names[row] for row in self.chosen])

    def slot(self, attempt: int) -> int:
        """Where an attempt runs; -1 for an attempt that was not planned."""
        if attempt == 0:
            return self.frame.scalars.slot[self.row]
        return self.frame.scalars.slot[self.chosen[attempt]] if attempt < len(self.chosen) else -1

    def figures(self, place: int) -> Figures:
        """What was expected of one of `rows`."""
        if self.walked and self.told.evaluation is None:
            load = self.load
            moving = (load.pending_tokens, load.in_flight, load.running, load.wait, load.suspicion, load.cached_tokens)
            values = tuple(float(column[place]) for column in moving)
            return figures(self.plan, int(self.rows[place]), self.tokens, self.answer, values)
        found = self.evaluation
        seen, cost = found.seen, float(found.seen.cost[place])
        return Figures(
            round_trip=float(seen.round_trip[place]),
            at_node=float(seen.at_node[place]),
            time_to_first_token=float(seen.time_to_first_token[place]),
            throughput=float(seen.throughput[place]),
            latency=float(seen.latency[place]),
            cost=None if np.isnan(cost) else cost,
            points={name: float(points[place]) for name, points in found.points.items()},
            total=float(found.total[place]),
        )

    def choice(self, place: int, told: Figures | None = None) -> Choice:
        """One of `rows` as a place to send the request to."""
        told = told or self.figures(place)
        row = int(self.rows[place])
        pool = self.table.pool
        deployed = self.table.compiled.deployed[row]
        abroad = self.plan.origin_region != deployed.region_id and not self.request.forwarded
        via_gateway = bool(deployed.ingress_endpoint) and abroad
        scores = told.scores
        asked = self.plan.asked
        early, late = self.interval(place)
        return Choice(
            region_id=deployed.region_id,
            node_id="" if via_gateway else deployed.node_id,
            model_id=deployed.model_id,
            deployment=pool.names[row],
            served_model_name=deployed.served_model_name,
            endpoint=deployed.ingress_endpoint if via_gateway else deployed.endpoint,
            via_gateway=via_gateway,
            zone=deployed.zone,
            estimated_latency_seconds=told.latency,
            estimated_time_to_first_token_seconds=told.time_to_first_token,
            earliest_time_to_first_token_seconds=told.round_trip + told.at_node * early,
            latest_time_to_first_token_seconds=told.round_trip + told.at_node * late,
            estimated_cost_usd=told.cost,
            score=scores.total,
            scores=scores,
            substitution_differences=(
                ()
                if asked is None or asked.model_id == deployed.model_id
                else differences(asked, pool.models[int(pool.model[row])])
            ),
        )

    def interval(self, place: int) -> tuple[float, float]:
        """The 5th and 95th percentile of measured over predicted time at the node, of one of `rows`."""
        # Kept at the first telling, which is when the decision is made: what is learned later must not change it.
        return self.told.intervals.setdefault(place, self.spread.interval(int(self.table.pool.slot[self.rows[place]])))

    def intervals(self) -> list[tuple[float, float]]:
        """`interval` of the target and the alternatives, by attempt."""
        slots, known, spread = self.frame.scalars.slot, self.told.intervals, self.spread
        chosen = zip(self.places, self.chosen, strict=True)
        return [known.setdefault(place, spread.interval(slots[row])) for place, row in chosen]

    def candidates(self) -> Candidates:
        """Every kept candidate that the caller may know of: the eligible by score, then the rejected by name."""
        return Candidates(self)

    def ages(self, place: int) -> dict[str, float]:
        """Seconds since each signal of a candidate came, at the time of the decision."""
        row = self.rows[place]
        found = {
            kind: max(0.0, self.now - float(times[row]))
            for kind, times in self.table.signals.items()
            if np.isfinite(times[row])
        }
        heard = self.plan.roads.get(self.table.compiled.deployed[row].region_id)
        return found if heard is None else {**found, "road": max(0.0, self.now - heard)}

    @property
    def decision(self) -> Decision:
        """The decision with all of its candidates."""
        return self.render(Explain.FULL)

    def entry(self) -> dict[str, Any]:
        """The decision as the values of a log record; `replay` recomputes it."""
        return entry(self)

    def to_json(self) -> str:
        return json.dumps(self.entry(), separators=(",", ":"))

    def render(self, explain: Explain | None = None) -> Decision:
        """The decision as others see it; `explain` overrides what the request asked for."""
        level = explain or self.request.explain
        policy = self.ask.policy
        places = self.places
        expected = [self.figures(place) for place in places]
        target, *others = [self.choice(p, e) for p, e in zip(places, expected, strict=True)]
        return Decision(
            decision_id=self.decision_id,
            target=target,
            alternatives=tuple(others),
            reasoning="" if level is Explain.NONE else wording.reasoning(self, expected, target, tuple(others)),
            policy_id=policy.policy_id,
            policy_revision=policy.revision,
            strategy=policy.picker,
            stages=() if level is Explain.NONE else self.stages(),
            considered=self.considered,
            rejected=self.told_rejections,
            table_revision=self.table.revision,
            table_age_seconds=max(0.0, self.now - self.table.built_at),
            catalog_age_seconds=max(0.0, self.now - self.table.catalog_at),
            stale_regions=self.table.stale_regions,
            panic=self.panic,
            valid_for_seconds=policy.valid_for_seconds,
            decide_time=self.wall_time,
            rule=self.plan.rule,
            candidates=tuple(self.candidates()) if level is Explain.FULL else (),
        )

    def stages(self) -> tuple[Stage, ...]:
        """What each stage of the pipeline did."""
        rejected = self.told_rejections
        left = self.considered - sum(rejected.values())
        rule = f"rule {self.plan.rule!r} matched" if self.plan.rule else "no rule matched"
        held = self.by in wording.SESSION
        beside = () if self.shadowed is None else (Stage("shadow", wording.shadow(self, self.shadowed), 1),)
        before = []
        if self.demotion:
            before.append(Stage("budget", self.demotion, self.considered))
        if self.admission is not None:
            before.append(Stage("admission", self.admission.told(), self.considered))
        if self.spill is not None:
            before.append(Stage("spillover", self.spill.told(), self.considered))
        return (
            *before,
            Stage("rules", rule, self.considered),
            Stage("filters", wording.filtered(rejected, self.panic), left),
            Stage("scorers", wording.scored(self.walked, self.swept, self.visited, left), left),
            Stage("affinity", wording.SESSION.get(self.by, "none"), 1 if held else left),
            Stage("picker", wording.picked(self.plan.policy.picker, self.by, self.near), 1),
            Stage("alternatives", f"{len(self.chosen) - 1} of {self.wanted} wanted", len(self.chosen) - 1),
            *beside,
        )


def rejections(counts: Mapping[str, int], full: int, low: int) -> Mapping[str, int]:
    """What the table refused, and those visited that were full or scored too low."""
    found = {Code.AT_CAPACITY.name: full, Code.BELOW_MIN_SCORE.name: low}
    return {**counts, **{name: count for name, count in found.items() if count}}


def cached_column(cached: Mapping[int, float], slots: IntArray) -> FloatArray | None:
    """Cached tokens by slot as a column; None where nothing is cached."""
    return np.array([cached.get(slot, 0.0) for slot in slots.tolist()]) if cached else None
