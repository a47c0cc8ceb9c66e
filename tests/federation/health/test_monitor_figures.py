from __future__ import annotations

import math
from dataclasses import fields

import pytest

from federation.health.engines.page import EngineMetrics, Histogram
from policies.health import Grade
from policies.types import Result
from tests.federation.health.fleet import MODEL, Fleet, a_node, a_snapshot

NAME = f"r/n1/{MODEL}"


def metrics(fleet: Fleet, **figures: object) -> Fleet:
    fleet.monitor.observe_metrics("r/n1", EngineMetrics(**figures), fleet.now)  # type: ignore[arg-type]
    return fleet


def test_what_nobody_told_is_unknown_and_never_zero():
    health = Fleet().passed().health()

    assert {f.name for f in fields(health) if getattr(health, f.name) is None} == {
        "error_ratio",
        "latency_p50_seconds",
        "latency_p99_seconds",
        "latency_peak_seconds",
        "throughput_tokens_per_second",
        "running_requests",
        "queue_depth",
        "kv_cache_utilization",
        "gpu_utilization",
        "prefill_seconds_per_token",
        "min_time_to_first_token_seconds",
        "decode_tokens_per_second",
    }
    assert set(health.signal_times) == {"probe"}


def test_latencies_are_quantiles_of_the_last_minute():
    fleet = Fleet().passed()
    for i in range(100):
        fleet.answered(latency_seconds=1.0 + i / 100.0)

    health = fleet.health()
    assert health.latency_p50_seconds == pytest.approx(1.5, rel=0.03)
    assert health.latency_p99_seconds == pytest.approx(2.0, rel=0.03)
    assert fleet.after(70.0).health().latency_p50_seconds is None


def test_a_failed_call_counts_as_the_worst_latency_however_fast_it_failed():
    fleet = Fleet().passed().answered(times=9, latency_seconds=1.0)

    fleet.answered(result=Result.SERVER_ERROR, latency_seconds=0.001)

    assert fleet.health().latency_p50_seconds == pytest.approx(1.0, rel=0.02)
    assert fleet.health().latency_p99_seconds == pytest.approx(60.0, rel=0.02)


def test_a_refusal_for_load_is_no_fast_answer():
    fleet = Fleet().passed().answered(times=9, result=Result.OVERLOADED, latency_seconds=0.001)

    assert fleet.health().latency_p50_seconds is None


@pytest.mark.parametrize("latency", [math.nan, math.inf, -1.0, None])
def test_a_latency_that_cannot_be_is_dropped(latency: float | None):
    fleet = Fleet().passed().answered(latency_seconds=latency, time_to_first_token_seconds=latency, input_tokens=5)

    assert fleet.health().latency_p50_seconds is None


def test_of_each_load_figure_the_newest_that_is_told_counts():
    fleet = metrics(Fleet().passed(), queue_depth=7.0, running_requests=2.0, kv_cache_utilization=0.5)
    fleet.after(1.0).load(queue_depth=3.0)
    newer_beat = fleet.health()
    metrics(fleet.after(1.0), queue_depth=9.0)

    assert (newer_beat.queue_depth, newer_beat.running_requests, newer_beat.kv_cache_utilization) == (3.0, 2.0, 0.5)
    assert (fleet.health().queue_depth, fleet.health().running_requests) == (9.0, None)
    assert set(fleet.health().signal_times) == {"probe", "metrics", "load"}
    assert fleet.node().signal_ages == {"probe": 2.0, "metrics": 0.0, "load": 1.0}


def test_old_load_is_unknown():
    fleet = metrics(Fleet().passed(), queue_depth=7.0).load(running_requests=3.0)

    assert fleet.after(59.0).health().queue_depth == 7.0
    assert fleet.after(2.0).health().queue_depth is None
    assert fleet.health().running_requests is None


def test_a_page_that_tells_nothing_leaves_the_old_one_to_age():
    fleet = metrics(metrics(Fleet().passed(), queue_depth=7.0).after(5.0))

    assert fleet.health().queue_depth == 7.0
    assert fleet.node().signal_ages["metrics"] == 5.0


def test_throughput_comes_from_two_pages_and_survives_a_restart_as_unknown():
    fleet = metrics(Fleet().passed(), generation_tokens_total=1_000.0)
    first = fleet.health().throughput_tokens_per_second
    second = metrics(fleet.after(10.0), generation_tokens_total=3_000.0).health().throughput_tokens_per_second
    idle = metrics(fleet.after(10.0), generation_tokens_total=3_000.0).health().throughput_tokens_per_second
    restarted = metrics(fleet.after(10.0), generation_tokens_total=50.0).health().throughput_tokens_per_second

    assert (first, second, idle, restarted) == (None, 200.0, 0.0, None)


def test_what_the_engine_computes_itself_goes_before_what_we_derive():
    fleet = metrics(Fleet().passed(), generation_tokens_total=0.0, throughput_tokens_per_second=5.0)
    metrics(fleet.after(10.0), generation_tokens_total=1e6, throughput_tokens_per_second=86.5)

    assert fleet.health().throughput_tokens_per_second == 86.5


BOUNDS = (0.1, 0.5, 2.5, math.inf)


def test_first_tokens_and_decode_rates_come_from_the_difference_of_two_pages():
    def at(ttft: tuple[float, ...], tokens: float, seconds: float) -> dict[str, object]:
        return {
            "time_to_first_token": Histogram(BOUNDS, ttft, sum(ttft)),
            "time_per_output_token": Histogram((1.0, math.inf), (tokens, tokens), seconds),
            "end_to_end": Histogram(BOUNDS, ttft, sum(ttft)),
        }

    fleet = metrics(Fleet().passed(), **at((1_000.0, 1_000.0, 1_000.0, 1_000.0), 500.0, 500.0))
    before = fleet.node().time_to_first_token_p50_seconds
    metrics(fleet.after(10.0), **at((1_000.0, 1_000.0, 1_010.0, 1_010.0), 600.0, 502.0))

    assert before is None
    assert fleet.node().time_to_first_token_p50_seconds == pytest.approx(1.5)
    assert fleet.health().decode_tokens_per_second == pytest.approx(50.0)
    assert fleet.health().latency_p50_seconds == pytest.approx(1.5)


def test_speed_is_learned_from_answers():
    fleet = Fleet().passed()
    for i in range(200):
        tokens, cached = 100 + 37 * (i % 50), 60
        first = 0.05 + 4e-4 * (tokens - cached)
        fleet.answered(
            input_tokens=tokens,
            cached_tokens=cached,
            output_tokens=101,
            time_to_first_token_seconds=first,
            latency_seconds=first + 2.0,
        )

    health = fleet.health()
    assert health.prefill_seconds_per_token == pytest.approx(4e-4, rel=0.1)
    assert health.min_time_to_first_token_seconds == pytest.approx(0.05, abs=0.05)
    assert health.decode_tokens_per_second == pytest.approx(50.0)


def test_answers_behind_a_known_queue_teach_no_speed():
    fleet = Fleet().passed().load(queue_depth=4.0)
    fleet.answered(times=50, input_tokens=100, time_to_first_token_seconds=9.0)

    assert fleet.health().prefill_seconds_per_token is None


def test_a_nodes_latency_is_that_of_all_its_answers_else_of_its_probes():
    fleet = Fleet(a_node(models=("a", "b"))).passed(models=["a", "b"], latency=0.02)
    by_probe = fleet.node().latency_p50_seconds
    fleet.answered("r/n1/a", times=98, latency_seconds=1.0).answered("r/n1/b", times=2, latency_seconds=30.0)

    assert by_probe == 0.02
    assert fleet.node().latency_p50_seconds == pytest.approx(1.0, rel=0.02)
    assert fleet.node().latency_p99_seconds == pytest.approx(30.0, rel=0.02)
    assert [model for model, _ in fleet.node().deployments] == ["a", "b"]


def test_an_operator_can_leave_a_node_out_and_take_it_back():
    fleet = Fleet(a_node(models=("a", "b"))).passed(models=["a", "b"])
    versions = [fleet.monitor.version]
    fleet.monitor.eject("r/n1", fleet.now, 60.0)
    versions.append(fleet.monitor.version)
    ejected = fleet.health("r/n1/b").ejected_until
    fleet.monitor.restore("r/n1", fleet.now)
    versions.append(fleet.monitor.version)
    fleet.monitor.eject("r/n1", fleet.now, 60.0)

    assert ejected == fleet.now + 60.0
    assert versions == sorted(set(versions))
    assert fleet.after(59.0).health("r/n1/a").ejected_until > fleet.now
    assert fleet.after(1.0).health("r/n1/a").ejected_until == 0.0


def test_the_routers_state_hears_of_load_at_once():
    fleet = Fleet().passed()
    heard: list[tuple[object, ...]] = []
    fleet.monitor.on_load = lambda *told: heard.append(told)

    fleet.load(running_requests=3.0)
    metrics(fleet, queue_depth=2.0)

    assert heard == [("r/n1", 3.0, None, fleet.now), ("r/n1", 3.0, 2.0, fleet.now)]


def test_a_view_is_not_rebuilt_for_what_did_not_change():
    fleet = Fleet(a_node("n1"), a_node("n2")).passed("r/n1").passed("r/n2")
    before = fleet.monitor.view(fleet.now)
    fleet.load("r/n2", queue_depth=2.0)

    after = fleet.monitor.view(fleet.now + 1.0)

    assert after[NAME] is before[NAME]
    assert after[f"r/n2/{MODEL}"].queue_depth == 2.0


def test_a_changed_registration_keeps_what_was_learned():
    fleet = Fleet().passed().answered(times=20, input_tokens=100, time_to_first_token_seconds=0.1)
    node = a_node(labels={"pool": "b"}, draining=True)

    fleet.monitor.sync(a_snapshot(node, revision=2), fleet.now)

    assert fleet.health().prefill_seconds_per_token is not None
    assert fleet.health().grade is Grade.HEALTHY
