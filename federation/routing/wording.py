"""Decisions in English: a sentence or two for people, true of the values that the decision read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from federation.routing.figures import Figures
from policies.filters import seconds
from policies.types import Choice

if TYPE_CHECKING:
    from federation.routing.decisions import Record, Shadowed

# Terms are worth telling when they decide at least so much of the composite.
TELLING = 0.01


def reasoning(record: Record, expected: Sequence[Figures], target: Choice, others: tuple[Choice, ...]) -> str:
    """Why the target, what it beat, and who was left out; `expected` has the figures of target and alternatives."""
    parts = [f"{_why(record)} {target.deployment}: {_expectation(record, expected[0])}."]
    if others:
        parts.append(_against(record, expected[0], expected[1], others[0]))
    rejected = record.told_rejections
    if rejected:
        parts.append(f"{sum(rejected.values())} of {record.considered} left out: {counts(rejected)}.")
    elif record.considered == 1:
        parts.append("It is the only candidate.")
    if target.substitution_differences:
        parts.append(f"It stands in for {record.request.model_id}: {', '.join(target.substitution_differences)}.")
    if record.panic:
        parts.append("Too few candidates are healthy, so health was set aside.")
    if record.table.stale_regions:
        parts.append(f"Nothing fresh is known of {', '.join(record.table.stale_regions)}.")
    return " ".join(parts)


def _why(record: Record) -> str:
    rule = f"Rule {record.plan.rule!r} holds; " if record.plan.rule else ""
    match record.by:
        case "session":
            verb = "kept the session at" if rule else "Kept the session at"
        case "trial":
            verb = "tried the recovering" if rule else "Tried the recovering"
        case _ if record.near > 1:
            verb = f"{'drew' if rule else 'Drew'}, of {record.near} about as good, the less loaded of two,"
        case _:
            verb = "chose" if rule else "Chose"
    return rule + verb


def _expectation(record: Record, told: Figures) -> str:
    load, place = record.load, record.target
    cost = "" if told.cost is None else f", {told.cost:.2g} USD"
    waiting = float(load.pending_tokens[place])
    queue = f", {waiting:.0f} prompt tokens ahead" if waiting >= 1 else ""
    cached = float(load.cached_tokens[place])
    prefix = f", {cached:.0f} of them probably cached" if cached >= 1 else ""
    late = float(load.suspicion[place])
    suspicion = f", answers have been coming {late:.1f} times late" if late >= 1.5 else ""
    return (
        f"first token expected in {seconds(told.time_to_first_token)} ({seconds(told.round_trip)} of it round trip, "
        f"{record.tokens} prompt tokens{prefix}{queue}{suspicion}){cost}, score {told.scores.total:.2f}"
    )


def _against(record: Record, target: Figures, other: Figures, choice: Choice) -> str:
    """The next one, and the term that tells them apart most."""
    weights = record.plan.ranking.weights
    total = record.plan.ranking.weight_sum or 1.0
    gaps = {
        name: weights[name] * (target.points[name] - other.points[name]) / total
        for name in target.points
        if name in weights
    }
    name, gap = max(gaps.items(), key=lambda item: abs(item[1]), default=("", 0.0))
    if abs(gap) < TELLING:
        return f"Next would be {choice.deployment}, as good within {abs(target.total - other.total):.2f}."
    verdict = "better" if gap > 0 else "worse"
    return f"Next would be {choice.deployment} (score {choice.score:.2f}); the target is {verdict} on {name}."


def shadow(record: Record, found: Shadowed) -> str:
    """What the shadow policy would have done, against what was done."""
    if found.reason:
        return f"{found.policy_id} would have refused it: {found.reason}"
    if found.deployment == record.names()[0]:
        return f"{found.policy_id} would have chosen the same"
    later = "" if found.later_seconds is None else f", first token {found.later_seconds * 1000:+.0f} ms"
    dearer = "" if found.dearer_usd is None else f", {found.dearer_usd:+.2g} USD"
    return f"{found.policy_id} would have chosen {found.deployment}{later}{dearer}"


def counts(rejected: Mapping[str, int]) -> str:
    """Rejections by code, most first: `2 PRIVACY, 1 CIRCUIT_OPEN`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(rejected.items(), key=lambda x: (-x[1], x[0])))


REASONS = {
    "NO_CAPACITY": "no deployment of {subject} has room",
    "ALL_NODES_UNHEALTHY": "every deployment of {subject} that may serve this is unhealthy, open, expired or not ready",
    "QOS_VIOLATION": "no deployment of {subject} meets the request's bounds and placement",
    "PRIVACY_VIOLATION": "no deployment of {subject} may serve a prompt of this privacy level and jurisdiction",
}
ADVICE = {
    "NO_CAPACITY": "register or undrain nodes, raise max_concurrency, or retry",
    "ALL_NODES_UNHEALTHY": "look at `fairway health` and `fairway circuits list`, or retry",
    "QOS_VIOLATION": "`fairway candidates` with the same request shows each bound and what was found",
    "PRIVACY_VIOLATION": "`fairway candidates` with the same request shows each node's level and jurisdiction",
}


def nothing(reason: str, subject: str, rejected: Mapping[str, int]) -> str:
    """Why nobody may serve a request, and what to do."""
    told = f" ({counts(rejected)})" if rejected else ""
    return f"{REASONS[reason].format(subject=subject)}{told}; {ADVICE[reason]}"
