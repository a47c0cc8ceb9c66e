from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from policies.circuit import Circuit, Closed, Event, HalfOpen, Open, next_change, step


@dataclass(frozen=True)
class Limits:
    failures: int = 5
    open_seconds: float = 30.0
    max_open_seconds: float = 300.0
    successes: int = 3


LIMITS = Limits()
# The middle of the spread, so that times are the settings' own.
MIDDLE = 0.5


def after(circuit: Circuit, *events: Event, now: float = 0.0) -> Circuit:
    return reduce(lambda c, event: step(c, event, now, LIMITS, MIDDLE), events, circuit)


def test_the_fifth_failure_in_a_row_opens_it_for_thirty_seconds():
    almost = after(Closed(), *[Event.FAILURE] * 4, now=10.0)

    opened = after(almost, Event.FAILURE, now=10.0)

    assert almost == Closed(failures=4)
    assert opened == Open(until=40.0, trips=1, failures=5)


def test_a_success_between_failures_starts_the_count_anew():
    circuit = after(Closed(), *[Event.FAILURE] * 4, Event.SUCCESS, *[Event.FAILURE] * 4)

    assert circuit == Closed(failures=4)


def test_too_large_a_share_of_failures_opens_it_at_once():
    assert after(Closed(failures=2), Event.RATIO) == Open(until=30.0, trips=1, failures=2)


def test_it_is_half_open_when_its_time_is_over_and_not_before():
    opened = Open(until=30.0, trips=1)

    assert after(opened, Event.TICK, now=29.999) == opened
    assert after(opened, Event.TICK, now=30.0) == HalfOpen(trips=1)


def spaced(circuit: Circuit, count: int, seconds: float, now: float = 0.0) -> Circuit:
    """After so many successes, so far apart."""
    for number in range(count):
        circuit = after(circuit, Event.SUCCESS, now=now + number * seconds)
    return circuit


def test_three_successful_trials_close_it():
    half = HalfOpen(trips=2)

    assert spaced(half, 2, 1.0, now=50.0) == HalfOpen(trips=2, successes=2, counted_at=51.0)
    assert spaced(half, 3, 1.0, now=50.0) == Closed(trips=2, since=52.0)


def test_trials_that_come_together_count_once():
    half = HalfOpen(trips=2)

    assert spaced(half, 100, 0.01, now=50.0) == HalfOpen(trips=2, successes=1, counted_at=50.0)
    assert isinstance(spaced(half, 201, 0.01, now=50.0), Closed)
    assert isinstance(after(spaced(half, 190, 0.01, now=50.0), Event.FAILURE, now=52.0), Open)


def test_a_failed_trial_doubles_the_time_up_to_five_minutes():
    circuit: Circuit = Closed(failures=4)
    lengths = []
    now = 0.0
    for _ in range(6):
        circuit = after(circuit, Event.FAILURE, now=now)
        assert isinstance(circuit, Open)
        lengths.append(circuit.until - now)
        now = circuit.until
        circuit = after(circuit, Event.TICK, now=now)

    assert lengths == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_jitter_spreads_the_time_by_a_tenth_to_both_sides():
    lengths = [step(Closed(failures=4), Event.FAILURE, 0.0, LIMITS, chance) for chance in (0.0, 1.0)]

    assert lengths == [Open(27.0, 1, 5), Open(33.0, 1, 5)]


def test_trips_are_forgotten_after_it_stayed_closed_for_the_longest_time_open():
    closed = Closed(trips=3, since=100.0)

    assert next_change(closed, LIMITS) == 400.0
    assert after(closed, Event.TICK, now=399.0) == closed
    assert after(closed, Event.TICK, now=400.0) == Closed(trips=0, since=100.0)


def test_a_reset_closes_it_and_forgets_its_past():
    for circuit in (Closed(failures=3, trips=2), Open(until=99.0, trips=4), HalfOpen(trips=1, successes=2)):
        assert after(circuit, Event.RESET, now=7.0) == Closed(since=7.0)


CIRCUITS = st.one_of(
    st.builds(Closed, st.integers(0, 4), st.integers(0, 2000), st.floats(0, 1e6)),
    st.builds(Open, st.floats(0, 1e6), st.integers(1, 2000), st.integers(0, 9)),
    st.builds(HalfOpen, st.integers(1, 2000), st.integers(0, 2)),
)


@given(
    st.builds(Open, st.floats(0, 1e6), st.integers(1, 2000), st.integers(0, 9)),
    st.lists(st.sampled_from([Event.SUCCESS, Event.FAILURE, Event.RATIO])),
    st.floats(0, 2e6),
)
def test_late_outcomes_of_an_open_circuit_change_nothing(circuit: Open, events: list[Event], now: float):
    assert after(circuit, *events, now=now) is circuit


@given(CIRCUITS, st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 100)), max_size=50), st.floats(0, 1))
def test_whatever_happens_a_circuit_is_open_at_most_its_longest_time(circuit, happenings, jitter):
    now = 1e6
    for event, later in happenings:
        now += later
        before, circuit = circuit, step(circuit, event, now, LIMITS, jitter)

        if isinstance(circuit, Open) and circuit is not before:
            assert 27.0 <= circuit.until - now <= 330.0 + 1e-6
        if isinstance(circuit, Closed):
            assert circuit.failures < LIMITS.failures


@given(CIRCUITS)
def test_time_and_three_successes_close_any_circuit(circuit: Circuit):
    assert isinstance(spaced(after(circuit, Event.TICK, now=1e7), 3, 1.0, now=1e7), Closed)
