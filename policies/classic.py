"""The classic shape of a router, `route_request(endpoints, engine_stats, request_stats, request) -> url`, as a picker.

What the router sees is what it would see where it comes from: endpoints with `url` and `model_names`, and statistics by
url.  It only chooses among those that filters left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from policies.pickers import Field


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    url: str
    model_names: tuple[str, ...]
    # `region_id/node_id/model_id`.
    Id: str


@dataclass(frozen=True, slots=True)
class EngineStats:
    num_running_requests: int
    num_queuing_requests: int


@dataclass(frozen=True, slots=True)
class RequestStats:
    # Seconds to the first token, as predicted for this request.
    ttft: float
    in_prefill_requests: int
    in_decoding_requests: int


@dataclass(frozen=True, slots=True)
class ClassicRequest:
    """The request as such routers read it: its headers. A session stands under `x-session-id`."""

    headers: Mapping[str, str]


class RoutesRequests(Protocol):
    def route_request(
        self,
        endpoints: Sequence[EndpointInfo],
        engine_stats: Mapping[str, EngineStats],
        request_stats: Mapping[str, RequestStats],
        request: Any,
    ) -> str:
        """The url of one of the endpoints."""
        ...


@dataclass(frozen=True, slots=True)
class ClassicPicker:
    router: RoutesRequests

    def __call__(self, field: Field) -> int:
        """The place of the endpoint that the router names. ValueError where it names none of them."""
        urls = field.endpoints
        busy = [int(count) for count in field.in_flight]
        running = [min(count, int(batch)) for count, batch in zip(busy, field.batch.tolist(), strict=True)]
        endpoints = [
            EndpointInfo(url, (name.split("/", 2)[2],), name) for url, name in zip(urls, field.names, strict=True)
        ]
        engine = {url: EngineStats(runs, count - runs) for url, runs, count in zip(urls, running, busy, strict=True)}
        requests = {
            url: RequestStats(float(first), count - runs, runs)
            for url, first, runs, count in zip(urls, field.time_to_first_token, running, busy, strict=True)
        }
        chosen = self.router.route_request(endpoints, engine, requests, ClassicRequest({"x-session-id": field.key}))
        return urls.index(chosen)
