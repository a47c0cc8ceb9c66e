"""What the catalog alone says, as columns; `compiling.py` makes it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.types import PriceBand
from policies.pool import ByteArray, FloatArray, Identity, IntArray, Pool


class RowOf(Mapping[str, int]):
    """The row of a name, found among the names, which are in order: no table of all of them has to be kept."""

    __slots__ = ("_names",)

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> int:
        row = bisect_left(self._names, name)
        if row == len(self._names) or self._names[row] != name:
            raise KeyError(name)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
    # What models declare, beside what deployments do.
    declared_capabilities: frozenset[str] = frozenset()
    # Nodes with a deployment that has no row, since its region or model has no record.
    unplaced: frozenset[str] = frozenset()
    # The names that this was made from, and of each row, its row there; -1: it is new. None: all stand where they were.
    step: tuple[Sequence[str], IntArray | None] = ((), None)
