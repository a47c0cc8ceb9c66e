"""Claims: what follows from decisions. Room is taken at their targets, they are remembered, and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from federation.routing.decisions import Record
from federation.routing.rations import Rations
from federation.routing.reservations import Reservation, Reservations
from federation.routing.ring import DecisionRing
from federation.routing.runs import Run, Section
from federation.routing.state import SUSPICION, WAIT, State


@dataclass(slots=True)
class RouterStats:
    """Plain counts since the start; metrics read them when they are scraped."""

    decisions: int = 0
    walked: int = 0
    visited: int = 0
    panics: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    chosen: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (model, client region, chosen region)


class Claims:
    """Takes room for decisions of one router, remembers and counts them."""

    def __init__(
        self, state: State, reservations: Reservations, rations: Rations, ring: DecisionRing, stats: RouterStats
    ) -> None:
        self._state = state
        self._reservations = reservations
        self._rations = rations
        self._ring = ring
        self._stats = stats

    def one(self, record: Record, now: float) -> None:
        """Takes room at the target, and counts."""
        request, frame, stats, state = record.request, record.frame, self._stats, self._state
        row = record.row
        scalars, rare = frame.scalars, record.rare
        slot = scalars.slot[row]
        if record.by == "trial":
            self.attempt(record, 0, now)
        else:
            tokens = float(record.tokens)
            if rare.cached:
                tokens = max(0.0, tokens - rare.cached.get(slot, 0.0))
            # Nothing has moved since the decision.
            self._reservations.hold(
                record.number,
                slot,
                tokens,
                now,
                record.at_node,
                state.suspicion[slot],
                state.wait[slot],
                frame.plan.round_trips[scalars.domains.place[row]],
                record.answer,
                scalars.decode[row],
            )
        if request.session_id:
            state.bind_session(request.session_key, slot, now, frame.policy.session_ttl_seconds)
        if request.prefix_hashes:
            state.saw_prefixes(request.prefix_hashes, slot)
        stats.decisions = decisions = stats.decisions + 1
        state.mean_tokens += (record.tokens - state.mean_tokens) * (1.0 / decisions if decisions < 1_000 else 0.001)
        if frame.plan.room is not None or rare.demotion or self._rations.budgeted:
            self._rations.claimed(record, now)
        self._ring.add(record)
        visits = record.drawn or record.entries
        if visits is None:
            stats.visited += len(frame.plan.rows)
        else:
            stats.walked += 1
            stats.visited += len(visits)
        stats.panics += frame.ranking.panic if rare.panic is None else rare.panic
        stats.chosen[frame.keys.get(row) or frame.key(row)] += 1
        rejected = rare.rejected
        if rejected is None:
            rejected = frame.ranking.counts
        if rejected:
            for code, count in rejected.items():
                stats.rejected[code] += count

    def attempt(self, record: Record, attempt: int, now: float) -> None:
        """Takes room for an attempt, in place of an earlier one of the same decision."""
        frame, row, place, load = record.frame, record.chosen[attempt], record.places[attempt], record.load
        slot = frame.scalars.slot[row]
        at_node = float(record.evaluation.seen.at_node[place])
        round_trip = frame.plan.round_trips[frame.scalars.domains.place[row]]
        self._reservations.take(
            Reservation(
                decision=record.number,
                attempt=attempt,
                slot=slot,
                tokens=max(0.0, record.tokens - record.cached.get(slot, 0.0)),
                started=now,
                expected=at_node / float(load.suspicion[place]) - float(load.wait[place]),
                predicted=at_node,
                round_trip=round_trip,
                latency=round_trip + at_node + record.answer / frame.scalars.decode[row],
                trial=record.by == "trial" and attempt == 0,
            )
        )

    def section(self, run: Run, begin: int, end: int, slots: list[int]) -> None:
        """Files decisions of a run, from one place to before another, whose room is taken, at these slots."""
        if begin == end:
            return
        state, stats = self._state, self._stats
        tokens = run.tokens[begin:end]
        self._hold(run, begin, end, slots)
        state.touched += slots
        mean, decisions = state.mean_tokens, stats.decisions
        for each in tokens:
            decisions += 1
            mean += (each - mean) * (1.0 / decisions if decisions < 1_000 else 0.001)
        state.mean_tokens, stats.decisions = mean, decisions
        self._ring.add(Section(run, run.number + begin, run.number + end))
        stats.walked += end - begin
        stats.visited += int(np.count_nonzero(run.pairs.rows[:, begin:end] >= 0))
        kinds, rows, pool = run.pairs.kinds[begin:end], run.rows[begin:end], run.table.pool
        for frame, count in zip(run.pairs.frames, np.bincount(kinds).tolist(), strict=False):
            stats.panics += frame.ranking.panic * count
            for code, rejected in frame.ranking.counts.items() if count else ():
                stats.rejected[code] += rejected * count
        # Whoever runs one model in one region is counted as one.
        alike = (kinds * len(pool.models) + pool.model.take(rows)) * len(pool.places) + pool.place.take(rows)
        _, firsts, counts = np.unique(alike, return_index=True, return_counts=True)
        for place, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            frame, row = run.frames[begin + place], int(rows[place])
            stats.chosen[frame.keys.get(row) or frame.key(row)] += count

    def _hold(self, run: Run, begin: int, end: int, slots: list[int]) -> None:
        second, at = run.second[begin:end], run.at_node[begin:end]
        decode, round_trip = (
            np.where(second, column[1, begin:end], column[0, begin:end])
            for column in (run.pairs.decode, run.pairs.round_trip)
        )
        matrix = self._state.matrix
        self._reservations.hold_many(
            zip(
                range(run.number + begin, run.number + end),
                slots,
                map(float, run.tokens[begin:end]),
                repeat(run.now),
                at.tolist(),
                matrix[SUSPICION].take(slots).tolist(),
                matrix[WAIT].take(slots).tolist(),
                round_trip.tolist(),
                run.answers[begin:end],
                decode.tolist(),
                strict=False,
            ),
            run.now,
            at,
        )
