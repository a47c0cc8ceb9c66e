"""How each engine is asked for its health, its models and its load. A new engine is a parser and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from catalog.types import Engine
from federation.health.engines import grpc, openai, sglang, tgi, triton, trtllm, vllm
from federation.health.engines.page import EngineMetrics


@dataclass(frozen=True, slots=True)
class Dialect:
    """Paths below a node's endpoint; empty: the engine has none.

    Without a models path an engine cannot list, and a passed probe is all that can be asked of it.
    """

    health_path: str
    models_path: str
    metrics_path: str
    parse: Callable[[str], EngineMetrics]
    # Triton wants a POST for its list.
    models_method: str = "GET"
    # Where the page is when the endpoint has the engine's default port (Triton: 8000 serves, 8002 tells).
    metrics_ports: Mapping[int, int] | None = None
    # An answer that asks for credentials proves that a hosted API lives; we send none.
    guarded_is_alive: bool = False


DIALECTS: Mapping[Engine, Dialect] = {
    Engine.VLLM: Dialect("/health", "/v1/models", "/metrics", vllm.parse),
    # SGLang lists its model before it is warm, so it is the health path that tells.
    Engine.SGLANG: Dialect("/health", "/v1/models", "/metrics", sglang.parse),
    # TGI serves its one model under any name, and its health path runs a generation.
    Engine.TGI: Dialect("/health", "", "/metrics", tgi.parse),
    Engine.TRITON: Dialect(
        "/v2/health/ready", "/v2/repository/index", "/metrics", triton.parse, "POST", metrics_ports={8000: 8002}
    ),
    Engine.TRTLLM: Dialect("/health", "/v1/models", "/prometheus/metrics", trtllm.parse),
    Engine.OPENAI: Dialect("/v1/models", "/v1/models", "/metrics", openai.parse, guarded_is_alive=True),
    Engine.GRPC: Dialect("", "", "", grpc.parse),
}
