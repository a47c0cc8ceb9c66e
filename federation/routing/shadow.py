"""Shadows: what another policy would have decided, beside the decision that is made.

A policy names its shadow and a share of requests; a rule may name one for those that it matches.  The shadow decides
the same request from the same table, load and seed, and claims nothing.  What it would have done differently is
counted, and told with the decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from federation.routing.decisions import Record, Shadowed
from policies import chance
from policies.errors import NoCandidate
from policies.types import RouteRequest

# Which of a seed's draws decides whether a request is in the sample; the pickers use the first few.
SAMPLE_DRAW = 1_000


@dataclass(slots=True)
class ShadowStats:
    """Sums over shadow decisions of one pair of policies."""

    decisions: int = 0
    elsewhere: int = 0
    refused: int = 0
    # Of those that both placed: seconds to the first token and US dollars, of the shadow less of the live one.
    placed: int = 0
    first_token_seconds: float = 0.0
    priced: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True)
class Shadows:
    """Decides beside, and counts by (live policy, shadow)."""

    stats: dict[tuple[str, str], ShadowStats] = field(default_factory=dict)
    # Shadows that policies name and that do not exist; counted, so that a typing error shows.
    unknown: Counter[str] = field(default_factory=Counter)

    def beside(self, record: Record, decide: Callable[[RouteRequest], Record]) -> Shadowed | None:
        """What the record's shadow would have done; None where it has none, or is not in the sample."""
        policy = record.plan.policy
        name, percent = policy.shadow_policy, policy.shadow_percent
        if not name or chance.uniform(record.seed, SAMPLE_DRAW) * 100.0 >= percent:
            return None
        live = policy.policy_id
        try:
            other = decide(replace(record.request, policy_id=name))
        except NoCandidate as error:
            if error.reason == "POLICY_UNKNOWN":
                self.unknown[name] += 1
                return None
            return self._count(live, Shadowed(name, "", error.reason, None, None))
        ours, theirs = record.figures(record.target), other.figures(other.target)
        cost = None if ours.cost is None or theirs.cost is None else theirs.cost - ours.cost
        later = theirs.time_to_first_token - ours.time_to_first_token
        return self._count(live, Shadowed(name, other.names()[0], "", later, cost), record.names()[0])

    def _count(self, live: str, found: Shadowed, target: str = "") -> Shadowed:
        stats = self.stats.setdefault((live, found.policy_id), ShadowStats())
        stats.decisions += 1
        if found.reason:
            stats.refused += 1
            return found
        stats.elsewhere += found.deployment != target
        if found.later_seconds is not None:
            stats.placed += 1
            stats.first_token_seconds += found.later_seconds
        if found.dearer_usd is not None:
            stats.priced += 1
            stats.cost_usd += found.dearer_usd
        return found
