"""What a policy is: exchange rates between seconds, dollars and health, bounds, a picker, and rules.

Each score is a straight line between a good point (1.0) and a poor point (0.0), so a policy orders candidates like a
sum of seconds: `seconds_per_point` says how many seconds of latency one point of the composite is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from catalog.types import PrivacyLevel


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through (good, 1.0) and (poor, 0.0); it goes on beyond both."""

    good: float
    poor: float

    @property
    def slope(self) -> float:
        """Points per unit; negative where less is better."""
        return 1.0 / (self.good - self.poor)


@dataclass(frozen=True, slots=True)
class Weights:
    latency: float = 1.0
    throughput: float = 0.1
    cost: float = 1.0
    locality: float = 0.1
    health: float = 2.0

    @property
    def total(self) -> float:
        return self.latency + self.throughput + self.cost + self.locality + self.health


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for requests of this policy; a request's own bound holds where it is tighter."""

    max_latency_seconds: float | None = None
    max_time_to_first_token_seconds: float | None = None
    min_throughput_tokens_per_second: float | None = None
    max_price_usd_per_million_tokens: float | None = None
    min_privacy_level: PrivacyLevel | None = None
    # Only regions in one of these; empty: any.
    jurisdictions: tuple[str, ...] = ()
    # Only the jurisdictions of the origin's region: a request never leaves home law.
    home_jurisdiction: bool = False


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is taken of a request or deployment that says nothing. They order, they never satisfy a bound."""

    input_tokens: int = 512
    output_tokens: int = 256
    prefill_seconds_per_token: float = 0.000_5
    min_time_to_first_token_seconds: float = 0.1
    decode_tokens_per_second: float = 20.0
    max_batch_size: int = 32
    # A round trip between regions that was neither measured nor can be estimated from coordinates.
    round_trip_seconds: float = 0.25
    # A streamed token with its JSON around it; what leaves the region and is paid for.
    egress_bytes_per_output_token: float = 200.0
    egress_price_usd_per_gb: float = 0.09


@dataclass(frozen=True, slots=True)
class Match:
    """When a rule applies; all that is set must hold. Empty matches everything."""

    models: tuple[str, ...] = ()  # Globs.
    capabilities: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()  # Globs.
    origins: tuple[str, ...] = ()  # Globs of region ids.
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    min_input_tokens: int | None = None
    max_input_tokens: int | None = None
    min_priority: int | None = None
    max_priority: int | None = None
    # Minutes of the UTC day, [from, to); wraps over midnight where from > to. Weekdays: 0 is Monday; empty: all.
    day_minutes: tuple[int, int] | None = None
    weekdays: tuple[int, ...] = ()
    # Mean share of batch places in use over the request's candidates.
    min_utilization: float | None = None
    max_utilization: float | None = None
    # In the Common Expression Language, over `request`, `now` and `fleet`; see `expressions.py`.
    expression: str = ""

    @property
    def reads_utilization(self) -> bool:
        return self.min_utilization is not None or self.max_utilization is not None or "fleet" in self.expression


@dataclass(frozen=True, slots=True)
class Narrow:
    """Which candidates remain; all that is set must hold."""

    regions: tuple[str, ...] = ()  # Globs.
    exclude_regions: tuple[str, ...] = ()
    node_labels: tuple[tuple[str, str], ...] = ()
    engines: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()  # Globs.


@dataclass(frozen=True, slots=True)
class Split:
    """A share of requests that goes to one of several narrowings, by a hash of the request's key."""

    percent: float
    narrow: Narrow = Narrow()
    # Another model, of the same equivalence class. Which model answers is the caller's to say: requests that do not
    # allow substitutes keep theirs, within this narrowing.
    model_id: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """First match wins; its actions change how this one request is decided."""

    name: str
    match: Match = Match()
    narrow: Narrow | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    picker: str = ""
    rewrite_model: str = ""
    # Decides the requests that match a second time, under this policy, and only tells what it would have done.
    shadow_policy: str = ""
    split: tuple[Split, ...] = ()
    refuse: str = ""


class WhenExhausted(Enum):
    """What becomes of a tenant's requests once its budget is spent."""

    REFUSE = "refuse"
    # They go on where they are cheapest, and are the first to be shed.
    DEMOTE = "demote"


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars that each tenant of these names may spend; days and months are those of UTC."""

    tenants: tuple[str, ...]  # Globs; `*` is everybody, also requests that name no tenant.
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    when_exhausted: WhenExhausted = WhenExhausted.REFUSE


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a short capacity each tenant of these names gets, next to others; the first that matches counts."""

    tenants: tuple[str, ...]  # Globs.
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ShedStep:
    """Requests up to a priority are shed from a utilization on, and all of them where the next step begins."""

    up_to_priority: int
    from_utilization: float


@dataclass(frozen=True, slots=True)
class Shed:
    """Whom to refuse when capacity is short. Utilization is the used share of the room of who may serve a request.

    Room is `max_concurrency` where that is declared and less, else a batch and a half: a short queue keeps an engine
    busy, a longer one only makes everybody wait.
    """

    # By priority, lowest first. Whoever is above the last step is never shed.
    steps: tuple[ShedStep, ...] = (ShedStep(-1, 0.70), ShedStep(0, 0.85), ShedStep(1_000, 0.95))
    # Where the last step's are all shed.
    full_utilization: float = 1.0
    # The room is full, too, where three quarters of its nodes would start a prefill only after this. Absent: waits do
    # not count. Long prompts fill queues long before they fill batches.
    full_wait_seconds: float | None = None


# In a region order: the region that a request comes from.
HOME_FIRST = "home_first"


@dataclass(frozen=True, slots=True)
class Spillover:
    """In which order regions are used, and how work moves from one tier to the next and back."""

    # "home_first", or globs of region ids, the first tier first; regions that none of them names come last.
    region_order: tuple[str, ...] = (HOME_FIRST,)
    # A tier has all the work until less than 1 / this of its capacity is healthy.
    overprovisioning: float = 1.4
    # Used share of a tier's healthy room from which work goes on to the next. Above, queues form.
    full_utilization: float = 0.9
    # Share of all work that may leave a tier in a minute though it has room; what has none leaves at once.
    max_shift_per_minute: float = 0.5
    # Over how long all work comes back to a tier that is well again.
    failback_seconds: float = 120.0
    # A smaller change of shares is not made.
    hysteresis: float = 0.05


@dataclass(frozen=True, slots=True)
class Policy:
    """How candidates are compared, and what is never allowed. Defaults are those of the preset `balanced`."""

    policy_id: str = "balanced"
    revision: int = 0
    description: str = ""
    weights: Weights = Weights()
    # Seconds to the first token at the caller.
    latency: Line = Line(good=0.0, poor=5.0)
    # Tokens per second that the request would see.
    throughput: Line = Line(good=100.0, poor=0.0)
    # US dollars for this request.
    cost: Line = Line(good=0.0, poor=0.10)
    # Milliseconds of round trip at which locality is worth nothing; same zone is 1.0, same region 0.95.
    locality_poor_ms: float = 300.0
    # Added to the locality score in a jurisdiction of the origin.
    jurisdiction_bonus: float = 0.0
    picker: str = "predicted"
    # Candidates this close to the best in predicted time are as good as it: the draw is among them.
    near_seconds: float = 0.020
    near_ratio: float = 0.05
    max_candidates: int = 10
    # Candidates under this composite are left out, where 1 is everybody's best. Judged without suspicion, and of a
    # request that is cut to the length that `assume` gives those that tell none: what a long one costs wherever it
    # goes says nothing of who would serve it.
    min_score: float = 0.1
    # For requests that do not say how many they want.
    max_alternatives: int = 3
    bounds: Bounds = Bounds()
    assume: Assumptions = Assumptions()
    # How much a full batch slows a prefill beside it: the factor is 1 + this at a full batch.
    batch_slowdown: float = 0.5
    panic_threshold: float = 0.5
    session_ttl_seconds: float = 300.0
    # A deployment that recovered gets only new sessions for so long; sessions that must move go elsewhere.
    promotion_hold_seconds: float = 60.0
    prefix_affinity: bool = True
    # A caller may use a decision for so long; longer ones act on older knowledge.
    valid_for_seconds: float = 5.0
    rules: tuple[Rule, ...] = ()
    # A second policy that decides a share of the requests beside this one, and only tells what it would have done.
    shadow_policy: str = ""
    shadow_percent: float = 100.0
    budgets: tuple[Budget, ...] = ()
    # Tenants that no share names have weight 1. Empty: tenants are not told apart when capacity is short.
    shares: tuple[Share, ...] = ()
    # Absent: nothing is shed before nobody has room; with shares, the defaults of `Shed`.
    shed: Shed | None = None
    # Absent: no region comes first; the round trip is one term of the sum.
    spillover: Spillover | None = None
    # Names of scorers, filters and pickers of other packages, with the scorers' weights.
    extra_filters: tuple[str, ...] = ()
    extra_scorers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shedding(self) -> Shed | None:
        """How requests are shed; None: not at all."""
        return Shed() if self.shed is None and self.shares else self.shed

    @property
    def latency_points_per_second(self) -> float:
        """How much a second to the first token takes from the weighted sum, before it is divided by all weights."""
        return -self.weights.latency * self.latency.slope
