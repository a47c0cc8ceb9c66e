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

from federation.routing import telling
from federation.routing.figures import Figures
from federation.routing.frame import Frame, Visit
from federation.routing.groups import Entry
from federation.routing.listing import Candidates
from federation.routing.look import Found
from federation.routing.planner import Plan
from federation.routing.rations import Admission
from federation.routing.replay import entry
from federation.routing.spills import Spill
from federation.routing.spread import Spread
from federation.routing.state import cached_column, load_of
from federation.routing.table import Table
from federation.routing.walk import settle
from policies.pipeline import Evaluation, alternatives, judge
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
        if not self.wanted:
            # Whoever was drawn is fit, else a walk had decided.
            self._chosen = (self.row,)
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
        return telling.figures_of(self, place)

    def choice(self, place: int) -> Choice:
        """One of `rows` as a place to send the request to."""
        return telling.choice_of(self, place, self.figures(place))

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
        return telling.rendered(self, explain or self.request.explain)

    def stages(self) -> tuple[Stage, ...]:
        """What each stage of the pipeline did."""
        return telling.stages_of(self)


def rejections(counts: Mapping[str, int], full: int, low: int) -> Mapping[str, int]:
    """What the table refused, and those visited that were full or scored too low."""
    found = {Code.AT_CAPACITY.name: full, Code.BELOW_MIN_SCORE.name: low}
    return {**counts, **{name: count for name, count in found.items() if count}}
