from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.health.learning import MIN_SAMPLES, PRIOR_SECONDS_PER_TOKEN, SpeedLearner


def taught(samples) -> SpeedLearner:
    learner = SpeedLearner()
    for tokens, seconds in samples:
        learner.observe_first_token(tokens, seconds)
    return learner


def test_nothing_is_known_before_enough_answers():
    learner = taught([(100, 0.1)] * (MIN_SAMPLES - 1))

    assert learner.prefill_seconds_per_token is None
    assert learner.min_time_to_first_token_seconds is None
    assert learner.decode_tokens_per_second is None


@pytest.mark.parametrize("slope", [5e-5, 2e-4, 1e-3])
def test_the_line_is_found_from_unlike_prompts(slope: float):
    rng = random.Random(3)
    prompts = [rng.lognormvariate(6.5, 1.0) for _ in range(400)]
    learner = taught((x, 0.08 + slope * x) for x in prompts)

    assert learner.prefill_seconds_per_token == pytest.approx(slope, rel=0.1)
    assert learner.min_time_to_first_token_seconds == pytest.approx(0.08, abs=0.08)


def test_waits_in_a_queue_are_not_taken_for_slowness():
    rng = random.Random(4)

    def waited() -> float:
        return rng.expovariate(1.0) if rng.random() < 0.4 else 0.0

    learner = taught((x, 0.05 + 2e-4 * x + waited()) for x in (rng.uniform(50, 4_000) for _ in range(1_000)))

    # A plain mean would be 0.4 s too late everywhere.
    at_1000 = learner.min_time_to_first_token_seconds + 1_000 * learner.prefill_seconds_per_token
    assert at_1000 == pytest.approx(0.25, abs=0.12)


def test_like_prompts_do_not_charge_the_overhead_to_every_token():
    learner = taught([(20, 0.3)] * 200)

    assert learner.prefill_seconds_per_token == pytest.approx(PRIOR_SECONDS_PER_TOKEN)
    assert learner.min_time_to_first_token_seconds == pytest.approx(0.3, abs=0.01)


def test_it_follows_a_node_that_became_slower_slowly_and_one_that_became_quicker_soon():
    rng = random.Random(5)
    prompts = [rng.uniform(100, 3_000) for _ in range(300)]
    learner = taught((x, 2e-4 * x) for x in prompts)
    for x in prompts[:30]:
        learner.observe_first_token(x, 2e-3 * x)
    soon_slower = learner.prefill_seconds_per_token
    for x in prompts:
        learner.observe_first_token(x, 1e-4 * x)

    assert soon_slower < 6e-4
    assert learner.prefill_seconds_per_token == pytest.approx(1e-4, rel=0.3)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4)), min_size=1, max_size=200))
def test_no_answers_teach_negative_or_infinite_times(samples):
    learner = taught(samples)

    assert 0.0 <= learner.slope < 1e6
    assert 0.0 <= learner.intercept <= 1e4 + 1e-6


def test_decoding_is_averaged_and_short_answers_do_not_count():
    learner = SpeedLearner()
    learner.observe_decode(3, 0.001)
    learner.observe_decode(100, 0.0)
    assert learner.decode_tokens_per_second is None

    for _ in range(100):
        learner.observe_decode(100, 2.0)
    learner.observe_decode(100, 4.0)

    assert learner.decode_tokens_per_second == pytest.approx(48.75)
