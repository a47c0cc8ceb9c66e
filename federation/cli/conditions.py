"""Conditions on a preview, as `--fail-if` takes them: `cost > +5% or violations > 0`.

condition := clause { ("or" | "and") clause }        "and" binds more tightly
clause    := figure (">" | ">=" | "<" | "<=") value
figure    := cost latency moved refused violations
value     := ("+" | "-") number "%"                  against what it was before
           | number [ "%" | "ms" | "s" | "USD" ]     as it is after
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping

FIGURES = ("cost", "latency", "moved", "refused", "violations")
COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
CLAUSE = re.compile(
    r"\s*(?P<figure>[a-z]+)\s*(?P<comparison>>=|<=|>|<)\s*"
    r"(?P<sign>[+-])?(?P<number>[0-9]*\.?[0-9]+)\s*(?P<unit>%|ms|s|USD)?\s*$"
)
UNITS = {"%": 0.01, "ms": 0.001, "s": 1.0, "USD": 1.0, None: 1.0}


def failing(condition: str, figures: Mapping[str, tuple[float, float]]) -> str:
    """The first part of a condition that holds of figures (before, after); "" where none does.

    ValueError for what is no condition, wherever in it.  A rise against nothing, such as a cost that was 0 before, is
    taken to be without bound.
    """
    groups = re.split(r"\bor\b", condition)
    held = [[_holds(clause, figures) for clause in re.split(r"\band\b", group)] for group in groups]
    return next((group.strip() for group, holds in zip(groups, held, strict=True) if all(holds)), "")


def _holds(clause: str, figures: Mapping[str, tuple[float, float]]) -> bool:
    found = CLAUSE.match(clause)
    if found is None:
        raise ValueError(f"{clause.strip()!r} is no condition; write one as in 'cost > +5%' or 'violations > 0'")
    name = found["figure"]
    if name not in FIGURES:
        raise ValueError(f"there is no figure {name!r} in {clause.strip()!r}; there are {', '.join(FIGURES)}")
    before, after = figures[name]
    value = float(found["number"]) * UNITS[found["unit"]]
    if found["sign"]:
        if found["unit"] != "%":
            raise ValueError(f"{clause.strip()!r} has a sign but no %; a change is told in per cent, as in '+5%'")
        value = value if found["sign"] == "+" else -value
        after = (after - before) / before if before else (float("inf") if after > before else 0.0)
    holds: bool = COMPARISONS[found["comparison"]](after, value)
    return holds
