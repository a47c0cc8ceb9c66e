"""A server that speaks gRPC only: it has no page, and tells of its load in ORCA reports on its trailers, if at all."""

from __future__ import annotations

from federation.health.engines import orca
from federation.health.engines.page import EngineMetrics


def parse(text: str) -> EngineMetrics:
    """Reads an ORCA report in its text or JSON form."""
    return orca.to_metrics(orca.parse_header(text))
