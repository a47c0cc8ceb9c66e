"""What replicas of a region tell each other of circuits and ejections, and which of two words counts.

Every replica steps its circuits by the same outcomes, so that they mostly agree by themselves. Where they do not, since
an outcome was lost or came in another order, the word with the larger epoch counts: an epoch is how often a circuit
opened, closed or was reset, or a node was ejected or restored. Taking a word over twice, or in another order, comes to
the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

from federation.health.records import DeploymentRecord, NodeRecord, PoolRecord, Probe
from policies.circuit import Circuit, Closed, Open

# Two words of one ejection differ by what their way took; only more than that is another one.
SAME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CircuitWord:
    """A circuit as one replica has it. Spans, not moments: the clocks of two machines never meet."""

    deployment: str
    epoch: int
    # Open or half-open.
    open: bool = False
    # Seconds until it admits a trial.
    remaining_seconds: float = 0.0
    trips: int = 0
    opens_total: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EjectionWord:
    """A node (by an operator) or a deployment (as an outlier) that is left out, or no longer (0 seconds)."""

    name: str
    epoch: int
    remaining_seconds: float = 0.0
    ejections: int = 0
    reason: str = ""


def circuit_words(records: Iterable[DeploymentRecord], now: float) -> dict[str, CircuitWord]:
    """Of all circuits that ever moved, by deployment."""
    return {record.name: _circuit_word(record, now) for record in records if record.epoch}


def _circuit_word(record: DeploymentRecord, now: float) -> CircuitWord:
    circuit = record.circuit
    return CircuitWord(
        record.name,
        record.epoch,
        open=not isinstance(circuit, Closed),
        remaining_seconds=max(0.0, circuit.until - now) if isinstance(circuit, Open) else 0.0,
        trips=circuit.trips,
        opens_total=record.opens_total,
        reason=record.circuit_reason,
    )


def ejection_words(
    nodes: Iterable[NodeRecord], deployments: Iterable[DeploymentRecord], now: float
) -> dict[str, EjectionWord]:
    """Of all nodes and deployments that ever were ejected, by name."""
    told = [
        EjectionWord(node.spec.name, node.ejection_epoch, max(0.0, node.ejected_until - now))
        for node in nodes
        if node.ejection_epoch
    ]
    told += [
        EjectionWord(
            record.name,
            record.ejection_epoch,
            max(0.0, record.ejected_until - now),
            record.ejections,
            record.ejection_reason,
        )
        for record in deployments
        if record.ejection_epoch
    ]
    return {word.name: word for word in told}


def last_probe(node: NodeRecord) -> Probe:
    """What the last health check of a node found, for a replica that has only started."""
    latency = node.probe_seconds[-1] if node.probe_seconds else 0.0
    return Probe(node.spec.name, not node.failed, latency, node.models, node.error, node.loading)


def circuit_by(word: CircuitWord, record: DeploymentRecord, now: float) -> Circuit | None:
    """The circuit that a replica's word makes of a record; None where the record's own counts."""
    if (word.epoch, word.open) <= (record.epoch, not isinstance(record.circuit, Closed)):
        return None
    if word.open:
        return Open(now + word.remaining_seconds, word.trips)
    return Closed(0, word.trips, now)


def ejection_counts(word: EjectionWord, record: NodeRecord | DeploymentRecord, now: float) -> bool:
    """Whether a replica's word on an ejection stands in place of our own."""
    if word.epoch == record.ejection_epoch:
        return word.remaining_seconds > max(0.0, record.ejected_until - now) + SAME_SECONDS
    return word.epoch > record.ejection_epoch


def has_room(pool: PoolRecord, without: DeploymentRecord, max_ejected_ratio: float, now: float) -> bool:
    """Whether one more of a pool may be ejected: two replicas that eject at once must not exceed the share together."""
    out = sum(
        1
        for each in pool.members.values()
        if each is not without and max(each.ejected_until, each.node.ejected_until) > now
    )
    return out < max(1, floor(len(pool.members) * max_ejected_ratio))
