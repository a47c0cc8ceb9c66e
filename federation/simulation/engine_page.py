"""The metrics page of the stand-in engine: vLLM's names, labels and bucket bounds, with values of its own state.

Names and bounds are those of vLLM's V1 engine; a page that a parser of real pages cannot read is a bug here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

TTFT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
# vLLM's default; only the geometry on the page depends on it.
BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class EngineState:
    """What the page shows of a moment."""

    running: int
    waiting: int
    kv_used: float
    kv_cache_tokens: int
    prompt_tokens: int
    generated_tokens: int
    prefix_queries: int
    prefix_hits: int
    finished: dict[str, int]
    adapters: tuple[str, ...]
    adapters_time: float


class _Read(Protocol):
    def __call__(self) -> EngineState: ...


class EnginePage:
    """Histograms that are fed as requests go, and gauges and counters read when the page is asked for."""

    def __init__(self, model_name: str, read: Callable[[], EngineState]) -> None:
        self._model_name = model_name
        self._read: _Read = read
        self._registry = CollectorRegistry()
        self.time_to_first_token = self._histogram("time_to_first_token_seconds", "Time to first token.", TTFT_BOUNDS)
        self.inter_token_latency = self._histogram("inter_token_latency_seconds", "Between two tokens.", TOKEN_BOUNDS)
        self.request_latency = self._histogram("e2e_request_latency_seconds", "Whole requests.", REQUEST_BOUNDS)
        self._registry.register(self)

    def text(self) -> bytes:
        """The page in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for every scrape."""
        state = self._read()
        yield self._gauge("num_requests_running", "Requests in model execution batches.", state.running)
        yield self._gauge("num_requests_waiting", "Requests waiting to be processed.", state.waiting)
        usage = min(1.0, max(0.0, state.kv_used / state.kv_cache_tokens))
        yield self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage)
        yield self._counter("prompt_tokens", "Prefill tokens processed.", state.prompt_tokens)
        yield self._counter("generation_tokens", "Generation tokens processed.", state.generated_tokens)
        yield self._counter("num_preemptions", "Preemptions of the engine.", 0)
        yield self._counter("prefix_cache_queries", "Prefix cache queries, in tokens.", state.prefix_queries)
        yield self._counter("prefix_cache_hits", "Prefix cache hits, in tokens.", state.prefix_hits)
        success = CounterMetricFamily(
            "vllm:request_success",
            "Successfully processed requests.",
            labels=["engine", "finished_reason", "model_name"],
        )
        for reason, count in state.finished.items():
            success.add_metric(["0", reason, self._model_name], count)
        yield success
        config = GaugeMetricFamily(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            labels=["block_size", "cache_dtype", "enable_prefix_caching", "engine", "num_gpu_blocks"],
        )
        config.add_metric([str(BLOCK_TOKENS), "auto", "True", "0", str(state.kv_cache_tokens // BLOCK_TOKENS)], 1)
        yield config
        if state.adapters:
            adapters = GaugeMetricFamily(
                "vllm:lora_requests_info",
                "Running stats on lora requests.",
                labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
            )
            # The value of this family is a time stamp, as in vLLM; the newest sample is the true one.
            adapters.add_metric(["8", ",".join(state.adapters), ""], state.adapters_time)
            yield adapters

    def _histogram(self, name: str, documentation: str, bounds: tuple[float, ...]) -> Histogram:
        family = Histogram(
            f"vllm:{name}", documentation, ["engine", "model_name"], buckets=bounds, registry=self._registry
        )
        return family.labels("0", self._model_name)

    def _gauge(self, name: str, documentation: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", documentation, labels=["engine", "model_name"])
        family.add_metric(["0", self._model_name], value)
        return family

    def _counter(self, name: str, documentation: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", documentation, labels=["engine", "model_name"])
        family.add_metric(["0", self._model_name], value)
        return family
