"""Reservations: room that decisions took and that outcomes, or time, give back.

A reservation holds one request and its prompt's tokens at one deployment.  The tokens go at the first token, both at
the end.  A gateway that never reports does not hold room for ever: tokens go when the first token is long overdue, the
request when its whole answer is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from federation.routing.state import MAX_TOUCHED, State
from policies.pool import FloatArray

# A first token is overdue when it takes this much longer than predicted, and then a little.
OVERDUE_RATIO = 2.0
OVERDUE_SECONDS = 0.5
# A first token that stays away is told again after this, as it makes its node ever more suspect.
OVERDUE_AGAIN_SECONDS = 1.0
# First tokens are reported by gateways that reported one within this.
REPORTED_SECONDS = 60.0
# By then tokens that nobody reported are taken to be prefilled; where gateways do report, the node owes them still.
TOKENS_RATIO = 4.0
TOKENS_REPORTED_RATIO = 20.0
TOKENS_SECONDS = 2.0
# And the request to be over; longer than most answers, shorter than a forgotten one would do harm.
REQUEST_RATIO = 3.0
REQUEST_SECONDS = 30.0
# Buckets of the wheel; as fine as the sweep.
TICKS_PER_SECOND = 10
_DECISION = itemgetter(0)


@dataclass(slots=True)
class Reservation:
    """One attempt's room. `expected` is the predicted time at the node without waits and suspicion, in seconds."""

    decision: int
    attempt: int
    slot: int
    tokens: float
    started: float
    expected: float
    predicted: float
    round_trip: float
    latency: float
    trial: bool
    pending: bool = True
    # Whether its time to the first token was learned from.
    told: bool = False
    # What it was drawn up from; None where it was taken as it is.
    held: Held | None = None


class Held(NamedTuple):
    """A first attempt's room as plain numbers, of which a `Reservation` is drawn up once something happens to it."""

    decision: int
    slot: int
    tokens: float
    started: float
    # Seconds at the node as predicted, and what suspicion and waits made of them.
    at_node: float
    suspicion: float
    wait: float
    round_trip: float
    answer: int
    decode: float

    def drawn_up(self) -> Reservation:
        decision, slot, tokens, started, at_node, suspicion, wait, round_trip, answer, decode = self
        expected, latency = at_node / suspicion - wait, round_trip + at_node + answer / decode
        # By position: every request comes here.
        return Reservation(
            decision, 0, slot, tokens, started, expected, at_node, round_trip, latency, False, True, False, self
        )


class Reservations:
    """All room that is taken, by decision, with a wheel of deadlines that `sweep` turns."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._open: dict[int, Reservation | Held] = {}
        self._wheel: defaultdict[int, list[Reservation | Held]] = defaultdict(list)
        self._swept = 0
        # Whether anybody reports first tokens; without, none is overdue.
        self.first_tokens_seen = float("-inf")
        # Slots with a trial under way, and those whose trials are another replica's.
        self.trials: set[int] = set()
        self._withheld: frozenset[int] = frozenset()
        # Those whose trial failed since the table was made, which still takes their circuits for half-open.
        self._failed: set[int] = set()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, reservation: Reservation) -> None:
        """Counts the request and its tokens at its slot, in place of an earlier attempt of the same decision."""
        self.release(reservation.decision)
        self._open[reservation.decision] = reservation
        self._state.choose(reservation.slot, reservation.tokens)
        if reservation.trial:
            self._state.trial[reservation.slot] = 0.0
            self.trials.add(reservation.slot)
        self._file(reservation, reservation.started + OVERDUE_RATIO * reservation.predicted + OVERDUE_SECONDS)

    def hold(
        self,
        decision: int,
        slot: int,
        tokens: float,
        started: float,
        at_node: float,
        suspicion: float,
        wait: float,
        round_trip: float,
        answer: int,
        decode: float,
    ) -> None:
        """`take` for the first attempt of a new decision, which is no trial."""
        # Not by its own constructor, which takes longer than all the rest.
        held = tuple.__new__(
            Held, (decision, slot, tokens, started, at_node, suspicion, wait, round_trip, answer, decode)
        )
        self._open[decision] = held
        state = self._state
        state.pending[slot] += tokens
        state.in_flight[slot] += 1.0
        touched = state.touched
        touched.append(slot)
        if len(touched) > MAX_TOUCHED:
            state.moved()
        state.turns = state.turn[slot] = state.turns + 1.0
        tick = int((started + OVERDUE_RATIO * at_node + OVERDUE_SECONDS) * TICKS_PER_SECOND)
        self._wheel[(tick if tick > self._swept else self._swept) + 1].append(held)

    def hold_many(
        self,
        decided: Iterable[tuple[int, int, float, float, float, float, float, float, int, float]],
        started: float,
        at_node: FloatArray,
    ) -> None:
        """`hold` for many new decisions that start at one time, whose requests and tokens are counted already."""
        # Made in C, one after the other.
        held = list(map(tuple.__new__, repeat(Held), decided))
        self._open.update(zip(map(_DECISION, held), held, strict=True))
        ticks = ((started + OVERDUE_RATIO * at_node + OVERDUE_SECONDS) * TICKS_PER_SECOND).astype(np.int64)
        wheel = self._wheel
        for tick, each in zip((np.maximum(ticks, self._swept) + 1).tolist(), held, strict=True):
            wheel[tick].append(each)

    def get(self, decision: int) -> Reservation | None:
        found = self._open.get(decision)
        if isinstance(found, Held):
            found = self._open[decision] = found.drawn_up()
        return found

    def first_token(self, decision: int, attempt: int, now: float) -> Reservation | None:
        """Gives tokens back, of an attempt or an earlier one; the reservation where it still waited for them."""
        self.first_tokens_seen = now
        found = self.get(decision)
        if found is None or not found.pending or found.attempt > attempt:
            return None
        self._give_tokens(found)
        return found

    def release(self, decision: int, attempt: int | None = None) -> Reservation | None:
        """Gives everything back, of an attempt or an earlier one where it is given; the reservation there was."""
        found = self.get(decision)
        if found is None or (attempt is not None and found.attempt > attempt):
            return None
        del self._open[decision]
        self._state.release(found.slot, found.tokens if found.pending else 0.0, 1.0)
        found.pending = False
        if found.trial:
            self.trials.discard(found.slot)
            self._admit(found.slot)
        return found

    def withhold(self, slots: frozenset[int]) -> None:
        """Leaves the trials of half-open circuits at some slots to other replicas; at all others they are ours."""
        changed, self._withheld = slots ^ self._withheld, slots
        for slot in changed:
            self._admit(slot)

    def fail(self, slot: int) -> None:
        """Admits no further trial at a slot before the next table, which tells that its circuit is open again."""
        self._failed.add(slot)
        self._admit(slot)

    def follow(self) -> None:
        """A new table knows what became of every trial."""
        failed, self._failed = self._failed, set()
        for slot in failed:
            self._admit(slot)

    def _admit(self, slot: int) -> None:
        taken = slot in self._withheld or slot in self.trials or slot in self._failed
        self._state.trial[slot] = 0.0 if taken else 1.0
        self._state.touch(slot)

    def _give_tokens(self, found: Reservation) -> None:
        found.pending = False
        self._state.release(found.slot, found.tokens, 0.0)

    def _file(self, reservation: Reservation, deadline: float) -> None:
        # Never into a bucket that was swept already.
        self._wheel[max(self._swept + 1, int(deadline * TICKS_PER_SECOND) + 1)].append(reservation)

    def sweep(self, now: float) -> list[tuple[Reservation, float]]:
        """Turns the wheel up to `now`: lets go what is past its time.

        Answers the reservations whose first token is overdue, with how many times later than predicted it is.
        """
        overdue: list[tuple[Reservation, float]] = []
        last = int(now * TICKS_PER_SECOND)
        # Nothing is filed before what was swept; after a long pause there are fewer buckets than ticks.
        ticks = range(self._swept + 1, last + 1)
        due = [t for t in ticks if t in self._wheel] if len(ticks) < 64 else sorted(t for t in self._wheel if t <= last)
        self._swept = max(self._swept, last)
        for tick in due:
            for filed in self._wheel.pop(tick):
                found = self.get(filed.decision)
                if found is None or (found is not filed and found.held is not filed):
                    continue
                passed = now - found.started
                usual = self._state.usual(found.predicted)
                reported = now - self.first_tokens_seen < REPORTED_SECONDS
                if found.pending and reported and passed < OVERDUE_RATIO * usual + OVERDUE_SECONDS:
                    self._file(found, found.started + OVERDUE_RATIO * usual + OVERDUE_SECONDS)
                    continue
                if found.pending and reported:
                    overdue.append((found, passed / max(usual, 1e-3)))
                give_up = TOKENS_REPORTED_RATIO if reported else TOKENS_RATIO
                until = found.started + give_up * usual + TOKENS_SECONDS
                if found.pending and now < until:
                    self._file(found, min(until, now + OVERDUE_AGAIN_SECONDS) if reported else until)
                    continue
                if found.pending:
                    self._give_tokens(found)
                end = REQUEST_RATIO * found.latency + REQUEST_SECONDS
                if passed < end:
                    self._file(found, found.started + end)
                else:
                    self.release(found.decision)
        return overdue
