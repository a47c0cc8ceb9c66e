"""What a run came to, in numbers: times to the first token, good answers, errors, cost, cache, predictions.

A request without a whole answer counts as a failure, and as 60 s to its first token: failures never look fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from federation.simulation.fleet import Fleet
from federation.simulation.routers import good_within
from federation.simulation.world import FIRST_TOKEN_TIMEOUT_SECONDS, Journey
from policies.types import Result

# Points of a plot over time.
BINS = 60
# Deployments with fewer predictions than this say nothing of theirs.
LEAST_PREDICTIONS = 30


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. Seconds, shares of 1, US dollars, tokens."""

    requests: int
    p50: float
    p90: float
    p99: float
    mean: float
    good: float
    errors: float
    refused: float
    cost_usd: float
    cost_usd_per_1000: float
    cached_tokens: int
    cached_share: float
    retries: int
    # Median of |predicted - measured| / measured, and the share of first tokens within the 90 % interval.
    prediction_error: float | None
    interval_coverage: float | None
    # The worst deployment's.
    worst_prediction_error: float | None
    coverage_by_deployment: tuple[float, float] | None
    # Requests that failed, and requests, by priority.
    lost_by_priority: Mapping[str, float]
    good_by_priority: Mapping[str, float]
    results: Mapping[str, int]
    load_by_region: Mapping[str, float]
    flows: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        """As JSON values, rounded to what is meant."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Summary:
        """What `plain` made values of."""
        covered = plain["coverage_by_deployment"]
        return Summary(**{**plain, "coverage_by_deployment": None if covered is None else tuple(covered)})


@dataclass(frozen=True, slots=True)
class Series:
    """What moved during a run, in equal bins of time."""

    bin_seconds: float
    p50: tuple[float, ...]
    p99: tuple[float, ...]
    cost_usd: tuple[float, ...]
    # Prompt tokens per second that came to each region.
    tokens_by_region: Mapping[str, tuple[float, ...]]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return value


def answered(journey: Journey) -> bool:
    return journey.result is Result.OK


def first_token_seconds(journey: Journey) -> float:
    """Seconds to the first token at the gateway; what failed counts as 60."""
    if not answered(journey) or journey.first_token is None:
        return FIRST_TOKEN_TIMEOUT_SECONDS
    return journey.first_token - journey.arrived


def summarize(fleet: Fleet, journeys: Sequence[Journey]) -> Summary:
    """The numbers of a run over the given journeys."""
    first = np.array([first_token_seconds(each) for each in journeys])
    ok = np.array([answered(each) for each in journeys])
    bound = np.array([good_within(each.request.input_tokens) for each in journeys])
    good = ok & (first <= bound)
    p50, p90, p99 = np.quantile(first, (0.5, 0.9, 0.99))
    cost = sum(each.cost_usd for each in journeys)
    cached = sum(each.cached_tokens for each in journeys if answered(each))
    prompt = sum(each.request.input_tokens for each in journeys if answered(each))
    priorities = sorted({each.request.priority for each in journeys})
    level = np.array([each.request.priority for each in journeys])
    region_of = {node.name: node.region_id for node in fleet.nodes}
    tokens: Counter[str] = Counter()
    flows: Counter[str] = Counter()
    for each in journeys:
        if answered(each):
            there = region_of[each.node]
            tokens[there] += each.request.input_tokens
            flows[f"{fleet.gateways[each.gateway].region_id} > {there}"] += 1
    total = max(1, sum(tokens.values()))
    error, worst, covered, by_deployment = _predictions(journeys)
    return Summary(
        requests=len(journeys),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        mean=float(first.mean()),
        good=float(good.mean()),
        errors=float(1.0 - ok.mean()),
        refused=sum(bool(each.refused) for each in journeys) / len(journeys),
        cost_usd=cost,
        cost_usd_per_1000=1000 * cost / max(1, int(ok.sum())),
        cached_tokens=cached,
        cached_share=cached / max(1, prompt),
        retries=sum(each.attempt for each in journeys),
        prediction_error=error,
        interval_coverage=covered,
        worst_prediction_error=worst,
        coverage_by_deployment=by_deployment,
        lost_by_priority={str(p): float(1.0 - ok[level == p].mean()) for p in priorities},
        good_by_priority={str(p): float(good[level == p].mean()) for p in priorities},
        results=dict(sorted(Counter(_result(each) for each in journeys).items())),
        load_by_region={name: count / total for name, count in sorted(tokens.items())},
        flows=dict(sorted(flows.items())),
    )


def _result(journey: Journey) -> str:
    if journey.refused:
        return f"refused: {journey.refused}"
    return journey.result.value if journey.result is not None else "unknown"


def _predictions(
    journeys: Sequence[Journey],
) -> tuple[float | None, float | None, float | None, tuple[float, float] | None]:
    """Median error, the worst deployment's, coverage, and the least and most of the deployments' coverages.

    Only of first attempts: what is predicted is the target, not what happens after it fails.
    """
    errors: dict[str, list[float]] = {}
    within: dict[str, list[bool]] = {}
    for each in journeys:
        if each.predicted is None or each.attempt or each.first_token is None or not answered(each):
            continue
        measured = each.first_token - each.arrived
        errors.setdefault(each.node, []).append(abs(each.predicted - measured) / max(measured, 1e-9))
        if each.interval is not None:
            within.setdefault(each.node, []).append(each.interval[0] <= measured <= each.interval[1])
    if not errors:
        return None, None, None, None
    enough = [found for found in errors.values() if len(found) >= LEAST_PREDICTIONS]
    shares = [float(np.mean(found)) for found in within.values() if len(found) >= LEAST_PREDICTIONS]
    return (
        float(np.median([error for found in errors.values() for error in found])),
        max((float(np.median(found)) for found in enough), default=None),
        float(np.mean([hit for found in within.values() for hit in found])) if within else None,
        (min(shares), max(shares)) if shares else None,
    )


def series(fleet: Fleet, journeys: Sequence[Journey]) -> Series:
    """A run over time, by when requests arrived."""
    length = max(each.arrived for each in journeys) + 1e-9
    width = length / BINS
    place = np.array([int(each.arrived / width) for each in journeys])
    first = np.array([first_token_seconds(each) for each in journeys])
    region_of = {node.name: node.region_id for node in fleet.nodes}
    regions = sorted({node.region_id for node in fleet.nodes})
    tokens = {region: np.zeros(BINS) for region in regions}
    cost = np.zeros(BINS)
    for number, each in zip(place.tolist(), journeys, strict=True):
        cost[number] += each.cost_usd
        if each.targets:
            tokens[region_of[each.node]][number] += each.request.input_tokens / width
    quantiles = []
    for number in range(BINS):
        inside = first[place == number]
        quantiles.append(np.quantile(inside, (0.5, 0.99)) if len(inside) else np.array([0.0, 0.0]))
    return Series(
        bin_seconds=width,
        p50=tuple(float(each[0]) for each in quantiles),
        p99=tuple(float(each[1]) for each in quantiles),
        cost_usd=tuple(cost.tolist()),
        tokens_by_region={region: tuple(values.tolist()) for region, values in tokens.items()},
    )
