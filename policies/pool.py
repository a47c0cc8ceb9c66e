"""Candidates as columns: one NumPy array a property, one place a deployment.

`Pool` is what filters, scorers and pickers work on.  Static columns come from the routing table and are shared between
decisions; `Load` is what moves between two tables and is gathered, as copies, when a decision is made.
Unknown numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ByteArray = NDArray[np.int8]
BoolArray = NDArray[np.bool_]
Index = Mapping[Any, IntArray]


class RowIndex(Mapping[Any, IntArray]):
    """Rows by a value that they have, as one sorted array of (number of the value, row).

    `numbers` is shared with the indexes that were made from this one, and grows; what is beyond `count` came later.
    """

    __slots__ = ("_starts", "count", "keys_", "numbers")

    def __init__(self, numbers: dict[Any, int], keys: IntArray) -> None:
        self.numbers = numbers
        self.count = len(numbers)
        self.keys_ = keys
        self._starts = np.searchsorted(keys, np.arange(self.count + 1, dtype=np.int64) << ROW_BITS)

    def __getitem__(self, value: Any) -> IntArray:
        number = self.numbers[value]
        rows: IntArray = NO_ROWS
        if number < self.count:
            rows = self.keys_[self._starts[number] : self._starts[number + 1]] & ROW_MASK
        if not len(rows):
            raise KeyError(value)
        return rows

    def __iter__(self) -> Iterator[Any]:
        held = (np.diff(self._starts) > 0).tolist()
        return (value for value, number in list(self.numbers.items()) if number < self.count and held[number])

    def __len__(self) -> int:
        return int(np.count_nonzero(np.diff(self._starts)))


# Rows of an index stand in the lower bits of its keys.
ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1
NO_ROWS: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Place:
    """A region as decisions see it."""

    region_id: str
    jurisdictions: frozenset[str] = frozenset()
    egress_price_usd_per_gb: float | None = None
    # To single regions, by id; they go before the price above.
    egress_prices_usd_per_gb: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    # Seconds to other regions, by id, measured; what is missing is estimated from coordinates.
    round_trip_seconds: Mapping[str, float] | None = None
    latitude: float | None = None
    longitude: float | None = None
    # Set where its nodes are reached by the region's ingress only.
    ingress_endpoint: str = ""
    imported: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """A model as decisions see it: what it is, and how a substitute differs from it."""

    model_id: str
    family: str = ""
    version: str = ""
    quantization: str = ""
    context_window_tokens: int | None = None
    tokenizer: str = ""
    equivalence_class: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is looked up by value, for all rows of a table: value -> the rows that have it."""

    capabilities: Index
    adapters: Index
    tenants: Index
    labels: Index  # By (key, value).
    engines: Index
    accelerators: Index
    size: int

    def has(self, index: Index, value: object) -> BoolArray:
        """Which rows have the value."""
        mask = np.zeros(self.size, dtype=np.bool_)
        found = index.get(value)
        if found is not None:
            mask[found] = True
        return mask


@dataclass(frozen=True, slots=True)
class Pool:
    """Static columns of some rows of a table. `row` leads back to the table, `slot` to what moves."""

    facts: Facts
    places: Sequence[Place]
    models: Sequence[Identity]
    # Zone names, unique over regions ("eu-west-1/a"); the zone "" of a region is a failure domain too.
    zones: Sequence[str]
    names: Sequence[str]  # Of all rows of the table, by `row`.
    endpoints: Sequence[str]  # The nodes' addresses, by `row`.

    row: IntArray
    slot: IntArray
    place: IntArray  # Index into places.
    zone: IntArray
    node: IntArray  # Equal for deployments of one node.
    model: IntArray  # Index into models.
    # 0, or the rejection code that availability alone gives (NOT_READY, DRAINING, UNHEALTHY, ...).
    status: ByteArray
    half_open: BoolArray
    privacy: ByteArray
    private: BoolArray  # Bound to tenants.
    gpu: BoolArray
    context_window: FloatArray
    # Prices of this deployment, US dollars per token.
    input_price: FloatArray
    output_price: FloatArray
    cached_price: FloatArray
    weight: FloatArray
    health: FloatArray
    # Seconds since it came back from being out; infinite where it never was.
    recovered: FloatArray
    # Declared or learned speed; NaN where the policy's assumption must stand in.
    prefill: FloatArray
    least: FloatArray
    decode: FloatArray
    batch: FloatArray
    limit: FloatArray  # max_concurrency; infinite where there is none.
    committed: FloatArray  # Requests at once that are paid for already.
    latency: FloatArray  # p50 seconds of recent outcomes.
    peak: FloatArray  # The same as an average that rises at once and falls slowly.

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: IntArray | BoolArray) -> Pool:
        """The same columns for some of the places, in the order of `index`."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    def has(self, index: Index, value: object) -> BoolArray:
        """Which candidates have a value of one of the facts' indexes."""
        return self.facts.has(index, value)[self.row]


COLUMNS = tuple(each.name for each in fields(Pool) if str(each.type).endswith("Array"))


@dataclass(frozen=True, slots=True)
class Load:
    """What moves between two tables, for the places of one pool, as it was when the decision was made."""

    # Prompt tokens routed there that have no first token yet.
    pending_tokens: FloatArray
    # Requests routed there that are not over.
    in_flight: FloatArray
    # Sequences that the engine last said run or wait there, fading.
    running: FloatArray
    # Seconds of work of other routers' requests that wait there, fading.
    wait: FloatArray
    # >= 1; how much later than predicted answers have been coming.
    suspicion: FloatArray
    # Prompt tokens of this request that are believed to be cached there.
    cached_tokens: FloatArray
    # The turn at which it was chosen last.
    turn: FloatArray
    # 1 where a half-open circuit may take a trial now, else 0.
    trial: FloatArray

    def take(self, index: IntArray | BoolArray) -> Load:
        return Load(**{each.name: getattr(self, each.name)[index] for each in fields(Load)})

    @staticmethod
    def idle(size: int) -> Load:
        """Nothing runs anywhere and nothing is suspected."""
        zero = np.zeros(size)
        return Load(zero, zero, zero, zero, np.ones(size), zero, zero, np.ones(size))
