"""What a request asks for, in a table: the model, and the rows that may answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federation.routing.state import State
from federation.routing.table import Table
from policies.errors import NoCandidate
from policies.policy import Policy
from policies.pool import NO_ROWS, Identity, IntArray
from policies.types import RouteRequest


def rows_of(request: RouteRequest, table: Table) -> tuple[Identity | None, IntArray]:
    """The model asked for, and the rows of it or of the capability, in order. NoCandidate for what is unknown."""
    compiled = table.compiled
    if request.capability and request.capability not in compiled.capabilities:
        raise unknown("", request.capability)
    if not request.model_id:
        return None, compiled.rows_by_capability.get(request.capability, NO_ROWS)
    model_id = compiled.model_ids.get(request.model_id)
    if model_id is None:
        raise unknown(request.model_id, "")
    model = compiled.models[model_id]
    if not (request.allow_substitutes and model.equivalence_class):
        return model, compiled.rows_by_model[model_id]
    same = [
        compiled.rows_by_model[other.model_id]
        for other in compiled.models.values()
        if other.equivalence_class == model.equivalence_class
    ]
    return model, np.sort(np.concatenate(same))


def utilization(policy: Policy, request: RouteRequest, table: Table, state: State) -> float | None:
    """Mean share of batch places in use over a request's deployments; only where a rule asks for it."""
    if not any(rule.match.reads_utilization for rule in policy.rules):
        return None
    compiled = table.compiled
    by_model: Mapping[str, IntArray] = compiled.rows_by_model
    rows = by_model.get(compiled.model_ids.get(request.model_id, ""), NO_ROWS)
    if not len(rows):
        rows = compiled.rows_by_capability.get(request.capability, NO_ROWS)
    if not len(rows):
        return None
    load = state.load(table.pool.slot[rows])
    batch = np.where(np.isnan(table.pool.batch[rows]), policy.assume.max_batch_size, table.pool.batch[rows])
    return float(np.mean(np.maximum(load.in_flight, load.running) / batch))


def unknown(model_id: str, capability: str) -> NoCandidate:
    """What is not there, and what is there for other tenants only: the two must look the same."""
    if model_id:
        return NoCandidate(
            "MODEL_UNKNOWN",
            f"model_id {model_id!r} was never registered;"
            " `fairway models list` shows the models, `fairway models register` adds one",
        )
    return NoCandidate(
        "CAPABILITY_UNKNOWN", f"capability {capability!r} was never registered with a model or deployment"
    )
