"""Decisions as JSON records, and their recomputation.

A record holds the request, the policy, the columns of the candidates that were kept, what moved, the seed, and what was
decided.  `replay` builds the same columns and decides again by the same code; floats are written so that they come
back bit for bit (Python's shortest form that round-trips).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.types import PrivacyLevel
from federation.routing.ranking import build_ranking, scalars
from federation.routing.rations import Admission
from federation.routing.state import State
from federation.routing.walk import walk
from policies.admission import Standing
from policies.document import compile_policy, to_document
from policies.pipeline import choose, judge
from policies.pool import COLUMNS, Facts, Identity, Load, Place, Pool
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
        "walked": record.walked,
        "swept": record.swept,
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
        "code": record.code.tolist(),
        "narrow": _narrow(record),
        "decision": {
            "target": names[0],
            "alternatives": list(names[1:]),
            "by": record.by,
            "near": record.near,
            "expected": _expected(record),
            "totals": _column(found.total),
        },
    }


def _expected(record: Record) -> dict[str, float | None]:
    told = record.figures(record.target)
    return {"cost_usd": told.cost, "time_to_first_token_seconds": told.time_to_first_token}


def _admission(record: Record) -> dict[str, Any] | None:
    """What admission read; how its policy sheds stands in the policy's document."""
    found = record.admission
    if found is None:
        return None
    return {**_plain_fields(found.standing), "chance": found.chance}


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
    if record["walked"]:
        ranking = build_ranking(ask, pool, registry, narrow, record["panic"])
        cached = {
            int(slot): float(tokens) for slot, tokens in zip(pool.slot, load.cached_tokens, strict=True) if tokens > 0
        }
        walked = walk(
            ranking,
            scalars(pool, ask.policy.assume),
            _state(pool, load),
            ask.policy,
            ask.input_tokens,
            ask.output_tokens,
            record["seed"],
            record["session_slot"],
            record["wanted"],
            cached,
            ask.request.session_id,
            pool.names,
            record["swept"],
        )
        selected = walked.selection if walked is not None else None
        rows = np.array(ranking.rows, dtype=np.int64)
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
        rows = pool.row
    decided = record["decision"]
    differences: list[str] = [*_admitted_again(record, ask)]
    if selected is None:
        differences.append(f"target: was {decided['target']}, now nobody")
    else:
        again = [pool.names[rows[place]] for place in (selected.target, *selected.alternatives)]
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
    was, shed = record.get("admission"), ask.policy.shedding
    if was is None or shed is None:
        return
    standing = Standing(**{field.name: was[field.name] for field in fields(Standing) if field.name in was})
    again = Admission(standing, shed, record["seed"])
    if again.chance != was["chance"]:
        yield f"chance of being shed: was {was['chance']!r}, now {again.chance!r}"
    if not again.admitted:
        yield "admission: was admitted, now shed"


def _state(pool: Pool, load: Load) -> State:
    """A state that says of the record's slots what was said of them then."""
    state = State()
    top = int(pool.slot.max(initial=-1)) + 1
    # What siblings told stands in the pending tokens already.
    theirs = np.zeros(len(pool))
    columns = (
        *(load.pending_tokens, load.in_flight, load.running, load.wait, load.suspicion, load.turn, load.trial),
        theirs,
    )
    matrix = np.zeros((len(columns), max(1, top)))
    matrix[:, pool.slot] = np.stack(columns)
    state._bind(matrix)
    return state
