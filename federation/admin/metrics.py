"""What `/metrics` shows: one list of families, read when it is scraped, from the numbers that the server keeps anyway.

No label names a tenant, a prompt, an endpoint, or anything else that callers choose without bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

import numpy as np
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from catalog.rolls import changed
from federation.api.interceptors import Edge
from federation.api.routing import RoutingService
from federation.feed import CatalogFeed
from federation.health.records import Probe
from federation.installer import Installer
from federation.leases import LeaseKeeper
from federation.peering.peers import PeerStatus
from federation.routing.router import Router
from federation.siblings.linked import SiblingStatus
from federation.telemetry import LATENCY_BOUNDARIES, Family, Histogram, HistogramFamily, Kind, Sample, Telemetry
from policies.health import CircuitState, DeploymentHealth, Grade

# Regions come with requests as any text; those that have no record are counted together.
OTHER = "_OTHER"


class Probes:
    """Counts probes by result."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.durations = Histogram()

    def observe(self, probe: Probe) -> None:
        self.results["ok" if probe.ok else "loading" if probe.loading else "failed"] += 1
        self.durations.observe(probe.latency_seconds)


class Transitions:
    """Counts how circuits changed from one table to the next; what came and went in between is not seen."""

    def __init__(self) -> None:
        self._before: Mapping[str, DeploymentHealth] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def observe(self, health: Mapping[str, DeploymentHealth]) -> None:
        before, self._before = self._before, health
        if before is health:
            return
        for name in changed(before, health):
            earlier, now = before.get(name), health.get(name)
            if earlier is None or now is None:
                continue
            old, new = earlier.circuit.state, now.circuit.state
            if old is not new:
                self.counts[(old.value, new.value)] += 1


class Figures:
    """Where the figures are; `families` and `histograms` tell how they are read."""

    def __init__(
        self,
        *,
        version: str,
        feed: CatalogFeed,
        leases: LeaseKeeper,
        installer: Installer,
        router: Router,
        routing: RoutingService,
        edge: Edge,
        telemetry: Telemetry,
        probes: Probes,
        transitions: Transitions,
        peers: Callable[[], Sequence[PeerStatus]],
        kept_at: Callable[[], float | None],
        siblings: Callable[[], Sequence[SiblingStatus]],
        task_failures: Counter[str],
        loop_lag: Callable[[], float],
        certificate_expiry: Callable[[], float | None],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._version = version
        self._feed = feed
        self._leases = leases
        self._installer = installer
        self._router = router
        self._routing = routing
        self._edge = edge
        self._telemetry = telemetry
        self._probes = probes
        self._transitions = transitions
        self._peers = peers
        self._kept_at = kept_at
        self._siblings = siblings
        self._task_failures = task_failures
        self._loop_lag = loop_lag
        self._certificate_expiry = certificate_expiry
        self._monotonic = monotonic
        self._wall = wall

    def families(self) -> tuple[Family, ...]:
        """Counters and gauges."""
        counter, gauge = Kind.COUNTER, Kind.GAUGE
        stats, edge, feed = self._router.stats, self._edge, self._feed
        planner = self._router.planner
        return (
            Family(
                "route_decisions",
                counter,
                "Decisions by what came of them. `reason` tells why there was no target.",
                ("outcome", "reason", "model", "client_region", "chosen_region"),
                self._decisions,
            ),
            Family(
                "route_candidates", counter, "Candidates that decisions looked at.", (), _one(lambda: stats.visited)
            ),
            Family(
                "route_filtered",
                counter,
                "Candidates that decisions left out, by rejection code.",
                ("filter",),
                lambda: _counts(stats.rejected),
            ),
            Family(
                "route_shed",
                counter,
                "Requests refused for lack of capacity (`priority`, `share` of their tenant) or money (`budget`).",
                ("reason", "priority_class"),
                lambda: sorted(self._router.rations.refusals.items()),
            ),
            Family(
                "route_demoted",
                counter,
                "Decisions with a lower priority, and by price alone, since their tenant's budget is spent.",
                (),
                _one(lambda: self._router.rations.demotions),
            ),
            Family(
                "shadow_decisions",
                counter,
                "Decisions that a shadow policy made beside the live one, by whether it would have done the same.",
                ("policy", "shadow", "result"),
                self._shadows,
            ),
            Family("route_panics", counter, "Decisions that set health aside.", (), _one(lambda: stats.panics)),
            Family(
                "outcome_reports",
                counter,
                "Outcomes that gateways reported.",
                ("result",),
                lambda: _counts(stats.outcomes),
            ),
            Family(
                "deployment_state",
                gauge,
                "Deployments by grade; those with an open circuit or ejected count there too.",
                ("state",),
                self._states,
            ),
            Family(
                "breaker_transitions",
                counter,
                "Changes of circuits.",
                ("from", "to"),
                lambda: ((pair, n) for pair, n in sorted(self._transitions.counts.items())),
            ),
            Family("probe", counter, "Health checks by result.", ("outcome",), lambda: _counts(self._probes.results)),
            Family(
                "signal_age_seconds",
                gauge,
                "Median age of a signal over the deployments that have it.",
                ("source",),
                self._signal_ages,
            ),
            Family("saturation_ratio", gauge, "Requests in flight over room.", ("model", "region"), self._saturation),
            Family("panic_mode", gauge, "1 where too few deployments are available.", ("model",), self._panics),
            Family("table_age_seconds", gauge, "Age of the table that decisions read.", (), self._table_age),
            Family("route_plans", gauge, "Kinds of requests whose plans are kept.", (), _one(lambda: len(planner))),
            Family(
                "route_plans_made",
                counter,
                "Plans, by how they came: made when asked for, made ahead of it, or carried over to a new table.",
                ("how",),
                lambda: _counts(planner.made),
            ),
            Family("tables_built", counter, "Routing tables built.", (), _one(lambda: self._installer.builds_total)),
            Family("snapshot_revision", gauge, "Catalog revision in use.", (), _one(lambda: feed.revision)),
            Family(
                "snapshot_age_seconds",
                gauge,
                "Time since the store last answered.",
                (),
                _one(lambda: self._monotonic() - feed.answered_at),
            ),
            Family(
                "last_known_age_seconds",
                gauge,
                "Time since the local file was found to hold the newest catalog. Absent: none is kept.",
                (),
                self._kept_age,
            ),
            Family("store_up", gauge, "1 while the catalog's store answers.", (), _one(lambda: float(feed.available))),
            Family("peer_up", gauge, "1 while the link to a peer is in sync.", ("peer",), self._peers_up),
            Family("peer_lag_seconds", gauge, "Time since a peer was last heard.", ("peer",), self._peer_lags),
            Family(
                "siblings", gauge, "Replicas of this region beside this one, by link.", ("link",), self._sibling_links
            ),
            Family(
                "sibling_lag_seconds",
                gauge,
                "Longest time since a linked replica was last heard.",
                (),
                self._sibling_lag,
            ),
            Family("leases_held", gauge, "Nodes that hold a lease.", (), _one(lambda: len(self._leases))),
            Family("lease_renewals", counter, "Heartbeats taken.", (), _one(lambda: self._leases.renewals_total)),
            Family(
                "lease_expirations", counter, "Leases that ended.", (), _one(lambda: self._leases.expirations_total)
            ),
            Family(
                "policies_refused",
                gauge,
                "Stored policies that this version cannot use; older ones stay in their place.",
                (),
                _one(lambda: len(self._installer.refused_policies)),
            ),
            Family("open_streams", gauge, "Streams that are open.", (), _one(lambda: edge.open_streams)),
            Family(
                "malformed_messages",
                counter,
                "Messages that were refused unread.",
                (),
                _one(lambda: edge.malformed_total),
            ),
            Family(
                "internal_errors",
                counter,
                "Calls that failed by a defect.",
                (),
                _one(lambda: edge.internal_errors_total),
            ),
            Family(
                "task_failures",
                counter,
                "Background tasks that failed and were started again.",
                ("task",),
                lambda: _counts(self._task_failures),
            ),
            Family("event_loop_lag_seconds", gauge, "Worst lag of the last seconds.", (), _one(self._loop_lag)),
            Family(
                "certificate_expiry_seconds", gauge, "Time until the server's certificate ends.", (), self._certificate
            ),
            Family("build_info", gauge, "1.", ("version",), lambda: [((self._version,), 1.0)]),
        )

    def histograms(self) -> tuple[HistogramFamily, ...]:
        """Durations, by the boundaries of gRFC A66."""
        return (
            HistogramFamily(
                "route_duration_seconds",
                "Time of a Route between its parsed request and its answer.",
                (),
                lambda: [((), self._routing.durations)],
            ),
            HistogramFamily(
                "rpc_server_call_duration_seconds",
                "Duration of calls as the server sees them.",
                ("rpc_method", "rpc_response_status_code"),
                lambda: list(self._telemetry.calls.items()),
            ),
            HistogramFamily(
                "probe_duration_seconds", "Duration of health checks.", (), lambda: [((), self._probes.durations)]
            ),
        )

    def _decisions(self) -> Iterator[Sample]:
        known = self._feed.snapshot.regions
        chosen: Counter[tuple[str, str, str]] = Counter()
        for (model, client_region, chosen_region), count in self._router.stats.chosen.items():
            named = client_region if client_region in known or not client_region else OTHER
            chosen[(model, named, chosen_region)] += count
        for (model, client_region, chosen_region), count in chosen.items():
            yield ("ok", "", model, client_region, chosen_region), count
        for reason, count in self._router.stats.refused.items():
            yield ("refused", reason, "", "", ""), count

    def _shadows(self) -> Iterator[Sample]:
        for (policy, shadow), stats in self._router.shadows.stats.items():
            same = stats.decisions - stats.elsewhere - stats.refused
            yield (policy, shadow, "same"), same
            yield (policy, shadow, "elsewhere"), stats.elsewhere
            yield (policy, shadow, "refused"), stats.refused
        for shadow, count in self._router.shadows.unknown.items():
            yield ("", shadow, "unknown"), count

    def _peers_up(self) -> Iterator[Sample]:
        # A peer may be reached by several addresses.
        up: Counter[str] = Counter()
        for peer in self._peers():
            up[peer.region_id or peer.address] |= peer.state == "up"
        for name, state in sorted(up.items()):
            yield (name,), float(state)

    def _peer_lags(self) -> Iterator[Sample]:
        lags = {peer.region_id: peer.lag_seconds for peer in self._peers() if peer.lag_seconds is not None}
        for name, seconds in sorted(lags.items()):
            yield (name,), seconds

    def _sibling_links(self) -> Iterator[Sample]:
        links: Counter[str] = Counter({"up": 0, "down": 0})
        links.update(each.state for each in self._siblings())
        return _counts(links)

    def _sibling_lag(self) -> Iterator[Sample]:
        lags = [each.lag_seconds for each in self._siblings() if each.lag_seconds is not None]
        if lags:
            yield (), max(lags)

    def _states(self) -> Iterator[Sample]:
        now = self._monotonic()
        states: Counter[str] = Counter({grade.value: 0 for grade in Grade})
        states.update({"circuit_open": 0, "ejected": 0})
        for health in self._installer.health.values():
            states[health.grade.value] += 1
            if health.circuit.state is not CircuitState.CLOSED:
                states["circuit_open"] += 1
            if health.ejected_until > now:
                states["ejected"] += 1
        return _counts(states)

    def _signal_ages(self) -> Iterator[Sample]:
        if not self._router.ready:
            return
        now = self._monotonic()
        for source, times in self._router.table.signals.items():
            known = times[np.isfinite(times)]
            if len(known):
                yield (source,), max(0.0, now - float(median(known.tolist())))

    def _saturation(self) -> Iterator[Sample]:
        if not self._router.ready:
            return
        compiled = self._router.table.compiled
        in_flight: Counter[tuple[str, str]] = Counter()
        room: Counter[tuple[str, str]] = Counter()
        for node in self._feed.snapshot.nodes.values():
            for deployment in node.deployments:
                if deployment.max_concurrency is not None and deployment.name in compiled.row_of:
                    key = (deployment.model_id, deployment.region_id)
                    room[key] += deployment.max_concurrency
                    in_flight[key] += self._router.load_of(deployment.name)[0]
        for key, places in sorted(room.items()):
            yield key, in_flight[key] / places

    def _panics(self) -> Iterator[Sample]:
        if not self._router.ready:
            return
        table = self._router.table
        threshold = self._router.policy("").panic_threshold
        available = table.pool.status == 0
        for model_id, rows in sorted(table.compiled.rows_by_model.items()):
            if len(rows):
                yield (model_id,), float(np.count_nonzero(available[rows]) < threshold * len(rows))

    def _table_age(self) -> Iterator[Sample]:
        if self._router.ready:
            yield (), max(0.0, self._monotonic() - self._router.table.built_at)

    def _kept_age(self) -> Iterator[Sample]:
        if (kept_at := self._kept_at()) is not None:
            yield (), max(0.0, self._monotonic() - kept_at)

    def _certificate(self) -> Iterator[Sample]:
        expiry = self._certificate_expiry()
        if expiry is not None:
            yield (), expiry - self._wall()


def page(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The page that Prometheus reads, with its content type, in the format that the scraper asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(figures))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Page(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        for family in self._figures.families():
            make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
            metric = make(family.name, family.help, labels=family.labels)
            for values, number in family.read():
                metric.add_metric(values, float(number))
            yield metric
        for histogram in self._figures.histograms():
            durations = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
            for values, counted in histogram.read():
                durations.add_metric(values, _buckets(counted), counted.total)
            yield durations


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as Prometheus wants them."""
    buckets = []
    below = 0
    for bound, count in zip((*map(str, LATENCY_BOUNDARIES), "+Inf"), histogram.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets


def _one(read: Callable[[], float]) -> Callable[[], Iterable[Sample]]:
    return lambda: [((), read())]


def _counts(counts: Mapping[str, int]) -> Iterator[Sample]:
    return (((name,), float(count)) for name, count in sorted(counts.items()))
