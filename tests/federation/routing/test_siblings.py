"""What other replicas have under way: it counts beside ours while it is fresh, and is never taken for ours."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from federation.routing.reservations import Reservation, Reservations
from federation.routing.siblings import FORGET_SECONDS, SUM_SECONDS, added, sums_of
from federation.routing.state import SLOT_REST_SECONDS, State


def a_state(*names: str) -> State:
    state = State()
    state.slots_for(names, 0.0)
    return state


def a_reservation(number: int, slot: int, tokens: float) -> Reservation:
    return Reservation(number, 0, slot, tokens, 0.0, 1.0, 1.0, 0.0, 2.0, trial=False)


def test_sums_add_up_over_siblings_fade_and_are_forgotten():
    known = {"b": sums_of({0: (100.0, 1.0)}, at=10.0), "c": sums_of({0: (8.0, 2.0), 1: (4.0, 2.0)}, at=9.0)}

    assert added(known, 2, 9.0).tolist() == [[108.0, 4.0], [3.0, 2.0]]
    assert added(known, 2, 10.0).tolist() == [[104.0, 2.0], [2.0, 1.0]]
    assert added(known, 2, 11.0).tolist() == [[50.0, 0.0], [0.5, 0.0]]
    assert added(known, 2, 11.1).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_what_cannot_be_counts_as_nothing():
    sums = sums_of({0: (-5.0, math.nan), 1: (math.inf, 2.0)}, at=0.0)

    assert sums.values.tolist() == [[0.0, 0.0], [0.0, 2.0]]
    assert sums_of({}, at=0.0).values.shape == (2, 0)


def test_a_siblings_tokens_wait_in_the_same_queue_and_fade_when_it_falls_silent():
    state = a_state("n1", "n2")
    state.advance(10.0)
    state.choose(0, 50.0)

    state.heed_siblings("b", {0: (400.0, 4.0)}, 0.0, 10.0)

    assert (state.pending[0], state.in_flight[0]) == (450.0, 5.0)
    assert state.own_at(0) == (50.0, 1.0)
    state.advance(10.0 + FORGET_SECONDS)
    assert (state.pending[0], state.in_flight[0]) == (250.0, 3.0)
    state.advance(10.1 + FORGET_SECONDS)
    assert (state.pending[0], state.in_flight[0]) == (50.0, 1.0)


def test_a_sum_that_is_old_when_it_comes_is_not_used():
    state = a_state("n1")
    state.heed_siblings("b", {0: (400.0, 4.0)}, SUM_SECONDS, 10.0)

    taken = state.heed_siblings("b", {0: (9_000.0, 90.0)}, SUM_SECONDS + 0.01, 10.0)

    assert not taken
    assert not state.heed_siblings("b", {0: (9_000.0, 90.0)}, math.nan, 10.0)
    assert state.pending[0] == pytest.approx(400.0 * 0.5**SUM_SECONDS)


def test_a_newer_sum_stands_in_place_of_the_older_and_silence_ends_each_by_itself():
    state = a_state("n1")
    state.advance(1.0)
    state.heed_siblings("b", {0: (400.0, 3.0)}, 0.0, 1.0)
    state.heed_siblings("c", {0: (10.0, 1.0)}, 0.0, 1.0)
    state.heed_siblings("b", {0: (100.0, 1.0)}, 0.0, 1.0)
    assert state.pending[0] == 110.0

    state.heed_siblings("b", {}, 0.0, 1.0)
    assert state.pending[0] == 10.0
    state.advance(2.5)

    assert state.pending[0] == 0.0


def test_giving_room_back_takes_none_of_the_siblings():
    state = a_state("n1")
    rooms = Reservations(state)
    state.heed_siblings("b", {0: (400.0, 2.0)}, 0.0, 1.0)
    rooms.take(a_reservation(1, 0, 30.0))

    rooms.release(1)

    assert (state.pending[0], state.in_flight[0]) == (400.0, 2.0)
    assert state.own_at(0) == (0.0, 0.0)


def test_a_slot_that_is_given_to_another_deployment_starts_with_nothing():
    state = a_state("n1")
    state.heed_siblings("b", {0: (400.0, 2.0)}, 0.0, 1.0)
    state.slots_for(["n2"], 1.1)
    state.slots_for(["n2", "n3"], 1.2 + SLOT_REST_SECONDS)
    assert state.slots["n3"] == 0

    state.choose(0, 9.0)
    state.advance(2.0 + SLOT_REST_SECONDS)

    assert (state.pending[0], state.in_flight[0]) == (9.0, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_told_and_taken_own_and_others_never_mix(seed: int):
    chance = Random(seed)
    state = State()
    names = [f"n{number}" for number in range(100)]
    state.slots_for(names[:40], 0.0)
    own = np.zeros(100)
    told: dict[str, tuple[float, dict[int, tuple[float, float]]]] = {}
    now = 0.0
    for _ in range(200):
        now += chance.choice((0.0, 0.05, 0.2))
        state.advance(now)
        if chance.random() < 0.02:
            # Wider than before.
            state.slots_for(names, now)
        slot = chance.randrange(len(state.slots))
        if chance.random() < 0.5:
            state.choose(slot, 8.0)
            own[slot] += 8.0
        else:
            sibling = chance.choice("bcd")
            told[sibling] = (now, {slot: (float(chance.randrange(1000)), 1.0)})
            state.heed_siblings(sibling, told[sibling][1], 0.0, now)
    now += 0.05
    state.advance(now)
    expected = own.copy()
    for at, sums in told.values():
        if now - at <= FORGET_SECONDS:
            for slot, (tokens, _) in sums.items():
                expected[slot] += tokens * 0.5 ** (now - at)

    width = len(state.slots)
    assert np.asarray(state.pending)[:width] == pytest.approx(expected[:width])
    assert state.own()[0, :width] == pytest.approx(own[:width])
