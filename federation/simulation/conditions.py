"""Conditions on a comparison, as `--fail-if` takes them: `p99 > 1.3x oracle or errors > 1%`.

    condition := clause { ("or" | "and") clause }        "and" binds more tightly
    clause    := figure comparison value
    figure    := p50 p90 p99 mean good errors refused cost cached prediction_error coverage
    value     := number [ "s" | "ms" | "%" ] | number "x" entry

Durations are seconds unless they say so; `x` compares with the same figure of another entry of the run.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from federation.simulation.metrics import Summary

FIGURES: Mapping[str, Callable[[Summary], float | None]] = MappingProxyType(
    {
        "p50": lambda s: s.p50,
        "p90": lambda s: s.p90,
        "p99": lambda s: s.p99,
        "mean": lambda s: s.mean,
        "good": lambda s: s.good,
        "errors": lambda s: s.errors,
        "refused": lambda s: s.refused,
        "cost": lambda s: s.cost_usd_per_1000,
        "cached": lambda s: s.cached_share,
        "prediction_error": lambda s: s.prediction_error,
        "coverage": lambda s: s.interval_coverage,
    }
)
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
)
CLAUSE = re.compile(
    r"\s*(?P<figure>[a-z0-9_]+)\s*(?P<comparison>>=|<=|>|<)\s*(?P<number>[0-9]*\.?[0-9]+)\s*"
    r"(?:(?P<unit>s|ms|%)|x\s+(?P<entry>[^\s]+))?\s*$"
)
UNITS = {"s": 1.0, "ms": 0.001, "%": 0.01}


class ConditionInvalid(ValueError):
    """A condition that cannot be meant; the message says where it goes wrong."""


@dataclass(frozen=True, slots=True)
class Clause:
    text: str
    figure: str
    comparison: str
    number: float
    entry: str = ""

    def holds(self, name: str, entries: Mapping[str, Summary]) -> bool:
        """Whether it holds of an entry. What is unknown holds of nobody. Raises ConditionInvalid."""
        value = FIGURES[self.figure](entries[name])
        bound: float | None = self.number
        if self.entry:
            if self.entry not in entries:
                known = ", ".join(entries)
                raise ConditionInvalid(
                    f"{self.text!r} compares with {self.entry!r}, which was not run; there are {known}"
                )
            other = FIGURES[self.figure](entries[self.entry])
            bound = None if other is None else self.number * other
        return value is not None and bound is not None and COMPARISONS[self.comparison](value, bound)

    def figures(self, name: str, entries: Mapping[str, Summary]) -> str:
        """What it compares, in numbers: `p99: 18.5, oracle 7.93`; seconds, US dollars, shares of 1."""
        told = f"{self.figure}: {FIGURES[self.figure](entries[name]):.3g}"
        return f"{told}, {self.entry} {FIGURES[self.figure](entries[self.entry]):.3g}" if self.entry else told


@dataclass(frozen=True, slots=True)
class Condition:
    """Clauses in disjunctive form: any group of which all hold."""

    groups: tuple[tuple[Clause, ...], ...]

    def broken(self, name: str, entries: Mapping[str, Summary]) -> str:
        """The first group that holds of an entry, as it was written; "" where none does."""
        return " and ".join(clause.text for clause in self._first(name, entries))

    def figures(self, name: str, entries: Mapping[str, Summary]) -> str:
        """What was compared in that group."""
        return "; ".join(clause.figures(name, entries) for clause in self._first(name, entries))

    def _first(self, name: str, entries: Mapping[str, Summary]) -> tuple[Clause, ...]:
        return next((g for g in self.groups if all(clause.holds(name, entries) for clause in g)), ())

    @property
    def entries(self) -> frozenset[str]:
        """Whom it compares with."""
        return frozenset(clause.entry for group in self.groups for clause in group if clause.entry)


def parse_condition(text: str) -> Condition:
    """Raises ConditionInvalid."""
    groups = (tuple(_clause(each) for each in re.split(r"\band\b", part)) for part in re.split(r"\bor\b", text))
    return Condition(tuple(groups))


def _clause(text: str) -> Clause:
    found = CLAUSE.match(text)
    if found is None:
        raise ConditionInvalid(
            f"{text.strip()!r} is no condition; write one as in 'p99 > 1.3x oracle', 'errors > 1%' or 'p50 > 800ms'"
        )
    figure = found["figure"]
    if figure not in FIGURES:
        raise ConditionInvalid(f"{text.strip()!r}: there is no figure {figure!r}; there are {', '.join(FIGURES)}")
    number = float(found["number"]) * UNITS.get(found["unit"] or "s", 1.0)
    return Clause(text.strip(), figure, found["comparison"], number, found["entry"] or "")
