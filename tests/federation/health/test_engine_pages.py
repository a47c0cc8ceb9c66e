"""Metric pages of every dialect: made-up ones beside this file, and real ones from the folder that the environment's
FAIRWAY_METRIC_PAGES names, where it does."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.types import Engine
from federation.health.engines import DIALECTS
from federation.health.engines.page import MAX_PAGE_CHARS, MAX_SAMPLES, EngineMetrics, Histogram, read_page

PAGES = Path(__file__).parent / "pages"
REAL_PAGES = Path(os.environ.get("FAIRWAY_METRIC_PAGES") or PAGES)
NOTHING = EngineMetrics()

ENGINE_OF = {
    "vllm": Engine.VLLM,
    "sglang": Engine.SGLANG,
    "tgi": Engine.TGI,
    "triton": Engine.TRITON,
    "trtllm": Engine.TRTLLM,
    "llamacpp": Engine.OPENAI,
    "dcgm": Engine.OPENAI,
}


def parse(engine: Engine, text: str) -> EngineMetrics:
    return DIALECTS[engine].parse(text)


def page(name: str) -> EngineMetrics:
    return parse(ENGINE_OF[name.split("_")[0]], (PAGES / f"{name}.txt").read_text())


def check_sensible(metrics: EngineMetrics) -> None:
    """Every figure is unknown, or one that an engine can have."""
    for field in fields(metrics):
        value = getattr(metrics, field.name)
        match value:
            case None | frozenset():
                continue
            case Histogram(bounds, counts, total):
                assert bounds[-1] == math.inf
                assert list(bounds) == sorted(bounds)
                assert list(counts) == sorted(counts)
                assert all(count >= 0 for count in counts)
                assert math.isfinite(total)
                assert total >= 0
            case float() | int():
                assert math.isfinite(value), field.name
                assert value >= 0, field.name
                if "utilization" in field.name:
                    assert value <= 1, field.name


def test_ranks_of_vllm_are_added_and_their_caches_averaged():
    metrics = page("vllm_two_ranks")

    assert (metrics.running_requests, metrics.queue_depth) == (12.0, 2.0)
    assert (metrics.kv_cache_utilization, metrics.max_kv_cache_utilization) == (0.5, 0.75)
    assert (metrics.prompt_tokens_total, metrics.generation_tokens_total) == (1500.0, 6000.0)
    assert metrics.time_to_first_token == Histogram((0.1, 0.5, 2.5, math.inf), (10, 40, 60, 60), 30.0)
    assert metrics.time_per_output_token is not None
    assert metrics.time_per_output_token.mean == pytest.approx(0.025)
    assert metrics.end_to_end is not None
    assert metrics.end_to_end.count == 60
    assert metrics.kv_cache_tokens == 32_000.0


def test_the_newest_adapter_sample_counts():
    metrics = page("vllm_two_ranks")

    assert metrics.running_adapters == frozenset({"b", "c"})
    assert metrics.max_adapters == 4.0


def test_old_names_of_vllm_and_counters_without_total_are_read_and_nan_is_unknown():
    metrics = page("vllm_old_names")

    assert metrics.queue_depth is None
    assert metrics.running_requests == 3.0
    assert metrics.kv_cache_utilization == 0.5
    assert metrics.prompt_tokens_total == 12.0
    assert metrics.generation_tokens_total is None
    assert metrics.throughput_tokens_per_second == 81.5
    assert metrics.time_per_output_token is not None


def test_tensor_parallel_workers_of_sglang_are_not_counted_twice():
    metrics = page("sglang_ranks")

    assert (metrics.running_requests, metrics.queue_depth) == (10.0, 1.0)
    assert metrics.throughput_tokens_per_second == 150.0
    assert metrics.kv_cache_utilization == pytest.approx(0.5)
    assert metrics.max_kv_cache_utilization == 0.6
    assert metrics.kv_cache_tokens == 65_536.0
    assert metrics.time_to_first_token is not None


def test_what_tgi_does_not_tell_is_unknown():
    metrics = page("tgi")

    assert (metrics.running_requests, metrics.queue_depth) == (8.0, 3.0)
    assert (metrics.prompt_tokens_total, metrics.generation_tokens_total) == (900.0, 240.0)
    assert metrics.kv_cache_utilization is None
    assert metrics.time_to_first_token is None
    assert metrics.end_to_end is not None


def test_tritons_llm_backend_goes_before_its_general_families():
    metrics = page("triton_trtllm")

    assert (metrics.queue_depth, metrics.running_requests, metrics.max_batch_size) == (9.0, 12.0, 64.0)
    assert metrics.kv_cache_utilization == 0.875
    assert metrics.kv_cache_tokens == 32_000.0
    assert metrics.gpu_utilization == pytest.approx(0.6)
    assert metrics.time_to_first_token is not None
    assert metrics.time_to_first_token.bounds == (0.1, 0.5, 2.0, math.inf)
    assert metrics.time_to_first_token.sum == pytest.approx(6.0)


def test_tritons_counter_of_executions_is_no_gauge_of_running_requests():
    text = 'nv_inference_exec_count{model="m"} 17\nnv_inference_pending_request_count{model="m"} 3\n'

    metrics = parse(Engine.TRITON, text)

    assert metrics.running_requests is None
    assert metrics.queue_depth == 3.0


def test_trtllm_serve_and_an_openai_server_before_it_tell_the_same():
    text = (PAGES / "trtllm.txt").read_text()
    metrics = page("trtllm")

    assert (metrics.running_requests, metrics.queue_depth, metrics.kv_cache_utilization) == (6.0, 1.0, 0.33)
    assert metrics.kv_cache_tokens == 65_536.0
    assert metrics.generation_tokens_total == 321.0
    assert parse(Engine.OPENAI, text) == metrics


def test_llama_cpp_behind_an_openai_endpoint_is_understood():
    metrics = page("llamacpp")

    assert (metrics.running_requests, metrics.queue_depth, metrics.kv_cache_utilization) == (1.0, 2.0, 0.125)


@pytest.mark.parametrize("path", sorted({*PAGES.glob("*.txt"), *REAL_PAGES.glob("*.txt")}), ids=lambda path: path.stem)
def test_every_page_gives_sensible_figures(path: Path):
    metrics = parse(ENGINE_OF[path.stem.split("_")[0]], path.read_text())

    check_sensible(metrics)
    assert (metrics == NOTHING) == path.stem.startswith("dcgm")


EXPECTED_OF_REAL_PAGES = {
    "sglang_overloaded": {"queue_depth": 2826.0, "running_requests": 162.0, "kv_cache_utilization": 0.28},
    "sglang_ranked_labels": {"queue_depth": 0.0, "running_requests": 0.0, "kv_cache_utilization": None},
    "vllm_v0": {"queue_depth": 0.0, "prompt_tokens_total": 5.0, "kv_cache_tokens": 116_496.0},
    "vllm_v1_0.10.0_partial": {"queue_depth": None, "running_requests": None},
    "vllm_v1_0.30.0_lines": {"queue_depth": 0.0, "generation_tokens_total": 32.0},
    "tgi_partial": {"queue_depth": 0.0, "kv_cache_utilization": None, "generation_tokens_total": None},
    "triton": {"queue_depth": 0.0, "running_requests": None, "gpu_utilization": 0.0},
}


@pytest.mark.parametrize("path", sorted(REAL_PAGES.glob("*.txt")), ids=lambda path: path.stem)
def test_real_pages_give_what_stands_in_them(path: Path):
    metrics = parse(ENGINE_OF[path.stem.split("_")[0]], path.read_text())

    for name, value in EXPECTED_OF_REAL_PAGES.get(path.stem, {}).items():
        assert getattr(metrics, name) == value, name


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "-Inf"])
def test_an_impossible_number_of_one_rank_makes_the_sum_unknown(value: str):
    text = f'vllm:num_requests_waiting{{engine="0"}} 4\nvllm:num_requests_waiting{{engine="1"}} {value}\n'

    assert parse(Engine.VLLM, text).queue_depth is None


@pytest.mark.parametrize(("value", "share"), [("1.0000001", 1.0), ("87.5", None), ("-0.1", None), ("0", 0.0)])
def test_a_share_that_is_none_is_unknown(value: str, share: float | None):
    assert parse(Engine.VLLM, f"vllm:kv_cache_usage_perc {value}\n").kv_cache_utilization == share


def test_a_last_line_that_was_cut_is_not_believed():
    text = "vllm:num_requests_running 12\nvllm:num_requests_waiting 28"

    metrics = parse(Engine.VLLM, text)

    assert metrics.running_requests == 12.0
    assert metrics.queue_depth is None


def test_a_histogram_that_was_cut_is_unknown():
    whole = (PAGES / "vllm_two_ranks.txt").read_text()
    cut = whole[: whole.index('vllm:time_to_first_token_seconds_bucket{engine="1"')]
    no_end = "\n".join(line for line in whole.splitlines() if "+Inf" not in line) + "\n"

    assert parse(Engine.VLLM, cut).time_to_first_token is not None  # one rank, whole
    assert parse(Engine.VLLM, no_end).time_to_first_token is None


def test_one_bad_line_does_not_cost_the_others():
    text = 'vllm:num_requests_running{engine="0 3\nvllm:num_requests_waiting{engine="0"} 4\n'

    assert parse(Engine.VLLM, text) == EngineMetrics(queue_depth=4.0)


def test_a_page_that_is_too_large_is_unknown_as_a_whole():
    many = "".join(f'vllm:num_requests_waiting{{engine="{i}"}} 1\n' for i in range(MAX_SAMPLES + 1))
    long = "vllm:num_requests_waiting 1\n#" + "x" * MAX_PAGE_CHARS + "\n"

    assert parse(Engine.VLLM, many) == NOTHING
    assert parse(Engine.VLLM, long) == NOTHING


def test_series_of_other_families_cost_no_parsing():
    noise = "".join(f'http_requests_total{{path="/{i}"}} 1\n' for i in range(20_000))

    read = read_page(noise + "vllm:num_requests_waiting 4\n", ("vllm:",))

    assert list(read.samples) == ["vllm:num_requests_waiting"]


LINES = sorted({line for path in PAGES.glob("*.txt") for line in path.read_text().splitlines()})
DAMAGED = st.builds(
    lambda line, at, junk: line[:at] + junk + line[at + len(junk) :],
    st.sampled_from(LINES),
    st.integers(0, 120),
    st.text(max_size=6),
)


@settings(deadline=None)
@given(st.sampled_from(list(Engine)), st.lists(st.one_of(st.sampled_from(LINES), DAMAGED, st.text(max_size=80))))
def test_no_text_breaks_a_parser_or_gives_an_impossible_figure(engine: Engine, lines: list[str]):
    check_sensible(parse(engine, "\n".join(lines) + "\n"))


@settings(deadline=None)
@given(st.sampled_from(sorted(PAGES.glob("*.txt"))), st.floats(0, 1))
def test_a_page_cut_anywhere_never_shows_a_figure_that_is_smaller_than_a_line_said(path: Path, share: float):
    text = path.read_text()
    metrics = parse(ENGINE_OF[path.stem.split("_")[0]], text[: int(share * len(text))])

    check_sensible(metrics)
    whole = parse(ENGINE_OF[path.stem.split("_")[0]], text)
    # Of what has one rank only, a cut page tells the same or nothing.
    if path.stem in ("tgi", "trtllm", "llamacpp"):
        for field in fields(metrics):
            assert getattr(metrics, field.name) in (None, getattr(whole, field.name))


def a_histogram(*counts: float, total: float = 0.0) -> Histogram:
    return Histogram((0.1, 0.5, 2.5, math.inf), counts, total)


def test_what_happened_between_two_pages_is_their_difference():
    delta = a_histogram(10, 40, 60, 60, total=30.0).since(a_histogram(10, 30, 40, 40, total=14.0))

    assert delta == a_histogram(0, 10, 20, 20, total=16.0)
    assert delta.quantile(0.5) == pytest.approx(0.5)
    assert delta.quantile(0.75) == pytest.approx(1.5)


def test_after_a_restart_all_that_was_counted_is_new():
    fresh = a_histogram(1, 2, 2, 2, total=0.5)

    assert fresh.since(a_histogram(10, 30, 40, 40, total=14.0)) == fresh
    assert fresh.since(None) == fresh
    assert fresh.since(Histogram((1.0, math.inf), (1, 1), 0.1)) == fresh


def test_a_quantile_beyond_the_last_bound_is_at_least_that_bound():
    assert a_histogram(0, 0, 1, 10).quantile(0.99) == 2.5
    assert a_histogram(0, 0, 0, 0).quantile(0.5) is None
    assert a_histogram(0, 0, 0, 0).mean is None
