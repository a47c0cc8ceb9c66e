"""Where the rows of a catalog stand after a change, and how columns, tuples and indexes follow them there."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from catalog.types import Deployment, Node, Snapshot
from federation.routing.compiled import Compiled
from policies.pool import ROW_BITS, ROW_MASK, IntArray, RowIndex

V = TypeVar("V")
# Values of an index that no row has any more, beyond which it is numbered anew.
MAX_DEAD = 1_024
# Up to so many new rows are put in one by one, which is cheaper than to compare all names.
FEW = 256


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows come from."""

    names: Sequence[str]
    # Of each row, its row before; -1: it is new. None: all stand where they stood.
    source: IntArray | None
    # Rows that are new or may say something else, and what they are made of: the node's name, the node, the deployment.
    rows: IntArray
    made_of: Sequence[tuple[str, Node, Deployment]]
    size_before: int


def rows_after(compiled: Compiled, after: Snapshot, touched: Collection[str]) -> tuple[Rows, frozenset[str]]:
    """The rows after a change, and the nodes with a deployment that has none: its region or model has no record."""
    names = compiled.pool.names
    fresh: dict[str, tuple[str, Node, Deployment]] = {}
    out: set[str] = set()
    old: list[int] = []
    for name in touched:
        if names:
            old.extend(range(bisect_left(names, f"{name}/"), bisect_left(names, f"{name}0")))
        node = after.nodes.get(name)
        if node is None:
            continue
        for deployment in node.deployments:
            if node.region_id in after.regions and deployment.model_id in after.models:
                fresh[deployment.name] = (name, node, deployment)
            else:
                out.add(name)
    unplaced = (compiled.unplaced - frozenset(touched)) | out
    gone = [row for row in old if names[row] not in fresh]
    wanted = sorted(fresh)
    if not gone and len(wanted) == len(old):
        rows = np.array(sorted(old), dtype=np.int64)
        return Rows(names, None, rows, [fresh[name] for name in wanted], len(names)), unplaced
    keep = np.ones(len(names), dtype=np.bool_)
    keep[gone] = False
    before = compiled.row_of
    added = [name for name in wanted if name not in before]
    stays = list(compress(names, keep.tolist())) if gone else list(names)
    if len(added) <= FEW:
        for name in added:
            insort(stays, name)
        joined = tuple(stays)
    else:
        # Two sorted runs: joining them takes one comparison a name at most.
        joined = tuple(sorted([*stays, *added]))
    is_new = np.zeros(len(joined), dtype=np.bool_)
    every = len(wanted) == len(joined)
    rows = np.arange(len(joined)) if every else np.array([bisect_left(joined, name) for name in wanted], dtype=np.int64)
    is_new[[row for row, name in zip(rows.tolist(), wanted, strict=True) if name not in before]] = True
    source = np.full(len(joined), -1, dtype=np.int64)
    source[~is_new] = np.flatnonzero(keep)
    return Rows(joined, source, rows, [fresh[name] for name in wanted], len(names)), unplaced


def column_after(before: Any, moved: Rows, values: Any, renumbered: IntArray | None = None) -> Any:
    """A column with the values of the changed rows; the same one where nothing in it changed."""
    if renumbered is not None:
        before = renumbered[before]
    if moved.source is None:
        if not len(moved.rows) or np.array_equal(before[moved.rows], values, equal_nan=before.dtype.kind == "f"):
            return before
        after = before.copy()
    elif len(before):
        after = before[moved.source]
    else:
        after = np.zeros(len(moved.source), dtype=before.dtype)
    after[moved.rows] = values
    return after


def placed_after(before: Sequence[V], moved: Rows, values: Sequence[V]) -> tuple[V, ...]:
    """What stands beside the columns, after the change."""
    if moved.source is None:
        if all(before[row] == value for row, value in zip(moved.rows.tolist(), values, strict=True)):
            return before if isinstance(before, tuple) else tuple(before)
        after = list(before)
    elif not len(before):
        return tuple(values)
    else:
        after = []
        room = list(values[:1])
        # Rows that stood one after the other still do; -2, since a first row follows no new one.
        breaks = np.flatnonzero(np.diff(np.where(moved.source < 0, -2, moved.source)) != 1) + 1
        starts = [0, *breaks.tolist()] if len(moved.source) else []
        for start, end in zip(starts, [*breaks.tolist(), len(moved.source)], strict=False):
            first = int(moved.source[start])
            after += before[first : first + end - start] if first >= 0 else room * (end - start)
    for row, value in zip(moved.rows.tolist(), values, strict=True):
        after[row] = value
    return tuple(after)


def index_after(before: RowIndex, moved: Rows, values: Sequence[Collection[Any]]) -> RowIndex:
    """An index after the change; the same one where nothing in it changed."""
    numbers, keys = before.numbers, before.keys_
    own = {
        numbers.setdefault(value, len(numbers)) << ROW_BITS | row
        for row, of in zip(moved.rows.tolist(), values, strict=True)
        for value in of
    }
    new = np.array(sorted(own), dtype=np.int64)
    if moved.source is None:
        stale = np.zeros(len(moved.names), dtype=np.bool_)
        stale[moved.rows] = True
        drop = stale[keys & ROW_MASK]
        if np.array_equal(keys[drop], new):
            return before
        keys = keys[~drop]
    elif len(keys):
        to = np.full(moved.size_before, -1, dtype=np.int64)
        kept = moved.source >= 0
        kept[moved.rows] = False
        to[moved.source[kept]] = np.flatnonzero(kept)
        after = to[keys & ROW_MASK]
        left = after >= 0
        # Rows keep their order, and so do the keys.
        keys = (keys[left] & ~np.int64(ROW_MASK)) | after[left]
    keys = np.insert(keys, np.searchsorted(keys, new), new) if len(keys) else new
    made = RowIndex(numbers, keys)
    if len(numbers) - len(made) <= MAX_DEAD:
        return made
    live = {number: place for place, number in enumerate(np.unique(keys >> ROW_BITS).tolist())}
    again = {value: live[number] for value, number in numbers.items() if number in live}
    dense = np.zeros(len(numbers), dtype=np.int64)
    dense[list(live)] = list(live.values())
    return RowIndex(
        dict(sorted(again.items(), key=lambda item: item[1])), dense[keys >> ROW_BITS] << ROW_BITS | keys & ROW_MASK
    )


def grouped_rows(numbers: IntArray, names: tuple[str, ...]) -> Mapping[str, IntArray]:
    """Rows by name, from each row's number of a name."""
    # Sixteen bits are sorted by radix, several times as fast.
    narrow = numbers.astype(np.uint16) if len(names) < 1 << 16 else numbers
    order = np.argsort(narrow, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    return MappingProxyType({name: order[ends[i] : ends[i + 1]] for i, name in enumerate(names)})
