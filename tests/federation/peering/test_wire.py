"""Every message survives the wire, in both directions; what a newer or broken peer sends is told apart."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from catalog.types import Node, Region
from federation.peering import wire
from federation.peering.messages import (
    Ack,
    DeploymentReport,
    Goodbye,
    Heartbeat,
    Hello,
    Identity,
    Message,
    NodeReport,
    Summary,
    Update,
)
from federation.v1 import peering_pb2 as pb
from federation.v1 import types_pb2
from policies.health import CircuitState, CircuitView, Grade
from tests.builders import a_model
from tests.fleets import random_node, random_region


def as_told(node: Node) -> Node:
    """Deployments travel in the order of their models."""
    return replace(node, deployments=tuple(sorted(node.deployments, key=lambda each: each.model_id)))


RNG = Random(5)
NODES = tuple(as_told(random_node(RNG, number)) for number in range(40))
REGIONS = (replace(random_region(RNG, "ap"), round_trip_seconds={"eu": 0.25}), Region("eu"))
REPORT = DeploymentReport(
    "m",
    grade=Grade.DEGRADED,
    ready=True,
    score=0.5,
    circuit=CircuitView(CircuitState.OPEN, 5, 2, 0.0, "5 failures in a row"),
    retry_after_seconds=2.5,
    ejected_seconds=1.5,
    latency_p50_seconds=0.25,
    prefill_seconds_per_token=0.0,
    min_time_to_first_token_seconds=0.0,
    decode_tokens_per_second=50.0,
)
MESSAGES: tuple[Message, ...] = (
    Hello(Identity("eu", ("eu", "eu-2"), "life", ("DE", "EU"), "1.2.3"), "theirs", 7, 12.5),
    Update(None, 4, 1, False, regions=REGIONS, models=(a_model(),), nodes=NODES),
    Update(3, 4, 0, True, nodes=NODES[:1], removed_regions=("a",), removed_models=("b",), removed_nodes=("a/c",)),
    Update(0, 4),
    Summary(3, (NodeReport("eu/n", (REPORT, DeploymentReport("n")), 1.0, 0.0, 0.5, "slow"), NodeReport("eu/o"))),
    Ack(9),
    Heartbeat(1, 2, 3, 4, 5),
    Goodbye("enough", True),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message):
    asked = pb.ExchangeRequest.FromString(wire.request_to(message).SerializeToString())
    answered = pb.ExchangeResponse.FromString(wire.response_to(message).SerializeToString())

    assert wire.message_from(asked) == message
    assert wire.message_from(answered) == message


@pytest.mark.parametrize(
    "broken",
    [
        pb.ExchangeRequest(),
        pb.ExchangeRequest(hello=pb.PeerHello(region_id="eu", incarnation="1", owned_regions=["us"])),
        pb.ExchangeRequest(hello=pb.PeerHello(region_id="eu", owned_regions=["eu"])),
        pb.ExchangeRequest(
            hello={"region_id": "eu", "incarnation": "1", "owned_regions": ["eu"], "lease_duration": {}}
        ),
        pb.ExchangeRequest(delta={"nodes": [types_pb2.Node(region_id="eu", node_id="n", privacy_level=9)]}),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_a_value_error(broken: pb.ExchangeRequest):
    with pytest.raises(ValueError, match=r"."):
        wire.message_from(broken)


def test_figures_that_are_no_numbers_are_unknown_and_scores_stay_within_bounds():
    told = pb.ExchangeRequest(
        health={
            "sequence": 1,
            "nodes": [
                {
                    "node": "eu/n",
                    "queue_depth": float("nan"),
                    "running_requests": -1.0,
                    "kv_cache_utilization": float("inf"),
                    "deployments": [{"model_id": "m", "score": float("nan"), "decode_tokens_per_second": 0.0}],
                }
            ],
        }
    )

    message = wire.message_from(told)

    assert isinstance(message, Summary)
    (report,) = message.reports
    assert (report.queue_depth, report.running_requests, report.kv_cache_utilization) == (None, None, None)
    assert report.deployments[0].score == 0.0
    assert report.deployments[0].decode_tokens_per_second is None
