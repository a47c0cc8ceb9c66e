"""The immutable table that decisions read: all deployments as columns, at one revision and one moment.

What the catalog says changes rarely and is compiled when it does (`compiling.py`); health is laid over it at every
build (`Tables`).  Load never causes a build: it lives in `state.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catalog.types import Snapshot
from federation.routing.compiled import Compiled
from federation.routing.compiling import compile_catalog
from federation.routing.laying import Laid, lay
from federation.routing.prices import by_the_hour, factor
from policies.health import DeploymentHealth
from policies.pool import FloatArray, Pool
from policies.types import Code

NEVER = float("-inf")
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


class Tables:
    """Builds tables one after the other: what did not change since the last is shared with it."""

    def __init__(self, home_region: str) -> None:
        self._home_region = home_region
        self._laid: Laid | None = None
        self._last: Pool | None = None

    def build(
        self,
        compiled: Compiled,
        health: Mapping[str, DeploymentHealth],
        *,
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
        laid = self._laid = lay(self._laid, compiled, health)
        base = compiled.pool
        status = np.where(compiled.status != 0, compiled.status, laid.status)
        status[(status == 0) & (laid.ejected_until > now)] = Code.EJECTED.value
        for node in expired_nodes:
            begin, end = bisect_left(base.names, f"{node}/"), bisect_left(base.names, f"{node}0")
            status[begin:end] = Code.LEASE_EXPIRED.value
        lapsed = frozenset(lapsed_regions)
        if lapsed:
            away = np.array([place.region_id in lapsed for place in base.places], dtype=np.bool_)
            status[away[base.place]] = Code.PEER_LEASE_EXPIRED.value
        prefill = _or_learned(base.prefill, laid.prefill)
        least = _or_learned(base.least, laid.least)
        decode = _or_learned(base.decode, laid.decode)
        prices = _prices(compiled, prefill, decode, unix_time)
        columns: dict[str, Any] = {
            "status": status,
            "half_open": laid.half_open,
            "health": laid.score,
            "recovered": now - laid.recovered_at,
            "prefill": prefill,
            "least": least,
            "decode": decode,
            "input_price": prices[0],
            "output_price": prices[1],
            "cached_price": prices[2],
            "latency": laid.latency,
            "peak": laid.peak,
        }
        last = self._last
        if last is not None:
            columns = {name: same_or_new(getattr(last, name), column) for name, column in columns.items()}
        pool = self._last = replace(base, **columns)
        return Table(
            compiled=compiled,
            pool=pool,
            signals=laid.signals,
            home_region=self._home_region,
            built_at=now,
            stale_regions=_stale(pool, laid.signals, now),
            retry_at=float(laid.retry_at.min(initial=float("inf"))),
            catalog_at=catalog_at,
        )


def build_table(
    catalog: Snapshot | Compiled, health: Mapping[str, DeploymentHealth], *, home_region: str, now: float, **more: Any
) -> Table:
    """One table by itself; `more` as for `Tables.build`."""
    compiled = catalog if isinstance(catalog, Compiled) else compile_catalog(catalog)
    return Tables(home_region).build(compiled, health, now=now, **more)


def same_or_new(before: Any, after: Any) -> Any:
    """The column before where the one after says the same bit for bit, so that others see that nothing changed."""
    if before is after or before.shape != after.shape:
        return after
    # By their bits: NaN is then as good as any number.
    plain = f"u{before.dtype.itemsize}"
    return before if np.array_equal(before.view(plain), after.view(plain)) else after


def _or_learned(declared: FloatArray, learned: FloatArray) -> FloatArray:
    """What was declared, else what was learned."""
    return np.where(np.isnan(declared), learned, declared)


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


def _stale(pool: Pool, signals: Mapping[str, FloatArray], now: float) -> tuple[str, ...]:
    """Regions in which no deployment has a fresh signal of its own. What callers report of those that they got tells
    nothing of the others."""
    newest = np.full(len(pool.places), NEVER)
    for kind, times in signals.items():
        if kind != "outcome":
            np.maximum.at(newest, pool.place, times)
    present = np.unique(pool.place)
    return tuple(pool.places[place].region_id for place in present if now - newest[place] > STALE_SECONDS)
