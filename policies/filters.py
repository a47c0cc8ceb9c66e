"""Filters: whom a request refuses, and why. Hard rules: they bind targets, alternatives, leases and exports alike.

A filter answers the mask of candidates that it refuses.  What is unknown is refused.  Order matters only for the
reason that is told: the first filter that refuses names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from policies.policy import Bounds, Narrow
from policies.pool import BoolArray, Load, Place, Pool
from policies.prediction import Ask, Prediction
from policies.types import Code, Rejection, RouteRequest

Filter = Callable[[Ask, Pool], BoolArray]
MovingFilter = Callable[[Ask, Pool, Load, Prediction], BoolArray]


def none(pool: Pool) -> BoolArray:
    """Refuses nobody."""
    return np.zeros(len(pool), dtype=np.bool_)


def by_place(pool: Pool, refused: Callable[[Place], bool]) -> BoolArray:
    """Refuses by region: one answer a region, spread over its candidates."""
    return np.array([refused(place) for place in pool.places], dtype=np.bool_)[pool.place]


def model_mismatch(ask: Ask, pool: Pool) -> BoolArray:
    """Another model than asked for, unless substitutes are allowed and declared equivalent."""
    if ask.model is None:
        return none(pool)
    asked = ask.model
    wrong = [
        not (
            model.model_id == asked.model_id
            or (
                ask.request.allow_substitutes
                and asked.equivalence_class != ""
                and model.equivalence_class == asked.equivalence_class
            )
        )
        for model in pool.models
    ]
    return np.array(wrong, dtype=np.bool_)[pool.model]


def capability_missing(ask: Ask, pool: Pool) -> BoolArray:
    refused = none(pool)
    if ask.request.capability:
        refused |= ~pool.has(pool.facts.capabilities, ask.request.capability)
    if ask.request.adapter:
        refused |= ~pool.has(pool.facts.adapters, ask.request.adapter)
    return refused


def tenant(ask: Ask, pool: Pool) -> BoolArray:
    if not ask.request.tenant_id:
        return pool.private
    return pool.private & ~pool.has(pool.facts.tenants, ask.request.tenant_id)


def privacy(ask: Ask, pool: Pool) -> BoolArray:
    return pool.privacy < required_privacy(ask)


def required_privacy(ask: Ask) -> int:
    floor = ask.policy.bounds.min_privacy_level
    asked = int(ask.request.privacy_level)
    return asked if floor is None else max(asked, int(floor))


def jurisdiction(ask: Ask, pool: Pool) -> BoolArray:
    """A region outside any list that is set; one of unknown law is outside all of them."""
    lists = allowed_jurisdictions(ask, pool)
    if not lists:
        return none(pool)
    return by_place(pool, lambda place: any(place.jurisdictions.isdisjoint(allowed) for allowed in lists))


def allowed_jurisdictions(ask: Ask, pool: Pool) -> list[frozenset[str]]:
    """The lists that each have to be met; one that is empty, since the origin's law is unknown, is met by nobody."""
    bounds = ask.policy.bounds
    lists = [frozenset(allowed) for allowed in (ask.request.jurisdictions, bounds.jurisdictions) if allowed]
    if bounds.home_jurisdiction:
        lists.append(pool.places[ask.origin].jurisdictions if ask.origin >= 0 else frozenset())
    return lists


def region_excluded(ask: Ask, pool: Pool) -> BoolArray:
    only, without, stays = ask.request.only_regions, ask.request.exclude_regions, ask.request.forwarded
    if not only and not without and not stays:
        return none(pool)
    return by_place(
        pool,
        lambda p: p.region_id in without or (bool(only) and p.region_id not in only) or (stays and p.imported),
    )


def node_excluded(ask: Ask, pool: Pool) -> BoolArray:
    if not ask.request.exclude_nodes:
        return none(pool)
    prefixes = tuple(f"{node}/" for node in ask.request.exclude_nodes)
    return np.array([pool.names[row].startswith(prefixes) for row in pool.row], dtype=np.bool_)


def labels(ask: Ask, pool: Pool) -> BoolArray:
    return lacks_labels(pool, ask.request.node_labels)


def lacks_labels(pool: Pool, wanted: Iterable[tuple[str, str]]) -> BoolArray:
    refused = none(pool)
    for label in wanted:
        refused |= ~pool.has(pool.facts.labels, label)
    return refused


def context_too_long(ask: Ask, pool: Pool) -> BoolArray:
    """Prompt and answer over the model's window, as far as the request says them; an undeclared window has no bound."""
    request = ask.request
    if request.input_tokens is None and request.max_output_tokens is None:
        return none(pool)
    # NaN compares as false: no declared window, no bound.
    return (request.input_tokens or 0) + (request.max_output_tokens or 0) > pool.context_window


def narrowed(pool: Pool, narrow: Narrow) -> BoolArray:
    """Whom a rule's narrowing leaves out."""
    refused = lacks_labels(pool, narrow.node_labels)
    if narrow.regions or narrow.exclude_regions:
        refused |= by_place(
            pool,
            lambda place: (
                any(fnmatchcase(place.region_id, glob) for glob in narrow.exclude_regions)
                or (bool(narrow.regions) and not any(fnmatchcase(place.region_id, glob) for glob in narrow.regions))
            ),
        )
    if narrow.engines:
        refused |= ~np.logical_or.reduce([pool.has(pool.facts.engines, engine) for engine in narrow.engines])
    if narrow.accelerators:
        wanted = [
            pool.has(pool.facts.accelerators, kind)
            for kind in pool.facts.accelerators
            if any(fnmatchcase(kind, glob) for glob in narrow.accelerators)
        ]
        refused |= ~np.logical_or.reduce(wanted) if wanted else True
    return refused


# What a request and the table alone decide, in the order in which reasons are told.
STATIC: tuple[tuple[Code, Filter], ...] = (
    (Code.MODEL_MISMATCH, model_mismatch),
    (Code.TENANT, tenant),
    (Code.CAPABILITY_MISSING, capability_missing),
    (Code.PRIVACY, privacy),
    (Code.JURISDICTION, jurisdiction),
    (Code.REGION_EXCLUDED, region_excluded),
    (Code.NODE_EXCLUDED, node_excluded),
    (Code.LABELS, labels),
    (Code.CONTEXT_TOO_LONG, context_too_long),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that hold for a request: its own or the policy's, whichever is tighter; infinite where none is set."""

    latency: float
    first_token: float
    throughput: float
    price: float

    @property
    def any(self) -> bool:
        return self != UNBOUNDED


UNBOUNDED = Limits(float("inf"), float("inf"), 0.0, float("inf"))


def limits(request: RouteRequest, bounds: Bounds) -> Limits:
    def least(*values: float | None) -> float:
        return min((value for value in values if value is not None), default=float("inf"))

    return Limits(
        least(request.max_latency_seconds, bounds.max_latency_seconds),
        least(request.max_time_to_first_token_seconds, bounds.max_time_to_first_token_seconds),
        max(request.min_throughput_tokens_per_second or 0.0, bounds.min_throughput_tokens_per_second or 0.0),
        least(request.max_price_usd_per_million_tokens, bounds.max_price_usd_per_million_tokens),
    )


def price_per_million(ask: Ask, seen: Prediction) -> np.ndarray:
    """US dollars per million tokens, input and output blended as this request has them."""
    return seen.token_cost * (1e6 / max(1, ask.input_tokens + ask.output_tokens))


def bounded(ask: Ask, pool: Pool, seen: Prediction, limit: Limits) -> list[tuple[Code, BoolArray]]:
    """Whom the request's bounds refuse. A figure that nobody declared or measured does not meet a bound."""
    speed_unknown = np.isnan(pool.prefill) | np.isnan(pool.least)
    refused: list[tuple[Code, BoolArray]] = []
    if limit.price < float("inf"):
        refused.append((Code.PRICE_BOUND, ~(price_per_million(ask, seen) <= limit.price)))
    if limit.throughput > 0.0:
        refused.append((Code.THROUGHPUT_BOUND, np.isnan(pool.decode) | ~(seen.throughput >= limit.throughput)))
    if limit.first_token < float("inf"):
        refused.append((Code.TTFT_BOUND, speed_unknown | ~(seen.time_to_first_token <= limit.first_token)))
    if limit.latency < float("inf"):
        unknown = speed_unknown | np.isnan(pool.decode)
        refused.append((Code.LATENCY_BOUND, unknown | ~(seen.latency <= limit.latency)))
    return refused


def at_capacity(pool: Pool, load: Load) -> BoolArray:
    return load.in_flight >= pool.limit


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 10 else f"{value:.1f} s"


MESSAGES: dict[Code, str] = {
    Code.NOT_READY: "no probe has passed yet, or the engine does not list the model",
    Code.LEASE_EXPIRED: "its node's lease ended without a heartbeat",
    Code.DRAINING: "it is being drained",
    Code.UNHEALTHY: "its probes fail",
    Code.CIRCUIT_OPEN: "its circuit is open",
    Code.EJECTED: "it is ejected for a time",
    Code.AT_CAPACITY: "as many requests run or wait there as may",
    Code.MODEL_MISMATCH: "it serves another model",
    Code.CAPABILITY_MISSING: "it lacks the capability or adapter",
    Code.CONTEXT_TOO_LONG: "prompt and answer do not fit its context window",
    Code.PRIVACY: "its node may not serve prompts this sensitive",
    Code.JURISDICTION: "its region is not known to be in an allowed jurisdiction",
    Code.TENANT: "it is private to other tenants",
    Code.REGION_EXCLUDED: "the request excludes its region",
    Code.NODE_EXCLUDED: "the request excludes its node",
    Code.LABELS: "its node lacks a label",
    Code.LATENCY_BOUND: "predicted time to the last token is over the bound, or unknown",
    Code.TTFT_BOUND: "predicted time to the first token is over the bound, or unknown",
    Code.THROUGHPUT_BOUND: "expected speed is under the bound, or unknown",
    Code.PRICE_BOUND: "its price is over the bound, or unknown",
    Code.BELOW_MIN_SCORE: "its score is under the policy's least",
    Code.PEER_LEASE_EXPIRED: "its peer has not been heard for the length of a lease",
    Code.RULE: "a rule of the policy leaves it out",
}


def explain(code: Code, ask: Ask, pool: Pool, load: Load, seen: Prediction, standing: float, place: int) -> Rejection:
    """A refusal in words, with what was asked and what was found at one place of the pool.

    `standing` is what the least score judged.
    """
    request, limit = ask.request, limits(ask.request, ask.policy.bounds)
    region = pool.places[pool.place[place]]
    bound = actual = ""
    match code:
        case Code.MODEL_MISMATCH:
            bound, actual = request.model_id, pool.models[pool.model[place]].model_id
        case Code.CAPABILITY_MISSING:
            bound = " and ".join(filter(None, (request.capability, request.adapter)))
        case Code.PRIVACY:
            bound, actual = f">= level {required_privacy(ask)}", f"level {int(pool.privacy[place])}"
        case Code.JURISDICTION:
            lists = [", ".join(sorted(allowed)) for allowed in allowed_jurisdictions(ask, pool)]
            bound = " and ".join(f"one of {names}" if names else "the origin's, which is unknown" for names in lists)
            actual = ", ".join(sorted(region.jurisdictions))
        case Code.REGION_EXCLUDED:
            excluded = region.region_id in request.exclude_regions
            bound = f"not {region.region_id}" if excluded else f"one of {', '.join(request.only_regions)}"
            if request.forwarded and region.imported:
                bound = "an own region: it was passed on once"
            actual = region.region_id
        case Code.NODE_EXCLUDED:
            name = pool.names[pool.row[place]]
            actual = next((node for node in request.exclude_nodes if name.startswith(f"{node}/")), "")
            bound = f"not {actual}"
        case Code.LABELS:
            bound = ", ".join(f"{key}={value}" for key, value in request.node_labels)
        case Code.CONTEXT_TOO_LONG:
            bound = f"<= {pool.context_window[place]:.0f} tokens"
            actual = f"{(request.input_tokens or 0) + (request.max_output_tokens or 0)} tokens"
        case Code.AT_CAPACITY if load.in_flight[place] < pool.limit[place]:
            bound, actual = f"score >= {ask.policy.min_score:g} under its load", f"{standing:.3f}"
        case Code.AT_CAPACITY:
            bound, actual = f"< {pool.limit[place]:.0f} requests", f"{load.in_flight[place]:.0f} requests"
        case Code.PRICE_BOUND:
            price = price_per_million(ask, seen)[place]
            bound = f"<= {limit.price:g} USD per million tokens"
            actual = "" if np.isnan(price) else f"{price:.4g} USD per million tokens"
        case Code.THROUGHPUT_BOUND:
            bound = f">= {limit.throughput:g} tokens/s"
            actual = "" if np.isnan(pool.decode[place]) else f"{seen.throughput[place]:.4g} tokens/s"
        case Code.TTFT_BOUND | Code.LATENCY_BOUND:
            first = code is Code.TTFT_BOUND
            bound = f"<= {seconds(limit.first_token if first else limit.latency)}"
            unknown = np.isnan(pool.prefill[place]) or np.isnan(pool.least[place])
            unknown = unknown or (not first and np.isnan(pool.decode[place]))
            value = seen.time_to_first_token[place] if first else seen.latency[place]
            actual = "" if unknown else seconds(float(value))
        case Code.BELOW_MIN_SCORE:
            bound, actual = f">= {ask.policy.min_score:g}", f"{standing:.3f}"
        case _:
            pass
    return Rejection(code, MESSAGES[code], bound, actual)
