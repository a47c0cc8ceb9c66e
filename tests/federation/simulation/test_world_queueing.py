"""Engines together, against queueing theory and against their own forecasts. (One engine alone: test_batching.py.)"""

from __future__ import annotations

from random import Random

import pytest

from federation.simulation.batching import Ahead, BatchEventKind, BatchProfile, ContinuousBatch

# One server, first come first served: nothing decodes beside the prefill, and every request has one token.
SERVER = BatchProfile(
    prefill_seconds_per_token=0.001,
    min_time_to_first_token_seconds=0.0,
    decode_tokens_per_second=1e6,
    max_batch_size=1_000,
    kv_cache_tokens=1_000_000_000,
    max_waiting=100_000,
    prefill_slowdown=0.0,
)


def test_two_choices_shorten_queues_as_theory_says():
    rng, now, servers, rho = Random(4), 0.0, 100, 0.9
    batches = [ContinuousBatch(SERVER) for _ in range(servers)]
    here = [0] * servers
    arrived: dict[str, float] = {}
    times: list[float] = []
    for number in range(60_000):
        now += rng.expovariate(rho * servers)
        one, two = rng.sample(range(servers), 2)
        for choice in (one, two):
            for event in batches[choice].advance(now):
                if event.kind is BatchEventKind.FINISHED:
                    here[choice] -= 1
                    times.append(event.at - arrived.pop(event.request_id))
        chosen = one if here[one] <= here[two] else two
        here[chosen] += 1
        arrived[str(number)] = now
        batches[chosen].submit(str(number), round(rng.expovariate(1 / 1_000)), 1, 0, now)

    steady = times[len(times) // 4 :]

    # Mitzenmacher: the mean time is the sum of rho ** (2**i - 2); one choice would take 1 / (1 - rho) = 10.
    theory = sum(rho ** (2**i - 2) for i in range(1, 12))
    assert sum(steady) / len(steady) == pytest.approx(theory, rel=0.08)


def test_the_forecast_of_a_first_token_is_what_then_happens():
    rng = Random(5)
    for trial in range(40):
        profile = BatchProfile(0.00025, 0.0, 22.0, rng.choice([4, 16, 64]), rng.choice([20_000, 300_000]))
        batch, now = ContinuousBatch(profile), 0.0
        for number in range(rng.randint(0, 60)):
            now += rng.expovariate(3.0)
            batch.advance(now)
            batch.submit(str(number), rng.randint(1, 4_000), rng.randint(1, 300), 0, now)
        batch.advance(now)
        before = Ahead(800 * profile.prefill_seconds_per_token, 900, 100)

        foreseen = batch.first_token_in(1_500, 100, 500, [before])

        batch.submit("ahead", 800, 100, 0, now)
        batch.submit("ours", 1_500, 100, 500, now)
        measured = None
        while measured is None:
            at = batch.next_event_at()
            assert at is not None
            found = [e for e in batch.advance(at) if e.request_id == "ours"]
            measured = next((e.at - now for e in found if e.kind is BatchEventKind.FIRST_TOKEN), None)
        assert foreseen == pytest.approx(measured, abs=1e-6), trial


def test_a_prompt_that_can_never_fit_has_no_first_token():
    batch = ContinuousBatch(BatchProfile(0.001, 0.05, 20.0, 4, 1_000))

    assert batch.first_token_in(2_000, 10, 0, ()) == float("inf")
