"""Why a request finds no target."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class NoCandidate(Exception):
    """Nothing may serve the request.

    `reason` is a constant of the API (MODEL_UNKNOWN, CAPABILITY_UNKNOWN, NO_CAPACITY, ALL_NODES_UNHEALTHY,
    QOS_VIOLATION, PRIVACY_VIOLATION, POLICY_UNKNOWN, REFUSED_BY_RULE, BUDGET_EXHAUSTED); `rejected` counts
    candidates by rejection code; `retry_after_seconds` is set where waiting may help; `details` are more of the
    message's variables for programs.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        rejected: Mapping[str, int] = MappingProxyType({}),
        retry_after_seconds: float | None = None,
        details: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.rejected = rejected
        self.retry_after_seconds = retry_after_seconds
        self.details = details


class InvalidPolicy(Exception):
    """A policy document that cannot be used; `violations` are (path, what is wrong and what is allowed)."""

    def __init__(self, violations: tuple[tuple[str, str], ...]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in violations))
        self.violations = violations
