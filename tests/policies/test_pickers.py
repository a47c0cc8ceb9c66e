"""Pickers: each does what its name says, in distribution too. Seeds are fixed: a bound that holds, holds always."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policies import chance, pickers
from policies.pickers import Field
from policies.policy import Policy
from policies.registry import BUILT_IN

SEEDS = range(6_000)


def a_field(size: int = 0, *, policy: Policy | None = None, seed: int = 0, key: str = "k", **columns: Any) -> Field:
    """Candidates best first, 1 s apart and alike in all else; columns as given."""
    size = size or len(next(iter(columns.values())))
    base: dict[str, Any] = {
        "total": 1.0 - np.arange(size) / 10,
        "seconds": np.arange(size, dtype=float),
        "time_to_first_token": np.ones(size),
        "at_node": np.ones(size),
        "latency": np.ones(size),
        "in_flight": np.zeros(size),
        "weight": np.ones(size),
        "turn": np.zeros(size),
    }
    base |= {name: np.asarray(values, dtype=float) for name, values in columns.items() if name != "names"}
    names = tuple(columns.get("names", [f"eu/n{i:03}/m" for i in range(size)]))
    base.setdefault("peak", base["latency"])
    base.setdefault("batch", np.full(size, 32.0))
    endpoints = tuple(f"http://{name}" for name in names)
    return Field(
        policy=policy or Policy(),
        seed=seed,
        key=key,
        session="",
        names=names,
        endpoints=endpoints,
        drawable=np.arange(len(names)),
        **base,
    )


def drawn(picker: pickers.Picker, seeds: Sequence[int] = SEEDS, **field: Any) -> list[int]:
    """How often each place was picked over the seeds."""
    counts = Counter(picker(a_field(seed=chance.mix(seed), **field)) for seed in seeds)
    return [counts[place] for place in range(max(counts) + 1)]


def alike(counts: Sequence[int], shares: Sequence[float]) -> bool:
    """Whether counts follow shares: Pearson's chi-square, at one chance in ten thousand of a false alarm."""
    # Quantiles of the distribution at 0.9999 by degrees of freedom, 1 to 9.
    bound = (15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9, 31.8, 33.7)[len(shares) - 2]
    total = sum(counts)
    expected = [share * total / sum(shares) for share in shares]
    return len(counts) == len(shares) and sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True)) < bound


@pytest.mark.parametrize("name", sorted(BUILT_IN.pickers))
def test_a_picker_answers_the_only_candidate_and_the_same_one_twice(name: str) -> None:
    picker = BUILT_IN.pickers[name]

    assert picker(a_field(1)) == 0
    for seed in range(50):
        assert picker(a_field(9, seed=seed)) == picker(a_field(9, seed=seed))
        assert 0 <= picker(a_field(9, seed=seed)) < 9


# best


def test_best_is_the_first_whatever_runs_there() -> None:
    assert pickers.best(a_field(3, in_flight=[900, 0, 0], at_node=[9, 1, 1])) == 0


# predicted


def test_predicted_draws_only_among_those_as_good_as_the_best() -> None:
    # 20 ms and 5 % of 2 s: up to 120 ms behind the best.
    seconds = [0.0, 0.05, 0.119, 0.121, 4.0]

    counts = drawn(pickers.predicted, seconds=seconds, time_to_first_token=[2.0] * 5, at_node=[2, 1, 3, 0, 0])

    # The less loaded of each pair of three.
    assert alike(counts[:2], [1, 2])
    assert len(counts) == 2
    assert pickers.near(a_field(seconds=seconds, time_to_first_token=[2.0] * 5)) == 3


def test_predicted_takes_the_less_loaded_of_two() -> None:
    counts = drawn(pickers.predicted, seconds=[0.0] * 4, at_node=[0.4, 0.1, 0.3, 0.2])

    # Of 4 ranked by load: the best is in 3 of 6 pairs, the next wins 2, then 1, then none.
    assert alike([counts[1], counts[3], counts[2]], [3, 2, 1])
    assert counts[0] == 0


def test_among_equally_loaded_ones_predicted_takes_the_better_of_the_pair() -> None:
    counts = drawn(pickers.predicted, seconds=[0.0] * 4)

    assert alike(counts, [3, 2, 1])


def test_predicted_looks_at_no_more_than_max_candidates() -> None:
    counts = drawn(pickers.predicted, seconds=[0.0] * 20, at_node=np.arange(20)[::-1], policy=Policy(max_candidates=4))

    assert alike(counts[1:], [1, 2, 3])
    assert counts[0] == 0


def test_the_best_alone_is_taken_where_nobody_is_near() -> None:
    assert drawn(pickers.predicted, size=5) == [len(SEEDS)]


# power_of_two


def test_power_of_two_takes_the_better_of_two_among_all() -> None:
    counts = drawn(pickers.power_of_two, size=5)

    assert alike(counts, [4, 3, 2, 1])


# least_latency, least_connections


def test_least_latency_is_the_soonest_first_token_and_the_better_of_equals() -> None:
    assert pickers.least_latency(a_field(time_to_first_token=[0.3, 0.1, 0.2])) == 1
    assert pickers.least_latency(a_field(time_to_first_token=[0.3, 0.1, 0.1])) == 1


def test_least_connections_is_the_fewest_in_flight_for_its_weight() -> None:
    assert pickers.least_connections(a_field(in_flight=[3, 1, 2])) == 1
    assert pickers.least_connections(a_field(in_flight=[4, 2, 9], weight=[1, 1, 10])) == 2


def test_least_connections_takes_turns_among_equals() -> None:
    assert pickers.least_connections(a_field(in_flight=[1, 1, 1], turn=[7, 5, 6])) == 1


def test_least_connections_fills_in_proportion_to_weights() -> None:
    in_flight, turn = np.zeros(3), np.zeros(3)

    for number in range(700):
        place = pickers.least_connections(a_field(in_flight=in_flight, turn=turn, weight=[1, 2, 4]))
        in_flight[place] += 1
        turn[place] = number + 1

    assert in_flight == pytest.approx([100, 200, 400], abs=2)


# round_robin


def rounds(turn: dict[str, float], members: Sequence[str], count: int) -> list[str]:
    """Who gets the next requests; `turn` says when each was chosen last."""
    picked = []
    for _ in range(count):
        ordered = sorted(members)
        name = ordered[pickers.round_robin(a_field(turn=[turn[m] for m in ordered], names=ordered))]
        turn[name] = max(turn.values()) + 1.0
        picked.append(name)
    return picked


def test_round_robin_takes_everybody_in_turn() -> None:
    turn = dict.fromkeys("abcd", 0.0)

    picked = rounds(turn, "abcd", 12)

    assert picked == list("abcd") * 3


def test_round_robin_stays_fair_while_members_come_and_go() -> None:
    turn = dict.fromkeys("abcde", 0.0)
    rng = np.random.default_rng(1)
    eligible, served = Counter[str](), Counter[str]()

    for _ in range(3_000):
        members = [m for m in "abcde" if rng.random() < 0.6] or ["a"]
        (name,) = rounds(turn, members, 1)
        served[name] += 1
        eligible.update({m: 1 / len(members) for m in members})  # type: ignore[arg-type]

    assert all(abs(served[m] - eligible[m]) < 0.06 * eligible[m] for m in "abcde")


def test_a_newcomer_gets_its_share_and_no_burst() -> None:
    turn = dict.fromkeys("abc", 0.0)
    rounds(turn, "abc", 3_000)
    # As `State` seats a newcomer: at the end of the row.
    turn["d"] = max(turn.values())

    picked = rounds(turn, "abcd", 400)

    assert picked.count("d") == 100
    assert all(picked[i : i + 4].count("d") <= 1 for i in range(397))


def test_one_that_comes_back_gets_no_burst_either() -> None:
    turn = dict.fromkeys("abc", 0.0)
    rounds(turn, "abc", 30)
    rounds(turn, "ab", 1_000)

    picked = rounds(turn, "abc", 30)

    assert picked.count("c") == 10
    assert all(picked[i : i + 3].count("c") <= 1 for i in range(28))


# weighted_random


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 5], [0.1, 0.2, 0.7], [100, 1, 1], [3, 0.5, 0.5]])
def test_weighted_random_draws_in_proportion_without_bias(weights: list[float]) -> None:
    assert alike(drawn(pickers.weighted_random, weight=weights), weights)


@pytest.mark.parametrize("weights", [[0, 1, 2], [1, 0, 2], [1, 2, 0]])
def test_a_weight_of_zero_is_never_drawn(weights: list[float]) -> None:
    counts = drawn(pickers.weighted_random, weight=weights)

    assert sum(c for c, w in zip([*counts, 0], weights, strict=False) if w == 0) == 0


def test_where_nobody_has_a_weight_all_are_alike() -> None:
    assert alike(drawn(pickers.weighted_random, weight=[0, 0, 0]), [1, 1, 1])


# consistent_hash

KEYS = [f"session-{number}" for number in range(2_000)]


def hashed(names: Sequence[str], **columns: Any) -> dict[str, str]:
    """Who gets each key when nothing runs anywhere."""
    fields = {key: a_field(names=names, key=key, **{"in_flight": [0.0] * len(names), **columns}) for key in KEYS}
    return {key: names[pickers.consistent_hash(field)] for key, field in fields.items()}


def test_consistent_hash_sends_a_key_to_the_same_place_whatever_the_order_and_seed() -> None:
    names = ["eu/a/m", "eu/b/m", "eu/c/m"]

    one, other = hashed(names), hashed(names[::-1])

    assert one == other


def test_consistent_hash_spreads_keys_evenly() -> None:
    names = [f"eu/n{i}/m" for i in range(8)]

    counts = Counter(hashed(names).values())

    assert alike([counts[name] for name in names], [1] * 8)


def test_when_one_goes_only_its_keys_move() -> None:
    names = [f"eu/n{i}/m" for i in range(8)]

    before, after = hashed(names), hashed(names[:-1])

    assert all(after[key] == name for key, name in before.items() if name != names[-1])


def test_when_one_comes_it_takes_its_share_and_nothing_else_moves() -> None:
    names = [f"eu/n{i}/m" for i in range(9)]

    before, after = hashed(names[:-1]), hashed(names)

    moved = [key for key in KEYS if before[key] != after[key]]
    assert all(after[key] == names[-1] for key in moved)
    assert len(moved) == pytest.approx(len(KEYS) / 9, rel=0.2)


def test_consistent_hash_follows_weights() -> None:
    counts = Counter(hashed(["eu/a/m", "eu/b/m", "eu/c/m"], weight=[1, 2, 5]).values())

    assert alike([counts[f"eu/{n}/m"] for n in "abc"], [1, 2, 5])


@pytest.mark.parametrize("weights", [[1.0] * 6, [4.0, 1.0, 1.0, 1.0, 1.0, 0.5]])
def test_one_hot_key_never_loads_a_place_beyond_a_quarter_over_its_share(weights: list[float]) -> None:
    in_flight = np.zeros(6)
    share = np.array(weights) / sum(weights)

    for _ in range(600):
        place = pickers.consistent_hash(a_field(key="everybody", in_flight=in_flight, weight=weights))
        in_flight[place] += 1
        assert (in_flight <= np.ceil(1.25 * in_flight.sum() * share)).all()

    assert in_flight.sum() == 600


def test_consistent_hash_leaves_out_a_weight_of_zero() -> None:
    counts = Counter(hashed(["eu/a/m", "eu/b/m", "eu/c/m"], weight=[1, 0, 1]).values())

    assert counts["eu/b/m"] == 0
    assert set(hashed(["eu/a/m", "eu/b/m"], weight=[0, 0]).values()) == {"eu/a/m", "eu/b/m"}


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_consistent_hash_bears_the_outermost_hashes(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "hash_text", lambda text, seed=0: bits)

    assert pickers.consistent_hash(a_field(3)) == 0


# peak_ewma


def test_peak_ewma_takes_the_lower_product_of_latency_and_load_of_two() -> None:
    # Products: 0.4, 0.1, 0.3, 0.2.
    counts = drawn(pickers.peak_ewma, latency=[0.1, 0.1, 0.3, 0.05], in_flight=[3, 0, 0, 3])

    assert alike([counts[1], counts[3], counts[2]], [3, 2, 1])
    assert counts[0] == 0


# hot_cold


def test_hot_cold_takes_the_fastest_that_is_not_hot() -> None:
    field = a_field(latency=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], in_flight=[90, 1, 2, 3, 1, 2, 3])

    assert pickers.hot_cold(field) == 1


def test_where_all_carry_alike_nobody_is_hot() -> None:
    assert pickers.hot_cold(a_field(latency=[0.3, 0.1, 0.2], in_flight=[5, 5, 5])) == 1


def test_hot_cold_takes_the_less_busy_of_equally_fast_ones() -> None:
    assert pickers.hot_cold(a_field(latency=[0.1] * 4, in_flight=[3, 1, 2, 9])) == 1


def test_hot_cold_looks_at_a_few_of_many_and_misses_nobody_for_ever() -> None:
    counts = drawn(pickers.hot_cold, seeds=range(3_000), latency=np.linspace(0.1, 1.0, 60))

    assert counts[0] == max(counts)
    assert 0.15 < counts[0] / 3_000 < 0.35, "the fastest of 60 is among 16 drawn in about a quarter of the cases"
    assert sum(counts[10:]) > 0


# chance


def test_two_are_different_and_every_pair_is_as_likely() -> None:
    pairs = Counter(tuple(sorted(chance.two_of(chance.mix(seed), 5))) for seed in range(20_000))

    assert all(a != b for a, b in pairs)
    assert alike(list(pairs.values()), [1] * 10)


def test_draws_of_one_seed_are_independent_of_each_other() -> None:
    table = Counter((chance.below(chance.mix(s), 0, 3), chance.below(chance.mix(s), 1, 3)) for s in range(20_000))

    assert alike(list(table.values()), [1] * 9)


def test_uniform_lies_in_zero_to_one_without_it() -> None:
    values = np.array([chance.uniform(seed, 0) for seed in range(20_000)])

    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert values.mean() == pytest.approx(0.5, abs=0.01)


def test_draws_and_hashes_do_not_change_between_processes_and_versions() -> None:
    # Recorded decisions are recomputed by later versions.
    assert chance.draw(7, 3) == 0x953AEB70673E29CB
    assert chance.hash_text("eu/a/m") == 0x1DE9EB1754FCBD23
