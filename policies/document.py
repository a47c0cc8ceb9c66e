"""Policies as documents: TOML, YAML and JSON have the fields of `Policy`, by the same names.

The dataclasses in `policy.py` are the only schema: reading, writing and the JSON Schema follow their fields, and
`BOUNDS` adds the ranges.  A document is refused with everything that is wrong with it, each with its path.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from enum import Enum
from itertools import pairwise
from types import MappingProxyType, NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from policies.errors import InvalidPolicy
from policies.expressions import compiled
from policies.policy import Policy, Weights
from policies.registry import BUILT_IN, Registry

INF = math.inf
# Least and most of numbers, by the field's name within its class.
BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **{f"Weights.{field.name}": (0.0, 1e6) for field in fields(Weights)},
        "Line.good": (-1e9, 1e9),
        "Line.poor": (-1e9, 1e9),
        "Policy.locality_poor_ms": (1.0, 60_000.0),
        "Policy.jurisdiction_bonus": (0.0, 10.0),
        "Policy.near_seconds": (0.0, 60.0),
        "Policy.near_ratio": (0.0, 10.0),
        "Policy.max_candidates": (1, 1_000),
        "Policy.min_score": (0.0, 1.0),
        "Policy.max_alternatives": (0, 16),
        "Policy.batch_slowdown": (0.0, 100.0),
        "Policy.panic_threshold": (0.0, 1.0),
        "Policy.session_ttl_seconds": (0.0, 604_800.0),
        "Policy.promotion_hold_seconds": (0.0, 86_400.0),
        "Policy.valid_for_seconds": (0.1, 3_600.0),
        "Policy.shadow_percent": (0.0, 100.0),
        "Policy.extra_scorers": (0.0, 1e6),
        "Bounds.max_latency_seconds": (0.0, 86_400.0),
        "Bounds.max_time_to_first_token_seconds": (0.0, 86_400.0),
        "Bounds.min_throughput_tokens_per_second": (0.0, 1e9),
        "Bounds.max_price_usd_per_million_tokens": (0.0, 1e9),
        "Assumptions.input_tokens": (1, 100_000_000),
        "Assumptions.output_tokens": (1, 100_000_000),
        "Assumptions.prefill_seconds_per_token": (0.0, 60.0),
        "Assumptions.min_time_to_first_token_seconds": (0.0, 3_600.0),
        "Assumptions.decode_tokens_per_second": (0.001, 1e6),
        "Assumptions.max_batch_size": (1, 1_000_000),
        "Assumptions.round_trip_seconds": (0.0, 60.0),
        "Assumptions.egress_bytes_per_output_token": (0.0, 1e9),
        "Assumptions.egress_price_usd_per_gb": (0.0, 1e6),
        "Match.day_minutes": (0, 1_440),
        "Match.weekdays": (0, 6),
        "Match.min_input_tokens": (0, 100_000_000),
        "Match.max_input_tokens": (0, 100_000_000),
        "Match.min_priority": (-1_000, 1_000),
        "Match.max_priority": (-1_000, 1_000),
        "Match.min_utilization": (0.0, 1_000.0),
        "Match.max_utilization": (0.0, 1_000.0),
        "Rule.weights": (0.0, 1e6),
        "Split.percent": (0.0, 100.0),
        "Budget.usd_per_day": (0.0, 1e9),
        "Budget.usd_per_month": (0.0, 1e9),
        # Not 0: a tenant that may have nothing is for a rule to refuse.
        "Share.weight": (0.001, 1e6),
        "ShedStep.up_to_priority": (-1_000, 1_000),
        "ShedStep.from_utilization": (0.0, 1_000.0),
        "Shed.full_utilization": (0.0, 1_000.0),
        "Spillover.overprovisioning": (1.0, 10.0),
        "Spillover.full_utilization": (0.01, 10.0),
        "Spillover.max_shift_per_minute": (0.001, 60.0),
        "Spillover.failback_seconds": (0.0, 86_400.0),
        "Spillover.hysteresis": (0.0, 1.0),
        "Shed.full_wait_seconds": (0.001, 3_600.0),
    }
)
# Lists of strings of which one alone may be written without the brackets.
ONE_OR_MANY = frozenset({"Spillover.region_order"})
# Named by the store, not by the document.
OUTSIDE = ("policy_id", "revision")
MAX_RULES = 256


class _Reader:
    """Turns plain values into the dataclasses, collecting what is wrong."""

    def __init__(self) -> None:
        self.violations: list[tuple[str, str]] = []

    def wrong(self, path: str, message: str) -> None:
        self.violations.append((path or "document", message))

    def table(self, kind: Any, value: Any, path: str, without: Collection[str] = ()) -> Any:
        """A dataclass from a mapping; its defaults where the mapping is silent or wrong."""
        if not isinstance(value, Mapping):
            self.wrong(path, f"must be a table, not {_named(value)}")
            return None
        hints = get_type_hints(kind)
        known = [field for field in fields(kind) if field.name not in without]
        names = [field.name for field in known]
        for key in value:
            if key not in names:
                near = get_close_matches(str(key), names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"
                self.wrong(_join(path, str(key)), f"unknown key{hint}")
        found = {}
        for field in known:
            if field.name in value:
                read = self.value(
                    hints[field.name], value[field.name], _join(path, field.name), f"{kind.__name__}.{field.name}"
                )
                if read is not None:
                    found[field.name] = read
            elif field.default is MISSING and field.default_factory is MISSING:
                self.wrong(_join(path, field.name), "is needed")
                return None
        return kind(**found) if all(f.name in found or not _needed(f) for f in known) else None

    def value(self, kind: Any, value: Any, path: str, name: str) -> Any:
        """A value of one type; None, with a violation, where it is not one."""
        origin, args = get_origin(kind), get_args(kind)
        if origin is UnionType or NoneType in args:
            return None if value is None else self.value(next(a for a in args if a is not NoneType), value, path, name)
        if is_dataclass(kind):
            return self.table(kind, value, path)
        if origin is tuple:
            return self.sequence(args, value, path, name)
        if origin is not None and issubclass(origin, Mapping):
            return self.mapping(args[1], value, path, name)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self.word(kind, value, path)
        return self.scalar(kind, value, path, name)

    def sequence(self, args: tuple[Any, ...], value: Any, path: str, name: str) -> Any:
        if name in ONE_OR_MANY and isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            # Pairs of strings (labels) may be written as a table.
            if isinstance(value, Mapping) and args[-1] is Ellipsis and get_origin(args[0]) is tuple:
                return tuple((str(key), str(item)) for key, item in value.items())
            self.wrong(path, f"must be a list, not {_named(value)}")
            return None
        if args[-1] is not Ellipsis and len(value) != len(args):
            self.wrong(path, f"must have {len(args)} items, not {len(value)}")
            return None
        if len(value) > MAX_RULES:
            self.wrong(path, f"must have at most {MAX_RULES} items, not {len(value)}")
            return None
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        items = [self.value(k, v, f"{path}[{i}]", name) for i, (k, v) in enumerate(zip(kinds, value, strict=True))]
        return None if None in items else tuple(items)

    def mapping(self, kind: Any, value: Any, path: str, name: str) -> Any:
        if not isinstance(value, Mapping):
            self.wrong(path, f"must be a table, not {_named(value)}")
            return None
        items = {str(key): self.value(kind, item, _join(path, str(key)), name) for key, item in value.items()}
        return None if None in items.values() else MappingProxyType(items)

    def word(self, kind: type[Enum], value: Any, path: str) -> Any:
        words = {member.name.lower(): member for member in kind}
        found = words.get(str(value).lower())
        if found is None:
            self.wrong(path, f"must be one of {', '.join(words)}, not {value!r}")
        return found

    def scalar(self, kind: Any, value: Any, path: str, name: str) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            self.wrong(path, f"must be {NOUNS[kind]}, not {_named(value)}")
            return None
        if kind in (int, float):
            least, most = BOUNDS.get(name, (-INF, INF))
            if not math.isfinite(value) or not least <= value <= most:
                self.wrong(path, f"must be within {least:g} and {most:g}, not {value}")
                return None
        elif kind is str and len(value) > MAX_TEXT:
            self.wrong(path, f"must have at most {MAX_TEXT} characters, not {len(value)}")
            return None
        return value


MAX_TEXT = 4_096
NOUNS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _named(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def compile_policy(
    policy_id: str,
    document: Mapping[str, Any],
    revision: int = 0,
    *,
    registry: Registry = BUILT_IN,
) -> Policy:
    """A document as a policy; `registry` has what it may name. Raises InvalidPolicy with every violation."""
    reader = _Reader()
    policy = reader.table(Policy, document, "", OUTSIDE)
    if policy is not None:
        _check(policy, reader, registry)
    if reader.violations or policy is None:
        raise InvalidPolicy(tuple(reader.violations))
    checked: Policy = replace(policy, policy_id=policy_id, revision=revision)
    return checked


def _check(policy: Policy, reader: _Reader, registry: Registry) -> None:
    """What no single field can tell."""
    if policy.weights.total <= 0:
        reader.wrong("weights", "must not all be 0: nothing would be preferred")
    for name, line, rising in (
        ("latency", policy.latency, False),
        ("throughput", policy.throughput, True),
        ("cost", policy.cost, False),
    ):
        if line.good == line.poor or (line.good > line.poor) is not rising:
            order = "above" if rising else "below"
            reader.wrong(name, f"good must be {order} poor, not {line.good:g} and {line.poor:g}")
    chosen = {"picker": policy.picker} | {
        f"rules[{i}].picker": r.picker for i, r in enumerate(policy.rules) if r.picker
    }
    for path, picker in chosen.items():
        if picker not in registry.pickers:
            reader.wrong(path, f"must be one of {', '.join(sorted(registry.pickers))}, not {picker!r}")
    for path, chosen_names, menu in (
        ("extra_scorers", tuple(policy.extra_scorers), registry.scorers.keys() - BUILT_IN.scorers.keys()),
        ("extra_filters", policy.extra_filters, registry.filters.keys()),
    ):
        for name in chosen_names:
            if name not in menu:
                known = ", ".join(sorted(menu)) or "none is installed"
                reader.wrong(f"{path}.{name}", f"is no plug-in of this server; there are: {known}")
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        path = f"rules[{number}]"
        if not rule.name or rule.name in seen:
            reader.wrong(f"{path}.name", f"must be set and be the only one of its name, not {rule.name!r}")
        seen.add(rule.name)
        names = {field.name for field in fields(Weights)}
        for weight in rule.weights:
            if weight not in names:
                reader.wrong(f"{path}.weights.{weight}", f"unknown key; known are {', '.join(sorted(names))}")
        if names.issuperset(rule.weights) and replace(policy.weights, **rule.weights).total <= 0:
            reader.wrong(f"{path}.weights", "must not leave all weights 0: nothing would be preferred")
        if rule.match.expression:
            try:
                compiled(rule.match.expression)
            except ValueError as error:
                reader.wrong(f"{path}.match.expression", str(error))
        if sum(part.percent for part in rule.split) > 100.0 + 1e-9:
            reader.wrong(f"{path}.split", "the percentages add up to more than 100")
    _check_tenants(policy, reader)
    if policy.spillover is not None:
        tiers = policy.spillover.region_order
        if not tiers:
            reader.wrong("spillover.region_order", 'must name a tier, as "home_first"; leave `spillover` out for none')
        for number, glob in enumerate(tiers):
            if not glob or glob in tiers[:number]:
                reader.wrong(f"spillover.region_order[{number}]", f"must be set and stand there once, not {glob!r}")


def _check_tenants(policy: Policy, reader: _Reader) -> None:
    """Budgets, shares and shedding."""
    for number, budget in enumerate(policy.budgets):
        if not budget.tenants:
            reader.wrong(f"budgets[{number}].tenants", 'must name a tenant, or all by "*"')
        if budget.usd_per_day is None and budget.usd_per_month is None:
            reader.wrong(f"budgets[{number}]", "needs usd_per_day or usd_per_month, or both")
    for number, share in enumerate(policy.shares):
        if not share.tenants:
            reader.wrong(f"shares[{number}].tenants", 'must name a tenant, or all by "*"')
    if policy.shed is None:
        return
    steps = policy.shed.steps
    if not steps:
        reader.wrong("shed.steps", "must hold a step; leave `shed` out to shed nothing")
    for number, (one, two) in enumerate(pairwise(steps), 1):
        if two.up_to_priority <= one.up_to_priority or two.from_utilization <= one.from_utilization:
            reader.wrong(
                f"shed.steps[{number}]",
                "must have a higher up_to_priority and a higher from_utilization than the step before it",
            )
    if steps and policy.shed.full_utilization <= steps[-1].from_utilization:
        reader.wrong(
            "shed.full_utilization",
            f"must be above the last step's from_utilization {steps[-1].from_utilization:g},"
            f" not {policy.shed.full_utilization:g}",
        )


def to_document(policy: Policy) -> dict[str, Any]:
    """A policy as plain values: what differs from the defaults, so that `compile_policy` gives the same policy."""
    return {name: value for name, value in _plain_table(policy).items() if name not in OUTSIDE}


def _plain_table(value: Any) -> dict[str, Any]:
    found = {}
    for field in fields(value):
        item = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if item != default:
            found[field.name] = _plain(item)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_table(value)
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def json_schema() -> dict[str, Any]:
    """The documents' JSON Schema (2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Fairway policy",
        **_schema_table(Policy, OUTSIDE),
    }


def _schema_table(kind: Any, without: Collection[str] = ()) -> dict[str, Any]:
    hints = get_type_hints(kind)
    known = [field for field in fields(kind) if field.name not in without]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {f.name: _schema(hints[f.name], f"{kind.__name__}.{f.name}") for f in known},
        **({"required": needed} if (needed := [f.name for f in known if _needed(f)]) else {}),
    }


def _schema(kind: Any, name: str) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if NoneType in args:
        return _schema(next(a for a in args if a is not NoneType), name)
    if is_dataclass(kind):
        return _schema_table(kind)
    if origin is tuple:
        fewest, most_items = (0, MAX_RULES) if args[-1] is Ellipsis else (len(args), len(args))
        items = {"type": "array", "items": _schema(args[0], name), "minItems": fewest, "maxItems": most_items}
        if get_origin(args[0]) is tuple:
            return {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, items]}
        if name in ONE_OR_MANY:
            return {"anyOf": [{"type": "string"}, items]}
        return items
    if origin is not None:
        return {"type": "object", "additionalProperties": _schema(args[1], name)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.name.lower() for member in kind]}
    if kind in (int, float):
        least, most = BOUNDS.get(name, (-INF, INF))
        limits = {key: value for key, value in (("minimum", least), ("maximum", most)) if math.isfinite(value)}
        return {"type": "integer" if kind is int else "number", **limits}
    return {"type": "string" if kind is str else "boolean"}
