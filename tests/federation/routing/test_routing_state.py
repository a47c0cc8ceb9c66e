"""What moves between two tables: slots, fading, sessions, prefixes, and the memory of what was heard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from federation.routing.heard import Heard
from federation.routing.reservations import Reservation, Reservations
from federation.routing.state import KINDS, State
from policies.types import Outcome, Phase


def a_state(*names: str) -> State:
    state = State()
    state.slots_for(names or ("a", "b", "c"), 0.0)
    return state


# Slots


def test_a_deployment_keeps_its_slot_whatever_row_it_stands_in() -> None:
    state = a_state("a", "b", "c")
    first = dict(state.slots)

    slots = state.slots_for(["x", "c", "b", "a"], 1.0).tolist()

    assert {name: state.slots[name] for name in "abc"} == first
    assert slots == [state.slots[name] for name in "xcba"]
    assert len(set(slots)) == 4


def test_a_slot_rests_before_it_is_given_away_and_then_starts_empty() -> None:
    state = a_state("a")
    slot = state.slots["a"]
    state.choose(slot, 100.0)
    state.suspect(slot, 9.0)

    state.slots_for([], 10.0)
    soon = state.slots_for(["b"], 800.0)
    late = state.slots_for(["b", "c"], 911.0)

    assert slot not in soon
    assert late[1] == slot
    assert (state.in_flight[slot], state.pending[slot], state.suspicion[slot], state.trial[slot]) == (
        0.0,
        0.0,
        1.0,
        1.0,
    )


def test_sessions_and_prefixes_of_one_that_is_gone_are_not_those_of_the_next_in_its_slot() -> None:
    state = a_state("a", "b")
    slot = state.slots["a"]
    state.bind_session("s", slot, 0.0, 1e6)
    state.saw_prefixes([7], slot)

    state.slots_for(["b"], 10.0)
    assert state.session_slot("s", 10.0) == -1
    assert state.cached_tokens([7], 512, 1_000) == {}
    state.slots_for(["b", "newcomer"], 1_000.0)

    assert state.slots["newcomer"] == slot
    assert state.session_slot("s", 1_000.0) == -1
    assert state.cached_tokens([7], 512, 1_000) == {}


def test_a_newcomer_stands_at_the_end_of_the_row() -> None:
    state = a_state("a", "b")
    for _ in range(50):
        state.choose(state.slots["a"], 1.0)

    state.slots_for(["a", "b", "new"], 1.0)

    assert state.turn[state.slots["new"]] == 50.0
    assert state.turn[state.slots["b"]] == 0.0


def test_more_deployments_than_there_is_room_for_make_room_and_keep_what_is_known() -> None:
    state = a_state("a")
    state.choose(state.slots["a"], 100.0)

    state.slots_for(["a", *(f"n{i}" for i in range(1_000))], 1.0)

    assert state.matrix.shape == (KINDS, 1_024)
    assert state.pending[state.slots["a"]] == 100.0
    state.pending[state.slots["a"]] = 7.0
    assert state.matrix[0, state.slots["a"]] == 7.0, "views and matrix are one"


# Fading


def filled(seconds: float, *, steps: int = 1) -> State:
    state = a_state("a")
    state.advance(100.0)
    state.matrix[:, 0] = [500.0, 3.0, 8.0, 2.0, 9.0, 5.0, 1.0, 0.0]
    for step in range(1, steps + 1):
        state.advance(100.0 + seconds * step / steps)
    return state


def test_queues_fade_by_half_in_a_second_batches_in_five_and_doubt_in_fifteen() -> None:
    assert filled(1.0).wait[0] == pytest.approx(1.0)
    assert filled(5.0).running[0] == pytest.approx(4.0)
    assert filled(15.0).suspicion[0] == pytest.approx(1.0 + 8.0 / 2)


def test_what_is_counted_does_not_fade() -> None:
    state = filled(60.0)

    assert (state.pending[0], state.in_flight[0], state.turn[0], state.trial[0]) == (500.0, 3.0, 5.0, 1.0)


def test_fading_in_steps_comes_to_the_same() -> None:
    one, many = filled(10.0), filled(10.0, steps=100)

    assert many.matrix[:, 0] == pytest.approx(one.matrix[:, 0])


def test_between_two_steps_nothing_moves_and_nothing_is_lost() -> None:
    state = filled(0.0)
    before = state.matrix.copy()

    for moment in (100.01, 100.02, 100.04):
        state.advance(moment)
    assert (state.matrix == before).all()
    state.advance(101.0)

    assert state.wait[0] == pytest.approx(1.0)


def test_time_that_goes_back_fades_nothing() -> None:
    state = filled(10.0)
    before = state.matrix.copy()

    state.advance(50.0)

    assert (state.matrix == before).all()


def test_reading_ahead_sees_what_will_have_faded_and_fades_nothing() -> None:
    state, later = filled(0.0), filled(3.0)
    slots = np.array([0])

    ahead = state.load(slots, None, 103.0)

    assert ahead.wait[0] == later.wait[0]
    assert ahead.suspicion[0] == later.suspicion[0]
    assert state.wait[0] == 2.0


@pytest.mark.parametrize(("level", "expected"), [(3.0, 3.0), (0.2, 1.0), (50.0, 50.0), (1e9, 50.0)])
def test_doubt_is_between_one_and_fifty(level: float, expected: float) -> None:
    state = a_state("a")

    state.suspect(0, level)

    assert state.suspicion[0] == expected


def test_a_lesser_doubt_does_not_take_a_greater_ones_place() -> None:
    state = a_state("a")

    state.suspect(0, 9.0)
    state.suspect(0, 2.0)

    assert state.suspicion[0] == 9.0


# Sessions and prefixes


def test_a_sessions_end_is_fixed_by_its_first_use_and_begins_anew_where_it_moves() -> None:
    state = a_state("a", "b")

    state.bind_session("s", 0, 0.0, 10.0)
    state.bind_session("s", 0, 9.0, 10.0)
    assert (state.session_slot("s", 9.9), state.session_slot("s", 10.0)) == (0, -1)
    state.bind_session("s", 1, 9.0, 10.0)

    assert (state.session_slot("s", 18.9), state.session_slot("s", 19.0)) == (1, -1)


def test_sessions_and_prefixes_are_bounded_and_the_oldest_go_first() -> None:
    state = State(max_sessions=3, max_prefixes=3)
    state.slots_for(["a"], 0.0)

    for number in range(5):
        state.bind_session(f"s{number}", 0, 0.0, 100.0)
        state.saw_prefixes([number], 0)

    assert list(state.sessions) == ["s2", "s3", "s4"]
    assert list(state.prefixes) == [2, 3, 4]


def test_the_longest_run_counts_and_the_last_token_never_does() -> None:
    state = a_state("a", "b")
    state.saw_prefixes([1, 2], 0)
    state.saw_prefixes([1, 2, 3], 1)

    assert state.cached_tokens([1, 2, 3, 4], 100, 1_000) == {1: 300.0, 0: 200.0}
    assert state.cached_tokens([1], 100, 100) == {1: 99.0, 0: 99.0}
    assert state.cached_tokens([9], 100, 1_000) == {}
    assert state.cached_tokens([1, 2, 3], 100, 0) == {1: 0.0, 0: 0.0}


def test_a_prefix_remembers_a_few_that_were_sent_it_last() -> None:
    state = a_state(*(f"n{i}" for i in range(20)))

    for slot in [*range(20), 15]:
        state.saw_prefixes([1], slot)

    assert list(state.cached_tokens([1], 100, 1_000)) == [12, 13, 14, 16, 17, 18, 19, 15]


# Reservations


def taken(**changes: float) -> Callable[[int], Reservation]:
    base = {
        "slot": 0,
        "tokens": 100.0,
        "started": 0.0,
        "expected": 1.0,
        "predicted": 1.0,
        "round_trip": 0.01,
        "latency": 5.0,
    }

    def make(decision: int) -> Reservation:
        return Reservation(decision=decision, attempt=0, trial=False, **{**base, **changes})  # type: ignore[arg-type]

    return make


def test_taking_twice_for_one_decision_takes_once() -> None:
    state = a_state("a", "b")
    held = Reservations(state)

    held.take(taken()(1))
    held.take(taken(slot=1)(1))

    assert (state.in_flight[0], state.in_flight[1]) == (0.0, 1.0)
    assert len(held) == 1


def test_giving_back_twice_gives_back_once() -> None:
    state = a_state("a")
    held = Reservations(state)
    held.take(taken()(1))
    held.take(taken()(2))

    assert held.release(1) is not None
    assert held.release(1) is None
    assert held.first_token(1, 0, 1.0) is None

    assert (state.in_flight[0], state.pending[0]) == (1.0, 100.0)


def test_nothing_falls_below_zero_by_rounding() -> None:
    state = a_state("a")
    held = Reservations(state)
    for number in range(1_000):
        held.take(taken(tokens=0.1 * (number % 7))(number))

    for number in range(1_000):
        held.release(number)

    assert 0.0 <= state.pending[0] < 1e-9
    assert state.in_flight[0] == 0.0


def test_the_wheel_lets_nobody_slip_however_seldom_it_is_turned() -> None:
    for step in (0.05, 0.1, 1.0, 17.0, 400.0):
        state = a_state("a")
        held = Reservations(state)
        now = 0.0
        for number in range(200):
            held.take(taken(started=now)(number))
            now += step / 3
            if number % 3 == 0:
                held.sweep(now)
        for _ in range(2_000):
            now += step
            held.sweep(now)
            if not len(held):
                break
        assert len(held) == 0, step
        assert (state.in_flight[0], state.pending[0]) == (0.0, 0.0)


def test_the_overdue_are_told_with_how_late_they_are() -> None:
    state = a_state("a")
    held = Reservations(state)
    held.first_token(99, 0, 0.0)
    held.take(taken()(1))

    late = [(found.decision, ratio) for tick in range(60) for found, ratio in held.sweep(tick / 10)]

    ratios = [ratio for _, ratio in late]
    assert {decision for decision, _ in late} == {1}
    assert ratios[0] == pytest.approx(2.5, abs=0.2)
    assert ratios == sorted(set(ratios)), "ever later"


# What was heard


def test_what_was_heard_is_bounded_and_the_oldest_is_forgotten_first() -> None:
    heard = Heard(keep=3)
    for number in range(5):
        heard.add(Outcome(f"r1-{number}"))

    assert len(heard) == 3
    assert [Outcome(f"r1-{number}") in heard for number in range(5)] == [False, False, True, True, True]


def test_an_attempt_is_over_with_its_own_end_or_a_later_ones() -> None:
    heard = Heard()
    heard.add(Outcome("r1-1", 1, Phase.FINISHED))
    heard.add(Outcome("r1-1", 3, Phase.STARTED))

    assert [heard.ended(Outcome("r1-1", attempt)) for attempt in range(4)] == [True, True, False, False]
    assert not heard.ended(Outcome("r1-2", 0))
