"""What the other replicas of a region have under way at the same deployments, as they tell several times a second.

Their prompt tokens and requests wait in the same queues as ours, so they are added to ours in the router's state for
as long as the telling is fresh.  An old sum is worse than none: all replicas would read the same stale number, and
send where it was low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.pool import FloatArray, IntArray

# Beyond this age a sum is not used. Measured: it helps up to a quarter of a second, and herds at one second.
SUM_SECONDS = 0.25


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
    """What all siblings together have at each of `width` slots: those that are fresh at `now`."""
    total = np.zeros((2, width))
    for sums in known.values():
        if is_fresh(sums, now):
            total[:, sums.slots] += sums.values
    return total


def is_fresh(sums: Sums, now: float) -> bool:
    return now - sums.at <= SUM_SECONDS
