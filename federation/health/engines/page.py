"""Reading a metrics page of an inference engine: the samples of few families, and what may be concluded from them.

A missing, impossible or half-read metric is unknown (None), never zero: zero would draw all traffic to the node that
says the least. Nothing here raises on any text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

# Beyond these a page is refused whole, since a sum over half of its engines would be a lie.
MAX_PAGE_CHARS = 4 << 20
# A page of 64 data-parallel engines has about 5,000 samples of the families that are read; 75 ms to parse.
MAX_SAMPLES = 5_000


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts at or under each bound (the last is infinity) since the engine started, with the sum of all values."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float

    @property
    def count(self) -> float:
        return self.counts[-1]

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count > 0 else None

    def quantile(self, share: float) -> float | None:
        """Linear within its bucket; in the last, open one the bound below it, which is the least it can be."""
        if self.count <= 0:
            return None
        rank = share * self.count
        lower, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank and count > below:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return None  # pragma: no cover - the last count is the total

    def since(self, earlier: Histogram | None) -> Histogram:
        """What was added after an earlier reading; all of it where the engine restarted or its buckets changed."""
        if earlier is None or earlier.bounds != self.bounds:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        total = self.sum - earlier.sum
        # A counter that fell was reset. Also a delta that is no histogram: some exporters write while being read.
        if any(count < 0 for count in counts) or total < 0 or any(low > high for low, high in pairwise(counts)):
            return self
        return Histogram(self.bounds, counts, total)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """What an engine tells of itself, over all of its data-parallel ranks. None is unknown."""

    # Requests that wait, and that run: sums over ranks.
    queue_depth: float | None = None
    running_requests: float | None = None
    # Used share of the KV cache, 0..1: mean over ranks, and the fullest rank.
    kv_cache_utilization: float | None = None
    max_kv_cache_utilization: float | None = None
    gpu_utilization: float | None = None
    # Generated tokens per second over all requests, where the engine computes it.
    throughput_tokens_per_second: float | None = None
    # Seconds.
    time_to_first_token: Histogram | None = None
    time_per_output_token: Histogram | None = None
    end_to_end: Histogram | None = None
    # Since the engine started.
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    # Declared limits.
    max_batch_size: float | None = None
    kv_cache_tokens: float | None = None
    max_adapters: float | None = None
    running_adapters: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """Samples by their verbatim names (`..._bucket`, `..._total` included)."""

    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)

    def first(self, *names: str) -> Sequence[Sample]:
        """Samples of the first of the names that the page has: the current name, then its older ones."""
        for name in names:
            if found := self.samples.get(name):
                return found
        return ()

    def total(self, *names: str, **labels: str) -> float | None:
        """The sum over ranks; unknown where there is none, or one of them is no sensible number."""
        values = [s.value for s in per_rank(self.first(*names)) if matches(s, labels)]
        if not values or not all(is_amount(value) for value in values):
            return None
        return sum(values)

    def counter(self, name: str) -> float | None:
        """A counter's sum, with or without its `_total`."""
        return self.total(f"{name}_total", name)

    def shares(self, *names: str, **labels: str) -> tuple[float | None, float | None]:
        """Mean and largest of a share 0..1 over ranks."""
        values = [as_share(s.value) for s in self.first(*names) if matches(s, labels)]
        known = [value for value in values if value is not None]
        if not values or len(known) < len(values):
            return None, None
        return sum(known) / len(known), max(known)

    def histogram(self, *names: str, scale: float = 1.0) -> Histogram | None:
        """The first of the histograms that the page has whole, added over ranks; `scale` turns it into seconds."""
        for name in names:
            if (found := self._histogram(name, scale)) is not None:
                return found
        return None

    def _histogram(self, name: str, scale: float) -> Histogram | None:
        ranks: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
        for sample in per_rank(self.samples.get(f"{name}_bucket", ())):
            try:
                bound = float(sample.labels["le"])
            except (KeyError, ValueError):
                return None
            rank = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            ranks.setdefault(rank, {})[bound] = sample.value
        series = [sorted(buckets.items()) for buckets in ranks.values()]
        total = self.total(f"{name}_sum")
        if not series or total is None:
            return None
        bounds = tuple(bound for bound, _ in series[0])
        if bounds[-1] != math.inf or not all(map(math.isfinite, bounds[:-1])):
            return None  # cut off
        if any(tuple(bound for bound, _ in one) != bounds for one in series):
            return None  # ranks that cannot be added
        counts = tuple(sum(column) for column in zip(*([c for _, c in one] for one in series), strict=True))
        if not all(is_amount(count) for count in counts) or any(low > high for low, high in pairwise(counts)):
            return None
        return Histogram(tuple(bound * scale for bound in bounds), counts, total * scale)


def read_page(text: str, prefixes: tuple[str, ...]) -> Page:
    """The samples whose names start with one of the prefixes; an empty page where it is too large.

    Comments are left out: without TYPE the parser gives names as they stand, whatever the client library did to
    `_total`. A last line without its end may be cut within a number, and is left out too.
    """
    if len(text) > MAX_PAGE_CHARS:
        return Page()
    samples: dict[str, list[Sample]] = {}
    read = 0
    for line in text[: text.rfind("\n") + 1].split("\n"):
        if not line.startswith(prefixes):
            continue
        read += 1
        if read > MAX_SAMPLES:
            return Page()
        try:
            families = list(text_string_to_metric_families(line))
        except (ValueError, IndexError, KeyError, OverflowError):
            continue  # one bad line does not cost the others
        for family in families:
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(Sample(sample.labels, float(sample.value)))
    return Page(samples)


def per_rank(samples: Sequence[Sample]) -> Sequence[Sample]:
    """One sample per data-parallel rank.

    Pipeline stages and, where ranks are named, the tensor-parallel workers of one rank tell of the same requests:
    of those the largest counts.
    """
    if not any("pp_rank" in s.labels or "dp_rank" in s.labels for s in samples):
        return samples
    same = {"pp_rank", "tp_rank", "moe_ep_rank"} if any("dp_rank" in s.labels for s in samples) else {"pp_rank"}
    ranks: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        rank = tuple(sorted((k, v) for k, v in sample.labels.items() if k not in same))
        known = ranks.get(rank)
        if known is None or not sample.value <= known:  # NaN wins, and makes the sum unknown
            ranks[rank] = sample.value
    return tuple(Sample(dict(rank), value) for rank, value in ranks.items())


def matches(sample: Sample, labels: Mapping[str, str]) -> bool:
    return all(sample.labels.get(name) == value for name, value in labels.items())


def is_amount(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0


def as_share(value: float) -> float | None:
    """A share 0..1, a rounding error over it cut off; None for what cannot be one (a percentage, NaN)."""
    return min(value, 1.0) if 0.0 <= value <= 1.01 else None
