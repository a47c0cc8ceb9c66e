"""The plain pipeline: filter everything, score everything, sort.

It is the definition of what a decision means.  `federation/routing` decides most requests faster, by visiting few
candidates; a property test holds its choice against this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies import filters, pickers
from policies.pickers import Field
from policies.pool import BoolArray, ByteArray, FloatArray, Identity, IntArray, Load, Pool
from policies.prediction import Ask, Prediction, fill, predict
from policies.registry import Registry
from policies.scorers import Gpu, cost_weight
from policies.types import Candidate, Choice, Code, Term

# Whom panic takes back: health is set aside, hard rules are not.
HEALTH_CODES = (Code.UNHEALTHY, Code.CIRCUIT_OPEN, Code.EJECTED)

# A session stays where health is at least this: the best grade, slow start and a little age included.
BEST_GRADE = 0.75
# Pickers that compare candidates within the policy's near margin.
DRAWS_NEAR = ("predicted",)

# The order in which a reason explains that nothing is left: the last class still standing decides.
PERMISSION = frozenset({Code.TENANT})
PRIVACY = frozenset({Code.PRIVACY, Code.JURISDICTION})
HEALTH = frozenset({Code.NOT_READY, Code.LEASE_EXPIRED, Code.PEER_LEASE_EXPIRED, *HEALTH_CODES})
ROOM = frozenset({Code.AT_CAPACITY, Code.DRAINING})
# What the table says of availability; whoever has one of these may break a bound as well.
AVAILABILITY = HEALTH | {Code.DRAINING}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every candidate of a request, filtered and scored."""

    ask: Ask
    pool: Pool
    load: Load
    seen: Prediction
    # 0 where eligible, else the rejection code.
    code: ByteArray
    points: Mapping[str, FloatArray]
    weights: Mapping[str, float]
    # Not clipped; what ordering uses.
    total: FloatArray
    # What `min_score` judged, 0..1; see `standing`.
    standing: FloatArray
    panic: bool
    # Places of the eligible ones, best first.
    order: IntArray

    def counts(self) -> dict[str, int]:
        """Rejections by code."""
        return count_codes(self.code)


def count_codes(code: ByteArray) -> dict[str, int]:
    found = np.bincount(code, minlength=1)
    return {Code(number).name: int(found[number]) for number in np.flatnonzero(found) if number}


def refuse(ask: Ask, pool: Pool, registry: Registry, narrow: BoolArray | None = None) -> ByteArray:
    """What the request and the table alone refuse, before health: hard rules, also in panic."""
    code = np.zeros(len(pool), dtype=np.int8)
    for reason, rule in filters.STATIC:
        code[(code == 0) & rule(ask, pool)] = reason.value
    for name in ask.policy.extra_filters:
        code[(code == 0) & registry.filters[name](ask, pool)] = Code.RULE.value
    if narrow is not None:
        code[(code == 0) & narrow] = Code.RULE.value
    return code


def settle_health(code: ByteArray, pool: Pool, threshold: float, panic: bool | None = None) -> tuple[ByteArray, bool]:
    """Adds what availability refuses; in panic health is set aside.

    Panic: some, but fewer than the threshold, of those that hard rules leave are available; unless it is told, as for
    a recorded decision that kept only some of them.
    """
    status = pool.status
    left = code == 0
    unhealthy = np.isin(status, [c.value for c in HEALTH_CODES])
    if panic is None:
        members = int(np.count_nonzero(left & ((status == 0) | unhealthy)))
        available = int(np.count_nonzero(left & (status == 0)))
        panic = 0 < available < threshold * members
    aside = unhealthy if panic else np.zeros(len(pool), dtype=np.bool_)
    return np.where(left & ~aside, status, code).astype(np.int8), panic


def weigh(ask: Ask) -> dict[str, float]:
    """The weights that hold for one request."""
    weights = ask.policy.weights
    found = {
        "latency": weights.latency,
        "throughput": weights.throughput,
        "cost": cost_weight(weights.cost, ask.request.cost_tolerance),
        "locality": weights.locality,
        "health": weights.health,
        **ask.policy.extra_scorers,
    }
    if ask.request.prefer_gpu:
        found["gpu"] = 1.0
    return found


def score(
    ask: Ask, pool: Pool, seen: Prediction, registry: Registry
) -> tuple[dict[str, FloatArray], dict[str, float], FloatArray]:
    """Points by scorer, their weights, and the composite: the weighted mean."""
    weights = weigh(ask)
    points = {name: (Gpu() if name == "gpu" else registry.scorers[name])(ask, pool, seen) for name in weights}
    for name in ask.policy.extra_scorers:
        # What another package's scorer does not know stands at the poor point; NaN would pass every comparison.
        points[name] = np.where(np.isnan(points[name]), 0.0, points[name])
    total = np.zeros(len(pool))
    for name, weight in weights.items():
        total = total + weight * points[name]
    return points, weights, total / (sum(weights.values()) or 1.0)


def evaluate(ask: Ask, pool: Pool, load: Load, registry: Registry, narrow: BoolArray | None = None) -> Evaluation:
    """Filters and scores every candidate of a pool."""
    code, panic = settle_health(refuse(ask, pool, registry, narrow), pool, ask.policy.panic_threshold)
    return judge(ask, pool, load, registry, code, panic)


def judge(ask: Ask, pool: Pool, load: Load, registry: Registry, code: ByteArray, panic: bool) -> Evaluation:
    """Adds what moves to what was refused before (`code`, changed in place): bounds, room, scores, order."""
    seen = predict(ask, pool, load)
    limit = filters.limits(ask.request, ask.policy.bounds)
    if limit.any:
        # Told before health: who breaks a bound would not do even if it were well.
        others = (code == 0) | np.isin(code, [c.value for c in AVAILABILITY])
        for reason, refused in filters.bounded(ask, pool, seen, limit):
            code[others & refused] = reason.value
            others &= ~refused
    points, weights, total = score(ask, pool, seen, registry)
    # Suspicion puts last; to refuse for failures is the circuit's part.
    # A request to which nothing that is weighed matters (all weight on cost, at tolerance 100) has no bad candidates.
    stands = total + (seen.at_node - seen.at_node / load.suspicion) * _points_per_second(ask, weights)
    stands = np.clip(stands, 0.0, 1.0)
    if not panic and any(weights.values()):
        low = np.flatnonzero((code == 0) & (stands < ask.policy.min_score) & ~pool.half_open)
        if len(low) and is_long(ask):
            stands[low] = standing(ask, pool.take(low), load.take(low), registry)
            low = low[stands[low] < ask.policy.min_score]
        if len(low):
            code[low] = low_codes(ask, pool.take(low), registry)
    code[(code == 0) & filters.at_capacity(pool, load)] = Code.AT_CAPACITY.value
    code[(code == 0) & pool.half_open & (load.trial == 0.0)] = Code.CIRCUIT_OPEN.value
    eligible = np.flatnonzero(code == 0)
    order = eligible[np.lexsort((pool.row[eligible], -total[eligible]))]
    return Evaluation(ask, pool, load, seen, code, points, weights, total, stands, panic, order)


def is_long(ask: Ask) -> bool:
    """Whether a request is longer than those that do not say how long they are."""
    assume = ask.policy.assume
    return ask.input_tokens > assume.input_tokens or ask.output_tokens > assume.output_tokens


def standing(ask: Ask, pool: Pool, load: Load, registry: Registry) -> FloatArray:
    """What `min_score` judges, 0..1: the composite without suspicion, of a request that is cut to the assumed length.

    A candidate is judged by what it adds: its queue, its speed, its path, its price.  A long request costs seconds and
    dollars wherever it goes, and is no worse for that.
    """
    assume = ask.policy.assume
    cut = min(ask.input_tokens, assume.input_tokens)
    left = np.minimum(ask.input_tokens - load.cached_tokens, cut)
    usual = replace(ask, input_tokens=cut, output_tokens=min(ask.output_tokens, assume.output_tokens))
    load = replace(load, suspicion=np.ones(len(pool)), cached_tokens=cut - left)
    found: FloatArray = np.clip(score(usual, pool, predict(usual, pool, load), registry)[2], 0.0, 1.0)
    return found


def low_codes(ask: Ask, pool: Pool, registry: Registry) -> ByteArray:
    """Why candidates are under the least score: for good, or only for what waits there now, which is lack of room."""
    fit = standing(ask, pool, Load.idle(len(pool)), registry) >= ask.policy.min_score
    return np.where(fit, Code.AT_CAPACITY.value, Code.BELOW_MIN_SCORE.value).astype(np.int8)


def seconds(ask: Ask, total: FloatArray, weights: Mapping[str, float]) -> FloatArray:
    """Composites taken back to seconds by the slope of the latency line; less is better, only differences count."""
    slope = _points_per_second(ask, weights)
    return -total / slope if slope > 0 else -total


def _points_per_second(ask: Ask, weights: Mapping[str, float]) -> float:
    """How much less the composite is for a second more to the first token."""
    return ask.policy.latency_points_per_second / (sum(weights.values()) or 1.0)


def field(found: Evaluation, order: IntArray, seed: int, key: str) -> Field:
    """Some of the eligible candidates, best first, as a picker sees them."""
    pool, load, seen = found.pool, found.load, found.seen
    total = found.total[order]
    return Field(
        policy=found.ask.policy,
        seed=seed,
        key=key,
        session=found.ask.request.session_id,
        total=total,
        seconds=seconds(found.ask, total, found.weights),
        time_to_first_token=seen.time_to_first_token[order],
        at_node=seen.at_node[order],
        latency=np.where(np.isnan(pool.latency[order]), seen.time_to_first_token[order], pool.latency[order]),
        peak=np.where(np.isnan(pool.peak[order]), seen.time_to_first_token[order], pool.peak[order]),
        in_flight=load.in_flight[order],
        weight=pool.weight[order],
        turn=load.turn[order],
        batch=fill(pool.batch[order], found.ask.policy.assume.max_batch_size),
        names=tuple(pool.names[row] for row in pool.row[order]),
        endpoints=tuple(pool.endpoints[row] for row in pool.row[order]),
        drawable=_drawable(found, order),
    )


def _drawable(found: Evaluation, order: IntArray) -> IntArray:
    place = np.full(len(found.pool), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    code, half_open = found.code, found.pool.half_open
    passed = ((code == 0) | (code == Code.AT_CAPACITY.value) | (code == Code.BELOW_MIN_SCORE.value)) & ~half_open
    drawable: IntArray = place[passed]
    return drawable


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom a request gets: places of the pool, and in a few words how the target came to be it."""

    target: int
    alternatives: tuple[int, ...]
    # "picker", "session" or "trial".
    by: str
    # Candidates that the picker took for as good as the best; 0 where it did not look.
    near: int = 0


def choose(
    found: Evaluation, registry: Registry, *, picker: str, seed: int, key: str, session_slot: int, wanted: int
) -> Selection | None:
    """Affinity, picker and alternatives over an evaluation; None where nobody is eligible.

    A half-open circuit that may take a trial gets this request, unless it belongs to a session: only traffic can
    show that a deployment is well again, and a score that remembers its failures would never send it any.
    """
    if not len(found.order):
        return None
    pool, order = found.pool, found.order
    trials = order[pool.half_open[order]]
    healthy = order[~pool.half_open[order]]
    near = 0
    if len(trials) and (session_slot < 0 or not len(healthy)):
        target, by = int(trials[0]), "trial"
    else:
        bound = healthy[pool.slot[healthy] == session_slot] if session_slot >= 0 else healthy[:0]
        if len(bound) and pool.health[bound[0]] >= BEST_GRADE:
            target, by = int(bound[0]), "session"
        else:
            open_to = healthy
            if session_slot >= 0:
                # Sessions that must move leave those alone that only came back: new sessions are load enough for them.
                settled = healthy[pool.recovered[healthy] >= found.ask.policy.promotion_hold_seconds]
                open_to = settled if len(settled) else healthy
            if found.ask.turns is not None:
                turn = found.ask.turns[pool.place[open_to]]
                open_to = open_to[turn == turn.min()]
            seen = field(found, open_to, seed, key)
            near = pickers.near(seen) if picker in DRAWS_NEAR else 0
            target, by = int(open_to[registry.pickers[picker](seen)]), "picker"
    domains = Domains(pool.node.tolist(), pool.zone.tolist(), pool.place.tolist())
    return Selection(target, alternatives(target, healthy.tolist(), domains, wanted), by, near)


@dataclass(frozen=True, slots=True)
class Domains:
    """The failure domains of a pool's places, as lists: a node within a zone within a region."""

    node: Sequence[int]
    zone: Sequence[int]
    place: Sequence[int]


def alternatives(target: int, order: Sequence[int], domains: Domains, wanted: int) -> tuple[int, ...]:
    """What to try next: other nodes, from zones not used yet first, and one of another region where there is one.

    `order` holds the places that may stand in, best first; half-open ones are not among them.
    """
    if wanted <= 0:
        return ()
    nodes, zones, places = domains.node, domains.zone, domains.place
    used_nodes, used_zones = {nodes[target]}, {zones[target]}
    chosen: list[int] = []
    later: list[int] = []
    for place in order:
        if nodes[place] in used_nodes:
            continue
        if zones[place] in used_zones:
            later.append(place)
            continue
        used_zones.add(zones[place])
        used_nodes.add(nodes[place])
        chosen.append(place)
        if len(chosen) == wanted:
            break
    for place in later:
        if len(chosen) == wanted:
            break
        if nodes[place] not in used_nodes:
            used_nodes.add(nodes[place])
            chosen.append(place)
    home = places[target]
    if len(chosen) == wanted and all(places[place] == home for place in chosen):
        away = next((place for place in order if places[place] != home), None)
        if away is not None:
            chosen[-1] = away
    return tuple(chosen)


def differences(want: Identity, got: Identity) -> tuple[str, ...]:
    """How a model differs from the one asked for, field by field; empty where it is the one."""
    names = ("model_id", "family", "version", "quantization", "context_window_tokens", "tokenizer")
    return tuple(
        f"{name}: {getattr(want, name) or 'unknown'} -> {getattr(got, name) or 'unknown'}"
        for name in names
        if getattr(want, name) != getattr(got, name)
    )


UNITS = {"latency": "s", "throughput": "tokens/s", "cost": "USD", "locality": "ms", "health": "", "gpu": ""}


def terms(found: Evaluation, place: int, ages: Mapping[str, float]) -> tuple[Term, ...]:
    """Every addend of a candidate's composite; the contributions add up to its total."""
    total_weight = sum(found.weights.values()) or 1.0
    pool, seen = found.pool, found.seen
    raw: dict[str, float] = {
        "latency": float(seen.time_to_first_token[place]),
        "throughput": float(seen.throughput[place]),
        "cost": float(seen.cost[place]),
        "locality": float(seen.round_trip[place]) * 1000,
        "health": float(pool.health[place]),
        "gpu": float(pool.gpu[place]),
    }
    aged = {"health": ages.get("probe"), "latency": min(ages.values(), default=None)}
    return tuple(
        Term(
            name=name,
            value=None if np.isnan(raw.get(name, float("nan"))) else raw[name],
            unit=UNITS.get(name, ""),
            points=float(points[place]),
            weight=found.weights[name],
            contribution=found.weights[name] * float(points[place]) / total_weight,
            age_seconds=aged.get(name),
        )
        for name, points in found.points.items()
    )


def clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def candidate(found: Evaluation, place: int, choice: Choice, ages: Mapping[str, float]) -> Candidate:
    """One candidate in full, kept or rejected."""
    code, total = int(found.code[place]), float(found.total[place])
    rejection = (
        filters.explain(Code(code), found.ask, found.pool, found.load, found.seen, float(found.standing[place]), place)
        if code
        else None
    )
    return Candidate(choice, rejection, terms(found, place, ages), ages, total)


def reason_for_none(codes: Mapping[str, int]) -> str:
    """Why nothing is left, as a constant of the API: the first class of causes after which nobody stands decides."""
    left = {Code[name] for name, count in codes.items() if count} - {Code.MODEL_MISMATCH}
    if not left or left & ROOM:
        return "NO_CAPACITY"
    if left & HEALTH:
        return "ALL_NODES_UNHEALTHY"
    if left <= PERMISSION:
        return "UNKNOWN"
    return "PRIVACY_VIOLATION" if left <= PERMISSION | PRIVACY else "QOS_VIOLATION"
