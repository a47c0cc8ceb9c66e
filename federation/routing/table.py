"""The immutable table that decisions read: all deployments as columns, at one revision and one moment.

What the catalog says changes rarely and is compiled once per revision (`compile_catalog`); health is laid over it at
every build (`build_table`).  Load never causes a build: it lives in `state.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from catalog.types import DeploymentStatus, Model, PriceBand, PrivacyLevel, Reach, Region, RegionStatus, Snapshot
from federation.routing.prices import by_the_hour, factor
from policies.health import CircuitState, DeploymentHealth, Grade
from policies.pool import ByteArray, Facts, FloatArray, Identity, Index, IntArray, Place, Pool
from policies.types import Code

NAN = float("nan")
NEVER = float("-inf")
UNKNOWN_HEALTH = DeploymentHealth()
# Signals older than this say nothing any more: three half-lives of a grade.
STALE_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a target needs beside its columns, by row."""

    region_id: str
    node_id: str
    model_id: str
    zone: str
    served_model_name: str
    endpoint: str
    ingress_endpoint: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the catalog alone says, at one revision; rows in the order of deployments' names."""

    revision: int
    pool: Pool
    deployed: tuple[Deployed, ...]
    # 0, or the code that the catalog alone gives (DRAINING, LEASE_EXPIRED, NOT_READY).
    status: ByteArray
    node_names: tuple[str, ...]
    rows_by_model: Mapping[str, IntArray]
    rows_by_capability: Mapping[str, IntArray]
    # Alias or id -> model id.
    model_ids: Mapping[str, str]
    models: Mapping[str, Identity]
    capabilities: frozenset[str]
    row_of: Mapping[str, int]
    hour_price: FloatArray  # US dollars per second of the node.
    # Rows whose prices change with the hour.
    bands: tuple[tuple[int, tuple[PriceBand, ...]], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that a decision reads beside what moves; `built_at` is monotonic seconds."""

    compiled: Compiled
    pool: Pool
    # When each kind of signal last came, monotonic seconds by row; -inf: never. Not the health itself, which would
    # keep every past view alive as long as one decision of its time is remembered.
    signals: Mapping[str, FloatArray]
    home_region: str
    built_at: float
    stale_regions: tuple[str, ...]
    # The earliest moment at which a circuit lets a trial through again; infinite where none is open.
    retry_at: float
    # When the own catalog's database last agreed with it, monotonic seconds.
    catalog_at: float = float("inf")

    @property
    def revision(self) -> int:
        return self.compiled.revision


def compile_catalog(snapshot: Snapshot) -> Compiled:
    """The catalog as columns."""
    places = tuple(
        _place(region, imported=region.region_id in snapshot.imported)
        for region in sorted(snapshot.regions.values(), key=lambda r: r.region_id)
    )
    place_index = {place.region_id: number for number, place in enumerate(places)}
    models = {model_id: _identity(model) for model_id, model in sorted(snapshot.models.items())}
    model_ids = {alias: m.model_id for m in snapshot.models.values() for alias in m.aliases} | {m: m for m in models}
    model_index = {model_id: number for number, model_id in enumerate(models)}
    zones: dict[str, int] = {}
    found = sorted(
        ((f"{node.name}/{d.model_id}", node, d) for node in snapshot.nodes.values() for d in node.deployments),
        key=lambda item: item[0],
    )
    found = [item for item in found if item[1].region_id in place_index and item[2].model_id in model_index]
    size = len(found)
    column = {name: np.full(size, NAN) for name in FLOATS}
    number = {name: np.zeros(size, dtype=np.int64) for name in ("place", "zone", "node", "model")}
    status, privacy = np.zeros(size, dtype=np.int8), np.zeros(size, dtype=np.int8)
    private, gpu = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    hour = np.full(size, NAN)
    facts: dict[str, dict[Any, list[int]]] = {name: defaultdict(list) for name in INDEXES}
    node_index: dict[str, int] = {}
    deployed: list[Deployed] = []
    for row, (_, node, d) in enumerate(found):
        region = snapshot.regions[node.region_id]
        model = snapshot.models[d.model_id]
        zone = f"{node.region_id}/{node.zone}"
        number["place"][row] = place_index[node.region_id]
        number["zone"][row] = zones.setdefault(zone, len(zones))
        number["node"][row] = node_index.setdefault(node.name, len(node_index))
        number["model"][row] = model_index[d.model_id]
        status[row] = _catalog_status(region.status, node.expired, node.draining, d.status)
        level = node.privacy_level or PrivacyLevel.INTERNAL
        privacy[row] = level.value
        private[row] = bool(d.tenant_ids)
        gpu[row] = node.accelerator_count > 0 or bool(node.accelerator)
        profile = d.profile
        for name, value in (
            ("context_window", model.context_window_tokens),
            ("input_price", d.price_usd_per_million_input_tokens),
            ("output_price", d.price_usd_per_million_output_tokens),
            ("cached_price", d.price_usd_per_million_cached_tokens),
            ("prefill", profile.prefill_seconds_per_token),
            ("least", profile.min_time_to_first_token_seconds),
            ("decode", profile.decode_tokens_per_second),
            ("batch", profile.max_batch_size),
        ):
            if value is not None:
                column[name][row] = value
        column["weight"][row] = d.weight
        column["committed"][row] = d.committed_concurrency or 0
        column["limit"][row] = float("inf") if d.max_concurrency is None else d.max_concurrency
        if node.price_usd_per_hour is not None:
            hour[row] = node.price_usd_per_hour / 3600.0
        for index, values in (
            ("capabilities", d.capabilities or model.capabilities),
            ("adapters", d.adapters),
            ("tenants", d.tenant_ids),
            ("labels", node.labels.items()),
            ("engines", (node.engine.value,)),
            ("accelerators", (node.accelerator,) if node.accelerator else ()),
        ):
            for fact in dict.fromkeys(values):
                facts[index][fact].append(row)
        deployed.append(
            Deployed(
                node.region_id,
                node.node_id,
                d.model_id,
                node.zone,
                d.served_model_name or d.model_id,
                node.endpoint,
                region.ingress_endpoint if region.reach is Reach.GATEWAY else "",
            )
        )
    for name in ("input_price", "output_price", "cached_price"):
        column[name] /= 1e6
    names = tuple(item[0] for item in found)
    frozen = {name: _rows(values) for name, values in facts.items()}
    columns: dict[str, Any] = {**number, **column}
    pool = Pool(
        facts=Facts(**frozen, size=size),
        places=places,
        models=tuple(models.values()),
        zones=tuple(zones),
        names=names,
        endpoints=tuple(d.endpoint for d in deployed),
        row=np.arange(size, dtype=np.int64),
        slot=np.full(size, -1, dtype=np.int64),
        status=status,
        half_open=np.zeros(size, dtype=np.bool_),
        privacy=privacy,
        private=private,
        gpu=gpu,
        **columns,
    )
    return Compiled(
        revision=snapshot.revision,
        pool=pool,
        deployed=tuple(deployed),
        status=status,
        node_names=tuple(f"{d.region_id}/{d.node_id}" for d in deployed),
        rows_by_model=_group(number["model"], tuple(models)),
        rows_by_capability=MappingProxyType({str(key): value for key, value in frozen["capabilities"].items()}),
        model_ids=MappingProxyType(model_ids),
        models=MappingProxyType(models),
        capabilities=frozenset(c for m in snapshot.models.values() for c in m.capabilities)
        | {str(c) for c in frozen["capabilities"]},
        row_of=MappingProxyType({name: row for row, name in enumerate(names)}),
        hour_price=hour,
        bands=tuple((row, item[2].price_bands) for row, item in enumerate(found) if item[2].price_bands),
    )


FLOATS = (
    "context_window",
    "input_price",
    "output_price",
    "cached_price",
    "weight",
    "health",
    "recovered",
    "prefill",
    "least",
    "decode",
    "batch",
    "limit",
    "committed",
    "latency",
    "peak",
)
INDEXES = ("capabilities", "adapters", "tenants", "labels", "engines", "accelerators")


def _rows(values: Mapping[Any, list[int]]) -> Index:
    return MappingProxyType({value: np.array(rows, dtype=np.int64) for value, rows in values.items()})


def _group(numbers: IntArray, names: tuple[str, ...]) -> Mapping[str, IntArray]:
    """Rows by name, from each row's number of a name."""
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    return MappingProxyType({name: order[ends[i] : ends[i + 1]] for i, name in enumerate(names)})


def _place(region: Region, *, imported: bool) -> Place:
    return Place(
        region_id=region.region_id,
        jurisdictions=frozenset(region.jurisdictions),
        egress_price_usd_per_gb=region.egress_price_usd_per_gb,
        egress_prices_usd_per_gb=region.egress_prices_usd_per_gb,
        round_trip_seconds=region.round_trip_seconds,
        latitude=region.latitude,
        longitude=region.longitude,
        ingress_endpoint=region.ingress_endpoint if region.reach is Reach.GATEWAY else "",
        imported=imported,
    )


def _identity(model: Model) -> Identity:
    return Identity(
        model.model_id,
        model.family,
        model.version,
        model.quantization,
        model.context_window_tokens,
        model.tokenizer,
        model.equivalence_class,
    )


def _catalog_status(region: RegionStatus, expired: bool, draining: bool, status: DeploymentStatus) -> int:
    if expired:
        return Code.LEASE_EXPIRED.value
    if region is RegionStatus.OFFLINE or status in (DeploymentStatus.LOADING, DeploymentStatus.REMOVED):
        return Code.NOT_READY.value
    if draining or region is RegionStatus.DRAINING or status is DeploymentStatus.DRAINING:
        return Code.DRAINING.value
    return 0


def build_table(
    catalog: Snapshot | Compiled,
    health: Mapping[str, DeploymentHealth],
    *,
    home_region: str,
    now: float,
    unix_time: float = 0.0,
    expired_nodes: Iterable[str] = (),
    lapsed_regions: Iterable[str] = (),
    catalog_at: float = float("inf"),
) -> Table:
    """Lays health and the hour's prices over the catalog.

    `expired_nodes` (`region_id/node_id`) are those whose lease ended and whose record could not be told so yet;
    `lapsed_regions` are those of peers that were not heard for the length of a lease.
    """
    compiled = catalog if isinstance(catalog, Compiled) else compile_catalog(catalog)
    base = compiled.pool
    known = [health.get(name, UNKNOWN_HEALTH) for name in base.names]
    status = np.array([_health_status(h, now) for h in known], dtype=np.int8)
    status = np.where(compiled.status != 0, compiled.status, status)
    gone = frozenset(expired_nodes)
    if gone:
        lost = np.array([name in gone for name in compiled.node_names], dtype=np.bool_)
        status = np.where(lost, Code.LEASE_EXPIRED.value, status)
    lapsed = frozenset(lapsed_regions)
    if lapsed:
        away = np.array([place.region_id in lapsed for place in base.places], dtype=np.bool_)
        status = np.where(away[base.place], Code.PEER_LEASE_EXPIRED.value, status)
    prefill = _or_learned(base.prefill, (h.prefill_seconds_per_token for h in known))
    least = _or_learned(base.least, (h.min_time_to_first_token_seconds for h in known))
    decode = _or_learned(base.decode, (h.decode_tokens_per_second for h in known))
    open_until = [h.circuit.retry_at for h in known if h.circuit.state is CircuitState.OPEN]
    prices = _prices(compiled, prefill, decode, unix_time)
    pool = replace(
        base,
        status=status.astype(np.int8),
        half_open=np.array([h.circuit.state is CircuitState.HALF_OPEN for h in known], dtype=np.bool_),
        health=np.array([h.score for h in known], dtype=np.float64),
        recovered=now - np.array([h.recovered_at for h in known], dtype=np.float64),
        prefill=prefill,
        least=least,
        decode=decode,
        input_price=prices[0],
        output_price=prices[1],
        cached_price=prices[2],
        latency=_floats(h.latency_p50_seconds for h in known),
        peak=_floats(h.latency_peak_seconds for h in known),
    )
    signals = _signals(known)
    return Table(
        compiled=compiled,
        pool=pool,
        signals=signals,
        home_region=home_region,
        built_at=now,
        stale_regions=_stale(pool, signals, now),
        retry_at=min(open_until, default=float("inf")),
        catalog_at=catalog_at,
    )


def _health_status(health: DeploymentHealth, now: float) -> int:
    if not health.ready or health.grade is Grade.LOADING:
        return Code.NOT_READY.value
    if health.grade is Grade.UNHEALTHY:
        return Code.UNHEALTHY.value
    if health.circuit.state is CircuitState.OPEN:
        return Code.CIRCUIT_OPEN.value
    if health.ejected_until > now:
        return Code.EJECTED.value
    return 0


def _floats(values: Iterable[float | None]) -> FloatArray:
    return np.array([NAN if value is None else value for value in values], dtype=np.float64)


def _or_learned(declared: FloatArray, learned: Iterable[float | None]) -> FloatArray:
    """What was declared, else what was learned."""
    return np.where(np.isnan(declared), _floats(learned), declared)


def _prices(compiled: Compiled, prefill: FloatArray, decode: FloatArray, unix_time: float) -> list[FloatArray]:
    """Prices of an input, output and cached token at a time; undeclared ones are the share of the node's hour."""
    base = compiled.pool
    own_input, own_output = by_the_hour(compiled.hour_price, prefill, decode, base.batch)
    factors = np.ones(len(base))
    for row, bands in compiled.bands:
        factors[row] = factor(bands, unix_time)
    return [
        np.where(np.isnan(base.input_price), own_input, base.input_price) * factors,
        np.where(np.isnan(base.output_price), own_output, base.output_price) * factors,
        base.cached_price * factors,
    ]


def _signals(known: list[DeploymentHealth]) -> Mapping[str, FloatArray]:
    kinds = sorted({kind for health in known for kind in health.signal_times})
    return MappingProxyType(
        {kind: np.array([h.signal_times.get(kind, NEVER) for h in known], dtype=np.float64) for kind in kinds}
    )


def _stale(pool: Pool, signals: Mapping[str, FloatArray], now: float) -> tuple[str, ...]:
    """Regions in which no deployment has a fresh signal."""
    newest = np.full(len(pool.places), NEVER)
    for times in signals.values():
        np.maximum.at(newest, pool.place, times)
    present = np.unique(pool.place)
    return tuple(pool.places[place].region_id for place in present if now - newest[place] > STALE_SECONDS)
