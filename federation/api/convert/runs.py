"""Runs as encoded RouteResults: `RecordWriter` for many decisions at once, where only the target is asked for.

The figures of all targets are columns of one array that has the layout of the wire; heads and whatever decisions of one
plan share are kept bytes, so that a decision is its number, a head, its row of the array, and a tail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from federation.api.convert.records import (
    COST,
    FIGURES,
    MOST_SECONDS,
    NANOS,
    SCORE,
    SCORES,
    SCORES_LENGTH,
    TAGS,
    TERMS,
    RecordWriter,
)
from federation.api.convert.targets import LOW_BITS, framed, varint
from federation.routing.decisions import Record
from federation.routing.frame import Frame
from federation.routing.pairs import (
    BATCH,
    COMMITTED,
    DECODE,
    EGRESS_USD,
    LEAST,
    LOCALITY,
    PER_TOKEN,
    ROUND_TRIP,
    SLOWDOWN,
    TURN_SECONDS,
    laid_of,
)
from federation.routing.runs import Run
from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, TURN, WAIT
from policies.pool import FloatArray, IntArray
from policies.types import Explain

# RouteBatchResponse.results and RouteResult.decision.
FIELD_1 = b"\x0a"
_LOW = np.array(LOW_BITS, dtype=np.uint16)
_SIZES = {"s": "S3", "H": "<u2", "B": "u1", "d": "<f8"}
# `FIGURES` as a row of an array: a field a letter.
_ROW = np.dtype([(f"f{n}", _SIZES[kind]) for n, kind in enumerate(FIGURES.format.lstrip("<").replace("3s", "s"))])
# Where the four durations begin.
_DURATIONS = (0, 5, 28, 33)


class RunWriter:
    """Writes decisions of runs with what a record writer keeps of the current table."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer

    def encoded(self, run: Run, places: Iterable[int]) -> dict[int, bytes]:
        """Decisions at these places as field 1 that holds an encoded RouteResult; some places are left out.

        Those are for `RecordWriter`: with reasons, alternatives or another model, by a gateway, or with figures that
        have no one width.
        """
        requests, wanted = run.requests, run.wanted
        plain = [
            p for p in places if requests[p].explain is Explain.NONE and not wanted[p] and not requests[p].forwarded
        ]
        if not plain:
            return {}
        spots = np.array(plain)
        figures, sound = self._figures(run, spots)
        data, size = figures.tobytes(), _ROW.itemsize
        shared = {kind: self._shared(run, plain, kind, spots) for kind in set(run.pairs.kinds[spots].tolist())}
        deployed, heads = run.table.compiled.deployed, self._writer.head
        prefix = run.frames[0].replica.encode() + b"-"
        rows, kinds = run.rows[spots].tolist(), run.pairs.kinds[spots].tolist()
        found: dict[int, bytes] = {}
        for index, (place, row, kind, fits) in enumerate(zip(plain, rows, kinds, sound.tolist(), strict=True)):
            there = deployed[row]
            model_id, tail = shared[kind]
            if not fits or there.ingress_endpoint or (model_id and model_id != there.model_id):
                continue
            name = framed(FIELD_1, prefix + b"%x" % (run.number + place))
            head = heads(row)
            length = len(name) + len(head) + size + len(tail)
            inner = FIELD_1 + varint(length)
            figure = data[index * size : index * size + size]
            found[place] = b"".join((FIELD_1, varint(length + len(inner)), inner, name, head, figure, tail))
        return found

    def _shared(self, run: Run, plain: list[int], kind: int, spots: IntArray) -> tuple[str, bytes]:
        """Of one plan the model that was asked for, "" where any will do, and the tail of its decisions."""
        plan = run.pairs.frames[kind].plan

        def one() -> Record:
            return run.record(plain[int(np.argmax(run.pairs.kinds[spots] == kind))])

        tail = self._writer.tail(plan, run.now, run.wall_time, one)
        return plan.asked.model_id if plan.asked is not None else "", tail

    def _figures(self, run: Run, spots: IntArray) -> tuple[Any, Any]:
        """The figures of targets, and of which of them each has its one width.

        The same as those of `RecordWriter`, by the same steps in the same order.
        """
        still, own, moving = _still(run, spots), _own(run, spots), _moving(run, spots)
        latency_good, latency_slope, speed_good, speed_slope, cost_good, cost_slope, *weights, weight_sum = own
        pool, rows = run.table.pool, run.rows[spots]
        tokens = np.array(run.tokens, dtype=np.float64)[spots]
        answer = np.array(run.answers, dtype=np.float64)[spots]
        in_flight, suspicion, batch, per_token = moving[IN_FLIGHT], moving[SUSPICION], still[BATCH], still[PER_TOKEN]
        busy = np.maximum(in_flight, moving[RUNNING])
        slow = 1.0 + still[SLOWDOWN] * np.minimum(busy / batch, 1.0)
        full = np.maximum(busy - batch + 1.0, 0.0) * still[TURN_SECONDS]
        prefill = np.maximum(per_token * tokens, still[LEAST])
        at_node = suspicion * ((moving[PENDING] * per_token + prefill) * slow + moving[WAIT] + full)
        round_trip, speed = still[ROUND_TRIP], still[DECODE] / slow
        first = round_trip + at_node
        early, late = self._intervals(run, spots)
        whole, soonest, latest = first + answer / speed, round_trip + at_node * early, round_trip + at_node * late
        priced = ~np.isnan(pool.input_price.take(rows) + pool.output_price.take(rows))
        paid = tokens * pool.input_price.take(rows) + answer * pool.output_price.take(rows)
        cost = answer * still[EGRESS_USD]
        cost = np.where(in_flight >= still[COMMITTED], cost + paid, cost)
        points = (
            1.0 + (first - latency_good) * latency_slope,
            1.0 + (speed - speed_good) * speed_slope,
            np.where(priced, 1.0 + (cost - cost_good) * cost_slope, 0.0),
            still[LOCALITY],
            pool.health.take(rows),
        )
        total = weights[0] * points[0]
        for weight, each in zip(weights[1:], points[1:], strict=True):
            total = total + weight * each
        score = np.clip(total / weight_sum, 0.0, 1.0)
        out = np.empty(len(spots), dtype=_ROW)
        for at, tag, seconds in zip(_DURATIONS, TAGS, (whole, first, soonest, latest), strict=True):
            _lay_duration(out, at, tag, seconds)
        out["f10"], out["f11"] = np.where(priced, COST, SCORE), np.where(priced, cost, score)
        out["f12"], out["f13"], out["f14"], out["f15"] = SCORE, score, SCORES, SCORES_LENGTH
        for number, value in enumerate((*points, score)):
            # Fields of doubles, from 1 on; the score is clipped already.
            out[f"f{16 + 2 * number}"], out[f"f{17 + 2 * number}"] = number + 1 << 3 | 1, np.clip(value, 0.0, 1.0)
        sound = (whole < MOST_SECONDS) & (latest < MOST_SECONDS) & (soonest >= 0.0) & (soonest <= latest)
        return out, sound & (first >= 0.0)

    def _intervals(self, run: Run, spots: IntArray) -> FloatArray:
        """Earliest and latest, as shares of the seconds at the node; kept with the run, since they are told now."""
        spread, known = run.frames[0].spread, run.intervals
        slots = run.table.pool.slot.take(run.rows[spots]).tolist()
        found = [spread.interval(slot) for slot in slots]
        for place, interval in zip(spots.tolist(), found, strict=True):
            known.setdefault(place, interval)
        return np.array(found).T


def _lay_duration(out: Any, at: int, tag: bytes, seconds: FloatArray) -> None:
    """Writes seconds of under MOST_SECONDS as a Duration; what others are written as is nobody's to read."""
    seconds = np.clip(np.nan_to_num(seconds), 0.0, MOST_SECONDS - 1.0)
    whole = seconds.astype(np.int64)
    nanos = ((seconds - whole) * 1e9).astype(np.int64)
    out[f"f{at}"], out[f"f{at + 1}"] = tag, whole | NANOS
    out[f"f{at + 2}"], out[f"f{at + 3}"] = _LOW[nanos & 16_383], _LOW[nanos >> 14 & 16_383]
    out[f"f{at + 4}"] = nanos >> 28


def _still(run: Run, spots: IntArray) -> FloatArray:
    """What of the targets' groups does not move."""
    kinds, slots = run.pairs.kinds[spots], run.table.pool.slot.take(run.rows[spots])
    found = np.empty((len(laid_of(run.frames[0]).still), len(spots)))
    for kind in np.unique(kinds).tolist():
        frame, mine = run.pairs.frames[kind], np.flatnonzero(kinds == kind)
        found[:, mine] = laid_of(frame).still.take(frame.ranking.groups.numbers.take(slots[mine]), axis=1)
    return found


def _own(run: Run, spots: IntArray) -> FloatArray:
    """Of the policy's lines of latency, throughput and cost the good point and the slope; weights, and their sum."""
    by_kind = np.array([_lines(frame) for frame in run.pairs.frames]).T
    return by_kind.take(run.pairs.kinds[spots], axis=1)


def _lines(frame: Frame) -> list[float]:
    policy, ranking = frame.policy, frame.ranking
    lines = (policy.latency, policy.throughput, policy.cost)
    weights = [ranking.weights[name] for name in TERMS]
    return [value for line in lines for value in (line.good, line.slope)] + [*weights, ranking.weight_sum or 1.0]


def _moving(run: Run, spots: IntArray) -> FloatArray:
    """What moved of the targets, as it was then."""
    second = run.second[spots].astype(np.int64)
    found: FloatArray = run.pairs.moving[:TURN, second, spots]
    anew = [(index, place) for index, place in enumerate(spots.tolist()) if place in run.anew]
    if anew:
        which = second.tolist()
        seen = [run.anew[place][which[index]][1 : TURN + 1] for index, place in anew]
        found[:, [index for index, _ in anew]] = np.array(seen).T
    return found
