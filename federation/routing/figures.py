"""What is told of a few candidates of a walked decision, computed one by one.

The same figures as `policies.prediction.predict` and `policies.pipeline.score` give for whole columns; telling four
targets needs no columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.routing.planner import Plan
from policies.pipeline import clip
from policies.policy import Line
from policies.types import Scores


@dataclass(frozen=True, slots=True)
class Figures:
    """One candidate's figures: seconds, tokens per second, US dollars (None: unknown), and points by scorer."""

    round_trip: float
    at_node: float
    time_to_first_token: float
    throughput: float
    latency: float
    cost: float | None
    points: Mapping[str, float]
    total: float

    @property
    def scores(self) -> Scores:
        """The points as they are shown, clipped to 0..1."""
        p = self.points
        return Scores(
            clip(p["latency"]),
            clip(p["throughput"]),
            clip(p["cost"]),
            clip(p["locality"]),
            clip(p["health"]),
            clip(self.total),
        )


def figures(plan: Plan, row: int, tokens: int, answer: int, moving: tuple[float, ...]) -> Figures:
    """Figures of a row that passed; `moving` is pending, in flight, running, wait, suspicion and cached tokens."""
    pending, in_flight, running, wait, suspicion, hits = moving
    policy, ranking, scalars = plan.policy, plan.ranking, plan.scalars
    batch, per_token, decode = scalars.batch[row], scalars.per_token[row], scalars.decode[row]
    region = scalars.domains.place[row]
    busy = max(in_flight, running)
    slow = 1.0 + policy.batch_slowdown * min(busy / batch, 1.0)
    prefill = max(per_token * (tokens - hits), scalars.least[row])
    full = max(busy - batch + 1.0, 0.0) * (policy.assume.output_tokens / decode / batch)
    at_node = suspicion * ((pending * per_token + prefill) * slow + wait + full)
    group = ranking.groups.number(scalars.slot[row])
    round_trip = ranking.round_trip[group]
    first, throughput = round_trip + at_node, decode / slow
    cost: float | None = None
    if scalars.priced[row]:
        cost = answer * ranking.egress[region]
        if in_flight >= scalars.committed[row]:
            cost += (
                (tokens - hits) * scalars.input_price[row]
                + hits * scalars.cached_price[row]
                + answer * scalars.output_price[row]
            )
    points = {
        "latency": on(policy.latency, first),
        "throughput": on(policy.throughput, throughput),
        "cost": 0.0 if cost is None else on(policy.cost, cost),
        "locality": ranking.locality[group],
        "health": scalars.health[row],
    }
    total = sum(ranking.weights[name] * value for name, value in points.items()) / (ranking.weight_sum or 1.0)
    return Figures(round_trip, at_node, first, throughput, first + answer / throughput, cost, points, total)


def on(line: Line, value: float) -> float:
    """Where a value stands on a line."""
    return 1.0 + (value - line.good) * line.slope
