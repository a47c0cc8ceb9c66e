"""A ranking: what passes for one kind of request, in the order of what it could score at best.

Requests that differ only in their prompt's length within a class, in session or in name, share a ranking.  It is
cached until the next table.  The order is that of an idle fleet, with the prompt at its class's lower edge: nobody can
do better than its place there, so a decision that walks down the list may stop as soon as the next one's best is past
what it already found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from federation.routing.sweep import Sweep
from policies import filters
from policies.pipeline import BEST_GRADE, Domains, count_codes, refuse, score, seconds, settle_health
from policies.policy import Assumptions
from policies.pool import BoolArray, ByteArray, FloatArray, Load, Pool
from policies.prediction import Ask, egress_per_token, fill, fill_least, predict
from policies.registry import Registry
from policies.types import Code

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


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows that pass, in the order of their best. Figures in seconds: what a policy's slopes make of points."""

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
    # Rows of the table, best first, and the first places of zones among them; at most MAX_HEADS of these.
    rows: list[int]
    heads: list[int]
    place_of: Mapping[int, int]
    # By place: the composite taken back to seconds, idle, at the lower edge; less is better.
    at_best: list[float]
    # By place: the same without the time to the first token, money and speed: what the prompt does not move.
    fixed: list[float]
    locality: list[float]
    # By region: the round trip, and US dollars for carrying a token of an answer out of it.
    round_trip: list[float]
    egress: list[float]
    # Seconds that a dollar, and a token per second more, are worth.
    dollar_seconds: float
    throughput_seconds: float
    # weighted sum = -seconds × this, and the composite is the weighted sum over all weights.
    per_second: float
    weights: Mapping[str, float]
    weight_sum: float
    sweep: Sweep


def lower_edge(tokens: int) -> int:
    """The least prompt of the class that a prompt belongs to; classes double."""
    return 1 << (tokens.bit_length() - 1) if tokens > 0 else 0


def build_ranking(
    ask: Ask, pool: Pool, registry: Registry, narrow: BoolArray | None, panic: bool | None = None
) -> Ranking:
    """Filters and scores a pool for a class of requests, as if nothing ran anywhere.

    `panic`, where given, is what a recorded decision found; its record may hold only those that it visited.
    """
    open_ask = replace(ask, request=replace(ask.request, input_tokens=None, max_output_tokens=None))
    refused = refuse(open_ask, pool, registry, narrow)
    code, panic = settle_health(refused, pool, ask.policy.panic_threshold, panic)
    passed = pool.take(np.flatnonzero(code == 0))
    edge = replace(ask, input_tokens=lower_edge(ask.input_tokens), output_tokens=lower_edge(ask.output_tokens))
    seen = predict(edge, passed, Load.idle(len(passed)))
    points, weights, total = score(edge, passed, seen, registry)
    at_best = seconds(edge, total, weights)
    policy = ask.policy
    per_second = policy.latency_points_per_second
    scale = 1.0 / per_second if per_second > 0 else 0.0
    dollar_seconds = -weights["cost"] * policy.cost.slope * scale
    throughput_seconds = weights["throughput"] * policy.throughput.slope * scale
    moved = seen.time_to_first_token + dollar_seconds * np.nan_to_num(seen.cost) - throughput_seconds * seen.throughput
    order = np.lexsort((passed.row, at_best))
    rows = passed.row[order].tolist()
    first_of_zone = np.unique(passed.zone[order], return_index=True)[1]
    no_bounds = not filters.limits(ask.request, policy.bounds).any
    plain = not policy.extra_scorers and not policy.extra_filters and not ask.request.prefer_gpu
    return Ranking(
        code=code,
        narrow=narrow,
        panic=panic,
        counts=count_codes(code),
        walkable=(
            policy.picker in ("predicted", "best")
            and per_second > 0
            and no_bounds
            and plain
            # Whether a price that is half known counts hangs on whether the request has such tokens.
            and not bool((np.isnan(passed.input_price) ^ np.isnan(passed.output_price)).any())
            # Committed requests are free of what is not known, too.
            and not bool(((passed.committed > 0) & np.isnan(passed.input_price)).any())
            and not bool(passed.half_open.any())
        ),
        window=float(np.nanmin(np.append(pool.context_window[np.isin(refused, (0, Code.RULE.value))], np.inf))),
        rows=rows,
        heads=sorted(first_of_zone.tolist())[:MAX_HEADS],
        place_of={row: place for place, row in enumerate(rows)},
        at_best=at_best[order].tolist(),
        fixed=(at_best - moved)[order].tolist(),
        locality=points["locality"][order].tolist(),
        round_trip=ask.round_trip.tolist(),
        egress=egress_per_token(ask.origin, pool.places, policy.assume).tolist(),
        dollar_seconds=dollar_seconds,
        throughput_seconds=throughput_seconds,
        per_second=per_second,
        weights=weights,
        weight_sum=sum(weights.values()),
        sweep=_sweep(ask, passed.take(order), (at_best - moved)[order], dollar_seconds, throughput_seconds),
    )


def _sweep(ask: Ask, passed: Pool, fixed: FloatArray, dollar_seconds: float, throughput_seconds: float) -> Sweep:
    """The columns of those that pass, in the ranking's order."""
    assume = ask.policy.assume
    priced = ~np.isnan(passed.input_price + passed.output_price)
    worth = np.where(priced, dollar_seconds, 0.0)
    cached_price = np.where(np.isnan(passed.cached_price), passed.input_price, passed.cached_price)
    return Sweep(
        slots=passed.slot,
        per_token=fill(passed.prefill, assume.prefill_seconds_per_token),
        least=fill_least(passed, assume),
        batch=fill(passed.batch, assume.max_batch_size),
        decode=fill(passed.decode, assume.decode_tokens_per_second),
        limit=passed.limit,
        committed=passed.committed,
        round_trip=ask.round_trip[passed.place],
        fixed=fixed,
        input_seconds=np.where(priced, passed.input_price, 0.0) * worth,
        cached_seconds=np.where(priced, cached_price, 0.0) * worth,
        output_seconds=np.where(priced, passed.output_price, 0.0) * worth,
        egress_seconds=egress_per_token(ask.origin, passed.places, assume)[passed.place] * worth,
        throughput_seconds=throughput_seconds,
    )
