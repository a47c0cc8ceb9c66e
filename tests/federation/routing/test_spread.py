"""Intervals of predictions: nine of ten first tokens come within, also where few were measured and they drift."""

from __future__ import annotations

from random import Random

from federation.routing.spread import PRIOR_HIGH, PRIOR_LOW, Spread


def share_within(spread: Spread, rng: Random, slots: int, samples: int, drift: float) -> float:
    """Of samples that are asked for and then measured in turn, those within; each slot drifts by itself."""
    level = [0.0] * slots
    within = 0
    for number in range(samples):
        slot = number % slots
        level[slot] += rng.gauss(0.0, drift)
        low, high = spread.interval(slot)
        ratio = rng.lognormvariate(level[slot], 0.5)
        within += low <= ratio <= high
        spread.observe(slot, ratio)
    return within / samples


def test_before_anything_was_measured_the_prior_stands() -> None:
    assert Spread().interval(3) == (PRIOR_LOW, PRIOR_HIGH)


def test_nine_of_ten_come_within_also_of_few_that_drift() -> None:
    for slots, samples, drift in ((1, 3_000, 0.0), (30, 1_200, 0.0), (30, 1_200, 0.05), (5, 3_000, 0.03)):
        share = share_within(Spread(), Random(7), slots, samples, drift)

        assert 0.87 <= share <= 0.96, (slots, samples, drift, share)


def test_a_slot_with_a_new_owner_starts_from_what_all_share() -> None:
    spread = Spread()
    for _ in range(200):
        spread.observe(1, 8.0)
        for other in range(2, 62):
            spread.observe(other, 1.0)
    assert spread.interval(1) != spread.interval(70)

    spread.forget(1)

    assert spread.interval(1) == spread.interval(70)
