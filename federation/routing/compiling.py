"""The catalog as columns, made anew only where it changed.

Rows stand in the order of deployments' names, whatever way the catalog came about: two catalogs that say the same give
the same rows, whether they were compiled at once or change by change.  Only the numbers of zones and nodes may differ,
which mean nothing but that two rows have the same one.

Columns that do not change are shared with those before; of the others there are copies, so that who reads an older
table is not disturbed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np

from catalog.rolls import changed
from catalog.snapshot import EMPTY_SNAPSHOT
from catalog.types import (
    DeploymentStatus,
    Model,
    PriceBand,
    PrivacyLevel,
    Reach,
    Region,
    RegionStatus,
    Snapshot,
)
from federation.routing.compiled import Compiled, Deployed, RowOf
from federation.routing.rows import Rows, column_after, grouped_rows, index_after, placed_after, rows_after
from policies.pool import Facts, Identity, IntArray, Place, Pool, RowIndex
from policies.types import Code

NAN = float("nan")
INFINITE = float("inf")
# Columns by type, and what each row of them is; `health` and what follows is laid over later.
NUMBERS = ("place", "zone", "node", "model")
DECLARED = (
    "context_window",
    "input_price",
    "output_price",
    "cached_price",
    "weight",
    "prefill",
    "least",
    "decode",
    "batch",
    "limit",
    "committed",
)
LAID = ("health", "recovered", "latency", "peak")
INDEXES = ("capabilities", "adapters", "tenants", "labels", "engines", "accelerators")


def _nothing() -> Compiled:
    columns: dict[str, Any] = {name: np.zeros(0, dtype=np.int64) for name in ("row", "slot", *NUMBERS)}
    columns |= {name: np.zeros(0) for name in (*DECLARED, *LAID)}
    columns |= {name: np.zeros(0, dtype=np.int8) for name in ("status", "privacy")}
    columns |= {name: np.zeros(0, dtype=np.bool_) for name in ("half_open", "private", "gpu")}
    index = {name: RowIndex({}, columns["row"]) for name in INDEXES}
    pool = Pool(facts=Facts(**index, size=0), places=(), models=(), zones=(), names=(), endpoints=(), **columns)
    nothing: Mapping[str, Any] = MappingProxyType({})
    return Compiled(
        revision=0,
        pool=pool,
        deployed=(),
        status=columns["status"],
        node_names=(),
        rows_by_model=nothing,
        rows_by_capability=index["capabilities"],
        model_ids=nothing,
        models=nothing,
        capabilities=frozenset(),
        row_of=nothing,
        hour_price=columns["weight"],
        bands=(),
    )


# The columns of an empty catalog.
NOTHING = _nothing()


def compile_catalog(snapshot: Snapshot) -> Compiled:
    """The whole catalog."""
    return recompile(NOTHING, EMPTY_SNAPSHOT, snapshot)


def recompile(compiled: Compiled, before: Snapshot, after: Snapshot) -> Compiled:
    """What `compiled`, made of `before`, becomes with `after`; the work is that of the nodes that differ."""
    regions = changed(before.regions, after.regions) | (before.imported ^ after.imported)
    models = changed(before.models, after.models)
    places, identities = compiled.pool.places, compiled.models
    if regions or not places:
        places = tuple(_place(after.regions[name], imported=name in after.imported) for name in sorted(after.regions))
    if models:
        identities = MappingProxyType({name: _identity(after.models[name]) for name in sorted(after.models)})
    touched = set(changed(before.nodes, after.nodes))
    unplaced = compiled.unplaced
    if regions or models:
        touched |= _affected(compiled, before, after, regions, models)
    moved, unplaced = rows_after(compiled, after, touched)
    model_ids, declared = compiled.model_ids, compiled.declared_capabilities
    if models:
        # Where two models claim an alias, the first in the order of ids has it.
        aliases = {alias: name for name in sorted(after.models, reverse=True) for alias in after.models[name].aliases}
        model_ids = MappingProxyType(aliases | {name: name for name in identities})
        declared = frozenset(each for model in after.models.values() for each in model.capabilities)
    made = _made(compiled, moved, after, places, tuple(identities))
    pool = compiled.pool

    def column(before: Any, name: str, renumbered: IntArray | None = None) -> Any:
        return column_after(before, moved, made.values[name], renumbered)

    renumbered = {
        "place": _renumbered([p.region_id for p in pool.places], [p.region_id for p in places]),
        "model": _renumbered(tuple(compiled.models), tuple(identities)),
    }
    columns: dict[str, Any] = {
        name: column(getattr(pool, name), name, renumbered.get(name))
        for name in (*NUMBERS, *DECLARED, "privacy", "private", "gpu")
    }
    status = column(compiled.status, "status")
    rearranged = moved.source is not None
    size = len(moved.names)
    if rearranged:
        columns |= {name: np.full(size, NAN) for name in LAID}
        columns |= {
            "row": np.arange(size, dtype=np.int64),
            "slot": np.full(size, -1, dtype=np.int64),
            "half_open": np.zeros(size, dtype=np.bool_),
        }
    facts = _facts(pool.facts, moved, made.facts)
    deployed = placed_after(compiled.deployed, moved, made.deployed)
    pool = replace(
        pool,
        facts=facts,
        places=places,
        models=tuple(identities.values()) if models else pool.models,
        zones=made.zones,
        names=moved.names,
        endpoints=placed_after(pool.endpoints, moved, [each.endpoint for each in made.deployed]),
        status=status,
        **columns,
    )
    same_models = pool.model is compiled.pool.model and not models
    rows_by_model = compiled.rows_by_model if same_models else grouped_rows(pool.model, tuple(identities))
    return Compiled(
        revision=after.revision,
        pool=pool,
        deployed=deployed,
        status=status,
        node_names=placed_after(compiled.node_names, moved, [name for name, _, _ in moved.made_of]),
        rows_by_model=rows_by_model,
        rows_by_capability=facts.capabilities,
        model_ids=model_ids,
        models=identities,
        capabilities=declared | {str(each) for each in facts.capabilities},
        row_of=RowOf(moved.names) if rearranged else compiled.row_of,
        hour_price=column(compiled.hour_price, "hour"),
        bands=_bands(compiled, moved),
        declared_capabilities=declared,
        unplaced=unplaced,
        step=(compiled.pool.names, moved.source),
    )


def _affected(
    compiled: Compiled, before: Snapshot, after: Snapshot, regions: Iterable[str], models: Iterable[str]
) -> set[str]:
    """Nodes whose rows say something else since their region or model does."""
    found = set(compiled.unplaced)
    numbers = {place.region_id: number for number, place in enumerate(compiled.pool.places)}
    for name in regions:
        if name in numbers and _of_region(before.regions.get(name)) != _of_region(after.regions.get(name)):
            rows = np.flatnonzero(compiled.pool.place == numbers[name]).tolist()
            found.update(compiled.node_names[row] for row in rows)
    for name in models:
        if _of_model(before.models.get(name)) != _of_model(after.models.get(name)):
            found.update(compiled.node_names[row] for row in compiled.rows_by_model.get(name, ()))
    return found


def _of_region(region: Region | None) -> object:
    """All that rows take from a region."""
    return None if region is None else (region.status, region.reach, region.ingress_endpoint)


def _of_model(model: Model | None) -> object:
    """All that rows take from a model."""
    return None if model is None else (model.context_window_tokens, model.capabilities)


@dataclass(frozen=True, slots=True)
class Made:
    """What the changed rows say."""

    values: Mapping[str, Any]
    zones: tuple[str, ...]
    deployed: list[Deployed]
    # By index, each changed row's values.
    facts: Mapping[str, list[tuple[Any, ...]]]


def _made(compiled: Compiled, moved: Rows, after: Snapshot, places: Sequence[Place], models: Sequence[str]) -> Made:
    place_index = {place.region_id: number for number, place in enumerate(places)}
    model_index = {model_id: number for number, model_id in enumerate(models)}
    zones = {zone: number for number, zone in enumerate(compiled.pool.zones)} if moved.made_of else {}
    known_zones = len(zones)
    node_numbers: dict[str, int] = {}
    next_node = int(compiled.pool.node.max(initial=-1)) + 1 if moved.made_of else 0
    lists: dict[str, list[Any]] = {
        name: [] for name in (*NUMBERS, *DECLARED, "privacy", "private", "gpu", "status", "hour")
    }
    add = {name: values.append for name, values in lists.items()}
    facts: dict[str, list[tuple[Any, ...]]] = {name: [] for name in INDEXES}
    deployed: list[Deployed] = []
    old_node = compiled.pool.node
    for node_name, node, d in moved.made_of:
        region, model, profile = after.regions[node.region_id], after.models[d.model_id], d.profile
        zone = f"{node.region_id}/{node.zone}"
        number = node_numbers.get(node_name)
        if number is None:
            first = bisect_left(compiled.pool.names, f"{node_name}/") if compiled.pool.names else 0
            known = first < len(compiled.pool.names) and compiled.node_names[first] == node_name
            number = int(old_node[first]) if known else next_node
            next_node += not known
            node_numbers[node_name] = number
        add["place"](place_index[node.region_id])
        add["zone"](zones.setdefault(zone, len(zones)))
        add["node"](number)
        add["model"](model_index[d.model_id])
        add["status"](_catalog_status(region.status, node.expired, node.draining, d.status))
        add["privacy"]((node.privacy_level or PrivacyLevel.INTERNAL).value)
        add["private"](bool(d.tenant_ids))
        add["gpu"](node.accelerator_count > 0 or bool(node.accelerator))
        add["context_window"](model.context_window_tokens)
        add["input_price"](d.price_usd_per_million_input_tokens)
        add["output_price"](d.price_usd_per_million_output_tokens)
        add["cached_price"](d.price_usd_per_million_cached_tokens)
        add["weight"](d.weight)
        add["prefill"](profile.prefill_seconds_per_token)
        add["least"](profile.min_time_to_first_token_seconds)
        add["decode"](profile.decode_tokens_per_second)
        add["batch"](profile.max_batch_size)
        add["limit"](INFINITE if d.max_concurrency is None else d.max_concurrency)
        add["committed"](d.committed_concurrency or 0)
        add["hour"](None if node.price_usd_per_hour is None else node.price_usd_per_hour / 3600.0)
        facts["capabilities"].append(d.capabilities or model.capabilities)
        facts["adapters"].append(d.adapters)
        facts["tenants"].append(d.tenant_ids)
        facts["labels"].append(tuple(node.labels.items()))
        facts["engines"].append((node.engine.value,))
        facts["accelerators"].append((node.accelerator,) if node.accelerator else ())
        ingress = region.ingress_endpoint if region.reach is Reach.GATEWAY else ""
        served = d.served_model_name or d.model_id
        deployed.append(Deployed(node.region_id, node.node_id, d.model_id, node.zone, served, node.endpoint, ingress))
    values: dict[str, Any] = {name: np.array(lists[name], dtype=np.int64) for name in NUMBERS}
    # None becomes NaN.
    values |= {name: np.array(lists[name], dtype=np.float64) for name in (*DECLARED, "hour")}
    for name in ("input_price", "output_price", "cached_price"):
        values[name] /= 1e6
    values |= {name: np.array(lists[name], dtype=np.int8) for name in ("status", "privacy")}
    values |= {name: np.array(lists[name], dtype=np.bool_) for name in ("private", "gpu")}
    found = tuple(zones) if len(zones) > known_zones else tuple(compiled.pool.zones)
    return Made(values, found, deployed, facts)


def _renumbered(before: Sequence[str], after: Sequence[str]) -> IntArray | None:
    """The new number of each old one; None where all stay. Whoever is gone has no rows left that are read."""
    if before == after:
        return None
    index = {name: number for number, name in enumerate(after)}
    return np.array([index.get(name, -1) for name in before], dtype=np.int64)


def _facts(before: Facts, moved: Rows, values: Mapping[str, list[tuple[Any, ...]]]) -> Facts:
    index = {name: index_after(getattr(before, name), moved, values[name]) for name in INDEXES}
    if moved.source is None and all(index[name] is getattr(before, name) for name in INDEXES):
        return before
    return Facts(**index, size=len(moved.names))


def _bands(compiled: Compiled, moved: Rows) -> tuple[tuple[int, tuple[PriceBand, ...]], ...]:
    """Rows whose prices change with the hour."""
    own = [
        (row, d.price_bands) for row, (_, _, d) in zip(moved.rows.tolist(), moved.made_of, strict=True) if d.price_bands
    ]
    if not own and not compiled.bands:
        return ()
    touched = set(moved.rows.tolist())
    at: Mapping[int, int] = {}
    if moved.source is not None:
        at = {old: new for new, old in enumerate(moved.source.tolist()) if old >= 0}
    for old, bands in compiled.bands:
        row = old if moved.source is None else at.get(old, -1)
        if row >= 0 and row not in touched:
            own.append((row, bands))
    return tuple(sorted(own, key=itemgetter(0)))


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
