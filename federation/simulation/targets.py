"""What the default policy must show, beside what it showed: the page of results, written by the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federation.simulation.metrics import Summary
from federation.simulation.report import HEADS, row

Key = tuple[str, str, float, str, str]
HALVES = ("first", "second")


@dataclass(frozen=True, slots=True)
class Found:
    """Summaries by (kind, half, load, fault, entry)."""

    summaries: Mapping[Key, Summary]

    def get(self, kind: str, half: str, load: float, entry: str, fault: str = "") -> Summary | None:
        return self.summaries.get((kind, half, load, fault, entry))

    def faults(self, kind: str, half: str, load: float) -> list[str]:
        """Faults of a kind of run, in the order in which they were run."""
        found = {k[3]: None for k in self.summaries if k[:3] == (kind, half, load)}
        return list(found)


@dataclass(frozen=True, slots=True)
class Line:
    """One target of one half: what was measured, and whether it holds."""

    name: str
    half: str
    target: str
    measured: str
    holds: bool


def lines(found: Found) -> list[Line]:
    """Every target that the runs can tell of."""
    told: list[Line] = []
    for half in HALVES:
        for load in (0.4, 0.7):
            for fault in found.faults("azure", half, load):
                told += _azure(found, half, load, fault)
        told += _even(found, half)
        told += _overload(found, half)
        told += _conversation(found, half)
        told += _cost(found, half)
        told += _predictions(found, half)
    told += _profiles(found)
    return told


def _ratio(name: str, half: str, value: float, bound: float) -> Line:
    return Line(name, half, f"<= {bound:.2f} x", f"{value:.2f} x", value <= bound)


def _azure(found: Found, half: str, load: float, fault: str) -> list[Line]:
    oracle = found.get("azure", half, load, "oracle", fault)
    ours = found.get("azure", half, load, "balanced", fault)
    least = found.get("azure", half, load, "least_connections", fault)
    if oracle is None or ours is None or least is None:
        return []
    where = f"{load:.0%}, {fault or 'no fault'}"
    behind = oracle.good - ours.good
    more = ours.errors - oracle.errors
    below = 1.0 - ours.p99 / least.p99
    return [
        _ratio(f"{where}: p99 to the oracle's", half, ours.p99 / oracle.p99, 1.3 if half == "first" else 1.45),
        Line(f"{where}: p99 below least_connections", half, ">= 25 %", f"{below:.0%}", below >= 0.25),
        Line(f"{where}: good answers behind the oracle", half, "<= 2 points", f"{behind:.1%}", behind <= 0.02),
        Line(f"{where}: errors above the oracle", half, "<= 1 point", f"{more:.2%}", more <= 0.01),
    ]


def _even(found: Found, half: str) -> list[Line]:
    oracle, ours = found.get("even", half, 0.9, "oracle"), found.get("even", half, 0.9, "balanced")
    if oracle is None or ours is None:
        return []
    return [_ratio("90 %, evened: p99 to the oracle's", half, ours.p99 / oracle.p99, 1.4 if half == "first" else 1.85)]


def _overload(found: Found, half: str) -> list[Line]:
    oracle, ours = (
        found.get("overload", half, 1.2, "oracle-giving-up"),
        found.get("overload", half, 1.2, "interactive+bounded"),
    )
    if oracle is None or ours is None:
        return []
    share = ours.good / oracle.good
    lost = ours.lost_by_priority.get("1", 1.0)
    return [
        Line("120 %: good answers of the oracle's that gives up", half, ">= 90 %", f"{share:.0%}", share >= 0.9),
        Line("120 %: high priority lost", half, "<= 1 %", f"{lost:.2%}", lost <= 0.01),
    ]


def _conversation(found: Found, half: str) -> list[Line]:
    oracle, ours = found.get("conversation", half, 0.7, "oracle"), found.get("conversation", half, 0.7, "balanced")
    if oracle is None or ours is None:
        return []
    share = ours.cached_tokens / max(1, oracle.cached_tokens)
    return [
        _ratio("conversation, 70 %: p99 to the oracle's", half, ours.p99 / oracle.p99, 1.5),
        Line("conversation, 70 %: cached tokens of the oracle's", half, ">= 50 %", f"{share:.0%}", share >= 0.5),
    ]


def _cost(found: Found, half: str) -> list[Line]:
    cheapest, ours = found.get("cost", half, 0.4, "oracle-cheapest"), found.get("cost", half, 0.4, "cost_first")
    if cheapest is None or ours is None:
        return []
    ratio = ours.cost_usd_per_1000 / cheapest.cost_usd_per_1000
    return [_ratio("40 %: cost of cost_first to the cheapest feasible", half, ratio, 1.1)]


def _predictions(found: Found, half: str) -> list[Line]:
    told: list[Line] = []
    for load in (0.4, 0.7):
        ours = found.get("azure", half, load, "balanced")
        if ours is None or ours.prediction_error is None:
            continue
        error = ours.prediction_error
        told.append(Line(f"{load:.0%}: median error of predictions", half, "<= 20 %", f"{error:.0%}", error <= 0.2))
        covered, each = ours.interval_coverage, ours.coverage_by_deployment
        if covered is not None:
            holds = 0.85 <= covered <= 0.95
            told.append(Line(f"{load:.0%}: within the 90 % interval", half, "85 to 95 %", f"{covered:.0%}", holds))
        if each is not None:
            holds = each[0] >= 0.85 and each[1] <= 0.95
            measured = f"{each[0]:.0%} to {each[1]:.0%}"
            told.append(Line(f"{load:.0%}: the same by deployment", half, "85 to 95 %", measured, holds))
    return told


def _profiles(found: Found) -> list[Line]:
    declared, learned = (
        found.get("profiles", "all", 0.7, "balanced"),
        found.get("profiles", "all", 0.7, "balanced+undeclared"),
    )
    if declared is None or learned is None:
        return []
    return [_ratio("70 %: p99 without declared profiles to with them", "second", learned.p99 / declared.p99, 1.1)]


def render(found: Found, azure: str, conversation: str, seed: int, runs: int) -> str:
    """The page."""
    told = lines(found)
    kept = sum(line.holds for line in told)
    parts = [
        "# What the default policy shows in simulation",
        "",
        "Written by `python -m federation.simulation.matrix`; do not edit.",
        f"{runs} runs, seed {seed}; traces `{azure}` and `{conversation}`; fleets `unequal-30` and `long-prompts-30`.",
        "Constants are chosen on the first half of a trace; the second is reported. A failure counts as 60 s to the",
        "first token; an answer is good within 1 s + 1 ms per prompt token.",
        "",
        f"## Targets: {kept} of {len(told)} hold",
        "",
        "| Target | Bound, first half | First half | Bound, second half | Second half |",
        "|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(line.name for line in told))
    for name in names:
        cells = []
        for half in HALVES:
            line = next((each for each in told if each.name == name and each.half == half), None)
            cells += (
                ["", ""] if line is None else [line.target, line.measured if line.holds else f"**{line.measured}**"]
            )
        parts.append(f"| {name} | {' | '.join(cells)} |")
    parts += ["", "Bold: missed.", ""]
    parts += _tables(found)
    return "\n".join(parts) + "\n"


TITLES: Mapping[str, str] = {
    "azure": "Azure trace",
    "even": "Azure trace, minute swings evened out",
    "overload": "Azure trace with priorities, overloaded",
    "cost": "Cheapest feasible",
    "conversation": "Conversation trace with prefixes",
    "profiles": "Profiles declared and learned (second half measured)",
}


def _tables(found: Found) -> list[str]:
    """Every run, by kind, half, load and fault."""
    parts: list[str] = []
    groups = list(dict.fromkeys(key[:4] for key in found.summaries))
    for kind, title in TITLES.items():
        mine = [group for group in groups if group[0] == kind]
        if not mine:
            continue
        parts += [f"## {title}", ""]
        parts += _head(("half", "load", "fault", *HEADS))
        for group in mine:
            for key, summary in found.summaries.items():
                if key[:4] == group:
                    cells = (group[1], f"{group[2]:.0%}", group[3] or "none", *row(key[4], summary))
                    parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return parts


def _head(heads: Sequence[str]) -> list[str]:
    rules = ("---:" if place > 3 else "---" for place in range(len(heads)))
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
