"""Spillover: how much of the work each tier of regions gets, and how fast that may change. Pure functions of values.

A policy ranks regions in tiers. Work stays in the first for as long as its healthy capacity can bear it: by health as
in Envoy's priority levels (`priority_load`), by room as measured (`shares`), and never suddenly (`braked`).
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate

from policies import chance
from policies.policy import HOME_FIRST, Spillover

# Which of a seed's draws decides the tier; the pickers use the first few, admission and shadows others.
DRAW = 3_000


@dataclass(frozen=True, slots=True)
class Level:
    """One tier at one moment, for one kind of request."""

    # Of its capacity, the share that is healthy, 0..1.
    healthy: float
    # Requests at once that its healthy deployments have room for.
    places: float
    # Requests that run or wait there: ours, and those of others.
    ours: float = 0.0
    others: float = 0.0


def tier_of(order: Sequence[str], region_id: str, origin: str) -> int:
    """The tier of a region, 0 the first; regions that the order does not name form the last one."""
    for number, glob in enumerate(order):
        if region_id == origin if glob == HOME_FIRST else fnmatchcase(region_id, glob):
            return number
    return len(order)


def health_score(healthy: float, factor: float) -> int:
    """A level's health as a whole percentage: what of it is healthy, times the overprovisioning, 100 at most."""
    return min(100, int(100.0 * healthy * factor + 1e-9))


def priority_load(healthy: Sequence[float], factor: float) -> tuple[int, ...]:
    """Percent of the traffic that each level gets, by the healthy shares of the levels; nobody healthy: the first."""
    scores = [health_score(each, factor) for each in healthy]
    total = min(100, sum(scores))
    if total == 0:
        return tuple(100 if number == 0 else 0 for number in range(len(scores)))
    left, loads = 100, []
    for score in scores:
        loads.append(min(left, round(score * 100 / total)))
        left -= loads[-1]
    loads[next(number for number, score in enumerate(scores) if score)] += left
    return tuple(loads)


def panicking(healthy: Sequence[float], factor: float, threshold: float) -> tuple[bool, ...]:
    """Levels that set health aside: those below the threshold, where all levels together cannot bear the traffic."""
    enough = sum(health_score(each, factor) for each in healthy) >= 100
    return tuple(not enough and each < threshold for each in healthy)


def room(level: Level, spill: Spillover) -> float:
    """Requests at once that a level may hold for us: what its health leaves, less what others have there."""
    return max(0.0, level.places * spill.full_utilization - level.others)


def holds(levels: Sequence[Level], spill: Spillover) -> tuple[float, ...]:
    """By level, the share of all our requests that it has room for; infinite where we have none."""
    demand = sum(level.ours for level in levels)
    rooms = [room(level, spill) for level in levels]
    return tuple(each / demand if demand > 0.0 else float("inf") if each > 0.0 else 0.0 for each in rooms)


def shares(levels: Sequence[Level], spill: Spillover) -> tuple[float, ...]:
    """The shares to aim at: by health, less what has no room, which goes on to the next tier that has.

    What fits nowhere is spread by room, so that nobody is driven further above it than the others; to refuse it is for
    the policy's shedding.
    """
    most = holds(levels, spill)
    found: list[float] = []
    carried = 0.0
    for load, cap in zip(priority_load([level.healthy for level in levels], spill.overprovisioning), most, strict=True):
        wanted = load / 100.0 + carried
        found.append(min(wanted, cap))
        carried = wanted - found[-1]
    for number, cap in enumerate(most):
        more = min(carried, max(0.0, cap - found[number]))
        found[number] += more
        carried -= more
    if carried > 0.0:
        places = [level.places for level in levels]
        total = sum(places)
        for number, each in enumerate(places):
            found[number] += carried * (each / total if total > 0.0 else number == 0)
    return tuple(found)


def braked(
    before: Sequence[float], target: Sequence[float], most: Sequence[float], seconds: float, spill: Spillover
) -> tuple[float, ...]:
    """The shares after some seconds: on the way to the target, at the pace that the policy allows.

    Work leaves a tier at once as far as it has no room for it (`most`), else by `max_shift_per_minute`; it comes back
    over `failback_seconds`; what would move less than `hysteresis` stays, unless everything may come home.
    """
    away = seconds * spill.max_shift_per_minute / 60.0
    back = seconds / spill.failback_seconds if spill.failback_seconds > 0.0 else 1.0
    kept: list[float] = []
    rows = zip(accumulate(before), accumulate(target), accumulate(most), strict=True)
    for number, (had, wanted, cap) in enumerate(rows):
        if number == len(before) - 1:
            now = 1.0
        elif abs(wanted - had) <= spill.hysteresis and wanted < 1.0:
            now = had
        elif wanted < had:
            now = max(wanted, had - away)
        else:
            now = min(wanted, had + back)
        if number < len(before) - 1:
            now = min(now, max(cap, wanted))
        kept.append(max(now, kept[-1] if kept else 0.0))
    return tuple(after - earlier for after, earlier in zip(kept, [0.0, *kept], strict=False))


def drawn(split: Sequence[float], seed: int) -> int:
    """The tier that a request falls into."""
    point = chance.uniform(seed, DRAW)
    for number, share in enumerate(split):
        point -= share
        if point < 0.0:
            return number
    return max(range(len(split)), key=lambda number: (split[number], -number))


def cause(levels: Sequence[Level], number: int, spill: Spillover, threshold: float, share: float) -> str:
    """Why a tier does not have all of the work, for people."""
    level = levels[number]
    if panicking([each.healthy for each in levels], spill.overprovisioning, threshold)[number]:
        return f"{level.healthy:.0%} of its capacity is healthy, and the others cannot bear the rest"
    if health_score(level.healthy, spill.overprovisioning) < 100:
        return f"{level.healthy:.0%} of its capacity is healthy"
    busy = level.ours + level.others
    if busy >= level.places * spill.full_utilization * 0.99:
        return f"{busy:.0f} of its {level.places:.0f} places are taken"
    return f"its work comes back step by step, {share:.0%} by now"
