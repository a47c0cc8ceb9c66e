"""Last decisions, for the time in which no control plane answers.

A decision is used again only for a request of the same shape: equal in everything but its id, its session and its
prompt, and with a prompt and an answer that are no larger than those it was made for. So no bound that was checked then
is loosened now: context and latency only get easier with fewer tokens, and where a price per token is bounded, which
depends on the mix of both, the sizes must be the same.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from federation.v1 import routing_pb2

# Shapes that are remembered, and decisions of different sizes for each.
MAX_SHAPES = 1_024
DECISIONS_A_SHAPE = 8
STALE_STAGE = "stale"

Sizes = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    sizes: Sizes
    decision: routing_pb2.RouteDecision


def is_stale(decision: routing_pb2.RouteDecision) -> bool:
    """Whether the client answered from memory because no control plane did."""
    return any(stage.name == STALE_STAGE for stage in decision.stages)


class LastDecisions:
    """Bounded memory of decisions; `now` is monotonic seconds."""

    def __init__(self, max_age_seconds: float) -> None:
        self._max_age = max_age_seconds
        self._shapes: OrderedDict[bytes, deque[_Kept]] = OrderedDict()

    def keep(self, request: routing_pb2.RouteRequest, decision: routing_pb2.RouteDecision, now: float) -> None:
        if self._max_age <= 0:
            return
        key = shape(request)
        self._shapes.setdefault(key, deque(maxlen=DECISIONS_A_SHAPE)).append(_Kept(now, sizes(request), decision))
        self._shapes.move_to_end(key)
        if len(self._shapes) > MAX_SHAPES:
            self._shapes.popitem(last=False)

    def find(self, request: routing_pb2.RouteRequest, now: float) -> routing_pb2.RouteDecision | None:
        """A copy of the newest decision that may stand in, marked as stale; None if there is none."""
        wanted = sizes(request)
        for kept in reversed(self._shapes.get(shape(request), ())):
            age = now - kept.at
            if age > self._max_age:
                break
            if all(_covers(had, want) for had, want in zip(kept.sizes, wanted, strict=True)):
                return _marked(kept.decision, age, self._max_age)
        return None


def shape(request: routing_pb2.RouteRequest) -> bytes:
    """What must be equal: all of the request but its id, its session and its prompt."""
    copy = routing_pb2.RouteRequest()
    copy.CopyFrom(request)
    for name in ("request_id", "session_id"):
        copy.ClearField(name)
    if not request.qos.HasField("max_price_usd_per_million_tokens"):
        copy.ClearField("prompt")
    else:
        copy.prompt.ClearField("prefix_hashes")
    return copy.SerializeToString(deterministic=True)


def sizes(request: routing_pb2.RouteRequest) -> Sizes:
    """Prompt and answer tokens; None where the policy's assumption counts."""
    prompt = request.prompt
    return (
        prompt.input_tokens if prompt.HasField("input_tokens") else None,
        prompt.max_output_tokens if prompt.HasField("max_output_tokens") else None,
    )


def _covers(had: int | None, want: int | None) -> bool:
    if had is None or want is None:
        return had is want
    return want <= had


def _marked(decision: routing_pb2.RouteDecision, age: float, max_age: float) -> routing_pb2.RouteDecision:
    copy = routing_pb2.RouteDecision()
    copy.CopyFrom(decision)
    # Outcomes of this use must not count as repeats of the first use's; they name the node instead.
    copy.ClearField("decision_id")
    copy.table_age.FromNanoseconds(decision.table_age.ToNanoseconds() + int(age * 1e9))
    copy.catalog_age.FromNanoseconds(decision.catalog_age.ToNanoseconds() + int(age * 1e9))
    copy.valid_for.FromNanoseconds(int((max_age - age) * 1e9))
    regions = {target.region_id for target in (decision.target, *decision.alternatives)}
    copy.stale_regions.extend(sorted(regions - set(decision.stale_regions)))
    detail = f"no control plane answered; this is the last decision for such a request, {age:.1f} s old"
    copy.stages.add(name=STALE_STAGE, detail=detail, remaining=1 + len(decision.alternatives))
    if copy.reasoning:
        copy.reasoning = f"{copy.reasoning} Stale: {detail}."
    return copy
