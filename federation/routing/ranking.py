"""A ranking: what passes for one kind of request, as groups in the order of what they could score at best.

Requests that differ only in their prompt's length within a class, in session or in name, share a ranking.  It is
cached until the next table.  The order is that of an idle fleet, with the prompt at its class's lower edge: nobody can
do better than its place there, so a decision that walks down the list may stop as soon as the next one's best is past
what it already found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from federation.routing.groups import Group, Groups
from policies import filters
from policies.pipeline import BEST_GRADE, Domains, count_codes, refuse, score, seconds, settle_health, weigh
from policies.policy import Assumptions, Policy
from policies.pool import BoolArray, ByteArray, IntArray, Load, Pool
from policies.prediction import Ask, egress_per_token, fill, fill_least, predict
from policies.registry import Registry
from policies.types import Code

# Pickers that need not know everybody.
WALKED = ("predicted", "best", "power_of_two")
# Failure domains that a walk looks at for alternatives when those it met are all of one; three is what callers ask for.
MAX_HEADS = 8


@dataclass(frozen=True, slots=True)
class Scalars:
    """A table's columns as plain lists by row, with a policy's assumptions filled in: what a walk reads one by one."""

    slot: list[int]
    domains: Domains
    per_token: list[float]
    least: list[float]
    batch: list[float]
    decode: list[float]
    limit: list[float]
    # US dollars per token; nothing where no price is known, which `priced` (1.0 or 0.0) tells.
    input_price: list[float]
    cached_price: list[float]
    output_price: list[float]
    priced: list[float]
    committed: list[float]
    health: list[float]
    best_grade: list[bool]
    row_of_slot: Mapping[int, int]


def scalars(pool: Pool, assume: Assumptions) -> Scalars:
    """The lists of a whole table."""
    priced = ~np.isnan(pool.input_price + pool.output_price)
    cached_price = np.where(np.isnan(pool.cached_price), pool.input_price, pool.cached_price)
    slots = pool.slot.tolist()
    return Scalars(
        slot=slots,
        domains=Domains(pool.node.tolist(), pool.zone.tolist(), pool.place.tolist()),
        per_token=fill(pool.prefill, assume.prefill_seconds_per_token).tolist(),
        least=fill_least(pool, assume).tolist(),
        batch=fill(pool.batch, assume.max_batch_size).tolist(),
        decode=fill(pool.decode, assume.decode_tokens_per_second).tolist(),
        limit=pool.limit.tolist(),
        input_price=np.where(priced, pool.input_price, 0.0).tolist(),
        cached_price=np.where(priced, cached_price, 0.0).tolist(),
        output_price=np.where(priced, pool.output_price, 0.0).tolist(),
        priced=priced.astype(np.float64).tolist(),
        committed=pool.committed.tolist(),
        health=pool.health.tolist(),
        best_grade=(pool.health >= BEST_GRADE).tolist(),
        row_of_slot=dict(zip(slots, pool.row.tolist(), strict=True)),
    )


# A group, and what the ranking and the group say of it, in the order that `Ranking.step` tells.
Step = tuple[Group, float, float, float, float, float, float, float, float, float, float, float, float, float, float]


@dataclass(slots=True)
class Ranking:
    """Rows that pass, by group. Figures in seconds: what a policy's slopes make of points."""

    # Of all rows that were looked at, the code that the request and the table alone gave them; for explanations.
    code: ByteArray
    narrow: BoolArray | None
    panic: bool
    # Rejections by code, of those that the table alone decides.
    counts: dict[str, int]
    # Whether `walk` may decide: a picker that takes the leaders, no bounds, no trials, nothing that it does not know.
    walkable: bool
    # The shortest context window of those that no other hard rule leaves out; longer prompts go the long way.
    window: float
    # Rows of the table that pass, in its order.
    rows: IntArray
    groups: Groups
    # Groups, best first, and the first of each zone among them; at most MAX_HEADS of these.
    line: list[int]
    heads: list[int]
    # By group: the composite taken back to seconds, idle, at the lower edge; less is better.
    at_best: list[float]
    # By group: how much shorter the prefill of the class's lower edge is than that of a prompt of the usual length.
    slack: list[float]
    # By group: the same without the time at the node, money and speed; what the prompt does not move.
    fixed: list[float]
    # By group: points of locality, the zone and the region, and the round trip, which `fixed` contains.
    locality: list[float]
    zone: list[int]
    region: list[int]
    round_trip: list[float]
    # By group: seconds that a token is worth: of the prompt, of a cached prompt, of the answer, and of carrying the
    # answer out, which is paid for even where the rest is committed.
    input_seconds: list[float]
    cached_seconds: list[float]
    output_seconds: list[float]
    egress_seconds: list[float]
    # By region: US dollars for carrying a token of an answer out of it.
    egress: list[float]
    throughput_seconds: float
    # weighted sum = -seconds × this, and the composite is the weighted sum over all weights.
    per_second: float
    weights: Mapping[str, float]
    weight_sum: float
    # Whether walks over the groups did not end soon: then a pass over columns says whom to look at.
    crowded: bool
    # What of the groups does not move, in the order of `line`, as far as walks came.
    steps: list[Step] = field(default_factory=list)
    # By group: whether it belongs to the tier of regions that this is the ranking of; None: it is of all.
    only: BoolArray | None = None
    # Tiers that were asked for, by the turns of their regions.
    tiers: dict[tuple[int, ...], Ranking] = field(default_factory=dict)

    def foremost(self, turns: tuple[int, ...]) -> Ranking:
        """Its part in the regions whose turn comes first, of those with anybody; `turns` are by region."""
        found = self.tiers.get(turns)
        if found is None:
            columns, mine = self.groups.columns, np.array(turns)[self.region]
            only = mine == mine.min(initial=max(turns))
            found = self.tiers[turns] = replace(
                self,
                rows=np.sort(columns.rows[only[columns.number]]),
                line=[number for number in self.line if only[number]],
                heads=[],
                steps=[],
                only=only,
                tiers={},
            )
        return found

    def step(self, number: int) -> Step:
        """What of a group does not move."""
        group = self.groups.one(number)
        return (
            group,
            self.at_best[number],
            self.slack[number],
            self.fixed[number],
            self.egress_seconds[number],
            self.input_seconds[number],
            self.output_seconds[number],
            self.round_trip[number],
            group.per_token,
            group.least,
            group.reference,
            group.speed,
            group.idle,
            group.committed,
            group.limit,
        )


def lower_edge(tokens: int) -> int:
    """The least prompt of the class that a prompt belongs to; classes double."""
    return 1 << (tokens.bit_length() - 1) if tokens > 0 else 0


def build_ranking(
    ask: Ask,
    pool: Pool,
    registry: Registry,
    narrow: BoolArray | None,
    group: Callable[[Pool, Policy, float], Groups],
    panic: bool | None = None,
) -> Ranking:
    """Filters and scores a pool for a class of requests, as if nothing ran anywhere.

    `panic`, where given, is what a recorded decision found; its record may hold only those that it visited.  `group`
    makes groups of the rows that pass, for what a token per second more is worth in seconds, or answers with those
    that it made before.
    """
    open_ask = replace(ask, request=replace(ask.request, input_tokens=None, max_output_tokens=None))
    refused = refuse(open_ask, pool, registry, narrow)
    code, panic = settle_health(refused, pool, ask.policy.panic_threshold, panic)
    passed = pool.take(np.flatnonzero(code == 0)) if code.any() else pool
    policy = ask.policy
    weights = weigh(ask)
    per_second = policy.latency_points_per_second
    scale = 1.0 / per_second if per_second > 0 else 0.0
    throughput_seconds = weights["throughput"] * policy.throughput.slope * scale
    groups = group(passed, policy, throughput_seconds)
    one = passed.take(groups.columns.members)
    edge = replace(ask, input_tokens=lower_edge(ask.input_tokens), output_tokens=lower_edge(ask.output_tokens))
    seen = predict(edge, one, Load.idle(len(one)))
    points, weights, total = score(edge, one, seen, registry)
    at_best = seconds(edge, total, weights)
    dollar_seconds = -weights["cost"] * policy.cost.slope * scale
    moved = seen.at_node + dollar_seconds * np.nan_to_num(seen.cost) - throughput_seconds * seen.throughput
    line = np.lexsort((one.row, at_best))
    first_of_zone = np.unique(one.zone[line], return_index=True)[1]
    no_bounds = not filters.limits(ask.request, policy.bounds).any
    plain = not policy.extra_scorers and not policy.extra_filters and not ask.request.prefer_gpu
    priced = ~np.isnan(one.input_price + one.output_price)
    worth = np.where(priced, dollar_seconds, 0.0)
    cached_price = np.where(np.isnan(one.cached_price), one.input_price, one.cached_price)
    egress = egress_per_token(ask.origin, pool.places, policy.assume)
    return Ranking(
        code=code,
        narrow=narrow,
        panic=panic,
        counts=count_codes(code),
        walkable=(
            policy.picker in WALKED
            and per_second > 0
            and no_bounds
            and plain
            # Whether a price that is half known counts hangs on whether the request has such tokens.
            and not bool((np.isnan(one.input_price) ^ np.isnan(one.output_price)).any())
            # Committed requests are free of what is not known, too.
            and not bool(((one.committed > 0) & np.isnan(one.input_price)).any())
            and not bool(passed.half_open.any())
        ),
        window=float(np.nanmin(np.append(pool.context_window[np.isin(refused, (0, Code.RULE.value))], np.inf))),
        rows=passed.row,
        groups=groups,
        line=line.tolist(),
        heads=line[np.sort(first_of_zone)[:MAX_HEADS]].tolist(),
        at_best=at_best.tolist(),
        slack=np.maximum(
            groups.reference - np.maximum(groups.columns.per_token * edge.input_tokens, groups.columns.least), 0.0
        ).tolist(),
        fixed=(at_best - moved).tolist(),
        locality=points["locality"].tolist(),
        zone=one.zone.tolist(),
        region=one.place.tolist(),
        round_trip=seen.round_trip.tolist(),
        input_seconds=(np.where(priced, one.input_price, 0.0) * worth).tolist(),
        cached_seconds=(np.where(priced, cached_price, 0.0) * worth).tolist(),
        output_seconds=(np.where(priced, one.output_price, 0.0) * worth).tolist(),
        egress_seconds=(egress[one.place] * worth).tolist(),
        egress=egress.tolist(),
        throughput_seconds=throughput_seconds,
        per_second=per_second,
        weights=weights,
        weight_sum=sum(weights.values()),
        crowded=not groups.worthwhile,
    )
