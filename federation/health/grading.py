"""Which grade a node has, from what is known of it. Pure: everything is an argument.

The first that applies:

    never probed                                    UNKNOWN
    its engine says that it loads, and never passed LOADING
    3 probes failed in a row, until 2 passed        UNHEALTHY
    none of its models is listed                    LOADING
    slow probes, late answers, errors, a long queue
    or a full KV cache                              DEGRADED
    else                                            HEALTHY

and UNKNOWN in place of HEALTHY or DEGRADED when the last signal is old. UNHEALTHY does not age: silence is no sign
of recovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policies.ageing import unknown_after
from policies.health import Grade


class GradeLimits(Protocol):
    """The bounds of grades; HealthSettings has them."""

    @property
    def probe_interval_seconds(self) -> float: ...
    @property
    def unhealthy_after(self) -> int: ...
    @property
    def healthy_after(self) -> int: ...
    @property
    def degraded_latency_seconds(self) -> float: ...
    @property
    def degraded_suspicion(self) -> float: ...
    @property
    def degraded_error_ratio(self) -> float: ...
    @property
    def degraded_queue_depth(self) -> float: ...
    @property
    def degraded_kv_cache_utilization(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a grade rests on. None is unknown, and accuses nobody."""

    probed: bool = False
    passed_ever: bool = False
    unhealthy: bool = False
    loading: bool = False
    # Probes in a row, and the last one's error.
    passed: int = 0
    failed: int = 0
    error: str = ""
    # A model that the engine does not list, where it lists none of the node's.
    unlisted: str = ""
    probe_latency_seconds: float | None = None
    suspicion: float = 1.0
    error_ratio: float | None = None
    queue_depth: float | None = None
    kv_cache_utilization: float | None = None
    # Since the last passed probe or answered request: a failed one is no sign that it still does well.
    age_seconds: float = 0.0


def grade(evidence: Evidence, limits: GradeLimits) -> tuple[Grade, Grade, str]:
    """What the signals say, the same with their age, and why."""
    known, reason = known_grade(evidence, limits)
    ages = known in (Grade.HEALTHY, Grade.DEGRADED)
    if ages and evidence.age_seconds >= unknown_after(limits.probe_interval_seconds):
        return known, Grade.UNKNOWN, f"no passed probe or answer for {evidence.age_seconds:.0f} s; it was {known.value}"
    return known, known, reason


def known_grade(evidence: Evidence, limits: GradeLimits) -> tuple[Grade, str]:
    """The grade by the last signals, however old."""
    match evidence:
        case Evidence(probed=False):
            return Grade.UNKNOWN, "not probed yet"
        case Evidence(loading=True, passed_ever=False):
            return Grade.LOADING, f"its engine is not ready: {evidence.error}"
        case Evidence(unhealthy=True, passed=0):
            return Grade.UNHEALTHY, f"{counted(evidence.failed, 'probe')} failed: {evidence.error}"
        case Evidence(unhealthy=True):
            return Grade.UNHEALTHY, f"{evidence.passed} of {limits.healthy_after} probes passed since it was unhealthy"
        case Evidence(passed_ever=False):
            return Grade.UNKNOWN, f"{counted(evidence.failed, 'probe')} failed: {evidence.error}"
        case Evidence(unlisted=model) if model:
            return Grade.LOADING, f"model {model!r} is not listed"
    faults = degradations(evidence, limits)
    if faults:
        return Grade.DEGRADED, "; ".join(faults)
    if evidence.failed:
        return Grade.HEALTHY, (
            f"{evidence.failed} of {limits.unhealthy_after} probes failed before it is unhealthy: {evidence.error}"
        )
    return Grade.HEALTHY, "its last probe passed"


def degradations(evidence: Evidence, limits: GradeLimits) -> list[str]:
    """Everything that makes it worse than healthy, each with its bound."""
    faults = []
    latency, ratio = evidence.probe_latency_seconds, evidence.error_ratio
    if latency is not None and latency > limits.degraded_latency_seconds:
        faults.append(f"probes take {latency:.1f} s, over {limits.degraded_latency_seconds:g} s")
    if evidence.suspicion > limits.degraded_suspicion:
        faults.append(f"answers come {evidence.suspicion:.1f} times later than predicted")
    if ratio is not None and ratio > limits.degraded_error_ratio:
        faults.append(f"{ratio:.0%} of outcomes failed, over {limits.degraded_error_ratio:.0%}")
    if evidence.queue_depth is not None and evidence.queue_depth > limits.degraded_queue_depth:
        faults.append(f"{evidence.queue_depth:.0f} requests wait, over {limits.degraded_queue_depth:g}")
    kv = evidence.kv_cache_utilization
    if kv is not None and kv > limits.degraded_kv_cache_utilization:
        faults.append(f"KV cache is {kv:.0%} full, over {limits.degraded_kv_cache_utilization:.0%}")
    return faults


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
