"""How far predictions have been off: the spread of measured over predicted time at the node, by slot.

A decayed histogram of the ratio's logarithm for each slot, and one over all slots that stands in while a slot is new.
Quantiles of it make a prediction an interval: nine of ten first tokens should come within it.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

# Ratios from a thirtieth to thirty; what is further off counts as that far.
BINS = 68
LOW = log(1 / 30)
WIDTH = 2 * -LOW / BINS
# A sample's weight halves with every 100 newer ones: nodes change within minutes, and under 100 samples say little
# of a tail of 5 %.
GROWTH = 2 ** (1 / 100)
# What all slots together say weighs as much as so many samples of the slot's own.
SHARED_WEIGHT = 10.0
# Share of past ratios left out at either end. Less than the twentieth that nine of ten leave: the next are further off
# than a few samples of other minutes. On the first half of the Azure trace a twentieth covers 85 %, this 88 to 89 %.
TAIL = 0.03
# Before anything was measured: what uncalibrated profiles were off by on the published traces, roughly.
PRIOR_LOW, PRIOR_HIGH = 0.5, 2.5
MAX_WEIGHT = 1e12
# Samples of other slots after which what they share is read again.
REFRESH = 256


class Spread:
    """Histograms by slot. `observe` is constant time; quantiles are read when a decision is told."""

    def __init__(self) -> None:
        self._bins = np.zeros((64, BINS))
        self._weight = np.ones(64)
        self._shared = np.zeros(BINS)
        self._shared_weight = 1.0
        self._observed = 0
        self._known: dict[int, tuple[float, float]] = {}

    def observe(self, slot: int, ratio: float) -> None:
        """Counts one measured over predicted time."""
        self._observed += 1
        if self._observed % REFRESH:
            self._known.pop(slot, None)
        else:
            self._known.clear()
        if slot >= len(self._weight):
            more = max(slot + 1, 2 * len(self._weight))
            self._bins = np.vstack([self._bins, np.zeros((more - len(self._bins), BINS))])
            self._weight = np.append(self._weight, np.ones(more - len(self._weight)))
        place = min(BINS - 1, max(0, int((log(max(ratio, 1e-9)) - LOW) / WIDTH)))
        # Instead of letting old samples fade, new ones weigh ever more.
        self._bins[slot, place] += self._weight[slot]
        self._weight[slot] *= GROWTH
        if self._weight[slot] > MAX_WEIGHT:
            self._bins[slot] /= self._weight[slot]
            self._weight[slot] = 1.0
        self._shared[place] += self._shared_weight
        self._shared_weight *= GROWTH ** (1 / 8)
        if self._shared_weight > MAX_WEIGHT:
            self._shared /= self._shared_weight
            self._shared_weight = 1.0

    def forget(self, slot: int) -> None:
        """The slot has a new owner."""
        if slot < len(self._weight):
            self._bins[slot] = 0.0
            self._weight[slot] = 1.0
        self._known.pop(slot, None)

    def interval(self, slot: int) -> tuple[float, float]:
        """Between what measured over predicted should be, nine times of ten."""
        found = self._known.get(slot)
        if found is None:
            found = self._known[slot] = self._quantiles(slot)
        return found

    def _quantiles(self, slot: int) -> tuple[float, float]:
        shared = float(self._shared.sum())
        if not shared:
            return PRIOR_LOW, PRIOR_HIGH
        mixed = self._shared * (SHARED_WEIGHT / shared)
        if slot < len(self._weight):
            mixed = mixed + self._bins[slot] / self._weight[slot]
        total = np.cumsum(mixed)
        low, high = np.searchsorted(total, (TAIL * total[-1], (1.0 - TAIL) * total[-1]))
        # The outer edges of the bins: an interval errs to the wide side.
        return exp(LOW + WIDTH * float(low)), exp(LOW + WIDTH * float(high + 1))
