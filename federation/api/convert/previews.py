"""Previews and their messages."""

from __future__ import annotations

from federation.api.convert.times import duration
from federation.routing.preview import Again, Expected, Preview
from federation.v1 import policy_pb2, routing_pb2


def preview_to(preview: Preview) -> policy_pb2.PreviewPolicyResponse:
    """A preview's sums; means are absent where no decision has the figure on both sides."""
    told = policy_pb2.PreviewPolicyResponse(
        decisions=preview.decisions,
        moved=preview.moved,
        refused=preview.refused,
        region_share_before=_shares(preview.regions_before),
        region_share_after=_shares(preview.regions_after),
        violations=preview.violations,
        changes=[_change(again) for again in preview.changes],
    )
    if preview.priced:
        told.mean_cost_usd_before = preview.cost_before / preview.priced
        told.mean_cost_usd_after = preview.cost_after / preview.priced
    if preview.placed:
        told.mean_time_to_first_token_before.CopyFrom(duration(preview.first_before / preview.placed))
        told.mean_time_to_first_token_after.CopyFrom(duration(preview.first_after / preview.placed))
    return told


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values()) or 1
    return {name: count / total for name, count in counts.items()}


def _change(again: Again) -> policy_pb2.PreviewChange:
    return policy_pb2.PreviewChange(
        decision_id=again.decision_id,
        model_id=again.model_id,
        before=_target(again.before),
        after=None if again.after is None else _target(again.after),
        reason="; ".join(again.violations) or again.reason,
    )


def _target(expected: Expected) -> routing_pb2.RouteTarget:
    return routing_pb2.RouteTarget(
        deployment=expected.deployment,
        region_id=expected.region_id,
        estimated_cost_usd=expected.cost_usd,
        estimated_time_to_first_token=duration(expected.time_to_first_token_seconds),
    )
