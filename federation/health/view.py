"""The health of all deployments as others see it, followed by what changed: a view costs what differs from the last.

What changes who may be routed is rendered at once. Figures (latencies, load, scores that rise or age) are rendered in
slices, oldest first, and may be up to about a second old.
"""

from __future__ import annotations

import heapq
import itertools
from math import inf

from catalog.rolls import Roll
from federation.config import HealthSettings
from federation.health.figures import render
from federation.health.records import DeploymentRecord
from policies.health import DeploymentHealth

# Figures rendered with one view at most: about 5 ms. `refresh` renders more between two of them.
FIGURES_A_VIEW = 1_000


class HealthView:
    """One entry for each record from `urge` to `forget`."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._roll: Roll[DeploymentHealth] = Roll()
        # Records whose standing, or only whose figures, are others than the roll tells.
        self._urgent: dict[DeploymentRecord, None] = {}
        self.spoiled: dict[DeploymentRecord, None] = {}
        # When a rendering stops being true. One live entry a record (its `look_at`).
        self._due: list[tuple[float, int, DeploymentRecord]] = []
        self._order = itertools.count()
        # What the next roll has beyond the last one.
        self._fresh: dict[str, DeploymentHealth] = {}
        self._gone: dict[str, None] = {}

    def urge(self, record: DeploymentRecord) -> None:
        """Its standing changed, or it is new."""
        record.health = None
        self._urgent[record] = None
        self._gone.pop(record.name, None)

    def forget(self, record: DeploymentRecord) -> None:
        """It is no more."""
        self._urgent.pop(record, None)
        self.spoiled.pop(record, None)
        self._fresh.pop(record.name, None)
        self._gone[record.name] = None
        record.look_at = inf

    def refresh(self, now: float, most: int) -> int:
        """Renders what is due, so many at most; how many it were."""
        done = 0
        while self.spoiled and done < most:
            record = next(iter(self.spoiled))
            del self.spoiled[record]
            self._render(record, now)
            done += 1
        while self._due and self._due[0][0] <= now and done < most:
            at, _, record = heapq.heappop(self._due)
            if record.look_at == at:
                record.look_at = inf
                self._render(record, now)
                done += 1
        return done

    def view(self, now: float) -> Roll[DeploymentHealth]:
        """All deployments by name."""
        for record in self._urgent:
            self.spoiled.pop(record, None)
            self._render(record, now)
        self._urgent.clear()
        self.refresh(now, FIGURES_A_VIEW)
        if self._fresh or self._gone:
            self._roll = self._roll.after(self._fresh, self._gone)
            self._fresh, self._gone = {}, {}
        return self._roll

    def _render(self, record: DeploymentRecord, now: float) -> None:
        health = record.health
        if health is None or not record.rendered_at <= now < record.stable_until:
            health = render(record, self._settings, now)
        self._fresh[record.name] = health
        if record.stable_until < record.look_at:
            record.look_at = record.stable_until
            heapq.heappush(self._due, (record.look_at, next(self._order), record))
