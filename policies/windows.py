"""Running figures over time, in bounded memory: averages, quantiles and shares of the last while.

Each object has one owner, who hands in the time; times may stand still, and never run back far enough to matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


class PeakEwma:
    """An average that rises at once and falls slowly: a node that was slow once is not trusted until it was quick
    for a while. The first sample is its value; None before."""

    __slots__ = ("_at", "_time_constant_seconds", "value")

    def __init__(self, time_constant_seconds: float = 10.0) -> None:
        self.value: float | None = None
        self._at = 0.0
        self._time_constant_seconds = time_constant_seconds

    def observe(self, sample: float, now: float) -> None:
        if self.value is None or sample >= self.value:
            self.value = sample
        else:
            kept = math.exp(-max(0.0, now - self._at) / self._time_constant_seconds)
            self.value = sample + (self.value - sample) * kept
        self._at = now


# Each bucket is 4 % wider than the one below; its geometric middle is within 2 % of all in it.
_GROWTH = 1.04
_LOG_GROWTH = math.log(_GROWTH)
# 10 µs to 10,000 s: 530 buckets at most; what lies outside counts as the end.
_SMALLEST_SECONDS = 1e-5
_LARGEST_SECONDS = 1e4


# Windows that saw nothing share these, which are replaced before anything is put into them: of 100,000 deployments
# most are idle, and an empty list and an empty dict take 120 bytes.
_NO_SLOTS: list[tuple[int, dict[int, int]]] = []
_NO_BUCKETS: dict[int, int] = {}
_NO_RATIOS: list[list[int]] = []


class LatencyWindow:
    """Quantiles of the seconds seen in the last while (60 s), within 2 %.

    A logarithmic histogram per slot (5 s) and their sum. What leaves, leaves slot by slot, so the window is between
    55 and 60 s long. A slot holds only the buckets that were hit.
    """

    __slots__ = ("_buckets", "_count", "_slot_seconds", "_slots", "_slots_kept")

    def __init__(self, length_seconds: float = 60.0, slots: int = 12) -> None:
        self._slot_seconds = length_seconds / slots
        self._slots_kept = slots
        # A list: an empty deque takes 600 bytes, and there are never more than a dozen slots.
        self._slots = _NO_SLOTS
        self._buckets = _NO_BUCKETS
        self._count = 0

    def observe(self, seconds: float, now: float) -> None:
        """Counts one sample. A sample that is not a number is refused loudly: the edge must have stopped it."""
        if math.isnan(seconds):
            raise ValueError("latency is not a number; drop the sample where it arrives")
        seconds = min(max(seconds, _SMALLEST_SECONDS), _LARGEST_SECONDS)
        bucket = int(math.log(seconds / _SMALLEST_SECONDS) / _LOG_GROWTH)
        self._expire(now)
        slot = int(now / self._slot_seconds)
        if not self._slots:
            self._slots, self._buckets = [(slot, {})], {}
        elif self._slots[-1][0] < slot:
            self._slots.append((slot, {}))
        newest = self._slots[-1][1]
        newest[bucket] = newest.get(bucket, 0) + 1
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._count += 1

    def count(self, now: float) -> int:
        self._expire(now)
        return self._count

    def quantiles(self, shares: Sequence[float], now: float) -> tuple[float | None, ...]:
        """The quantiles at the shares (0..1, ascending); all None where the window is empty."""
        self._expire(now)
        return _quantiles(self._buckets, self._count, shares)

    def clear(self) -> None:
        self._slots, self._buckets = _NO_SLOTS, _NO_BUCKETS
        self._count = 0

    def _expire(self, now: float) -> None:
        oldest_kept = int(now / self._slot_seconds) - self._slots_kept + 1
        while self._slots and self._slots[0][0] < oldest_kept:
            for bucket, gone in self._slots.pop(0)[1].items():
                left = self._buckets[bucket] - gone
                if left:
                    self._buckets[bucket] = left
                else:
                    del self._buckets[bucket]
                self._count -= gone


def merged_quantiles(windows: Iterable[LatencyWindow], shares: Sequence[float], now: float) -> tuple[float | None, ...]:
    """Quantiles of all samples of several windows together; an average of quantiles would be none of anything."""
    together: dict[int, int] = {}
    count = 0
    for window in windows:
        count += window.count(now)
        for bucket, n in window._buckets.items():
            together[bucket] = together.get(bucket, 0) + n
    return _quantiles(together, count, shares)


def _quantiles(buckets: dict[int, int], count: int, shares: Sequence[float]) -> tuple[float | None, ...]:
    if count == 0:
        return (None,) * len(shares)
    found: list[float | None] = []
    below = 0
    ordered = iter(sorted(buckets.items()))
    bucket, n = next(ordered)
    for share in shares:
        rank = max(1, math.ceil(share * count))
        while below + n < rank:
            below += n
            bucket, n = next(ordered)
        found.append(_SMALLEST_SECONDS * math.exp((bucket + 0.5) * _LOG_GROWTH))
    return tuple(found)


class RatioWindow:
    """How many of the events of the last while (30 s) were bad, in slots (3 s) that leave one by one."""

    __slots__ = ("_slot_seconds", "_slots", "_slots_kept", "bad", "total")

    def __init__(self, length_seconds: float = 30.0, slots: int = 10) -> None:
        self._slot_seconds = length_seconds / slots
        self._slots_kept = slots
        # [slot, bad, total]
        self._slots = _NO_RATIOS
        self.bad = 0
        self.total = 0

    def observe(self, *, bad: bool, now: float) -> None:
        self.expire(now)
        slot = int(now / self._slot_seconds)
        if not self._slots:
            self._slots = [[slot, 0, 0]]
        elif self._slots[-1][0] < slot:
            self._slots.append([slot, 0, 0])
        newest = self._slots[-1]
        newest[2] += 1
        self.total += 1
        if bad:
            newest[1] += 1
            self.bad += 1

    def ratio(self, at_least: int, now: float) -> float | None:
        """Share of bad events, 0..1; None where there are fewer than `at_least`."""
        self.expire(now)
        return self.bad / self.total if self.total >= max(1, at_least) else None

    def expire(self, now: float) -> None:
        """Forgets what is too old; `bad` and `total` are exact after it."""
        oldest_kept = int(now / self._slot_seconds) - self._slots_kept + 1
        while self._slots and self._slots[0][0] < oldest_kept:
            _, bad, total = self._slots.pop(0)
            self.bad -= bad
            self.total -= total

    def clear(self) -> None:
        self._slots = _NO_RATIOS
        self.bad = self.total = 0


class Pace:
    """How slowly a deployment answers, as the logarithm of seconds over expected seconds: now, and usually.

    `recent` looks back about 20 answers, `usual` about 200. Both are means of logarithms, so that one answer of
    a minute among twenty of a tenth of a second does not make a slow node.
    """

    __slots__ = ("answers", "answers_ever", "at", "kind", "recent", "usual")

    def __init__(self) -> None:
        self.recent: float | None = None
        self.usual: float | None = None
        self.kind = ""
        self.answers = 0
        self.answers_ever = 0
        self.at = -math.inf

    def observe(self, ratio: float, kind: str, now: float) -> None:
        """Counts an answer; of another kind, it starts anew, for the two cannot be compared."""
        if kind != self.kind:
            self.kind = kind
            self.recent = self.usual = None
            self.answers = self.answers_ever = 0
        value = math.log(min(max(ratio, 1e-6), 1e6))
        self.answers += 1
        self.answers_ever += 1
        self.recent = _toward(self.recent, value, max(0.1, 1.0 / self.answers))
        self.usual = _toward(self.usual, value, max(0.005, 1.0 / self.answers_ever))
        self.at = now

    def clear(self) -> None:
        """Forgets the recent answers, not the usual ones."""
        self.recent = None
        self.answers = 0


def _toward(value: float | None, sample: float, share: float) -> float:
    return sample if value is None else value + share * (sample - value)
