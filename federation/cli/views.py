"""What the lists show of each resource: one tuple of columns a resource, all on one page."""

from __future__ import annotations

from typing import Any

from federation.cli.figures import (
    UNKNOWN,
    count,
    duration,
    enum_word,
    money,
    optional,
    seconds_in,
    share,
    span,
)
from federation.cli.table import Column

ABSENT_STATUS = "ready"
# Of lists without a bound, in a column.
SHOWN_NAMES = 5


def node_name(node: Any) -> str:
    return f"{node.region_id}/{node.node_id}"


def deployment_name(deployment: Any) -> str:
    return f"{deployment.region_id}/{deployment.node_id}/{deployment.model_id}"


def price_per_million(price: float | None) -> str:
    """Prices per million tokens are a few dollars or cents: two digits do, a third where it is not zero."""
    if price is None:
        return UNKNOWN
    return f"{price:,.2f}" if round(price, 2) == round(price, 4) else f"{price:,.4g}"


def _node_status(node: Any) -> str:
    if node.lease_expired:
        return "expired"
    return "draining" if node.draining else "active"


def _accelerator(node: Any) -> str:
    if not node.accelerator:
        return UNKNOWN
    return f"{node.accelerator_count}x{node.accelerator}" if node.accelerator_count else str(node.accelerator)


def _lease(node: Any) -> str:
    if not node.HasField("lease_duration"):
        return "30 s"
    seconds = seconds_in(node.lease_duration)
    return duration(seconds) if seconds else "none"


def _models_of(node: Any) -> str:
    names = [each.model_id for each in node.deployments]
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}" if names else UNKNOWN


def _labels(labels: Any) -> str:
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or UNKNOWN


def _words(values: Any) -> str:
    return " ".join(values) or UNKNOWN


def _few(values: Any) -> str:
    """The first of them, and how many more."""
    more = len(values) - SHOWN_NAMES
    return _words(values[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _lag(peer: Any) -> str:
    return duration(span(peer, "lag"))


MODELS = (
    Column("MODEL", lambda m: m.model_id),
    Column("FAMILY", lambda m: " ".join(filter(None, (m.family, m.version))) or UNKNOWN),
    Column("QUANT", lambda m: m.quantization or UNKNOWN),
    Column("CONTEXT", lambda m: count(optional(m, "context_window_tokens")), right=True),
    Column("CAPABILITIES", lambda m: _words(m.capabilities), folds=True),
    Column("CLASS", lambda m: m.equivalence_class or UNKNOWN, wide=True),
    Column("ALIASES", lambda m: _words(m.aliases), wide=True, folds=True),
    Column("TOKENIZER", lambda m: m.tokenizer or UNKNOWN, wide=True),
    Column("OWNER", lambda m: m.owner or UNKNOWN, wide=True),
    Column("REVISION", lambda m: str(m.revision), right=True, wide=True),
)

NODES = (
    Column("NODE", node_name),
    Column("STATUS", _node_status),
    Column("ENGINE", lambda n: enum_word(n, "engine")),
    Column("GPU", _accelerator),
    Column("PRIVACY", lambda n: enum_word(n, "privacy_level") or "internal"),
    Column("ZONE", lambda n: n.zone or UNKNOWN, wide=True),
    Column("USD/H", lambda n: price_per_million(optional(n, "price_usd_per_hour")), right=True, wide=True),
    Column("LEASE", _lease, wide=True),
    Column("MODELS", _models_of),
    Column("ENDPOINT", lambda n: n.endpoint, spare=1),
    Column("LABELS", lambda n: _labels(n.labels), wide=True, folds=True),
    Column("OWNER", lambda n: n.owner or UNKNOWN, wide=True),
    Column("REVISION", lambda n: str(n.revision), right=True, wide=True),
)

DEPLOYMENTS = (
    Column("DEPLOYMENT", deployment_name),
    Column("STATUS", lambda d: enum_word(d, "status") or ABSENT_STATUS),
    Column("IN $/M", lambda d: price_per_million(optional(d, "price_usd_per_million_input_tokens")), right=True),
    Column("OUT $/M", lambda d: price_per_million(optional(d, "price_usd_per_million_output_tokens")), right=True),
    Column("CACHED", lambda d: price_per_million(optional(d, "price_usd_per_million_cached_tokens")), True, wide=True),
    Column("MAX", lambda d: count(optional(d, "max_concurrency")), right=True),
    Column("WEIGHT", lambda d: count(optional(d, "weight")), right=True, wide=True),
    Column("SERVED AS", lambda d: d.served_model_name or d.model_id, wide=True),
    Column("CAPABILITIES", lambda d: _words(d.capabilities), wide=True, folds=True),
    Column("ADAPTERS", lambda d: _words(d.adapters), wide=True, folds=True),
    Column("TENANTS", lambda d: _words(d.tenant_ids) if d.tenant_ids else "all", folds=True),
)

REGIONS = (
    Column("REGION", lambda r: r.region_id),
    Column("STATUS", lambda r: enum_word(r, "status") or "active"),
    Column("PROVIDER", lambda r: r.provider or UNKNOWN),
    Column("JURISDICTIONS", lambda r: _words(r.jurisdictions)),
    Column("REACH", lambda r: enum_word(r, "reach") or "direct"),
    Column("EGRESS $/GB", lambda r: money(optional(r, "egress_price_usd_per_gb")), right=True),
    Column("OWNER", lambda r: r.owner or UNKNOWN),
    Column("INGRESS", lambda r: r.ingress_endpoint or UNKNOWN, wide=True),
    Column(
        "ROUND TRIPS",
        lambda r: (
            " ".join(f"{to}={duration(seconds_in(r.round_trips[to]))}" for to in sorted(r.round_trips)) or UNKNOWN
        ),
        wide=True,
        folds=True,
    ),
    Column("REVISION", lambda r: str(r.revision), right=True, wide=True),
)

POLICIES = (
    Column("POLICY", lambda p: p.policy_id),
    Column("KIND", lambda p: "preset" if p.preset else "stored"),
    Column("REVISION", lambda p: str(p.revision) if p.revision else UNKNOWN, right=True),
    Column("CREATED", lambda p: moment(p, "create_time")),
    Column("ETAG", lambda p: p.etag or UNKNOWN, wide=True),
)

CIRCUITS = (
    Column("DEPLOYMENT", deployment_name),
    Column("CIRCUIT", lambda c: enum_word(c.circuit, "state")),
    Column("FAILURES", lambda c: str(c.circuit.failures), right=True, spare=1),
    Column("OPENED", lambda c: f"{c.circuit.opens_total}x", right=True, spare=2),
    Column("TRIAL IN", lambda c: duration(span(c.circuit, "retry_after")), right=True),
    Column("WHY", lambda c: c.circuit.reason or UNKNOWN, folds=True),
)

BUDGETS = (
    Column("TENANT", lambda b: b.tenant_id or UNKNOWN),
    Column("POLICY", lambda b: b.policy_id),
    Column("PERIOD", lambda b: enum_word(b, "period")),
    Column("SPENT", lambda b: money(b.spent_usd), right=True),
    Column("OF", lambda b: money(b.limit_usd), right=True),
    Column("USED", lambda b: share(b.spent_usd / b.limit_usd if b.limit_usd else 1.0), right=True),
    Column("THEN", lambda b: enum_word(b, "when_exhausted")),
    Column("ANEW", lambda b: moment(b, "reset_time")),
)

PEERS = (
    Column("PEER", lambda p: p.replica_id or p.region_id or UNKNOWN),
    Column("ADDRESS", lambda p: p.address.rpartition("://")[2]),
    Column("ROLE", lambda p: enum_word(p, "role")),
    Column("LINK", lambda p: enum_word(p, "state")),
    Column("LAG", _lag, right=True),
    Column("LEASE", lambda p: duration(span(p, "lease_left")), right=True),
    Column("AGE", lambda p: duration(span(p, "age")), right=True),
    Column("RTT", lambda p: duration(span(p, "round_trip")), right=True),
    Column("IN", lambda p: UNKNOWN if p.replica_id else count(p.imported_nodes), right=True),
    Column("OUT", lambda p: UNKNOWN if p.replica_id else count(p.exported_nodes), right=True),
    Column("IN REV", lambda p: str(p.imported_revision or UNKNOWN), right=True, wide=True),
    Column("OUT REV", lambda p: str(p.exported_revision or UNKNOWN), right=True, wide=True),
    Column("VERSION", lambda p: p.version or UNKNOWN, wide=True),
    Column("OWNS", lambda p: _words(p.owned_regions), wide=True),
    Column("MODELS IN", lambda p: _few(p.imported_models), wide=True, folds=True),
    Column("MODELS OUT", lambda p: _few(p.exported_models), wide=True, folds=True),
    Column("WHY", lambda p: p.reason or UNKNOWN, folds=True),
)


def moment(message: Any, field: str) -> str:
    """A Timestamp field in UTC, to the second."""
    if not message.HasField(field):
        return UNKNOWN
    return str(getattr(message, field).ToDatetime().strftime("%Y-%m-%d %H:%M:%S"))


def worst_circuit(node: Any) -> str:
    """The worst of a node's circuits and ejections, with what is left of it."""
    ejected = [each for each in node.deployments if each.ejected]
    if ejected:
        left = max((span(each, "ejected_for") or 0.0 for each in ejected), default=0.0)
        return f"ejected {duration(left)}" if left else "ejected"
    states = {enum_word(each.circuit, "state"): each.circuit for each in node.deployments}
    if "open" in states:
        left_open = span(states["open"], "retry_after")
        return f"open {duration(left_open)}" if left_open else "open"
    return "half-open" if "half_open" in states else "closed" if states else UNKNOWN


def load_of(node: Any) -> str:
    """Running and waiting requests: "8+2"."""
    running, queue = optional(node, "running_requests"), optional(node, "queue_depth")
    return UNKNOWN if running is None and queue is None else f"{count(running)}+{count(queue)}"


def seen(node: Any) -> str:
    """Age of the last probe by the server's clock, else of the freshest signal."""
    ages = {name: seconds_in(age) for name, age in node.signal_ages.items()}
    return duration(ages.get("probe", min(ages.values(), default=None)))


HEALTH = (
    Column("NODE", node_name),
    Column("STATE", lambda n: enum_word(n, "state")),
    Column("P50", lambda n: duration(span(n, "latency_p50")), right=True),
    Column("P99", lambda n: duration(span(n, "latency_p99")), right=True),
    Column("TOK/S", lambda n: count(optional(n, "throughput_tokens_per_second")), right=True),
    Column("RUN+WAIT", load_of, right=True),
    Column("KV", lambda n: share(optional(n, "kv_cache_utilization")), right=True),
    Column("GPU", lambda n: share(optional(n, "gpu_utilization")), right=True, wide=True),
    Column("ERRORS", lambda n: share(optional(n, "error_ratio")), right=True),
    Column("CIRCUIT", worst_circuit),
    Column("IN FLIGHT", lambda n: count(sum(each.in_flight for each in n.deployments)), right=True, wide=True),
    Column("SEEN", seen, right=True),
    Column(
        "SIGNALS",
        lambda n: (
            " ".join(f"{name}={duration(seconds_in(n.signal_ages[name]))}" for name in sorted(n.signal_ages)) or UNKNOWN
        ),
        wide=True,
        folds=True,
    ),
)
