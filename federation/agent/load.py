"""From an engine's metrics page to the load that a heartbeat carries."""

from __future__ import annotations

from federation.health.engines.page import EngineMetrics
from federation.v1 import catalog_pb2


class LoadMeter:
    """Remembers the last reading, because tokens per second are the difference of two."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def read(self, metrics: EngineMetrics | None, now: float) -> catalog_pb2.NodeLoad | None:
        """The load at `now` (monotonic seconds); what is not known is absent, and None says that nothing is."""
        if metrics is None:
            self._before = None
            return None
        load = catalog_pb2.NodeLoad(
            running_requests=metrics.running_requests,
            queue_depth=metrics.queue_depth,
            kv_cache_utilization=metrics.kv_cache_utilization,
            gpu_utilization=metrics.gpu_utilization,
            throughput_tokens_per_second=self._throughput(metrics, now),
        )
        return load if load.ListFields() else None

    def _throughput(self, metrics: EngineMetrics, now: float) -> float | None:
        if metrics.throughput_tokens_per_second is not None:
            return metrics.throughput_tokens_per_second
        total, before = metrics.generation_tokens_total, self._before
        self._before = (now, total) if total is not None else None
        # A counter that fell belongs to another life of the engine.
        if total is None or before is None or now <= before[0] or total < before[1]:
            return None
        return (total - before[1]) / (now - before[0])
