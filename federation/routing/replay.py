"""Decisions as JSON records, and their recomputation.

A record holds the request, the policy, the columns of the candidates that were kept, what moved, the seed, and what was
decided.  `replay` builds the same columns and decides again by the same code; floats are written so that they come
back bit for bit (Python's shortest form that round-trips).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.types import PrivacyLevel
from federation.routing.groups import grouped
from federation.routing.ranking import build_ranking, scalars
from federation.routing.rations import Admission
from federation.routing.spills import spill_of
from federation.routing.state import State
from federation.routing.walk import walk
from policies.admission import Standing
from policies.document import compile_policy, to_document
from policies.pipeline import Selection, alternatives, choose, judge
from policies.policy import Shed, ShedStep
from policies.pool import COLUMNS, Facts, FloatArray, Identity, Load, Place, Pool
from policies.prediction import Ask
from policies.registry import BUILT_IN, Registry
from policies.types import NO_LABELS, Explain, RouteRequest

if TYPE_CHECKING:
    from federation.routing.decisions import Record

VERSION = 1
INDEXES = ("capabilities", "adapters", "tenants", "engines", "accelerators")


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Whether a record's decision came out the same, and where not, how it differs."""

    decision_id: str
    identical: bool
    differences: tuple[str, ...]


def entry(record: Record) -> dict[str, Any]:
    """A decision as JSON values; everything that it was computed from."""
    found, ask = record.evaluation, record.ask
    pool = found.pool
    request = {
        field.name: _plain(getattr(ask.request, field.name))
        for field in fields(RouteRequest)
        if field.init and getattr(ask.request, field.name) != field.default
    }
    names = record.names()
    members = {name: _members(getattr(pool.facts, name), pool) for name in INDEXES}
    labels = [[key, value, rows] for (key, value), rows in _members(pool.facts.labels, pool).items()]
    return {
        "version": VERSION,
        "decision_id": record.decision_id,
        "time": record.wall_time,
        "table_revision": record.table.revision,
        "table_age_seconds": record.now - record.table.built_at,
        "request": request,
        "policy": {
            "policy_id": ask.policy.policy_id,
            "revision": ask.policy.revision,
            "document": to_document(ask.policy),
        },
        "rule": record.plan.rule,
        "ask": {
            "input_tokens": ask.input_tokens,
            "output_tokens": ask.output_tokens,
            "model": None if ask.model is None else _plain_fields(ask.model),
            "round_trip": ask.round_trip.tolist(),
            "origin": ask.origin,
            "zone": ask.zone,
        },
        "seed": record.seed,
        "session_slot": record.session_slot,
        "wanted": record.wanted,
        "visited": _visited(record),
        "panic": record.panic,
        "considered": record.considered,
        "rejected": dict(record.rejected),
        "places": [_plain_fields(place) for place in pool.places],
        "models": [_plain_fields(model) for model in pool.models],
        "zones": list(pool.zones),
        "names": [pool.names[row] for row in pool.row],
        "endpoints": [pool.endpoints[row] for row in pool.row],
        "facts": {**members, "labels": labels},
        "columns": {name: _column(getattr(pool, name)) for name in COLUMNS if name != "row"},
        "load": {field.name: _column(getattr(record.load, field.name)) for field in fields(Load)},
        "admission": _admission(record),
        "spillover": None if record.spill is None else record.spill.entry(),
        "code": record.code.tolist(),
        "narrow": _narrow(record),
        "told": _told(record),
        "decision": {
            "target": names[0],
            "alternatives": list(names[1:]),
            "by": record.by,
            "near": record.near,
            "expected": _expected(record),
            "totals": _column(found.total),
        },
    }


def _visited(record: Record) -> list[int] | None:
    """Whom a walk looked at, in its order, as places among the rows that are kept; None: it was no walk."""
    if record.looked is None:
        return None
    places: list[int] = np.searchsorted(record.rows, record.looked).tolist()
    return places


def _told(record: Record) -> dict[str, Any]:
    """What nothing is computed from, and `explain` shows: words, ways to the candidates, ages of their signals."""
    plan, table = record.plan, record.table
    decision = record.render(Explain.SUMMARY)
    deployed = [table.compiled.deployed[row] for row in record.rows.tolist()]
    asked = plan.asked if plan.asked is not None and plan.asked != plan.model else None
    return {
        "request": {"model_id": record.request.model_id, "origin_region": record.request.origin_region},
        "asked": None if asked is None else _plain_fields(asked),
        "reasoning": decision.reasoning,
        "stages": [[stage.name, stage.detail, stage.remaining] for stage in decision.stages],
        "stale_regions": list(decision.stale_regions),
        "catalog_age_seconds": decision.catalog_age_seconds,
        "ways": [
            [d.served_model_name, d.zone, d.ingress_endpoint if plan.origin_region != d.region_id else ""]
            for d in deployed
        ],
        "intervals": [list(record.interval(place)) for place in range(len(deployed))],
        "ages": {
            kind: _column(np.maximum(0.0, record.now - np.where(np.isfinite(times), times, np.nan)))
            for kind, times in _signal_times(record).items()
        },
    }


def _signal_times(record: Record) -> dict[str, FloatArray]:
    """When each signal of the kept rows came, monotonic seconds; NaN or infinite where it never did."""
    times = {kind: column[record.rows] for kind, column in record.table.signals.items()}
    if record.plan.roads:
        regions = [record.table.compiled.deployed[row].region_id for row in record.rows.tolist()]
        times["road"] = np.array([record.plan.roads.get(region, np.nan) for region in regions])
    return times


def _expected(record: Record) -> dict[str, float | None]:
    told = record.figures(record.target)
    return {"cost_usd": told.cost, "time_to_first_token_seconds": told.time_to_first_token}


def _admission(record: Record) -> dict[str, Any] | None:
    """What admission read, and the steps that it went by, which may be of another policy than the deciding one."""
    found = record.admission
    if found is None:
        return None
    steps = [[step.up_to_priority, step.from_utilization] for step in found.shed.steps]
    shed = {"steps": steps, "full_utilization": found.shed.full_utilization}
    return {**_plain_fields(found.standing), "chance": found.chance, "shed": shed}


def _narrow(record: Record) -> list[bool] | None:
    """Whom a rule left out, among the rows that are kept."""
    narrow = record.plan.ranking.narrow
    if narrow is None:
        return None
    kept: list[bool] = narrow[np.searchsorted(record.plan.rows, record.rows)].tolist()
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, PrivacyLevel):
        return value.name
    if isinstance(value, Explain):
        return value.value
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _plain_fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _column(values: Any) -> list[Any]:
    """A column as JSON: NaN is null, infinity is a word."""
    return [None if math.isnan(v) else "inf" if v == math.inf else v for v in values.tolist()]


def _array(values: list[Any], like: str) -> Any:
    if like == "float":
        numbers = [float("nan") if v is None else float(v) for v in values]
        return np.array(numbers, dtype=np.float64)
    return np.array(values, dtype={"bool": np.bool_, "byte": np.int8, "int": np.int64}[like])


def _members(index: Mapping[Any, Any], pool: Pool) -> dict[Any, list[int]]:
    """Of a fact's rows, the places of this pool that have it."""
    found = {value: np.flatnonzero(np.isin(pool.row, rows)).tolist() for value, rows in index.items()}
    return {value: places for value, places in found.items() if places}


KINDS = {
    field.name: {"FloatArray": "float", "IntArray": "int", "ByteArray": "byte", "BoolArray": "bool"}[str(field.type)]
    for field in fields(Pool)
    if field.name in COLUMNS
}


def pool_of(record: Mapping[str, Any]) -> Pool:
    """The candidates of a record as columns."""
    facts = record["facts"]
    size = len(record["names"])
    labels = {(key, value): rows for key, value, rows in facts["labels"]}
    index = {name: _rows(facts[name]) for name in INDEXES}
    places = tuple(Place(**{**place, "jurisdictions": frozenset(place["jurisdictions"])}) for place in record["places"])
    columns = {name: _array(record["columns"][name], KINDS[name]) for name in COLUMNS if name != "row"}
    return Pool(
        facts=Facts(**index, labels=_rows(labels), size=size),
        places=places,
        models=tuple(Identity(**model) for model in record["models"]),
        zones=tuple(record["zones"]),
        names=tuple(record["names"]),
        endpoints=tuple(record["endpoints"]),
        row=np.arange(size, dtype=np.int64),
        **columns,
    )


def _rows(members: Mapping[Any, list[int]]) -> dict[Any, Any]:
    return {value: np.array(rows, dtype=np.int64) for value, rows in members.items()}


def request_of(record: Mapping[str, Any]) -> RouteRequest:
    """The request of a record."""
    values = dict(record["request"])
    if "privacy_level" in values:
        values["privacy_level"] = PrivacyLevel[values["privacy_level"]]
    if "explain" in values:
        values["explain"] = Explain(values["explain"])
    if "node_labels" in values:
        values["node_labels"] = tuple(tuple(label) for label in values["node_labels"])
    for name in ("only_regions", "exclude_regions", "jurisdictions", "exclude_nodes", "prefix_hashes"):
        if name in values:
            values[name] = tuple(values[name])
    return replace(RouteRequest(labels=values.pop("labels", NO_LABELS)), **values)


def ask_of(record: Mapping[str, Any], registry: Registry = BUILT_IN) -> Ask:
    """The request of a record with its policy, as it was decided."""
    policy, ask = record["policy"], record["ask"]
    return Ask(
        request=request_of(record),
        policy=compile_policy(policy["policy_id"], policy["document"], policy["revision"], registry=registry),
        input_tokens=ask["input_tokens"],
        output_tokens=ask["output_tokens"],
        model=None if ask["model"] is None else Identity(**ask["model"]),
        round_trip=np.array(ask["round_trip"], dtype=np.float64),
        origin=ask["origin"],
        zone=ask["zone"],
        unix_time=record["time"],
        # Records of programs that knew no tiers say nothing of it.
        turns=spill_of(spill, record["seed"]).turns if (spill := record.get("spillover")) else None,
    )


def load_of(record: Mapping[str, Any]) -> Load:
    return Load(**{field.name: _array(record["load"][field.name], "float") for field in fields(Load)})


def replay(record: Mapping[str, Any], registry: Registry = BUILT_IN) -> ReplayResult:
    """Decides a record again. ValueError for a record of another version; KeyError for one that is cut."""
    if record.get("version") != VERSION:
        raise ValueError(f"the record has version {record.get('version')!r}; this program reads version {VERSION}")
    pool, ask, load = pool_of(record), ask_of(record, registry), load_of(record)
    # Codes that the table gave are facts of the time; what the request refused is found again by the same filters.
    narrow = None if record["narrow"] is None else np.array(record["narrow"], dtype=np.bool_)
    code = np.array(record["code"], dtype=np.int8)
    found = judge(ask, pool, load, registry, code.copy(), record["panic"])
    selected: Selection | None = None
    if record["visited"] is not None:
        group = partial(grouped, usual_tokens=ask.policy.assume.input_tokens)
        ranking = build_ranking(ask, pool, registry, narrow, group, record["panic"])
        cached = {
            int(slot): float(tokens) for slot, tokens in zip(pool.slot, load.cached_tokens, strict=True) if tokens > 0
        }
        flat = scalars(pool, ask.policy.assume)
        walked = walk(
            ranking,
            flat,
            _state(pool, load),
            ask.policy,
            ask.request,
            ask.input_tokens,
            ask.output_tokens,
            record["seed"],
            record["session_slot"],
            record["wanted"],
            cached,
            pool.names,
            record["visited"],
            turns=None if ask.turns is None else tuple(ask.turns.tolist()),
        )
        if walked is not None:
            order = [each[1] for each in walked.found]
            others = alternatives(walked.target, order, flat.domains, record["wanted"])
            selected = Selection(walked.target, others, walked.by, walked.near)
    else:
        selected = choose(
            found,
            registry,
            picker=ask.policy.picker,
            seed=record["seed"],
            key=ask.request.hash_key,
            session_slot=record["session_slot"],
            wanted=record["wanted"],
        )
    decided = record["decision"]
    differences: list[str] = [*_admitted_again(record, ask), *_drawn_again(record)]
    if selected is None:
        differences.append(f"target: was {decided['target']}, now nobody")
    else:
        again = [pool.names[place] for place in (selected.target, *selected.alternatives)]
        was = [decided["target"], *decided["alternatives"]]
        if again != was:
            differences.append(f"choices: were {', '.join(was)}, now {', '.join(again)}")
        if (selected.by, selected.near) != (decided["by"], decided["near"]):
            differences.append(f"how: was {decided['by']}/{decided['near']}, now {selected.by}/{selected.near}")
    totals = _column(found.total)
    differences.extend(
        f"total of {name}: was {then!r}, now {now!r}"
        for name, then, now in zip(pool.names, decided["totals"], totals, strict=True)
        if then != now
    )
    return ReplayResult(record["decision_id"], not differences, tuple(differences))


def _admitted_again(record: Mapping[str, Any], ask: Ask) -> Iterator[str]:
    """How admission comes out differently. Records of programs that shed nobody say nothing of it."""
    was = record.get("admission")
    shed = None if was is None else _shed_of(was) or ask.policy.shedding
    if was is None or shed is None:
        return
    standing = Standing(**{field.name: was[field.name] for field in fields(Standing) if field.name in was})
    again = Admission(standing, shed, record["seed"])
    if again.chance != was["chance"]:
        yield f"chance of being shed: was {was['chance']!r}, now {again.chance!r}"
    if not again.admitted:
        yield "admission: was admitted, now shed"


def _shed_of(admission: Mapping[str, Any]) -> Shed | None:
    """The steps of a record; None in those of programs to which they were always the deciding policy's."""
    shed = admission.get("shed")
    if shed is None:
        return None
    return Shed(tuple(ShedStep(*step) for step in shed["steps"]), shed["full_utilization"])


def _drawn_again(record: Mapping[str, Any]) -> Iterator[str]:
    """How the draw of a tier comes out differently."""
    was = record.get("spillover")
    if was is not None and (now := spill_of(was, record["seed"]).drawn) != was["drawn"]:
        yield f"tier: was {was['drawn']}, now {now}"


def _state(pool: Pool, load: Load) -> State:
    """A state that says of the record's slots what was said of them then."""
    state = State()
    top = int(pool.slot.max(initial=-1)) + 1
    columns = (load.pending_tokens, load.in_flight, load.running, load.wait, load.suspicion, load.turn, load.trial)
    matrix = np.zeros((len(columns), max(1, top)))
    matrix[:, pool.slot] = np.stack(columns)
    state._bind(matrix)
    return state
