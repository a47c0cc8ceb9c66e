"""The immutable table that decisions read: all deployments as columns, at one revision and one moment.

What the catalog says changes rarely and is compiled when it does (`compiling.py`); health is laid over it at every
build (`build_table`).  Load never causes a build: it lives in `state.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from catalog.types import Snapshot
from federation.routing.compiled import Compiled
from federation.routing.compiling import compile_catalog
from federation.routing.prices import by_the_hour, factor
from policies.health import CircuitState, DeploymentHealth, Grade
from policies.pool import FloatArray, Pool
from policies.types import Code

NAN = float("nan")
NEVER = float("-inf")
UNKNOWN_HEALTH = DeploymentHealth()
# Signals older than this say nothing any more: three half-lives of a grade.
STALE_SECONDS = 45.0


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
