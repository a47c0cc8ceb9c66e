"""What peers say, as frozen values; `wire.py` turns them into messages of peering.proto and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from catalog.types import Model, Node, Region
from policies.health import CircuitView, Grade

NO_REGIONS: Mapping[str, Region] = MappingProxyType({})
NO_MODELS: Mapping[str, Model] = MappingProxyType({})
NO_NODES: Mapping[str, Node] = MappingProxyType({})
CLOSED = CircuitView()


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one control plane tells another at a revision of its log, by name."""

    revision: int = 0
    regions: Mapping[str, Region] = field(default_factory=lambda: NO_REGIONS)
    models: Mapping[str, Model] = field(default_factory=lambda: NO_MODELS)
    nodes: Mapping[str, Node] = field(default_factory=lambda: NO_NODES)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a control plane is: its region, what it owns, which life of its log it lives, the law of its region, and its
    version ("": not said), which is for people."""

    region_id: str
    owned_regions: tuple[str, ...]
    incarnation: str
    jurisdictions: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message; `applied_*` say how far the sender got with the receiver's log ("" and 0: not at all)."""

    identity: Identity
    applied_incarnation: str = ""
    applied_revision: int = 0
    lease_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Update:
    """One part of a snapshot (`from_revision` is None) or of a delta."""

    from_revision: int | None
    to_revision: int
    part: int = 0
    complete: bool = True
    regions: tuple[Region, ...] = ()
    models: tuple[Model, ...] = ()
    nodes: tuple[Node, ...] = ()
    removed_regions: tuple[str, ...] = ()
    removed_models: tuple[str, ...] = ()
    removed_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeploymentReport:
    """What an owner knows of a deployment. Spans, not moments: the clocks of two machines never meet."""

    model_id: str
    grade: Grade = Grade.UNKNOWN
    ready: bool = False
    score: float = 0.3
    circuit: CircuitView = CLOSED
    # Seconds until the circuit lets a trial through, and until the ejection ends; 0: neither.
    retry_after_seconds: float = 0.0
    ejected_seconds: float = 0.0
    latency_p50_seconds: float | None = None
    prefill_seconds_per_token: float | None = None
    min_time_to_first_token_seconds: float | None = None
    decode_tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What an owner knows of a node."""

    node: str
    deployments: tuple[DeploymentReport, ...] = ()
    running_requests: float | None = None
    queue_depth: float | None = None
    kv_cache_utilization: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """Nodes whose reports changed since the summary before; the first of a session tells all."""

    sequence: int
    reports: tuple[NodeReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    applied_revision: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """See PeerHeartbeat: numbers to echo, and how far each side is, so that what was lost shows up as a gap."""

    sequence: int = 0
    echo: int = 0
    told_revision: int = 0
    applied_revision: int = 0
    told_summary: int = 0


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: str
    refused: bool = False


Message = Hello | Update | Summary | Ack | Heartbeat | Goodbye


@dataclass(frozen=True, slots=True)
class Replacement:
    """A complete update as it is applied: all of a snapshot, or the changes of a delta."""

    revision: int
    # Whether everything that was known before is replaced.
    whole: bool
    regions: Mapping[str, Region] = field(default_factory=lambda: NO_REGIONS)
    models: Mapping[str, Model] = field(default_factory=lambda: NO_MODELS)
    nodes: Mapping[str, Node] = field(default_factory=lambda: NO_NODES)
    removed_regions: frozenset[str] = field(default_factory=frozenset)
    removed_models: frozenset[str] = field(default_factory=frozenset)
    removed_nodes: frozenset[str] = field(default_factory=frozenset)


# Effects: what a session asks for, in this order; `link.py` carries them out.


@dataclass(frozen=True, slots=True)
class Send:
    """Say a message of the session's kind: of regions, or of replicas."""

    message: Any


@dataclass(frozen=True, slots=True)
class Met:
    """The peer said who it is, and may be talked to."""

    identity: Identity
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Apply:
    """Take over a complete update of the peer's log."""

    replacement: Replacement


@dataclass(frozen=True, slots=True)
class Heard:
    """What was applied before is still true: renew the lease."""


@dataclass(frozen=True, slots=True)
class Told:
    """Take over reports of the peer's nodes."""

    reports: tuple[NodeReport, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A round trip to the peer was measured."""

    round_trip_seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over. `refused`: it would be over again; loud."""

    reason: str
    refused: bool = False


Effect = Send | Met | Apply | Heard | Told | Measured | Close
