"""What the other replicas of a region have under way at the same deployments, as they tell several times a second.

Their prompt tokens and requests wait in the same queues as ours, so they are added to ours in the router's state, and
fade as queues do until the next telling.  A sum that is old when it comes is not used: all replicas would read the
same stale number, and send where it was low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.pool import FloatArray, IntArray

# How often a replica tells its sums.
SUMS_EVERY_SECONDS = 0.1
# A sum that is older when it comes is not used. Measured: up to a quarter of a second it helps, at a second it herds.
SUM_SECONDS = 0.25
# Of a sibling that is silent its sums fade by this half-life, and nothing is left after the time below.
SUM_HALF_LIFE_SECONDS = 1.0
FORGET_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one replica at some slots: prompt tokens without a first token, and requests in flight."""

    slots: IntArray
    # Two rows: pending tokens, requests.
    values: FloatArray
    # Monotonic seconds of this process at which they were true.
    at: float


def sums_of(told: Mapping[int, tuple[float, float]], at: float) -> Sums:
    """Sums by slot, as columns. What cannot be (negative, not finite) counts as nothing."""
    slots = np.fromiter(told, dtype=np.int64, count=len(told))
    values = np.array(list(told.values()), dtype=np.float64).reshape(len(told), 2).T
    return Sums(slots, np.where(np.isfinite(values) & (values > 0.0), values, 0.0), at)


def added(known: Mapping[str, Sums], width: int, now: float) -> FloatArray:
    """What is left at `now` of what all siblings together have at each of `width` slots."""
    total = np.zeros((2, width))
    for sums in known.values():
        if is_remembered(sums, now):
            total[:, sums.slots] += sums.values * 0.5 ** (max(0.0, now - sums.at) / SUM_HALF_LIFE_SECONDS)
    return total


def is_remembered(sums: Sums, now: float) -> bool:
    return now - sums.at <= FORGET_SECONDS
