"""A deployment's circuit. Everything that changes a circuit's state is in this file.

                     5 failures in a row, or half of >= 20 in 30 s
            +--------+ -------------------------------------------> +------+
            | Closed |                                              | Open | <-+
            +--------+                                              +------+   |
                 ^                                             time is |       | a failure:
                 | 3 successes      +----------+  <--------------------+       | twice the time
                 +----------------- | HalfOpen | ------------------------------+
                                    +----------+

Time open doubles with each trip (30 s to 300 s) and is spread by jitter, so that circuits which opened together
do not try again together. Trips are forgotten after a circuit stayed closed for the longest time open: a node that
fails once per cycle keeps its back-off, one that failed last week starts at 30 s.

Successes count that are SPACING of the first time open apart, a second by default: of a node that is up for two seconds
at a time, trials within milliseconds would all go well, and it would be let in to fail again, cycle after cycle.

The one trial at a time of a half-open circuit is claimed by the router; here is only what its outcome means.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Protocol, TypeAlias

# Half of the whole spread, as a share of the time open.
JITTER = 0.1
# Between two successes of a half-open circuit that both count, as a share of the first time open.
SPACING = 1 / 30


class CircuitLimits(Protocol):
    """The bounds of a circuit; CircuitSettings has them."""

    @property
    def failures(self) -> int: ...
    @property
    def open_seconds(self) -> float: ...
    @property
    def max_open_seconds(self) -> float: ...
    @property
    def successes(self) -> int: ...


class Event(Enum):
    SUCCESS = auto()
    FAILURE = auto()
    # The share of failures in the window is over its bound; the window is the caller's.
    RATIO = auto()
    TICK = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True)
class Closed:
    """Requests go through. `failures` in a row; `trips` are not yet forgotten; closed `since` then."""

    failures: int = 0
    trips: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Open:
    """None go through before `until`."""

    until: float
    trips: int
    failures: int = 0


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """One trial at a time. The last of the `successes` was `counted_at`."""

    trips: int
    successes: int = 0
    counted_at: float = -inf


Circuit: TypeAlias = Closed | Open | HalfOpen


def step(circuit: Circuit, event: Event, now: float, limits: CircuitLimits, jitter: float) -> Circuit:
    """The circuit after an event; `jitter` is chance in 0..1, used where it opens."""
    match circuit, event:
        case _, Event.RESET:
            return Closed(since=now)
        case Closed(failures, trips, since), Event.FAILURE if failures + 1 < limits.failures:
            return Closed(failures + 1, trips, since)
        case Closed(failures, trips), Event.FAILURE:
            return Open(now + _open_seconds(trips, limits, jitter), trips + 1, failures + 1)
        case Closed(failures, trips), Event.RATIO:
            return Open(now + _open_seconds(trips, limits, jitter), trips + 1, failures)
        case Closed(failures, trips, since), Event.SUCCESS if failures:
            return Closed(0, trips, since)
        case Closed(failures, trips, since), Event.TICK if trips and now >= since + limits.max_open_seconds:
            return Closed(failures, 0, since)
        case Open(until, trips), Event.TICK if now >= until:
            return HalfOpen(trips)
        case HalfOpen(trips), Event.FAILURE:
            return Open(now + _open_seconds(trips, limits, jitter), trips + 1, 1)
        case HalfOpen(counted_at=counted_at), Event.SUCCESS if now < counted_at + SPACING * limits.open_seconds:
            return circuit
        case HalfOpen(trips, successes), Event.SUCCESS if successes + 1 < limits.successes:
            return HalfOpen(trips, successes + 1, now)
        case HalfOpen(trips), Event.SUCCESS:
            return Closed(0, trips, now)
        case _:
            return circuit  # late outcomes of an open circuit change nothing


def next_change(circuit: Circuit, limits: CircuitLimits) -> float:
    """When a TICK will next change it; infinity: only outcomes will."""
    match circuit:
        case Open(until):
            return until
        case Closed(trips=trips, since=since) if trips:
            return since + limits.max_open_seconds
        case _:
            return float("inf")


def _open_seconds(trips: int, limits: CircuitLimits, jitter: float) -> float:
    # Beyond 2^20 the bound holds anyway; without it a float would overflow after a thousand trips.
    length = limits.open_seconds * float(2 ** min(trips, 20))
    return min(length, limits.max_open_seconds) * (1.0 - JITTER + 2.0 * JITTER * jitter)
