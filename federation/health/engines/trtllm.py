"""trtllm-serve's Prometheus page (`/prometheus/metrics`; its `/metrics` is a JSON list of iterations).

Behind Dynamo the names have a `:` after the prefix.
"""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics, Page, read_page

FAMILIES = (
    "num_requests_waiting",
    "num_requests_running",
    "kv_cache_utilization",
    "kv_cache_tokens_per_block",
    "kv_cache_max_blocks",
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "prompt_tokens",
    "generation_tokens",
)
PREFIXES = tuple(f"trtllm{separator}{family}" for separator in "_:" for family in FAMILIES)


def parse(text: str) -> EngineMetrics:
    return from_page(read_page(text, PREFIXES))


def from_page(page: Page) -> EngineMetrics:
    kv, fullest = page.shares(*_names("kv_cache_utilization"))
    per_block, blocks = page.total(*_names("kv_cache_tokens_per_block")), page.total(*_names("kv_cache_max_blocks"))
    return EngineMetrics(
        queue_depth=page.total(*_names("num_requests_waiting")),
        running_requests=page.total(*_names("num_requests_running")),
        kv_cache_utilization=kv,
        max_kv_cache_utilization=fullest,
        time_to_first_token=page.histogram(*_names("time_to_first_token_seconds")),
        time_per_output_token=page.histogram(*_names("time_per_output_token_seconds")),
        end_to_end=page.histogram(*_names("e2e_request_latency_seconds")),
        prompt_tokens_total=page.total(*_names("prompt_tokens_total"), *_names("prompt_tokens")),
        generation_tokens_total=page.total(*_names("generation_tokens_total"), *_names("generation_tokens")),
        kv_cache_tokens=None if per_block is None or blocks is None else per_block * blocks,
    )


def _names(family: str) -> tuple[str, str]:
    return f"trtllm_{family}", f"trtllm:{family}"
