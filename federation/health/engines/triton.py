"""Triton's metrics page: with the TensorRT-LLM backend its own families, else what every model has.

`nv_inference_exec_count` counts executions since the start; it is no gauge of running requests, so those stay unknown
without the TensorRT-LLM backend. The summaries' quantiles are not read: they cannot be added over models.
"""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics, read_page

PREFIXES = (
    "nv_inference_pending_request_count",
    "nv_inference_first_response_histogram_ms",
    "nv_trt_llm_request_metrics",
    "nv_trt_llm_kv_cache_block_metrics",
    "nv_gpu_utilization",
)


def parse(text: str) -> EngineMetrics:
    page = read_page(text, PREFIXES)
    requests, blocks = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
    waiting = page.total(requests, request_type="waiting")
    if waiting is None and not page.first(requests):
        waiting = page.total("nv_inference_pending_request_count")
    kv, fullest = page.shares(blocks, kv_cache_block_type="fraction")
    gpu, _ = page.shares("nv_gpu_utilization")
    return EngineMetrics(
        queue_depth=waiting,
        running_requests=page.total(requests, request_type="scheduled"),
        kv_cache_utilization=kv,
        max_kv_cache_utilization=fullest,
        gpu_utilization=gpu,
        time_to_first_token=page.histogram("nv_inference_first_response_histogram_ms", scale=1e-3),
        max_batch_size=page.total(requests, request_type="max"),
        kv_cache_tokens=_product(
            page.total(blocks, kv_cache_block_type="tokens_per"), page.total(blocks, kv_cache_block_type="max")
        ),
    )


def _product(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left * right
