"""Any server with an OpenAI API: nothing is promised of its metrics page, so every dialect that it may speak is tried.

llama.cpp's server has names of its own; vLLM, SGLang and TensorRT-LLM often stand behind such an endpoint.
"""

from __future__ import annotations

from federation.health.engines import sglang, trtllm, vllm
from federation.health.engines.page import EngineMetrics, Page, read_page

LLAMA_CPP = (
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
    "llamacpp:kv_cache_usage_ratio",
    "llamacpp:prompt_tokens_total",
    "llamacpp:tokens_predicted_total",
)
PREFIXES = (*vllm.PREFIXES, *sglang.PREFIXES, *trtllm.PREFIXES, *LLAMA_CPP)

NOTHING = EngineMetrics()


def parse(text: str) -> EngineMetrics:
    page = read_page(text, PREFIXES)
    for dialect in (vllm.from_page, sglang.from_page, trtllm.from_page, _llama_cpp):
        if (metrics := dialect(page)) != NOTHING:
            return metrics
    return NOTHING


def _llama_cpp(page: Page) -> EngineMetrics:
    kv, fullest = page.shares("llamacpp:kv_cache_usage_ratio")
    return EngineMetrics(
        queue_depth=page.total("llamacpp:requests_deferred"),
        running_requests=page.total("llamacpp:requests_processing"),
        kv_cache_utilization=kv,
        max_kv_cache_utilization=fullest,
        prompt_tokens_total=page.total("llamacpp:prompt_tokens_total"),
        generation_tokens_total=page.total("llamacpp:tokens_predicted_total"),
    )
