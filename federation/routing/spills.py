"""Spills: which share of the work each tier of regions has now; `policies/spillover.py` has the rules.

Shares are looked at about once a second, off the request path, for every kind of request that came lately. A decision
only draws a tier; what it drew from is kept with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from federation.routing.rations import BATCHES
from federation.routing.state import IN_FLIGHT, RUNNING, State
from federation.routing.table import Table
from policies import spillover
from policies.policy import Assumptions, Spillover
from policies.pool import IntArray, Place
from policies.prediction import fill
from policies.spillover import Level
from policies.types import Code

if TYPE_CHECKING:
    from federation.routing.planner import Plan

LOOK_SECONDS = 1.0
# Kinds that are looked at in one step: under a millisecond. Ten steps a second are enough for a hundred of them; of
# more each is looked at less often, and moves as far.
KINDS_A_STEP = 10
# Kinds of requests whose shares are followed; who did not come for longest goes first.
MAX_KINDS = 4_096
# A kind that did not come for so long starts without a past.
FORGET_SECONDS = 600.0
# Who is away, but counts as capacity that there should be.
MISSING = (
    Code.UNHEALTHY,
    Code.CIRCUIT_OPEN,
    Code.EJECTED,
    Code.NOT_READY,
    Code.LEASE_EXPIRED,
    Code.PEER_LEASE_EXPIRED,
)


@dataclass(frozen=True, slots=True)
class Spill:
    """What a decision drew its tier from, and which it drew."""

    # By place of the table: its tier.
    tiers: IntArray
    names: tuple[str, ...]
    shares: tuple[float, ...]
    cause: str
    seed: int

    @property
    def drawn(self) -> int:
        return spillover.drawn(self.shares, self.seed)

    @property
    def turns(self) -> IntArray:
        """By place, when its tier is asked: the drawn one first, then the others in their order."""
        return np.where(self.tiers == self.drawn, -1, self.tiers)

    def told(self) -> str:
        """What was drawn and why, for people."""
        split = ", ".join(f"{share:.0%} {name}" for share, name in zip(self.shares, self.names, strict=True) if share)
        drawn = self.drawn
        why = f" because of {self.names[0]} {self.cause}" if drawn or self.shares[0] < 1.0 else ""
        return f"{split}; this one is for {self.names[drawn]}{why}"

    def entry(self) -> dict[str, Any]:
        """For a decision's record."""
        return {
            "tiers": self.tiers.tolist(),
            "names": list(self.names),
            "shares": list(self.shares),
            "cause": self.cause,
            "drawn": self.drawn,
        }


def spill_of(entry: Mapping[str, Any], seed: int) -> Spill:
    """What `Spill.entry` tells of."""
    tiers = np.array(entry["tiers"], dtype=np.int64)
    return Spill(tiers, tuple(entry["names"]), tuple(entry["shares"]), entry["cause"], seed)


@dataclass(slots=True)
class _Kind:
    """One kind of request: what it needs to be looked at again, and what came of the last look."""

    spill: Spillover
    assume: Assumptions
    # Below it, health is set aside.
    threshold: float
    model_id: str
    capability: str
    origin: str
    asked_at: float
    # The table's places when it was looked at, their tiers, and what those are called.
    places: Sequence[Place]
    tiers: IntArray
    names: tuple[str, ...]
    shares: tuple[float, ...] = ()
    looked_at: float = float("-inf")
    cause: str = ""


class Spills:
    """Shares by policy, model or capability, and origin. One writer: the event loop that decides."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[object, ...], _Kind] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kinds)

    def step(self, table: Table | None, state: State, now: float) -> None:
        """Looks again at some of the kinds that were not looked at for a second."""
        if table is None or not self._kinds:
            return
        due = [(kind.looked_at, key) for key, kind in self._kinds.items() if now - kind.looked_at >= LOOK_SECONDS]
        for _, key in nsmallest(KINDS_A_STEP, due, key=itemgetter(0)):
            kind = self._kinds[key]
            if now - kind.asked_at >= FORGET_SECONDS:
                del self._kinds[key]
            else:
                _look(kind, table, state, now)

    def draw(self, plan: Plan, state: State, seed: int, now: float) -> Spill | None:
        """What a request of a plan draws its tier from; None where its policy has no tiers."""
        spill = plan.policy.spillover
        if spill is None:
            return None
        model_id = plan.model.model_id if plan.model is not None else ""
        policy = plan.policy
        key = (spill, policy.assume, policy.panic_threshold, model_id, plan.pool, plan.origin_region)
        kind = self._kinds.get(key)
        if kind is None:
            places, origin = plan.table.pool.places, plan.origin_region
            tiers, names = _tiers(spill, places, origin)
            threshold = policy.panic_threshold
            kind = _Kind(spill, policy.assume, threshold, model_id, plan.pool, origin, now, places, tiers, names)
            _look(kind, plan.table, state, now)
            self._kinds[key] = kind
            if len(self._kinds) > MAX_KINDS:
                self._kinds.popitem(last=False)
        elif kind.places is not plan.table.pool.places:
            # The catalog was compiled anew: regions may have come or gone.
            _look(kind, plan.table, state, now)
        kind.asked_at = now
        self._kinds.move_to_end(key)
        return Spill(kind.tiers, kind.names, kind.shares, kind.cause, seed)


def _tiers(spill: Spillover, places: Sequence[Place], origin: str) -> tuple[IntArray, tuple[str, ...]]:
    """By place its tier, and what the tiers are called: their regions."""
    regions = [place.region_id for place in places]
    tiers = [spillover.tier_of(spill.region_order, region_id, origin) for region_id in regions]
    names = [
        ", ".join(region_id for region_id, tier in zip(regions, tiers, strict=True) if tier == number) or "nobody"
        for number in range(len(spill.region_order) + 1)
    ]
    return np.array(tiers, dtype=np.int64), tuple(names)


def _look(kind: _Kind, table: Table, state: State, now: float) -> None:
    """The shares as they should be by now, on the way from those of before."""
    if kind.places is not table.pool.places:
        kind.places = table.pool.places
        kind.tiers, kind.names = _tiers(kind.spill, kind.places, kind.origin)
    levels = _levels(kind, table, state)
    target = spillover.shares(levels, kind.spill)
    if len(kind.shares) == len(target):
        most = spillover.holds(levels, kind.spill)
        kind.shares = spillover.braked(kind.shares, target, most, now - kind.looked_at, kind.spill)
    else:
        kind.shares = target
    kind.looked_at = now
    first = next((number for number, level in enumerate(levels) if level.places or level.healthy), 0)
    kind.cause = spillover.cause(levels, first, kind.spill, kind.threshold, kind.shares[first])


def _levels(kind: _Kind, table: Table, state: State) -> list[Level]:
    compiled, pool = table.compiled, table.pool
    by = compiled.rows_by_model if kind.model_id else compiled.rows_by_capability
    rows = by.get(kind.model_id or kind.capability)
    count = len(kind.names)
    if rows is None or not len(rows):
        return [Level(0.0, 0.0)] * count
    status = pool.status[rows]
    tier = kind.tiers[pool.place[rows]]
    places = np.minimum(pool.limit[rows], BATCHES * fill(pool.batch[rows], kind.assume.max_batch_size))
    well = status == 0
    member = well | np.isin(status, [code.value for code in MISSING])
    ours = state.matrix[IN_FLIGHT, pool.slot[rows]]
    others = np.maximum(0.0, state.matrix[RUNNING, pool.slot[rows]] - ours)

    def by_tier(values: Any, of: Any) -> list[float]:
        found: list[float] = np.bincount(tier[of], weights=values[of], minlength=count).tolist()
        return found

    everything = np.ones(len(rows), dtype=np.bool_)
    total, healthy = by_tier(places, member), by_tier(places, well)
    return [
        Level(up / whole if whole > 0.0 else 0.0, up, mine, theirs)
        for whole, up, mine, theirs in zip(
            total, healthy, by_tier(ours, everything), by_tier(others, well), strict=True
        )
    ]
