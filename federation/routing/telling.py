"""Telling: what is worked out of a record when somebody asks what was decided, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from federation.routing import wording
from federation.routing.figures import Figures, figures
from policies.pipeline import differences
from policies.types import Choice, Decision, Explain, Stage

if TYPE_CHECKING:
    from federation.routing.decisions import Record


def figures_of(record: Record, place: int) -> Figures:
    """What was expected of one of `rows`."""
    if record.walked and record.told.evaluation is None:
        load = record.load
        moving = (load.pending_tokens, load.in_flight, load.running, load.wait, load.suspicion, load.cached_tokens)
        values = tuple(float(column[place]) for column in moving)
        return figures(record.plan, int(record.rows[place]), record.tokens, record.answer, values)
    found = record.evaluation
    seen, cost = found.seen, float(found.seen.cost[place])
    return Figures(
        round_trip=float(seen.round_trip[place]),
        at_node=float(seen.at_node[place]),
        time_to_first_token=float(seen.time_to_first_token[place]),
        throughput=float(seen.throughput[place]),
        latency=float(seen.latency[place]),
        cost=None if np.isnan(cost) else cost,
        points={name: float(points[place]) for name, points in found.points.items()},
        total=float(found.total[place]),
    )


def choice_of(record: Record, place: int, told: Figures) -> Choice:
    """One of `rows` as a place to send the request to."""
    row = int(record.rows[place])
    pool = record.table.pool
    deployed = record.table.compiled.deployed[row]
    abroad = record.plan.origin_region != deployed.region_id and not record.request.forwarded
    via_gateway = bool(deployed.ingress_endpoint) and abroad
    scores = told.scores
    asked = record.plan.asked
    early, late = record.interval(place)
    return Choice(
        region_id=deployed.region_id,
        node_id="" if via_gateway else deployed.node_id,
        model_id=deployed.model_id,
        deployment=pool.names[row],
        served_model_name=deployed.served_model_name,
        endpoint=deployed.ingress_endpoint if via_gateway else deployed.endpoint,
        via_gateway=via_gateway,
        zone=deployed.zone,
        estimated_latency_seconds=told.latency,
        estimated_time_to_first_token_seconds=told.time_to_first_token,
        earliest_time_to_first_token_seconds=told.round_trip + told.at_node * early,
        latest_time_to_first_token_seconds=told.round_trip + told.at_node * late,
        estimated_cost_usd=told.cost,
        score=scores.total,
        scores=scores,
        substitution_differences=(
            ()
            if asked is None or asked.model_id == deployed.model_id
            else differences(asked, pool.models[int(pool.model[row])])
        ),
    )


def ages_of(record: Record, place: int) -> dict[str, float]:
    """Seconds since each signal of a candidate came, at the time of the decision."""
    row = record.rows[place]
    found = {
        kind: max(0.0, record.now - float(times[row]))
        for kind, times in record.table.signals.items()
        if np.isfinite(times[row])
    }
    heard = record.plan.roads.get(record.table.compiled.deployed[row].region_id)
    return found if heard is None else {**found, "road": max(0.0, record.now - heard)}


def rendered(record: Record, level: Explain) -> Decision:
    """The decision as others see it, with as much of its reasons."""
    policy = record.ask.policy
    places = record.places
    expected = [figures_of(record, place) for place in places]
    target, *others = [choice_of(record, p, e) for p, e in zip(places, expected, strict=True)]
    return Decision(
        decision_id=record.decision_id,
        target=target,
        alternatives=tuple(others),
        reasoning="" if level is Explain.NONE else wording.reasoning(record, expected, target, tuple(others)),
        policy_id=policy.policy_id,
        policy_revision=policy.revision,
        strategy=policy.picker,
        stages=() if level is Explain.NONE else stages_of(record),
        considered=record.considered,
        rejected=record.told_rejections,
        table_revision=record.table.revision,
        table_age_seconds=max(0.0, record.now - record.table.built_at),
        catalog_age_seconds=max(0.0, record.now - record.table.catalog_at),
        stale_regions=record.table.stale_regions,
        panic=record.panic,
        valid_for_seconds=policy.valid_for_seconds,
        decide_time=record.wall_time,
        rule=record.plan.rule,
        candidates=tuple(record.candidates()) if level is Explain.FULL else (),
    )


def stages_of(record: Record) -> tuple[Stage, ...]:
    """What each stage of the pipeline did."""
    rejected = record.told_rejections
    left = record.considered - sum(rejected.values())
    rule = f"rule {record.plan.rule!r} matched" if record.plan.rule else "no rule matched"
    held = record.by in wording.SESSION
    beside = () if record.shadowed is None else (Stage("shadow", wording.shadow(record, record.shadowed), 1),)
    before = []
    if record.demotion:
        before.append(Stage("budget", record.demotion, record.considered))
    if record.admission is not None:
        before.append(Stage("admission", record.admission.told(), record.considered))
    if record.spill is not None:
        before.append(Stage("spillover", record.spill.told(), record.considered))
    return (
        *before,
        Stage("rules", rule, record.considered),
        Stage("filters", wording.filtered(rejected, record.panic), left),
        Stage("scorers", wording.scored(record.walked, record.swept, record.visited, left), left),
        Stage("affinity", wording.SESSION.get(record.by, "none"), 1 if held else left),
        Stage("picker", wording.picked(record.plan.policy.picker, record.by, record.near), 1),
        Stage("alternatives", f"{len(record.chosen) - 1} of {record.wanted} wanted", len(record.chosen) - 1),
        *beside,
    )
