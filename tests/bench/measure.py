"""How benchmarks measure: best of several rounds, and figures as ratios against a baseline of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

SEED = 20
# CPU seconds that the rounds of a measurement take at least, where a run is full, and at most.
LEAST_SECONDS = 1.5
MOST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `ratio` is value over baseline; `target` is what the ratio or the value is held to."""

    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scope:
    """How much a run does. Targets are told only of a full one: a small one shows that the benchmarks work."""

    # Sizes of the growth curves; the targets speak of 10,000 and 100,000.
    fleets: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    decisions: int = 1_000
    rounds: int = 5
    # Accelerators and requests of `intelligent-routing`, the setting that its authors publish.
    accelerators: int = 10_000
    picks: int = 100_000
    # Deployments that the LiteLLM router picks of.
    litellm: tuple[int, ...] = (10, 100, 1_000)
    # Unary calls of a measurement, and batches of 1,000.
    calls: int = 4_000
    batches: int = 8
    # Nodes of the server over gRPC, and seconds of quiet and of storm.
    nodes: int = 200
    storm_nodes: int = 500
    storm_seconds: float = 5.0
    storm_updates: int = 1_000
    reports: int = 100
    # Deployments of the catalog, in so many regions and of so many models.
    catalog: int = 100_000
    regions: int = 50
    models: int = 500
    # Server modes, as far as they can be had here.
    modes: tuple[str, ...] = ("asyncio", "uvloop", "pool-1", "pool-2", "pool-8", "processes-2")
    full: bool = True


FULL = Scope()
TINY = Scope(
    fleets=(20, 40),
    decisions=20,
    rounds=1,
    accelerators=10,
    picks=100,
    litellm=(5,),
    calls=40,
    batches=1,
    nodes=100,
    storm_nodes=8,
    storm_seconds=0.3,
    storm_updates=20,
    reports=5,
    catalog=100,
    regions=5,
    models=5,
    modes=("asyncio", "pool-2", "processes-2"),
    full=False,
)


def held(scope: Scope, name: str, value: float, unit: str, target: str, met: bool, **rest: Any) -> Result:
    """A result that is held to a target; a small run tells no verdict."""
    return Result(name, value, unit, target=target, met=met if scope.full else None, **rest)


def per_second(work: Callable[[int], object], count: int, scope: Scope) -> float:
    """How many of `count` a second of CPU: the best of several rounds, since neighbours only ever make it slower."""
    best, spent, rounds = float("inf"), 0.0, 0
    least = LEAST_SECONDS if scope.full else 0.0
    # What is very slow is told well enough by one round.
    while spent < MOST_SECONDS and (rounds < scope.rounds or spent < least):
        started = time.process_time()
        work(count)
        took = time.process_time() - started
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    return count / best


def ratio_in_turns(one: Callable[[int], object], other: Callable[[int], object], count: int, scope: Scope) -> float:
    """What the other takes of CPU for each second of the one: the least of rounds that take turns."""
    least, spent = [float("inf"), float("inf")], 0.0
    while spent < 2 * (LEAST_SECONDS if scope.full else 0.01):
        for number, work in enumerate((one, other)):
            started = time.process_time()
            work(count)
            took = time.process_time() - started
            least[number], spent = min(least[number], took), spent + took
    return least[1] / least[0]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds of one piece of work: the least of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
