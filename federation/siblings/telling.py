"""What this replica learns by itself, gathered for its siblings: it is called wherever something is learned.

What is heard from a sibling passes the same places; it is not told again, since every replica tells each of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from federation.health.engines.page import EngineMetrics
from federation.health.monitor import Monitor
from federation.health.records import Load, Probe
from federation.routing.router import Router
from federation.siblings.outgoing import Outgoing, Standing
from policies.types import Outcome

# Below this nobody's grade or choice changes by much; it is what the monitor is told of, too.
TOLD_SUSPICION = 1.5
# Of tokens and requests: both are whole numbers where nothing is known to be cached.
SUM_DIGITS = 3
# Sums are read anew at most so often, however many siblings ask.
STANDING_SECONDS = 0.05


class Telling:
    """Constructed, it hears of everything and has nobody to tell; `outgoing` holds one queue a sibling."""

    def __init__(self) -> None:
        self.outgoing: dict[str, Outgoing] = {}
        self._hearing = False
        self._standing = Standing()
        self._standing_at = float("-inf")
        self._version = -1

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """In this block what is learned came from a sibling."""
        self._hearing = True
        try:
            yield
        finally:
            self._hearing = False

    @property
    def is_hearing(self) -> bool:
        return self._hearing

    @property
    def _queues(self) -> list[Outgoing]:
        return [] if self._hearing else list(self.outgoing.values())

    def beat(self, node: str, load: Load | None) -> None:
        for queue in self._queues:
            queue.beat(node, load)

    def probe(self, probe: Probe) -> None:
        for queue in self._queues:
            queue.probes.append(probe)

    def metrics(self, node: str, metrics: EngineMetrics) -> None:
        for queue in self._queues:
            queue.metrics[node] = metrics

    def outcome(self, deployment: str, outcome: Outcome) -> None:
        for queue in self._queues:
            queue.outcome(deployment, outcome)

    def standing(self, monitor: Monitor, router: Router, now: float, *, anew: bool = False) -> Standing:
        """The states that siblings are told of, a twentieth of a second old at most.

        Circuits and ejections are as old as their last change; `anew` for who hears of all of them now, since what is
        left of their time has run on.
        """
        if anew or now - self._standing_at >= STANDING_SECONDS:
            before = self._standing
            moved = anew or self._version != monitor.version
            self._version = monitor.version
            self._standing_at = now
            suspicions, sums, trials = _of_router(router)
            self._standing = Standing(
                monitor.circuits(now) if moved else before.circuits,
                monitor.ejections(now) if moved else before.ejections,
                suspicions,
                sums,
                trials,
            )
        return self._standing


def _of_router(router: Router) -> tuple[dict[str, float], dict[str, tuple[float, float]], tuple[str, ...]]:
    """Suspicions, sums and trials by deployment."""
    state = router.state
    # Taking siblings' sums off leaves the rounding of floats, which would be news each time.
    own = np.round(state.own(), SUM_DIGITS)
    suspicion = np.asarray(state.suspicion)
    busy = np.flatnonzero(own.any(axis=0) | (suspicion > TOLD_SUSPICION)).tolist()
    busy_slots, trial_slots = set(busy), router.reservations.trials
    suspicions: dict[str, float] = {}
    sums: dict[str, tuple[float, float]] = {}
    trials: list[str] = []
    if not busy_slots and not trial_slots:
        return suspicions, sums, ()
    for name, slot in state.slots.items():
        if slot in busy_slots:
            pending, in_flight = own[:, slot].tolist()
            if pending or in_flight:
                sums[name] = (pending, in_flight)
            if suspicion[slot] > TOLD_SUSPICION:
                suspicions[name] = float(suspicion[slot])
        if slot in trial_slots:
            trials.append(name)
    return suspicions, sums, tuple(trials)
