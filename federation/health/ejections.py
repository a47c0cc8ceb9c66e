"""Ejections of outliers: what of a record its pool sees, and what an ejection does to a record."""

from __future__ import annotations

from math import log

from federation.health.records import DeploymentRecord, PoolRecord
from policies.circuit import Closed
from policies.health import Grade
from policies.outliers import (
    FORGIVEN_AFTER_SECONDS,
    MIN_ANSWERS,
    MIN_FAILURES,
    SLOW_FACTOR,
    Member,
    choose,
    ejection_seconds,
)

# Answers older than this say nothing of a pace now.
PACE_SECONDS = 30.0
_SLOW = log(SLOW_FACTOR)


def eject_outliers(pool: PoolRecord, max_ejected_ratio: float, now: float) -> list[DeploymentRecord]:
    """Ejects who is an outlier now; answers whom."""
    if not _suspects(pool, now):
        return []
    everyone = [_member(record, now) for record in pool.members.values()]
    ejected = []
    for outlier in choose(everyone, len(everyone), max_ejected_ratio):
        record = pool.members[outlier.name]
        if now >= record.forgiven_at:
            record.ejections = 0
        record.ejections += 1
        record.ejected_until = now + ejection_seconds(record.ejections)
        record.forgiven_at = record.ejected_until + FORGIVEN_AFTER_SECONDS
        record.ejection_reason = outlier.reason
        ejected.append(record)
    return ejected


def end_ejection(record: DeploymentRecord) -> None:
    """Lets a deployment in again, as if nothing were known of its recent answers: they must not eject it again."""
    record.ejected_until = 0.0
    record.ejection_reason = ""
    record.pace.clear()
    record.outcomes.clear()


def _suspects(pool: PoolRecord, now: float) -> bool:
    """A cheap look over a pool that may have thousands of members: whether any could be an outlier at all."""
    for record in [r for r in pool.active if r.outcomes.ratio(1, now) is None and now - r.pace.at > PACE_SECONDS]:
        pool.active.discard(record)
    paces = [
        (record.pace.kind, record.pace.recent)
        for record in pool.active
        if record.pace.answers >= MIN_ANSWERS and record.pace.recent is not None
    ]
    fastest: dict[str, float] = {}
    for kind, pace in paces:
        fastest[kind] = min(pace, fastest.get(kind, pace))
    slow = any(pace - fastest[kind] >= _SLOW for kind, pace in paces)
    return slow or any(record.outcomes.bad >= MIN_FAILURES for record in pool.active)


def _member(record: DeploymentRecord, now: float) -> Member:
    """A deployment as its pool sees it."""
    outcomes, pace = record.outcomes, record.pace
    outcomes.expire(now)
    return Member(
        name=record.name,
        failures=outcomes.bad,
        requests=outcomes.total,
        pace=pace.recent if now - pace.at <= PACE_SECONDS else None,
        usual_pace=pace.usual,
        answers=pace.answers,
        answers_ever=pace.answers_ever,
        kind=pace.kind,
        ejected=record.ejected_until > now or record.node.ejected_until > now,
        available=record.listed
        and isinstance(record.circuit, Closed)
        and record.node.grade not in (Grade.UNHEALTHY, Grade.LOADING),
    )
