"""Scores: each a straight line through the policy's good point (1.0) and poor point (0.0), and beyond.

A scorer never looks at other candidates, so that adding one cannot reorder two others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policies.policy import Line
from policies.pool import FloatArray, Pool
from policies.prediction import Ask, Prediction

SAME_REGION = 0.95


class Scorer(Protocol):
    """Points for every candidate, from the request and the candidates' columns."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray: ...


def points(line: Line, values: FloatArray) -> FloatArray:
    """Where values stand on a line."""
    return 1.0 + (values - line.good) * line.slope


@dataclass(frozen=True, slots=True)
class Latency:
    """Predicted time to the first token at the caller."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return points(ask.policy.latency, seen.time_to_first_token)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second that this request would see."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return points(ask.policy.throughput, seen.throughput)


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars for this request; an unknown price stands at the poor point."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return np.where(np.isnan(seen.cost), 0.0, points(ask.policy.cost, seen.cost))


@dataclass(frozen=True, slots=True)
class Locality:
    """1.0 in the origin's zone, 0.95 in its region, then falling with the round trip; a bonus under the same law."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        poor_seconds = ask.policy.locality_poor_ms / 1000
        near = SAME_REGION * (1.0 - seen.round_trip / poor_seconds)
        near = np.where(pool.place == ask.origin, SAME_REGION, near)
        if ask.zone:
            near = np.where(np.array([zone == ask.zone for zone in pool.zones])[pool.zone], 1.0, near)
        bonus = ask.policy.jurisdiction_bonus
        if bonus and ask.origin >= 0:
            home = pool.places[ask.origin].jurisdictions
            shared = np.array([not home.isdisjoint(place.jurisdictions) for place in pool.places])
            near = near + bonus * shared[pool.place]
        return near


@dataclass(frozen=True, slots=True)
class Health:
    """Worth of the grade × slow start, aged; from the table, frozen when it was built."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return pool.health


@dataclass(frozen=True, slots=True)
class Gpu:
    """1.0 with an accelerator, 0.0 without; scored only for requests that prefer one."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        return pool.gpu.astype(np.float64)


def cost_weight(weight: float, tolerance: float) -> float:
    """How much price matters to a request: twice the policy's weight at tolerance 0, once at 50, nothing at 100."""
    return weight * (100.0 - tolerance) / 50.0
