"""The client's pure parts: addresses, service config, hedging, last decisions, the queue of outcomes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from federation.edge.client import Client, ClientOptions, RouteError, SyncClient, TlsOptions
from federation.edge.decisions import MAX_SHAPES, LastDecisions
from federation.edge.hedging import FIRST_DELAY_SECONDS, Hedging
from federation.edge.outcomes import OutcomeQueue, Verdict
from federation.edge.service_config import parse_addresses, service_config
from federation.v1 import routing_pb2


@pytest.mark.parametrize(
    ("text", "targets", "tls"),
    [
        ("10.0.0.1:50051", ("10.0.0.1:50051",), False),
        ("http://cp:50051/", ("cp:50051",), False),
        ("grpcs://cp.example:443", ("cp.example:443",), True),
        ("https://cp:1, https://cp:2", ("cp:1", "cp:2"), True),
        ("dns:///cp.fleet:50051", ("dns:///cp.fleet:50051",), False),
        ("dns:50051", ("dns:50051",), False),
        ("[::1]:50051", ("[::1]:50051",), False),
    ],
)
def test_addresses_are_read(text: str, targets: tuple[str, ...], tls: bool):
    addresses = parse_addresses(text, None)

    assert (addresses.targets, addresses.tls) == (targets, tls)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "host:port"),
        ("cp", "needs a host and a port"),
        ("cp:99999", "between 1 and 65535"),
        ("::1:50051", "without brackets"),
        ("ftp://cp:1", "ftp"),
        ("http://cp:1/path", "host and port only"),
        ("http://cp:1,https://cp:2", "mix TLS and plain"),
        ("https://a:1,https://b:1", "server_name"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_the_way_out(text: str, word: str):
    with pytest.raises(ValueError, match=word):
        parse_addresses(text, None)


def test_a_bare_address_means_tls_where_tls_is_set_up():
    assert parse_addresses("cp:1", TlsOptions()).tls
    assert not parse_addresses("http://cp:1", TlsOptions()).tls


def test_several_addresses_become_one_target_of_one_family():
    assert parse_addresses("127.0.0.1:1,127.0.0.2:2", None).joined() == "ipv4:127.0.0.1:1,127.0.0.2:2"
    assert parse_addresses("[::1]:1,[::1]:2", None).joined() == "ipv6:[::1]:1,[::1]:2"
    with pytest.raises(ValueError, match="mix IPv4 and IPv6"):
        parse_addresses("127.0.0.1:1,[::1]:2", None).joined()


def test_the_service_config_retries_reads_and_repeatable_writes_and_bounds_every_unary_call():
    config = json.loads(service_config(10.0))

    retried, once = config["methodConfig"]
    names = {(name["service"], name["method"]) for name in retried["name"]}
    assert ("federation.v1.RoutingService", "Route") in names
    assert ("federation.v1.CatalogService", "RegisterNode") in names
    assert {name["method"] for name in once["name"]} == {"DeregisterModel", "DeregisterNode", "DeletePolicy"}
    assert not {"Heartbeat", "WatchCatalog", "RouteStream", "WatchLeases"} & {method for _, method in names}
    assert (retried["timeout"], once["timeout"]) == ("10.000s", "10.000s")
    assert retried["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert "retryPolicy" not in once
    assert config["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.1}


def test_a_token_does_not_travel_in_the_clear():
    for make in (Client, SyncClient):
        with pytest.raises(ValueError, match="token needs TLS"):
            make("cp:1", ClientOptions(token="t"))


def test_a_certificate_without_its_key_is_refused():
    with pytest.raises(ValueError, match="certificate and key"):
        TlsOptions(certificate=Path("c.pem"))


def test_the_hedge_comes_after_three_medians():
    hedging = Hedging(2)
    assert hedging.delay() == FIRST_DELAY_SECONDS

    for seconds in (0.01,) * 8 + (5.0,) * 2:
        hedging.answered(0, seconds)

    assert hedging.delay() == pytest.approx(0.03)


def test_a_suspect_is_asked_last_for_longer_each_time_until_it_answers():
    hedging = Hedging(2)
    hedging.suspect(0, now=0.0)
    assert [hedging.order(4.9)[0] for _ in range(4)] == [1] * 4
    assert {hedging.order(5.1)[0] for _ in range(2)} == {0, 1}

    hedging.suspect(0, now=6.0)
    assert [hedging.order(15.9)[0] for _ in range(4)] == [1] * 4

    hedging.answered(0, 0.01)
    assert {hedging.order(15.9)[0] for _ in range(2)} == {0, 1}


def test_hedges_are_at_most_a_tenth_of_calls_for_long():
    hedging = Hedging(2)
    taken = 0
    for _ in range(10_000):
        hedging.order(0.0)
        taken += hedging.take_token()

    assert 1_000 <= taken <= 1_100


def a_decision(**fields) -> routing_pb2.RouteDecision:
    return routing_pb2.RouteDecision(decision_id="d", target=routing_pb2.RouteTarget(node_id="n"), **fields)


def a_request(text: str = "", **fields) -> routing_pb2.RouteRequest:
    return routing_pb2.RouteRequest(**{"model_id": "m", "request_id": text, **fields})


def sized(input_tokens: int | None, output: int | None = None) -> routing_pb2.PromptShape:
    return routing_pb2.PromptShape(input_tokens=input_tokens, max_output_tokens=output)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant_id": "t"},
        {"placement": routing_pb2.Placement(jurisdictions=["EU"])},
        {"qos": routing_pb2.QualityOfService(privacy_level=4)},
        {"adapter": "sql"},
        {"policy_id": "p"},
        {"labels": {"a": "b"}},
        {"origin": routing_pb2.Origin(region_id="r")},
    ],
)
def test_a_last_decision_is_only_for_the_same_shape(other: dict):
    last = LastDecisions(60.0)
    last.keep(a_request("1"), a_decision(), now=0.0)

    assert last.find(a_request("2", session_id="s"), now=1.0) is not None
    assert last.find(a_request("2", **other), now=1.0) is None


@pytest.mark.parametrize(
    ("had", "want", "found"),
    [
        (sized(1_000, 100), sized(1_000, 100), True),
        (sized(1_000, 100), sized(10, 1), True),
        (sized(1_000, 100), sized(1_001, 1), False),
        (sized(1_000, 100), sized(10, 101), False),
        (sized(1_000, 100), sized(10), False),
        (sized(None), sized(10), False),
    ],
)
def test_a_last_decision_is_only_for_prompts_and_answers_that_are_no_larger(had, want, found: bool):
    last = LastDecisions(60.0)
    last.keep(a_request(prompt=had), a_decision(), now=0.0)

    assert (last.find(a_request(prompt=want), now=1.0) is not None) is found


def test_where_a_price_is_bounded_the_sizes_must_be_the_same():
    last = LastDecisions(60.0)
    qos = routing_pb2.QualityOfService(max_price_usd_per_million_tokens=1.0)
    last.keep(a_request(prompt=sized(1_000, 100), qos=qos), a_decision(), now=0.0)

    assert last.find(a_request(prompt=sized(1_000, 100), qos=qos), now=1.0) is not None
    assert last.find(a_request(prompt=sized(10, 100), qos=qos), now=1.0) is None


def test_a_last_decision_has_an_end_and_tells_its_age():
    last = LastDecisions(60.0)
    last.keep(a_request(), a_decision(), now=0.0)

    stale = last.find(a_request(), now=45.0)

    assert stale is not None
    assert (stale.table_age.seconds, stale.valid_for.seconds) == (45, 15)
    assert last.find(a_request(), now=60.5) is None


def test_the_memory_of_last_decisions_is_bounded():
    last = LastDecisions(60.0)
    for number in range(MAX_SHAPES + 1):
        last.keep(a_request(tenant_id=str(number)), a_decision(), now=0.0)

    assert last.find(a_request(tenant_id="0"), now=1.0) is None
    assert last.find(a_request(tenant_id="1"), now=1.0) is not None


def test_the_queue_keeps_order_through_failures_and_accounts_for_every_outcome():
    outcomes = OutcomeQueue(limit=6)
    for number in range(8):
        outcomes.add(routing_pb2.Outcome(attempt=number))
    batch = outcomes.take()
    away = RouteError(grpc.StatusCode.UNAVAILABLE, "", "gone")
    bad = RouteError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "bad")

    assert [outcome.attempt for outcome in batch] == [2, 3, 4, 5, 6, 7]
    assert outcomes.failed(batch, away) is Verdict.RETRY
    assert outcomes.failed(outcomes.take(), bad) is Verdict.SPLIT
    assert [outcome.attempt for outcome in outcomes.take()] == [2, 3, 4]
    assert [outcome.attempt for outcome in outcomes.take()] == [5, 6, 7]
    assert outcomes.failed([routing_pb2.Outcome()], bad) is Verdict.DISCARD
    assert (outcomes.dropped, outcomes.refused, len(outcomes)) == (2, 1, 0)


def test_the_package_hands_out_the_client_without_importing_it_before():
    program = (
        "import sys, federation.edge.service_config, federation.edge as edge\n"
        "assert 'federation.edge.client' not in sys.modules\n"
        "from federation.edge import Client\n"
        "from federation.edge.client import Client as same\n"
        "assert Client is same and all(getattr(edge, name) for name in edge.__all__)\n"
        "assert not hasattr(edge, 'Absent')\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
