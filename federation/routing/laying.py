"""What is known of deployments' health as columns, followed by what changed: most of it stands as it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from catalog.rolls import changed
from federation.routing.compiled import Compiled
from policies.health import CircuitState, DeploymentHealth, Grade
from policies.pool import BoolArray, ByteArray, FloatArray, IntArray
from policies.types import Code

NEVER = float("-inf")
INFINITE = float("inf")
UNKNOWN_HEALTH = DeploymentHealth()


@dataclass(frozen=True, slots=True)
class Laid:
    """Health by row. Moments are monotonic seconds; numbers that nobody knows are NaN."""

    # The rows' names, and the health that this was made from.
    names: Sequence[str]
    health: Mapping[str, DeploymentHealth]
    # 0, or the code that health gives but for ejections, which end by themselves.
    status: ByteArray
    half_open: BoolArray
    score: FloatArray
    recovered_at: FloatArray
    ejected_until: FloatArray
    # Infinite where the circuit is not open.
    retry_at: FloatArray
    prefill: FloatArray
    least: FloatArray
    decode: FloatArray
    latency: FloatArray
    peak: FloatArray
    # When each kind of signal last came; -inf: never.
    signals: Mapping[str, FloatArray]


COLUMNS = tuple(each.name for each in fields(Laid) if str(each.type).endswith("Array"))
TYPES = {"status": np.int8, "half_open": np.bool_}


def lay(before: Laid | None, compiled: Compiled, health: Mapping[str, DeploymentHealth]) -> Laid:
    """The health of a catalog's rows; `before` is what was laid last, over these columns or those they came from."""
    names = compiled.pool.names
    size = len(names)
    came_from, source = compiled.step
    if before is not None and before.names is names:
        source = None
    elif before is None or before.names is not came_from or source is None:
        before = None
    if before is None:
        rows = np.arange(size)
    else:
        row_of = compiled.row_of
        told = {row_of[name] for name in changed(before.health, health) if name in row_of}
        if source is not None:
            told.update(np.flatnonzero(source < 0).tolist())
        rows = np.array(sorted(told), dtype=np.int64)
    known = [health.get(names[row], UNKNOWN_HEALTH) for row in rows.tolist()]
    open_state, half_open = CircuitState.OPEN, CircuitState.HALF_OPEN
    values: dict[str, Any] = {
        "status": [_status(h) for h in known],
        "half_open": [h.circuit.state is half_open for h in known],
        "score": [h.score for h in known],
        "recovered_at": [h.recovered_at for h in known],
        "ejected_until": [h.ejected_until for h in known],
        "retry_at": [h.circuit.retry_at if h.circuit.state is open_state else INFINITE for h in known],
        "prefill": [h.prefill_seconds_per_token for h in known],
        "least": [h.min_time_to_first_token_seconds for h in known],
        "decode": [h.decode_tokens_per_second for h in known],
        "latency": [h.latency_p50_seconds for h in known],
        "peak": [h.latency_peak_seconds for h in known],
    }
    # None becomes NaN.
    columns = {
        name: _column(
            None if before is None else getattr(before, name),
            size,
            source,
            rows,
            np.array(values[name], dtype=TYPES.get(name, np.float64)),
        )
        for name in COLUMNS
    }
    kinds = {kind for each in known for kind in each.signal_times}
    old: Mapping[str, FloatArray] = {} if before is None else before.signals
    signals: dict[str, FloatArray] = {}
    for kind in sorted(kinds | old.keys()):
        times = np.array([each.signal_times.get(kind, NEVER) for each in known], dtype=np.float64)
        column = old.get(kind)
        if column is None and before is not None:
            column = np.full(len(before.names), NEVER)
        signals[kind] = _column(column, size, source, rows, times)
    return Laid(names=names, health=health, signals=MappingProxyType(signals), **columns)


def _column(before: Any, size: int, source: IntArray | None, rows: IntArray, values: Any) -> Any:
    """A column with other values at some rows; the same one where they are no others."""
    if before is None:
        return values
    if source is None:
        old = before[rows]
        if np.array_equal(old, values, equal_nan=old.dtype.kind == "f"):
            return before
        after = before.copy()
    else:
        after = before[source] if len(before) else np.zeros(size, dtype=before.dtype)
    after[rows] = values
    return after


def _status(health: DeploymentHealth) -> int:
    if not health.ready or health.grade is Grade.LOADING:
        return Code.NOT_READY.value
    if health.grade is Grade.UNHEALTHY:
        return Code.UNHEALTHY.value
    if health.circuit.state is CircuitState.OPEN:
        return Code.CIRCUIT_OPEN.value
    return 0
