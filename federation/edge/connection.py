"""What the clients share: options, channels, stubs of all services, and the outcomes that they write themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from federation.edge.errors import RouteError
from federation.edge.outcomes import MAX_QUEUED, OutcomeQueue, Verdict
from federation.edge.service_config import TlsOptions, channel_options, credentials, parse_addresses
from federation.v1 import catalog_pb2_grpc, fleet_pb2_grpc, policy_pb2_grpc, routing_pb2, routing_pb2_grpc

# A library logs the standard way; the gateway that imports it decides where to.
log = logging.getLogger("fairway.client")
# A last flush on close waits at most this long: a gateway that stops should stop.
CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client behaves; the defaults are those to start with."""

    # Deadline of `route`, hedges included. A decision takes a millisecond; who waits longer has lost a replica.
    route_timeout_seconds: float = 1.0
    # Longest time that any other unary call may take.
    call_timeout_seconds: float = 10.0
    # Ask a second replica when the first is late. Its reservation is given back if both answer.
    hedge: bool = False
    # How old a last decision may be when no control plane answers; 0: none is used.
    use_stale_seconds: float = 0.0
    tls: TlsOptions | None = None
    # Bearer token; needs TLS.
    token: str = ""
    max_queued_outcomes: int = MAX_QUEUED


class Settings:
    """What both clients work out from addresses and options before they open a channel."""

    def __init__(self, addresses: str | Sequence[str], options: ClientOptions) -> None:
        self.addresses = parse_addresses(addresses, options.tls)
        if options.token and not self.addresses.tls:
            raise ValueError(
                "token needs TLS: use an https:// address, or set tls; a token must not travel in the clear"
            )
        self.credentials = credentials(options.tls, options.token) if self.addresses.tls else None
        self.channel_options = channel_options(options.call_timeout_seconds, options.tls)
        # A lane's failure is answered by the next lane; retrying inside it would only take its time.
        self.lane_options = channel_options(options.call_timeout_seconds, options.tls, retry=False)
        self.lanes = self.addresses.targets if options.hedge and len(self.addresses.targets) > 1 else ()

    def open(self, api: Any, target: str, options: list[tuple[str, Any]]) -> Any:
        if self.credentials is not None:
            return api.secure_channel(target, self.credentials, options)
        return api.insecure_channel(target, options)


class Stubs:
    """Stubs of all services over one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.catalog: Any = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        self.routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        self.policy: Any = policy_pb2_grpc.PolicyServiceStub(channel)  # type: ignore[no-untyped-call]
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)  # type: ignore[no-untyped-call]


def stamped(outcome: routing_pb2.Outcome, wall_clock: Callable[[], float]) -> routing_pb2.Outcome:
    """A copy that says when it happened: it may wait here for longer than the fact stays news."""
    copy = routing_pb2.Outcome()
    copy.CopyFrom(outcome)
    if not copy.HasField("event_time"):
        copy.event_time.FromMicroseconds(round(wall_clock() * 1e6))
    return copy


def given_back(decision: routing_pb2.RouteDecision) -> routing_pb2.Outcome:
    """Ends the reservation of a decision that came second and is not used."""
    return routing_pb2.Outcome(
        decision_id=decision.decision_id,
        phase=routing_pb2.OUTCOME_PHASE_FINISHED,
        result=routing_pb2.OUTCOME_RESULT_CANCELLED,
    )


def book_failure(outcomes: OutcomeQueue, batch: list[routing_pb2.Outcome], error: RouteError) -> bool:
    what = outcomes.failed(batch, error)
    if what is Verdict.DISCARD:
        log.warning("%d outcomes were refused (%d so far): %s", len(batch), outcomes.refused, error)
    return what is not Verdict.RETRY
