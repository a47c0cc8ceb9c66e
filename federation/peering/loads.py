"""Tells the router what owners say runs and waits at their nodes, so that what is decided here leaves room for it."""

from __future__ import annotations

from collections.abc import Callable

from federation.peering.imports import Imports

# Nodes that are told of again in one step: under a millisecond. What was said of a queue fades, and reports tell only
# what changed; a node that stays full would look empty soon.
AGAIN_A_STEP = 200


class FarLoads:
    """`observe(node, running, queue, now)` takes a node's load."""

    def __init__(self, imports: Imports, observe: Callable[[str, float | None, float | None, float], None]) -> None:
        self._imports = imports
        self._observe = observe
        self._waiting: list[str] = []

    def step(self, now: float) -> None:
        """Tells the news, and some of what stands; called ten times a second."""
        for report in self._imports.news():
            self._observe(report.node, report.running_requests, report.queue_depth, now)
        if not self._waiting:
            self._waiting = [
                name
                for peer in self._imports.peers.values()
                if not peer.expired
                for name, (report, _) in peer.reports.items()
                if report.running_requests or report.queue_depth
            ]
        some, self._waiting = self._waiting[:AGAIN_A_STEP], self._waiting[AGAIN_A_STEP:]
        for name in some:
            found = self._imports.report(name)
            if found is not None:
                self._observe(name, found.running_requests, found.queue_depth, now)
