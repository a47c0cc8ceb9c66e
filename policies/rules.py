"""Rules: the first that matches a request changes how this one request is decided.

A rule narrows the candidates, changes weights or picker, rewrites the model, splits by percentage, or refuses.
What it did shows up in the decision under the rule's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from policies import chance
from policies.expressions import holds
from policies.policy import Match, Narrow, Policy, Rule
from policies.types import RouteRequest

MINUTES_A_DAY = 1440
# 1 January 1970 was a Thursday.
EPOCH_WEEKDAY = 3


@dataclass(frozen=True, slots=True)
class Effect:
    """What is left of a policy and a request after rules: both with the rule's changes in them."""

    policy: Policy
    request: RouteRequest
    rule: str = ""
    narrow: tuple[Narrow, ...] = ()
    # Which part of a split was drawn; -1: no split.
    part: int = -1
    refusal: str = ""


def apply(
    policy: Policy, request: RouteRequest, *, unix_time: float, utilization: float | None, seed: int = 0
) -> Effect:
    """The effect of the first matching rule; none of them: the policy and the request as they are.

    Another model answers only where the request allows substitutes, and then that one alone; whether it is declared
    equivalent is for the caller to check, who knows the models.
    """
    rule = first_match(policy.rules, request, unix_time, utilization)
    if rule is None:
        return Effect(policy, request)
    weights = replace(policy.weights, **rule.weights) if rule.weights else policy.weights
    changed = replace(policy, weights=weights, picker=rule.picker or policy.picker)
    if rule.shadow_policy:
        changed = replace(changed, shadow_policy=rule.shadow_policy, shadow_percent=100.0)
    narrow = (rule.narrow,) if rule.narrow is not None else ()
    model, part = rule.rewrite_model, -1
    if rule.split:
        part = draw_part(rule, request, seed)
        if part >= 0:
            narrow = (*narrow, rule.split[part].narrow)
            model = rule.split[part].model_id or model
    if model and request.model_id and request.allow_substitutes:
        request = replace(request, model_id=model, allow_substitutes=False)
    return Effect(changed, request, rule.name, narrow, part, rule.refuse)


def first_match(
    rules: Sequence[Rule], request: RouteRequest, unix_time: float, utilization: float | None
) -> Rule | None:
    return next((rule for rule in rules if matches(rule.match, request, unix_time, utilization)), None)


def matches(match: Match, request: RouteRequest, unix_time: float, utilization: float | None) -> bool:
    """Whether all that is set holds. Tokens or utilization that are unknown meet no bound on them."""
    return (
        _one_of(match.models, request.model_id)
        and (not match.capabilities or request.capability in match.capabilities)
        and _one_of(match.tenants, request.tenant_id)
        and _one_of(match.origins, request.origin_region)
        and all(request.labels.get(key) == value for key, value in match.labels.items())
        and _within(request.input_tokens, match.min_input_tokens, match.max_input_tokens)
        and _within(request.priority, match.min_priority, match.max_priority)
        and _within(utilization, match.min_utilization, match.max_utilization)
        and _in_time(match, unix_time)
        and (not match.expression or holds(match.expression, request, unix_time, utilization))
    )


def _one_of(globs: tuple[str, ...], value: str) -> bool:
    return not globs or any(fnmatchcase(value, glob) for glob in globs)


def _within(value: float | None, least: float | None, most: float | None) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _in_time(match: Match, unix_time: float) -> bool:
    minutes = int(unix_time // 60)
    if match.weekdays and (minutes // MINUTES_A_DAY + EPOCH_WEEKDAY) % 7 not in match.weekdays:
        return False
    if match.day_minutes is None:
        return True
    start, end = match.day_minutes
    minute = minutes % MINUTES_A_DAY
    return start <= minute < end if start <= end else minute >= start or minute < end


def draw_part(rule: Rule, request: RouteRequest, seed: int) -> int:
    """Which part of a split a request falls into: by session, else by id, so that repeats agree; else by chance."""
    key = request.session_id or request.request_id or f"{seed:x}"
    point = chance.hash_text(f"{rule.name}\0{key}") / 2**64 * 100.0
    for number, part in enumerate(rule.split):
        point -= part.percent
        if point < 0:
            return number
    return -1
