"""vLLM's metrics page. Names of v0 (2024) to v1 (2026); `_perc` are shares 0..1 in spite of their name."""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics, Page, is_amount, read_page

PREFIXES = (
    "vllm:num_requests_",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:time_to_first_token_seconds",
    "vllm:time_per_output_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:avg_generation_throughput_toks_per_s",
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
)


def parse(text: str) -> EngineMetrics:
    return from_page(read_page(text, PREFIXES))


def from_page(page: Page) -> EngineMetrics:
    kv, fullest = page.shares("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    max_adapters, running_adapters = _adapters(page)
    return EngineMetrics(
        queue_depth=page.total("vllm:num_requests_waiting"),
        running_requests=page.total("vllm:num_requests_running"),
        kv_cache_utilization=kv,
        max_kv_cache_utilization=fullest,
        throughput_tokens_per_second=page.total("vllm:avg_generation_throughput_toks_per_s"),
        time_to_first_token=page.histogram("vllm:time_to_first_token_seconds"),
        time_per_output_token=page.histogram(
            "vllm:inter_token_latency_seconds",
            "vllm:time_per_output_token_seconds",
            "vllm:request_time_per_output_token_seconds",
        ),
        end_to_end=page.histogram("vllm:e2e_request_latency_seconds"),
        prompt_tokens_total=page.counter("vllm:prompt_tokens"),
        generation_tokens_total=page.counter("vllm:generation_tokens"),
        kv_cache_tokens=_kv_cache_tokens(page),
        max_adapters=max_adapters,
        running_adapters=running_adapters,
    )


def _kv_cache_tokens(page: Page) -> float | None:
    """Geometry stands in labels, as text; a rank that has none makes the sum unknown."""
    tokens = 0.0
    samples = page.first("vllm:cache_config_info")
    for sample in samples:
        try:
            tokens += float(sample.labels["block_size"]) * float(sample.labels["num_gpu_blocks"])
        except (KeyError, ValueError):
            return None
    return tokens if samples and is_amount(tokens) else None


def _adapters(page: Page) -> tuple[float | None, frozenset[str] | None]:
    """One sample per set of adapters there ever was; its value is the time it was current, so the newest counts."""
    samples = [s for s in page.first("vllm:lora_requests_info") if is_amount(s.value)]
    if not samples:
        return None, None
    newest = max(samples, key=lambda s: s.value).labels
    running = frozenset(name.strip() for name in newest.get("running_lora_adapters", "").split(",") if name.strip())
    try:
        limit = float(newest["max_lora"])
    except (KeyError, ValueError):
        return None, running
    return (limit if is_amount(limit) else None), running
