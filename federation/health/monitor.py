"""Everything known about nodes, in one place with one writer: probes, metric pages, heartbeats and outcomes go in,
grades, circuits, ejections and figures come out.

No I/O, no clock: each call brings the time (monotonic seconds). All calls come from one event loop.
How a grade comes about stands in grading.py, circuits and outliers in policies; here they are fed and remembered.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from math import inf
from random import Random

from catalog.errors import NotFound
from catalog.rolls import changed
from catalog.types import Node, Snapshot
from federation.config import CircuitSettings, HealthSettings
from federation.health.ejections import eject_outliers, end_ejection
from federation.health.engines.page import EngineMetrics
from federation.health.figures import evidence, freshest, render, status, take_metrics
from federation.health.grading import grade
from federation.health.outcomes import answered, failed, first_token
from federation.health.records import DeploymentRecord, Load, NodeRecord, NodeStatus, PoolRecord, Probe
from federation.health.sharing import (
    CircuitWord,
    EjectionWord,
    circuit_by,
    circuit_words,
    ejection_counts,
    ejection_words,
    has_room,
    last_probe,
)
from federation.health.view import HealthView
from policies.ageing import MAX_SUSPICION, unknown_after
from policies.circuit import Circuit, Closed, Event, HalfOpen, Open, next_change, step
from policies.health import DeploymentHealth, Grade
from policies.types import Outcome, Phase, Result

# A fading sign is looked at again after this.
LOOK_SECONDS = 1.0
# A pool of thousands takes milliseconds to compare, so it is looked at less often.
MAX_LOOK_SECONDS = 5.0
ACTIVE_PER_LOOK_SECOND = 1_000
# What is due beyond this waits for the next tick: when a stopped prober lets everything age at once, decisions go on.
MAX_DUE_PER_TICK = 1_000


class Monitor:
    """What is known of every node and deployment.

    `version` grows when a grade, circuit, ejection or readiness changed; not for load and figures.
    """

    def __init__(
        self,
        health: HealthSettings,
        circuit: CircuitSettings,
        *,
        rng: Random,
        wall: Callable[[], float],
        on_probe_wanted: Callable[[str], None] | None = None,
        on_load: Callable[[str, float | None, float | None, float], None] | None = None,
        on_probe: Callable[[Probe], None] | None = None,
        on_metrics: Callable[[str, EngineMetrics], None] | None = None,
    ) -> None:
        self.version = 0
        # Called with a node's name where a probe now would tell whom to believe.
        self.on_probe_wanted = on_probe_wanted
        # Called with a node's name, its running and waiting requests (None: unknown) and the time, whenever told of.
        self.on_load = on_load
        # Called with every probe's result, and with every metrics page.
        self.on_probe = on_probe
        self.on_metrics = on_metrics
        # Called with a deployment's name when its slow start begins, which ends what it was suspected of before.
        self.on_slow_start: Callable[[str], None] | None = None
        self._health = health
        self._circuit = circuit
        self._rng = rng
        self._wall = wall
        # The nodes as `sync` saw them last.
        self._synced: Mapping[str, Node] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._deployments: dict[str, DeploymentRecord] = {}
        self._pools: dict[str, PoolRecord] = {}
        self._view = HealthView(health)
        # One live entry per node (its `timer_at`); others are stale and dropped when their time comes.
        self._timers: list[tuple[float, int, NodeRecord]] = []
        self._order = itertools.count()

    # --- what exists

    def sync(self, snapshot: Snapshot, now: float) -> None:
        """Takes over the catalog: nodes appear and are forgotten; a changed endpoint or engine starts anew."""
        before, self._synced = self._synced, snapshot.nodes
        for name in sorted(changed(before, snapshot.nodes)):
            node, spec = self._nodes.get(name), snapshot.nodes.get(name)
            if spec is None:
                if node is not None:
                    self._forget(self._nodes.pop(name))
                continue
            if node is not None and node.spec is spec:
                continue
            if node is not None and (node.spec.endpoint, node.spec.engine) != (spec.endpoint, spec.engine):
                self._forget(node)
                node = None
            if node is None:
                node = self._nodes[name] = NodeRecord(spec)
                self.version += 1
            node.spec = spec
            self._sync_deployments(node, now)

    def _sync_deployments(self, node: NodeRecord, now: float) -> None:
        wanted = {deployment.name: deployment for deployment in node.spec.deployments}
        for name in [name for name in node.deployments if name not in wanted]:
            self._forget_deployment(node.deployments.pop(name))
        for name, deployment in wanted.items():
            record = node.deployments.get(name)
            if record is None:
                record = DeploymentRecord(name, deployment, node, self._circuit.window_seconds, self._view.spoiled)
                node.deployments[name] = self._deployments[name] = record
                self._pools.setdefault(record.model_id, PoolRecord()).members[name] = record
                self._view.urge(record)
                self.version += 1
            else:
                record.describe(deployment)
            self._relist(record, now)
        self._regrade(node, now)

    def _forget(self, node: NodeRecord) -> None:
        for record in node.deployments.values():
            self._forget_deployment(record)
        self.version += 1

    def _forget_deployment(self, record: DeploymentRecord) -> None:
        del self._deployments[record.name]
        self._view.forget(record)
        pool = self._pools[record.model_id]
        del pool.members[record.name]
        pool.active.discard(record)
        if not pool.members:
            del self._pools[record.model_id]
        self.version += 1

    # --- what is observed; nodes and deployments that are gone are passed over

    def observe_probe(self, probe: Probe, now: float) -> None:
        """Counts a probe. The first pass makes a node healthy at once; after unhealthy it takes `healthy_after`."""
        node = self._nodes.get(probe.node)
        if node is None:
            return
        if self.on_probe is not None:
            self.on_probe(probe)
        node.probe_at = now
        node.last_check_time = self._wall()
        if probe.ok:
            self._probe_passed(node, probe, now)
        else:
            self._probe_failed(node, probe, now)
        self._regrade(node, now)
        self._stale(node)

    def _probe_passed(self, node: NodeRecord, probe: Probe, now: float) -> None:
        cold = node.loading
        if node.pass_probe(probe, now, self._health.healthy_after):
            cold = True
        for record in node.deployments.values():
            if cold:
                self._start_slowly(record, now)
            record.doubted = False
            self._relist(record, now)

    def _probe_failed(self, node: NodeRecord, probe: Probe, now: float) -> None:
        node.fail_probe(probe, self._health.unhealthy_after)
        for record in node.deployments.values():
            if record.doubted:
                record.doubted = False
                self._step(record, Event.FAILURE, now, f"failures of one reporter and a failed probe: {probe.error}")

    def _relist(self, record: DeploymentRecord, now: float) -> None:
        node = record.node
        listed = node.passed_ever and (node.models is None or not record.names.isdisjoint(node.models))
        if node.passed_ever and not listed:
            record.seen_unlisted = True
        if listed != record.listed:
            # What was seen loading is cold; what is listed at the first look may have run for days.
            if listed and record.seen_unlisted:
                self._start_slowly(record, now)
            record.listed = listed
            self._view.urge(record)
            self.version += 1

    def observe_metrics(self, node: str, metrics: EngineMetrics, now: float) -> None:
        """Takes a metrics page; what was counted since the page before becomes rates and quantiles."""
        record = self._nodes.get(node)
        if record is None:
            return
        if self.on_metrics is not None:
            self.on_metrics(node, metrics)
        if take_metrics(record, metrics, now):
            self._load_changed(record, now)

    def observe_load(self, node: str, load: Load, now: float) -> None:
        """Takes a heartbeat's load. What it does not tell stays what the metrics page said."""
        record = self._nodes.get(node)
        if record is not None:
            record.load = load
            record.load_at = now
            self._load_changed(record, now)

    def _load_changed(self, node: NodeRecord, now: float) -> None:
        load = freshest(node, now)
        queue, kv = load.queue_depth, load.kv_cache_utilization
        if self.on_load is not None:
            self.on_load(node.spec.name, load.running_requests, queue, now)
        overloaded = (queue is not None and queue > self._health.degraded_queue_depth) or (
            kv is not None and kv > self._health.degraded_kv_cache_utilization
        )
        if overloaded or node.overloaded:
            node.overloaded = overloaded
            self._regrade(node, now)
        self._stale(node)

    def observe_outcome(self, deployment: str, outcome: Outcome, now: float, *, reporter: str = "") -> None:
        """Counts how an attempt went. `reporter` is the tenant that tells, where callers are authenticated: one of
        them alone does not open a circuit for the others while probes pass."""
        record = self._deployments.get(deployment)
        if record is None:
            return
        record.hear()
        match outcome.phase, outcome.result:
            case Phase.FIRST_TOKEN, _:
                first_token(record, outcome, now)
                self._active(record)
            case Phase.FINISHED, Result.OK:
                record.outcomes.observe(bad=False, now=now)
                answered(record, outcome, now)
                record.failing_reporter = ""
                record.doubted = False
                self._step(record, Event.SUCCESS, now)
                self._active(record)
            case Phase.FINISHED, Result.SERVER_ERROR | Result.TIMEOUT | Result.UNREACHABLE as result:
                self._failed(record, result, reporter, now)
                self._active(record)
            case Phase.FINISHED, Result.OVERLOADED:
                # Load, not death, and no answer either: it counts neither way, and its milliseconds are no latency.
                record.outcome_at = now
                record.spoil()
            case _:
                return  # a caller's own error, or its change of mind
        if record.node.grade is not record.node.known_grade:
            self._regrade(record.node, now)

    def _failed(self, record: DeploymentRecord, result: Result, reporter: str, now: float) -> None:
        event, why, doubtful = failed(record, result, reporter, self._health, self._circuit, now)
        if doubtful:
            record.doubted = True
            self._want_probe(record.node)
        else:
            self._step(record, event, now, why)
        if record.node.grade is Grade.HEALTHY:
            self._regrade(record.node, now)

    def observe_suspicion(self, deployment: str, suspicion: float, now: float) -> None:
        """Takes how much later than predicted answers come, as the router saw it: 1 is as predicted, 50 the most."""
        record = self._deployments.get(deployment)
        if record is None:
            return
        record.suspicion = min(max(suspicion, 1.0), MAX_SUSPICION)
        record.suspicion_at = now
        suspicious = record.suspicion > self._health.degraded_suspicion
        if suspicious != (record.node.grade is Grade.DEGRADED):
            self._regrade(record.node, now)

    # --- what time brings

    def tick(self, now: float) -> None:
        """Does what has become due: circuits half-open, ejections begin and end, old grades become UNKNOWN."""
        for _ in range(MAX_DUE_PER_TICK):
            if not self._timers or self._timers[0][0] > now:
                break
            at, _, node = heapq.heappop(self._timers)
            if node.timer_at != at or self._nodes.get(node.spec.name) is not node:
                continue
            node.timer_at = inf
            if 0.0 < node.ejected_until <= now:
                node.ejected_until = 0.0
                self._changed(node)
            for record in node.deployments.values():
                self._step(record, Event.TICK, now)
                if 0.0 < record.ejected_until <= now:
                    self._end_ejection(record)
            self._regrade(node, now)
        for pool in self._pools.values():
            if pool.active and now >= pool.look_at:
                pool.look_at = now + min(max(LOOK_SECONDS, len(pool.active) / ACTIVE_PER_LOOK_SECOND), MAX_LOOK_SECONDS)
                for record in eject_outliers(pool, self._circuit.max_ejected_ratio, now):
                    record.ejection_epoch += 1
                    self._changed(record.node)
                    self._schedule(record.node, record.ejected_until)

    def _end_ejection(self, record: DeploymentRecord) -> None:
        end_ejection(record)
        self._changed(record.node)

    # --- what is asked

    def deployment(self, name: str, now: float) -> DeploymentHealth:
        """Raises NotFound."""
        record = self._record(name)
        self._explain(record.node, now)
        return render(record, self._health, now)

    def view(self, now: float) -> Mapping[str, DeploymentHealth]:
        """All deployments by name, as a roll; figures may be about a second old, all that `version` counts is not."""
        return self._view.view(now)

    def refresh(self, now: float, most: int) -> int:
        """Renders figures for the next view, so many at most; how many it were."""
        return self._view.refresh(now, most)

    def node(self, name: str, now: float) -> NodeStatus:
        """Raises NotFound."""
        record = self._node(name)
        self._explain(record, now)
        return status(record, self._health, now)

    def node_names(self) -> tuple[str, ...]:
        """All nodes that are known, in the order of their names."""
        return tuple(sorted(self._nodes))

    def settled(self, name: str) -> bool:
        """Whether the last probe of a node passed and listed each of its models: another would tell nothing new."""
        node = self._nodes.get(name)
        return (
            node is not None
            and node.passed > 0
            and not node.unhealthy
            and all(record.listed for record in node.deployments.values())
        )

    def undecided(self, name: str) -> bool:
        """Whether the next probe should come soon: the last one failed or passed, and did not yet decide."""
        node = self._nodes.get(name)
        if node is None:
            return False
        if node.failed:
            return not node.unhealthy and not (node.loading and not node.passed_ever)
        return node.unhealthy

    # --- what operators do

    def reset_circuit(self, deployment: str, now: float) -> None:
        """Closes a circuit and forgets its failures and trips. Raises NotFound."""
        record = self._record(deployment)
        record.outcomes.clear()
        record.failing_reporter = ""
        record.doubted = False
        epoch = record.epoch
        self._step(record, Event.RESET, now)
        # One that was closed already is told of too: elsewhere it may be open.
        record.epoch = epoch + 1
        self.version += 1
        self._regrade(record.node, now)

    def eject(self, node: str, now: float, seconds: float) -> None:
        """Leaves a node out until `seconds` from now, whatever its health. Raises NotFound."""
        record = self._node(node)
        record.ejected_until = now + seconds
        record.ejection_epoch += 1
        self._changed(record)
        self._schedule(record, record.ejected_until)

    def restore(self, node: str, now: float) -> None:
        """Takes every ejection of a node and its deployments back. Raises NotFound."""
        record = self._node(node)
        record.ejected_until = 0.0
        record.ejection_epoch += 1
        for deployment in record.deployments.values():
            if deployment.ejected_until:
                deployment.ejection_epoch += 1
                self._end_ejection(deployment)
        self._changed(record)

    # --- what replicas tell each other

    def circuits(self, now: float) -> Mapping[str, CircuitWord]:
        """All circuits that ever moved, by deployment."""
        return circuit_words(self._deployments.values(), now)

    def tripped(self) -> Mapping[str, bool]:
        """Circuits that are not closed, by deployment: whether they are half-open."""
        found = ((record.name, record.circuit) for record in self._deployments.values())
        return {name: isinstance(circuit, HalfOpen) for name, circuit in found if not isinstance(circuit, Closed)}

    def ejections(self, now: float) -> Mapping[str, EjectionWord]:
        """All that ever were ejected, by name."""
        return ejection_words(self._nodes.values(), self._deployments.values(), now)

    def last_probes(self, now: float) -> list[Probe]:
        """The last health check of every node that was checked within two intervals."""
        since = now - 2.0 * self._health.probe_interval_seconds
        return [last_probe(node) for node in self._nodes.values() if node.probe_at >= since]

    def hear_circuit(self, word: CircuitWord, now: float) -> None:
        """Takes over what a replica says of a circuit, where its word counts."""
        record = self._deployments.get(word.deployment)
        heard = None if record is None else circuit_by(word, record, now)
        if record is None or heard is None:
            return
        opens_total = max(record.opens_total, word.opens_total)
        self._move(record, heard, now, word.reason)
        record.epoch, record.opens_total = word.epoch, opens_total
        self.version += 1
        self._schedule(record.node, next_change(heard, self._circuit))

    def hear_ejection(self, word: EjectionWord, now: float) -> None:
        """Takes over what a replica says of an ejection, where its word counts and the pool has room for it."""
        record = self._nodes.get(word.name) or self._deployments.get(word.name)
        if record is None or not ejection_counts(word, record, now):
            return
        until = now + word.remaining_seconds if word.remaining_seconds > 0.0 else 0.0
        if isinstance(record, DeploymentRecord):
            limit = self._circuit.max_ejected_ratio
            if until and not has_room(self._pools[record.model_id], record, limit, now):
                return
            if record.ejected_until and not until:
                self._end_ejection(record)
            record.ejections, record.ejection_reason = word.ejections, word.reason
        record.ejected_until, record.ejection_epoch = until, word.epoch
        node = record if isinstance(record, NodeRecord) else record.node
        self._changed(node)
        if until:
            self._schedule(node, until)

    def observe_answers(self, deployment: str, count: int, now: float) -> None:
        """Counts answers that went well and of which nothing more is known."""
        record = self._deployments.get(deployment)
        if record is None:
            return
        record.hear()
        for _ in range(count):
            record.outcomes.observe(bad=False, now=now)
        self._step(record, Event.SUCCESS, now)

    # --- below

    def _record(self, name: str) -> DeploymentRecord:
        if (record := self._deployments.get(name)) is None:
            raise NotFound("deployment", name)
        return record

    def _node(self, name: str) -> NodeRecord:
        if (node := self._nodes.get(name)) is None:
            raise NotFound("node", name)
        return node

    def _step(self, record: DeploymentRecord, event: Event, now: float, why: str = "") -> None:
        before = record.circuit
        jitter = self._rng.random() if event in (Event.FAILURE, Event.RATIO) else 0.0
        after = step(before, event, now, self._circuit, jitter)
        if after is not before:
            if type(after) is not type(before):
                record.epoch += not isinstance(after, HalfOpen)
            self._move(record, after, now, why)

    def _move(self, record: DeploymentRecord, after: Circuit, now: float, why: str) -> None:
        before, record.circuit = record.circuit, after
        self._view.urge(record)
        if type(after) is type(before):
            return
        match after:
            case Open():
                record.opens_total += 1
                record.circuit_reason = why
                record.outcomes.clear()
                self._want_probe(record.node)
            case Closed():
                self._start_slowly(record, now)
                record.failing_reporter = ""
                record.outcomes.clear()
        self.version += 1
        self._schedule(record.node, next_change(after, self._circuit))
        if isinstance(after, Closed):
            self._regrade(record.node, now)

    def _start_slowly(self, record: DeploymentRecord, now: float) -> None:
        """It is well again: from here on the ramp is the caution, where suspicion would outlast it by a minute."""
        record.ramp_since = now
        record.suspicion = 1.0
        # What its failures counted as would be its predicted latency until they are a minute old.
        record.forget_latency()
        if self.on_slow_start is not None:
            self.on_slow_start(record.name)

    def _regrade(self, node: NodeRecord, now: float) -> None:
        found = evidence(node, self._health, now)
        known, shown, reason = grade(found, self._health)
        node.known_grade = known
        node.reason = reason
        if shown is not node.grade:
            node.grade = shown
            self._changed(node)
        else:
            self._stale(node)
        at = inf
        if shown in (Grade.HEALTHY, Grade.DEGRADED):
            at = node.fresh_at + unknown_after(self._health.probe_interval_seconds)
        # Lateness, errors and queues fade without any news.
        if known is Grade.DEGRADED or found.error_ratio:
            at = min(at, now + LOOK_SECONDS)
        for record in node.deployments.values():
            at = min(at, next_change(record.circuit, self._circuit), record.ejected_until or inf)
        # Never at once: a rounding error would make tick() look for ever.
        self._schedule(node, max(now + 1e-3, min(at, node.ejected_until or inf)))

    def _explain(self, node: NodeRecord, now: float) -> None:
        """Brings the figures in a reason up to now; the grade itself is changed by events and ticks only."""
        _, shown, reason = grade(evidence(node, self._health, now), self._health)
        if shown is node.grade:
            node.reason = reason

    def _schedule(self, node: NodeRecord, at: float) -> None:
        if at < node.timer_at:
            node.timer_at = at
            heapq.heappush(self._timers, (at, next(self._order), node))

    def _changed(self, node: NodeRecord) -> None:
        self.version += 1
        for record in node.deployments.values():
            self._view.urge(record)

    def _stale(self, node: NodeRecord) -> None:
        for record in node.deployments.values():
            record.spoil()

    def _active(self, record: DeploymentRecord) -> None:
        self._pools[record.model_id].active.add(record)

    def _want_probe(self, node: NodeRecord) -> None:
        if self.on_probe_wanted is not None:
            self.on_probe_wanted(node.spec.name)
