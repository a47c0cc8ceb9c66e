"""The batch model against queueing theory, and its books."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.simulation.batching import BatchEventKind, BatchProfile, ContinuousBatch

FIRST, FINISHED, REJECTED = BatchEventKind.FIRST_TOKEN, BatchEventKind.FINISHED, BatchEventKind.REJECTED


def a_profile(**changes: float) -> BatchProfile:
    values = {
        "prefill_seconds_per_token": 0.001,
        "min_time_to_first_token_seconds": 0.0,
        "decode_tokens_per_second": 100.0,
        "max_batch_size": 8,
        "kv_cache_tokens": 100_000,
        "decode_slowdown": 0.0,
        "prefill_slowdown": 0.0,
    }
    return BatchProfile(**{**values, **changes})  # type: ignore[arg-type]


def run_out(batch: ContinuousBatch) -> list[tuple[str, BatchEventKind, float]]:
    seen = []
    while (at := batch.next_event_at()) is not None:
        seen += [(event.request_id, event.kind, event.at) for event in batch.advance(at)]
    return seen


def arrivals(rng: Random, rate: float, count: int) -> list[float]:
    now, times = 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        times.append(now)
    return times


def mean_sojourn(batch: ContinuousBatch, jobs: list[tuple[float, int, int]], until: BatchEventKind) -> float:
    """Mean seconds from arrival to `until`, over all jobs (arrival, prompt tokens, output tokens)."""
    came, total, ended = {}, 0.0, 0
    for number, (at, prompt, output) in enumerate(jobs):
        came[str(number)] = at
        batch.submit(str(number), prompt, output, 0, at)
        for event in batch.advance(at):
            if event.kind is until:
                total += event.at - came[event.request_id]
                ended += 1
    for request_id, kind, at in run_out(batch):
        if kind is until:
            total += at - came[request_id]
            ended += 1
    assert ended == len(jobs)
    return total / ended


def test_a_lone_request_is_prefilled_then_decodes_at_its_own_pace():
    batch = ContinuousBatch(a_profile())
    batch.submit("a", prompt_tokens=500, output_tokens=11, cached_tokens=0, now=2.0)

    seen = run_out(batch)

    assert seen == [("a", FIRST, pytest.approx(2.5)), ("a", FINISHED, pytest.approx(2.6))]
    assert batch.generated_tokens == pytest.approx(11)
    assert batch.prefilled_tokens == 500


def test_cached_tokens_are_not_prefilled_again():
    batch = ContinuousBatch(a_profile())
    batch.submit("a", prompt_tokens=500, output_tokens=1, cached_tokens=400, now=0.0)

    assert run_out(batch)[0] == ("a", FIRST, pytest.approx(0.1))


def test_the_least_time_to_a_first_token_delays_a_short_prompt_but_not_the_next_one():
    batch = ContinuousBatch(a_profile(min_time_to_first_token_seconds=0.2))
    batch.submit("short", 10, 1, 0, 0.0)
    batch.submit("long", 300, 1, 0, 0.0)

    seen = {(request_id, kind): at for request_id, kind, at in run_out(batch)}

    assert seen["short", FIRST] == pytest.approx(0.2)
    assert seen["long", FIRST] == pytest.approx(0.31)


def test_a_full_batch_decodes_as_much_slower_as_the_profile_says():
    profile = a_profile(prefill_seconds_per_token=0.0, decode_slowdown=1.0, max_batch_size=4)
    alone, full = ContinuousBatch(profile), ContinuousBatch(profile)
    alone.submit("a", 10, 101, 0, 0.0)
    for name in "abcd":
        full.submit(name, 10, 101, 0, 0.0)

    assert run_out(alone)[-1][2] == pytest.approx(1.0)
    assert run_out(full)[-1][2] == pytest.approx(2.0)


def test_a_request_waits_for_a_place_in_the_batch():
    batch = ContinuousBatch(a_profile(max_batch_size=1, prefill_seconds_per_token=0.0))
    batch.submit("a", 10, 101, 0, 0.0)
    batch.submit("b", 10, 1, 0, 0.0)

    assert (batch.running, batch.waiting) == (1, 1)
    assert ("b", FIRST, pytest.approx(1.0)) in run_out(batch)


def test_a_request_waits_for_room_in_the_cache_and_goes_in_order():
    batch = ContinuousBatch(a_profile(kv_cache_tokens=1_000, prefill_seconds_per_token=0.0))
    batch.submit("big", 700, 101, 0, 0.0)
    batch.submit("next", 300, 100, 0, 0.0)
    batch.submit("small", 10, 10, 0, 0.0)

    batch.advance(0.5)

    # `small` would fit beside `big`, but would then starve `next`.
    assert (batch.running, batch.waiting, batch.kv_reserved) == (1, 2, 801)
    assert batch.kv_used == pytest.approx(700 + 1 + 50)


def test_what_can_never_fit_and_what_comes_when_too_many_wait_is_rejected():
    batch = ContinuousBatch(a_profile(kv_cache_tokens=1_000, max_waiting=1))
    batch.submit("huge", 900, 101, 0, 0.0)
    for name in "abc":
        batch.submit(name, 100, 10, 0, 0.0)

    rejected = [request_id for request_id, kind, _ in run_out(batch) if kind is REJECTED]

    assert rejected == ["huge", "c"]


def test_tokens_appear_one_by_one_at_the_times_that_were_foretold():
    batch = ContinuousBatch(a_profile())
    batch.submit("a", 100, 5, 0, 0.0)
    batch.advance(0.1)

    times = []
    while (at := batch.next_token_at("a")) is not None and batch.generated("a") < 4:
        batch.advance(at)
        times.append((batch.generated("a"), at))

    assert times == [(2, pytest.approx(0.11)), (3, pytest.approx(0.12)), (4, pytest.approx(0.13))]


def test_a_cancelled_request_gives_its_place_back_wherever_it_was():
    batch = ContinuousBatch(a_profile(max_batch_size=1))
    for name in "abc":
        batch.submit(name, 100, 100, 0, 0.0)

    assert batch.cancel("b", 0.05)
    assert batch.cancel("a", 0.05)
    assert not batch.cancel("a", 0.05)
    seen = run_out(batch)

    assert [request_id for request_id, _, _ in seen] == ["c", "c"]
    assert seen[0][2] == pytest.approx(0.15)
    assert (batch.running, batch.waiting, batch.kv_reserved, batch.kv_used) == (0, 0, 0, 0)


@pytest.mark.parametrize("field", ["prefill_seconds_per_token", "decode_tokens_per_second", "max_batch_size"])
def test_a_profile_that_cannot_be_is_refused_by_the_name_of_its_field(field: str):
    with pytest.raises(ValueError, match=field):
        a_profile(**{field: -1})


# Waiting times are strongly correlated, so 60,000 jobs at a load of 0.7 leave a standard error of about 2 %. The seed
# is fixed; 5 % says that it is the formula and not luck, and a wrong discipline is off by far more.
JOBS, LOAD, TOLERANCE = 60_000, 0.7, 0.05


def test_equal_prompts_wait_as_long_as_in_an_m_d_1_queue():
    batch = ContinuousBatch(a_profile(max_batch_size=10_000, kv_cache_tokens=10**12, max_waiting=10**6))
    jobs = [(at, 1_000, 1) for at in arrivals(Random(1), LOAD, JOBS)]

    waited = mean_sojourn(batch, jobs, FIRST) - 1.0

    assert waited == pytest.approx(LOAD / (2 * (1 - LOAD)), rel=TOLERANCE)


def test_exponential_prompts_wait_as_long_as_in_an_m_m_1_queue():
    rng = Random(2)
    batch = ContinuousBatch(a_profile(max_batch_size=10_000, kv_cache_tokens=10**12, max_waiting=10**6))
    jobs = [(at, round(rng.expovariate(1 / 1_000)), 1) for at in arrivals(rng, LOAD, JOBS)]
    service = sum(prompt for _, prompt, _ in jobs) / len(jobs) / 1_000

    waited = mean_sojourn(batch, jobs, FIRST) - service

    assert waited == pytest.approx(LOAD / (1 - LOAD), rel=TOLERANCE)


def test_a_batch_of_one_with_exponential_answers_is_an_m_m_1_queue():
    rng = Random(3)
    profile = a_profile(prefill_seconds_per_token=0.0, max_batch_size=1, kv_cache_tokens=10**12, max_waiting=10**6)
    jobs = [(at, 1, 1 + round(rng.expovariate(1 / 100))) for at in arrivals(rng, LOAD, JOBS)]

    sojourn = mean_sojourn(ContinuousBatch(profile), jobs, FINISHED)

    assert sojourn == pytest.approx(1 / (1 - LOAD), rel=TOLERANCE)


def test_a_batch_that_slows_in_proportion_shares_the_processor():
    # With a slow-down of batch size less one, n sequences decode at 1/n of the pace: M/M/1 processor sharing.
    rng = Random(4)
    profile = a_profile(
        prefill_seconds_per_token=0.0, max_batch_size=1_001, decode_slowdown=1_000.0, kv_cache_tokens=10**12
    )
    jobs = [(at, 1, 1 + round(rng.expovariate(1 / 100))) for at in arrivals(rng, LOAD, JOBS)]

    sojourn = mean_sojourn(ContinuousBatch(profile), jobs, FINISHED)

    assert sojourn == pytest.approx(1 / (1 - LOAD), rel=TOLERANCE)


requests = st.lists(
    st.tuples(
        st.floats(0, 0.5),
        st.integers(0, 600),
        st.integers(1, 60),
        st.floats(0, 1),
        st.one_of(st.none(), st.integers(0, 30)),
    ),
    max_size=30,
)
profiles = st.builds(
    a_profile,
    prefill_seconds_per_token=st.sampled_from([0.0, 0.0003, 0.002]),
    min_time_to_first_token_seconds=st.sampled_from([0.0, 0.05, 1.0]),
    max_batch_size=st.integers(1, 5),
    kv_cache_tokens=st.integers(300, 2_000),
    max_waiting=st.integers(0, 6),
    decode_slowdown=st.sampled_from([0.0, 1.0, 7.5]),
    prefill_slowdown=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=150, deadline=None)
@given(profiles, requests)
def test_every_request_ends_once_in_order_of_time_and_no_bound_is_passed(profile, jobs):
    batch = ContinuousBatch(profile)
    now, submitted, cancelled, events = 0.0, {}, set(), []
    for number, (gap, prompt, output, cached, victim) in enumerate(jobs):
        now += gap
        batch.submit(str(number), prompt, output, int(prompt * cached), now)
        submitted[str(number)] = now
        if victim is not None and batch.cancel(str(victim), now):
            cancelled.add(str(victim))
        events += batch.advance(now)
        assert 0 <= batch.running <= profile.max_batch_size
        assert 0 <= batch.waiting <= profile.max_waiting
        assert -1e-6 <= batch.kv_used <= batch.kv_reserved + 1e-6
        assert batch.kv_reserved <= profile.kv_cache_tokens
    while (at := batch.next_event_at()) is not None:
        events += batch.advance(at)

    ended = [event.request_id for event in events if event.kind in (FINISHED, REJECTED)]
    assert len(ended) == len(set(ended))
    assert set(ended) | cancelled == set(submitted)
    assert not set(ended) & cancelled
    assert [event.at for event in events] == sorted(event.at for event in events)
    firsts = {event.request_id: event.at for event in events if event.kind is FIRST}
    for event in events:
        if event.kind is FINISHED:
            assert firsts[event.request_id] <= event.at
        if event.kind is FIRST:
            waited = event.at - submitted[event.request_id]
            assert waited >= profile.min_time_to_first_token_seconds - 1e-9
    assert (batch.running, batch.waiting, batch.kv_reserved) == (0, 0, 0)
    assert batch.kv_used == pytest.approx(0)


# Derandomized: where an arrival falls on an event to the last bit, rounding decides which was first.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(profiles, requests, st.floats(0.01, 0.3))
def test_looking_more_often_changes_nothing(profile, jobs, step):
    """A real clock polls at odd times, a simulator jumps from event to event: both see the same."""
    jumping, polling = ContinuousBatch(profile), ContinuousBatch(profile)
    now, left, right = 0.0, [], []
    for number, (gap, prompt, output, cached, _) in enumerate(jobs):
        before, now = now, now + gap
        look = before + step
        while look < now:
            right += polling.advance(look)
            look += step
        for batch in (jumping, polling):
            batch.submit(str(number), prompt, output, int(prompt * cached), now)
    while (at := jumping.next_event_at()) is not None:
        left += jumping.advance(at)
    while polling.next_event_at() is not None:
        now += step
        right += polling.advance(now)

    assert {(event.request_id, event.kind): event.at for event in left} == {
        (event.request_id, event.kind): pytest.approx(event.at, abs=1e-6) for event in right
    }
