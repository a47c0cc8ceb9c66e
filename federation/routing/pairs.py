"""Pairs by columns: `frame.draw_two` for many requests at once, as if each were the first of them.

Requests may be of many frames of one table. What comes out says for each whether the draw settles it as the state is
now; who decides them in turn goes by that for as long as nobody who was looked at has moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.routing.frame import SURE_SUSPICION, Frame
from federation.routing.ranking import MAX_HEADS
from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, WAIT, State
from policies.pool import BoolArray, FloatArray, IntArray

# What of a group does not move, as rows of `Laid.still`.
PER_TOKEN, LEAST, BATCH, TURN_SECONDS, SLOWDOWN, SPEED, COMMITTED, LIMIT = range(8)
FIXED, EGRESS, INPUT, OUTPUT, ZONE, REGION, DECODE, ROUND_TRIP = range(8, 16)
LOCALITY, EGRESS_USD = range(16, 18)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Laid:
    """A frame for reading by columns."""

    # A column a group.
    still: FloatArray
    # Of who may stand in, by head: zone, region, where its rows begin among `members`, and how many they are; no rows
    # past the last head.
    heads: IntArray
    members: IntArray


def laid_of(frame: Frame) -> Laid:
    """A frame's columns, made once."""
    if frame.laid is None:
        frame.laid = _laid(frame)
    return frame.laid


def _laid(frame: Frame) -> Laid:
    ranking, columns, slowdown = frame.ranking, frame.ranking.groups.columns, frame.policy.batch_slowdown
    region = np.array(ranking.region, dtype=np.int64)
    still = np.array(
        [
            columns.per_token,
            columns.least,
            columns.batch,
            columns.answer_tokens / columns.decode / columns.batch,
            np.full(len(columns.batch), slowdown),
            ranking.throughput_seconds * columns.decode,
            columns.committed,
            columns.limit,
            ranking.fixed,
            ranking.egress_seconds,
            ranking.input_seconds,
            ranking.output_seconds,
            ranking.zone,
            region,
            columns.decode,
            frame.plan.round_trip[region],
            ranking.locality,
            np.array(ranking.egress)[region],
        ]
    )
    heads = np.zeros((4, MAX_HEADS), dtype=np.int64)
    groups = [ranking.groups.one(number).rows for number in ranking.heads] if frame.spares else []
    begin = 0
    for place, ((zone, away, _), rows) in enumerate(zip(frame.spares, groups, strict=True)):
        heads[:, place] = zone, away, begin, len(rows)
        begin += len(rows)
    return Laid(still, heads, np.concatenate([np.zeros(0, dtype=np.int64), *groups]))


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was drawn for each of some requests, and what became of it: a column a request."""

    # The frames, and which of them is each request's.
    frames: Sequence[Frame]
    kinds: IntArray
    # Rows and slots of the two, then of those who may stand in; -1: nobody.
    rows: IntArray
    slots: IntArray
    # What the state said of them: a row a kind of `state`.
    moving: FloatArray
    # Whether the draw settles it, and whether the second one is the better. Of small frames all rows are kept as they
    # are in turn, so that it settles none.
    settled: BoolArray
    second: BoolArray
    # Of the two: seconds at the node, tokens a second, and seconds of the round trip.
    at_node: FloatArray
    decode: FloatArray
    round_trip: FloatArray


def drawn(
    frames: Sequence[Frame],
    state: State,
    tokens: FloatArray,
    answers: FloatArray,
    wanted: IntArray,
    fits: BoolArray,
    draws: Sequence[NDArray[np.uint64]],
) -> Pairs:
    """Draws for requests of these frames, by their seeds' first two draws."""
    kinds: dict[int, int] = {}
    of_kind = np.array([kinds.setdefault(id(frame), len(kinds)) for frame in frames])
    own = {id(frame): frame for frame in frames}
    each = [own[key] for key in kinds]
    order = np.argsort(of_kind, kind="stable")
    counts = np.bincount(of_kind, minlength=len(each))
    ends = np.cumsum(counts).tolist()
    spans = list(zip(each, [0, *ends], ends, strict=False))
    # From here on kind by kind.
    sizes = np.repeat(np.array([len(frame.ranking.rows) for frame in each]), counts)
    floors = np.repeat(np.array([frame.floor for frame in each]), counts)
    large = np.repeat(np.array([not frame.small for frame in each]), counts)
    one, two = (draw[order] for draw in draws)
    tokens, answers, wanted, fits = tokens[order], answers[order], wanted[order], fits[order]
    places = np.stack([_scaled(one, sizes), _scaled(two, sizes)])
    rows = np.empty(places.shape, dtype=np.int64)
    for frame, begin, end in spans:
        rows[:, begin:end] = frame.ranking.rows.take(places[:, begin:end])
    slot_of = frames[0].table.pool.slot
    slots = slot_of.take(rows)
    still = np.empty((EGRESS_USD + 1, *rows.shape))
    for frame, begin, end in spans:
        number = frame.ranking.groups.numbers.take(slots[:, begin:end])
        still[:, :, begin:end] = laid_of(frame).still.take(number, axis=1)
    others = _standing_in(spans, counts, one, wanted, still)
    size = len(frames)
    rows = np.concatenate([rows, *[other.reshape(1, size) for other in others]])
    slots = np.where(rows < 0, -1, slot_of.take(rows))
    moving = state.matrix.take(slots, axis=1)
    worth, at_node = _worth(still, moving[:, :2], tokens, answers)
    settled = large & fits & (rows[0] != rows[1]) & (worth <= floors).all(axis=0) & (worth < np.inf).all(axis=0)
    settled &= (moving[IN_FLIGHT, :2] < still[LIMIT]).all(axis=0)
    if len(others):
        limit = frames[0].table.pool.limit.take(rows[2:])
        unfit = (moving[SUSPICION, 2:] > SURE_SUSPICION) | (moving[IN_FLIGHT, 2:] >= limit)
        settled &= ~(unfit & (rows[2:] >= 0)).any(axis=0)
    second = (worth[1] < worth[0]) | ((worth[1] == worth[0]) & (rows[1] < rows[0]))
    back = np.empty(size, dtype=np.int64)
    back[order] = np.arange(size)

    def put(column: Any) -> Any:
        """In the order of the requests again."""
        return column if len(each) == 1 else column.take(back, axis=-1)

    return Pairs(
        frames=each,
        kinds=of_kind,
        rows=put(rows),
        slots=put(slots),
        moving=put(moving),
        settled=put(settled),
        second=put(second),
        at_node=put(at_node),
        decode=put(still[DECODE]),
        round_trip=put(still[ROUND_TRIP]),
    )


def _scaled(draw: NDArray[np.uint64], size: IntArray) -> IntArray:
    """`draw * size >> 64`, of 64 bits and 32."""
    wide = size.astype(np.uint64)
    high, low = (draw >> HALF) * wide, (draw & LOW_HALF) * wide
    return ((high + (low >> HALF)) >> HALF).astype(np.int64)


def _worth(
    still: FloatArray, moving: FloatArray, tokens: FloatArray, answers: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Worth in seconds, and seconds at the node: the same sums in the same order as `frame.draw_two`."""
    flying, suspicion, per_token, batch = moving[IN_FLIGHT], moving[SUSPICION], still[PER_TOKEN], still[BATCH]
    busy = np.maximum(flying, moving[RUNNING])
    slow = 1.0 + still[SLOWDOWN] * np.minimum(busy / batch, 1.0)
    work = moving[PENDING] * per_token * slow + moving[WAIT]
    work += np.maximum(busy - batch + 1.0, 0.0) * still[TURN_SECONDS]
    prefill = np.maximum(per_token * tokens, still[LEAST])
    at_node = work * suspicion + slow * suspicion * prefill
    worth = still[FIXED] + answers * still[EGRESS] + at_node - still[SPEED] / slow
    paid = (still[COMMITTED] == 0.0) | (flying >= still[COMMITTED])
    return np.where(paid, worth + (tokens * still[INPUT] + answers * still[OUTPUT]), worth), at_node


def _standing_in(
    spans: Sequence[tuple[Frame, int, int]],
    counts: IntArray,
    one: NDArray[np.uint64],
    wanted: IntArray,
    still: FloatArray,
) -> list[IntArray]:
    """Rows of those who may stand in, a column each, head by head; -1: nobody."""
    if not wanted.any() or not any(frame.spares for frame, _, _ in spans):
        return []
    zones, regions = still[ZONE], still[REGION]
    count = 1 + (zones[0] != zones[1]).astype(np.int64)
    away = regions[0] != regions[1]
    heads = np.repeat(np.stack([laid_of(frame).heads for frame, _, _ in spans]), counts, axis=0)
    found: list[IntArray] = []
    for place in range(MAX_HEADS):
        zone, region, begin, size = heads[:, :, place].T
        take = (size > 0) & (zone != zones[0]) & (zone != zones[1]) & (wanted > 0) & ~((count > wanted) & away)
        if not take.any():
            continue
        count += take
        away |= take & (region != regions[0])
        bits = one >> count.astype(np.uint64) & LOW_HALF
        among = begin + (bits * size.astype(np.uint64) >> HALF).astype(np.int64)
        rows = np.full(len(one), -1, dtype=np.int64)
        for frame, start, end in spans:
            mine = take[start:end]
            if mine.any():
                rows[start:end][mine] = laid_of(frame).members.take(among[start:end][mine])
        found.append(rows)
    return found
