from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.ageing import aged_score, aged_suspicion, decay, overdue, ramp, unknown_after
from policies.windows import LatencyWindow, Pace, PeakEwma, RatioWindow, merged_quantiles


def test_the_first_sample_seeds_an_average():
    ewma = PeakEwma()
    assert ewma.value is None

    ewma.observe(0.4, now=1e6)

    assert ewma.value == 0.4


def test_an_average_rises_at_once_and_falls_with_its_time_constant():
    ewma = PeakEwma(time_constant_seconds=10.0)
    ewma.observe(0.1, now=0.0)

    ewma.observe(2.1, now=0.1)
    peak = ewma.value
    ewma.observe(0.1, now=10.1)

    assert peak == 2.1
    assert ewma.value == pytest.approx(0.1 + 2.0 / math.e)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1))
def test_an_average_stays_within_its_samples(samples):
    ewma = PeakEwma()
    now = 0.0
    for value, later in samples:
        now += later
        ewma.observe(value, now)

        assert ewma.value is not None
        assert value <= ewma.value + 1e-9
        assert ewma.value <= max(v for v, _ in samples) + 1e-9


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.5])
def test_quantiles_are_exact_to_two_percent(sigma: float):
    rng = random.Random(7)
    window = LatencyWindow()
    samples = [rng.lognormvariate(-1.0, sigma) for _ in range(5_000)]
    for sample in samples:
        window.observe(sample, now=100.0)

    p50, p99 = window.quantiles((0.5, 0.99), now=100.0)

    samples.sort()
    assert p50 == pytest.approx(samples[math.ceil(0.5 * 5_000) - 1], rel=0.02)
    assert p99 == pytest.approx(samples[math.ceil(0.99 * 5_000) - 1], rel=0.02)


def test_samples_leave_the_window_after_a_minute():
    window = LatencyWindow()
    window.observe(9.0, now=100.0)
    window.observe(0.1, now=140.0)

    early = window.quantiles((0.99,), now=150.0)[0]
    later = window.quantiles((0.99,), now=165.0)[0]

    assert early == pytest.approx(9.0, rel=0.02)
    assert later == pytest.approx(0.1, rel=0.02)
    assert window.quantiles((0.5, 0.99), now=1_000.0) == (None, None)
    assert window.count(1_000.0) == 0


def test_a_window_holds_few_numbers_however_much_it_sees():
    rng = random.Random(1)
    window = LatencyWindow()
    for i in range(100_000):
        window.observe(rng.choice([0.0, 1e-9, rng.expovariate(1.0), 1e9]), now=i / 100.0)

    assert len(window._slots) <= 12
    assert sum(len(buckets) for _, buckets in window._slots) <= 12 * 530


def test_a_latency_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        LatencyWindow().observe(math.nan, now=0.0)


def test_quantiles_of_several_windows_are_those_of_all_samples_not_their_average():
    quick, slow = LatencyWindow(), LatencyWindow()
    for _ in range(99):
        quick.observe(0.1, now=1.0)
    slow.observe(10.0, now=1.0)

    p50, p99, p100 = merged_quantiles([quick, slow], (0.5, 0.99, 1.0), now=2.0)

    assert p50 == pytest.approx(0.1, rel=0.02)
    assert p99 == pytest.approx(0.1, rel=0.02)
    assert p100 == pytest.approx(10.0, rel=0.02)
    assert merged_quantiles([], (0.5,), now=2.0) == (None,)


@given(st.lists(st.tuples(st.floats(1e-4, 1e3), st.floats(0, 20)), min_size=1, max_size=60))
def test_a_window_counts_just_what_is_younger_than_it_is_long(samples):
    window = LatencyWindow(length_seconds=60.0, slots=12)
    now, seen = 0.0, []
    for value, later in samples:
        now += later
        window.observe(value, now)
        seen.append(now)

    kept = window.count(now)

    assert sum(at > now - 55.0 for at in seen) <= kept <= sum(at > now - 60.0 - 1e-6 for at in seen)


def test_a_share_of_failures_needs_enough_events_and_forgets_old_ones():
    window = RatioWindow(length_seconds=30.0)
    for i in range(19):
        window.observe(bad=i % 2 == 0, now=10.0)
    too_few = window.ratio(20, now=10.0)
    window.observe(bad=False, now=10.0)

    assert too_few is None
    assert window.ratio(20, now=20.0) == 0.5
    assert window.ratio(1, now=41.0) is None


def test_a_pace_follows_about_twenty_answers_and_remembers_what_is_usual():
    pace = Pace()
    for i in range(300):
        pace.observe(1.0, "first token", now=float(i))
    for i in range(20):
        pace.observe(10.0, "first token", now=300.0 + i)

    assert pace.recent is not None
    assert pace.usual is not None
    assert math.exp(pace.recent) > 6.0
    assert math.exp(pace.usual) < 1.5


def test_a_pace_of_another_kind_starts_anew():
    pace = Pace()
    pace.observe(50.0, "call", now=0.0)
    pace.observe(0.5, "token", now=1.0)

    assert pace.answers == 1
    assert pace.recent == pytest.approx(math.log(0.5))


def test_a_value_halves_its_distance_to_its_prior_in_each_half_life():
    assert decay(1.0, 0.3, 15.0, 15.0) == pytest.approx(0.65)
    assert decay(1.0, 0.3, 30.0, 15.0) == pytest.approx(0.475)
    assert decay(1.0, 0.3, -1.0, 15.0) == 1.0
    assert aged_suspicion(5.0, 15.0) == pytest.approx(3.0)


def test_a_signal_ages_from_its_second_missed_interval_on():
    assert overdue(20.0, 10.0) == 0.0
    assert aged_score(1.0, 19.0, 10.0) == 1.0
    assert aged_score(1.0, 35.0, 10.0) == pytest.approx(0.65)
    assert unknown_after(10.0) == 35.0


@given(st.floats(0, 1), st.floats(0, 1e4), st.floats(0, 1e4))
def test_silence_never_raises_a_score(score: float, age: float, more: float):
    assert aged_score(score, age + more, 10.0) <= aged_score(score, age, 10.0) <= score


@given(st.floats(0.31, 1), st.floats(0, 1e3))
def test_ageing_has_no_cliff(score: float, age: float):
    assert aged_score(score, age, 10.0) - aged_score(score, age + 0.1, 10.0) < 0.005


def test_a_slow_start_rises_from_a_tenth_to_one_in_its_time():
    assert ramp(100.0, 100.0, 30.0) == pytest.approx(0.1)
    assert ramp(100.0, 115.0, 30.0) == pytest.approx(0.55)
    assert ramp(100.0, 130.0, 30.0) == 1.0
    assert ramp(-math.inf, 0.0, 30.0) == 1.0
