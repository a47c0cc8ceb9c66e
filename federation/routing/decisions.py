"""Decisions as they are remembered: with every value that they read, so that they can be told and recomputed.

A record refers to the table it was made from, and copies what moves.  It is rendered when somebody asks: the target at
once, the reasoning and the candidates with `Decision`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from federation.routing import wording
from federation.routing.figures import Figures, figures
from federation.routing.planner import Plan
from federation.routing.rations import Admission
from federation.routing.replay import entry
from federation.routing.spills import Spill
from federation.routing.spread import Spread
from federation.routing.state import load_of
from federation.routing.table import Table
from policies.pipeline import Evaluation, candidate, differences, judge
from policies.pool import ByteArray, FloatArray, IntArray, Load
from policies.prediction import Ask
from policies.registry import Registry
from policies.types import Candidate, Choice, Code, Decision, Explain, Outcome, RouteRequest, Stage

# A table takes about so many bytes a row beyond what it shares with the one before.
TABLE_BYTES_PER_ROW = 120
TABLES_BYTES = 64 << 20


class DecisionUnknown(LookupError):
    """No such decision is remembered here."""

    def __init__(self, decision_id: str, kept: int) -> None:
        super().__init__(
            f"decision {decision_id!r} is not remembered: the newest {kept} of this replica are kept in memory"
            " (routing.decisions_kept); older ones stand in routing.decision_log where one is written"
        )
        self.decision_id = decision_id


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a shadow policy would have done: another deployment, or none for a reason."""

    policy_id: str
    deployment: str
    reason: str
    # Of its target less of the live one; None where either is unknown.
    later_seconds: float | None
    dearer_usd: float | None


@dataclass(slots=True, weakref_slot=True, eq=False)
class Record:
    """One decision with what it read. What is only told, it works out when somebody asks.

    `rows` are those whose moving values it keeps, in the table's numbering and order; places are among them.
    """

    number: int
    replica: str
    request: RouteRequest
    plan: Plan
    # Prompt and answer, with the policy's assumptions where the request is silent.
    tokens: int
    answer: int
    registry: Registry
    spread: Spread
    seed: int
    session_slot: int
    wanted: int
    wall_time: float
    now: float
    # The rows whose values are kept: all that were considered, or of a large pool those that were visited. What moved
    # and what the table said of them, in this order.
    kept: Sequence[int] | IntArray
    moving: FloatArray
    cached: Mapping[int, float]
    refused: ByteArray | None
    panic: bool
    rejected: Mapping[str, int]
    # Whom a walk looked at, in its order; None where all were scored at once.
    looked: Sequence[int] | None
    swept: bool
    # Rows of the target and of the alternatives.
    chosen: tuple[int, ...]
    # Seconds that the target's node was predicted to take to the first token.
    at_node: float
    by: str
    near: int
    shadowed: Shadowed | None = None
    # What its tenant's budget did to it ("" nothing), and what it was admitted by; None: its policy sheds nobody.
    demotion: str = ""
    admission: Admission | None = None
    # What its tier was drawn from; None: its policy has no tiers.
    spill: Spill | None = None
    # US dollars by attempt, where the tenant has a budget.
    charges: dict[int, float] | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    _intervals: dict[int, tuple[float, float]] = field(default_factory=dict)
    _rows: IntArray | None = None
    _load: Load | None = None
    _ask: Ask | None = None
    _evaluation: Evaluation | None = None

    @property
    def decision_id(self) -> str:
        """Names the replica that decided, and which of its decisions it was."""
        return f"{self.replica}-{self.number:x}"

    @property
    def rows(self) -> IntArray:
        if self._rows is None:
            self._rows = np.sort(np.asarray(self.kept, dtype=np.int64))
        return self._rows

    @property
    def load(self) -> Load:
        """What moved, of `rows`."""
        if self._load is None:
            cached = cached_column(self.cached, self.table.pool.slot[self.rows])
            self._load = load_of(self.moving[:, np.argsort(self.kept)], cached)
        return self._load

    @property
    def code(self) -> ByteArray:
        """What the request and the table alone said of `rows`."""
        return np.zeros(len(self.kept), dtype=np.int8) if self.refused is None else self.refused

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
        return self.plan.table

    @property
    def walked(self) -> bool:
        return self.looked is not None

    @property
    def visited(self) -> int:
        """How many candidates were scored."""
        return len(self.plan.rows if self.looked is None else self.looked)

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
        if self._ask is None:
            turns = None if self.spill is None else self.spill.turns
            self._ask = self.plan.ask(self.request, self.tokens, self.answer, self.wall_time, turns)
        return self._ask

    @property
    def evaluation(self) -> Evaluation:
        """Every kept candidate, filtered and scored again from the kept values."""
        if self._evaluation is None:
            pool = self.table.pool.take(self.rows)
            self._evaluation = judge(self.ask, pool, self.load, self.registry, self.code.copy(), self.panic)
        return self._evaluation

    def moved(self) -> list[list[float]]:
        """What moved of the target and the alternatives, by attempt, in the order of the kinds of `state`."""
        kept = self.kept
        columns: Sequence[int] | IntArray
        if isinstance(kept, np.ndarray):
            columns = kept.searchsorted(self.chosen)
        else:
            columns = [kept.index(row) for row in self.chosen]
        return self.moving.take(columns, axis=1).T.tolist()  # type: ignore[no-any-return]

    def names(self) -> tuple[str, ...]:
        """Deployments by attempt: the target, then the alternatives."""
        names = self.table.pool.names
        return tuple([names[row] for row in self.chosen])

    def slot(self, attempt: int) -> int:
        """Where an attempt runs; -1 for an attempt that was not planned."""
        return self.plan.scalars.slot[self.chosen[attempt]] if attempt < len(self.chosen) else -1

    def figures(self, place: int) -> Figures:
        """What was expected of one of `rows`."""
        if self._evaluation is None and self.walked:
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
        return self._intervals.setdefault(place, self.spread.interval(int(self.table.pool.slot[self.rows[place]])))

    def intervals(self) -> list[tuple[float, float]]:
        """`interval` of the target and the alternatives, by attempt."""
        slots, known, spread = self.plan.scalars.slot, self._intervals, self.spread
        chosen = zip(self.places, self.chosen, strict=True)
        return [known.setdefault(place, spread.interval(slots[row])) for place, row in chosen]

    def candidates(self) -> tuple[Candidate, ...]:
        """Every kept candidate that the caller may know of: the eligible by score, then the rejected by name."""
        found = self.evaluation
        rejected = sorted(
            np.flatnonzero((found.code != 0) & (found.code != Code.TENANT.value)),
            key=lambda place: found.pool.names[int(self.rows[place])],
        )
        return tuple(
            candidate(found, int(place), self.choice(int(place)), self.ages(int(place)))
            for place in [*found.order, *rejected]
        )

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
            candidates=self.candidates() if level is Explain.FULL else (),
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


def cached_column(cached: Mapping[int, float], slots: IntArray) -> FloatArray | None:
    """Cached tokens by slot as a column; None where nothing is cached."""
    return np.array([cached.get(slot, 0.0) for slot in slots.tolist()]) if cached else None


class DecisionRing:
    """The newest decisions of this replica, by number.

    A decision keeps its table alive; so besides a count there is a bound on the memory of tables, and the decisions of
    the oldest table go first.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._records: OrderedDict[int, Record] = OrderedDict()
        # By the table's id, which is its own for as long as one of its decisions is here to keep it alive.
        self._tables: OrderedDict[int, deque[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        if self.keep == 0:
            return
        self._records[record.number] = record
        self._tables.setdefault(id(record.table), deque()).append(record.number)
        if len(self._records) > self.keep:
            self._drop(self._records.popitem(last=False)[1])
        most = max(8, TABLES_BYTES // (TABLE_BYTES_PER_ROW * (len(record.table.pool) + 1)))
        while len(self._tables) > most:
            for number in self._tables.popitem(last=False)[1]:
                del self._records[number]

    def _drop(self, record: Record) -> None:
        """Takes the oldest record out of its table's list, and the list away with its last one."""
        numbers = self._tables[id(record.table)]
        numbers.remove(record.number)
        if not numbers:
            del self._tables[id(record.table)]

    def get(self, number: int) -> Record | None:
        return self._records.get(number)

    def newest(self, count: int) -> list[Record]:
        """The newest records, oldest of them first."""
        records = list(self._records.values())
        return records[-count:] if count else []


class DecisionLog:
    """Sampled decisions as JSON lines, rotated once at a size: `file` and `file.1`.

    Prompts, keys and tokens' texts are never part of a record.  Raises OSError where the file cannot be opened.
    """

    def __init__(self, path: Path, sample: float, max_bytes: int, draw: Callable[[], float]) -> None:
        self._path = path
        self._sample = sample
        self._max_bytes = max_bytes
        self._draw = draw
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def wants(self) -> bool:
        """Whether the next decision is in the sample."""
        return self._sample >= 1.0 or self._draw() < self._sample

    def write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        if self._file.tell() >= self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("a", encoding="utf-8")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
