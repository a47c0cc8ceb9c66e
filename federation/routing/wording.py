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
    told, load, place = expected[0], record.load, record.target
    seen = expectation(
        told.time_to_first_token,
        told.round_trip,
        record.tokens,
        told.cost,
        told.scores.total,
        waiting=float(load.pending_tokens[place]),
        cached=float(load.cached_tokens[place]),
        suspicion=float(load.suspicion[place]),
    )
    parts = [f"{why(record.plan.rule, record.by, record.near)} {target.deployment}: {seen}."]
    if others:
        parts.append(_against(record, told, expected[1], others[0]))
    parts += closing(
        record, record.told_rejections, record.considered, target.substitution_differences, panic=record.panic
    )
    return " ".join(parts)


def closing(
    record: Record, rejected: Mapping[str, int], considered: int, differences: Sequence[str], *, panic: bool
) -> list[str]:
    """What a decision tells beside its target and the next one; `differences` are those of a stand-in."""
    parts = []
    if rejected:
        parts.append(f"{sum(rejected.values())} of {considered} left out: {counts(rejected)}.")
    elif considered == 1:
        parts.append("It is the only candidate.")
    if differences:
        parts.append(f"It stands in for {record.request.model_id}: {', '.join(differences)}.")
    if panic:
        parts.append("Too few candidates are healthy, so health was set aside.")
    if record.table.stale_regions:
        parts.append(f"No probe, metrics page or heartbeat of {', '.join(record.table.stale_regions)} is fresh.")
    return parts


def why(rule_id: str, by: str, near: int) -> str:
    """How the target came to be taken; `near` is among how many that are about as good."""
    rule = f"Rule {rule_id!r} holds; " if rule_id else ""
    match by:
        case "session":
            verb = "kept the session at" if rule else "Kept the session at"
        case "trial":
            verb = "tried the recovering" if rule else "Tried the recovering"
        case _ if near > 1:
            verb = f"{'drew' if rule else 'Drew'}, of {near} about as good, the less loaded of two,"
        case _:
            verb = "chose" if rule else "Chose"
    return rule + verb


def expectation(
    first_token: float,
    round_trip: float,
    tokens: int,
    usd: float | None,
    score: float,
    *,
    waiting: float,
    cached: float,
    suspicion: float,
) -> str:
    """What is expected of the target: seconds, tokens of the prompt, waiting ahead and cached, US dollars."""
    cost = "" if usd is None else f", {usd:.2g} USD"
    queue = f", {waiting:.0f} prompt tokens ahead" if waiting >= 1 else ""
    prefix = f", {cached:.0f} of them probably cached" if cached >= 1 else ""
    late = f", answers have been coming {suspicion:.1f} times late" if suspicion >= 1.5 else ""
    return (
        f"first token expected in {seconds(first_token)} ({seconds(round_trip)} of it round trip, "
        f"{tokens} prompt tokens{prefix}{queue}{late}){cost}, score {score:.2f}"
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
    return against(choice.deployment, choice.score, name, gap, target.total - other.total)


def against(deployment: str, score: float, name: str, gap: float, apart: float) -> str:
    """The next one: its score, the term that tells it apart most and by how much, and by how much all terms do."""
    if abs(gap) < TELLING:
        alike = "just as good" if abs(apart) < 0.005 else f"as good within {abs(apart):.2f}"
        return f"Next would be {deployment}, {alike}."
    verdict = "better" if gap > 0 else "worse"
    return f"Next would be {deployment} (score {score:.2f}); the target is {verdict} on {name}."


SESSION = {"session": "kept with its session", "trial": "a half-open circuit gets a trial"}


def filtered(rejected: Mapping[str, int], panic: bool) -> str:
    """What the filters left out."""
    refused = ", ".join(f"{count} {name}" for name, count in sorted(rejected.items())) or "none"
    return f"rejected: {refused}" + ("; panic: health set aside" if panic else "")


def scored(walked: bool, swept: bool, visited: int, left: int) -> str:
    """How the scorers went about it."""
    if swept:
        return f"ranked all {left} by their load, scored the best {visited}"
    if walked:
        return f"visited {visited} of {left}, nobody further down could be as good"
    return f"scored all {left} at once"


def picked(picker: str, by: str, near: int) -> str:
    """What the picker did."""
    if by != "picker":
        return "not asked"
    return picker + (f" drew two of {near} as good as the best" if near else "")


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
