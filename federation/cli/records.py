"""Decision logs: their records, and a record told as the server would tell its decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from federation.api.convert.decisions import decision_to, request_to
from federation.cli.failure import ExitCode, Failure, note, usage
from federation.plugins import GROUPS, PluginError, load_registry
from federation.routing.replay import VERSION, ask_of, load_of, pool_of
from federation.v1.routing_pb2 import GetDecisionResponse
from policies.pipeline import Evaluation, candidate, clip, differences, judge
from policies.pool import Identity
from policies.registry import Registry
from policies.types import Candidate, Choice, Code, Decision, Scores, Stage

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


def registry() -> Registry:
    """What policies of records may name: the built-in menu, and what is installed beside this program.

    Raises Failure (conflict) for a plug-in that cannot be loaded.
    """
    try:
        return load_registry(lambda name, error: note(f"warning: plug-in {name!r} failed and has no say: {error}"))
    except PluginError as error:
        raise Failure(str(error), ExitCode.CONFLICT) from error


def require_plugins(log: Path, number: int, record: Mapping[str, Any], known: Registry) -> None:
    """Raises Failure (conflict) where a record was made by plug-ins that are not installed here."""
    document = record.get("policy", {}).get("document", {})
    named = {
        "fairway.scorers": set(document.get("extra_scorers", ())) - set(known.scorers),
        "fairway.filters": set(document.get("extra_filters", ())) - set(known.filters),
        "fairway.pickers": {document["picker"]} - set(known.pickers) if "picker" in document else set(),
    }
    absent = [f"{GROUPS[group]} {name!r} ({group})" for group, names in named.items() for name in sorted(names)]
    if absent:
        raise Failure(
            f"{log} line {number}: the decision was made by {', '.join(absent)}, not installed here",
            ExitCode.CONFLICT,
            hint="install the package that the server had, into the environment of this command",
        )


def explanation(record: Mapping[str, Any], known: Registry) -> GetDecisionResponse:
    """The decision of a record as GetDecision tells it, scored again from the values that it read.

    What came of it later is not in a log.  Records of older programs have no words, ways and ages.  Raises one of
    UNREADABLE for a record that is cut.
    """
    if record.get("version") != VERSION:
        raise ValueError(f"the record has version {record.get('version')!r}; this program reads version {VERSION}")
    ask, pool, load = ask_of(record, known), pool_of(record), load_of(record)
    code = np.array(record["code"], dtype=np.int8)
    retold = Retold(judge(ask, pool, load, known, code, record["panic"]), record.get("told", {}))
    found, told = retold.found, retold.told
    place_of = {name: place for place, name in enumerate(pool.names)}
    decided = record["decision"]
    # What is private to other tenants is told to nobody.
    hidden = found.code == Code.TENANT.value
    rejected = sorted(np.flatnonzero((found.code != 0) & ~hidden), key=lambda place: pool.names[int(place)])
    decision = Decision(
        decision_id=record["decision_id"],
        target=retold.choice(place_of[decided["target"]]),
        alternatives=tuple(retold.choice(place_of[name]) for name in decided["alternatives"]),
        reasoning=told.get("reasoning", ""),
        policy_id=ask.policy.policy_id,
        policy_revision=ask.policy.revision,
        strategy=ask.policy.picker,
        stages=tuple(Stage(*stage) for stage in told.get("stages", ())),
        considered=record["considered"],
        rejected={name: count for name, count in record["rejected"].items() if name != Code.TENANT.name},
        table_revision=record["table_revision"],
        table_age_seconds=max(0.0, record["table_age_seconds"]),
        stale_regions=tuple(told.get("stale_regions", ())),
        catalog_age_seconds=told.get("catalog_age_seconds", 0.0),
        panic=record["panic"],
        valid_for_seconds=ask.policy.valid_for_seconds,
        decide_time=record["time"],
        rule=record["rule"],
        candidates=tuple(retold.candidate(int(place)) for place in [*found.order, *rejected]),
    )
    request = replace(ask.request, **told.get("request", {}))
    return GetDecisionResponse(decision=decision_to(decision), request=request_to(request))


@dataclass(frozen=True, slots=True)
class Retold:
    """A record's candidates, scored again; `told` is what it says of them beside their figures."""

    found: Evaluation
    told: Mapping[str, Any]

    def candidate(self, place: int) -> Candidate:
        ages = {kind: column[place] for kind, column in self.told.get("ages", {}).items()}
        known = {kind: age for kind, age in ages.items() if age is not None}
        return candidate(self.found, place, self.choice(place), known)

    def choice(self, place: int) -> Choice:
        found, seen = self.found, self.found.seen
        pool, cost = found.pool, float(seen.cost[place])
        region_id, node_id, model_id = pool.names[place].split("/", 2)
        total = clip(float(found.total[place]))
        told = Choice(
            region_id=region_id,
            node_id=node_id,
            model_id=model_id,
            deployment=pool.names[place],
            served_model_name="",
            endpoint="",
            estimated_latency_seconds=float(seen.latency[place]),
            estimated_time_to_first_token_seconds=float(seen.time_to_first_token[place]),
            estimated_cost_usd=None if np.isnan(cost) else cost,
            score=total,
            scores=Scores(total=total, **{name: clip(float(found.points[name][place])) for name in SHOWN}),
            substitution_differences=self._differences(place, model_id),
        )
        if "ways" not in self.told:
            return told
        served_model_name, zone, ingress = self.told["ways"][place]
        early, late = self.told["intervals"][place]
        round_trip, at_node = float(seen.round_trip[place]), float(seen.at_node[place])
        return replace(
            told,
            node_id="" if ingress else node_id,
            served_model_name=served_model_name,
            zone=zone,
            endpoint=ingress or pool.endpoints[place],
            via_gateway=bool(ingress),
            earliest_time_to_first_token_seconds=round_trip + at_node * early,
            latest_time_to_first_token_seconds=round_trip + at_node * late,
        )

    def _differences(self, place: int, model_id: str) -> tuple[str, ...]:
        """How the model differs from the one asked for, which a rule may have rewritten."""
        rewritten = self.told.get("asked")
        asked = self.found.ask.model if rewritten is None else Identity(**rewritten)
        if asked is None or asked.model_id == model_id:
            return ()
        pool = self.found.pool
        return differences(asked, pool.models[int(pool.model[place])])
