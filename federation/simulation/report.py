"""A comparison as JSON values and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from federation.simulation.metrics import Summary
from federation.simulation.run import Outcome, Scenario

HEADS = ("policy", "p50", "p90", "p99", "good", "errors", "USD/1000", "cached", "prediction")


def as_json(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything that a run came to; the same seed gives the same values."""
    return {
        "fleet": scenario.fleet.name,
        "load": scenario.load,
        "faults": [str(fault) for fault in scenario.faults],
        "seed": scenario.seed,
        "policies": {outcome.name: outcome.summary.plain() for outcome in outcomes},
    }


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1.0 else f"{value:.2f} s"


def row(name: str, found: Summary) -> tuple[str, ...]:
    """One entry as cells, in the order of HEADS."""
    error = "-" if found.prediction_error is None else f"±{found.prediction_error:.0%}"
    covered = "" if found.interval_coverage is None else f", {found.interval_coverage:.0%} in 90 %"
    return (
        name,
        seconds(found.p50),
        seconds(found.p90),
        seconds(found.p99),
        f"{found.good:.1%}",
        f"{found.errors:.2%}",
        f"{found.cost_usd_per_1000:.3f}",
        f"{found.cached_share:.1%}",
        error + covered,
    )


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    return [row(outcome.name, outcome.summary) for outcome in outcomes]
