"""What moved from one table to the next, as far as rankings read it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from federation.routing.ranking import Scalars, scalars
from federation.routing.table import Table
from policies.pipeline import Domains
from policies.policy import Assumptions
from policies.pool import IntArray, Pool

# Tables of which it is remembered what moved; plans that nobody asked for in so many are made anew.
MAX_MOVES = 64
# All that a ranking, its groups and its scalars read of a row. A latency stands in for a least time that is not known,
# and matters only there.
READ = (
    *("status", "half_open", "privacy", "private", "gpu", "context_window", "health"),
    *("place", "zone", "node", "model", "input_price", "output_price", "cached_price"),
    *("prefill", "least", "decode", "batch", "limit", "committed"),
)


def moved_rows(before: Table, after: Table) -> IntArray | None:
    """Rows that say something else than in the table before; None where the two cannot be compared row by row."""
    old, new = before.pool, after.pool
    if any(getattr(old, name) is not getattr(new, name) for name in ("names", "slot", "facts", "places", "models")):
        return None
    one, other = before.compiled, after.compiled
    if one.rows_by_model is not other.rows_by_model or one.model_ids is not other.model_ids:
        return None
    moved = np.zeros(len(new), dtype=np.bool_)
    for name in READ:
        moved |= _differs(getattr(old, name), getattr(new, name))
    moved |= _differs(old.latency, new.latency) & np.isnan(new.least)
    return np.flatnonzero(moved)


def _differs(before: Any, after: Any) -> Any:
    if before is after:
        return False
    plain = f"u{before.dtype.itemsize}"
    return before.view(plain) != after.view(plain)


def touches(rows: IntArray, moved: IntArray) -> bool:
    """Whether any of the rows moved; both are in order."""
    few, many = (moved, rows) if len(moved) <= len(rows) else (rows, moved)
    if not len(few):
        return False
    found = np.minimum(np.searchsorted(many, few), len(many) - 1)
    return bool((many[found] == few).any())


def patched(before: Scalars, pool: Pool, assume: Assumptions, rows: IntArray) -> Scalars:
    """Scalars of a table, made from those before and the rows that moved since. Slots stand."""
    part = scalars(pool.take(rows), assume)
    places = rows.tolist()

    def over(old: list[Any], new: list[Any]) -> list[Any]:
        made = old.copy()
        for row, value in zip(places, new, strict=True):
            made[row] = value
        return made

    lists: dict[str, Any] = {
        each.name: over(getattr(before, each.name), getattr(part, each.name))
        for each in fields(Scalars)
        if isinstance(getattr(part, each.name), list) and each.name != "slot"
    }
    old, new = before.domains, part.domains
    domains = Domains(
        node=over(list(old.node), list(new.node)),
        zone=over(list(old.zone), list(new.zone)),
        place=over(list(old.place), list(new.place)),
    )
    return replace(before, domains=domains, **lists)
