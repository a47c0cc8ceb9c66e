from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.outliers import FALSE_EJECTION, Member, by_errors, by_slowness, choose, ejection_seconds


def a_pool(*failures: int, requests: int = 50, **changes: object) -> list[Member]:
    return [
        Member(f"r/n{i:03}/m", failures=n, requests=requests, **changes)  # type: ignore[arg-type]
        for i, n in enumerate(failures)
    ]


def paces(*seconds: float, answers: int = 50, **changes: object) -> list[Member]:
    return [
        Member(f"r/n{i}/m", pace=math.log(s), answers=answers, kind="first token", **changes)  # type: ignore[arg-type]
        for i, s in enumerate(seconds)
    ]


def names(found) -> list[str]:
    return [outlier.name for outlier in found]


def test_a_member_that_fails_a_third_of_fifty_is_an_outlier():
    found = choose(a_pool(0, 15, 1, 0, 0, 0, 1, 0, 0, 0), size=10)

    assert names(found) == ["r/n001/m"]
    assert found[0].reason == "30% of 50 outcomes failed, 3% are usual among its neighbours"


def test_when_all_fail_alike_nobody_is_an_outlier():
    assert by_errors(a_pool(15, 14, 16, 15, 15)) == ()


def test_a_few_failures_are_chance():
    assert by_errors(a_pool(0, 3, 0, 0, 0)) == ()
    assert by_errors(a_pool(0, 4, 0, 0, 0, requests=4)) == ()


def test_at_most_a_tenth_of_a_pool_is_out_and_the_worst_goes_first():
    pool = a_pool(*[0] * 18, 20, 30, requests=60)

    assert names(choose(pool, size=20)) == ["r/n019/m", "r/n018/m"]
    assert names(choose(pool, size=20, max_ejected_ratio=0.05)) == ["r/n019/m"]
    assert names(choose(pool[-3:], size=3)) == ["r/n019/m"]


def test_those_already_out_count():
    pool = [*a_pool(0, 0, 25), Member("r/out/m", ejected=True)]

    assert choose(pool, size=4) == ()


def test_the_only_member_is_never_ejected():
    assert by_errors(a_pool(40)) != ()
    assert choose(a_pool(40), size=1) == ()


def test_the_last_one_that_could_serve_is_never_ejected():
    broken = Member("r/b/m", available=False)

    assert choose([*a_pool(40), broken], size=2) == ()
    assert names(choose([*a_pool(40), broken], size=3)) == ["r/n000/m"]


def test_a_member_ten_times_slower_than_the_median_is_an_outlier():
    found = choose(paces(0.2, 0.25, 2.2, 0.18, 0.22), size=5)

    assert names(found) == ["r/n2/m"]
    assert found[0].reason == "10 times slower than the median of its pool"


def test_thrice_as_slow_is_a_matter_for_the_latency_score():
    assert by_slowness(paces(0.2, 0.2, 0.6, 0.2)) == ()


def test_of_two_paces_nobody_can_tell_which_is_odd():
    assert by_slowness(paces(0.2, 20.0)) == ()


def test_a_pace_needs_answers():
    assert by_slowness([*paces(0.2, 0.2, 0.2), *paces(9.0, answers=19)]) == ()


def test_paces_of_different_kinds_are_not_compared():
    by_call = [Member(f"r/c{i}/m", pace=math.log(30.0), answers=50, kind="call") for i in range(3)]

    assert by_slowness([*paces(0.2, 0.2, 0.2), *by_call]) == ()


def test_slow_hardware_that_was_always_slow_is_left_alone():
    slow = Member("r/t4/m", pace=math.log(2.0), usual_pace=math.log(1.5), answers=500, answers_ever=500, kind="x")
    quick = [Member(f"r/h100-{i}/m", pace=math.log(0.1), answers=500, kind="x") for i in range(4)]
    young = Member("r/t4/m", pace=math.log(2.0), usual_pace=math.log(1.5), answers=99, answers_ever=99, kind="x")

    assert by_slowness([slow, *quick]) == ()
    assert names(by_slowness([young, *quick])) == ["r/t4/m"]


def test_each_ejection_is_longer_up_to_five_minutes():
    assert [ejection_seconds(n) for n in (1, 2, 3, 10, 50)] == [30.0, 60.0, 90.0, 300.0, 300.0]


@pytest.mark.parametrize("requests", [20, 50, 200, 600])
def test_the_bound_holds_what_it_promises(requests: int):
    """The exact binomial tail of the least count that ejects, at the tolerated rate, is under FALSE_EJECTION."""
    rate = 0.03
    least = next(n for n in range(requests + 1) if by_errors(a_pool(0, n, requests=requests)))

    tail = sum(math.comb(requests, n) * rate**n * (1 - rate) ** (requests - n) for n in range(least, requests + 1))

    assert tail <= FALSE_EJECTION


MEMBERS = st.lists(st.tuples(st.integers(0, 40), st.integers(40, 80), st.booleans(), st.booleans()), max_size=30)


@given(MEMBERS, st.floats(0, 1), st.integers(0, 50))
def test_the_share_that_is_out_is_never_exceeded_and_somebody_is_left(members, ratio, silent):
    pool = [
        Member(f"n{i:02}", failures, requests, ejected=ejected, available=available)
        for i, (failures, requests, ejected, available) in enumerate(members)
    ]
    size = len(pool) + silent
    found = choose(pool, size, ratio)

    out = {member.name for member in pool if member.ejected}
    chosen = set(names(found))
    assert not chosen & out
    if chosen:
        assert len(out | chosen) <= max(1, math.floor(size * ratio))
        left = [m for m in pool if m.name not in out | chosen and m.available]
        assert len(left) + silent >= 1


@given(MEMBERS, st.randoms(use_true_random=False))
def test_the_order_of_a_pool_does_not_matter(members, rng: random.Random):
    pool = [Member(f"n{i:02}", failures, requests) for i, (failures, requests, _, _) in enumerate(members)]
    shuffled = pool[:]
    rng.shuffle(shuffled)

    assert choose(pool, len(pool)) == choose(shuffled, len(pool))
