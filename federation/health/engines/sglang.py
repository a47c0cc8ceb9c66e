"""SGLang's metrics page (`--enable-metrics`). Newer versions add rank labels; a few builds write `_` for `:`."""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics, Page, is_amount, read_page

FAMILIES = (
    "num_queue_reqs",
    "num_running_reqs",
    "token_usage",
    "gen_throughput",
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "prompt_tokens",
    "generation_tokens",
    "cache_config_info",
    "max_running_requests",
    "max_total_num_tokens",
)
PREFIXES = tuple(f"sglang{separator}{family}" for separator in ":_" for family in FAMILIES)


def parse(text: str) -> EngineMetrics:
    return from_page(read_page(text, PREFIXES))


def from_page(page: Page) -> EngineMetrics:
    kv, fullest = page.shares(*_names("token_usage"))
    return EngineMetrics(
        queue_depth=page.total(*_names("num_queue_reqs")),
        running_requests=page.total(*_names("num_running_reqs")),
        kv_cache_utilization=kv,
        max_kv_cache_utilization=fullest,
        throughput_tokens_per_second=page.total(*_names("gen_throughput")),
        time_to_first_token=page.histogram(*_names("time_to_first_token_seconds")),
        time_per_output_token=page.histogram(
            *_names("inter_token_latency_seconds"), *_names("time_per_output_token_seconds")
        ),
        end_to_end=page.histogram(*_names("e2e_request_latency_seconds")),
        prompt_tokens_total=page.total(*_names("prompt_tokens_total"), *_names("prompt_tokens")),
        generation_tokens_total=page.total(*_names("generation_tokens_total"), *_names("generation_tokens")),
        max_batch_size=page.total(*_names("max_running_requests")),
        kv_cache_tokens=_kv_cache_tokens(page),
    )


def _names(family: str) -> tuple[str, str]:
    return f"sglang:{family}", f"sglang_{family}"


def _kv_cache_tokens(page: Page) -> float | None:
    if (tokens := page.total(*_names("max_total_num_tokens"))) is not None:
        return tokens
    tokens = 0.0
    samples = page.first(*_names("cache_config_info"))
    for sample in samples:
        try:
            tokens += float(sample.labels["page_size"]) * float(sample.labels["num_pages"])
        except (KeyError, ValueError):
            return None
    return tokens if samples and is_amount(tokens) else None
