"""Takes over what a sibling learned, as if it had been learned here."""

from __future__ import annotations

from collections.abc import Callable

from federation.health.monitor import Monitor
from federation.leases import LeaseKeeper
from federation.routing.router import Router
from federation.siblings.messages import News
from federation.siblings.outgoing import Outgoing
from federation.siblings.telling import Telling


class Hearing:
    """What each sibling has under way is remembered by its name; all else lives in the monitor, router and leases."""

    def __init__(
        self,
        telling: Telling,
        monitor: Monitor,
        router: Router,
        leases: LeaseKeeper,
        *,
        on_probe: Callable[[str], None],
    ) -> None:
        """`on_probe` is called with a node that a sibling probed."""
        self._telling = telling
        self._monitor = monitor
        self._router = router
        self._leases = leases
        self._on_probe = on_probe
        self._sums: dict[str, dict[str, tuple[float, float]]] = {}

    def take(self, sibling: str, news: News, age_seconds: float, outgoing: Outgoing, now: float) -> None:
        """Takes news over; outcomes of our own decisions in it are ours, and siblings are told of them."""
        monitor = self._monitor
        with self._telling.hearing():
            for beat in news.beats:
                node = self._leases.beat(beat.node, now, holder=sibling)
                if node is not None and beat.load is not None:
                    monitor.observe_load(beat.node, beat.load, now)
            for probe in news.probes:
                monitor.observe_probe(probe, now)
                self._on_probe(probe.node)
            for name, metrics in news.metrics:
                monitor.observe_metrics(name, metrics, now)
            for witnessed in news.outcomes:
                monitor.observe_outcome(witnessed.deployment, witnessed.outcome, now)
            for name, count in news.answers:
                monitor.observe_answers(name, count, now)
            # After the outcomes that they came of: mostly they say what is so here already.
            for circuit in news.circuits:
                monitor.hear_circuit(circuit, now)
            for ejection in news.ejections:
                monitor.hear_ejection(ejection, now)
            for name, level in news.suspicions:
                outgoing.suspected(name, level, now)
                self._suspect(name, level)
        self._heed(sibling, news, age_seconds, now)
        for outcome in news.reports:
            self._router.report(outcome, now)

    def forget(self, sibling: str, now: float) -> None:
        """There is no link to a sibling any more: what it has under way is not known."""
        if self._sums.pop(sibling, None) is not None:
            self._router.state.heed_siblings(sibling, {}, 0.0, now)

    def _suspect(self, deployment: str, level: float) -> None:
        slot = self._router.state.slots.get(deployment)
        if slot is not None:
            self._router.state.suspect(slot, level)

    def _heed(self, sibling: str, news: News, age_seconds: float, now: float) -> None:
        known = self._sums.setdefault(sibling, {})
        for each in news.sums:
            if each.pending_tokens or each.in_flight:
                known[each.deployment] = (each.pending_tokens, each.in_flight)
            else:
                known.pop(each.deployment, None)
        slots = self._router.state.slots
        self._router.state.heed_siblings(
            sibling, {slots[name]: sums for name, sums in known.items() if name in slots}, age_seconds, now
        )
