"""Admission: whom to refuse when capacity is short, and what a tenant may still spend. Pure functions of values.

Two rules, in this order.  Among tenants, those that hold more than their weighted fair share go before those that do
not: a flood of one tenant takes nothing from another.  Of what a tenant asks, the lowest priority goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from policies.policy import Budget, Policy, Share, Shed, WhenExhausted

# The level of fair shares is set for so much less than what was admitted, so that somebody always stands above it and
# is shed first.  A tenant that asks for just its share loses about this much of it; much less, and the noise of single
# requests decides who is above.
SLACK = 0.02
# What is kept of the room for tenants up to their fair share: a flood is wholly shed below it, whatever its priority,
# so that there is a place when one of the others comes (trunk reservation). They find n places full with a chance of
# about (their part of the load) ** n: six lose under 2 % even to half of the load, in a pool of any size. A small pool
# keeps no more than a quarter; large ones a twentieth, since measured load lags. As much is kept for the highest
# priorities from all lower ones: what was admitted of these runs on while a burst of those arrives.
KEPT_PLACES = 6.0
MIN_KEPT, MAX_KEPT = 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Standing:
    """What admission reads of a request's moment."""

    priority: int
    # Used share of the room of who may serve it; None: nobody may, and another error tells so.
    utilization: float | None
    # Tokens that were lately admitted for its tenant, over its fair share of all; None: tenants are not told apart.
    share: float | None = None
    # The share of the room that is kept for tenants up to their fair share, and for the highest step; see `kept_of`.
    kept: float = 0.0
    # Seconds that requests wait for their prefill, where the utilization is that of `full_wait_seconds`.
    wait_seconds: float | None = None


def shed_chance(shed: Shed, standing: Standing) -> float:
    """The chance, 0..1, with which a request is shed.

    All but the last step are met in a room that is smaller by what is kept.  Where tenants are told apart, those above
    their fair share meet all steps there, and those up to it climb the same steps again, from where all of the others'
    requests are shed.  What counts as up to the share gives way by SLACK while the room above a step fills, so that
    floods that are held at their shares leave some of it free.
    """
    used = standing.utilization
    ramp = _ramp(shed, standing.priority)
    if used is None or ramp is None:
        return 0.0
    start, end = ramp
    left = 1.0 - standing.kept
    if standing.share is None:
        left = 1.0 if end == shed.full_utilization else left
        return _within(used, left * start, left * end)
    chance = _within(used, left * start, left * end)
    if chance == 0.0:
        return 0.0
    above = over(standing.share * (1.0 + SLACK * _within(used, left * end, shed.full_utilization)))
    again = shed.full_utilization - shed.steps[0].from_utilization
    return above * chance + (1.0 - above) * _within(used - again, start, end)


def begins(shed: Shed, standing: Standing) -> float:
    """The utilization from which a request of this standing may be shed; infinite where it never is."""
    ramp = _ramp(shed, standing.priority)
    if ramp is None:
        return float("inf")
    spared = standing.share is None and ramp[1] == shed.full_utilization
    return ramp[0] if spared else ramp[0] * (1.0 - standing.kept)


def kept_of(places: float) -> float:
    """The share of a room of so many requests that is kept for tenants up to their fair share, and high priorities."""
    return min(MAX_KEPT, max(MIN_KEPT, KEPT_PLACES / max(1.0, places)))


def _ramp(shed: Shed, priority: int) -> tuple[float, float] | None:
    """The utilizations between which more and more of a priority's requests are shed; None: it never is."""
    for number, step in enumerate(shed.steps):
        if priority <= step.up_to_priority:
            last = number + 1 == len(shed.steps)
            end = shed.full_utilization if last else shed.steps[number + 1].from_utilization
            return step.from_utilization, end
    return None


def _within(value: float, start: float, end: float) -> float:
    """How far a value has come from start to end, 0..1."""
    if value <= start:
        return 0.0
    return 1.0 if value >= end else (value - start) / (end - start)


def over(share: float) -> float:
    """How far above its fair share a tenant counts as, 0..1: wholly where it takes what SLACK leaves and more."""
    return min(1.0, max(0.0, (share - 1.0) * ((1.0 - SLACK) / SLACK)))


def weight_of(shares: Sequence[Share], tenant: str) -> float:
    """A tenant's weight: of the first share that names it, else 1."""
    return next((share.weight for share in shares if named(share.tenants, tenant)), 1.0)


def fair_level(accounts: Iterable[tuple[float, float, float]]) -> float:
    """Tokens per weight that are everybody's to have, by weighted max-min fairness; infinite where nothing was asked.

    Accounts are (weight, tokens asked for, tokens admitted).  Who asks for less than weight × level has what it asks
    for, and what it leaves is the others'.
    """
    known = sorted((asked / weight, weight, asked, admitted) for weight, asked, admitted in accounts)
    room = (1.0 - SLACK) * sum(admitted for _, _, _, admitted in known)
    weights = sum(weight for _, weight, _, _ in known)
    for per_weight, weight, asked, _ in known:
        if per_weight * weights > room:
            return room / weights
        room -= asked
        weights -= weight
    return float("inf")


def named(globs: Sequence[str], tenant: str) -> bool:
    return any(fnmatchcase(tenant, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget that is spent. `period` is "day" or "month"; money in US dollars."""

    period: str
    limit: float
    spent: float
    when_exhausted: WhenExhausted


def budgets_of(policies: Iterable[Policy], tenant: str) -> tuple[Budget, ...]:
    """The budgets of some policies that name a tenant; each of them holds."""
    return tuple(budget for policy in policies for budget in policy.budgets if named(budget.tenants, tenant))


def exhausted(budgets: Iterable[Budget], spent_today: float, spent_this_month: float) -> Exhausted | None:
    """The budget that decides: the first that refuses, else the first that demotes; None where there is money left."""
    found: Exhausted | None = None
    for budget in budgets:
        # The month first: its end is further away, so that nobody is told to come back too early.
        for period, limit, spent in (
            ("month", budget.usd_per_month, spent_this_month),
            ("day", budget.usd_per_day, spent_today),
        ):
            if limit is None or spent < limit:
                continue
            if budget.when_exhausted is WhenExhausted.REFUSE:
                return Exhausted(period, limit, spent, budget.when_exhausted)
            found = found or Exhausted(period, limit, spent, budget.when_exhausted)
    return found
