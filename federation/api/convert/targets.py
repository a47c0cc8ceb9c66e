"""RouteTarget and RouteDecision as bytes, by the shortest way: what never changes of a deployment is kept encoded.

Most answers hold four targets of fifteen fields each, of which decisions move seven. Setting all of them on messages
and encoding those costs 20 µs a decision, writing the bytes 10 µs. The bytes are those that protobuf itself would
write for `decisions.decision_to`, field by field in the order of their numbers; a test holds one against the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from struct import Struct

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from federation.api.convert.times import duration, timestamp
from federation.v1 import routing_pb2
from policies.types import Choice, Decision, Scores

# Bounded by memory: some 300 bytes a deployment; evicted ones are encoded again.
KEPT_TARGETS = 100_000
# Stages say the same again and again but for their counts.
KEPT_STAGES = 4_096
# Seconds that a table's age or an estimate has at most; longer is not an estimate.
MAX_ESTIMATE_SECONDS = 1 << 34
# Tag and value of: score; scores with latency, throughput, cost, locality, health, total.
_SCORES = Struct("<BdBBBdBdBdBdBdBd")
_DOUBLE = Struct("<Bd")
# Fourteen bits of a varint as two little-endian bytes: with more to come, and as its last.
LOW_BITS = tuple(n & 127 | 128 | (n >> 7 | 128) << 8 for n in range(1 << 14))
_LAST = tuple(n & 127 | 128 | n >> 7 << 8 for n in range(1 << 14))
# Tag, length, and of a Duration or Timestamp: tagged seconds where there are some, tagged nanos of four or five bytes.
_LONG, _LONG_NANOS = Struct("<BBBBBHHB"), Struct("<BBBHHB")
_SHORT, _SHORT_NANOS = Struct("<BBBBBHH"), Struct("<BBBHH")
_TIME = Struct("<BBBBHHBBHHB")
_VARINTS = tuple(bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(4_096))

_SCORE, _SCORES_TAG, _COST = 11 << 3 | 1, 12 << 3 | 2, 10 << 3 | 1
_LATENCY, _FIRST_TOKEN, _EARLIEST, _LATEST = 8 << 3 | 2, 9 << 3 | 2, 14 << 3 | 2, 15 << 3 | 2
_PARTS_LENGTH = 6 * 9


def target_to(choice: Choice) -> routing_pb2.RouteTarget:
    """A choice as its message; an estimate that is not a number is not known."""
    return routing_pb2.RouteTarget.FromString(target_bytes(choice))


def target_bytes(choice: Choice) -> bytes:
    """A choice as an encoded RouteTarget; an estimate that is not a number is not known."""
    # A choice without a place of its own in the region is its gateway's.
    head, tail = still_bytes(
        "" if choice.via_gateway else choice.node_id,
        choice.region_id,
        choice.deployment,
        choice.model_id,
        choice.served_model_name or choice.model_id,
        choice.endpoint,
        choice.via_gateway,
        choice.substitution_differences,
    )
    cost = choice.estimated_cost_usd
    return b"".join(
        (
            head,
            _estimate(_LATENCY, choice.estimated_latency_seconds),
            _estimate(_FIRST_TOKEN, choice.estimated_time_to_first_token_seconds),
            b"" if cost is None or cost != cost else _DOUBLE.pack(_COST, cost),
            _scores(choice.score, choice.scores),
            tail,
            _estimate(_EARLIEST, choice.earliest_time_to_first_token_seconds),
            _estimate(_LATEST, choice.latest_time_to_first_token_seconds),
        )
    )


@lru_cache(KEPT_TARGETS)
def still_bytes(
    node_id: str,
    region_id: str,
    deployment: str,
    model_id: str,
    served_model_name: str,
    endpoint: str,
    via_gateway: bool,
    differences: tuple[str, ...],
) -> tuple[bytes, bytes]:
    head = routing_pb2.RouteTarget(
        node_id=node_id,
        region_id=region_id,
        deployment=deployment,
        model_id=model_id,
        served_model_name=served_model_name,
        endpoint=endpoint,
        via_gateway=via_gateway,
    )
    tail = routing_pb2.RouteTarget(substitution_differences=differences)
    return head.SerializeToString(), tail.SerializeToString()


def _scores(score: float, scores: Scores) -> bytes:
    parts = (scores.latency, scores.throughput, scores.cost, scores.locality, scores.health, scores.total)
    if score and all(parts):
        latency, throughput, cost, locality, health, total = parts
        return _SCORES.pack(
            *(_SCORE, score, _SCORES_TAG, _PARTS_LENGTH),
            *(9, latency, 17, throughput, 25, cost, 33, locality, 41, health, 49, total),
        )
    # A zero is not written, which moves what follows.
    message = routing_pb2.RouteTarget(
        score=score,
        scores=routing_pb2.Scores(
            latency=scores.latency,
            throughput=scores.throughput,
            cost=scores.cost,
            locality=scores.locality,
            health=scores.health,
            total=scores.total,
        ),
    )
    return message.SerializeToString()


def _estimate(tag: int, seconds: float | None) -> bytes:
    if seconds is None or not 0.0 <= seconds < MAX_ESTIMATE_SECONDS:
        return b""
    return _duration(tag, seconds)


def _duration(tag: int, seconds: float) -> bytes:
    whole = int(seconds)
    nanos = int((seconds - whole) * 1e9)
    if whole < 128:
        if nanos >= 1 << 28:
            low, high = LOW_BITS[nanos & 16_383], LOW_BITS[nanos >> 14 & 16_383]
            if whole:
                return _LONG.pack(tag, 8, 8, whole, 16, low, high, nanos >> 28)
            return _LONG_NANOS.pack(tag, 6, 16, low, high, nanos >> 28)
        if nanos >= 1 << 21:
            low, high = LOW_BITS[nanos & 16_383], _LAST[nanos >> 14]
            if whole:
                return _SHORT.pack(tag, 7, 8, whole, 16, low, high)
            return _SHORT_NANOS.pack(tag, 5, 16, low, high)
    return _message(tag, duration(seconds))


def _message(tag: int, message: Duration | Timestamp) -> bytes:
    body = message.SerializeToString()
    return bytes((tag, len(body))) + body


def varint(number: int) -> bytes:
    if 0 <= number < 4_096:
        return _VARINTS[number]
    # Negative numbers take ten bytes.
    number &= (1 << 64) - 1
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def framed(tag: bytes, body: bytes) -> bytes:
    """A field of this tag that holds a text, or a message, of these bytes."""
    length = len(body)
    return tag + (_VARINTS[length] if length < 4_096 else varint(length)) + body


@lru_cache(KEPT_STAGES)
def stage_bytes(name: str, detail: str, remaining: int) -> bytes:
    message = routing_pb2.RouteDecision()
    message.stages.add(name=name, detail=detail, remaining=remaining)
    return message.SerializeToString()


@lru_cache(1_024)
def policy_bytes(policy_id: str, revision: int, strategy: str) -> bytes:
    return routing_pb2.RouteDecision(
        policy_id=policy_id, policy_revision=revision, strategy=strategy
    ).SerializeToString()


@lru_cache(64)
def valid_for_bytes(seconds: float) -> bytes:
    return routing_pb2.RouteDecision(valid_for=duration(seconds)).SerializeToString()


def _told(rejected: Mapping[str, int], revision: int) -> bytes:
    return routing_pb2.RouteDecision(rejected=rejected, table_revision=revision).SerializeToString(deterministic=True)


def decide_time_bytes(unix_seconds: float) -> bytes:
    whole = math.floor(unix_seconds)
    nanos = int((unix_seconds - whole) * 1e9)
    if 1 << 28 <= whole < 1 << 31 and nanos >= 1 << 28:
        return _TIME.pack(
            *(0x8A, 1, 12, 8, LOW_BITS[whole & 16_383], LOW_BITS[whole >> 14 & 16_383], whole >> 28),
            *(16, LOW_BITS[nanos & 16_383], LOW_BITS[nanos >> 14 & 16_383], nanos >> 28),
        )
    body = timestamp(unix_seconds).SerializeToString()
    return b"\x8a\x01%b%b" % (_VARINTS[len(body)], body)


def decision_bytes(decision: Decision) -> bytes:
    """A decision that lists no candidates as an encoded RouteDecision."""
    assert not decision.candidates, "candidates are written by decision_to"
    parts = [framed(b"\x0a", decision.decision_id.encode())] if decision.decision_id else []
    parts.append(framed(b"\x12", target_bytes(decision.target)))
    parts += [framed(b"\x1a", target_bytes(choice)) for choice in decision.alternatives]
    if decision.reasoning:
        parts.append(framed(b"\x22", decision.reasoning.encode()))
    parts.append(policy_bytes(decision.policy_id, decision.policy_revision, decision.strategy))
    parts += [stage_bytes(stage.name, stage.detail, stage.remaining) for stage in decision.stages]
    if decision.considered:
        parts.append(b"\x48" + varint(decision.considered))
    if decision.rejected:
        parts.append(_told(decision.rejected, decision.table_revision))
    elif decision.table_revision:
        parts.append(b"\x58" + varint(decision.table_revision))
    parts.append(age_bytes(0x62, decision.table_age_seconds))
    parts += [framed(b"\x6a", region.encode()) for region in decision.stale_regions]
    if decision.panic:
        parts.append(b"\x70\x01")
    parts.append(valid_for_bytes(decision.valid_for_seconds))
    parts.append(decide_time_bytes(decision.decide_time))
    if decision.rule:
        parts.append(framed(b"\x92\x01", decision.rule.encode()))
    # The second byte of its tag is the first of what `age_bytes` writes.
    parts += (b"\x9a", age_bytes(0x01, decision.catalog_age_seconds))
    return b"".join(parts)


def age_bytes(tag: int, seconds: float) -> bytes:
    """A Duration that is not negative, under a tag of one byte."""
    return _duration(tag, seconds) if 0.0 <= seconds < MAX_ESTIMATE_SECONDS else _message(tag, duration(seconds))
