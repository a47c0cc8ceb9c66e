"""What replicas of a region say to each other, as frozen values; `wire.py` turns them into peering.proto and back."""

from __future__ import annotations

from dataclasses import dataclass

from federation.health.engines.page import EngineMetrics
from federation.health.records import Load, Probe
from federation.health.sharing import CircuitWord, EjectionWord
from federation.peering.messages import Close, Goodbye, Send
from policies.types import Outcome


@dataclass(frozen=True, slots=True)
class Life:
    """A replica in one of its lives. Only replicas know the incarnation of another: it stands in their database."""

    replica_id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of each side; `to_incarnation` is the receiver's, and proves that the sender is a replica."""

    me: Life
    to_incarnation: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat that a node sent to this replica; None: it told no load."""

    node: str
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Witnessed:
    """An outcome that this replica took, of a deployment by its name."""

    deployment: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Sum:
    """What a replica has under way at a deployment."""

    deployment: str
    pending_tokens: float
    in_flight: float


@dataclass(frozen=True, slots=True)
class News:
    """What a replica learned since its last news. `sent_at` is its own clock: only differences mean something."""

    sequence: int = 0
    echo: int = 0
    sent_at: float = 0.0
    beats: tuple[Beat, ...] = ()
    probes: tuple[Probe, ...] = ()
    # (node, page)
    metrics: tuple[tuple[str, EngineMetrics], ...] = ()
    outcomes: tuple[Witnessed, ...] = ()
    # (deployment, how many more answers went well)
    answers: tuple[tuple[str, int], ...] = ()
    circuits: tuple[CircuitWord, ...] = ()
    ejections: tuple[EjectionWord, ...] = ()
    # (deployment, level)
    suspicions: tuple[tuple[str, float], ...] = ()
    sums: tuple[Sum, ...] = ()
    # Deployments with a trial under way, and those whose trials are the receiver's now.
    trials: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    # Outcomes of decisions that the receiver made.
    reports: tuple[Outcome, ...] = ()


Message = Hello | News | Goodbye


@dataclass(frozen=True, slots=True)
class Met:
    """The sibling said who it is, and is one."""

    life: Life


@dataclass(frozen=True, slots=True)
class Heard:
    """Take over what it learned; `age_seconds` is what the news waited on its way."""

    news: News
    age_seconds: float


Effect = Send | Met | Heard | Close
