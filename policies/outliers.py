"""Which deployments of a pool are left out for a time, though their probes pass: gray failures.

A pool is all deployments of one model. A member is an outlier

- by errors, when its failures cannot be chance at the rate of all the others. The chance is bounded by Chernoff:
  P(that many) <= exp(-n KL(observed || expected)), and must be under FALSE_EJECTION. So 15 failures among 50 are
  enough, 3 among 50 never are, and when everybody fails nobody is an outlier;
- by slowness, when its pace (windows.Pace: the geometric mean of recent answers, each divided by what such a
  request should take) is SLOW_FACTOR times the pool's median, and was not always so.

At most a tenth of a pool is out at once, but always may one; never the last one that could serve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

BASE_EJECTION_SECONDS = 30.0
MAX_EJECTION_SECONDS = 300.0
# Ejections are forgotten after this long without one.
FORGIVEN_AFTER_SECONDS = 300.0

# Chance that a healthy member is ejected at one look. 100 nodes looked at once a second for a day are 8.6 million
# looks, of which neighbours see nearly the same window.
FALSE_EJECTION = 1e-7
# Nobody is an outlier for failing more rarely than this: a node at 2 % costs less than the capacity that goes with it.
TOLERATED_ERROR_RATIO = 0.03
MIN_FAILURES = 5

# A node at a tenth of its speed is 10 times slower; noise and unlike prompts take some of it.
SLOW_FACTOR = 6.0
# Answers that a pace must rest on. With fewer, its noise reaches SLOW_FACTOR by chance.
MIN_ANSWERS = 20
# With two paces nobody can tell which one is odd.
MIN_PACES = 3
# A member that has always been about this slow is slow hardware; its latency score says so.
USUAL_FACTOR = 3.0
USUAL_ANSWERS = 200


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of one member of a pool. Paces are logarithms, comparable where `kind` is the same."""

    name: str
    failures: int = 0
    requests: int = 0
    pace: float | None = None
    usual_pace: float | None = None
    answers: int = 0
    answers_ever: int = 0
    kind: str = ""
    ejected: bool = False
    # Whether requests could go there now if it is not ejected.
    available: bool = True


@dataclass(frozen=True, slots=True)
class Outlier:
    """Who is to be left out, and why, in words; `weight` orders the worst first."""

    name: str
    reason: str
    weight: float


def choose(pool: Sequence[Member], size: int, max_ejected_ratio: float = 0.1) -> tuple[Outlier, ...]:
    """Who of the pool is to be ejected now, worst first, ties by name.

    `size` counts all members, also those without news that are not in `pool`; they count as able to serve.
    """
    found = sorted((*by_errors(pool), *by_slowness(pool)), key=lambda outlier: (-outlier.weight, outlier.name))
    out = sum(member.ejected for member in pool)
    serving = size - sum(member.ejected or not member.available for member in pool)
    allowed = max(1, math.floor(size * max_ejected_ratio)) - out
    states = {member.name: member for member in pool}
    chosen: dict[str, Outlier] = {}
    for outlier in found:
        if len(chosen) >= allowed:
            break
        # One that is not available is out already; to leave it out as well takes nobody's last choice away.
        costs = 1 if states[outlier.name].available else 0
        if outlier.name in chosen or serving - costs < 1:
            continue
        serving -= costs
        chosen[outlier.name] = outlier
    return tuple(chosen.values())


def by_errors(pool: Sequence[Member]) -> tuple[Outlier, ...]:
    """Members that fail more often than chance allows beside the others."""
    failures = sum(member.failures for member in pool)
    requests = sum(member.requests for member in pool)
    found = []
    for member in pool:
        if member.ejected or member.failures < MIN_FAILURES:
            continue
        others = requests - member.requests
        expected = max(TOLERATED_ERROR_RATIO, (failures - member.failures) / others if others else 0.0)
        observed = member.failures / member.requests
        weight = member.requests * _divergence(observed, expected)
        if observed > expected and weight >= -math.log(FALSE_EJECTION):
            reason = (
                f"{observed:.0%} of {member.requests} outcomes failed, {expected:.0%} are usual among its neighbours"
            )
            found.append(Outlier(member.name, reason, weight))
    return tuple(found)


def by_slowness(pool: Sequence[Member]) -> tuple[Outlier, ...]:
    """Members that answer several times slower than the median of the pool, and than they used to."""
    paces: dict[str, list[float]] = {}
    for member in pool:
        if member.pace is not None and member.answers >= MIN_ANSWERS and not member.ejected:
            paces.setdefault(member.kind, []).append(member.pace)
    bar = {kind: median(values) + math.log(SLOW_FACTOR) for kind, values in paces.items() if len(values) >= MIN_PACES}
    found = []
    for member in pool:
        if member.pace is None or member.ejected or member.answers < MIN_ANSWERS or member.kind not in bar:
            continue
        excess = member.pace - bar[member.kind]
        if excess < 0.0:
            continue
        known = member.usual_pace is not None and member.answers_ever >= USUAL_ANSWERS
        if known and member.pace - (member.usual_pace or 0.0) < math.log(USUAL_FACTOR):
            continue
        factor = math.exp(excess) * SLOW_FACTOR
        reason = f"{factor:.0f} times slower than the median of its pool"
        # One e-fold over the bar weighs as much as ten e-folds of improbability: errors come first.
        found.append(Outlier(member.name, reason, 10.0 * excess))
    return tuple(found)


def ejection_seconds(ejections: int) -> float:
    """How long the n-th ejection lasts (n from 1): 30 s × n, at most 300 s."""
    return min(BASE_EJECTION_SECONDS * max(1, ejections), MAX_EJECTION_SECONDS)


def _divergence(observed: float, expected: float) -> float:
    """Kullback-Leibler divergence of two coins, in nats; infinite where the expected one never shows the observed."""
    if expected >= 1.0:
        return 0.0
    total = 0.0
    if observed > 0.0:
        total += observed * math.log(observed / expected)
    if observed < 1.0:
        total += (1.0 - observed) * math.log((1.0 - observed) / (1.0 - expected))
    return total
