"""What another policy, other prices, or the loss of a region would change: past decisions, made again.

It works on decision records (`replay.py`), from memory or from a log, and touches nothing that routes: no counter, no
circuit, no reservation.  What moved is taken as it was recorded; that other choices would have moved it otherwise is
what `fairway simulate` is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from federation.routing.replay import ask_of, load_of, pool_of
from policies import rules
from policies.filters import narrowed
from policies.pipeline import Evaluation, choose, evaluate, reason_for_none
from policies.policy import Policy
from policies.pool import BoolArray, Pool
from policies.prediction import Ask, fill
from policies.registry import BUILT_IN, Registry
from policies.spillover import tier_of
from policies.types import Code

MAX_CHANGES = 100


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars per million tokens of the deployments whose names match a glob; None leaves a price as it was."""

    deployments: str
    input: float | None = None
    output: float | None = None
    cached: float | None = None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What is to be different. All of it may be set at once."""

    policy: Policy | None = None
    without_regions: frozenset[str] = frozenset()
    prices: tuple[TokenPrice, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What one decision chose, and what was expected of it."""

    deployment: str
    region_id: str
    cost_usd: float | None
    time_to_first_token_seconds: float


@dataclass(frozen=True, slots=True)
class Again:
    """A decision as it was and as it would be; `reason` says why it would go nowhere."""

    decision_id: str
    model_id: str
    before: Expected
    after: Expected | None
    reason: str = ""
    # What the new target breaks, by an own look at the request; anything is a defect of Fairway.
    violations: tuple[str, ...] = ()

    @property
    def moved(self) -> bool:
        return self.after is not None and self.after.deployment != self.before.deployment


@dataclass(slots=True)
class Preview:
    """Sums over decisions that were made again."""

    decisions: int = 0
    moved: int = 0
    refused: int = 0
    violations: int = 0
    # Means are over decisions that have a figure on both sides.
    cost_before: float = 0.0
    cost_after: float = 0.0
    priced: int = 0
    first_before: float = 0.0
    first_after: float = 0.0
    placed: int = 0
    regions_before: Counter[str] = field(default_factory=Counter)
    regions_after: Counter[str] = field(default_factory=Counter)
    changes: list[Again] = field(default_factory=list)

    def add(self, again: Again) -> None:
        """Counts one decision."""
        before, after = again.before, again.after
        self.decisions += 1
        self.moved += again.moved
        self.violations += bool(again.violations)
        self.regions_before[before.region_id] += 1
        if after is None:
            self.refused += 1
        else:
            self.regions_after[after.region_id] += 1
            self.placed += 1
            self.first_before += before.time_to_first_token_seconds
            self.first_after += after.time_to_first_token_seconds
            if before.cost_usd is not None and after.cost_usd is not None:
                self.priced += 1
                self.cost_before += before.cost_usd
                self.cost_after += after.cost_usd
        if (again.moved or after is None or again.violations) and len(self.changes) < MAX_CHANGES:
            self.changes.append(again)

    def figures(self) -> dict[str, tuple[float, float]]:
        """What conditions speak of, before and after: cost, latency, moved, refused and violations."""
        share = max(1, self.decisions)
        return {
            "cost": (self.cost_before / max(1, self.priced), self.cost_after / max(1, self.priced)),
            "latency": (self.first_before / max(1, self.placed), self.first_after / max(1, self.placed)),
            "moved": (0.0, self.moved / share),
            "refused": (0.0, self.refused / share),
            "violations": (0.0, float(self.violations)),
        }


def preview(records: Iterable[Mapping[str, Any]], what_if: WhatIf, registry: Registry = BUILT_IN) -> Preview:
    """Makes every record's decision again under a change."""
    found = Preview()
    for record in records:
        found.add(decide_again(record, what_if, registry))
    return found


def decide_again(record: Mapping[str, Any], what_if: WhatIf, registry: Registry = BUILT_IN) -> Again:
    """One decision under a change. KeyError or ValueError for a record that cannot be read."""
    pool, ask, load = pool_of(record), ask_of(record, registry), load_of(record)
    before = _before(record, pool, ask)
    pool = _priced(pool, what_if.prices)
    narrow = None if record["narrow"] is None else np.array(record["narrow"], dtype=np.bool_)
    if what_if.policy is not None:
        effect = rules.apply(
            what_if.policy,
            ask.request,
            unix_time=ask.unix_time,
            utilization=_utilization(ask, pool, load),
            seed=record["seed"],
        )
        if effect.refusal:
            return Again(record["decision_id"], ask.request.model_id, before, None, "REFUSED_BY_RULE")
        model = next((model for model in pool.models if model.model_id == effect.request.model_id), ask.model)
        ask = replace(_under(ask, effect, what_if.policy), model=model)
        narrow = _narrow(pool, effect)
    gone = np.array([place.region_id in what_if.without_regions for place in pool.places], dtype=np.bool_)[pool.place]
    if gone.any():
        pool = replace(pool, status=np.where(gone, Code.NOT_READY.value, pool.status).astype(np.int8))
    found = evaluate(_in_turn(ask, pool), pool, load, registry, narrow)
    # Where the decision stood is where its session was, as far as the record tells.
    selected = choose(
        found,
        registry,
        picker=ask.policy.picker,
        seed=record["seed"],
        key=ask.request.hash_key,
        session_slot=record["session_slot"],
        wanted=record["wanted"],
    )
    if selected is None:
        return Again(record["decision_id"], ask.request.model_id, before, None, reason_for_none(found.counts()))
    after = _expected(found, selected.target)
    broken = tuple(
        broken for place in (selected.target, *selected.alternatives) for broken in violations(ask, pool, place, gone)
    )
    return Again(record["decision_id"], ask.request.model_id, before, after, violations=broken)


def _in_turn(ask: Ask, pool: Pool) -> Ask:
    """The request with the turns of its policy's tiers, as if none of them lacked room."""
    spill = ask.policy.spillover
    if spill is None or ask.turns is not None:
        return ask if spill is not None else replace(ask, turns=None)
    regions = [place.region_id for place in pool.places]
    tiers = [tier_of(spill.region_order, region_id, ask.request.origin_region) for region_id in regions]
    return replace(ask, turns=np.array(tiers, dtype=np.int64))


def _before(record: Mapping[str, Any], pool: Pool, ask: Ask) -> Expected:
    """What the record's own decision expected of its target."""
    told = record["decision"]["expected"]
    place = record["names"].index(record["decision"]["target"])
    return Expected(
        deployment=record["decision"]["target"],
        region_id=pool.places[pool.place[place]].region_id,
        cost_usd=told["cost_usd"],
        time_to_first_token_seconds=told["time_to_first_token_seconds"],
    )


def _expected(found: Evaluation, place: int) -> Expected:
    cost = float(found.seen.cost[place])
    return Expected(
        deployment=found.pool.names[int(found.pool.row[place])],
        region_id=found.pool.places[int(found.pool.place[place])].region_id,
        cost_usd=None if np.isnan(cost) else cost,
        time_to_first_token_seconds=float(found.seen.time_to_first_token[place]),
    )


def _under(ask: Ask, effect: rules.Effect, policy: Policy) -> Ask:
    """The same request under another policy, with that policy's assumptions."""
    request, assume = effect.request, policy.assume
    same = policy.spillover is not None and ask.policy.spillover == policy.spillover
    return replace(
        ask,
        turns=ask.turns if same else None,
        request=request,
        policy=effect.policy,
        input_tokens=assume.input_tokens if request.input_tokens is None else request.input_tokens,
        output_tokens=assume.output_tokens if request.max_output_tokens is None else request.max_output_tokens,
    )


def _narrow(pool: Pool, effect: rules.Effect) -> BoolArray | None:
    masks = [narrowed(pool, narrowing) for narrowing in effect.narrow]
    return np.logical_or.reduce(masks) if masks else None


def _utilization(ask: Ask, pool: Pool, load: Any) -> float | None:
    if not len(pool):
        return None
    batch = fill(pool.batch, ask.policy.assume.max_batch_size)
    return float(np.mean(np.maximum(load.in_flight, load.running) / batch))


def _priced(pool: Pool, prices: tuple[TokenPrice, ...]) -> Pool:
    """The pool under other token prices; a later entry goes before an earlier one."""
    if not prices:
        return pool
    columns = {
        "input_price": pool.input_price.copy(),
        "output_price": pool.output_price.copy(),
        "cached_price": pool.cached_price.copy(),
    }
    for price in prices:
        hit = np.array([fnmatchcase(pool.names[int(row)], price.deployments) for row in pool.row], dtype=np.bool_)
        for name, value in (
            ("input_price", price.input),
            ("output_price", price.output),
            ("cached_price", price.cached),
        ):
            if value is not None:
                columns[name][hit] = value / 1e6
    return replace(pool, **columns)  # type: ignore[arg-type]  # by name, with the types of the fields


def violations(ask: Ask, pool: Pool, place: int, gone: BoolArray) -> list[str]:
    """What a choice breaks, looked at without the filters' code: residency, privacy, tenant, region, capability."""
    request, bounds = ask.request, ask.policy.bounds
    region = pool.places[int(pool.place[place])]
    row = int(pool.row[place])
    name = pool.names[row]
    found = []
    if gone[place]:
        found.append(f"{name}: its region is gone")
    lists = [allowed for allowed in (request.jurisdictions, bounds.jurisdictions) if allowed]
    if any(not set(allowed) & set(region.jurisdictions) for allowed in lists):
        found.append(f"{name}: jurisdiction")
    if int(pool.privacy[place]) < int(request.privacy_level):
        found.append(f"{name}: privacy")
    if pool.private[place] and row not in pool.facts.tenants.get(request.tenant_id, ()):
        found.append(f"{name}: tenant")
    if region.region_id in request.exclude_regions:
        found.append(f"{name}: excluded region")
    if request.only_regions and region.region_id not in request.only_regions:
        found.append(f"{name}: region that is not allowed")
    if request.capability and row not in pool.facts.capabilities.get(request.capability, ()):
        found.append(f"{name}: capability")
    return found
