"""The values that deciding is about: requests, candidates, rejections, decisions.

Seconds, tokens and US dollars throughout. None is unknown: a filter refuses it, a scorer gives it the worst it can
honestly be, nothing treats it as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from catalog.types import PrivacyLevel

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Explain(Enum):
    NONE = "none"
    SUMMARY = "summary"
    FULL = "full"


class Code(Enum):
    """Why a candidate was left out; the names are those of the wire's RejectionCode."""

    NOT_READY = 1
    LEASE_EXPIRED = 2
    DRAINING = 3
    UNHEALTHY = 4
    CIRCUIT_OPEN = 5
    EJECTED = 6
    AT_CAPACITY = 7
    MODEL_MISMATCH = 8
    CAPABILITY_MISSING = 9
    CONTEXT_TOO_LONG = 10
    PRIVACY = 11
    JURISDICTION = 12
    TENANT = 13
    REGION_EXCLUDED = 14
    NODE_EXCLUDED = 15
    LABELS = 16
    LATENCY_BOUND = 17
    TTFT_BOUND = 18
    THROUGHPUT_BOUND = 19
    PRICE_BOUND = 20
    BELOW_MIN_SCORE = 21
    PEER_LEASE_EXPIRED = 22
    RULE = 23


class Kind:
    """Stands for a shape of requests in look-ups, where to hash and compare the shape itself would cost more."""

    __slots__ = ()


# Shapes that were met. More than this are forgotten all at once; then they get other kinds, and look-ups miss once.
MAX_KINDS = 65_536
_KINDS: dict[tuple[object, ...], Kind] = {}


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """A request to be placed: what the caller needs and allows, and the shape of the prompt, never the prompt."""

    model_id: str = ""
    capability: str = ""
    adapter: str = ""
    request_id: str = ""
    origin_region: str = ""
    origin_zone: str = ""
    tenant_id: str = ""
    session_id: str = ""
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    max_latency_seconds: float | None = None
    max_time_to_first_token_seconds: float | None = None
    min_throughput_tokens_per_second: float | None = None
    privacy_level: PrivacyLevel = PrivacyLevel.INTERNAL
    prefer_gpu: bool = False
    cost_tolerance: float = 50.0
    max_price_usd_per_million_tokens: float | None = None
    input_tokens: int | None = None
    max_output_tokens: int | None = None
    prefix_hashes: tuple[int, ...] = ()
    prefix_block_tokens: int = 512
    only_regions: tuple[str, ...] = ()
    exclude_regions: tuple[str, ...] = ()
    jurisdictions: tuple[str, ...] = ()
    exclude_nodes: tuple[str, ...] = ()
    node_labels: tuple[tuple[str, str], ...] = ()
    allow_substitutes: bool = False
    policy_id: str = ""
    # None: as many as the policy says.
    max_alternatives: int | None = None
    explain: Explain = Explain.SUMMARY
    # It came by the ingress of a region from abroad, and must not leave again.
    forwarded: bool = False
    _shape: tuple[object, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _kind: Kind | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def hash_key(self) -> str:
        """What consistent hashing goes by: the session, else the prompt's first block, else the tenant, else the id."""
        if self.session_id:
            return self.session_id
        return f"{self.prefix_hashes[0]:x}" if self.prefix_hashes else self.tenant_id or self.request_id

    @property
    def session_key(self) -> str:
        """Sessions of different tenants or models never meet."""
        return f"{self.tenant_id}\0{self.model_id or self.capability}\0{self.session_id}"

    @property
    def shape(self) -> tuple[object, ...]:
        """All that requests of one kind share: what filters and weights read, without prompt, session and names."""
        if self._shape is None:
            object.__setattr__(
                self,
                "_shape",
                (
                    self.model_id,
                    self.capability,
                    self.origin_region,
                    self.origin_zone,
                    self.policy_id,
                    self.privacy_level,
                    self.tenant_id,
                    self.adapter,
                    self.cost_tolerance,
                    self.jurisdictions,
                    self.only_regions,
                    self.exclude_regions,
                    self.exclude_nodes,
                    self.node_labels,
                    self.allow_substitutes,
                    self.prefer_gpu,
                    self.max_latency_seconds,
                    self.max_time_to_first_token_seconds,
                    self.min_throughput_tokens_per_second,
                    self.max_price_usd_per_million_tokens,
                    self.forwarded,
                ),
            )
        assert self._shape is not None
        return self._shape

    @property
    def kind(self) -> Kind:
        """One object for all requests of one shape, as long as they are met."""
        found = self._kind
        if found is None:
            found = _KINDS.get(self.shape)
            if found is None:
                if len(_KINDS) >= MAX_KINDS:
                    _KINDS.clear()
                found = _KINDS[self.shape] = Kind()
            object.__setattr__(self, "_kind", found)
        return found


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate was left out: the rule, what was asked, what was found ("" is unknown)."""

    code: Code
    message: str
    bound: str = ""
    actual: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """Places on the policy's lines, clipped to 0..1, as they are shown."""

    latency: float = 0.0
    throughput: float = 0.0
    cost: float = 0.0
    locality: float = 0.0
    health: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of a composite; the contributions of a candidate's terms add up to its total."""

    name: str
    value: float | None
    unit: str
    points: float
    weight: float
    contribution: float
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A place to send a request to, with what is expected of it."""

    region_id: str
    node_id: str
    model_id: str
    deployment: str
    served_model_name: str
    endpoint: str
    via_gateway: bool = False
    zone: str = ""
    estimated_latency_seconds: float | None = None
    estimated_time_to_first_token_seconds: float | None = None
    # Nine of ten first tokens come between these, going by how far predictions for the deployment were off.
    earliest_time_to_first_token_seconds: float | None = None
    latest_time_to_first_token_seconds: float | None = None
    estimated_cost_usd: float | None = None
    score: float = 0.0
    scores: Scores = Scores()
    substitution_differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment as one request sees it, kept or rejected, with every term; `total` is not clipped."""

    choice: Choice
    rejection: Rejection | None = None
    terms: tuple[Term, ...] = ()
    signal_ages: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    total: float = 0.0

    @property
    def eligible(self) -> bool:
        return self.rejection is None


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage of the pipeline did."""

    name: str
    detail: str
    remaining: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes, why, and what else was possible, with the values read when it was made."""

    decision_id: str
    target: Choice
    alternatives: tuple[Choice, ...]
    reasoning: str
    policy_id: str
    policy_revision: int
    strategy: str
    stages: tuple[Stage, ...]
    considered: int
    rejected: Mapping[str, int]
    table_revision: int
    table_age_seconds: float
    stale_regions: tuple[str, ...]
    panic: bool
    valid_for_seconds: float
    decide_time: float  # Unix seconds.
    rule: str = ""
    candidates: tuple[Candidate, ...] = ()
    catalog_age_seconds: float = 0.0


class Phase(Enum):
    STARTED = "started"
    FIRST_TOKEN = "first_token"
    FINISHED = "finished"


class Result(Enum):
    """How an attempt went. A CLIENT_ERROR and a CANCELLED say nothing about the node; OVERLOADED is load, not death."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    CANCELLED = "cancelled"

    @property
    def is_failure(self) -> bool:
        return self in (Result.SERVER_ERROR, Result.TIMEOUT, Result.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gateway tells of one attempt. (decision_id, attempt, phase) is its idempotency key."""

    decision_id: str
    attempt: int = 0
    phase: Phase = Phase.FINISHED
    result: Result | None = None
    region_id: str = ""
    node_id: str = ""
    model_id: str = ""
    event_time: float | None = None  # Unix seconds.
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
