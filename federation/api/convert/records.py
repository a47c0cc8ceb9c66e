"""Records as encoded RouteDecisions: what `decisions.decision_encoded(record.render())` says, without the objects.

Of a decision only its figures, its sentence and a few counts are its own; all else is the table's, the plan's, or one
of few phrases, and is kept encoded.  Figures have one width: those of a target are one `Struct`, nanoseconds are
varints of five bytes whatever they hold, and zeros are written.  So the bytes differ from those of protobuf's own
writer and say the same; a property test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from struct import Struct
from typing import Any

from federation.api.convert.decisions import decision_encoded
from federation.api.convert.targets import (
    KEPT_STAGES,
    LOW_BITS,
    age_bytes,
    decide_time_bytes,
    framed,
    policy_bytes,
    stage_bytes,
    still_bytes,
    target_bytes,
    valid_for_bytes,
    varint,
)
from federation.routing import wording
from federation.routing.compiled import Deployed
from federation.routing.decisions import Record
from federation.routing.planner import Plan
from federation.routing.table import Table
from policies.pipeline import differences
from policies.types import Code, Explain

# Whole seconds have to fit into a varint of one byte.
MOST_SECONDS = 128.0
# Latency and first token; cost; score; its parts; earliest and latest first token.
FIGURES = Struct("<3sHHHB3sHHHBBdBdBBBdBdBdBdBdBd3sHHHB3sHHHB")
# The tag and the length of a Duration, and the tag of its seconds; the tag of its nanos stands above the seconds.
TAGS = tuple([bytes((number << 3 | 2, 8, 8)) for number in (8, 9, 14, 15)])
_LATENCY, _FIRST, _EARLIEST, _LATEST = TAGS
NANOS = 16 << 8
COST, SCORE, SCORES, SCORES_LENGTH = 10 << 3 | 1, 11 << 3 | 1, 12 << 3 | 2, 6 * 9
_TARGET, _ALTERNATIVE = b"\x12", b"\x1a"
TERMS = ("latency", "throughput", "cost", "locality", "health")
# Plans that one table rarely sees so many of.
MOST_KINDS = 4_096
TENANT = Code.TENANT.name
_NOTHING: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """What decisions of one plan have in common."""

    plan: Plan
    # By row; of prices the last by region; of groups the number by slot, the others by group.
    columns: tuple[Any, ...]
    prices: tuple[Any, ...]
    groups: tuple[Any, ...]
    # Of the lines of latency, throughput and cost the good point and the slope; the weights of all terms.
    lines: tuple[float, ...]
    weights: tuple[float, ...]
    policy: bytes
    # Where nothing was rejected but what the table rejects: the first stages, how many are left, the counts, and how
    # the sentence ends.
    stages: bytes
    left: int
    counts: bytes
    closing: Sequence[str]
    # Whatever no decision changes.
    last: bytes


class RecordWriter:
    """Writes decisions of the current table; it keeps what it has encoded for as long as that table is read."""

    def __init__(self) -> None:
        self._table: Table | None = None
        self._deployed: tuple[Deployed, ...] = ()
        # By row, and by its complement where the region's gateway is named: head as a target, and as an alternative.
        self._heads: dict[int, tuple[bytes, bytes]] = {}
        self._kinds: dict[int, Kind] = {}

    def encoded(self, record: Record) -> bytes:
        """A decision as an encoded RouteDecision, with as much of its reasons as its request asks for."""
        explain, plan = record.request.explain, record.plan
        if not record.walked or explain is Explain.FULL:
            return decision_encoded(record.render())
        kind = self._kinds.get(id(plan))
        if kind is None or kind.plan is not plan:
            kind = self._kind(record)
        plain = record.rejected is plan.ranking.counts
        parts = [framed(b"\x0a", record.decision_id.encode())]
        sentence = self._targets(record, kind, parts, told=explain is not Explain.NONE, plain=plain)
        parts.append(kind.policy)
        if sentence:
            parts += (framed(b"\x22", sentence.encode()), _stages(record, kind, plain=plain))
        parts.append(kind.counts if plain else _counts(record.rejected, record.considered, plan.table.revision))
        parts.append(_last(kind, record.now, record.wall_time))
        return b"".join(parts)

    def tail(self, plan: Plan, now: float, wall_time: float, one: Callable[[], Record]) -> bytes:
        """What stands behind the targets of all decisions of a plan and a moment that tell no reasons.

        `one` of them is asked for where none of the plan was written before.
        """
        kind = self._kinds.get(id(plan))
        if kind is None or kind.plan is not plan:
            kind = self._kind(one())
        return kind.policy + kind.counts + _last(kind, now, wall_time)

    def head(self, row: int) -> bytes:
        """All of a target of the current table, which no gateway stands for, up to its figures."""
        found = self._heads.get(row)
        if found is None:
            assert self._table is not None
            found = self._heads[row] = _heads(self._deployed[row], self._table.pool.names[row], False, _NOTHING)
        return found[0]

    def _targets(self, record: Record, kind: Kind, parts: list[bytes], *, told: bool, plain: bool) -> str:
        """Adds the target and the alternatives to the parts; answers with the reasoning, "" where it is not `told`.

        The same figures as those of `federation.routing.figures`, by the same steps in the same order.
        """
        plan, chosen = record.plan, record.chosen
        tokens, answer, cached = record.tokens, record.answer, record.cached
        slowdown, output_tokens = plan.policy.batch_slowdown, plan.policy.assume.output_tokens
        slots, per_tokens, leasts, batches, decodes, healths, places = kind.columns
        priced, committed, input_prices, cached_prices, output_prices, egress = kind.prices
        groups, round_trips, localities = kind.groups
        latency_good, latency_slope, speed_good, speed_slope, cost_good, cost_slope = kind.lines
        weights, weight_sum = kind.weights, plan.ranking.weight_sum or 1.0
        low, pack, names = LOW_BITS, FIGURES.pack, plan.table.pool.names
        heads, deployed = self._heads, self._deployed
        asked = None if plan.asked is None else plan.asked.model_id
        home = None if record.request.forwarded else plan.origin_region
        seen: list[tuple[tuple[float, ...], float, float]] = []
        opening, unlike = "", _NOTHING
        for row, moving, (early, late) in zip(chosen, record.moved(), record.intervals(), strict=True):
            pending, in_flight, running, wait, suspicion, _, _ = moving
            slot, batch, decode, per_token, least = slots[row], batches[row], decodes[row], per_tokens[row], leasts[row]
            hits = cached.get(slot, 0.0) if cached else 0.0
            busy = running if running > in_flight else in_flight
            used, prefill, queue = busy / batch, per_token * (tokens - hits), busy - batch + 1.0
            slow = 1.0 + slowdown * (used if used < 1.0 else 1.0)
            full = (queue if queue > 0.0 else 0.0) * (output_tokens / decode / batch)
            at_node = suspicion * ((pending * per_token + (prefill if prefill > least else least)) * slow + wait + full)
            group = groups[slot]
            round_trip, speed, locality, health = round_trips[group], decode / slow, localities[group], healths[row]
            first = round_trip + at_node
            whole, soonest, latest = first + answer / speed, round_trip + at_node * early, round_trip + at_node * late
            cost, cost_points = None, 0.0
            if priced[row]:
                cost = answer * egress[places[row]]
                if in_flight >= committed[row]:
                    cost += (
                        (tokens - hits) * input_prices[row] + hits * cached_prices[row] + answer * output_prices[row]
                    )
                cost_points = 1.0 + (cost - cost_good) * cost_slope
            points = (
                1.0 + (first - latency_good) * latency_slope,
                1.0 + (speed - speed_good) * speed_slope,
                cost_points,
                locality,
                health,
            )
            total = sum(map(mul, weights, points)) / weight_sum
            score = _clip(total)
            there = deployed[row]
            via = home is not None and bool(there.ingress_endpoint) and there.region_id != home
            stands_in = asked is not None and there.model_id != asked
            head = None if stands_in else heads.get(~row if via else row)
            if head is None:
                between = _between(plan, row) if stands_in else _NOTHING
                head = _heads(there, names[row], via, between)
                if not stands_in:
                    heads[~row if via else row] = head
                elif not seen:
                    unlike = between
            if not (whole < MOST_SECONDS and latest < MOST_SECONDS and 0.0 <= soonest <= latest and first >= 0.0):
                body = target_bytes(record.choice(record.places[len(seen)]))
                parts.append(framed(_ALTERNATIVE if seen else _TARGET, body))
            else:
                a, b, c, d = int(whole), int(first), int(soonest), int(latest)
                p, q = int((whole - a) * 1e9), int((first - b) * 1e9)
                r, s = int((soonest - c) * 1e9), int((latest - d) * 1e9)
                # fmt: off
                figures = pack(
                    _LATENCY, a | NANOS, low[p & 16_383], low[p >> 14 & 16_383], p >> 28,
                    _FIRST, b | NANOS, low[q & 16_383], low[q >> 14 & 16_383], q >> 28,
                    # Where no cost is known the score stands there as well: the same, said twice.
                    SCORE if cost is None else COST, score if cost is None else cost,
                    SCORE, score, SCORES, SCORES_LENGTH,
                    9, _clip(points[0]), 17, _clip(points[1]), 25, _clip(cost_points),
                    33, _clip(locality), 41, _clip(health), 49, score,
                    _EARLIEST, c | NANOS, low[r & 16_383], low[r >> 14 & 16_383], r >> 28,
                    _LATEST, d | NANOS, low[s & 16_383], low[s >> 14 & 16_383], s >> 28,
                )
                # fmt: on
                parts += (head[1] if seen else head[0], figures)
            if told and not seen:
                seen_there = wording.expectation(
                    *(first, round_trip, tokens, cost, score), waiting=pending, cached=hits, suspicion=suspicion
                )
                opening = f"{wording.why(plan.rule, record.by, record.near)} {names[row]}: {seen_there}."
            seen.append((points, total, score))
        if not told:
            return ""
        sentence = [opening]
        if len(seen) > 1:
            (ours, total, _), (theirs, other, score) = seen[0], seen[1]
            gaps = [weight * (one - two) / weight_sum for weight, one, two in zip(weights, ours, theirs, strict=True)]
            gap = max(gaps, key=abs)
            sentence.append(wording.against(names[chosen[1]], score, TERMS[gaps.index(gap)], gap, total - other))
        if plain and not unlike:
            sentence += kind.closing
        else:
            told_rejected = _without_tenants(record.rejected)
            sentence += wording.closing(record, told_rejected, record.considered, unlike, panic=record.panic)
        return " ".join(sentence)

    def _kind(self, record: Record) -> Kind:
        plan = record.plan
        table, policy, ranking, scalars = plan.table, plan.policy, plan.ranking, plan.scalars
        if table is not self._table or len(self._kinds) >= MOST_KINDS:
            self._table = table
            self._kinds.clear()
            if table.compiled.deployed is not self._deployed:
                self._deployed = table.compiled.deployed
                self._heads.clear()
        told = _without_tenants(ranking.counts)
        considered = len(plan.rows) - ranking.counts.get(TENANT, 0)
        left = considered - sum(told.values())
        found = self._kinds[id(plan)] = Kind(
            plan=plan,
            columns=(
                *(scalars.slot, scalars.per_token, scalars.least, scalars.batch, scalars.decode, scalars.health),
                scalars.domains.place,
            ),
            prices=(
                *(scalars.priced, scalars.committed, scalars.input_price, scalars.cached_price, scalars.output_price),
                ranking.egress,
            ),
            groups=(ranking.groups.number_of, ranking.round_trip, ranking.locality),
            lines=(
                *(policy.latency.good, policy.latency.slope, policy.throughput.good, policy.throughput.slope),
                *(policy.cost.good, policy.cost.slope),
            ),
            weights=tuple([ranking.weights[name] for name in TERMS]),
            policy=policy_bytes(policy.policy_id, policy.revision, policy.picker),
            stages=_first_stages(plan.rule, ranking.counts, considered, panic=ranking.panic),
            left=left,
            counts=_counts(told, considered, table.revision),
            closing=wording.closing(record, told, considered, _NOTHING, panic=ranking.panic),
            last=b"".join(
                [
                    *[framed(b"\x6a", region.encode()) for region in table.stale_regions],
                    b"\x70\x01" if ranking.panic else b"",
                    valid_for_bytes(policy.valid_for_seconds),
                    framed(b"\x92\x01", plan.rule.encode()) if plan.rule else b"",
                ]
            ),
        )
        return found


def _last(kind: Kind, now: float, wall_time: float) -> bytes:
    """When it was decided, by how old a table, and whatever no decision changes."""
    table = kind.plan.table
    return b"".join(
        (
            age_bytes(0x62, max(0.0, now - table.built_at)),
            decide_time_bytes(wall_time),
            kind.last,
            # The second byte of its tag is the first of what `age_bytes` writes.
            b"\x9a",
            age_bytes(0x01, max(0.0, now - table.catalog_at)),
        )
    )


def _clip(value: float) -> float:
    return 0.0 if not value > 0.0 else 1.0 if value > 1.0 else value


def _between(plan: Plan, row: int) -> tuple[str, ...]:
    """In what a row's model differs from the one that was asked for."""
    pool = plan.table.pool
    assert plan.asked is not None
    return differences(plan.asked, pool.models[int(pool.model[row])])


def _heads(there: Deployed, name: str, via_gateway: bool, between: tuple[str, ...]) -> tuple[bytes, bytes]:
    """All of a target up to its figures, as the target and as an alternative."""
    still = b"".join(
        still_bytes(
            "" if via_gateway else there.node_id,
            there.region_id,
            name,
            there.model_id,
            there.served_model_name or there.model_id,
            there.ingress_endpoint if via_gateway else there.endpoint,
            via_gateway,
            between,
        )
    )
    told = varint(len(still) + FIGURES.size) + still
    return _TARGET + told, _ALTERNATIVE + told


def _without_tenants(rejected: Mapping[str, int]) -> Mapping[str, int]:
    """What the caller may know of."""
    return {code: count for code, count in rejected.items() if code != TENANT}


def _first_stages(rule: str, rejected: Mapping[str, int], considered: int, *, panic: bool) -> bytes:
    told = _without_tenants(rejected)
    ruled = stage_bytes("rules", f"rule {rule!r} matched" if rule else "no rule matched", considered)
    return ruled + stage_bytes("filters", wording.filtered(told, panic), considered - sum(told.values()))


def _stages(record: Record, kind: Kind, *, plain: bool) -> bytes:
    """What each stage of the pipeline did."""
    if record.demotion or record.admission is not None or record.shadowed is not None:
        return b"".join([stage_bytes(stage.name, stage.detail, stage.remaining) for stage in record.stages()])
    first, left = kind.stages, kind.left
    if not plain:
        considered = record.considered
        first = _first_stages(record.plan.rule, record.rejected, considered, panic=record.panic)
        left = considered - sum(_without_tenants(record.rejected).values())
    picker = record.plan.policy.picker
    return first + _last_stages(
        record.swept, record.visited, left, picker, record.by, record.near, len(record.chosen) - 1, record.wanted
    )


@lru_cache(KEPT_STAGES)
def _last_stages(
    swept: bool, visited: int, left: int, picker: str, by: str, near: int, alternatives: int, wanted: int
) -> bytes:
    held = by in wording.SESSION
    return b"".join(
        (
            stage_bytes("scorers", wording.scored(True, swept, visited, left), left),
            stage_bytes("affinity", wording.SESSION.get(by, "none"), 1 if held else left),
            stage_bytes("picker", wording.picked(picker, by, near), 1),
            stage_bytes("alternatives", f"{alternatives} of {wanted} wanted", alternatives),
        )
    )


def _counts(rejected: Mapping[str, int], considered: int, revision: int) -> bytes:
    """How many were looked at and rejected, and the table's revision."""
    parts = [b"\x48", varint(considered)]
    for code, count in rejected.items():
        if code != TENANT:
            parts.append(framed(b"\x52", framed(b"\x0a", code.encode()) + b"\x10" + varint(count)))
    parts += (b"\x58", varint(revision))
    return b"".join(parts)
