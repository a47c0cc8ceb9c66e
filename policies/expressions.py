"""Expressions for what a rule's tables cannot say, in the Common Expression Language.

An expression sees `request` (the fields of a route request, never a prompt), `now` (hour, minute, weekday, unix, in
UTC) and `fleet` (utilization).  It is compiled once, and bounded when it is stored: in length, in the functions that
it may call, and in that it can only walk over what a request holds.  One that fails on a request, for instance because
a label is missing, does not hold for it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cel

from policies.types import RouteRequest

# A screen of text; what is longer belongs into several rules.
MAX_LENGTH = 1_000
VARIABLES = frozenset({"request", "now", "fleet"})
# Regular expressions are left out: their cost is not bounded by the text's length. So are clocks and conversions that
# could fail differently between versions.
FUNCTIONS = frozenset(
    {"size", "startsWith", "endsWith", "contains", "int", "uint", "double", "string", "has", "in", "@in"}
)
REQUEST_FIELDS = (
    "model_id",
    "capability",
    "adapter",
    "origin_region",
    "origin_zone",
    "tenant_id",
    "session_id",
    "priority",
    "prefer_gpu",
    "cost_tolerance",
    "input_tokens",
    "max_output_tokens",
    "allow_substitutes",
    "policy_id",
)


@lru_cache(maxsize=1024)
def compiled(text: str) -> cel.Program:
    """An expression as a program. ValueError says what is wrong with it and what is allowed."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"must have at most {MAX_LENGTH} characters, not {len(text)}; split it into several rules")
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise ValueError(f"is not an expression: {' '.join(str(error).split())[:200]}") from None
    named = {name for name in program.functions() if name[0].isalpha() or name == "@in"}
    for name in sorted(named - FUNCTIONS):
        raise ValueError(f"calls {name}(), which is not allowed; allowed are {', '.join(sorted(FUNCTIONS - {'@in'}))}")
    for macro in (".exists(", ".exists_one(", ".all(", ".map(", ".filter("):
        if macro in text.replace(" ", ""):
            raise ValueError(f"uses {macro[1:-1]}(), which is not allowed: an expression must not loop")
    for name in sorted(set(program.variables()) - VARIABLES):
        raise ValueError(f"reads {name!r}, which does not exist; there are {', '.join(sorted(VARIABLES))}")
    return program


def holds(text: str, request: RouteRequest, unix_time: float, utilization: float | None) -> bool:
    """Whether an expression is true of a request; one that cannot be computed for it is not."""
    try:
        return compiled(text).execute(_variables(request, unix_time, utilization)) is True
    except (KeyError, TypeError, ValueError, RuntimeError):
        return False


def _variables(request: RouteRequest, unix_time: float, utilization: float | None) -> dict[str, Any]:
    minutes = int(unix_time // 60)
    told = {name: value for name in REQUEST_FIELDS if (value := getattr(request, name)) is not None}
    return {
        "request": {**told, "labels": dict(request.labels), "privacy_level": request.privacy_level.name.lower()},
        "now": {
            "hour": minutes // 60 % 24,
            "minute": minutes % 60,
            "weekday": (minutes // 1440 + 3) % 7,
            "unix": int(unix_time),
        },
        "fleet": {} if utilization is None else {"utilization": utilization},
    }
