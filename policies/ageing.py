"""How a signal loses its worth with time: smoothly, toward what would be believed without it, never off a cliff."""

from __future__ import annotations

import math

from policies.health import WORTH, Grade

# A grade loses half of its distance to UNKNOWN in this time. Shorter would forget a node between two probes;
# longer would send work to a dead prober's last opinion for minutes.
GRADE_HALF_LIFE_SECONDS = 15.0
SUSPICION_HALF_LIFE_SECONDS = 15.0
# A queue of 32 prefills empties in about this time: what was read of it is soon about another queue.
QUEUE_HALF_LIFE_SECONDS = 1.0

MAX_SUSPICION = 50.0


def decay(value: float, prior: float, age_seconds: float, half_life_seconds: float) -> float:
    """What is left of a value after a time: between `value` (age 0 or less) and `prior` (very old)."""
    if age_seconds <= 0.0:
        return value
    return prior + (value - prior) * math.exp2(-age_seconds / half_life_seconds)


def overdue(age_seconds: float, interval_seconds: float) -> float:
    """Seconds that a signal is older than two of its intervals: one missed is chance, and must not saw the score."""
    return max(0.0, age_seconds - 2.0 * interval_seconds)


def aged_score(score: float, age_seconds: float, interval_seconds: float) -> float:
    """A health score as old as its last signal, fading toward UNKNOWN's worth, and never rising by silence."""
    return min(
        score, decay(score, WORTH[Grade.UNKNOWN], overdue(age_seconds, interval_seconds), GRADE_HALF_LIFE_SECONDS)
    )


def unknown_after(interval_seconds: float) -> float:
    """Age from which a grade is called UNKNOWN: half of its difference to that is gone. The score has no step there."""
    return 2.0 * interval_seconds + GRADE_HALF_LIFE_SECONDS


def aged_suspicion(suspicion: float, age_seconds: float) -> float:
    """Suspicion fades toward 1 (none)."""
    return decay(suspicion, 1.0, age_seconds, SUSPICION_HALF_LIFE_SECONDS)


def ramp(since: float, now: float, length_seconds: float, start: float = 0.1) -> float:
    """Slow start: from `start` at `since` straight up to 1.0 after the length."""
    if now >= since + length_seconds:
        return 1.0
    return start + (1.0 - start) * max(0.0, now - since) / length_seconds
