"""How benchmarks measure: best of several rounds, and figures as ratios against a baseline of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

ROUNDS = 5


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


def per_second(work: Callable[[int], None], count: int, rounds: int = ROUNDS) -> float:
    """How many of `count` a second: the best of several rounds, since a busy machine only ever makes it slower."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work(count)
        best = min(best, time.perf_counter() - started)
    return count / best


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU seconds of one piece of work: the least of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best
