"""Decision logs: their records, and a record told as the server would tell its decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from federation.api.convert.decisions import decision_to, request_to
from federation.cli.failure import Failure, usage
from federation.routing.replay import VERSION, ask_of, load_of, pool_of
from federation.v1.routing_pb2 import GetDecisionResponse
from policies.pipeline import Evaluation, candidate, clip, differences, judge
from policies.registry import BUILT_IN
from policies.types import Candidate, Choice, Decision, Scores

SHOWN = ("latency", "throughput", "cost", "locality", "health")
# What a record that is cut or foreign makes the reader raise.
UNREADABLE = (KeyError, ValueError, TypeError, IndexError)


def records(log: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of a log with their line numbers. Raises Failure (usage) at the first line that is none."""
    try:
        with log.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _record(log, number, line)
    except OSError as error:
        raise usage(f"cannot read {log}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage(f"{log} is not UTF-8: {error.reason} at byte {error.start}") from error


def _record(log: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        hint = "" if line.endswith("\n") else "the last line is cut, as when a server was killed: delete it"
        raise usage(f"{log} line {number} is not JSON: {error.msg} at column {error.colno}", hint=hint) from error
    if not isinstance(record, dict):
        raise usage(f"{log} line {number} is not a decision: it must be a JSON object")
    return record


def unreadable(log: Path, number: int, error: Exception) -> Failure:
    """What to say of a record that cannot be decided again."""
    what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return usage(
        f"{log} line {number} is not a whole decision record: {what}",
        hint="it may be of another version of this program: replay it with that one",
    )


def explanation(record: Mapping[str, Any]) -> GetDecisionResponse:
    """The decision of a record with all kept candidates, scored again from the values that it read.

    A record has no endpoints, outcomes or ages of signals. Raises one of UNREADABLE for a record that is cut.
    """
    if record.get("version") != VERSION:
        raise ValueError(f"the record has version {record.get('version')!r}; this program reads version {VERSION}")
    ask, pool, load = ask_of(record), pool_of(record), load_of(record)
    code = np.array(record["code"], dtype=np.int8)
    found = judge(ask, pool, load, BUILT_IN, code, record["panic"])
    place_of = {name: place for place, name in enumerate(pool.names)}
    decided = record["decision"]
    rejected = sorted(np.flatnonzero(found.code), key=lambda place: pool.names[int(place)])
    decision = Decision(
        decision_id=record["decision_id"],
        target=_choice(found, place_of[decided["target"]]),
        alternatives=tuple(_choice(found, place_of[name]) for name in decided["alternatives"]),
        reasoning="",
        policy_id=ask.policy.policy_id,
        policy_revision=ask.policy.revision,
        strategy=ask.policy.picker,
        stages=(),
        considered=record["considered"],
        rejected=record["rejected"],
        table_revision=record["table_revision"],
        table_age_seconds=record["table_age_seconds"],
        stale_regions=(),
        panic=record["panic"],
        valid_for_seconds=ask.policy.valid_for_seconds,
        decide_time=record["time"],
        rule=record["rule"],
        candidates=tuple(_candidate(found, int(place)) for place in [*found.order, *rejected]),
    )
    return GetDecisionResponse(decision=decision_to(decision), request=request_to(ask.request))


def _candidate(found: Evaluation, place: int) -> Candidate:
    return candidate(found, place, _choice(found, place), {})


def _choice(found: Evaluation, place: int) -> Choice:
    pool, cost, asked = found.pool, float(found.seen.cost[place]), found.ask.model
    region_id, node_id, model_id = pool.names[place].split("/", 2)
    total = clip(float(found.total[place]))
    return Choice(
        region_id=region_id,
        node_id=node_id,
        model_id=model_id,
        deployment=pool.names[place],
        served_model_name="",
        endpoint="",
        estimated_latency_seconds=float(found.seen.latency[place]),
        estimated_time_to_first_token_seconds=float(found.seen.time_to_first_token[place]),
        estimated_cost_usd=None if np.isnan(cost) else cost,
        score=total,
        scores=Scores(total=total, **{name: clip(float(found.points[name][place])) for name in SHOWN}),
        substitution_differences=(
            ()
            if asked is None or asked.model_id == model_id
            else differences(asked, pool.models[int(pool.model[place])])
        ),
    )
