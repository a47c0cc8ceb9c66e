"""Tells the router what owners say runs and waits at their nodes, so that what is decided here leaves room for it."""

from __future__ import annotations

from collections.abc import Callable

from federation.peering.imports import Imports
from federation.peering.messages import NodeReport

# Nodes that are told of again in one step: under a millisecond. What was said of a queue fades, and reports tell only
# what changed; a node that stays full would look empty soon.
AGAIN_A_STEP = 200


class FarLoads:
    """`observe(node, running, queue, now)` takes a node's load."""

    def __init__(self, imports: Imports, observe: Callable[[str, float | None, float | None, float], None]) -> None:
        self._imports = imports
        self._observe = observe
        # Nodes at which something stands, and those of them whose turn comes before the others are told of again.
        self._loaded: dict[str, None] = {}
        self._waiting: list[str] = []

    def step(self, now: float) -> None:
        """Tells the news, and some of what stands; called ten times a second."""
        for report in self._imports.news():
            self._observe(report.node, report.running_requests, report.queue_depth, now)
            if stands(report):
                self._loaded[report.node] = None
            else:
                self._loaded.pop(report.node, None)
        if not self._waiting:
            self._waiting = list(self._loaded)
        some, self._waiting = self._waiting[:AGAIN_A_STEP], self._waiting[AGAIN_A_STEP:]
        for name in some:
            found = self._imports.report(name)
            if found is not None:
                self._observe(name, found.running_requests, found.queue_depth, now)
            elif not self._imports.has(name):
                self._loaded.pop(name, None)


def stands(report: NodeReport) -> bool:
    """Whether something runs or waits at a node."""
    return bool(report.running_requests or report.queue_depth)
