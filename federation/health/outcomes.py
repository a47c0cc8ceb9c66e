"""What an attempt teaches about a deployment: its latency, its pace, its speed, and what its circuit should hear."""

from __future__ import annotations

import math

from federation.config import CircuitSettings, HealthSettings
from federation.health.figures import freshest
from federation.health.grading import counted
from federation.health.records import DeploymentRecord
from policies.circuit import Closed, Event
from policies.types import Outcome, Result

# What a request takes where no profile says it: the line that paces are measured against. Only ratios between
# deployments count, so it need not be right, just of the right shape: long prompts take longer.
REFERENCE_SECONDS = 0.05
REFERENCE_SECONDS_PER_TOKEN = 2e-4
# Where the tokens are not told; the same for all, so that it cancels out.
REFERENCE_TOKENS = 500
# A gateway that reports first tokens tells them again at the end; within this time they are not counted twice.
FIRST_TOKEN_REPORTS_SECONDS = 60.0


def first_token(record: DeploymentRecord, outcome: Outcome, now: float) -> None:
    """A first token came, after so many seconds."""
    seconds = sensible(outcome.time_to_first_token_seconds)
    if seconds is None:
        return
    record.first_token_at = now
    record.node.fresh_at = now
    record.pace.observe(seconds / expected_seconds(record, outcome), "first token", now)


def answered(record: DeploymentRecord, outcome: Outcome, now: float) -> None:
    """An attempt ended well."""
    record.outcome_at = now
    record.node.fresh_at = now
    record.spoil()
    latency = sensible(outcome.latency_seconds)
    first = sensible(outcome.time_to_first_token_seconds)
    if latency is not None:
        record.latency.observe(latency, now)
        record.latency_peak.observe(latency, now)
    _keep_pace(record, outcome, first, latency, now)
    # A known queue makes the first token late for a reason that is not the node's speed.
    if first is not None and outcome.input_tokens is not None and not freshest(record.node, now).queue_depth:
        record.learner.observe_first_token(uncached_tokens(outcome), first)
    if first is not None and latency is not None and outcome.output_tokens is not None:
        record.learner.observe_decode(outcome.output_tokens - 1, latency - first)


def failed(
    record: DeploymentRecord,
    result: Result,
    reporter: str,
    health: HealthSettings,
    circuit: CircuitSettings,
    now: float,
) -> tuple[Event, str, bool]:
    """An attempt failed: what its circuit should hear, why, and whether that is doubtful.

    Doubtful is what would open the circuit for everybody on the word of one reporter, while probes pass.
    """
    record.outcome_at = now
    record.spoil()
    record.latency.observe(health.worst_latency_seconds, now)
    record.latency_peak.observe(health.worst_latency_seconds, now)
    outcomes = record.outcomes
    outcomes.observe(bad=True, now=now)
    if not isinstance(record.circuit, Closed):
        return Event.FAILURE, f"a trial failed: {result.value}", False
    row = record.circuit.failures + 1
    record.failing_reporter = reporter if row == 1 or record.failing_reporter == reporter else "*"
    alone = record.failing_reporter not in ("", "*") and record.node.passed > 0
    if row >= circuit.failures:
        return Event.FAILURE, f"{counted(row, 'failure')} in a row, the last: {result.value}", alone
    if outcomes.total >= circuit.min_requests and outcomes.bad >= circuit.error_ratio * outcomes.total:
        why = f"{outcomes.bad} of {outcomes.total} outcomes failed in {circuit.window_seconds:g} s"
        return Event.RATIO, why, alone
    return Event.FAILURE, "", False


def _keep_pace(
    record: DeploymentRecord, outcome: Outcome, first: float | None, latency: float | None, now: float
) -> None:
    """The best measure that is reported: first tokens, else seconds per token, else whole calls.

    Long generations make a call long, not its node slow, so whole calls count only where nothing else is known.
    """
    if now - record.first_token_at <= FIRST_TOKEN_REPORTS_SECONDS:
        return
    if first is not None:
        record.pace.observe(first / expected_seconds(record, outcome), "first token", now)
        return
    better = record.pace.kind if now - record.pace.at <= FIRST_TOKEN_REPORTS_SECONDS else ""
    if latency is None or better == "first token":
        return
    if outcome.output_tokens:
        record.pace.observe(latency / outcome.output_tokens, "token", now)
    elif better != "token":
        record.pace.observe(latency, "call", now)


def expected_seconds(record: DeploymentRecord, outcome: Outcome) -> float:
    """What the first token of such a request should take: by the declared profile, else by the reference line."""
    tokens = uncached_tokens(outcome)
    profile = record.profile
    if profile.prefill_seconds_per_token is None:
        return REFERENCE_SECONDS + REFERENCE_SECONDS_PER_TOKEN * tokens
    least = profile.min_time_to_first_token_seconds or 0.0
    return max(1e-3, least + profile.prefill_seconds_per_token * tokens)


def uncached_tokens(outcome: Outcome) -> float:
    if outcome.input_tokens is None:
        return REFERENCE_TOKENS
    return max(0, outcome.input_tokens - (outcome.cached_tokens or 0))


def sensible(seconds: float | None) -> float | None:
    """A reported time; None for what cannot be one."""
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0.0 else None
