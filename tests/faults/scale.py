"""At which scale the faults are tried, and what a try tells."""

from __future__ import annotations

from dataclasses import dataclass

# Of whatever a case draws.
SEED = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table. `row` is the fault's number in the table of faults."""

    row: str
    fault: str
    load: str
    figure: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how hard. The default is for CI: what needs a real second takes one, not thirty."""

    cut_seconds: float = 4.0
    lease_seconds: float = 2.0
    outage_seconds: float = 4.0
    rate: float = 15.0
    cuts: int = 8
    fleet: int = 200
    changes: int = 10
    nodes: int = 6
    crew_rate: float = 20.0
    kills: int = 3
    restarts: int = 3
    callers: int = 4
    deadline_seconds: float = 5.0
    hole_seconds: float = 25.0
    hedged_seconds: float = 8.0
    # For pauses of the machine beside what the settings allow.
    slack_seconds: float = 8.0
    herd: int = 60
    full_seconds: float = 2.0
    open_seconds: float = 2.0
    storm_seconds: float = 8.0
    flap_seconds: float = 20.0
    flap_rate: float = 20.0
    stale_seconds: float = 10.0
    stale_seeds: int = 1


FULL = Scale(
    cut_seconds=30.0,
    lease_seconds=30.0,
    outage_seconds=300.0,
    rate=100.0,
    cuts=100,
    fleet=10_000,
    changes=200,
    nodes=10,
    crew_rate=300.0,
    kills=20,
    restarts=9,
    callers=20,
    deadline_seconds=1.0,
    hole_seconds=40.0,
    hedged_seconds=40.0,
    slack_seconds=1.0,
    herd=500,
    full_seconds=20.0,
    open_seconds=5.0,
    storm_seconds=60.0,
    flap_seconds=180.0,
    flap_rate=200.0,
    stale_seconds=60.0,
    stale_seeds=3,
)
